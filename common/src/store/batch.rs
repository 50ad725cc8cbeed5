//! Batches: entries that share no key may be processed at the same time.

use std::collections::HashSet;

use super::{Result, StoreError};

/// The number of entries from the first one on that share no key. A batch processed in groups of that length has the
/// same result as one processed entry by entry.
pub(super) fn independent<'k, const KEYS: usize>(entries: impl IntoIterator<Item = [&'k str; KEYS]>) -> usize {
    let mut taken: HashSet<&str> = HashSet::new();
    entries
        .into_iter()
        .take_while(|keys| {
            let is_new = keys.iter().all(|key| !taken.contains(*key));
            taken.extend(keys);
            is_new
        })
        .count()
}

/// Returns the entries that pass the check, and for each entry of the batch the reason why it was refused, if it was.
pub(super) fn sort_out<E, V>(
    entries: impl IntoIterator<Item = E>,
    check: impl Fn(E) -> Result<V>,
) -> (Vec<Option<StoreError>>, Vec<V>) {
    let (mut refused, mut valid) = (Vec::new(), Vec::new());
    for entry in entries {
        refused.push(check(entry).map(|entry| valid.push(entry)).err());
    }
    (refused, valid)
}

/// Merges the answers to the valid entries with the refusals, in the order of the whole batch.
pub(super) fn answer_all<T>(refused: Vec<Option<StoreError>>, answers: Vec<Result<T>>) -> Vec<Result<T>> {
    let mut answers = answers.into_iter();
    refused.into_iter().filter_map(|error| error.map(Err).or_else(|| answers.next())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_ends_before_a_repeated_key() {
        assert_eq!(independent([["a", "b"], ["c", "d"]]), 2);
        assert_eq!(independent([["a", "b"], ["b", "c"], ["d", "e"]]), 1, "its source is the first one's target");
        assert_eq!(independent([["a", "x"], ["b", "y"], ["c", "x"]]), 2, "its target is the first one's target");
        assert_eq!(independent([["a"], ["a"]]), 1);
        assert_eq!(independent([["a", "a"]]), 1, "an entry may name one key twice");
        assert_eq!(independent::<1>([]), 0);
    }
}
