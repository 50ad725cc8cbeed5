//! Configuration: TOML file, environment (`ED__SECTION__KEY`) and flags, in rising precedence, become one checked
//! [`Config`] that cannot hold an invalid combination. Unknown keys are refused. All errors are reported at once, each
//! with its key.

mod ages;
mod check;
mod client;
mod columns;
mod format;
mod group;
mod overlap;
mod secrets;
mod settings;
mod tree;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::event::{ColumnRule, EventFormat};
use crate::store::Location;

pub use ages::TypeAges;
pub use check::{MAX_DEDUP_WINDOW, limits};
pub use settings::{SETTINGS, Setting};
pub use tree::{ConfigTree, ShownSetting};

/// The upper limit of `flush.max_files`. Documents that list a batch's files stay below the size that readers accept,
/// whatever the length of the names; the distributor's tests check this.
pub const MAX_FILES_PER_BATCH: u64 = 20_000;
/// The upper limit of `flush.max_rows`: a batch's keys, 20 bytes each, are one object that is read whole.
pub const MAX_ROWS_PER_BATCH: u64 = 100_000_000;

/// All errors of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [only] => write!(formatter, "configuration: {only}"),
            many => {
                write!(formatter, "configuration has {} errors:", many.len())?;
                many.iter().try_for_each(|error| write!(formatter, "\n  - {error}"))
            }
        }
    }
}

impl std::error::Error for ConfigErrors {}

#[derive(Debug, Clone)]
pub struct Config {
    pub landing: Landing,
    pub quarantine: Quarantine,
    pub format: Format,
    pub ledger: Ledger,
    /// The number of bytes of a bad event that the dead-letter topic keeps.
    pub dlq_max_bytes: usize,
    pub log: LogConfig,
    pub kafka: Option<Kafka>,
    pub dedup: Dedup,
    /// Local folder for data that exceeds the memory limits; `None`: the system's temporary folder.
    pub scratch_dir: Option<PathBuf>,
    pub flush: Flush,
    pub replay_missing: MissingFiles,
    pub compact: Compact,
    /// `None`: only files, no tables over them.
    pub table: Option<TableConfig>,
    /// Additional columns for values inside `data`; valid in combination.
    pub columns: Vec<ColumnRule>,
    pub trusted: Trusted,
    /// The address of /, /status, /livez, /readyz and /metrics.
    pub http_listen: Option<String>,
    /// How long a role retries with `--once` while a log or store is down.
    pub patience: Duration,
}

impl Config {
    /// Folder of the embedded log. The default is beside local tables: deleting their folder then resets everything.
    /// Query engines ignore names that begin with an underscore.
    #[must_use]
    pub fn data_dir(&self) -> Option<PathBuf> {
        let default = |trusted: &Location| match trusted {
            Location::Local(path) => path.join("_log"),
            Location::S3 { bucket, prefix } => Path::new(".event-distributor").join(bucket).join(prefix),
        };
        self.log.data_dir.clone().or_else(|| self.trusted.location.as_ref().map(default))
    }
}

#[derive(Debug, Clone)]
pub struct Landing {
    pub location: Option<Location>,
    /// `None`: the landing zone's marker file decides, else files are moved.
    pub archive: Option<Archive>,
    pub poll_interval: Duration,
    pub full_sweep_interval: Duration,
    pub min_age: Duration,
    pub ignore_prefixes: Vec<String>,
    pub ignore_suffixes: Vec<String>,
    pub watch: bool,
    pub sqs_queue_url: Option<String>,
    /// The number of files read at a time, for each ledger partition.
    pub parallel_files: usize,
    pub max_memory_bytes: u64,
    pub max_bytes_per_second: Option<u64>,
    /// Decompressed bytes for each byte of a compressed file.
    pub max_expansion_ratio: u64,
    /// Decompressed bytes of one file.
    pub max_expanded_bytes: u64,
    /// Bytes of all events and dead letters of one file.
    pub max_published_bytes: u64,
}

#[derive(Debug, Clone, Copy)]
pub struct Dedup {
    /// How far back, in log time, an event with the same key counts as a duplicate.
    pub window: Duration,
    /// Bytes of the windows of all partitions together.
    pub max_memory: u64,
}

/// Which files are merged, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compact {
    /// Bytes of a file that is large enough.
    pub target_bytes: u64,
    /// How old the newest batch of a folder is that has rested.
    pub rest: Duration,
    /// The pause between two rounds of a distributor; `None`: only the command merges.
    pub every: Option<Duration>,
    /// Of small files that a distributor reads.
    pub max_bytes_per_second: u64,
}

/// How tables are kept over the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableConfig {
    /// The pause between two rounds of publishing.
    pub every: Duration,
    /// How long replaced files are kept for readers of older versions.
    pub retain: Duration,
}

/// When a file has so many bad events that it is quarantined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quarantine {
    /// Bad events divided by all events, 0 to 1.
    pub max_error_ratio: f64,
    /// The ratio is judged from this many events on, good or bad.
    pub min_events: u64,
    pub max_errors: Option<u64>,
}

/// How landing files are remembered.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// Used only to create the topic; `None`: the log's default.
    pub partitions: Option<u32>,
    pub retain: Duration,
}

/// What happens to a landing file once all its events are committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archive {
    /// The file is moved to `processed/date=YYYY-MM-DD/<relative path>`.
    Move,
    /// The file stays and is tagged, so that a lifecycle rule of the bucket can expire it.
    Tag,
    /// The file stays, and the ledger remembers it.
    Leave,
    /// The file is deleted.
    Delete,
}

impl Archive {
    /// The names in settings and marker files.
    pub const NAMES: [(&'static str, Self); 4] =
        [("move", Self::Move), ("tag", Self::Tag), ("leave", Self::Leave), ("delete", Self::Delete)];

    fn parse(text: &str) -> Result<Self, String> {
        values::choice(text, &Self::NAMES)
    }
}

/// What a replay does about missing files of complete batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingFiles {
    /// They are restored from the log, as long as it holds their records.
    Restore,
    /// They are only reported: they may have been deleted on purpose.
    Report,
}

impl MissingFiles {
    const NAMES: [(&'static str, Self); 2] = [("restore", Self::Restore), ("report", Self::Report)];

    fn parse(text: &str) -> Result<Self, String> {
        values::choice(text, &Self::NAMES)
    }
}

#[derive(Debug, Clone)]
pub struct Format {
    /// The preset that `events` is based on.
    pub preset: &'static str,
    pub events: EventFormat,
    pub max_event_bytes: usize,
}

#[derive(Debug, Clone)]
pub struct LogConfig {
    pub events_topic: String,
    pub dlq_topic: String,
    pub ledger_topic: String,
    /// Used only to create the topic; `None`: the log's default.
    pub partitions: Option<u32>,
    /// How long the embedded log keeps records after they are in the trusted zone.
    pub retention: Duration,
    /// Folder of the embedded log; [`Config::data_dir`] applies the default.
    pub data_dir: Option<PathBuf>,
}

#[derive(Clone)]
pub struct Kafka {
    pub brokers: String,
    pub group: String,
    pub instance_id: Option<String>,
    /// May hold secrets.
    pub client: BTreeMap<String, String>,
}

impl fmt::Debug for Kafka {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { brokers, group, instance_id, client } = self;
        let keys: Vec<_> = client.keys().collect();
        formatter
            .debug_struct("Kafka")
            .field("brokers", brokers)
            .field("group", group)
            .field("instance_id", instance_id)
            .field("client", &keys)
            .finish()
    }
}

/// The limits of a batch. The first one reached closes it.
#[derive(Debug, Clone)]
pub struct Flush {
    pub max_age: Duration,
    /// Shorter ages for certain types.
    pub ages: TypeAges,
    /// Estimated encoded size of the batch's files together.
    pub max_bytes: u64,
    pub max_rows: u64,
    pub max_files: u64,
    /// Memory of all open batches of the process together.
    pub max_memory: u64,
    /// The number of Parquet files a day above which `check` warns.
    pub warn_files_per_day: u64,
}

#[derive(Debug, Clone)]
pub struct Trusted {
    pub location: Option<Location>,
    pub compression: Compression,
    pub bloom_filter: bool,
    pub max_types: u32,
    pub min_year: i64,
    pub max_year: i64,
    pub max_rows_per_file: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    Zstd,
    Snappy,
}

/// Parses a duration as written in a configuration.
///
/// # Errors
/// The text is not a duration; the message shows the format.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    values::duration(text)
}

/// Parses a landing zone's marker file: TOML with the single key `archive`. With it the owner of a folder can decide
/// that its files stay, for every role that reads it. The configuration takes precedence.
///
/// # Errors
/// Anything other than that key with a valid value.
pub fn parse_marker(text: &str) -> Result<Archive, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
    let mut archive = None;
    for (key, value) in &table {
        match (key.as_str(), value.as_str()) {
            ("archive", Some(mode)) => {
                archive = Some(Archive::parse(mode).map_err(|error| format!("archive: {error}"))?);
            }
            ("archive", None) => return Err("archive must be a string".to_owned()),
            (other, _) => return Err(format!("'{other}' is not known here; the only key is archive")),
        }
    }
    archive.ok_or_else(|| "the key archive is missing".to_owned())
}
