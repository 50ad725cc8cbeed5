//! What the distributor counts and logs: a batch's metric and its log line come from the same call.

mod status;

use std::time::Duration;

use common::log::LogError;
use common::store::{StoreError, StoreErrorKind};
use common::telemetry::Registry;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};
use serde::Serialize;

use crate::chain::{Completion, CutKind};

/// Totals of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DistributeReport {
    pub rows: u64,
    pub duplicates: u64,
    pub rejected: u64,
    pub files: u64,
    pub bytes: u64,
}

pub struct Metrics {
    rows: IntCounter,
    duplicates: IntCounter,
    rejected: IntCounter,
    files: IntCounter,
    bytes: IntCounter,
    restored: IntCounter,
    missing: IntCounter,
    passed_over: IntCounterVec,
    batch_seconds: Histogram,
    encode_seconds: Histogram,
    commit_failures: IntCounter,
    compaction_failures: IntCounter,
    rebalances: IntCounterVec,
    store_errors: IntCounterVec,
    log_errors: IntCounterVec,
    assigned: IntGauge,
    position: IntGaugeVec,
    last_append_ms: IntGaugeVec,
    oldest_unflushed_ms: IntGauge,
    window_entries: IntGauge,
    window_bytes: IntGauge,
    batch_memory_bytes: IntGauge,
}

/// What a finished batch tells.
pub(crate) struct BatchDone<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub completion: &'a Completion,
    /// False when the completion stood there already and files were only made again.
    pub fresh: bool,
    pub total: Duration,
    pub encoding: Duration,
}

/// Gauges of the whole worker.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WorkerState {
    pub assigned: usize,
    pub window_entries: usize,
    pub window_bytes: usize,
    pub batch_memory_bytes: usize,
    pub oldest_unflushed: Duration,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn gauge(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Metrics {
    /// # Errors
    /// The registry has metrics of these names already.
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
        let seconds = |name: &str, help: &str| {
            let buckets = prometheus::exponential_buckets(0.01, 2.0, 14)?;
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
            restored: counter(
                "ed_distribute_batches_restored_total",
                "Completed batches whose missing files were made again",
            )?,
            missing: counter(
                "ed_distribute_files_missing_total",
                "Files of complete batches that a replay did not find and did not make again",
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
            encode_seconds: seconds("ed_distribute_encode_seconds", "The part of it spent on encoding what was left")?,
            compaction_failures: counter(
                "ed_distribute_compaction_failures_total",
                "Old cuts that could not be compacted: no harm to the tables, but the chain keeps its many objects",
            )?,
            commit_failures: counter(
                "ed_distribute_commit_failures_total",
                "Offset commits that failed; the next one covers them",
            )?,
            rebalances: counters("ed_distribute_rebalances_total", "Assignments and revocations", "kind")?,
            store_errors: counters("ed_distribute_store_errors_total", "Failed store calls by kind", "kind")?,
            log_errors: counters("ed_distribute_log_errors_total", "Failed log calls by kind", "kind")?,
            assigned: gauge("ed_distribute_assigned_partitions", "Partitions in our hands")?,
            position: gauges("ed_distribute_completed_offset", "Offset up to which the trusted zone is complete")?,
            last_append_ms: gauges(
                "ed_distribute_completed_append_time_ms",
                "Log-append time of the last completed record, Unix milliseconds",
            )?,
            oldest_unflushed_ms: gauge(
                "ed_distribute_oldest_unflushed_ms",
                "Age of the oldest open batch, milliseconds",
            )?,
            window_entries: gauge("ed_distribute_window_entries", "Keys in the deduplication windows")?,
            window_bytes: gauge("ed_distribute_window_bytes", "Memory of the deduplication windows")?,
            batch_memory_bytes: gauge("ed_distribute_batch_memory_bytes", "Memory of the open batches")?,
        })
    }

    pub(crate) fn passed_over(&self, kind: CutKind, offsets: i64) {
        self.passed_over.with_label_values(&[kind.name()]).inc_by(offsets.unsigned_abs());
    }

    #[cfg(test)]
    pub(crate) fn compaction_failures(&self) -> u64 {
        self.compaction_failures.get()
    }

    pub(crate) fn compaction_failed(&self) {
        self.compaction_failures.inc();
    }

    pub(crate) fn files_missing(&self, count: usize) {
        self.missing.inc_by(count as u64);
    }

    pub(crate) fn batch_done(&self, done: &BatchDone<'_>) {
        let counts = &done.completion.counts;
        let files = done.completion.files.len() as u64;
        let bytes: u64 = done.completion.files.iter().map(|file| file.bytes).sum();
        if done.fresh {
            self.rows.inc_by(counts.written);
            self.duplicates.inc_by(counts.duplicates);
            self.rejected.inc_by(counts.rejected);
            self.files.inc_by(files);
            self.bytes.inc_by(bytes);
        } else {
            self.restored.inc();
        }
        self.batch_seconds.observe(done.total.as_secs_f64());
        self.encode_seconds.observe(done.encoding.as_secs_f64());
        let partition = done.partition.to_string();
        self.position.with_label_values(&[done.topic, &partition]).set(done.completion.to);
        self.last_append_ms.with_label_values(&[done.topic, &partition]).set(done.completion.last_append_ms);
        tracing::info!(
            topic = done.topic,
            partition = done.partition,
            from = done.completion.from,
            to = done.completion.to,
            rows = counts.written,
            duplicates = counts.duplicates,
            rejected = counts.rejected,
            files,
            bytes,
            restored = !done.fresh,
            took_ms = millis(done.total),
            "batch complete"
        );
    }

    pub(crate) fn commit_failed(&self, error: &LogError) {
        self.commit_failures.inc();
        tracing::warn!(%error, "offsets could not be committed; the chain has the truth, the next commit covers them");
    }

    pub(crate) fn rebalanced(&self, kind: &'static str, partitions: &[i32]) {
        self.rebalances.with_label_values(&[kind]).inc();
        tracing::info!(?partitions, "partitions {kind}");
    }

    pub(crate) fn store_failed(&self, error: &StoreError) {
        let kind = match error.kind {
            StoreErrorKind::Transient => "transient",
            StoreErrorKind::Denied => "denied",
            StoreErrorKind::NoSuchStore => "no_such_store",
            _ => "other",
        };
        self.store_errors.with_label_values(&[kind]).inc();
        tracing::warn!(%error, "store call failed; trying again");
    }

    pub(crate) fn log_failed(&self, error: &LogError) {
        self.log_errors.with_label_values(&[&format!("{:?}", error.kind).to_lowercase()]).inc();
    }

    pub(crate) fn worker_state(&self, state: &WorkerState) {
        self.assigned.set(gauge(state.assigned));
        self.window_entries.set(gauge(state.window_entries));
        self.window_bytes.set(gauge(state.window_bytes));
        self.batch_memory_bytes.set(gauge(state.batch_memory_bytes));
        self.oldest_unflushed_ms.set(i64::try_from(state.oldest_unflushed.as_millis()).unwrap_or(i64::MAX));
    }

    pub fn report(&self) -> DistributeReport {
        DistributeReport {
            rows: self.rows.get(),
            duplicates: self.duplicates.get(),
            rejected: self.rejected.get(),
            files: self.files.get(),
            bytes: self.bytes.get(),
        }
    }
}
