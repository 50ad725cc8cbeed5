//! The ledger: what is known of each landing file version, in a compacted topic keyed by identity.
//!
//! A file version belongs to ledger partition murmur2(identity) mod the topic's partition count, and only the owner of
//! that partition writes there (see [`crate::ownership`]). An entry is committed in the very transaction that holds the
//! events it speaks of, so it is never ahead of them nor behind.
//!
//! In memory an entry that may still be needed whole is kept whole; one that is settled shrinks to what recognizes the
//! file (some 250 bytes), and is forgotten, by a tombstone in the topic, when the file has been gone from `pending/` for
//! `ledger.retain`.

use std::collections::{BTreeSet, HashMap};

use common::config::Archive;
use common::log::{LogError, LogErrorKind, RecordBatch};
use serde::{Deserialize, Serialize};

use crate::framing::FramingState;
use crate::identity::IdentityHash;
use crate::routes::Sweep;

/// Key of the record that fixes facts a ledger partition rests on. Identities hold a `|`, so none can be equal to it.
pub(crate) const META_KEY: &[u8] = b"!meta";
/// Key of the progress of a replay ([`crate::replay()`]) through the dead letters, which stands in partition 0.
pub(crate) const REPLAY_KEY: &[u8] = b"!dlq-replay";
pub(crate) const ENTRY_VERSION: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FileState {
    /// Some of its events are committed; it goes on at `byte`.
    Reading,
    /// All of it is committed.
    Done,
    /// Nothing of it was published, and it is not tried again until somebody asks.
    Quarantined,
    /// What stands before `byte` is committed; the rest is quarantined.
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
    /// Of the whole content as stored, if it was read in one go: xxh3-128, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Where the file moves to once this entry is committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<String>,
    /// What becomes of the file, fixed at the commit; absent in entries of 0.1.0, which moved it if there is a target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ArchiveMode>,
    /// The archive step is done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub archived: bool,
    /// The file is compressed: it is read from its beginning again and what lies before `byte` skipped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compressed: bool,
    /// Why it is quarantined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When the state was reached, milliseconds since the Unix epoch; 0 in entries of 0.1.0.
    #[serde(default)]
    pub at_ms: i64,
}

/// [`Archive`] as it stands in an entry.
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
    /// Of a file nothing is committed of yet.
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
            hash: None,
            archive: None,
            mode: None,
            archived: false,
            compressed: false,
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

    fn is_settled(&self) -> bool {
        self.state == FileState::Done && (self.archived || self.mode() == ArchiveMode::Leave)
    }
}

/// Facts that must not change under a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub v: u8,
    pub events_partitions: u32,
    /// Absent in ledgers of 0.1.0, which had one.
    #[serde(default = "one")]
    pub ledger_partitions: u32,
}

fn one() -> u32 {
    1
}

/// What is known of a file version.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    Whole(Box<Entry>),
    /// Done, with nothing left to do but to recognize it.
    Settled {
        mode: ArchiveMode,
        size: u64,
        hash: Option<u128>,
        at_ms: i64,
    },
}

#[derive(Debug)]
struct Slot {
    identity: Box<str>,
    path: IdentityHash,
    known: Known,
    /// The last listing that showed the file.
    seen: Sweep,
    /// Its state was counted: by its commit, or when it was first seen.
    told: bool,
}

/// What is counted of a file that needs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Done,
    Quarantined,
}

/// What a file's version is to the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    Unknown,
    Whole(Box<Entry>),
    /// Done and archived in this mode.
    Settled(ArchiveMode),
}

/// One partition of the ledger as read, kept up with what its owner commits.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    slots: HashMap<IdentityHash, Slot>,
    /// The last finished version by path: recognizes content that comes back under a new identity.
    done_by_path: HashMap<IdentityHash, IdentityHash>,
    meta: Option<Meta>,
    /// By age.
    quarantined: BTreeSet<(i64, IdentityHash)>,
    quarantine_changes: u64,
}

impl Ledger {
    pub(crate) fn meta(&self) -> Option<Meta> {
        self.meta
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn quarantined(&self) -> usize {
        self.quarantined.len()
    }

    /// Rises whenever a file comes into quarantine, or out of it.
    pub(crate) fn quarantine_changes(&self) -> u64 {
        self.quarantine_changes
    }

    /// At most `limit` quarantined files, the last ones first.
    pub(crate) fn newest_quarantined(&self, limit: usize) -> impl Iterator<Item = &Entry> {
        self.quarantined.iter().rev().take(limit).filter_map(|(_, hash)| match &self.slots.get(hash)?.known {
            Known::Whole(entry) => Some(&**entry),
            Known::Settled { .. } => None,
        })
    }

    /// Looks a version up, noting that a listing showed it.
    pub(crate) fn see(&mut self, identity: &str, now: Sweep) -> Standing {
        match self.slots.get_mut(&IdentityHash::of(identity)) {
            None => Standing::Unknown,
            Some(slot) => {
                slot.seen = slot.seen.max(now);
                match &slot.known {
                    Known::Whole(entry) => Standing::Whole(entry.clone()),
                    Known::Settled { mode, .. } => Standing::Settled(*mode),
                }
            }
        }
    }

    /// Content hash of a finished version of the same path and size, if there is one.
    pub(crate) fn twin_hash(&self, path: &str, size: u64) -> Option<u128> {
        let slot = self.slots.get(self.done_by_path.get(&IdentityHash::of(path))?)?;
        match &slot.known {
            Known::Settled { size: known, hash, .. } if *known == size => *hash,
            Known::Whole(entry) if entry.size == size && entry.state == FileState::Done => parse_hash(entry),
            _ => None,
        }
    }

    /// What is to be counted of a known file, the first time it is asked.
    pub(crate) fn tell(&mut self, identity: &str) -> Option<Told> {
        let slot = self.slots.get_mut(&IdentityHash::of(identity))?;
        if std::mem::replace(&mut slot.told, true) {
            return None;
        }
        match &slot.known {
            Known::Whole(entry) if is_quarantined(entry) => Some(Told::Quarantined),
            Known::Whole(_) | Known::Settled { .. } => Some(Told::Done),
        }
    }

    /// Takes in what is committed; `told` if its state was counted.
    pub(crate) fn insert(&mut self, identity: &str, entry: Entry, seen: Sweep, told: bool) {
        let (hash, path) = (IdentityHash::of(identity), IdentityHash::of(&entry.path));
        self.forget(hash);
        if entry.state == FileState::Done {
            self.done_by_path.insert(path, hash);
        }
        if is_quarantined(&entry) {
            self.quarantined.insert((entry.at_ms, hash));
            self.quarantine_changes += 1;
        }
        let known = if entry.is_settled() {
            Known::Settled { mode: entry.mode(), size: entry.size, hash: parse_hash(&entry), at_ms: entry.at_ms }
        } else {
            Known::Whole(Box::new(entry))
        };
        self.slots.insert(hash, Slot { identity: identity.into(), path, known, seen, told });
    }

    fn forget(&mut self, hash: IdentityHash) {
        let Some(slot) = self.slots.remove(&hash) else { return };
        if self.done_by_path.get(&slot.path) == Some(&hash) {
            self.done_by_path.remove(&slot.path);
        }
        if let Known::Whole(entry) = &slot.known
            && self.quarantined.remove(&(entry.at_ms, hash))
        {
            self.quarantine_changes += 1;
        }
    }

    /// Notes that a settled file was archived once more, in the mode of now.
    pub(crate) fn archived_again(&mut self, identity: &str, now: ArchiveMode) {
        if let Some(Slot { known: Known::Settled { mode, .. }, .. }) = self.slots.get_mut(&IdentityHash::of(identity)) {
            *mode = now;
        }
    }

    /// Forgets a version: its tombstone is committed.
    pub(crate) fn remove(&mut self, identity: &str) {
        self.forget(IdentityHash::of(identity));
    }

    /// The last listing that showed this version.
    pub(crate) fn seen(&self, identity: &str) -> Option<Sweep> {
        self.slots.get(&IdentityHash::of(identity)).map(|slot| slot.seen)
    }

    /// At most `limit` identities of files that no listing has shown from `seen_since` on and whose state is older than
    /// `at_before_ms`.
    pub(crate) fn gone(&self, seen_since: Sweep, at_before_ms: i64, limit: usize) -> Vec<String> {
        let is_gone = |slot: &&Slot| {
            let at_ms = match &slot.known {
                Known::Whole(entry) => entry.at_ms,
                Known::Settled { at_ms, .. } => *at_ms,
            };
            slot.seen < seen_since && at_ms < at_before_ms
        };
        self.slots.values().filter(is_gone).take(limit).map(|slot| slot.identity.to_string()).collect()
    }

    /// Applies a record as read from the topic; the file counts as seen `now`.
    ///
    /// # Errors
    /// A record that is none of ours, naming its key.
    pub(crate) fn apply(&mut self, key: &[u8], value: Option<&[u8]>, now: Sweep) -> Result<(), LogError> {
        let damaged = |what: &dyn std::fmt::Display| {
            let key = String::from_utf8_lossy(key);
            LogError::new(LogErrorKind::Other, format!("the ledger entry of '{key}' cannot be read: {what}"))
        };
        if key == META_KEY {
            let value = value.ok_or_else(|| damaged(&"it was deleted"))?;
            self.meta = Some(serde_json::from_slice(value).map_err(|error| damaged(&error))?);
            return Ok(());
        }
        if key == REPLAY_KEY {
            return Ok(());
        }
        let identity = std::str::from_utf8(key).map_err(|error| damaged(&error))?;
        match value {
            None => self.remove(identity),
            Some(value) => {
                let entry: Entry = serde_json::from_slice(value).map_err(|error| damaged(&error))?;
                if entry.v > ENTRY_VERSION {
                    return Err(damaged(&format!(
                        "it has version {}, this build knows up to {ENTRY_VERSION}",
                        entry.v
                    )));
                }
                self.insert(identity, entry, now, false);
            }
        }
        Ok(())
    }
}

fn is_quarantined(entry: &Entry) -> bool {
    matches!(entry.state, FileState::Quarantined | FileState::Partial)
}

fn parse_hash(entry: &Entry) -> Option<u128> {
    u128::from_str_radix(entry.hash.as_deref()?, 16).ok()
}

pub(crate) fn push_meta(batch: &mut RecordBatch, meta: Meta) -> Result<(), LogError> {
    push_json(batch, META_KEY, &meta)
}

pub(crate) fn push_entry(batch: &mut RecordBatch, identity: &str, entry: &Entry) -> Result<(), LogError> {
    push_json(batch, identity.as_bytes(), entry)
}

/// The record that makes compaction forget an identity.
pub(crate) fn push_tombstone(batch: &mut RecordBatch, identity: &str) -> Result<(), LogError> {
    batch.push(identity.as_bytes(), None, |_| {})
}

pub(crate) fn push_json(batch: &mut RecordBatch, key: &[u8], value: &impl Serialize) -> Result<(), LogError> {
    let value = serde_json::to_vec(value).map_err(|error| LogError::new(LogErrorKind::BadRecord, error))?;
    batch.push(key, Some(&value), |_| {})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(sweep: u64) -> Sweep {
        Sweep::number(sweep)
    }

    fn done(path: &str, hash: &str, at_ms: i64) -> Entry {
        Entry {
            state: FileState::Done,
            hash: Some(hash.to_owned()),
            mode: Some(ArchiveMode::Move),
            archive: Some(format!("processed/{path}")),
            ..Entry::new(path, 10, at_ms)
        }
    }

    #[test]
    fn an_entry_is_whole_until_it_is_archived_and_then_only_recognized() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.see("a|1", at(5)), Standing::Unknown);
        ledger.insert("a|1", done("a", "ff", 1), at(5), false);
        assert_eq!(ledger.see("a|1", at(6)), Standing::Whole(Box::new(done("a", "ff", 1))));
        ledger.insert("a|1", Entry { archived: true, ..done("a", "ff", 1) }, at(6), false);
        assert_eq!(ledger.see("a|1", at(7)), Standing::Settled(ArchiveMode::Move));
        assert_eq!(
            (ledger.twin_hash("a", 10), ledger.twin_hash("a", 11), ledger.twin_hash("b", 10)),
            (Some(255), None, None)
        );
    }

    #[test]
    fn what_was_not_seen_for_long_is_gone_and_nothing_else() {
        let mut ledger = Ledger::default();
        ledger.insert("a|1", done("a", "1", 100), at(100), false);
        ledger.insert("b|1", done("b", "2", 100), at(100), false);
        ledger.insert("c|1", done("c", "3", 900), at(100), false);
        ledger.see("b|1", at(800));
        assert_eq!(ledger.gone(at(500), 500, 10), ["a|1"]);
        ledger.remove("a|1");
        assert_eq!(ledger.gone(at(500), 500, 10), Vec::<String>::new());
        assert_eq!((ledger.len(), ledger.twin_hash("a", 10)), (2, None));
    }

    #[test]
    fn entries_of_the_first_version_are_read() -> Result<(), LogError> {
        let mut ledger = Ledger::default();
        let framing = r#"{"in_array":true,"after_value":true,"column":7}"#;
        let old = format!(
            r#"{{"v":1,"state":"done","path":"a","size":10,"byte":10,"framing":{framing},"events":1,"rejected":0,"archive":"processed/a"}}"#
        );
        ledger.apply(b"a|1", Some(old.as_bytes()), at(9))?;
        let Standing::Whole(entry) = ledger.see("a|1", at(9)) else { return Ok(()) };
        assert_eq!((entry.mode(), entry.archived), (ArchiveMode::Move, false));
        let reading = old.replace("done", "reading").replace(r#","archive":"processed/a""#, "");
        ledger.apply(b"a|1", Some(reading.as_bytes()), at(9))?;
        let Standing::Whole(entry) = ledger.see("a|1", at(9)) else { return Ok(()) };
        assert_eq!((entry.state, entry.byte), (FileState::Reading, 10));
        ledger.apply(b"!meta", Some(br#"{"v":1,"events_partitions":4}"#), at(9))?;
        assert_eq!(ledger.meta(), Some(Meta { v: 1, events_partitions: 4, ledger_partitions: 1 }));
        Ok(())
    }

    #[test]
    fn entries_come_back_as_they_were_committed_and_tombstones_forget_them() -> Result<(), LogError> {
        let entry = Entry {
            state: FileState::Partial,
            reason: Some("too many bad events".to_owned()),
            byte: 77,
            ..Entry::new("ü /x", 100, 3)
        };
        let mut batch = RecordBatch::new();
        push_entry(&mut batch, "ü /x|v", &entry)?;
        push_tombstone(&mut batch, "ü /x|v")?;
        let mut ledger = Ledger::default();
        let record = batch.get(0);
        ledger.apply(record.key, record.value, at(4))?;
        assert_eq!((ledger.see("ü /x|v", at(4)), ledger.quarantined()), (Standing::Whole(Box::new(entry)), 1));
        let record = batch.get(1);
        ledger.apply(record.key, record.value, at(4))?;
        assert_eq!((ledger.see("ü /x|v", at(4)), ledger.quarantined()), (Standing::Unknown, 0));
        Ok(())
    }

    #[test]
    fn an_entry_of_a_later_version_is_refused() {
        let mut entry = Entry::new("a", 1, 0);
        entry.v = ENTRY_VERSION + 1;
        let value = serde_json::to_vec(&entry).unwrap_or_default();
        let error =
            Ledger::default().apply(b"a|1", Some(&value), at(0)).err().map(|error| error.message).unwrap_or_default();
        assert!(error.contains("a|1") && error.contains("version"), "{error}");
    }
}
