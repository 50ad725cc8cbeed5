//! The commit log of a log partition in a store.
//!
//! Below `_commits/<topic>/<partition>/`:
//!
//! | Object | Put | Content |
//! |---|---|---|
//! | `log/<inv>.json` | if absent | entry n |
//! | `root.json` | if the version is the one read | which checkpoints count, and the floor: entries below may be gone |
//! | `checkpoints/<inv>-<hash>.json` | if absent | the state after n entries: head and names of segments |
//! | `segments/<inv>-<hash>.json` | if absent | consecutive spans with their live files; n is the checkpoint's that made it |
//! | `keys/<inv>-<hash>.run` | if absent | the key run of the batch that begins at an offset |
//! | `fence` | | in a directory: a lock between puts that make rows visible and deletes of replacers |
//!
//! Outputs of a replace are at `<table>/_staged/<topic>/<partition>/<folders>/<replace>-<k>.parquet` until it has ended.
//!
//! `<inv>` is 2⁶³-1 - n in 19 digits: listings go up only, so the newest entry is one listing of one object, after years
//! of batches, too.
//!
//! Every object is checked when it is read: an entry and the root by the hash that each begins with, an entry also by the
//! hash in the one after it or in the checkpoint, a checkpoint by the hash in the root, a segment by the hash in the
//! checkpoint, a key run by the hash in its commit.

pub mod abandoning;
mod append;
mod checkpoints;
mod collect;
mod collecting;
mod error;
mod keys;
mod load;
mod names;
pub mod owning;
mod partitions;
pub mod replacing;
mod root;
mod session;

use std::sync::Arc;

use commitlog::Hash;
use common::store::Store;

pub use append::Append;
pub use collect::Collected;
pub use collecting::Keep;
pub use error::{CommitLogError, Damage};
pub use load::{Loaded, Recent};
pub use names::TABLES;
pub use partitions::partitions;
pub use root::{CheckpointRef, Root};
pub use session::{PROOF_LASTS_MS, Proof, Session, Writer};

/// Requests of one kind that are under way at the same time.
const AT_ONCE: usize = 16;

/// The commit log of one partition.
#[derive(Clone)]
pub struct CommitLog {
    store: Arc<dyn Store>,
    prefix: String,
}

/// The end of a commit log, as far as it is known: where the next entry goes, and what it has to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tail {
    /// Number of the next entry.
    pub next: u64,
    /// Hash of the entry before it.
    pub last: Option<Hash>,
}

impl CommitLog {
    pub fn new(store: Arc<dyn Store>, topic: &str, partition: i32) -> Self {
        Self { store, prefix: format!("{}{topic}/{partition}/", names::ROOT) }
    }
}

#[cfg(test)]
mod tests;
