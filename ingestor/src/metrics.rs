//! Counts the ingestor's work. The same calls feed Prometheus, progress bars, the status page and the summary.

mod board;
mod minute;
mod status;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::store::PassedOver;
use common::telemetry::Registry;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};
use serde::Serialize;

use crate::ledger::Ledger;
use crate::passed_over::{LoggedOnce, PassedOverCounts};
use crate::problems::ProblemBook;
use crate::routes::Backlog;
use board::Board;

/// A file in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quarantined {
    /// Its path below `pending/`.
    pub file: String,
    /// Everything before was published.
    pub from_byte: u64,
    pub reason: String,
}

/// Totals of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct IngestReport {
    pub files: Files,
    pub events: Events,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Files {
    pub ingested: u64,
    /// Already in the ledger.
    pub skipped: u64,
    /// Met by this run, and quarantined now or before.
    pub quarantined: u64,
    /// Met by this run, ingested, and kept in `pending/` instead of being deleted or tagged: only they have the
    /// complete content that is not an event. Omitted if there are none.
    #[serde(skip_serializing_if = "is_zero")]
    pub kept: u64,
    /// Entries that the last whole listing skipped. Omitted if there were none.
    #[serde(skip_serializing_if = "PassedOverCounts::is_empty")]
    pub passed_over: PassedOverCounts,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Events {
    pub published: u64,
    /// Sent to the dead-letter topic.
    pub rejected: u64,
}

pub struct Metrics {
    files_ingested: IntCounter,
    files_skipped: IntCounter,
    files_replaced: IntCounter,
    files_quarantined: IntCounter,
    files_kept: IntCounter,
    late_writes: IntCounter,
    archive_failures: IntCounter,
    events_published: IntCounter,
    events_rejected: IntCounterVec,
    bytes_read: IntCounter,
    transactions: IntCounterVec,
    transaction_seconds: Histogram,
    ownerships: IntCounter,
    pending_files: IntGauge,
    pending_bytes: IntGauge,
    oldest_pending_seconds: Gauge,
    list_requests: IntCounter,
    sweeps: IntCounterVec,
    sweep_seconds: Histogram,
    hints: IntCounterVec,
    passed_over: IntGaugeVec,
    unlisted: IntGauge,
    found: Mutex<PassedOverCounts>,
    logged_once: LoggedOnce,
    owned: IntGaugeVec,
    ledger_entries: IntGaugeVec,
    quarantined: IntGaugeVec,
    problems: IntGauge,
    rejected_total: AtomicU64,
    board: Board,
}

/// Registers metrics by name.
struct Registrar<'a>(&'a Registry);

impl Registrar<'_> {
    fn add<M: prometheus::core::Collector + Clone + 'static>(&self, metric: M) -> Result<M, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.add(IntCounter::new(name, help)?)
    }

    fn counters(&self, name: &str, help: &str, label: &str) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(Opts::new(name, help), &[label])?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.add(IntGauge::new(name, help)?)
    }

    fn gauges(&self, name: &str, help: &str) -> Result<IntGaugeVec, prometheus::Error> {
        self.add(IntGaugeVec::new(Opts::new(name, help), &["partition"])?)
    }

    fn seconds(&self, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
        let buckets = prometheus::exponential_buckets(0.005, 2.0, 14)?;
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?)
    }
}

impl Metrics {
    /// # Errors
    /// The registry already has metrics with these names.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Registrar(registry);
        Ok(Self {
            files_ingested: metrics.counter("ed_ingest_files_total", "Files whose events are all committed")?,
            files_skipped: metrics
                .counter("ed_ingest_files_skipped_total", "Files seen that the ledger has as done")?,
            files_replaced: metrics
                .counter("ed_ingest_files_replaced_total", "Files that changed or vanished while they were read")?,
            files_quarantined: metrics
                .counter("ed_ingest_files_quarantined_total", "Files seen that are quarantined")?,
            files_kept: metrics.counter(
                "ed_ingest_files_kept_total",
                "Ingested files seen that are neither deleted nor tagged: only they have the complete content that is not an event",
            )?,
            late_writes: metrics.counter(
                "ed_ingest_late_writes_total",
                "Moved files that were written to after they were read, put back to be read again",
            )?,
            archive_failures: metrics.counter(
                "ed_ingest_archive_failures_total",
                "Failed archive steps of finished files, tried again later",
            )?,
            events_published: metrics.counter("ed_ingest_events_total", "Events committed to the log")?,
            events_rejected: metrics.counters(
                "ed_ingest_events_rejected_total",
                "Bad events committed to the dead-letter topic",
                "reason",
            )?,
            bytes_read: metrics.counter("ed_ingest_read_bytes_total", "Bytes of landing files read, uncompressed")?,
            transactions: metrics.counters("ed_ingest_transactions_total", "Transactions by outcome", "outcome")?,
            transaction_seconds: metrics.seconds(
                "ed_ingest_transaction_seconds",
                "Duration of a transaction, from its beginning to its commit",
            )?,
            ownerships: metrics.counter("ed_ingest_ownerships_total", "Times a ledger partition was taken over")?,
            pending_files: metrics
                .gauge("ed_ingest_pending_files", "Files found in our ledger partitions and not dealt with yet")?,
            pending_bytes: metrics.gauge("ed_ingest_pending_bytes", "… and their bytes as stored")?,
            oldest_pending_seconds: metrics.add(Gauge::new(
                "ed_ingest_oldest_pending_seconds",
                "Age of the oldest of them by its modification time; 0 if there is none",
            )?)?,
            list_requests: metrics
                .counter("ed_ingest_list_requests_total", "Listing requests, which object stores bill")?,
            sweeps: metrics.counters("ed_ingest_sweeps_total", "Listings by kind: whole, tail or failed", "kind")?,
            sweep_seconds: metrics.seconds("ed_ingest_sweep_seconds", "Duration of a whole listing")?,
            hints: metrics.counters("ed_ingest_hints_total", "Hints of new files by what became of them", "outcome")?,
            passed_over: metrics.add(IntGaugeVec::new(
                Opts::new(
                    "ed_ingest_passed_over_files",
                    "What the last whole listing met that is no file of events, by reason",
                ),
                &["reason"],
            )?)?,
            unlisted: metrics
                .gauge("ed_ingest_unlisted", "Folders and objects that the last whole listing could not list")?,
            found: Mutex::default(),
            logged_once: LoggedOnce::default(),
            owned: metrics.gauges("ed_ingest_owned", "1 for each ledger partition this ingestor owns")?,
            ledger_entries: metrics.gauges("ed_ingest_ledger_entries", "Files remembered, by ledger partition")?,
            quarantined: metrics.gauges("ed_ingest_quarantined_files", "Files in quarantine, by ledger partition")?,
            problems: metrics
                .gauge("ed_ingest_problem_files", "Files that cannot be read or archived at the moment")?,
            rejected_total: AtomicU64::new(0),
            board: Board::new(),
        })
    }

    /// Resets the state for a new membership.
    pub(crate) fn joined(&self, ledger_partitions: u32, problems: Arc<ProblemBook>) {
        self.board.watch(ledger_partitions, problems);
    }

    pub(crate) fn partition_owned(&self, partition: i32) {
        self.ownerships.inc();
        self.board.partition_owned(partition);
        self.owned.with_label_values(&[&partition.to_string()]).set(1);
    }

    pub(crate) fn partition_given_up(&self, partition: i32) {
        let label = partition.to_string();
        for gauges in [&self.owned, &self.ledger_entries, &self.quarantined] {
            // Absent if it was never set.
            let _ = gauges.remove_label_values(&[&label]);
        }
        self.board.partition_given_up(partition);
    }

    pub(crate) fn ledger_is(&self, partition: i32, ledger: &Ledger) {
        let label = partition.to_string();
        self.ledger_entries.with_label_values(&[&label]).set(gauge(ledger.len()));
        self.quarantined.with_label_values(&[&label]).set(gauge(ledger.quarantined()));
        self.board.ledger_is(partition, ledger);
    }

    pub(crate) fn backlog(&self, backlog: &Backlog, now_ms: i64, problems: usize) {
        self.pending_files.set(i64::try_from(backlog.files).unwrap_or(i64::MAX));
        self.pending_bytes.set(i64::try_from(backlog.bytes).unwrap_or(i64::MAX));
        #[allow(clippy::cast_precision_loss, reason = "an age in seconds")]
        let age = backlog.oldest_ms.map_or(0.0, |oldest| now_ms.saturating_sub(oldest).max(0) as f64 / 1000.0);
        self.oldest_pending_seconds.set(age);
        self.problems.set(gauge(problems));
    }

    pub(crate) fn listed(&self) {
        self.list_requests.inc();
    }

    pub(crate) fn swept(&self, kind: &str, took: Option<Duration>) {
        self.sweeps.with_label_values(&[kind]).inc();
        if let Some(took) = took {
            self.sweep_seconds.observe(took.as_secs_f64());
        }
    }

    /// Logged once for each name.
    pub(crate) fn passed_over(&self, entry: &PassedOver) {
        self.logged_once.log(entry);
    }

    /// Records the findings of a whole listing besides files.
    pub(crate) fn whole_listing(&self, passed_over: PassedOverCounts, unlisted: u64) {
        for (reason, count) in passed_over.by_reason() {
            self.passed_over.with_label_values(&[reason]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.unlisted.set(i64::try_from(unlisted).unwrap_or(i64::MAX));
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = passed_over;
    }

    pub(crate) fn hinted(&self, outcome: &str) {
        self.hints.with_label_values(&[outcome]).inc();
    }

    pub(crate) fn read(&self, bytes: usize) {
        self.bytes_read.inc_by(bytes as u64);
        self.board.count(0, bytes as u64);
    }

    pub(crate) fn file_ingested(&self) {
        self.files_ingested.inc();
    }

    pub(crate) fn file_passed(&self) {
        self.files_skipped.inc();
    }

    pub(crate) fn file_replaced(&self) {
        self.files_replaced.inc();
    }

    pub(crate) fn file_quarantined(&self) {
        self.files_quarantined.inc();
    }

    pub(crate) fn file_kept(&self) {
        self.files_kept.inc();
    }

    pub(crate) fn written_late(&self) {
        self.late_writes.inc();
    }

    pub(crate) fn archive_failed(&self) {
        self.archive_failures.inc();
    }

    pub(crate) fn committed(&self, events: u64, rejected: &BTreeMap<&'static str, u64>) {
        self.events_published.inc_by(events);
        self.board.count(events, 0);
        for (reason, count) in rejected {
            self.events_rejected.with_label_values(&[*reason]).inc_by(*count);
            self.rejected_total.fetch_add(*count, Ordering::Relaxed);
        }
    }

    pub(crate) fn transaction_ended(&self, committed: bool, took: Duration) {
        self.transactions.with_label_values(&[if committed { "committed" } else { "failed" }]).inc();
        if committed {
            self.transaction_seconds.observe(took.as_secs_f64());
        }
    }

    pub fn read_bytes(&self) -> u64 {
        self.bytes_read.get()
    }

    /// Files in quarantine of the partitions that this process owns or owned last, the newest hundred.
    pub fn quarantine(&self) -> Vec<Quarantined> {
        let files = self.board.quarantined_at_the_end().into_iter();
        files.map(|file| Quarantined { file: file.path, from_byte: file.from_byte, reason: file.reason }).collect()
    }

    pub fn report(&self) -> IngestReport {
        IngestReport {
            files: Files {
                ingested: self.files_ingested.get(),
                skipped: self.files_skipped.get(),
                quarantined: self.files_quarantined.get(),
                kept: self.files_kept.get(),
                passed_over: *self.found.lock().unwrap_or_else(PoisonError::into_inner),
            },
            events: Events {
                published: self.events_published.get(),
                rejected: self.rejected_total.load(Ordering::Relaxed),
            },
        }
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
