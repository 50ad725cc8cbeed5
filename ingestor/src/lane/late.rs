//! Moved files that are still written to.
//!
//! A program that keeps a file open may write to it after it was read and moved, and those events would be missing
//! silently. Each file moved within a folder is therefore checked again: right after the move, a few times within a day
//! at growing intervals, and by the next run. A file that was written to goes back to `pending/` as a new version. It
//! is read from its beginning once it has been unchanged for `landing.min_age`, and the events published before are
//! duplicates. Objects in a bucket cannot be written to in place.

use std::collections::{BTreeMap, HashMap};

use common::store::{ObjectMeta, RenameOutcome, Result, Store, StoreError, StoreErrorKind, Version, is_later_state};

use crate::archive::Names;
use crate::identity::{IdentityHash, PENDING};
use crate::ledger::{MOST_MOVED, Moved};

/// Ages at which a moved file is checked, milliseconds.
const CHECKS_MS: [i64; 5] = [10_000, 60_000, 600_000, 3_600_000, WATCHED_FOR_MS];
const WATCHED_FOR_MS: i64 = 24 * 3_600_000;
/// Files checked as one unit of work.
const CHECKED_AT_ONCE: usize = 1_000;

/// Failed checks of one file before it is given up, or checked as rarely as the others.
const MOST_FAILURES: u32 = 20;
const PAUSE_MS: i64 = 200;

/// A moved file under watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watched {
    pub moved: Moved,
    /// Consecutive failed checks.
    failures: u32,
}

/// The files to check, by time.
#[derive(Debug, Default)]
pub(super) struct Watch {
    due: BTreeMap<(i64, u64), Watched>,
    /// A name in `processed/` may have been used twice: only the file that got it last still has it.
    by_target: HashMap<IdentityHash, (i64, u64)>,
    next_number: u64,
    /// Each file is checked once.
    is_once: bool,
}

impl Watch {
    /// `moved`: files moved by this process or an earlier one.
    pub(super) fn new(moved: Vec<Moved>, now_ms: i64, is_once: bool) -> Self {
        let mut watch = Self { is_once, ..Self::default() };
        for moved in moved {
            if now_ms.saturating_sub(moved.at_ms) <= WATCHED_FOR_MS {
                watch.plan_check(moved, now_ms);
            }
        }
        watch
    }

    /// Plans a check at `due_ms`. Beyond the limit, drops the file whose check is due last.
    pub(super) fn plan_check(&mut self, moved: Moved, due_ms: i64) {
        self.plan(Watched { moved, failures: 0 }, due_ms);
    }

    fn plan(&mut self, watched: Watched, due_ms: i64) {
        let Moved { target, at_ms, .. } = &watched.moved;
        if let Some(place) = self.by_target.get(&IdentityHash::of(target)) {
            if self.due.get(place).is_some_and(|other| other.moved.at_ms > *at_ms) {
                return;
            }
            self.due.remove(place);
        }
        self.next_number += 1;
        let place = (due_ms, self.next_number);
        self.by_target.insert(IdentityHash::of(target), place);
        self.due.insert(place, watched);
        if self.due.len() > MOST_MOVED
            && let Some((_, last)) = self.due.pop_last()
        {
            self.by_target.remove(&IdentityHash::of(&last.moved.target));
        }
    }

    /// Whether a run with `once` still has to wait, or a service has a check due.
    pub(super) fn is_due(&self, now_ms: i64) -> bool {
        self.next_ms().is_some_and(|due_ms| self.is_once || due_ms <= now_ms)
    }

    pub(super) fn next_ms(&self) -> Option<i64> {
        self.due.keys().next().map(|(due_ms, _)| *due_ms)
    }

    pub(super) fn take_due(&mut self, now_ms: i64) -> Vec<Watched> {
        let mut due = Vec::new();
        while due.len() < CHECKED_AT_ONCE
            && let Some(first) = self.due.first_entry()
            && first.key().0 <= now_ms
        {
            let watched = first.remove();
            self.by_target.remove(&IdentityHash::of(&watched.moved.target));
            due.push(watched);
        }
        due
    }

    /// Plans the next check of an unchanged file.
    pub(super) fn checked(&mut self, moved: Moved, now_ms: i64) {
        if let Some(due_ms) = next_check(moved.at_ms, now_ms).filter(|_| !self.is_once) {
            self.plan_check(moved, due_ms);
        }
    }

    /// Plans another attempt of a failed check; false if there is none.
    pub(super) fn failed(&mut self, watched: Watched, now_ms: i64) -> bool {
        let failures = watched.failures + 1;
        if failures < MOST_FAILURES {
            self.plan(Watched { failures, ..watched }, now_ms.saturating_add(PAUSE_MS));
            return true;
        }
        self.checked(watched.moved, now_ms);
        false
    }
}

fn next_check(at_ms: i64, now_ms: i64) -> Option<i64> {
    CHECKS_MS.iter().map(|age_ms| at_ms.saturating_add(*age_ms)).find(|due_ms| *due_ms > now_ms)
}

/// The result of a check.
#[derive(Debug)]
pub(super) enum Checked {
    /// It is unchanged, or was removed or replaced.
    Same,
    /// It was written to, and is in `pending/` again, under this key.
    PutBack { key: String, now: ObjectMeta },
}

/// Checks each file, and puts those back that were written to.
pub(super) async fn check(store: &dyn Store, names: Names, due: Vec<Watched>) -> Vec<(Watched, Result<Checked>)> {
    let targets: Vec<String> = due.iter().map(|watched| watched.moved.target.clone()).collect();
    let mut checks = Vec::with_capacity(due.len());
    for (watched, found) in due.into_iter().zip(store.head_many(&targets).await) {
        let check = match found {
            Ok(Some(now)) if is_written_to(&watched.moved, &now) => put_back(store, names, &watched.moved, now).await,
            Ok(_) => Ok(Checked::Same),
            Err(error) => Err(error),
        };
        checks.push((watched, check));
    }
    checks
}

/// Whether it was written to since it was read.
fn is_written_to(moved: &Moved, now: &ObjectMeta) -> bool {
    version_of(moved).is_some_and(|read| is_later_state(&read, &now.version))
}

async fn put_back(store: &dyn Store, names: Names, moved: &Moved, now: ObjectMeta) -> Result<Checked> {
    let own = format!("{PENDING}{}", moved.path);
    let key = match store.rename(&moved.target, &now.version, &own).await? {
        RenameOutcome::TargetExists => {
            // A newer file has its name.
            let other = names.in_pending(&moved.path, &format!("{}|{}", moved.path, now.version.0));
            match store.rename(&moved.target, &now.version, &other).await? {
                RenameOutcome::Moved => other,
                RenameOutcome::SourceChanged | RenameOutcome::TargetExists => return Err(busy(moved)),
            }
        }
        RenameOutcome::Moved => own,
        RenameOutcome::SourceChanged => return Err(busy(moved)),
    };
    Ok(Checked::PutBack { key, now })
}

fn busy(moved: &Moved) -> StoreError {
    let message = "it is being written to in this very moment, and cannot be put back into pending/ to be read again";
    StoreError::new(StoreErrorKind::VersionMismatch, "rename", &moved.target, message)
}

/// The version that was read: an identity in a folder is the path and the version.
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
    fn a_service_checks_at_growing_intervals_for_a_day_and_a_run_once() {
        let mut watch = Watch::new(vec![moved("a", 1_000)], 1_500, false);
        let mut checks = Vec::new();
        while let Some(now_ms) = watch.next_ms() {
            for watched in watch.take_due(now_ms) {
                checks.push(now_ms);
                watch.checked(watched.moved, now_ms);
            }
        }
        assert_eq!(checks, [1_500, 11_000, 61_000, 601_000, 3_601_000, 1_000 + WATCHED_FOR_MS]);
        let mut once = Watch::new(vec![moved("a", 1_000)], 1_500, true);
        for watched in once.take_due(1_500) {
            once.checked(watched.moved, 1_500);
        }
        assert_eq!(once.next_ms(), None);
    }

    #[test]
    fn a_failed_check_is_retried_before_a_run_ends() {
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
    fn files_moved_long_ago_are_not_checked_and_memory_is_bounded() {
        let now_ms = 10 * WATCHED_FOR_MS;
        assert_eq!(Watch::new(vec![moved("a", now_ms - WATCHED_FOR_MS - 1)], now_ms, true).next_ms(), None);
        let mut watch = Watch::default();
        for number in 0..MOST_MOVED + 10 {
            watch.plan_check(moved(&number.to_string(), 0), i64::try_from(number).unwrap_or(0));
        }
        assert_eq!((watch.due.len(), watch.next_ms()), (MOST_MOVED, Some(0)));
    }

    #[test]
    fn of_two_files_under_one_name_the_later_one_is_checked() {
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
