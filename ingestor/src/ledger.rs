//! The ledger: what is known of each landing file version, in a compacted topic keyed by identity.

use std::collections::HashMap;
use std::time::Duration;

use common::log::{Log, LogError, LogErrorKind, RecordBatch, Retention, TopicSpec, read_to_end};
use serde::{Deserialize, Serialize};

use crate::framing::FramingState;

/// Files belong to ledger partition murmur2(identity) mod this; with one partition there is one owner.
const LEDGER_PARTITIONS: u32 = 1;
/// Key of the record that fixes facts the whole ledger rests on. No identity can be equal to it.
const META_KEY: &[u8] = b"!meta";
/// How long the log may be silent while the ledger is read.
const READ_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FileState {
    /// Some of its events are committed; it goes on at `byte`.
    Reading,
    /// All of it is committed.
    Done,
}

/// One file version, as committed together with its events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub v: u8,
    pub state: FileState,
    /// Relative to `pending/`.
    pub path: String,
    pub size: u64,
    /// Everything before this byte is committed.
    pub byte: u64,
    pub framing: FramingState,
    pub events: u64,
    pub rejected: u64,
    /// Of the whole content, if it was read in one go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Where the file moves to once this entry is committed; none = it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Meta {
    v: u8,
    events_partitions: u32,
}

/// The ledger as read, kept up with what this session commits.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: HashMap<String, Entry>,
    /// Identity of the last finished version, by path: recognizes content that comes back under a new identity.
    done_by_path: HashMap<String, String>,
    events_partitions: Option<u32>,
}

impl Ledger {
    pub(crate) fn get(&self, identity: &str) -> Option<&Entry> {
        self.entries.get(identity)
    }

    /// A finished file of the same path and size, whose content hash is known.
    pub(crate) fn twin(&self, path: &str, size: u64) -> Option<&Entry> {
        let entry = self.entries.get(self.done_by_path.get(path)?)?;
        (entry.size == size && entry.hash.is_some()).then_some(entry)
    }

    pub(crate) fn insert(&mut self, identity: String, entry: Entry) {
        if entry.state == FileState::Done {
            self.done_by_path.insert(entry.path.clone(), identity.clone());
        }
        self.entries.insert(identity, entry);
    }

    fn apply(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), LogError> {
        let damaged = |what: &dyn std::fmt::Display| {
            let key = String::from_utf8_lossy(key);
            LogError::new(LogErrorKind::Other, format!("the ledger entry of '{key}' cannot be read: {what}"))
        };
        let Some(value) = value else {
            self.entries.remove(&*String::from_utf8_lossy(key));
            return Ok(());
        };
        if key == META_KEY {
            let meta: Meta = serde_json::from_slice(value).map_err(|error| damaged(&error))?;
            self.events_partitions = Some(meta.events_partitions);
            return Ok(());
        }
        let identity = std::str::from_utf8(key).map_err(|error| damaged(&error))?;
        let entry: Entry = serde_json::from_slice(value).map_err(|error| damaged(&error))?;
        self.insert(identity.to_owned(), entry);
        Ok(())
    }
}

/// Creates or verifies the ledger topic.
pub(crate) async fn ensure_topic(log: &dyn Log, topic: &str) -> Result<(), LogError> {
    let spec = TopicSpec { name: topic.to_owned(), partitions: LEDGER_PARTITIONS, retention: Retention::Compact };
    let info = log.ensure_topic(&spec).await?;
    if info.partitions != LEDGER_PARTITIONS {
        return Err(LogError::new(
            LogErrorKind::Misconfigured,
            format!(
                "the ledger topic '{topic}' has {} partitions; this version needs {LEDGER_PARTITIONS}",
                info.partitions
            ),
        ));
    }
    Ok(())
}

/// Id of the one writer that may write a ledger partition: derived from the topic, so that two ingestors cannot be
/// configured past each other.
pub(crate) fn writer_id(topic: &str) -> String {
    format!("event-distributor-ingest-{topic}-0")
}

/// Reads the ledger to its end. To be called after the writer id is owned, so that nobody else adds to it.
///
/// # Errors
/// Also when the events topic has another partition count than when the ledger was begun: keys would move.
pub(crate) async fn read(
    log: &dyn Log,
    topic: &str,
    events_topic: &str,
    events_partitions: u32,
) -> Result<Ledger, LogError> {
    let mut ledger = Ledger::default();
    read_to_end(log, topic, 0, READ_PATIENCE, |chunk| {
        chunk.records.iter().try_for_each(|record| ledger.apply(record.key, record.value))
    })
    .await?;
    match ledger.events_partitions {
        Some(recorded) if recorded != events_partitions => Err(LogError::new(
            LogErrorKind::Misconfigured,
            format!(
                "topic '{events_topic}' has {events_partitions} partitions, but the ledger '{topic}' was begun with {recorded}: \
                 equal events would land in different partitions and duplicates be missed; use a new log.events_topic"
            ),
        )),
        _ => Ok(ledger),
    }
}

/// True when the fact record still has to be written.
pub(crate) fn needs_meta(ledger: &Ledger) -> bool {
    ledger.events_partitions.is_none()
}

pub(crate) fn push_meta(batch: &mut RecordBatch, events_partitions: u32) -> Result<(), LogError> {
    push_json(batch, META_KEY, &Meta { v: 1, events_partitions })
}

pub(crate) fn push_entry(batch: &mut RecordBatch, identity: &str, entry: &Entry) -> Result<(), LogError> {
    push_json(batch, identity.as_bytes(), entry)
}

fn push_json(batch: &mut RecordBatch, key: &[u8], value: &impl Serialize) -> Result<(), LogError> {
    let value = serde_json::to_vec(value).map_err(|error| LogError::new(LogErrorKind::BadRecord, error))?;
    batch.push(key, Some(&value), |_| {})
}
