//! The world: log, store, actors, requests under way.

use std::collections::BTreeMap;

use crate::actor::Anchor;
use crate::hash::Hash;
use crate::op::{FileId, Recipe, Stored, Witness};

/// Offsets as bits.
pub(super) type Rows = u16;

pub(super) const WITNESS: Witness = Witness { append_ms: 0, key_hash: 0 };

/// A folder of a layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Folder {
    /// Of layout 1, which makes a file of even and one of odd offsets.
    Split,
    /// Of layout 2, which makes one file.
    Whole,
}

impl Folder {
    fn name(self) -> &'static str {
        match self {
            Self::Split => "split",
            Self::Whole => "whole",
        }
    }

    pub(super) fn named(name: &str) -> Self {
        if name == Self::Split.name() { Self::Split } else { Self::Whole }
    }
}

/// Where a file stands. Two layouts may make files of one number in different folders: both are visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub folder: Folder,
    pub id: FileId,
}

impl Key {
    pub(super) fn new(folder: &str, id: FileId) -> Self {
        Self { folder: Folder::named(folder), id }
    }
}

/// A request of a crashed actor that is still under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Late {
    Entry { n: u64, ops: u32 },
    File { key: Key, rows: Rows, anchor: Anchor },
    Keys { from: i64 },
    Staged { id: FileId, rows: Rows },
    Delete { key: Key },
    Publish { key: Key, anchor: Anchor },
    Blank { key: Key },
    Drop { replace: u64 },
    Offset { to: i64 },
}

/// How often what may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Budget {
    pub crashes: u8,
    pub resets: u8,
    pub deletions: u8,
    pub moves: u8,
    /// Staged files that are lost.
    pub losses: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct World {
    /// Every entry ever appended, as the number of its prefix.
    pub log: u32,
    /// Entries below it are deleted.
    pub deleted: u64,
    /// What who slept put where entries are deleted.
    pub holes: BTreeMap<u64, u32>,
    pub floor: u64,
    /// Entries that the newest checkpoint holds.
    pub checkpoint: u64,
    pub files: BTreeMap<Key, Rows>,
    pub staged: BTreeMap<FileId, Rows>,
    /// Begins of the batches that have a key run.
    pub keys: Vec<i64>,
    /// Puts that rest on no more entries are refused.
    pub fence: Anchor,
    pub committed: Option<i64>,
    /// First offset that the log holds.
    pub start: i64,
    pub actors: Vec<u32>,
    pub late: Vec<Late>,
    pub budget: Budget,
    /// Rows that an operator deleted.
    pub taken: Rows,
    /// Rows of files that an owner reported as missing.
    pub reported: Rows,
}

pub(super) fn stored(rows: Rows) -> Stored {
    Stored { rows: rows.into(), bytes: 0, sha256: HASH.with(|hash| *hash), bounds: None }
}

thread_local! {
    static HASH: Hash = Hash::of(b"");
}

pub(super) fn rows_of(stored: &Stored) -> Rows {
    Rows::try_from(stored.rows).expect("rows of the model are a mask")
}

pub(super) fn range(from: i64, to: i64) -> Rows {
    (from..to).fold(0, |rows, offset| rows | 1 << offset)
}

/// Folder and rows of each file of a batch.
pub(super) fn plan(from: i64, to: i64, recipe: &Recipe) -> Vec<(Folder, Rows)> {
    let all = range(from, to);
    if recipe.layout == 2 {
        return vec![(Folder::Whole, all)];
    }
    let halves = [0b0101_0101_0101_0101, 0b1010_1010_1010_1010].map(|half| (Folder::Split, all & half));
    halves.into_iter().filter(|(_, rows)| *rows > 0).collect()
}

/// Folders of the files of a batch, as an intent names them.
pub(super) fn folders(from: i64, to: i64, recipe: &Recipe) -> Vec<String> {
    plan(from, to, recipe).into_iter().map(|(folder, _)| folder.name().to_owned()).collect()
}

impl World {
    pub(super) fn put_keys(&mut self, from: i64) {
        if let Err(at) = self.keys.binary_search(&from) {
            self.keys.insert(at, from);
        }
    }

    pub(super) fn drop_staged(&mut self, replace: u64) {
        self.staged.retain(|id, _| !matches!(id, FileId::Replace { replace: of, .. } if *of == replace));
    }

    /// Copies what is staged to its name: false if it is not there.
    pub(super) fn publish(&mut self, key: Key) -> bool {
        let Some(rows) = self.staged.get(&key.id).copied() else { return false };
        self.files.insert(key, rows);
        true
    }
}
