//! The places that a whole listing could not list. Nothing can be concluded about files there: an unlisted file is not
//! a missing file.

use common::store::StoreError;

use crate::identity::{Identities, PENDING};

/// Beyond this number places are not distinguished: then no file counts as missing.
pub(crate) const MOST: usize = 10_000;

/// Beginnings of identities, sorted, none of which begins with another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Uncovered {
    beginnings: Vec<String>,
    is_everything: bool,
}

impl Uncovered {
    /// `total`: the number of places, of which `unlisted` may contain only the first ones.
    pub(crate) fn new(identities: &Identities, unlisted: &[StoreError], total: u64) -> Self {
        let mut beginnings: Vec<String> = unlisted.iter().map(|error| beginning(identities, &error.key)).collect();
        beginnings.sort_unstable();
        beginnings.dedup_by(|later, earlier| later.starts_with(earlier.as_str()));
        Self { beginnings, is_everything: total > unlisted.len() as u64 }
    }

    /// Whether the listing says nothing about this file version.
    pub(crate) fn holds(&self, identity: &str) -> bool {
        let after = self.beginnings.partition_point(|beginning| beginning.as_str() <= identity);
        // None of them begins with another, so only the last one before can be the identity's beginning.
        let nearest = after.checked_sub(1).map(|index| &self.beginnings[index]);
        self.is_everything || nearest.is_some_and(|beginning| identity.starts_with(beginning.as_str()))
    }
}

/// `key` names an object, or a folder by a final `/`.
fn beginning(identities: &Identities, key: &str) -> String {
    let path = key.strip_prefix(PENDING).unwrap_or(key);
    let end = if path.is_empty() || path.ends_with('/') { "" } else { "|" };
    format!("{}{end}", identities.beginning(path))
}

#[cfg(test)]
mod tests {
    use common::store::{StoreErrorKind, Version};
    use proptest::prelude::*;

    use super::*;

    fn uncovered(keys: &[&str]) -> Uncovered {
        let errors: Vec<StoreError> =
            keys.iter().map(|key| StoreError::new(StoreErrorKind::Denied, "list", key, "no")).collect();
        Uncovered::new(&Identities::default(), &errors, keys.len() as u64)
    }

    #[test]
    fn files_below_a_folder_and_objects_by_themselves_are_held() {
        let uncovered = uncovered(&["pending/b/c/", "pending/b/", "pending/x"]);
        for identity in ["b/a|1", "b/c/d|1", "x|1", "x|2"] {
            assert!(uncovered.holds(identity), "{identity}");
        }
        for identity in ["a|1", "b|1", "b-c|1", "c|1", "x/y|1", "xy|1", "y|1"] {
            assert!(!uncovered.holds(identity), "{identity}");
        }
        assert!(!self::uncovered(&[]).holds("a|1"));
    }

    #[test]
    fn when_there_were_too_many_to_tell_apart_everything_is_held() {
        assert!(Uncovered::new(&Identities::default(), &[], 1).holds("a|1"));
    }

    proptest! {
        #[test]
        fn exactly_what_begins_so_is_held(keys in prop::collection::vec("pending/[ab/-]{0,6}", 0..8), path in "[ab/-]{1,8}") {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let key = format!("pending/{path}");
            let expected = keys.iter().any(|listed| (listed.ends_with('/') && key.starts_with(listed)) || *listed == key);
            let identity = Identities::default().identity(&path, &Version("v".to_owned()));
            prop_assert_eq!(uncovered(&keys).holds(&identity), expected);
        }
    }
}
