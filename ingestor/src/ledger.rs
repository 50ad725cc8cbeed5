//! The ledger: the state of each landing file version, in a compacted topic keyed by identity.
//!
//! A file version belongs to ledger partition murmur2(path) mod the topic's partition count, and only the owner of that
//! partition writes there (see [`crate::ownership`]). An entry is committed in the same transaction as the events that
//! it counts, so it is never ahead of them nor behind.
//!
//! In memory an entry that may still be needed is kept completely. A settled one shrinks to an identification of the
//! file (some 300 bytes). It is removed, with a tombstone in the topic, once the file has been missing from `pending/`
//! for `ledger.retain`.

#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod record;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use common::log::LogError;

use crate::identity::{Halves, IdentityHash, halves, whole};
use crate::routes::Sweep;
use crate::uncovered::Uncovered;

pub(crate) use record::{
    ArchiveMode, ENTRY_VERSION, Entry, FileState, META_KEY, Meta, REPLAY_KEY, damaged, push_entry, push_json,
    push_meta, push_tombstone, read_json,
};
use record::{is_quarantined, parse_hash};

/// The known state of a file version.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    Whole(Box<Entry>),
    /// Done; kept only to identify the file.
    Settled {
        mode: ArchiveMode,
        size: u64,
        hash: Option<Halves>,
        at_ms: i64,
        only_copy: bool,
    },
}

/// A finished file of the same path and size as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Twin {
    /// The hash of the whole stored content.
    pub hash: u128,
    /// Its [`Entry::only_copy`].
    pub only_copy: bool,
}

/// A file that was moved to `processed/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moved {
    pub identity: String,
    pub path: String,
    pub target: String,
    /// The time of the commit.
    pub at_ms: i64,
}

#[derive(Debug)]
struct Slot {
    identity: Box<str>,
    path: IdentityHash,
    known: Known,
    /// The last listing that showed the file.
    seen: Sweep,
    /// Its state was counted: by its commit, or when it was first met.
    counted: bool,
}

/// The kinds of files that need no work, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passed {
    Done { only_copy: bool },
    Quarantined,
}

/// The state of a listed file version in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    Unknown,
    Whole(Box<Entry>),
    /// Done and archived in this mode.
    Settled {
        mode: ArchiveMode,
        only_copy: bool,
    },
}

/// One partition of the ledger in memory, updated with its owner's commits.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Boxed: the table has up to twice as many places as entries, and both sizes while it grows.
    slots: HashMap<IdentityHash, Box<Slot>>,
    /// The last finished version by path: detects repeated content under a new identity.
    done_by_path: HashMap<IdentityHash, IdentityHash>,
    meta: Option<Meta>,
    /// By age.
    quarantined: BTreeSet<(i64, IdentityHash)>,
    quarantine_changes: u64,
    /// While the ledger is read: the files moved last, by age.
    moved: Option<BTreeMap<(i64, IdentityHash), Moved>>,
}

/// The most files that [`Ledger::take_moved`] returns.
pub(crate) const MOST_MOVED: usize = 10_000;

impl Ledger {
    /// A ledger that records moved files until [`Ledger::take_moved`].
    pub(crate) fn noting_moves() -> Self {
        Self { moved: Some(BTreeMap::new()), ..Self::default() }
    }

    /// The files moved last, as far as they were read.
    pub(crate) fn take_moved(&mut self) -> Vec<Moved> {
        self.moved.take().unwrap_or_default().into_values().collect()
    }

    fn note_moved(&mut self, hash: IdentityHash, identity: &str, entry: &Entry) {
        let Some(moved) = &mut self.moved else { return };
        let Some(target) = entry.moved_to() else { return };
        let (path, target) = (entry.path.clone(), target.to_owned());
        moved.insert((entry.at_ms, hash), Moved { identity: identity.to_owned(), path, target, at_ms: entry.at_ms });
        if moved.len() > MOST_MOVED {
            moved.pop_first();
        }
    }

    pub(crate) fn meta(&self) -> Option<Meta> {
        self.meta
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn quarantined(&self) -> usize {
        self.quarantined.len()
    }

    /// Increases whenever a file enters or leaves quarantine.
    pub(crate) fn quarantine_changes(&self) -> u64 {
        self.quarantine_changes
    }

    /// At most `limit` quarantined files, the newest first.
    pub(crate) fn newest_quarantined(&self, limit: usize) -> impl Iterator<Item = &Entry> {
        self.quarantined.iter().rev().take(limit).filter_map(|(_, hash)| match &self.slots.get(hash)?.known {
            Known::Whole(entry) => Some(&**entry),
            Known::Settled { .. } => None,
        })
    }

    /// Looks a version up, and records that a listing showed it.
    pub(crate) fn see(&mut self, identity: &str, now: Sweep) -> Standing {
        match self.slots.get_mut(&IdentityHash::of(identity)) {
            None => Standing::Unknown,
            Some(slot) => {
                slot.seen = slot.seen.max(now);
                match &slot.known {
                    Known::Whole(entry) => Standing::Whole(entry.clone()),
                    Known::Settled { mode, only_copy, .. } => Standing::Settled { mode: *mode, only_copy: *only_copy },
                }
            }
        }
    }

    /// The finished version of the same path and size, if there is one and its content hash is known.
    pub(crate) fn twin(&self, path: &str, size: u64) -> Option<Twin> {
        let slot = self.slots.get(self.done_by_path.get(&IdentityHash::of(path))?)?;
        let (hash, only_copy) = match &slot.known {
            Known::Settled { size: known, hash, only_copy, .. } if *known == size => (hash.map(whole), *only_copy),
            Known::Whole(entry) if entry.size == size && entry.state == FileState::Done => {
                (parse_hash(entry), entry.only_copy)
            }
            _ => return None,
        };
        hash.map(|hash| Twin { hash, only_copy })
    }

    /// How a known file that needs no work is to be counted; `None` if it was counted before.
    pub(crate) fn count(&mut self, identity: &str) -> Option<Passed> {
        let slot = self.slots.get_mut(&IdentityHash::of(identity))?;
        if std::mem::replace(&mut slot.counted, true) {
            return None;
        }
        match &slot.known {
            Known::Whole(entry) if is_quarantined(entry) => Some(Passed::Quarantined),
            Known::Whole(entry) => Some(Passed::Done { only_copy: entry.only_copy }),
            Known::Settled { only_copy, .. } => Some(Passed::Done { only_copy: *only_copy }),
        }
    }

    /// Adds a committed entry; `counted` if its state was counted.
    pub(crate) fn insert(&mut self, identity: &str, entry: Entry, seen: Sweep, counted: bool) {
        let (hash, path) = (IdentityHash::of(identity), IdentityHash::of(&entry.path));
        self.forget(hash);
        if entry.state == FileState::Done {
            self.done_by_path.insert(path, hash);
        }
        if is_quarantined(&entry) {
            self.quarantined.insert((entry.at_ms, hash));
            self.quarantine_changes += 1;
        }
        self.note_moved(hash, identity, &entry);
        let known = if entry.is_settled() {
            Known::Settled {
                mode: entry.mode(),
                size: entry.size,
                hash: parse_hash(&entry).map(halves),
                at_ms: entry.at_ms,
                only_copy: entry.only_copy,
            }
        } else {
            Known::Whole(Box::new(entry))
        };
        let slot = Slot { identity: identity.into(), path, known, seen, counted };
        self.slots.insert(hash, Box::new(slot));
    }

    fn forget(&mut self, hash: IdentityHash) {
        let Some(slot) = self.slots.remove(&hash) else { return };
        if let (Some(moved), Known::Settled { at_ms, .. }) = (&mut self.moved, &slot.known) {
            moved.remove(&(*at_ms, hash));
        }
        if self.done_by_path.get(&slot.path) == Some(&hash) {
            self.done_by_path.remove(&slot.path);
        }
        if let Known::Whole(entry) = &slot.known
            && self.quarantined.remove(&(entry.at_ms, hash))
        {
            self.quarantine_changes += 1;
        }
    }

    /// Records that a settled file was archived again, in the current mode.
    pub(crate) fn rearchived(&mut self, identity: &str, now: ArchiveMode) {
        let slot = self.slots.get_mut(&IdentityHash::of(identity));
        if let Some(Known::Settled { mode, .. }) = slot.map(|slot| &mut slot.known) {
            *mode = now;
        }
    }

    /// Removes a version whose tombstone is committed.
    pub(crate) fn remove(&mut self, identity: &str) {
        self.forget(IdentityHash::of(identity));
    }

    /// The last listing that showed this version.
    pub(crate) fn seen(&self, identity: &str) -> Option<Sweep> {
        self.slots.get(&IdentityHash::of(identity)).map(|slot| slot.seen)
    }

    /// At most `limit` identities of missing files: no listing has shown them since `seen_since`, although the last one
    /// covered their places, and their state is older than `at_before_ms`.
    pub(crate) fn missing(
        &self,
        seen_since: Sweep,
        at_before_ms: i64,
        uncovered: &Uncovered,
        limit: usize,
    ) -> Vec<String> {
        let is_gone = |slot: &&Slot| {
            let at_ms = match &slot.known {
                Known::Whole(entry) => entry.at_ms,
                Known::Settled { at_ms, .. } => *at_ms,
            };
            slot.seen < seen_since && at_ms < at_before_ms && !uncovered.holds(&slot.identity)
        };
        self.slots
            .values()
            .map(|slot| &**slot)
            .filter(is_gone)
            .take(limit)
            .map(|slot| slot.identity.to_string())
            .collect()
    }

    /// Applies a record of the topic; the file counts as seen `now`.
    ///
    /// # Errors
    /// A record of another kind; names its key.
    pub(crate) fn apply(&mut self, key: &[u8], value: Option<&[u8]>, now: Sweep) -> Result<(), LogError> {
        if key == META_KEY {
            self.meta = Some(read_json(key, value)?);
            return Ok(());
        }
        if key == REPLAY_KEY {
            return Ok(());
        }
        let identity = std::str::from_utf8(key).map_err(|error| damaged(key, error))?;
        match value {
            None => self.remove(identity),
            Some(_) => {
                let entry: Entry = read_json(key, value)?;
                if entry.v > ENTRY_VERSION {
                    let what = format!("it has version {}, this build knows up to {ENTRY_VERSION}", entry.v);
                    return Err(damaged(key, what));
                }
                self.insert(identity, entry, now, false);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use common::log::RecordBatch;
    use common::store::{StoreError, StoreErrorKind};

    use super::*;
    use crate::identity::Identities;

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
        let settled = Standing::Settled { mode: ArchiveMode::Move, only_copy: false };
        assert_eq!(ledger.see("a|1", at(7)), settled);
        let hash = |path, size| ledger.twin(path, size).map(|twin| twin.hash);
        assert_eq!((hash("a", 10), hash("a", 11), hash("b", 10)), (Some(255), None, None));
    }

    #[test]
    fn the_files_moved_last_are_returned_once_and_removed_ones_are_not() {
        let mut ledger = Ledger::noting_moves();
        let moved = |path: &str, at_ms| Entry { archived: true, ..done(path, "1", at_ms) };
        for number in 0..MOST_MOVED + 2 {
            let path = format!("{number:05}");
            ledger.insert(&format!("{path}|1"), moved(&path, i64::try_from(number).unwrap_or(0)), at(1), false);
        }
        ledger.insert("waits|1", done("waits", "1", 1), at(1), false);
        ledger.remove("00003|1");
        let taken = ledger.take_moved();
        assert_eq!((taken.len(), taken[0].path.as_str(), taken[1].path.as_str()), (MOST_MOVED - 1, "00002", "00004"));
        assert_eq!((taken[0].identity.as_str(), taken[0].target.as_str()), ("00002|1", "processed/00002"));
        ledger.insert("later|1", moved("later", 1), at(1), false);
        assert!(ledger.take_moved().is_empty());
    }

    /// The documentation states 300 bytes: this value, the text of the identity (some 100 bytes), and 32 bytes in the
    /// table of paths. Tables are three quarters full on average.
    #[test]
    fn a_file_that_is_remembered_takes_little_memory() {
        assert!(size_of::<(IdentityHash, Slot)>() <= 112, "{} bytes", size_of::<(IdentityHash, Slot)>());
    }

    #[test]
    fn only_files_not_seen_for_long_are_missing() {
        let mut ledger = Ledger::default();
        ledger.insert("a|1", done("a", "1", 100), at(100), false);
        ledger.insert("b|1", done("b", "2", 100), at(100), false);
        ledger.insert("c|1", done("c", "3", 900), at(100), false);
        ledger.see("b|1", at(800));
        let missing = |ledger: &Ledger, uncovered: &Uncovered| ledger.missing(at(500), 500, uncovered, 10);
        let denied = StoreError::new(StoreErrorKind::Denied, "list", "pending/a", "no");
        let uncovered = Uncovered::new(&Identities::default(), &[denied], 1);
        assert_eq!(missing(&ledger, &uncovered), Vec::<String>::new(), "the listing could not say");
        assert_eq!(missing(&ledger, &Uncovered::default()), ["a|1"]);
        ledger.remove("a|1");
        assert_eq!(missing(&ledger, &Uncovered::default()), Vec::<String>::new());
        assert_eq!((ledger.len(), ledger.twin("a", 10)), (2, None));
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
