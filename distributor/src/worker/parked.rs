//! Partitions that cannot continue while others of this member do: a refusal or a failing store affects only its
//! partition. A service retries them from time to time; a run with `once` reports them at its end.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::partition::PartitionError;

/// The first wait after a temporary failure; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait, and the wait after a failure for an operator.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

#[derive(Debug)]
struct Failure {
    /// `None` while it is retried.
    error: Option<PartitionError>,
    /// `None`: not in this session.
    retry_at: Option<Instant>,
    times: u32,
}

#[derive(Debug, Default)]
pub(super) struct Parked(BTreeMap<i32, Failure>);

impl Parked {
    /// With `once` a partition is not retried here: the role does that, when the others are done.
    pub(super) fn park(&mut self, id: i32, error: PartitionError, once: bool, now: Instant) {
        let times = self.0.get(&id).map_or(0, |failure| failure.times);
        let wait = if error.is_retryable(once) { wait_after(times) } else { LONGEST_WAIT };
        let retry_at = (!once).then(|| now + wait);
        self.0.insert(id, Failure { error: Some(error), retry_at, times: times.saturating_add(1) });
    }

    /// It is being retried; only the number of its failures is kept.
    pub(super) fn is_tried(&mut self, id: i32) {
        if let Some(failure) = self.0.get_mut(&id) {
            (failure.error, failure.retry_at) = (None, None);
        }
    }

    /// It works again, or was assigned to another member.
    pub(super) fn forget(&mut self, id: i32) {
        self.0.remove(&id);
    }

    fn open(&self) -> impl Iterator<Item = (i32, &PartitionError)> {
        self.0.iter().filter_map(|(id, failure)| Some((*id, failure.error.as_ref()?)))
    }

    pub(super) fn holds(&self, id: i32) -> bool {
        self.0.get(&id).is_some_and(|failure| failure.error.is_some())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open().next().is_none()
    }

    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.0.values().filter_map(|failure| failure.retry_at).min()
    }

    /// Those that are due for a retry.
    pub(super) fn due(&self, now: Instant) -> Vec<i32> {
        let is_due = |failure: &Failure| failure.retry_at.is_some_and(|at| at <= now);
        self.0.iter().filter(|(_, failure)| is_due(failure)).map(|(id, _)| *id).collect()
    }

    /// The reason why this member is not ready, if partitions are parked.
    pub(super) fn reason(&self) -> Option<String> {
        let (id, error) = self.open().next()?;
        let others = self.open().count() - 1;
        let more = if others == 0 { String::new() } else { format!(" (and {others} more partitions)") };
        Some(format!("partition {id}: {error}{more}"))
    }

    /// All their errors, as one.
    pub(super) fn take_errors(&mut self) -> PartitionError {
        let failed = std::mem::take(&mut self.0);
        let errors = failed.into_iter().filter_map(|(id, failure)| Some((id, failure.error?)));
        PartitionError::Partitions(errors.collect())
    }
}

fn wait_after(times: u32) -> Duration {
    FIRST_WAIT.saturating_mul(1 << times.min(10)).min(LONGEST_WAIT)
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
