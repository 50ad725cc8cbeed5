//! Data of the status page that is not a metric: lists of bounded length, and rates.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::minute::{Minute, Rates};
use crate::ledger::Ledger;
use crate::problems::ProblemBook;

/// The most rows of a list.
pub(super) const MOST_ROWS: usize = 100;

/// A file as recorded in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QuarantinedFile {
    pub path: String,
    /// Everything before is committed.
    pub from_byte: u64,
    pub reason: String,
    pub since_ms: i64,
}

/// The newest quarantined files of one ledger partition.
#[derive(Debug)]
struct Listed {
    /// The quarantine's change counter when this was listed.
    change: u64,
    files: Vec<QuarantinedFile>,
}

#[derive(Debug)]
pub(super) struct Board {
    begun: Instant,
    minute: Mutex<Minute>,
    ledger_partitions: AtomicU32,
    quarantined: Mutex<BTreeMap<i32, Listed>>,
    /// … of partitions that were given up, as they were then: for the report at the end.
    given_up: Mutex<BTreeMap<i32, Listed>>,
    problems: Mutex<Arc<ProblemBook>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            minute: Mutex::new(Minute::new()),
            ledger_partitions: AtomicU32::new(0),
            quarantined: Mutex::default(),
            given_up: Mutex::default(),
            problems: Mutex::default(),
        }
    }

    pub(super) fn seconds(&self) -> u64 {
        self.begun.elapsed().as_secs()
    }

    pub(super) fn count(&self, events: u64, bytes: u64) {
        let second = self.seconds();
        lock(&self.minute).add(second, events, bytes);
    }

    pub(super) fn rates(&self) -> Rates {
        lock(&self.minute).rates(self.seconds())
    }

    pub(super) fn watch(&self, ledger_partitions: u32, problems: Arc<ProblemBook>) {
        self.ledger_partitions.store(ledger_partitions, Ordering::Relaxed);
        *lock(&self.problems) = problems;
    }

    pub(super) fn ledger_partitions(&self) -> u32 {
        self.ledger_partitions.load(Ordering::Relaxed)
    }

    pub(super) fn problems(&self) -> Arc<ProblemBook> {
        lock(&self.problems).clone()
    }

    /// Lists the partition's quarantined files again if they have changed.
    pub(super) fn ledger_is(&self, partition: i32, ledger: &Ledger) {
        let mut quarantined = lock(&self.quarantined);
        let change = ledger.quarantine_changes();
        if quarantined.get(&partition).is_some_and(|listed| listed.change == change) {
            return;
        }
        let files = ledger.newest_quarantined(MOST_ROWS).map(|entry| QuarantinedFile {
            path: entry.path.clone(),
            from_byte: entry.byte,
            reason: entry.reason.clone().unwrap_or_default(),
            since_ms: entry.at_ms,
        });
        let files = files.collect();
        quarantined.insert(partition, Listed { change, files });
    }

    pub(super) fn partition_given_up(&self, partition: i32) {
        if let Some(listed) = lock(&self.quarantined).remove(&partition) {
            lock(&self.given_up).insert(partition, listed);
        }
    }

    pub(super) fn partition_owned(&self, partition: i32) {
        lock(&self.given_up).remove(&partition);
    }

    /// The newest files of all owned partitions.
    pub(super) fn quarantined(&self) -> Vec<QuarantinedFile> {
        Self::newest(lock(&self.quarantined).values())
    }

    /// … and of those that are not owned any more.
    pub(super) fn quarantined_at_the_end(&self) -> Vec<QuarantinedFile> {
        Self::newest(lock(&self.quarantined).values().chain(lock(&self.given_up).values()))
    }

    fn newest<'l>(listed: impl Iterator<Item = &'l Listed>) -> Vec<QuarantinedFile> {
        let mut files: Vec<QuarantinedFile> = listed.flat_map(|listed| &listed.files).cloned().collect();
        files.sort_by(|left, right| right.since_ms.cmp(&left.since_ms).then_with(|| left.path.cmp(&right.path)));
        files.truncate(MOST_ROWS);
        files
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Entry, FileState};
    use crate::routes::Sweep;

    fn quarantine(ledger: &mut Ledger, path: &str, at_ms: i64) {
        let entry =
            Entry { state: FileState::Quarantined, reason: Some("bad".to_owned()), ..Entry::new(path, 1, at_ms) };
        ledger.insert(&format!("{path}|1"), entry, Sweep::number(1), true);
    }

    #[test]
    fn the_newest_of_all_owned_partitions_are_listed_up_to_the_limit() {
        let board = Board::new();
        let (mut even, mut odd) = (Ledger::default(), Ledger::default());
        for number in 0..150 {
            quarantine(if number % 2 == 0 { &mut even } else { &mut odd }, &format!("{number:03}"), number);
        }
        board.ledger_is(0, &even);
        board.ledger_is(1, &odd);
        let listed: Vec<i64> = board.quarantined().iter().map(|file| file.since_ms).collect();
        assert_eq!(listed, (50..150).rev().collect::<Vec<_>>());
        board.partition_given_up(1);
        assert_eq!(board.quarantined().len(), 75);
        even.remove("000|1");
        board.ledger_is(0, &even);
        assert_eq!(board.quarantined().len(), 74);
    }
}
