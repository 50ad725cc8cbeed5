//! Problems with files: for `--once`, which must not end as if everything were done, for the log, and for the status
//! page. A file's problem affects only that file.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::store::{StoreError, StoreErrorKind};
use serde::Serialize;

use crate::identity::IdentityHash;
use crate::routes::Sweep;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A problem of the ledger, with all files that belong to it.
    Partition,
    Unreadable,
    /// A folder, or an object of which a listing omits properties.
    Unlisted,
    /// It changes faster than it can be read.
    Changing,
    Unarchived,
    /// It was moved, and the check for later writes failed or could not put it back.
    WrittenLate,
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Self::Partition => "cannot be worked on",
            Self::Unreadable => "cannot be read",
            Self::Unlisted => "cannot be listed",
            Self::Changing => "keeps changing",
            Self::Unarchived => "cannot be archived",
            Self::WrittenLate => "cannot be checked after it was moved",
        }
    }

    /// What an operator can do about it, if the error does not say so.
    fn advice(self) -> Option<&'static str> {
        match self {
            Self::Partition | Self::Unreadable | Self::Unlisted | Self::WrittenLate => None,
            Self::Changing => Some(
                "Write files under a hidden name (it begins with '.') and rename them when they are whole; \
                 landing.min_age says how long a file must be unchanged",
            ),
            Self::Unarchived => Some(
                "Events of files that cannot be archived are published all the same, once. Where files can never be moved \
                 or deleted, set landing.archive = \"leave\"",
            ),
        }
    }
}

/// One file or folder that could not be processed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Its key in the landing zone.
    pub file: String,
    /// What cannot be done with it.
    pub problem: &'static str,
    pub error: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}: {}", self.file, self.problem, self.error)
    }
}

/// All problems of a run; as many as fit are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    pub total: u64,
    /// The first of them by kind and key, at most [`Problems::MOST_LISTED`].
    pub listed: Vec<Problem>,
    advice: Vec<&'static str>,
}

impl Problems {
    pub const MOST_LISTED: usize = 100;

    /// What to do about them, one sentence each.
    #[must_use]
    pub fn advice(&self) -> &[&'static str] {
        &self.advice
    }
}

/// Each problem on a line of its own.
impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.total == 1 { "" } else { "s" };
        write!(formatter, "landing zone: {} problem{plural}; everything else is done", self.total)?;
        self.listed.iter().try_for_each(|problem| write!(formatter, "\n  {problem}"))?;
        let unlisted = self.total.saturating_sub(self.listed.len() as u64);
        if unlisted > 0 {
            write!(formatter, "\n  … and {unlisted} more")?;
        }
        self.advice.iter().try_for_each(|advice| write!(formatter, "\n{advice}."))
    }
}

#[derive(Debug)]
struct Open {
    kind: Kind,
    error: StoreError,
    /// The last whole listing that had begun when it was recorded.
    seen: Sweep,
    /// Another listing has to show whether it still exists.
    is_past: bool,
}

#[derive(Debug, Default)]
struct State {
    by_file: HashMap<IdentityHash, Open>,
    /// Those beyond the limit.
    unlisted: u64,
    /// Files that changed or vanished while they were read since the last listing began, up to a limit.
    changed: BTreeSet<String>,
    has_changed: bool,
    /// Another listing may find more.
    list_again: bool,
}

/// Problems by file version, until they are solved.
#[derive(Debug, Default)]
pub(crate) struct ProblemBook(Mutex<State>);

/// Some stores list a character that their answers cannot carry, such as a control character, as U+FFFD.
const NO_SUCH_NAME: &str = "it cannot be addressed: the listing gives its name with U+FFFD in place of a character that \
                            the store's answers cannot carry, such as a control character, and no object has that name; \
                            rename it with a client that knows the real name, or delete it";
/// The most problems kept; further ones are only counted.
const MOST: usize = 10_000;
/// The most changed files that are named.
const MOST_CHANGED: usize = 20;

impl ProblemBook {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a problem as of the listing `seen`; true if it is new and should be logged.
    pub(crate) fn note(&self, identity: &str, kind: Kind, error: StoreError, seen: Sweep) -> bool {
        let mut state = self.lock();
        let hash = IdentityHash::of(identity);
        if state.by_file.len() >= MOST && !state.by_file.contains_key(&hash) {
            state.unlisted += 1;
            return false;
        }
        let is_news =
            state.by_file.get(&hash).is_none_or(|open| open.kind != kind || open.error.message != error.message);
        state.by_file.insert(hash, Open { kind, error, seen, is_past: false });
        is_news
    }

    pub(crate) fn solved(&self, identity: &str) {
        self.lock().by_file.remove(&IdentityHash::of(identity));
    }

    /// Records a file that changed or vanished while it was read.
    pub(crate) fn changed(&self, path: &str) {
        let mut state = self.lock();
        state.has_changed = true;
        if state.changed.len() < MOST_CHANGED {
            state.changed.insert(path.to_owned());
        }
    }

    /// Requests another listing, which may find more than the current one.
    pub(crate) fn list_again(&self) {
        self.lock().list_again = true;
    }

    /// Whether another listing was requested since the last one began.
    pub(crate) fn wants_a_listing(&self) -> bool {
        self.lock().list_again
    }

    /// Whether any changed since the last listing began.
    pub(crate) fn has_changed(&self) -> bool {
        self.lock().has_changed
    }

    /// Files that changed at every listing are given up.
    pub(crate) fn give_changing_up(&self, seen: Sweep) {
        let changed = {
            let mut state = self.lock();
            state.has_changed = false;
            std::mem::take(&mut state.changed)
        };
        for path in changed {
            let key = format!("{}{path}", crate::identity::PENDING);
            let (kind, error) = if path.contains(char::REPLACEMENT_CHARACTER) {
                (Kind::Unreadable, StoreError::new(StoreErrorKind::InvalidKey, "get", &key, NO_SUCH_NAME))
            } else {
                let message = "it changed at every try to read it";
                (Kind::Changing, StoreError::new(StoreErrorKind::VersionMismatch, "get", &key, message))
            };
            self.note(&key, kind, error, seen);
        }
    }

    /// Begins another listing, which may show some as solved: they count only if it records them again.
    pub(crate) fn begin_listing(&self) {
        let mut state = self.lock();
        // A listing does not check moved files.
        let found_again = |open: &&mut Open| open.kind != Kind::WrittenLate;
        state.by_file.values_mut().filter(found_again).for_each(|open| open.is_past = true);
        state.unlisted = 0;
        (state.has_changed, state.list_again) = (false, false);
        state.changed.clear();
    }

    /// A whole listing is complete: problems that neither it nor the previous one met are solved.
    pub(crate) fn swept(&self, sweep: Sweep) {
        self.lock().by_file.retain(|_, open| open.kind == Kind::WrittenLate || open.seen.is_recent(sweep));
    }

    /// One that may be temporary, if there is any.
    pub(crate) fn temporary(&self) -> Option<StoreError> {
        let state = self.lock();
        let temporary =
            state.by_file.values().find(|open| !open.is_past && open.error.kind == StoreErrorKind::Transient);
        temporary.map(|open| open.error.clone())
    }

    /// All problems, at most `limit` of them listed; `None` if there is none.
    pub(crate) fn all(&self, limit: usize) -> Option<Problems> {
        let state = self.lock();
        let mut open: Vec<&Open> = state.by_file.values().filter(|open| !open.is_past).collect();
        let total = open.len() as u64 + state.unlisted;
        if total == 0 {
            return None;
        }
        open.sort_unstable_by(|left, right| (left.kind, &left.error.key).cmp(&(right.kind, &right.error.key)));
        let kinds: BTreeSet<Kind> = open.iter().map(|open| open.kind).collect();
        let listed = open.into_iter().take(limit).map(|Open { kind, error, .. }| Problem {
            file: error.key.clone(),
            problem: kind.words(),
            error: error.message.clone(),
        });
        Some(Problems { total, listed: listed.collect(), advice: kinds.into_iter().filter_map(Kind::advice).collect() })
    }

    pub(crate) fn count(&self) -> usize {
        let state = self.lock();
        let unlisted = usize::try_from(state.unlisted).unwrap_or(usize::MAX);
        state.by_file.values().filter(|open| !open.is_past).count().saturating_add(unlisted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: StoreErrorKind, key: &str, message: &str) -> StoreError {
        StoreError::new(kind, "get", key, message)
    }

    fn at(sweep: u64) -> Sweep {
        Sweep::number(sweep)
    }

    #[test]
    fn every_problem_is_named_up_to_the_limit_and_the_rest_counted() {
        let book = ProblemBook::default();
        for number in 0..30 {
            let key = format!("pending/{number:02}");
            book.note(&key, Kind::Unreadable, error(StoreErrorKind::Denied, &key, "no"), at(1));
        }
        let all = book.all(3).map(|all| all.to_string()).unwrap_or_default();
        assert!(all.contains("30 problems") && all.contains("pending/02 cannot be read: no"), "{all}");
        assert!(all.contains("and 27 more") && !all.contains("pending/03"), "{all}");
        assert!(book.temporary().is_none());
    }

    #[test]
    fn more_problems_than_are_kept_are_counted() {
        let book = ProblemBook::default();
        for number in 0..MOST + 5 {
            let key = number.to_string();
            book.note(&key, Kind::Unarchived, error(StoreErrorKind::Denied, &key, "no"), at(1));
        }
        assert_eq!((book.count(), book.all(1).map(|all| all.total)), (MOST + 5, Some(MOST as u64 + 5)));
    }

    #[test]
    fn a_problem_is_new_once_and_counts_only_while_listings_find_it() {
        let book = ProblemBook::default();
        let denied = |message: &str| error(StoreErrorKind::Denied, "pending/a", message);
        assert!(book.note("a", Kind::Unreadable, denied("no"), at(1)));
        assert!(!book.note("a", Kind::Unreadable, denied("no"), at(2)), "it is not new");
        book.begin_listing();
        assert!(book.all(9).is_none(), "it may be solved");
        assert!(!book.note("a", Kind::Unreadable, denied("no"), at(3)));
        assert!(book.all(9).is_some());
        assert!(book.note("a", Kind::Unreadable, denied("why"), at(3)));
        book.swept(at(4));
        assert_eq!(book.count(), 1);
        book.swept(at(5));
        assert_eq!(book.count(), 0, "no listing met it any more");
    }

    #[test]
    fn temporary_problems_are_distinguished_from_permanent_ones() {
        let book = ProblemBook::default();
        book.note("a", Kind::Unreadable, error(StoreErrorKind::Denied, "a", "no"), at(1));
        book.note("b", Kind::Unreadable, error(StoreErrorKind::Transient, "b", "later"), at(1));
        assert_eq!(book.temporary().map(|error| error.key), Some("b".to_owned()));
        book.solved("b");
        assert!(book.temporary().is_none() && book.count() == 1);
    }

    #[test]
    fn files_that_change_at_every_listing_become_problems_with_their_names() {
        let book = ProblemBook::default();
        book.changed("x.json");
        assert!(book.has_changed());
        book.begin_listing();
        assert!(!book.has_changed());
        book.changed("y.json");
        book.give_changing_up(at(1));
        let all = book.all(9).map(|all| all.to_string()).unwrap_or_default();
        assert!(all.contains("pending/y.json keeps changing") && !all.contains("x.json"), "{all}");
        assert!(all.contains("hidden name"), "{all}");
    }

    /// Some S3 servers list a control character as U+FFFD.
    #[test]
    fn an_object_whose_listed_name_is_not_its_own_does_not_keep_changing() {
        let book = ProblemBook::default();
        book.changed("a\u{fffd}[2J.json");
        book.give_changing_up(at(1));
        let all = book.all(9).map(|all| all.to_string()).unwrap_or_default();
        assert!(all.contains("pending/a\u{fffd}[2J.json cannot be read: "), "{all}");
        assert!(all.contains("it cannot be addressed") && all.contains("rename it"), "{all}");
        assert!(!all.contains("changing") && !all.contains("hidden name"), "{all}");
    }
}
