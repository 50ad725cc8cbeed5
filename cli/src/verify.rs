//! `verify`: the audit, as a table or as JSON, with exit code 1 if there are findings.

use std::time::Duration;

use anyhow::anyhow;
use common::clock::{Clock, SystemClock};
use common::printable::push_line;
use common::store::Location;
use distributor::{Audit, Auditor, PartitionAudit, Repair};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::{Output, VerifyArgs};
use crate::replay::counted;
use crate::trusted::{self, Trusted};
use crate::wiring::scratch;
use crate::{Failure, print};

/// Findings shown as text; JSON has all.
const SHOWN: usize = 50;

pub async fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    let mut trusted = trusted::open_tables(&args.log, &args.common).await?;
    let mut no_log = trusted::no_log(&trusted.config);
    match trusted::log(&trusted.config).await {
        Ok(log) => trusted.log = log,
        // The commit logs and the tables can be audited meanwhile.
        Err(Failure::Runtime(error)) if trusted::is_locked(&error) => {
            "another process, such as 'run', has the embedded log open; stop it to compare".clone_into(&mut no_log);
        }
        Err(error) => return Err(error),
    }
    let location = &trusted.location;
    let audit = audit(&trusted, args.deep, args.uploads_older_than, Repair::No, args.common.output).await?;
    match args.common.output {
        Output::Json => print::json(&audit)?,
        Output::Text if audit.partitions.is_empty() && audit.is_sound() => {
            trusted.refuse_other_place(&[]).await?;
            print::text(&nothing(&audit, location))?;
        }
        Output::Text => print::text(&text(&audit, &no_log))?,
    }
    refuse_findings(audit.findings.len(), location)
}

/// Audits, with a progress bar.
pub async fn audit(
    trusted: &Trusted,
    deep: bool,
    uploads_older_than: Duration,
    repair: Repair,
    output: Output,
) -> Result<Audit, Failure> {
    let Trusted { config, store, log, group, .. } = trusted;
    let bar = progress(output);
    let drawn = bar.clone();
    let auditor = Auditor {
        store: store.clone(),
        log: log.clone(),
        topic: config.log.events_topic.clone(),
        group: group.clone(),
        window_memory: config.dedup.max_memory,
        batch_memory: config.flush.max_memory,
        scratch: scratch(config)?,
        has_tables: config.table.is_some(),
        deep,
        uploads_older_than,
        now_ms: SystemClock.now_ms(),
        on_batch: Box::new(move |batches| drawn.set_position(batches)),
    };
    let audit = auditor.verify(repair).await;
    bar.finish_and_clear();
    Ok(audit?)
}

pub fn refuse_findings(findings: usize, location: &Location) -> Result<(), Failure> {
    match findings {
        0 => Ok(()),
        count => Err(anyhow!("{} in {location}", counted(count as u64, "finding")).into()),
    }
}

/// Of an empty zone.
fn nothing(audit: &Audit, location: &Location) -> String {
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| push_line(&mut text, words);
    line(format_args!("nothing to audit: {location} has no batches of topic '{}'", audit.topic));
    line(format_args!("nothing was written there yet, or trusted.url is another place"));
    for note in &audit.notes {
        line(format_args!("note: {note}"));
    }
    text
}

fn progress(output: Output) -> ProgressBar {
    let target = if output == Output::Text { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {human_pos} batches") {
        bar.set_style(style);
    }
    bar
}

fn text(audit: &Audit, no_log: &str) -> String {
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| push_line(&mut text, words);
    if audit.partitions.is_empty() {
        line(format_args!("no batches of topic '{}' are in the trusted zone", audit.topic));
    } else {
        line(format_args!(
            "{:>9}  {:>22}  {:>8}  {:>9}  {:>10}  {:>14}  {:>11}  {:>10}  {:>10}",
            "partition", "offsets", "batches", "files", "size", "rows", "duplicates", "rejected", "not read"
        ));
    }
    for partition in &audit.partitions {
        line(format_args!("{}", row(partition)));
    }
    for partition in &audit.partitions {
        if let Some(open) = partition.open {
            let id = partition.partition;
            line(format_args!("partition {id}: the batch {}..{} is being written", open.from, open.to));
        }
        if partition.rewritten_files > 0 {
            let rewritten = HumanCount(partition.rewritten_files);
            line(format_args!("partition {}: files that were rewritten or merged: {rewritten}", partition.partition));
        }
        for command in &partition.finished_by {
            line(format_args!(
                "partition {}: '{command}' is at work, or was interrupted; the next '{command}' goes on with it",
                partition.partition
            ));
        }
        for (offsets, why) in [
            (partition.skipped_offsets, "were skipped, because the group's offset was set forward"),
            (partition.lost_offsets, "were lost: the log dropped them before they were written"),
            (
                partition.abandoned_offsets,
                "were abandoned: the log dropped the first of them before their batch was complete",
            ),
        ] {
            if offsets > 0 {
                line(format_args!("partition {}: {} offsets {why}", partition.partition, HumanCount(offsets)));
            }
        }
    }
    if audit.deep {
        let recounted: u64 = audit.partitions.iter().map(|partition| partition.recounted_batches).sum();
        let all: u64 = audit.partitions.iter().map(|partition| partition.batches).sum();
        line(format_args!(
            "every row was read; {} of {} batches were repeated from the log and compared",
            HumanCount(recounted),
            HumanCount(all)
        ));
    }
    if !audit.log_compared {
        line(format_args!("not compared with the log: {no_log}"));
    }
    for note in &audit.notes {
        line(format_args!("note: {note}"));
    }
    for finding in audit.findings.iter().take(SHOWN) {
        line(format_args!("{}: {}: {}", finding.kind.name(), finding.place, finding.message));
    }
    if audit.findings.len() > SHOWN {
        line(format_args!("… and {} more; --output json has all", audit.findings.len() - SHOWN));
    }
    match (audit.is_sound(), audit.log_compared) {
        (true, true) => line(format_args!("sound: nothing missing, nothing twice, nothing that should not be there")),
        (true, false) => line(format_args!("sound by itself: whether the log holds more was not checked")),
        (false, _) => {}
    }
    text
}

fn row(partition: &PartitionAudit) -> String {
    let count = |number: u64| HumanCount(number).to_string();
    format!(
        "{:>9}  {:>22}  {:>8}  {:>9}  {:>10}  {:>14}  {:>11}  {:>10}  {:>10}",
        partition.partition,
        format!("{}..{}", partition.from, partition.to),
        count(partition.batches),
        count(partition.files),
        HumanBytes(partition.bytes).to_string(),
        count(partition.rows),
        count(partition.duplicates),
        count(partition.rejected),
        partition.log_end.map_or_else(|| "?".to_owned(), |end| count((end - partition.to).max(0).unsigned_abs())),
    )
}

#[cfg(test)]
mod tests {
    use distributor::{Finding, FindingKind};

    use super::*;

    #[test]
    fn the_table_shows_findings_and_skipped_offsets() {
        let partition = PartitionAudit { partition: 3, to: 1_200, rows: 1_000, lost_offsets: 7, ..Default::default() };
        let mut audit = Audit { topic: "events".into(), partitions: vec![partition], ..Audit::default() };
        let output = text(&audit, "there is none");
        assert!(
            output.contains("0..1200") && output.contains("1,000") && output.contains("7 offsets were lost"),
            "{output}"
        );
        assert!(
            output.contains("not compared with the log: there is none") && output.contains("sound by itself"),
            "{output}"
        );
        audit.log_compared = true;
        assert!(text(&audit, "").contains("sound: nothing missing"), "{output}");
        let finding =
            Finding { kind: FindingKind::FileMissing, place: "events/x.parquet".into(), message: "3 rows".into() };
        audit.findings = vec![finding; SHOWN + 2];
        let output = text(&audit, "");
        assert!(output.contains("file-missing: events/x.parquet: 3 rows") && output.contains("and 2 more"), "{output}");
        assert!(!output.contains("sound"), "{output}");
    }

    #[test]
    fn an_empty_zone_is_not_called_sound() {
        let audit = Audit { topic: "events".into(), ..Audit::default() };
        let location = Location::Local("t".into());
        let output = nothing(&audit, &location);
        assert!(
            output.contains("nothing to audit: t has no batches of topic 'events'") && !output.contains("sound"),
            "{output}"
        );
    }
}
