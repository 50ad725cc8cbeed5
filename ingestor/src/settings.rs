//! The settings of the ingestor.

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
    /// Used only to create the events topic.
    pub partitions: u32,
    /// Used only to create the ledger topic.
    pub ledger_partitions: u32,
    /// A stable name of this member of the group that shares the ledger's partitions.
    pub instance_id: Option<String>,
    /// `None`: as the landing zone's marker says, else `move`.
    pub archive: Option<Archive>,
    /// How long files no longer in `pending/` are remembered.
    pub retain: Duration,
    pub discovery: DiscoverySettings,
    pub quarantine: Quarantine,
    /// The limits on the growth of a compressed file.
    pub expansion: ExpansionLimits,
    /// Bytes of events and dead letters of one file, with keys and headers.
    pub max_published_bytes: u64,
    /// Files quarantined before this process began are retried.
    pub retry_quarantined: bool,
    /// For each ledger partition.
    pub parallel_files: usize,
    /// Memory of events read and not yet committed, of the whole process.
    pub max_memory_bytes: u64,
    /// Limits the bytes of published events; `None`: no limit.
    pub max_bytes_per_second: Option<u64>,
    pub format: EventFormat,
    pub limits: Limits,
    /// End when every file pending at the start is done.
    pub once: bool,
    /// With `once`: how long to retry without any progress.
    pub patience: Duration,
}

/// How files are found.
#[derive(Debug, Clone)]
pub struct DiscoverySettings {
    pub poll_interval: Duration,
    /// Between two whole listings of a landing zone of more than one page.
    pub full_sweep_interval: Duration,
    /// A file must be unchanged this long by this process's clock before it is read; zero for stores that show only
    /// complete files.
    pub min_age: Duration,
    pub ignored: IgnoredNames,
}

/// Names below `pending/` that are ignored.
#[derive(Debug, Clone, Default)]
pub struct IgnoredNames {
    /// Prefixes of the names of files and of the folders around them.
    pub prefixes: Vec<String>,
    /// Suffixes of the names of files.
    pub suffixes: Vec<String>,
}
