//! `rewrite`: rewrites batches under the current settings, and reports the result beforehand.

use std::collections::BTreeSet;

use anyhow::anyhow;
use common::config::MissingFiles;
use common::printable::push_line;
use distributor::{Fence, Host, PartitionRewrite, Rewriter};
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::{Output, RewriteArgs};
use crate::trusted::{self, Trusted};
use crate::wiring::{encoding, layout, scratch};
use crate::{Failure, print, replay};

pub async fn rewrite(args: &RewriteArgs) -> Result<(), Failure> {
    let target = replay::target("--from", &args.from)?;
    let trusted = trusted::open(&args.log, &args.common).await?;
    let log = trusted.need_log("rewrite")?;
    trusted.refuse_other_place(&args.partitions).await?;
    let tables = trusted.tables().await?;
    let Trusted { config, location, store, group, .. } = trusted;
    let beside = if args.offline || args.dry_run { Some(Fence::Offline) } else { Fence::beside(&*store).await? };
    let no_fence =
        || anyhow!("{location} has neither locks nor refuses old requests: stop every distributor, then use --offline");
    let fence = beside.ok_or_else(|| Failure::Runtime(no_fence()))?;
    let bar = progress(args.common.output);
    let drawn = bar.clone();
    let rewriter = Rewriter {
        store,
        log,
        host: Host::system(),
        topic: config.log.events_topic.clone(),
        group,
        layout: layout(&config),
        encoding: encoding(&config),
        window_memory: config.dedup.max_memory,
        batch_memory: config.flush.max_memory,
        scratch: scratch(&config)?,
        all: args.force,
        restores: config.replay_missing == MissingFiles::Restore,
        require_all: args.require_all,
        tables,
        accepts_lost: args.accept_lost,
        fence,
        on_batch: Box::new(move |batches| drawn.set_position(batches)),
    };
    let partitions = (!args.partitions.is_empty()).then_some(&args.partitions[..]);
    bar.set_message("looking");
    let planned = rewriter.plan(target, partitions).await;
    let due: u64 = planned.iter().flatten().map(|plan| plan.rewritten).sum();
    let outcome = match planned {
        Ok(plans) if !args.dry_run => {
            bar.set_message("rewriting");
            bar.set_length(plans.iter().filter(|plan| plan.is_due()).map(|plan| plan.batches).sum());
            bar.set_position(0);
            rewriter.apply(&plans).await
        }
        planned => planned,
    };
    bar.finish_and_clear();
    let outcome = outcome?;
    match args.common.output {
        Output::Json => print::json(&serde_json::json!({ "dry_run": args.dry_run, "partitions": outcome }))?,
        Output::Text => print::text(&text(&outcome, args.dry_run, args.force))?,
    }
    let taken: u64 = outcome.iter().map(|partition| partition.taken).sum();
    if taken > 0 && !args.dry_run {
        return Err(anyhow!("{} were left out: 'compact' has their files", batches(taken)).into());
    }
    let settled = |partition: &PartitionRewrite| partition.rewritten + partition.mixed + partition.not_in_log;
    let settled: u64 = outcome.iter().map(settled).sum();
    if settled < due && !args.dry_run {
        let left = batches(due - settled);
        return Err(anyhow!("others have replaced files of {left} meanwhile, which were left out: run it again").into());
    }
    let lost: u64 = outcome.iter().map(|partition| partition.lost_files).sum();
    if lost > 0 {
        let files = replay::counted(lost, "file");
        return Err(anyhow!(
            "only a backup has {files}: the log no longer has the records; 'verify' names what is missing"
        )
        .into());
    }
    Ok(())
}

fn progress(output: Output) -> ProgressBar {
    let target = if output == Output::Text { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    if let Ok(style) =
        ProgressStyle::with_template("{spinner} {elapsed} {msg} {human_pos}/{human_len} batches {wide_bar}")
    {
        bar.set_style(style);
    }
    bar
}

fn batches(number: u64) -> String {
    format!("{} batch{}", HumanCount(number), if number == 1 { "" } else { "es" })
}

fn text(partitions: &[PartitionRewrite], dry_run: bool, force: bool) -> String {
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| push_line(&mut text, words);
    if partitions.is_empty() {
        line(format_args!(
            "nothing to rewrite: no batch of this topic was written there or later; 'verify' says what the tables have"
        ));
        return text;
    }
    let count = |number: u64| HumanCount(number).to_string();
    line(format_args!(
        "{:>9}  {:>22}  {:>8}  {:>10}  {:>10}  {:>14}  {:>10}  {:>10}",
        "partition", "offsets", "batches", "rewritten", "not in log", "files removed", "made", "rows"
    ));
    let made = |number: u64| if dry_run { "?".to_owned() } else { count(number) };
    for partition in partitions {
        line(format_args!(
            "{:>9}  {:>22}  {:>8}  {:>10}  {:>10}  {:>14}  {:>10}  {:>10}",
            partition.partition,
            format!("{}..{}", partition.from, partition.to),
            count(partition.batches),
            count(partition.rewritten),
            count(partition.not_in_log),
            count(partition.files_removed),
            made(partition.files_made),
            made(partition.rows_made),
        ));
    }
    let differences: BTreeSet<&String> = partitions.iter().flat_map(|partition| &partition.differences).collect();
    for difference in differences {
        line(format_args!("differs: {difference}"));
    }
    for partition in partitions.iter().filter(|partition| partition.unfinished) {
        let ends = if dry_run { "would be finished" } else { "is finished" };
        line(format_args!("partition {}: a rewrite that was interrupted {ends}", partition.partition));
    }
    let not_in_log: u64 = partitions.iter().map(|partition| partition.not_in_log).sum();
    if not_in_log > 0 {
        let stay = if not_in_log == 1 { "stays as it is" } else { "stay as they are" };
        line(format_args!("{} {stay}: the log no longer has the records", batches(not_in_log)));
    }
    let restored: u64 = partitions.iter().map(|partition| partition.restored_files).sum();
    if restored > 0 {
        let made = if dry_run { "would be made again" } else { "made again" };
        line(format_args!("lost files: {} {made}, and the others of their batches stay", HumanCount(restored)));
    }
    let taken: u64 = partitions.iter().map(|partition| partition.taken).sum();
    if taken > 0 {
        line(format_args!(
            "{} are being merged by a 'compact' that is at work or was interrupted: run 'compact', then this again",
            batches(taken)
        ));
    }
    let mixed: u64 = partitions.iter().map(|partition| partition.mixed).sum();
    if mixed > 0 {
        line(format_args!("{} stay as they are: two of their types have one folder", batches(mixed)));
    }
    let rewritten: u64 = partitions.iter().map(|partition| partition.rewritten).sum();
    let is_due = partitions.iter().any(PartitionRewrite::is_due);
    match (is_due, dry_run) {
        (false, _) => {
            let every = if not_in_log + taken + mixed > 0 { "every other batch" } else { "every batch" };
            let force = if force { "" } else { "; --force rewrites it nevertheless" };
            line(format_args!("nothing to do: {every} is as the settings say{force}"));
        }
        (true, true) => line(format_args!("nothing was changed; {} would be rewritten", batches(rewritten))),
        (true, false) => line(format_args!("{} rewritten", batches(rewritten))),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition() -> PartitionRewrite {
        PartitionRewrite {
            partition: 1,
            from: 0,
            to: 1_200,
            batches: 6,
            rewritten: 4,
            not_in_log: 2,
            files_removed: 9,
            files_made: 11,
            rows_made: 1_100,
            differences: BTreeSet::from(["max_types: 1 -> 2".to_owned()]),
            ..PartitionRewrite::default()
        }
    }

    #[test]
    fn a_preview_counts_the_batches_to_rewrite_with_reasons() {
        let output = text(&[partition()], true, false);
        assert!(output.contains("4 batches would be rewritten") && output.contains("max_types: 1 -> 2"), "{output}");
        assert!(output.contains("2 batches stay as they are") && !output.contains("1,100"), "{output}");
    }

    #[test]
    fn a_report_counts_what_was_rewritten() {
        let output = text(&[PartitionRewrite { unfinished: true, ..partition() }], false, false);
        assert!(output.contains("1,100") && output.contains("interrupted is finished"), "{output}");
        let idle = PartitionRewrite { rewritten: 0, not_in_log: 0, ..partition() };
        assert!(text(&[idle], false, false).contains("nothing to do: every batch is"));
    }
}
