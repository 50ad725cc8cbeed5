//! Configuration: TOML file, environment (`ED__SECTION__KEY`) and flags, in rising precedence, become one checked
//! [`Config`] in which invalid combinations cannot exist. Unknown keys are refused, and all errors are reported at
//! once, each with its key.

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
pub use tree::ConfigTree;

/// The most files a batch may be allowed (`flush.max_files`): the documents that list them stay below what a reader takes,
/// however long their names are, which the distributor's tests hold against its limit.
pub const MAX_FILES_PER_BATCH: u64 = 20_000;
/// The most records a batch may be allowed (`flush.max_rows`): its keys, 20 bytes each, are one object, read whole.
pub const MAX_ROWS_PER_BATCH: u64 = 100_000_000;

/// Everything that is wrong with a configuration.
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
    /// How much of a bad event the dead-letter topic keeps.
    pub dlq_max_bytes: usize,
    pub log: LogConfig,
    pub kafka: Option<Kafka>,
    pub dedup: Dedup,
    /// Folder on local disk for what does not fit in memory. `None`: the system's temporary folder.
    pub scratch_dir: Option<PathBuf>,
    pub flush: Flush,
    pub replay_missing: MissingFiles,
    /// Columns of their own for values inside `data`; valid together.
    pub columns: Vec<ColumnRule>,
    pub trusted: Trusted,
    /// Address for /, /status, /livez, /readyz and /metrics.
    pub http_listen: Option<String>,
    /// How long a role keeps trying with `--once` while a log or store is down.
    pub patience: Duration,
}

impl Config {
    /// Folder of the embedded log. By default it is beside the tables when those are local, so that deleting the folder is
    /// a fresh start in every respect; engines pass over names that begin with an underscore.
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
    /// `None`: the landing zone's own marker decides, else files are moved.
    pub archive: Option<Archive>,
    pub poll_interval: Duration,
    pub full_sweep_interval: Duration,
    pub min_age: Duration,
    pub ignore_prefixes: Vec<String>,
    pub ignore_suffixes: Vec<String>,
    pub watch: bool,
    pub sqs_queue_url: Option<String>,
    /// For each ledger partition.
    pub parallel_files: usize,
    pub max_memory_bytes: u64,
    pub max_bytes_per_second: Option<u64>,
    /// Decompressed bytes for each byte of a compressed file.
    pub max_expansion_ratio: u64,
    /// Decompressed bytes of one file.
    pub max_expanded_bytes: u64,
    /// Of events and dead letters of one file.
    pub max_published_bytes: u64,
}

#[derive(Debug, Clone, Copy)]
pub struct Dedup {
    /// How far back, in log time, an equal event counts as a duplicate.
    pub window: Duration,
    /// Of the windows of all partitions, bytes.
    pub max_memory: u64,
}

/// When a file has too many bad events to be believed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quarantine {
    /// From 0 to 1.
    pub max_error_ratio: f64,
    /// Events, good or bad, before the ratio is judged.
    pub min_events: u64,
    pub max_errors: Option<u64>,
}

/// What is remembered of landing files.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// For creation only; `None`: as suits the log.
    pub partitions: Option<u32>,
    pub retain: Duration,
}

/// What becomes of a landing file once every event of it is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archive {
    /// To `processed/date=YYYY-MM-DD/<relative path>`.
    Move,
    /// It stays and is tagged, for a lifecycle rule of the bucket to expire it.
    Tag,
    /// It stays; the ledger remembers it.
    Leave,
    /// It is deleted.
    Delete,
}

impl Archive {
    /// By the names used in settings and marker files.
    pub const NAMES: [(&'static str, Self); 4] =
        [("move", Self::Move), ("tag", Self::Tag), ("leave", Self::Leave), ("delete", Self::Delete)];

    fn parse(text: &str) -> Result<Self, String> {
        values::choice(text, &Self::NAMES)
    }
}

/// What is done about files of complete batches that a replay does not find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingFiles {
    /// They are made again, as long as the log holds their records.
    Restore,
    /// They are reported: somebody deleted them on purpose.
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
    /// Name of the preset that `events` began with.
    pub preset: &'static str,
    pub events: EventFormat,
    pub max_event_bytes: usize,
}

#[derive(Debug, Clone)]
pub struct LogConfig {
    pub events_topic: String,
    pub dlq_topic: String,
    pub ledger_topic: String,
    /// For creation only; `None`: as suits the log.
    pub partitions: Option<u32>,
    /// How long the embedded log keeps records that are in the trusted zone.
    pub retention: Duration,
    /// Folder of the embedded log; [`Config::data_dir`] has the default.
    pub data_dir: Option<PathBuf>,
}

#[derive(Clone)]
pub struct Kafka {
    pub brokers: String,
    pub group: String,
    pub instance_id: Option<String>,
    /// Holds secrets.
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

/// A batch is closed by whichever comes first.
#[derive(Debug, Clone)]
pub struct Flush {
    pub max_age: Duration,
    /// Shorter ones of certain types.
    pub ages: TypeAges,
    /// Estimate of the encoded size of the batch's files together.
    pub max_bytes: u64,
    pub max_rows: u64,
    pub max_files: u64,
    /// Memory of all open batches of the process together.
    pub max_memory: u64,
    /// More files a day are worth a warning.
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

/// Reads a duration as it is written in a configuration.
///
/// # Errors
/// Says what one looks like.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    values::duration(text)
}

/// Reads a landing zone's own marker file: TOML with the single key `archive`. It lets whoever owns a folder say that
/// its files stay, whichever role is pointed at it; configuration still wins.
///
/// # Errors
/// Anything but that one key with a valid value.
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
