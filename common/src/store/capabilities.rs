//! In what stores differ.

use std::path::PathBuf;

/// What callers that depend on it ask a store. Not whether it is of some kind: a store may be in front of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// [`Store::tag`](super::Store::tag) and [`Store::tag_version`](super::Store::tag_version) work.
    pub has_tags: bool,
    /// Programs can write to an object in place: it may grow while and after it is read. Otherwise objects appear whole.
    pub is_written_in_place: bool,
    /// No two objects of any store ever have the same version. Otherwise it may be no more than a hash of the content.
    pub has_unique_versions: bool,
    /// The longest key, bytes.
    pub max_key_bytes: usize,
    /// The folder, if it is one of this machine.
    pub folder: Option<PathBuf>,
}
