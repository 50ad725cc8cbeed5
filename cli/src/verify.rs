//! `verify`: the audit, as a table or as JSON, with exit code 1 when anything is found.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use common::clock::SystemClock;
use common::config::Config;
use common::log::{EmbeddedLog, Log};
use common::shutdown::Shutdown;
use common::store::{LocalStore, Location, RetryPolicy, RetryingStore, Store};
use distributor::{Audit, Auditor, Encoding, PartitionAudit, Repair};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::{Output, VerifyArgs};
use crate::wiring::{EMBEDDED_GROUP, default_data_dir, kafka_log, required, s3};
use crate::{Failure, configure};

/// Findings shown as text; JSON has all.
const SHOWN: usize = 50;

#[allow(clippy::print_stdout, reason = "the command's result")]
pub async fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    let flags =
        [("--brokers", "kafka.brokers", args.brokers.as_ref()), ("--trusted", "trusted.url", args.trusted.as_ref())];
    let config = configure::config(&args.common, &flags)?;
    let location = required(config.trusted.location.as_ref(), "trusted.url", "--trusted")?;
    let (log, group) = log(args, &config, location).await?;
    let bar = progress(args.common.output);
    let drawn = bar.clone();
    let auditor = Auditor {
        store: store(&config, location).await?,
        log,
        topic: config.log.events_topic.clone(),
        group,
        encoding: Encoding { compression: config.trusted.compression, bloom_filter: config.trusted.bloom_filter },
        deep: args.deep,
        on_batch: Box::new(move |batches| drawn.set_position(batches)),
    };
    let audit = auditor.verify(if args.repair { Repair::Orphans } else { Repair::No }).await;
    bar.finish_and_clear();
    let audit = audit?;
    match args.common.output {
        Output::Json => println!("{}", serde_json::to_string(&audit)?),
        Output::Text => print!("{}", text(&audit)),
    }
    match audit.findings.len() {
        0 => Ok(()),
        count => Err(anyhow!("{count} findings in {location}").into()),
    }
}

fn progress(output: Output) -> ProgressBar {
    let target = if output == Output::Text { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {human_pos} batches") {
        bar.set_style(style);
    }
    bar
}

async fn store(config: &Config, location: &Location) -> Result<Arc<dyn Store>, Failure> {
    let store: Arc<dyn Store> = match location {
        // Opened as it is: an audit makes no folders.
        Location::Local(path) if path.is_dir() => Arc::new(LocalStore::open(path.clone())),
        Location::Local(path) => {
            return Err(Failure::usage(anyhow!("trusted.url: {} is not a folder", path.display())));
        }
        location => s3(location).await?,
    };
    let policy = RetryPolicy {
        patience: Some(config.patience.min(Duration::from_secs(60))),
        wait_for_operator: false,
        shutdown: Shutdown::new(),
        on_retry: Arc::new(|error| tracing::warn!(%error, "the trusted zone cannot be reached; trying again")),
    };
    Ok(Arc::new(RetryingStore::new(store, policy)))
}

/// Kafka if it is configured, else the embedded log if there is one.
async fn log(
    args: &VerifyArgs,
    config: &Config,
    location: &Location,
) -> Result<(Option<Arc<dyn Log>>, String), Failure> {
    if let Some(kafka) = &config.kafka {
        return Ok((Some(kafka_log(config)?), kafka.group.clone()));
    }
    let data_dir: PathBuf = args.data_dir.clone().unwrap_or_else(|| default_data_dir(location));
    let group = EMBEDDED_GROUP.to_owned();
    if !EmbeddedLog::exists(&data_dir) {
        return Ok((None, group));
    }
    Ok((Some(Arc::new(EmbeddedLog::open(&data_dir, Arc::new(SystemClock)).await?)), group))
}

fn text(audit: &Audit) -> String {
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{words}");
    };
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
        for (offsets, why) in [
            (partition.skipped_offsets, "were skipped, because the group's offset was set forward"),
            (partition.lost_offsets, "were lost: the log let go of them before they were written"),
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
            "every row was read; {} of {} batches were made again from the log and compared",
            HumanCount(recounted),
            HumanCount(all)
        ));
    }
    if !audit.log_compared {
        line(format_args!("no log to compare with: name it with --brokers or --data-dir"));
    }
    for removed in &audit.removed {
        line(format_args!("removed {removed}"));
    }
    for finding in audit.findings.iter().take(SHOWN) {
        line(format_args!("{}: {}: {}", finding.kind.name(), finding.place, finding.message));
    }
    if audit.findings.len() > SHOWN {
        line(format_args!("… and {} more; --output json has all", audit.findings.len() - SHOWN));
    }
    if audit.is_sound() {
        line(format_args!("sound: nothing missing, nothing twice, nothing that should not be there"));
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
    fn the_table_tells_what_was_found_and_what_was_passed_over() {
        let partition = PartitionAudit { partition: 3, to: 1_200, rows: 1_000, lost_offsets: 7, ..Default::default() };
        let mut audit = Audit { topic: "events".into(), partitions: vec![partition], ..Audit::default() };
        let told = text(&audit);
        assert!(told.contains("0..1200") && told.contains("1,000") && told.contains("7 offsets were lost"), "{told}");
        assert!(told.contains("no log to compare with") && told.contains("sound"), "{told}");
        let finding =
            Finding { kind: FindingKind::FileMissing, place: "events/x.parquet".into(), message: "3 rows".into() };
        audit.findings = vec![finding; SHOWN + 2];
        let told = text(&audit);
        assert!(told.contains("file-missing: events/x.parquet: 3 rows") && told.contains("and 2 more"), "{told}");
        assert!(!told.contains("sound"), "{told}");
    }
}
