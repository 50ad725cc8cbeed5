//! Names of the objects of a commit log.

use commitlog::{Hash, SegmentRef};

use crate::CommitLog;
use crate::error::{CommitLogError, Damage, Result};

/// The folders of the two tables.
pub const TABLES: [&str; 2] = ["events", "rejected"];

/// Below it are all commit logs.
pub(crate) const ROOT: &str = "_commits/";

/// Newest first, in a listing that goes up.
fn inverted(n: u64) -> String {
    format!("{:019}", i64::MAX.unsigned_abs().saturating_sub(n))
}

impl CommitLog {
    pub(crate) fn entries_prefix(&self) -> String {
        format!("{}log/", self.prefix)
    }

    pub(crate) fn checkpoints_prefix(&self) -> String {
        format!("{}checkpoints/", self.prefix)
    }

    pub(crate) fn segments_prefix(&self) -> String {
        format!("{}segments/", self.prefix)
    }

    pub(crate) fn keys_prefix(&self) -> String {
        format!("{}keys/", self.prefix)
    }

    /// Key of entry `n`.
    pub fn entry_key(&self, n: u64) -> String {
        format!("{}{}.json", self.entries_prefix(), inverted(n))
    }

    /// Key of the checkpoint of the first `entries` entries that has this hash.
    pub fn checkpoint_key(&self, entries: u64, hash: Hash) -> String {
        format!("{}{}-{}.json", self.checkpoints_prefix(), inverted(entries), short(hash))
    }

    pub(crate) fn segment_key(&self, named: &SegmentRef) -> String {
        format!("{}{}-{}.json", self.segments_prefix(), inverted(named.made), short(named.sha256))
    }

    pub(crate) fn root_key(&self) -> String {
        format!("{}root.json", self.prefix)
    }

    /// Of something that is staged: for which replace.
    pub(crate) fn replace_of_staged(&self, key: &str) -> Result<u64> {
        let name = key.rsplit('/').next().and_then(|name| name.strip_suffix(".parquet"));
        let numbers: Option<(u64, u32)> = name
            .and_then(|name| name.split_once('-'))
            .and_then(|(replace, k)| Some((replace.parse().ok()?, k.parse().ok()?)));
        // One name, one spelling.
        let numbers = numbers.filter(|(replace, k)| key.ends_with(&format!("/{replace}-{k}.parquet")));
        numbers.map(|(replace, _)| replace).ok_or_else(|| CommitLogError::damaged(key, Damage::Name))
    }

    /// Every key run of a batch that begins at `from` or later comes before it, or has it as prefix.
    pub(crate) fn key_runs_from(&self, from: i64) -> String {
        format!("{}{}", self.keys_prefix(), inverted(u64::try_from(from).unwrap_or(0)))
    }

    /// Key of the key run with this hash, of the batch that begins at offset `from`. The hash is part of the name, so that
    /// a key run may be put before it is decided who makes the batch.
    pub fn key_run_key(&self, from: i64, hash: Hash) -> String {
        format!("{}{}-{}.run", self.keys_prefix(), inverted(from.unsigned_abs()), short(hash))
    }

    /// Key of output `k` of a replace, which belongs into this folder, until it is published. It is below the root of its table,
    /// as the table's readers need it, and in folders of the same names, from which some read the values of partition columns.
    /// Engines that list folders pass over names that begin with `_`.
    pub fn staged_key(&self, folder: &str, replace: u64, k: u32) -> String {
        let (table, folders) = folder.split_once('/').unwrap_or((folder, ""));
        format!("{}{folders}/{replace}-{k}.parquet", self.staged_root(table))
    }

    /// Below them are the outputs of all replaces that are not done, and those that were left of others.
    pub(crate) fn staged_roots(&self) -> [String; 2] {
        TABLES.map(|table| self.staged_root(table))
    }

    fn staged_root(&self, table: &str) -> String {
        let log = self.prefix.strip_prefix(ROOT).unwrap_or(&self.prefix);
        format!("{table}/_staged/{log}")
    }

    /// Key of an object whose time of modification tells the time of the store. It is put and deleted as needed.
    pub fn store_clock_key(&self) -> String {
        format!("{}clock", self.prefix)
    }

    /// The lock between puts that make rows visible and deletes of replacers.
    pub(crate) fn fence_key(&self) -> String {
        format!("{}fence", self.prefix)
    }

    /// Of a key run: where its batch begins.
    pub(crate) fn begin_of_key_run(&self, key: &str) -> Result<i64> {
        let name = key.strip_prefix(&self.keys_prefix()).and_then(|name| name.strip_suffix(".run"));
        let number = name.and_then(|name| name.split_once('-')).and_then(|(digits, _)| parsed(digits));
        number.and_then(|n| i64::try_from(n).ok()).ok_or_else(|| CommitLogError::damaged(key, Damage::Name))
    }
}

/// Enough of a hash to tell objects of one number apart. The whole of it is in the object that names this one.
fn short(hash: Hash) -> String {
    hash.to_string().chars().take(16).collect()
}

fn parsed(digits: &str) -> Option<u64> {
    let all_digits = digits.len() == 19 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let inverted = all_digits.then(|| digits.parse::<u64>().ok()).flatten()?;
    i64::MAX.unsigned_abs().checked_sub(inverted)
}

/// The number in the name of an entry, a checkpoint or a segment below `prefix`.
pub(crate) fn number_of(key: &str, prefix: &str) -> Result<u64> {
    let name = key.strip_prefix(prefix).and_then(|name| name.strip_suffix(".json"));
    let digits = name.map(|name| name.split_once('-').map_or(name, |(digits, _)| digits));
    digits.and_then(parsed).ok_or_else(|| CommitLogError::damaged(key, Damage::Name))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use common::store::MemoryStore;
    use proptest::prelude::*;

    use super::*;

    fn log() -> CommitLog {
        CommitLog::new(Arc::new(MemoryStore::default()), "t", 0)
    }

    proptest! {
        #[test]
        fn newer_objects_come_first_and_their_numbers_can_be_read(a in 0..=i64::MAX, b in 0..=i64::MAX) {
            let (log, [n, m]) = (log(), [a.unsigned_abs(), b.unsigned_abs()]);
            prop_assert_eq!(n.cmp(&m), log.entry_key(m).cmp(&log.entry_key(n)));
            prop_assert_eq!(number_of(&log.entry_key(n), &log.entries_prefix()).unwrap(), n);
            let checkpoint = log.checkpoint_key(n, Hash::of(b""));
            prop_assert_eq!(number_of(&checkpoint, &log.checkpoints_prefix()).unwrap(), n);
            let key_run = log.key_run_key(a, Hash::of(b""));
            prop_assert_eq!(key_run > log.key_runs_from(b), a <= b);
            prop_assert_eq!(log.begin_of_key_run(&log.key_run_key(a, Hash::of(b""))).unwrap(), a);
        }
    }

    #[test]
    fn foreign_objects_are_not_taken_for_entries() {
        let log = log();
        for name in ["", "1.json", "+223372036854775807.json", "9999999999999999999.json", "9223372036854775807.jso"] {
            let key = format!("{}{name}", log.entries_prefix());
            assert!(number_of(&key, &log.entries_prefix()).is_err(), "{name}");
        }
    }
}
