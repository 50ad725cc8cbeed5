//! Partitions that cannot continue while others of this member do: a refusal or a failing store affects only its
//! partition, as do records that cannot be read. A service retries them from time to time; a run with `once` reports
//! them at its end.

use std::collections::BTreeMap;
use std::time::Duration;

use common::log::{LogError, LogErrorKind};
use tokio::time::Instant;

use crate::error::PartitionError;

/// The first wait after a temporary failure; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait, and the wait after a failure for an operator.
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// The same for unreadable records: each retry rebuilds the window.
const LONGEST_WAIT_TO_READ: Duration = Duration::from_secs(240);

#[derive(Debug)]
struct Failure {
    /// `None` while it is retried.
    error: Option<PartitionError>,
    /// `None`: not in this session.
    retry_at: Option<Instant>,
    times: u32,
}

/// Where a partition cannot be read.
#[derive(Debug)]
struct Unreadable {
    offset: i64,
    reason: String,
}

#[derive(Debug, Default)]
pub(super) struct Parked {
    failed: BTreeMap<i32, Failure>,
    /// Also during retries, until something further is read.
    unreadable: BTreeMap<i32, Unreadable>,
}

impl Parked {
    /// With `once` a partition is not retried here: the role does that, when the others are done.
    pub(super) fn park(&mut self, id: i32, error: PartitionError, once: bool, now: Instant) {
        let times = self.failed.get(&id).map_or(0, |failure| failure.times);
        let wait = match &error {
            PartitionError::Log(error) if error.kind == LogErrorKind::Corrupt => {
                wait_after(times, LONGEST_WAIT_TO_READ)
            }
            error if error.is_retryable(once) => wait_after(times, LONGEST_WAIT),
            _ => LONGEST_WAIT,
        };
        let retry_at = (!once).then(|| now + wait);
        self.failed.insert(id, Failure { error: Some(error), retry_at, times: times.saturating_add(1) });
    }

    /// It is being retried; only the number of its failures is kept.
    pub(super) fn is_tried(&mut self, id: i32) {
        if let Some(failure) = self.failed.get_mut(&id) {
            (failure.error, failure.retry_at) = (None, None);
        }
    }

    /// It works again.
    pub(super) fn forget(&mut self, id: i32) {
        self.failed.remove(&id);
    }

    /// Another member retries it.
    pub(super) fn is_revoked(&mut self, id: i32) {
        self.failed.remove(&id);
        self.unreadable.remove(&id);
    }

    pub(super) fn cannot_be_read(&mut self, id: i32, offset: i64, error: &LogError) {
        self.unreadable.insert(id, Unreadable { offset, reason: error.to_string() });
    }

    /// Records up to `offset` were read, or with `None` all that there are.
    pub(super) fn was_read(&mut self, id: i32, offset: Option<i64>) {
        let is_behind = |unreadable: &Unreadable| offset.is_some_and(|offset| offset < unreadable.offset);
        if self.unreadable.get(&id).is_some_and(|unreadable| !is_behind(unreadable)) {
            self.unreadable.remove(&id);
        }
    }

    fn open(&self) -> impl Iterator<Item = (i32, &PartitionError)> {
        self.failed.iter().filter_map(|(id, failure)| Some((*id, failure.error.as_ref()?)))
    }

    pub(super) fn holds(&self, id: i32) -> bool {
        self.failed.get(&id).is_some_and(|failure| failure.error.is_some())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open().next().is_none()
    }

    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.failed.values().filter_map(|failure| failure.retry_at).min()
    }

    /// Those that are due for a retry.
    pub(super) fn due(&self, now: Instant) -> Vec<i32> {
        let is_due = |failure: &Failure| failure.retry_at.is_some_and(|at| at <= now);
        self.failed.iter().filter(|(_, failure)| is_due(failure)).map(|(id, _)| *id).collect()
    }

    /// The reasons why partitions cannot continue, whether or not they are being retried.
    fn reasons(&self) -> BTreeMap<i32, String> {
        let unreadable = self.unreadable.iter().map(|(id, unreadable)| (*id, unreadable.reason.clone()));
        unreadable.chain(self.open().map(|(id, error)| (id, error.to_string()))).collect()
    }

    pub(super) fn count(&self) -> usize {
        let others = self.open().filter(|(id, _)| !self.unreadable.contains_key(id));
        self.unreadable.len() + others.count()
    }

    /// The reason why this member is not ready, if partitions cannot continue.
    pub(super) fn reason(&self) -> Option<String> {
        let reasons = self.reasons();
        let (id, error) = reasons.first_key_value()?;
        let others = reasons.len() - 1;
        let more = if others == 0 { String::new() } else { format!(" (and {others} more partitions)") };
        Some(format!("partition {id}: {error}{more}"))
    }

    /// All their errors, as one.
    pub(super) fn take_errors(&mut self) -> PartitionError {
        let failed = std::mem::take(&mut self.failed);
        let errors = failed.into_iter().filter_map(|(id, failure)| Some((id, failure.error?)));
        PartitionError::Partitions(errors.collect())
    }
}

fn wait_after(times: u32, longest: Duration) -> Duration {
    FIRST_WAIT.saturating_mul(1 << times.min(10)).min(longest)
}

#[cfg(test)]
mod tests {
    use common::store::{StoreError, StoreErrorKind};

    use super::*;

    fn error(kind: StoreErrorKind) -> PartitionError {
        PartitionError::Store(StoreError::new(kind, "put", "x", "no"))
    }

    #[tokio::test]
    async fn temporary_failures_are_retried_soon_and_then_less_often() {
        let (mut parked, now) = (Parked::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..7 {
            parked.park(3, error(StoreErrorKind::Transient), false, now);
            waits.push((parked.next_retry().unwrap() - now).as_secs());
            parked.is_tried(3);
            assert!(parked.is_empty() && parked.next_retry().is_none());
        }
        assert_eq!(waits, [1, 2, 4, 8, 15, 15, 15]);
        parked.forget(3);
        parked.park(3, error(StoreErrorKind::Transient), false, now);
        assert_eq!(parked.due(now + FIRST_WAIT), [3]);
        parked.park(4, error(StoreErrorKind::Other), false, now);
        assert_eq!((parked.due(now + FIRST_WAIT), parked.due(now + LONGEST_WAIT)), (vec![3], vec![3, 4]));
    }

    #[tokio::test]
    async fn unreadable_records_are_reported_until_something_behind_them_is_read() {
        let unreadable = || LogError::new(LogErrorKind::Corrupt, "offset 7 is damaged");
        let (mut parked, now) = (Parked::default(), Instant::now());
        for wait in [1, 2, 4, 8, 16, 32, 64, 128, 240, 240] {
            parked.cannot_be_read(3, 7, &unreadable());
            assert_eq!(parked.count(), 1, "also while the records before are written");
            parked.park(3, PartitionError::Log(unreadable()), false, now);
            assert_eq!((parked.next_retry().unwrap() - now).as_secs(), wait);
            parked.is_tried(3);
            // The last record that was written is compared first.
            parked.was_read(3, Some(6));
            assert!(parked.is_empty() && parked.count() == 1, "nothing further was read yet");
            assert!(parked.reason().unwrap().contains("partition 3: log: offset 7 is damaged"));
        }
        parked.was_read(3, Some(7));
        assert_eq!((parked.count(), parked.reason()), (0, None));
        parked.cannot_be_read(3, 7, &unreadable());
        parked.was_read(3, None);
        assert_eq!(parked.count(), 0, "the end was reached");
    }

    #[tokio::test]
    async fn with_once_nothing_is_retried_and_all_are_named() {
        let mut parked = Parked::default();
        for id in [2, 7] {
            parked.park(id, error(StoreErrorKind::Transient), true, Instant::now());
        }
        assert!(parked.next_retry().is_none() && parked.holds(7) && !parked.holds(1));
        assert!(parked.reason().unwrap().contains("partition 2: "), "{:?}", parked.reason());
        let error = parked.take_errors().to_string();
        assert!(error.contains("partition 2: ") && error.contains("partition 7: "), "{error}");
        assert!(parked.is_empty());
    }
}
