//! Identities of file versions.

use common::event::partition_for_key;
use common::store::{Store, Version};
use xxhash_rust::xxh3::xxh3_128;

/// The folder of the landing zone that files are read from.
pub(crate) const PENDING: &str = "pending/";

/// Distinguishes a version of a landing file from all others, by its key and version, and by the location where versions
/// are not unique.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identities {
    prefix: String,
}

impl Identities {
    pub(crate) fn of(store: &dyn Store) -> Self {
        let is_unique = store.capabilities().has_unique_versions;
        let prefix = if is_unique { String::new() } else { format!("{}/{PENDING}", store.location()) };
        Self { prefix }
    }

    /// The identity of a version of the file at `path`, relative to `pending/`.
    pub(crate) fn identity(&self, path: &str, version: &Version) -> String {
        format!("{}|{}", self.beginning(path), version.0)
    }

    /// The common beginning of the identities of all versions of files whose paths begin with `path`.
    pub(crate) fn beginning(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }
}

/// The ledger partition of a file, by its path alone: all its versions have the same owner, which can then distinguish
/// repeated content from new content.
pub(crate) fn ledger_partition(path: &str, partitions: u32) -> i32 {
    i32::try_from(partition_for_key(path.as_bytes(), partitions)).unwrap_or(0)
}

/// An identity in memory: with 128 bits the chance that any two of ten billion are equal is below 10⁻¹⁸.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct IdentityHash(Halves);

/// 128 bits with the alignment of 64, which makes the tables of them smaller.
pub(crate) type Halves = [u64; 2];

pub(crate) fn halves(whole: u128) -> Halves {
    let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(u64::MAX);
    [half(whole >> 64), half(whole)]
}

pub(crate) fn whole([high, low]: Halves) -> u128 {
    (u128::from(high) << 64) | u128::from(low)
}

impl IdentityHash {
    pub(crate) fn of(text: &str) -> Self {
        Self(halves(xxh3_128(text.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_make_the_whole_again() {
        for number in [0, 1, u128::from(u64::MAX), u128::MAX, 0x0123_4567_89ab_cdef_0011_2233_4455_6677] {
            assert_eq!(whole(halves(number)), number);
        }
    }
}
