//! An entry as it is put, and the chain of hashes through all of them.

use serde::{Deserialize, Serialize};

use crate::hash::Hash;
use crate::op::Op;

pub const ENTRY_VERSION: u32 = 1;
/// Entries have mostly 1 to 3 kB. One with 10,000 files or a replace of 20,000 inputs stays below it.
pub const MAX_ENTRY_BYTES: usize = 16 * 1024 * 1024;
pub const MAX_OPS: usize = 3;

/// Entry `n` of a commit log. Put if absent, never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub version: u32,
    pub n: u64,
    /// Hash of the bytes of entry `n - 1`; none for the first.
    pub previous: Option<Hash>,
    /// Random for each append: by it an appender knows its own entry again.
    pub writer: String,
    pub ops: Vec<Op>,
}

/// An entry and the hash of its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    pub entry: Entry,
    pub hash: Hash,
}

/// Why bytes are not the entry that belongs there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("it has {bytes} bytes, more than {MAX_ENTRY_BYTES}")]
    TooLarge { bytes: usize },
    #[error("it is not an entry: {message}")]
    Malformed { message: String },
    #[error("it is of version {found}; this build reads version {ENTRY_VERSION}")]
    Version { found: u32 },
    #[error("it says that it is entry {found}, not {expected}")]
    OtherNumber { expected: u64, found: u64 },
    #[error("it follows an entry with another hash than entry {before} has: one of the two was altered or exchanged")]
    OtherPrevious { before: u64 },
    #[error("it has {count} operations, not 1 to {MAX_OPS}")]
    Ops { count: usize },
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Entry {
    /// The bytes to put, and their hash.
    ///
    /// # Errors
    /// It could not be read again, for it is too large.
    pub fn seal(self) -> Result<(Vec<u8>, Sealed), EntryError> {
        let bytes = serde_json::to_vec(&self).map_err(|error| EntryError::Malformed { message: error.to_string() })?;
        if bytes.len() > MAX_ENTRY_BYTES {
            return Err(EntryError::TooLarge { bytes: bytes.len() });
        }
        let hash = Hash::of(&bytes);
        Ok((bytes, Sealed { entry: self, hash }))
    }

    /// What was read as entry `n`, after the entry with hash `previous`. Of the first entry after a checkpoint the hash
    /// stands in the checkpoint.
    ///
    /// # Errors
    /// It is another entry, of another build, or none.
    pub fn open(bytes: &[u8], n: u64, previous: Option<Hash>) -> Result<Sealed, EntryError> {
        if bytes.len() > MAX_ENTRY_BYTES {
            return Err(EntryError::TooLarge { bytes: bytes.len() });
        }
        let malformed = |error: serde_json::Error| EntryError::Malformed { message: error.to_string() };
        let Versioned { version } = serde_json::from_slice(bytes).map_err(malformed)?;
        if version != ENTRY_VERSION {
            return Err(EntryError::Version { found: version });
        }
        let entry: Self = serde_json::from_slice(bytes).map_err(malformed)?;
        if entry.n != n {
            return Err(EntryError::OtherNumber { expected: n, found: entry.n });
        }
        if entry.previous != previous {
            return Err(EntryError::OtherPrevious { before: n.saturating_sub(1) });
        }
        if entry.ops.is_empty() || entry.ops.len() > MAX_OPS {
            return Err(EntryError::Ops { count: entry.ops.len() });
        }
        Ok(Sealed { hash: Hash::of(bytes), entry })
    }
}
