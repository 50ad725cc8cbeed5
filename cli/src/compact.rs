//! `compact`: merges small files into few large ones, and reports the result beforehand.

use anyhow::anyhow;
use common::clock::{Clock, SystemClock};
use common::printable::push_line;
use distributor::{Compactor, Fence, Host, Pace, PartitionCompaction};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::{CompactArgs, Output};
use crate::replay::counted;
use crate::trusted::{self, Trusted};
use crate::wiring::{compaction_policy, encoding, scratch};
use crate::{Failure, print};

/// Files that could not be merged, shown as text; JSON has all.
const SHOWN: usize = 20;

pub async fn compact(args: &CompactArgs) -> Result<(), Failure> {
    let trusted = if args.offline {
        let trusted = trusted::open(&args.log, &args.common).await?;
        trusted.need_log("compact --offline")?;
        trusted
    } else {
        // `run` has its log, and goes on.
        trusted::open_tables(&args.log, &args.common).await?
    };
    trusted.refuse_other_place(&args.partitions).await?;
    let tables = trusted.tables().await?;
    let Trusted { config, location, store, log, group, .. } = trusted;
    let fence = match (args.offline, args.dry_run) {
        (true, _) => Some(Fence::Offline),
        // Nothing is deleted.
        (false, true) => Some(Fence::Locks),
        (false, false) => Fence::beside(&*store).await?,
    };
    let no_fence =
        || anyhow!("{location} has neither locks nor refuses old requests: stop every distributor, then use --offline");
    let fence = fence.ok_or_else(|| Failure::Runtime(no_fence()))?;
    let bar = progress(args.common.output);
    let drawn = bar.clone();
    let compactor = Compactor {
        store,
        log,
        host: Host::system(),
        topic: config.log.events_topic.clone(),
        group,
        encoding: encoding(&config),
        policy: compaction_policy(&config),
        now_ms: SystemClock.now_ms(),
        scratch: scratch(&config)?,
        fence,
        tables,
        accepts_lost: args.accept_lost,
        since_ms: None,
        pace: Pace::new(None),
        on_file: Box::new(move |files| drawn.set_position(files)),
    };
    let partitions = (!args.partitions.is_empty()).then_some(&args.partitions[..]);
    bar.set_message("looking");
    let planned = compactor.plan(partitions).await;
    let outcome = match planned {
        Ok(plans) if !args.dry_run => {
            bar.set_message("merging");
            bar.set_length(plans.iter().map(|plan| plan.files_made).sum());
            compactor.apply(&plans).await
        }
        planned => planned,
    };
    bar.finish_and_clear();
    let outcome = outcome?;
    match args.common.output {
        Output::Json => print::json(&serde_json::json!({ "dry_run": args.dry_run, "partitions": outcome }))?,
        Output::Text => print::text(&text(&outcome, args.dry_run))?,
    }
    let skipped: usize = outcome.iter().map(|partition| partition.skipped.len()).sum();
    if skipped == 0 {
        return Ok(());
    }
    let files = counted(skipped as u64, "missing or altered file");
    Err(anyhow!("not merged in {location}: {files}; 'verify' says what to do").into())
}

fn progress(output: Output) -> ProgressBar {
    let target = if output == Output::Text { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    if let Ok(style) =
        ProgressStyle::with_template("{spinner} {elapsed} {msg} {human_pos}/{human_len} files {wide_bar}")
    {
        bar.set_style(style);
    }
    bar
}

fn text(partitions: &[PartitionCompaction], dry_run: bool) -> String {
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| push_line(&mut text, words);
    if partitions.is_empty() {
        line(format_args!("nothing to merge: no batch of this topic was written; 'verify' says what the tables have"));
        return text;
    }
    let count = |number: u64| HumanCount(number).to_string();
    line(format_args!(
        "{:>9}  {:>12}  {:>11}  {:>8}  {:>12}  {:>12}  {:>11}  {:>14}  {:>9}",
        "partition",
        "files before",
        "files after",
        "folders",
        "files merged",
        "size merged",
        "files made",
        "rows",
        "requests"
    ));
    for partition in partitions {
        line(format_args!(
            "{:>9}  {:>12}  {:>11}  {:>8}  {:>12}  {:>12}  {:>11}  {:>14}  {:>9}",
            partition.partition,
            count(partition.files_before),
            count(partition.files_after),
            count(partition.folders),
            count(partition.files_removed),
            HumanBytes(partition.bytes_removed).to_string(),
            count(partition.files_made),
            count(partition.rows),
            count(partition.requests),
        ));
    }
    for partition in partitions.iter().filter(|partition| partition.unfinished) {
        let ends = if dry_run { "would be finished" } else { "is finished" };
        line(format_args!("partition {}: a compaction that was interrupted {ends}", partition.partition));
    }
    let skipped: Vec<&String> = partitions.iter().flat_map(|partition| &partition.skipped).collect();
    for path in skipped.iter().take(SHOWN) {
        line(format_args!("not merged, for it is missing or altered: {path}"));
    }
    if skipped.len() > SHOWN {
        line(format_args!("… and {} more; --output json has all", skipped.len() - SHOWN));
    }
    let (removed, made) = partitions
        .iter()
        .fold((0, 0), |(removed, made), partition| (removed + partition.files_removed, made + partition.files_made));
    match (partitions.iter().any(PartitionCompaction::is_due), dry_run) {
        (false, _) => {
            line(format_args!(
                "nothing to do: no small files are to be merged yet (compact.target_size, compact.rest)"
            ));
        }
        (true, true) => {
            line(format_args!("nothing was changed; {} would become {}", counted(removed, "file"), count(made)));
        }
        (true, false) => line(format_args!("{} became {}", counted(removed, "file"), count(made))),
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn partition() -> PartitionCompaction {
        PartitionCompaction {
            partition: 2,
            files_before: 1_500,
            files_after: 40,
            folders: 30,
            files_removed: 1_490,
            bytes_removed: 20_000_000,
            rows: 70_000,
            files_made: 30,
            requests: 3_190,
            ..PartitionCompaction::default()
        }
    }

    #[test]
    fn a_preview_says_what_would_become_of_the_files() {
        let output = text(&[partition()], true);
        assert!(output.contains("1,490 files would become 30") && output.contains("3,190"), "{output}");
        let idle = PartitionCompaction { files_made: 0, files_removed: 0, ..partition() };
        assert!(text(&[idle], true).contains("nothing to do"));
        assert!(text(&[], false).contains("nothing to merge"));
    }

    #[test]
    fn what_was_not_merged_is_named() {
        let skipped: BTreeSet<String> = (0..SHOWN + 2).map(|n| format!("events/{n:02}.parquet")).collect();
        let output = text(&[PartitionCompaction { skipped, unfinished: true, ..partition() }], false);
        assert!(output.contains("events/00.parquet") && output.contains("… and 2 more"), "{output}");
        assert!(output.contains("1,490 files became 30") && output.contains("interrupted is finished"), "{output}");
    }
}
