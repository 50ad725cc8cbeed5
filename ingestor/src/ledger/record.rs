//! The records of a ledger topic: entries of file versions, and the facts about the ledger itself.

use std::fmt::Display;

use common::config::Archive;
use common::log::{LogError, LogErrorKind, RecordBatch};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::framing::FramingState;

/// Key of the record that fixes facts that a ledger partition depends on. Identities contain a `|`, so none equals it.
pub(crate) const META_KEY: &[u8] = b"!meta";
/// Key of the progress of a replay ([`crate::replay()`]) through the dead letters, in partition 0.
pub(crate) const REPLAY_KEY: &[u8] = b"!dlq-replay";
pub(crate) const ENTRY_VERSION: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FileState {
    /// Some of its events are committed; reading continues at `byte`.
    Reading,
    /// All of it is committed.
    Done,
    /// None of it was published, and it is not retried until an operator requests it.
    Quarantined,
    /// Everything before `byte` is committed; the rest is quarantined.
    Partial,
}

/// One file version, as committed together with its events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub v: u8,
    pub state: FileState,
    /// Relative to `pending/`.
    pub path: String,
    pub size: u64,
    /// Everything before this byte of the uncompressed content is committed.
    pub byte: u64,
    pub framing: FramingState,
    pub events: u64,
    pub rejected: u64,
    /// The number of rejected events of which the dead letter keeps only the first bytes: only the file has them
    /// completely.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cut: u64,
    /// Bytes of committed events and dead letters, with keys and headers.
    #[serde(default)]
    pub published_bytes: u64,
    /// The hash of the whole stored content, if it was read in one pass: xxh3-128, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// The target of the file once this entry is committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<String>,
    /// The archive mode of the file. If the setting changes before the step is performed, the new mode is recorded.
    /// Absent in entries of 0.1.0, which moved the file if there is a target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ArchiveMode>,
    /// The archive step has been performed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub archived: bool,
    /// The file is compressed: it is read from its beginning again, and the content before `byte` is skipped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compressed: bool,
    /// Events and dead letters do not contain all of it, so the file must not be deleted: see [`Entry::is_only_copy`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_copy: bool,
    /// The reason for the quarantine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The time of the last change of state, milliseconds since the Unix epoch; 0 in entries of 0.1.0.
    #[serde(default)]
    pub at_ms: i64,
}

/// [`Archive`] as recorded in an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ArchiveMode {
    Move,
    Tag,
    Leave,
    Delete,
}

impl From<Archive> for ArchiveMode {
    fn from(archive: Archive) -> Self {
        match archive {
            Archive::Move => Self::Move,
            Archive::Tag => Self::Tag,
            Archive::Leave => Self::Leave,
            Archive::Delete => Self::Delete,
        }
    }
}

impl Entry {
    /// The entry of a file without committed events.
    pub(crate) fn new(path: &str, size: u64, at_ms: i64) -> Self {
        Self {
            v: ENTRY_VERSION,
            state: FileState::Reading,
            path: path.to_owned(),
            size,
            byte: 0,
            framing: FramingState::default(),
            events: 0,
            rejected: 0,
            cut: 0,
            published_bytes: 0,
            hash: None,
            archive: None,
            mode: None,
            archived: false,
            compressed: false,
            only_copy: false,
            reason: None,
            at_ms,
        }
    }

    pub(crate) fn mode(&self) -> ArchiveMode {
        match (self.mode, &self.archive) {
            (Some(mode), _) => mode,
            (None, Some(_)) => ArchiveMode::Move,
            (None, None) => ArchiveMode::Leave,
        }
    }

    /// Whether the file is the only copy of some content: a dead letter was cut, or no part of the file was an event,
    /// as with an unknown format. An empty file has no content to lose.
    pub(crate) fn is_only_copy(&self) -> bool {
        self.cut > 0 || (self.events == 0 && self.rejected > 0)
    }

    /// The target of a file that was moved.
    pub(super) fn moved_to(&self) -> Option<&str> {
        let was_moved = self.state == FileState::Done && self.archived && self.mode() == ArchiveMode::Move;
        self.archive.as_deref().filter(|_| was_moved)
    }

    pub(super) fn is_settled(&self) -> bool {
        self.state == FileState::Done && (self.archived || self.mode() == ArchiveMode::Leave)
    }
}

/// Facts that must not change during the life of a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub v: u8,
    pub events_partitions: u32,
    /// Absent in ledgers of 0.1.0, which had one.
    #[serde(default = "one")]
    pub ledger_partitions: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn one() -> u32 {
    1
}

pub(super) fn is_quarantined(entry: &Entry) -> bool {
    matches!(entry.state, FileState::Quarantined | FileState::Partial)
}

pub(super) fn parse_hash(entry: &Entry) -> Option<u128> {
    u128::from_str_radix(entry.hash.as_deref()?, 16).ok()
}

pub(crate) fn push_meta(batch: &mut RecordBatch, meta: Meta) -> Result<(), LogError> {
    push_json(batch, META_KEY, &meta)
}

pub(crate) fn push_entry(batch: &mut RecordBatch, identity: &str, entry: &Entry) -> Result<(), LogError> {
    push_json(batch, identity.as_bytes(), entry)
}

/// Adds the record that makes compaction remove an identity.
pub(crate) fn push_tombstone(batch: &mut RecordBatch, identity: &str) -> Result<(), LogError> {
    batch.push(identity.as_bytes(), None, |_| {})
}

/// The value of a record that is never deleted.
///
/// # Errors
/// It was deleted, or is not such a value.
pub(crate) fn read_json<T: DeserializeOwned>(key: &[u8], value: Option<&[u8]>) -> Result<T, LogError> {
    let value = value.ok_or_else(|| damaged(key, "it was deleted"))?;
    serde_json::from_slice(value).map_err(|error| damaged(key, error))
}

/// The error for a record that cannot be read.
pub(crate) fn damaged(key: &[u8], what: impl Display) -> LogError {
    let key = String::from_utf8_lossy(key);
    LogError::new(LogErrorKind::Other, format!("the ledger entry of '{key}' cannot be read: {what}"))
}

pub(crate) fn push_json(batch: &mut RecordBatch, key: &[u8], value: &impl Serialize) -> Result<(), LogError> {
    let value = serde_json::to_vec(value).map_err(|error| LogError::new(LogErrorKind::BadRecord, error))?;
    batch.push(key, Some(&value), |_| {})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_only_copy_if_a_letter_was_cut_or_nothing_was_an_event() {
        let only_copy = |events, rejected, cut| Entry { events, rejected, cut, ..Entry::new("a", 9, 1) }.is_only_copy();
        assert!(only_copy(5, 1, 1) && only_copy(0, 1, 0) && only_copy(0, 1, 1));
        assert!(!only_copy(5, 1, 0) && !only_copy(5, 0, 0) && !only_copy(0, 0, 0));
    }
}
