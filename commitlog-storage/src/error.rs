//! What can be wrong with a commit log in a store. What to do about it is said in one place of the program.

use commitlog::actor::Misheard;
use commitlog::{CheckpointError, EntryError, Hash, Invalid};
use common::store::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum CommitLogError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("'{key}' is damaged")]
    Damaged {
        key: String,
        #[source]
        damage: Damage,
    },
    /// Nothing was put.
    #[error("'{key}' is not written, for it could not be read again")]
    Unwritable {
        key: String,
        #[source]
        damage: Damage,
    },
    /// It was not damage: newer ones hold what it held.
    #[error("the checkpoint of {entries} entries was superseded and collected while it was read; load again")]
    Superseded { entries: u64 },
    /// A fault of this program.
    #[error(transparent)]
    Misheard(#[from] Misheard),
}

/// What is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error(transparent)]
    Entry(#[from] EntryError),
    #[error("it is not valid after the entries before it: {0}")]
    Invalid(#[from] Invalid),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("it is missing, though another object names it")]
    Missing,
    #[error("it is missing, though later ones are there, up to '{newest}'")]
    MissingBefore { newest: String },
    #[error("it is missing; nothing is lost, for the checkpoint of {entries} entries holds what it said")]
    MissingBelow { entries: u64 },
    #[error("no entry is there, though a checkpoint of {entries} entries is")]
    EntriesLost { entries: u64 },
    #[error("its name is none of those that a commit log's objects have")]
    Name,
    #[error("it is no root: {message}")]
    Root { message: String },
    #[error("it has {found} bytes, {expected} are named")]
    Length { expected: u64, found: u64 },
    #[error("its hash is {found}, {expected} is named: it was altered or exchanged")]
    Hash { expected: Hash, found: Hash },
    #[error("it has {bytes} bytes, more than {limit}")]
    TooLarge { bytes: u64, limit: u64 },
}

impl CommitLogError {
    pub(crate) fn damaged(key: impl Into<String>, damage: impl Into<Damage>) -> Self {
        Self::Damaged { key: key.into(), damage: damage.into() }
    }
}

pub(crate) type Result<T> = std::result::Result<T, CommitLogError>;
