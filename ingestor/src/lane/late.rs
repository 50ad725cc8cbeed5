//! Moved files that somebody still writes to.
//!
//! A writer that keeps a file open writes on after it was read and moved, and the rows of what it writes would be missing
//! without a word. So each file that was moved within a folder is looked at again: right after the move, a few times within
//! a day at growing intervals, and by the next run. One that was written to since goes back to `pending/`, where it is a
//! new version: it is read from its beginning once it has been unchanged for `landing.min_age`, and the events that were
//! published before are duplicates. Objects in a bucket cannot be written to.

use std::collections::{BTreeMap, HashMap};

use common::store::{ObjectMeta, RenameOutcome, Result, Store, StoreError, StoreErrorKind, Version, is_later_state};

use crate::archive::Names;
use crate::identity::PENDING;
use crate::ledger::{MOST_MOVED, Moved};

/// Ages at which a moved file is looked at, milliseconds.
const LOOKS_MS: [i64; 5] = [10_000, 60_000, 600_000, 3_600_000, WATCHED_FOR_MS];
const WATCHED_FOR_MS: i64 = 24 * 3_600_000;
/// Files looked at as one piece of work.
const LOOKED_AT_ONCE: usize = 1_000;

/// Looks at one file that fail before it is given up, or looked at as seldom as the others.
const MOST_FAILURES: u32 = 20;
const PAUSE_MS: i64 = 200;

/// A moved file under watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watched {
    pub moved: Moved,
    /// Looks that failed, one after another.
    failures: u32,
}

/// Which files are to be looked at, and when.
#[derive(Debug, Default)]
pub(super) struct Watch {
    due: BTreeMap<(i64, u64), Watched>,
    /// A name in `processed/` may have been given twice: only the file that got it last is there.
    by_target: HashMap<String, (i64, u64)>,
    next_number: u64,
    /// Each is looked at once.
    is_once: bool,
}

impl Watch {
    /// `moved` before now, by this process or an earlier one.
    pub(super) fn new(moved: Vec<Moved>, now_ms: i64, is_once: bool) -> Self {
        let mut watch = Self { is_once, ..Self::default() };
        for moved in moved {
            if now_ms.saturating_sub(moved.at_ms) <= WATCHED_FOR_MS {
                watch.look_at(moved, now_ms);
            }
        }
        watch
    }

    /// To be looked at at `due_ms`. Of too many those go that were not touched for the longest.
    pub(super) fn look_at(&mut self, moved: Moved, due_ms: i64) {
        self.plan(Watched { moved, failures: 0 }, due_ms);
    }

    fn plan(&mut self, watched: Watched, due_ms: i64) {
        let Moved { target, at_ms, .. } = &watched.moved;
        if let Some(place) = self.by_target.get(target) {
            if self.due.get(place).is_some_and(|other| other.moved.at_ms > *at_ms) {
                return;
            }
            self.due.remove(place);
        }
        self.next_number += 1;
        let place = (due_ms, self.next_number);
        self.by_target.insert(target.clone(), place);
        self.due.insert(place, watched);
        if self.due.len() > MOST_MOVED
            && let Some((_, last)) = self.due.pop_last()
        {
            self.by_target.remove(&last.moved.target);
        }
    }

    /// Whether a run with an end still has to wait, or a service has something to look at by now.
    pub(super) fn is_due(&self, now_ms: i64) -> bool {
        self.next_ms().is_some_and(|due_ms| self.is_once || due_ms <= now_ms)
    }

    pub(super) fn next_ms(&self) -> Option<i64> {
        self.due.keys().next().map(|(due_ms, _)| *due_ms)
    }

    pub(super) fn take_due(&mut self, now_ms: i64) -> Vec<Watched> {
        let mut due = Vec::new();
        while due.len() < LOOKED_AT_ONCE
            && let Some(first) = self.due.first_entry()
            && first.key().0 <= now_ms
        {
            let watched = first.remove();
            self.by_target.remove(&watched.moved.target);
            due.push(watched);
        }
        due
    }

    /// Plans the next look at a file that was as it should be.
    pub(super) fn looked_at(&mut self, moved: Moved, now_ms: i64) {
        if let Some(due_ms) = next_look(moved.at_ms, now_ms).filter(|_| !self.is_once) {
            self.look_at(moved, due_ms);
        }
    }

    /// Plans another try of a look that failed; false when there is to be none.
    pub(super) fn failed(&mut self, watched: Watched, now_ms: i64) -> bool {
        let failures = watched.failures + 1;
        if failures < MOST_FAILURES {
            self.plan(Watched { failures, ..watched }, now_ms.saturating_add(PAUSE_MS));
            return true;
        }
        self.looked_at(watched.moved, now_ms);
        false
    }
}

fn next_look(at_ms: i64, now_ms: i64) -> Option<i64> {
    LOOKS_MS.iter().map(|age_ms| at_ms.saturating_add(*age_ms)).find(|due_ms| *due_ms > now_ms)
}

/// What became of a moved file.
#[derive(Debug)]
pub(super) enum Look {
    /// It is as it was read, or somebody took it away or replaced it.
    Same,
    /// It was written to, and is in `pending/` again, under this key.
    PutBack { key: String, now: ObjectMeta },
}

/// Looks at each file, and puts back what was written to.
pub(super) async fn look(store: &dyn Store, names: Names, due: Vec<Watched>) -> Vec<(Watched, Result<Look>)> {
    let targets: Vec<String> = due.iter().map(|watched| watched.moved.target.clone()).collect();
    let mut looks = Vec::with_capacity(due.len());
    for (watched, found) in due.into_iter().zip(store.head_many(&targets).await) {
        let look = match found {
            Ok(Some(now)) if is_written_to(&watched.moved, &now) => put_back(store, names, &watched.moved, now).await,
            Ok(_) => Ok(Look::Same),
            Err(error) => Err(error),
        };
        looks.push((watched, look));
    }
    looks
}

/// Since it was read.
fn is_written_to(moved: &Moved, now: &ObjectMeta) -> bool {
    version_of(moved).is_some_and(|read| is_later_state(&read, &now.version))
}

async fn put_back(store: &dyn Store, names: Names, moved: &Moved, now: ObjectMeta) -> Result<Look> {
    let own = format!("{PENDING}{}", moved.path);
    let key = match store.rename(&moved.target, &now.version, &own).await? {
        RenameOutcome::TargetExists => {
            // A newer file waits under its name.
            let other = names.in_pending(&moved.path, &format!("{}|{}", moved.path, now.version.0));
            match store.rename(&moved.target, &now.version, &other).await? {
                RenameOutcome::Moved => other,
                RenameOutcome::SourceChanged | RenameOutcome::TargetExists => return Err(busy(moved)),
            }
        }
        RenameOutcome::Moved => own,
        RenameOutcome::SourceChanged => return Err(busy(moved)),
    };
    Ok(Look::PutBack { key, now })
}

fn busy(moved: &Moved) -> StoreError {
    let message = "it is being written to in this very moment, and cannot be put back into pending/ to be read again";
    StoreError::new(StoreErrorKind::VersionMismatch, "rename", &moved.target, message)
}

/// The version that was read: an identity in a folder is the path and it.
fn version_of(moved: &Moved) -> Option<Version> {
    let version = moved.identity.strip_prefix(moved.path.as_str())?.strip_prefix('|')?;
    Some(Version(version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(path: &str, at_ms: i64) -> Moved {
        Moved { identity: format!("{path}|1-2-3"), path: path.to_owned(), target: format!("processed/{path}"), at_ms }
    }

    #[test]
    fn a_service_looks_at_growing_intervals_for_a_day_and_a_run_once() {
        let mut watch = Watch::new(vec![moved("a", 1_000)], 1_500, false);
        let mut looks = Vec::new();
        while let Some(now_ms) = watch.next_ms() {
            for watched in watch.take_due(now_ms) {
                looks.push(now_ms);
                watch.looked_at(watched.moved, now_ms);
            }
        }
        assert_eq!(looks, [1_500, 11_000, 61_000, 601_000, 3_601_000, 1_000 + WATCHED_FOR_MS]);
        let mut once = Watch::new(vec![moved("a", 1_000)], 1_500, true);
        for watched in once.take_due(1_500) {
            once.looked_at(watched.moved, 1_500);
        }
        assert_eq!(once.next_ms(), None);
    }

    #[test]
    fn a_look_that_fails_is_tried_again_so_often_and_no_run_ends_before() {
        let (mut now_ms, mut tries) = (1_500, 0);
        let mut once = Watch::new(vec![moved("a", 1_000)], now_ms, true);
        while once.is_due(now_ms) {
            now_ms = once.next_ms().unwrap_or(now_ms);
            for watched in once.take_due(now_ms) {
                tries += 1;
                assert_eq!(once.failed(watched, now_ms), tries < MOST_FAILURES);
            }
        }
        assert_eq!(tries, MOST_FAILURES);
        let mut service = Watch::new(vec![moved("a", 1_000)], 1_500, false);
        for watched in service.take_due(1_500) {
            assert!(service.failed(watched, 1_500));
        }
        assert!(!service.is_due(1_501) && service.is_due(1_500 + PAUSE_MS));
    }

    #[test]
    fn files_that_were_moved_long_ago_are_not_looked_at_and_memory_is_bounded() {
        let now_ms = 10 * WATCHED_FOR_MS;
        assert_eq!(Watch::new(vec![moved("a", now_ms - WATCHED_FOR_MS - 1)], now_ms, true).next_ms(), None);
        let mut watch = Watch::default();
        for number in 0..MOST_MOVED + 10 {
            watch.look_at(moved(&number.to_string(), 0), i64::try_from(number).unwrap_or(0));
        }
        assert_eq!((watch.due.len(), watch.next_ms()), (MOST_MOVED, Some(0)));
    }

    #[test]
    fn of_two_files_under_one_name_the_later_one_is_looked_at() {
        let (first, second) = (moved("a", 1), Moved { identity: "a|9-9-3".to_owned(), ..moved("a", 2) });
        for order in [[&first, &second], [&second, &first]] {
            let mut watch = Watch::new(order.map(Clone::clone).to_vec(), 5, true);
            let due: Vec<Moved> = watch.take_due(5).into_iter().map(|watched| watched.moved).collect();
            assert_eq!(due, std::slice::from_ref(&second));
            assert_eq!(watch.next_ms(), None);
        }
    }

    #[test]
    fn the_version_that_was_read_is_the_end_of_the_identity() {
        assert_eq!(version_of(&moved("a|b", 1)), Some(Version("1-2-3".to_owned())));
        let object = Moved { identity: "s3://b/pending/a|\"etag\"".to_owned(), ..moved("a", 1) };
        assert_eq!(version_of(&object), None);
    }
}
