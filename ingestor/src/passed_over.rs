//! Entries of `pending/` that are not files of events: the reasons, the counts of a whole listing, and one log line for
//! each.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use common::store::{PassedOver, PassedOverKind};
use serde::Serialize;

use crate::identity::IdentityHash;
use crate::settings::IgnoredNames;

/// Further ones are only counted: a folder full of links must not fill memory or log.
const MOST_LOGGED: usize = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// By its name or that of a folder around it.
    IgnoredName,
    SymbolicLink,
    SpecialFile,
    NameNotUtf8,
}

impl From<PassedOverKind> for Reason {
    fn from(kind: PassedOverKind) -> Self {
        match kind {
            PassedOverKind::SymbolicLink => Self::SymbolicLink,
            PassedOverKind::SpecialFile => Self::SpecialFile,
            PassedOverKind::NoText => Self::NameNotUtf8,
        }
    }
}

impl IgnoredNames {
    /// Whether a file of this path, relative to `pending/`, is ignored for its name. Spark and Hadoop write uncommitted
    /// output below `_temporary/`, and many tools write under a temporary name.
    #[must_use]
    pub fn holds(&self, path: &str) -> bool {
        let is_hidden = |segment: &str| self.prefixes.iter().any(|prefix| segment.starts_with(prefix.as_str()));
        path.split('/').any(is_hidden) || self.suffixes.iter().any(|suffix| path.ends_with(suffix.as_str()))
    }
}

/// The entries that the last whole listing skipped, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PassedOverCounts {
    #[serde(skip_serializing_if = "is_zero")]
    pub ignored_name: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub symbolic_link: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub special_file: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub name_not_utf8: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl PassedOverCounts {
    pub fn count(&mut self, reason: Reason) {
        match reason {
            Reason::IgnoredName => self.ignored_name += 1,
            Reason::SymbolicLink => self.symbolic_link += 1,
            Reason::SpecialFile => self.special_file += 1,
            Reason::NameNotUtf8 => self.name_not_utf8 += 1,
        }
    }

    /// By the name of the reason.
    pub(crate) fn by_reason(&self) -> [(&'static str, u64); 4] {
        let Self { ignored_name, symbolic_link, special_file, name_not_utf8 } = *self;
        [
            ("ignored_name", ignored_name),
            ("symbolic_link", symbolic_link),
            ("special_file", special_file),
            ("name_not_utf8", name_not_utf8),
        ]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.total() == 0
    }

    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_reason().iter().map(|(_, count)| count).sum()
    }

    /// In words, without zero counts: `2 symbolic links, 1 name that is not UTF-8`.
    #[must_use]
    pub fn words(&self) -> String {
        let words = [
            ("symbolic link", "symbolic links", self.symbolic_link),
            ("device, FIFO or socket", "devices, FIFOs or sockets", self.special_file),
            ("name that is not UTF-8", "names that are not UTF-8", self.name_not_utf8),
            ("ignored name", "ignored names", self.ignored_name),
        ];
        let some = words.iter().filter(|(_, _, count)| *count > 0);
        let texts: Vec<String> =
            some.map(|(one, many, count)| format!("{count} {}", if *count == 1 { one } else { many })).collect();
        texts.join(", ")
    }
}

/// Logs each skipped entry once in the life of the process.
#[derive(Debug, Default)]
pub(crate) struct LoggedOnce(Mutex<HashSet<IdentityHash>>);

impl LoggedOnce {
    /// Names that the configuration ignores are intended, so they are not logged.
    pub(crate) fn log(&self, passed_over: &PassedOver) {
        if !self.is_new(&passed_over.name) {
            return;
        }
        let name = passed_over.name.as_str();
        match passed_over.kind {
            PassedOverKind::SymbolicLink => {
                tracing::warn!(name, "skipped: a symbolic link; only pending and processed themselves may be links");
            }
            PassedOverKind::SpecialFile => tracing::warn!(name, "skipped: a device, a FIFO or a socket"),
            PassedOverKind::NoText => tracing::warn!(name, "skipped: the name is not UTF-8; rename it"),
        }
    }

    fn is_new(&self, name: &str) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logged.len() < MOST_LOGGED && logged.insert(IdentityHash::of(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignored(prefixes: &[&str], suffixes: &[&str]) -> IgnoredNames {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        IgnoredNames { prefixes: owned(prefixes), suffixes: owned(suffixes) }
    }

    #[test]
    fn uncommitted_output_of_spark_and_hadoop_is_ignored_at_every_depth() {
        let names = ignored(&["_", "."], &[".tmp", "_SUCCESS"]);
        for path in ["_temporary/0/_temporary/a/part-0.json", "x/_temporary/part-0.json", ".a", "x/.a/b", "_SUCCESS"] {
            assert!(names.holds(path), "{path}");
        }
        assert!(names.holds("x/a.tmp") && names.holds("x/part_SUCCESS"));
        for path in ["a.json", "a_b/c_.json", "x.d/y", "date=2021-01-14/part-0.json"] {
            assert!(!names.holds(path), "{path}");
        }
        assert!(!ignored(&[], &[]).holds("_temporary/.a.tmp"));
    }

    #[test]
    fn counts_are_in_words_without_zeros() {
        let mut counts = PassedOverCounts::default();
        assert_eq!((counts.total(), counts.words()), (0, String::new()));
        for reason in [Reason::SymbolicLink, Reason::SymbolicLink, Reason::NameNotUtf8] {
            counts.count(reason);
        }
        assert_eq!((counts.total(), counts.words().as_str()), (3, "2 symbolic links, 1 name that is not UTF-8"));
    }

    #[test]
    fn each_name_is_logged_once_and_memory_is_bounded() {
        let logged = LoggedOnce::default();
        assert!(logged.is_new("a") && !logged.is_new("a"));
        let new = (0..2 * MOST_LOGGED).filter(|number| logged.is_new(&number.to_string())).count();
        assert_eq!(new, MOST_LOGGED - 1);
    }
}
