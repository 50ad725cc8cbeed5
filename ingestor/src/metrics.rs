//! What the ingestor counts: for Prometheus, for progress bars and for the summary, from the same calls.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::telemetry::Registry;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts};
use serde::Serialize;

/// Totals of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct IngestReport {
    pub files: Files,
    pub events: Events,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Files {
    pub ingested: u64,
    /// Known to the ledger already.
    pub skipped: u64,
    pub quarantined: u64,
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
    archive_failures: IntCounter,
    events_published: IntCounter,
    events_rejected: IntCounterVec,
    bytes_read: IntCounter,
    transactions: IntCounterVec,
    transaction_seconds: Histogram,
    sessions: IntCounter,
    pending_files: IntGauge,
    rejected_total: AtomicU64,
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
        let labelled = |name: &str, help: &str, label: &str| {
            let counter = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let seconds = HistogramOpts::new(
            "ed_ingest_transaction_seconds",
            "Duration of a transaction, from its beginning to its commit",
        )
        .buckets(prometheus::exponential_buckets(0.005, 2.0, 14)?);
        let transaction_seconds = Histogram::with_opts(seconds)?;
        registry.register(Box::new(transaction_seconds.clone()))?;
        let pending_files = IntGauge::new(
            "ed_ingest_pending_files",
            "Files in pending/ that the last listing saw and the ledger does not have as done",
        )?;
        registry.register(Box::new(pending_files.clone()))?;
        Ok(Self {
            files_ingested: counter("ed_ingest_files_total", "Files whose events are all committed")?,
            files_skipped: counter("ed_ingest_files_skipped_total", "Files seen that the ledger has as done")?,
            files_replaced: counter(
                "ed_ingest_files_replaced_total",
                "Files that changed while they were read, given up and read again",
            )?,
            files_quarantined: counter(
                "ed_ingest_files_quarantined_total",
                "Files that cannot be read under their name and stay in pending/",
            )?,
            archive_failures: counter(
                "ed_ingest_archive_failures_total",
                "Failed moves of finished files, tried again later",
            )?,
            events_published: counter("ed_ingest_events_total", "Events committed to the log")?,
            events_rejected: labelled(
                "ed_ingest_events_rejected_total",
                "Bad events committed to the dead-letter topic",
                "reason",
            )?,
            bytes_read: counter("ed_ingest_read_bytes_total", "Bytes of landing files read")?,
            transactions: labelled("ed_ingest_transactions_total", "Transactions by outcome", "outcome")?,
            transaction_seconds,
            sessions: counter("ed_ingest_sessions_total", "Times the ledger was taken over")?,
            pending_files,
            rejected_total: AtomicU64::new(0),
        })
    }

    pub(crate) fn session_begun(&self) {
        self.sessions.inc();
    }

    pub(crate) fn pending_listed(&self, files: i64) {
        self.pending_files.set(files);
    }

    pub(crate) fn read(&self, bytes: usize) {
        self.bytes_read.inc_by(bytes as u64);
    }

    pub(crate) fn file_skipped(&self) {
        self.files_skipped.inc();
    }

    pub(crate) fn file_replaced(&self) {
        self.files_replaced.inc();
    }

    pub(crate) fn file_quarantined(&self) {
        self.files_quarantined.inc();
    }

    pub(crate) fn archive_failed(&self) {
        self.archive_failures.inc();
    }

    pub(crate) fn committed(&self, events: u64, rejected: &[(&'static str, u64)], files: u64, took: Duration) {
        self.events_published.inc_by(events);
        for (reason, count) in rejected {
            self.events_rejected.with_label_values(&[*reason]).inc_by(*count);
            self.rejected_total.fetch_add(*count, Ordering::Relaxed);
        }
        self.files_ingested.inc_by(files);
        self.transactions.with_label_values(&["committed"]).inc();
        self.transaction_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn transaction_failed(&self) {
        self.transactions.with_label_values(&["failed"]).inc();
    }

    pub fn read_bytes(&self) -> u64 {
        self.bytes_read.get()
    }

    pub fn report(&self) -> IngestReport {
        IngestReport {
            files: Files {
                ingested: self.files_ingested.get(),
                skipped: self.files_skipped.get(),
                quarantined: self.files_quarantined.get(),
            },
            events: Events {
                published: self.events_published.get(),
                rejected: self.rejected_total.load(Ordering::Relaxed),
            },
        }
    }
}
