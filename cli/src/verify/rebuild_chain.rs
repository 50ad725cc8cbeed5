//! `verify --rebuild-chain`: reports and restores missing parts of the chain.

use anyhow::anyhow;
use common::printable::push_line;
use distributor::{ChainRebuild, ChainRebuilder, PartitionRebuild};
use indicatif::{HumanCount, ProgressBar};

use crate::args::{Output, VerifyArgs};
use crate::{Failure, print};

/// Fails if anything is refused: nothing was put then.
pub(super) async fn run(args: &VerifyArgs, rebuilder: &ChainRebuilder, bar: &ProgressBar) -> Result<(), Failure> {
    let rebuild = rebuilder.rebuild(args.dry_run).await;
    bar.reset();
    let rebuild = rebuild?;
    match args.common.output {
        Output::Json => print::json(&serde_json::json!({ "dry_run": args.dry_run, "rebuild": rebuild }))?,
        Output::Text => print::text(&text(&rebuild, args.dry_run))?,
    }
    match rebuild.refusals().count() {
        0 => Ok(()),
        count => Err(anyhow!("the chains of {count} partitions cannot be rebuilt; nothing was put").into()),
    }
}

fn text(rebuild: &ChainRebuild, dry_run: bool) -> String {
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| push_line(&mut text, words);
    let refused = rebuild.refusals().next().is_some();
    let verb = if dry_run || refused { "missing" } else { "put" };
    for partition in &rebuild.partitions {
        if let Some(message) = &partition.refused {
            line(format_args!("refused: {message}"));
            continue;
        }
        if !partition.is_due() && partition.gap_offsets == 0 {
            let PartitionRebuild { partition, from, to, .. } = partition;
            line(format_args!("partition {partition}, offsets {from}..{to}: nothing is missing"));
            continue;
        }
        line(format_args!(
            "partition {}, offsets {}..{}: {verb}: {} origin, {} cuts, {} completions, {} revisions, {} key runs",
            partition.partition,
            partition.from,
            partition.to,
            partition.origins,
            HumanCount(partition.cuts),
            HumanCount(partition.completions),
            HumanCount(partition.revisions),
            HumanCount(partition.key_runs)
        ));
        if partition.recounted_batches > 0 {
            line(format_args!("  {} batches were repeated from the log", HumanCount(partition.recounted_batches)));
        }
        if partition.key_runs_from_rows > 0 {
            line(format_args!(
                "  {} key runs are from rows: without the times of dropped duplicates, which the log no longer has",
                HumanCount(partition.key_runs_from_rows)
            ));
        }
        if partition.gap_offsets > 0 {
            line(format_args!("  {} offsets are permanently skipped", HumanCount(partition.gap_offsets)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_parts_are_reported_and_only_those_put_are_called_put() {
        let whole = PartitionRebuild { partition: 3, to: 90, cuts: 1_200, key_runs_from_rows: 7, ..Default::default() };
        let mut rebuild = ChainRebuild { partitions: vec![whole] };
        let output = text(&rebuild, false);
        assert!(output.contains("partition 3, offsets 0..90: put: 0 origin, 1,200 cuts"), "{output}");
        assert!(output.contains("7 key runs are from rows"), "{output}");
        assert!(text(&rebuild, true).contains("missing: 0 origin"), "{output}");
        let nothing = ChainRebuild { partitions: vec![PartitionRebuild { partition: 1, to: 7, ..Default::default() }] };
        assert_eq!(text(&nothing, false), "partition 1, offsets 0..7: nothing is missing\n");
        rebuild.partitions.push(PartitionRebuild { refused: Some("events/4: why".into()), ..Default::default() });
        let output = text(&rebuild, false);
        assert!(output.contains("refused: events/4: why") && !output.contains("put:"), "{output}");
    }
}
