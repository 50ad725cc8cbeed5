//! Metrics and logs of the distributor: a batch's metric and its log line come from the same call.

mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::log::LogError;
use common::store::{StoreError, StoreErrorKind};
use common::telemetry::Registry;
use common::telemetry::status::counts_by;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
};
use serde::Serialize;

use crate::batch::Counts;
use crate::close::CloseReason;
use crate::table::Published;

/// Totals of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DistributeReport {
    pub rows: u64,
    pub duplicates: u64,
    pub rejected: u64,
    pub files: u64,
    pub bytes: u64,
    /// Rows in whose `data` lone surrogates were replaced.
    #[serde(skip_serializing_if = "crate::batch::is_zero")]
    pub replaced_surrogates: u64,
    /// Batches of earlier runs whose missing files were made again.
    #[serde(skip_serializing_if = "crate::batch::is_zero")]
    pub restored_batches: u64,
}

pub struct Metrics {
    rows: IntCounter,
    duplicates: IntCounter,
    rejected: IntCounter,
    files: IntCounter,
    bytes: IntCounter,
    unfit: IntCounterVec,
    replaced: IntCounter,
    batches: IntCounterVec,
    restored: IntCounter,
    missing: IntCounter,
    passed_over: IntCounterVec,
    batch_seconds: Histogram,
    commit_failures: IntCounter,
    collection_failures: IntCounter,
    rebalances: IntCounterVec,
    store_errors: IntCounterVec,
    store_seconds: HistogramVec,
    log_errors: IntCounterVec,
    assigned: IntGauge,
    paused: IntGauge,
    parked: IntGauge,
    position: IntGaugeVec,
    last_append: GaugeVec,
    oldest_unflushed: Gauge,
    window_entries: IntGauge,
    window_bytes: IntGauge,
    scratch_bytes: IntGauge,
    open_files: IntGauge,
    behind_seconds: GaugeVec,
    lag_records: IntGaugeVec,
    watermark: Gauge,
    batch_rows: Histogram,
    batch_bytes: Histogram,
    phase_seconds: HistogramVec,
    batch_memory_bytes: IntGauge,
    merged_files: IntCounter,
    merged_bytes: IntCounter,
    merged_rows: IntCounter,
    merge_files: IntCounter,
    merge_bytes: IntCounter,
    merge_skipped: IntCounter,
    merge_failures: IntCounter,
    table_commits: IntCounter,
    table_failures: IntCounter,
    table_version: IntGaugeVec,
    tables_published: Gauge,
}

/// The data of a finished batch.
pub(crate) struct BatchDone<'a> {
    pub topic: &'a str,
    pub partition: i32,
    /// The offsets of the batch.
    pub from: i64,
    pub to: i64,
    pub counts: &'a Counts,
    /// How many files it has, and their bytes.
    pub files: u64,
    pub bytes: u64,
    pub last_append_ms: i64,
    /// By column: values that did not fit it.
    pub unfit: &'a BTreeMap<String, u64>,
    pub made: Made,
    pub total: Duration,
    /// The parts of it.
    pub phases: &'a [(&'static str, Duration)],
}

/// What a round of merging small files came to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Merged {
    /// Small files, with their bytes and rows.
    pub files: u64,
    pub bytes: u64,
    pub rows: u64,
    pub made_files: u64,
    pub made_bytes: u64,
    /// Missing or altered files.
    pub skipped: u64,
}

/// Why a batch was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Made {
    /// It is new, and was closed for this reason.
    Closed(CloseReason),
    /// An earlier owner had begun it.
    Adopted,
    /// It was committed before; some of its files were missing.
    Restored,
}

impl Made {
    fn name(self) -> &'static str {
        match self {
            Self::Closed(reason) => reason.name(),
            Self::Adopted => "adopted",
            Self::Restored => "restored",
        }
    }
}

/// How far a partition's tables are behind its log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Behind {
    pub ms: i64,
    /// `None` if the log did not report its end.
    pub records: Option<i64>,
}

/// Gauges of the whole worker.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WorkerState {
    pub assigned: usize,
    pub paused: usize,
    pub parked: usize,
    pub window_entries: usize,
    pub window_bytes: usize,
    pub scratch_bytes: u64,
    pub open_files: usize,
    pub batch_memory_bytes: usize,
    pub oldest_unflushed: Duration,
}

#[allow(clippy::cast_precision_loss, reason = "exact to the microsecond for thousands of years")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn gauge(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Metrics {
    /// # Errors
    /// The registry already has metrics with these names.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let counters = |name: &str, help: &str, label: &str| {
            let counter = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let gauges = |name: &str, help: &str| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &["topic", "partition"])?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let times = |name: &str, help: &str| {
            let gauge = GaugeVec::new(Opts::new(name, help), &["topic", "partition"])?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let time = |name: &str, help: &str| {
            let gauge = Gauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let seconds = |name: &str, help: &str| {
            let buckets = prometheus::exponential_buckets(0.01, 2.0, 14)?;
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        let sizes = |name: &str, help: &str, first: f64| {
            let buckets = prometheus::exponential_buckets(first, 10.0, 8)?;
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        Ok(Self {
            rows: counter("ed_distribute_rows_total", "Rows written to events")?,
            duplicates: counter("ed_distribute_duplicates_total", "Records dropped as duplicates")?,
            rejected: counter("ed_distribute_rejected_total", "Rows written to rejected")?,
            files: counter("ed_distribute_files_total", "Files of completed batches")?,
            bytes: counter("ed_distribute_bytes_total", "Bytes of the files of completed batches")?,
            unfit: counters(
                "ed_distribute_unfit_values_total",
                "Values that did not fit their column and are null there",
                "column",
            )?,
            replaced: counter(
                "ed_distribute_replaced_surrogates_total",
                "Rows of events in whose data lone surrogates were replaced by U+FFFD (format.lone_surrogates)",
            )?,
            batches: counters(
                "ed_distribute_batches_total",
                "Batches by the reason why they were closed; adopted: an earlier owner had begun them",
                "closed_by",
            )?,
            restored: counter(
                "ed_distribute_batches_restored_total",
                "Completed batches whose missing files were restored",
            )?,
            missing: counter(
                "ed_distribute_files_missing_total",
                "Missing files of complete batches that a replay did not restore",
            )?,
            passed_over: counters(
                "ed_distribute_passed_over_offsets_total",
                "Offsets that nothing was written of: skipped by an operator, or lost by the log",
                "kind",
            )?,
            batch_seconds: seconds(
                "ed_distribute_batch_seconds",
                "Duration of writing a batch, from its end to its completion",
            )?,
            batch_rows: sizes("ed_distribute_batch_rows", "Records of a batch", 1.0)?,
            batch_bytes: sizes("ed_distribute_batch_bytes", "Bytes of a batch's files", 1_000.0)?,
            phase_seconds: {
                let buckets = prometheus::exponential_buckets(0.01, 2.0, 14)?;
                let options = HistogramOpts::new(
                    "ed_distribute_batch_phase_seconds",
                    "The parts of that time: encoding the remaining rows, then putting the cut, the files, the key run and the completion",
                );
                let histogram = HistogramVec::new(options.buckets(buckets), &["phase"])?;
                registry.register(Box::new(histogram.clone()))?;
                histogram
            },
            collection_failures: counter(
                "ed_distribute_collection_failures_total",
                "Checkpoints that could not be put, or old objects that could not be deleted; the next run tries again",
            )?,
            commit_failures: counter(
                "ed_distribute_commit_failures_total",
                "Offset commits that failed; the next one covers them",
            )?,
            rebalances: counters("ed_distribute_rebalances_total", "Assignments and revocations", "kind")?,
            store_errors: counters("ed_distribute_store_errors_total", "Failed store calls by kind", "kind")?,
            store_seconds: {
                let buckets = prometheus::exponential_buckets(0.001, 2.0, 16)?;
                let options = HistogramOpts::new(
                    "ed_distribute_store_seconds",
                    "Time of calls of the trusted zone, by operation, whatever the answer",
                );
                let histogram = HistogramVec::new(options.buckets(buckets), &["operation"])?;
                registry.register(Box::new(histogram.clone()))?;
                histogram
            },
            log_errors: counters("ed_distribute_log_errors_total", "Failed log calls by kind", "kind")?,
            assigned: gauge("ed_distribute_assigned_partitions", "Partitions assigned to this process")?,
            paused: gauge(
                "ed_distribute_paused_partitions",
                "Partitions whose reading is paused until they have processed their records; the others continue",
            )?,
            parked: gauge(
                "ed_distribute_parked_partitions",
                "Partitions that cannot continue until an operator acts or a retry succeeds; the others continue",
            )?,
            position: gauges("ed_distribute_completed_offset", "Offset up to which the trusted zone is complete")?,
            last_append: times(
                "ed_distribute_completed_append_timestamp_seconds",
                "Log-append time of the last completed record, Unix seconds",
            )?,
            oldest_unflushed: time("ed_distribute_oldest_unflushed_seconds", "Age of the oldest open batch")?,
            window_entries: gauge("ed_distribute_window_entries", "Keys in the deduplication windows")?,
            window_bytes: gauge("ed_distribute_window_bytes", "Memory of the deduplication windows")?,
            scratch_bytes: gauge("ed_distribute_scratch_bytes", "Local disk in use for what does not fit in memory")?,
            open_files: gauge("ed_distribute_open_files", "Parquet files begun in the open batches")?,
            behind_seconds: times(
                "ed_distribute_behind_seconds",
                "Age of the oldest record of the topic that is not in the trusted zone yet; 0 when there is none",
            )?,
            lag_records: gauges(
                "ed_distribute_lag_records",
                "Offsets between what has been read, whether committed or not, and the end of the log",
            )?,
            watermark: time(
                "ed_distribute_watermark_timestamp_seconds",
                "Everything with an earlier log time is in the trusted zone, Unix seconds",
            )?,
            batch_memory_bytes: gauge("ed_distribute_batch_memory_bytes", "Memory of the open batches")?,
            merged_files: counter("ed_distribute_merged_files_total", "Small files that were merged and deleted")?,
            merged_bytes: counter("ed_distribute_merged_bytes_total", "Bytes of the small files that were merged")?,
            merged_rows: counter("ed_distribute_merged_rows_total", "Rows of the small files that were merged")?,
            merge_files: counter("ed_distribute_merge_files_total", "Files made of small ones")?,
            merge_bytes: counter("ed_distribute_merge_bytes_total", "Bytes of the files made of small ones")?,
            merge_skipped: counter(
                "ed_distribute_merge_skipped_files_total",
                "Files that were not merged because they are missing or altered, in each round anew",
            )?,
            merge_failures: counter(
                "ed_distribute_merge_failures_total",
                "Rounds of merging small files that failed; the next one tries again",
            )?,
            table_commits: counter("ed_distribute_table_commits_total", "Commits of the Delta tables by this process")?,
            table_failures: counter(
                "ed_distribute_table_failures_total",
                "Rounds of publishing the Delta tables that failed; the next one tries again",
            )?,
            table_version: {
                let help = "Version of a Delta table that this process published last";
                let versions = IntGaugeVec::new(Opts::new("ed_distribute_table_version", help), &["table"])?;
                registry.register(Box::new(versions.clone()))?;
                versions
            },
            tables_published: time(
                "ed_distribute_tables_published_timestamp_seconds",
                "The Delta tables held everything that was committed by this time, Unix seconds",
            )?,
        })
    }

    pub(crate) fn passed_over(&self, kind: &'static str, offsets: i64) {
        self.passed_over.with_label_values(&[kind]).inc_by(offsets.unsigned_abs());
    }

    #[cfg(test)]
    pub(crate) fn collection_failures(&self) -> u64 {
        self.collection_failures.get()
    }

    #[cfg(test)]
    pub(crate) fn paused_partitions(&self) -> i64 {
        self.paused.get()
    }

    #[cfg(test)]
    pub(crate) fn log_errors(&self, kind: &str) -> u64 {
        self.log_errors.with_label_values(&[kind]).get()
    }

    #[cfg(test)]
    pub(crate) fn parked_partitions(&self) -> i64 {
        self.parked.get()
    }

    pub(crate) fn merged(&self, merged: &Merged) {
        self.merged_files.inc_by(merged.files);
        self.merged_bytes.inc_by(merged.bytes);
        self.merged_rows.inc_by(merged.rows);
        self.merge_files.inc_by(merged.made_files);
        self.merge_bytes.inc_by(merged.made_bytes);
        self.merge_skipped.inc_by(merged.skipped);
    }

    pub(crate) fn merging_failed(&self) {
        self.merge_failures.inc();
    }

    pub(crate) fn tables_published(&self, now_ms: i64, published: Published) {
        self.table_commits.inc_by(published.commits);
        for (table, version) in [("events", published.events_version), ("rejected", published.rejected_version)] {
            self.table_version.with_label_values(&[table]).set(i64::try_from(version).unwrap_or(i64::MAX));
        }
        #[allow(clippy::cast_precision_loss, reason = "a time in seconds needs less")]
        self.tables_published.set(now_ms as f64 / 1_000.0);
    }

    pub(crate) fn publishing_failed(&self) {
        self.table_failures.inc();
    }

    pub(crate) fn collection_failed(&self) {
        self.collection_failures.inc();
    }

    pub(crate) fn files_missing(&self, count: usize) {
        self.missing.inc_by(count as u64);
    }

    pub(crate) fn batch_done(&self, done: &BatchDone<'_>) {
        let BatchDone { counts, files, bytes, .. } = *done;
        if done.made != Made::Restored {
            self.batches.with_label_values(&[done.made.name()]).inc();
            self.rows.inc_by(counts.written);
            self.duplicates.inc_by(counts.duplicates);
            self.rejected.inc_by(counts.rejected);
            self.replaced.inc_by(counts.replaced);
            self.files.inc_by(files);
            self.bytes.inc_by(bytes);
            for (column, count) in done.unfit {
                self.unfit.with_label_values(&[column]).inc_by(*count);
            }
        } else {
            self.restored.inc();
        }
        self.batch_seconds.observe(done.total.as_secs_f64());
        for (phase, duration) in done.phases {
            self.phase_seconds.with_label_values(&[*phase]).observe(duration.as_secs_f64());
        }
        #[allow(clippy::cast_precision_loss, reason = "buckets are powers of ten")]
        {
            self.batch_rows.observe(counts.read as f64);
            self.batch_bytes.observe(bytes as f64);
        }
        let partition = done.partition.to_string();
        self.position.with_label_values(&[done.topic, &partition]).set(done.to);
        self.last_append.with_label_values(&[done.topic, &partition]).set(seconds(done.last_append_ms));
        tracing::info!(
            topic = done.topic,
            partition = done.partition,
            from = done.from,
            to = done.to,
            rows = counts.written,
            duplicates = counts.duplicates,
            rejected = counts.rejected,
            replaced_surrogates = (counts.replaced > 0).then_some(counts.replaced),
            files,
            bytes,
            closed_by = done.made.name(),
            took_ms = millis(done.total),
            "batch complete"
        );
    }

    pub(crate) fn commit_failed(&self, error: &LogError) {
        self.commit_failures.inc();
        tracing::warn!(%error, "offsets could not be committed; the commit log has the truth, and the next commit covers them");
    }

    pub(crate) fn rebalanced(&self, kind: &'static str, partitions: &[i32]) {
        self.rebalances.with_label_values(&[kind]).inc();
        tracing::info!(?partitions, "partitions {kind}");
    }

    /// A failure after which the call is repeated.
    pub(crate) fn store_retried(&self, error: &StoreError) {
        self.store_failed(error);
        tracing::warn!(%error, "store call failed; trying again");
    }

    /// A failure, whether or not the call is repeated.
    pub(crate) fn store_failed(&self, error: &StoreError) {
        let kind = match error.kind {
            StoreErrorKind::Transient => "transient",
            StoreErrorKind::Denied => "denied",
            StoreErrorKind::NoSuchStore => "no_such_store",
            _ => "other",
        };
        self.store_errors.with_label_values(&[kind]).inc();
    }

    pub(crate) fn store_answered(&self, operation: &'static str, took: Duration) {
        self.store_seconds.with_label_values(&[operation]).observe(took.as_secs_f64());
    }

    pub(crate) fn log_failed(&self, error: &LogError) {
        self.log_errors.with_label_values(&[&format!("{:?}", error.kind).to_lowercase()]).inc();
    }

    pub(crate) fn behind(&self, topic: &str, partition: i32, behind: Behind) {
        let labels = [topic, &partition.to_string()];
        #[allow(clippy::cast_precision_loss, reason = "a duration")]
        self.behind_seconds.with_label_values(&labels).set(behind.ms as f64 / 1_000.0);
        if let Some(records) = behind.records {
            self.lag_records.with_label_values(&labels).set(records);
        }
    }

    /// Removes partitions that are not in `ours` any more.
    pub(crate) fn behind_only<'a>(&self, topic: &str, ours: impl Iterator<Item = &'a i32>) {
        let ours: BTreeSet<String> = ours.map(ToString::to_string).collect();
        let known = counts_by(&self.lag_records, &["topic", "partition"]).into_keys();
        for labels in known.chain(counts_by(&self.behind_seconds, &["topic", "partition"]).into_keys()) {
            if let [known_topic, partition] = labels.as_slice()
                && known_topic == topic
                && !ours.contains(partition)
            {
                // Removed twice if the chain contains both: the second call finds nothing.
                let _ = self.behind_seconds.remove_label_values(&[known_topic, partition]);
                let _ = self.lag_records.remove_label_values(&[known_topic, partition]);
            }
        }
    }

    /// `None` while a partition has none.
    pub(crate) fn watermark(&self, complete_before_ms: Option<i64>) {
        if let Some(ms) = complete_before_ms {
            self.watermark.set(seconds(ms));
        }
    }

    pub(crate) fn worker_state(&self, state: &WorkerState) {
        self.assigned.set(gauge(state.assigned));
        self.paused.set(gauge(state.paused));
        self.parked.set(gauge(state.parked));
        self.window_entries.set(gauge(state.window_entries));
        self.window_bytes.set(gauge(state.window_bytes));
        self.scratch_bytes.set(i64::try_from(state.scratch_bytes).unwrap_or(i64::MAX));
        self.open_files.set(gauge(state.open_files));
        self.batch_memory_bytes.set(gauge(state.batch_memory_bytes));
        self.oldest_unflushed.set(state.oldest_unflushed.as_secs_f64());
    }

    pub fn report(&self) -> DistributeReport {
        DistributeReport {
            rows: self.rows.get(),
            duplicates: self.duplicates.get(),
            rejected: self.rejected.get(),
            files: self.files.get(),
            bytes: self.bytes.get(),
            replaced_surrogates: self.replaced.get(),
            restored_batches: self.restored.get(),
        }
    }
}
