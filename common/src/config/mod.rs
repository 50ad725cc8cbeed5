//! Configuration: TOML file, environment (`ED__SECTION__KEY`) and flags, in rising precedence, become one checked
//! [`Config`] in which invalid combinations cannot exist. Unknown keys are refused, and all errors are reported at
//! once, each with its key.

mod check;
mod format;
mod settings;
mod tree;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::event::EventFormat;
use crate::store::Location;

pub use settings::{SETTINGS, Setting};
pub use tree::ConfigTree;

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
    pub format: Format,
    pub log: LogConfig,
    pub kafka: Option<Kafka>,
    /// How far back, in log time, an equal event counts as a duplicate.
    pub dedup_window: Duration,
    pub flush: Flush,
    pub trusted: Trusted,
    /// Address for /livez, /readyz and /metrics.
    pub http_listen: Option<String>,
    /// How long a role keeps trying with `--once` while a log or store is down.
    pub patience: Duration,
}

#[derive(Debug, Clone)]
pub struct Landing {
    pub location: Option<Location>,
    /// `None`: the landing zone's own marker decides, else files are moved.
    pub archive: Option<Archive>,
    pub poll_interval: Duration,
    pub min_age: Duration,
}

/// What becomes of a landing file once every event of it is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archive {
    /// To `processed/date=YYYY-MM-DD/<relative path>`.
    Move,
    /// It stays; the ledger remembers it.
    Leave,
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
}

#[derive(Debug, Clone)]
pub struct Kafka {
    pub brokers: String,
    pub group: String,
    pub instance_id: Option<String>,
    pub client: BTreeMap<String, String>,
}

/// A batch is closed by whichever comes first.
#[derive(Debug, Clone)]
pub struct Flush {
    pub max_age: Duration,
    /// Estimate of the encoded size of the batch's files together.
    pub max_bytes: u64,
    pub max_rows: u64,
    /// Memory of all open batches of the process together.
    pub max_memory: u64,
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
            ("archive", Some("move")) => archive = Some(Archive::Move),
            ("archive", Some("leave")) => archive = Some(Archive::Leave),
            ("archive", _) => return Err("archive must be \"move\" or \"leave\"".to_owned()),
            (other, _) => return Err(format!("'{other}' is not known here; the only key is archive")),
        }
    }
    archive.ok_or_else(|| "the key archive is missing".to_owned())
}
