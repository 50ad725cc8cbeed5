//! What the ingestor is told.

use std::time::Duration;

use common::config::{Archive, Quarantine};
use common::event::EventFormat;

use crate::content::ExpansionLimits;
use crate::framing::Limits;

#[derive(Debug, Clone)]
pub struct Settings {
    pub events_topic: String,
    pub dlq_topic: String,
    pub ledger_topic: String,
    /// For creating the events topic only.
    pub partitions: u32,
    /// For creating the ledger topic only.
    pub ledger_partitions: u32,
    /// A stable name of this member of the group that shares the ledger's partitions.
    pub instance_id: Option<String>,
    /// `None`: as the landing zone's marker says, else move.
    pub archive: Option<Archive>,
    /// How long files that are gone from `pending/` are remembered.
    pub retain: Duration,
    pub discovery: DiscoverySettings,
    pub quarantine: Quarantine,
    /// What a compressed file may grow to.
    pub expansion: ExpansionLimits,
    /// Of events and dead letters of one file, with keys and headers.
    pub max_published_bytes: u64,
    /// Files that were quarantined before this process began are tried again.
    pub retry_quarantined: bool,
    /// For each ledger partition.
    pub parallel_files: usize,
    /// Events read and not yet committed, of the whole process.
    pub max_memory_bytes: u64,
    /// Of events published; `None`: no limit.
    pub max_bytes_per_second: Option<u64>,
    pub format: EventFormat,
    pub limits: Limits,
    /// End when everything pending at the start is done.
    pub once: bool,
    /// With `once`: how long to try without any progress.
    pub patience: Duration,
}

/// How files are found.
#[derive(Debug, Clone)]
pub struct DiscoverySettings {
    pub poll_interval: Duration,
    /// Between two whole listings of a landing zone of more than one page.
    pub full_sweep_interval: Duration,
    /// A file must be unchanged this long by our clock before it is read; zero for stores that show whole files only.
    pub min_age: Duration,
    pub ignored: IgnoredNames,
}

/// Names below `pending/` that are passed over.
#[derive(Debug, Clone, Default)]
pub struct IgnoredNames {
    /// Of files and of the folders around them.
    pub prefixes: Vec<String>,
    /// Of files.
    pub suffixes: Vec<String>,
}
