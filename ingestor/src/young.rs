//! Files that were found and are too young to be read: each is looked up again once it may be old enough.

use std::collections::BTreeMap;

use crate::routes::Backlog;

/// Files by the time of their next look-up.
#[derive(Debug, Default)]
pub(crate) struct Young {
    /// Size and modification time by time and path.
    by_time: BTreeMap<(i64, Box<str>), (u64, i64)>,
    /// The sum of all; its oldest time is that of any file since the last time that there was none.
    backlog: Backlog,
}

impl Young {
    pub(crate) fn len(&self) -> usize {
        self.by_time.len()
    }

    pub(crate) fn insert(&mut self, due_ms: i64, path: &str, size_bytes: u64, modified_ms: i64) {
        if self.by_time.insert((due_ms, path.into()), (size_bytes, modified_ms)).is_none() {
            self.backlog.add(size_bytes, modified_ms);
        }
    }

    /// The time of the first look-up.
    pub(crate) fn next_ms(&self) -> Option<i64> {
        self.by_time.first_key_value().map(|((due_ms, _), _)| *due_ms)
    }

    /// Removes the first file if its time has come.
    pub(crate) fn take_due(&mut self, now_ms: i64) -> Option<Box<str>> {
        let first = self.by_time.first_entry().filter(|entry| entry.key().0 <= now_ms)?;
        let ((_, path), (size_bytes, _)) = first.remove_entry();
        self.backlog.files -= 1;
        self.backlog.bytes -= size_bytes;
        if self.by_time.is_empty() {
            self.backlog = Backlog::default();
        }
        Some(path)
    }

    pub(crate) fn backlog(&self) -> Backlog {
        self.backlog
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_in_the_order_of_their_times_and_are_counted_until_then() {
        let mut young = Young::default();
        young.insert(20, "b", 2, 7);
        young.insert(10, "a", 1, 9);
        young.insert(10, "a", 1, 9);
        assert_eq!((young.len(), young.next_ms()), (2, Some(10)));
        assert_eq!(young.backlog(), Backlog { files: 2, bytes: 3, oldest_ms: Some(7) });
        assert_eq!(young.take_due(9), None);
        assert_eq!(young.take_due(15).as_deref(), Some("a"));
        assert_eq!((young.take_due(15), young.backlog().files, young.backlog().bytes), (None, 1, 2));
        assert_eq!(young.take_due(20).as_deref(), Some("b"));
        assert_eq!((young.backlog(), young.next_ms()), (Backlog::default(), None));
    }
}
