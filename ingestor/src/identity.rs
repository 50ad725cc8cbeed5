//! Names of file versions.

use common::event::partition_for_key;
use common::store::{Store, Version};
use xxhash_rust::xxh3::xxh3_128;

/// The folder of the landing zone that files are read from.
pub(crate) const PENDING: &str = "pending/";

/// What tells one version of a landing file from every other: its key and version. Local versions name an inode, so they
/// are unique with the relative path; an ETag is only a hash of the content, so the location belongs to it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identities {
    prefix: String,
}

impl Identities {
    pub(crate) fn of(store: &dyn Store) -> Self {
        let location = store.location();
        let prefix = if location.starts_with("s3://") { format!("{location}/{PENDING}") } else { String::new() };
        Self { prefix }
    }

    /// Of the version of the file at `path`, relative to `pending/`.
    pub(crate) fn identity(&self, path: &str, version: &Version) -> String {
        format!("{}|{}", self.beginning(path), version.0)
    }

    /// With which those of all versions of files at paths that begin so begin.
    pub(crate) fn beginning(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }
}

/// The ledger partition that a file belongs to: by its path alone, so that every version of it has the same owner, who
/// can tell content that comes back from content that is new.
pub(crate) fn ledger_partition(path: &str, partitions: u32) -> i32 {
    i32::try_from(partition_for_key(path.as_bytes(), partitions)).unwrap_or(0)
}

/// Identities in memory: 128 bits, so that among ten billion the chance of any two being equal is below 10⁻¹⁸.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct IdentityHash(u128);

impl IdentityHash {
    pub(crate) fn of(text: &str) -> Self {
        Self(xxh3_128(text.as_bytes()))
    }
}
