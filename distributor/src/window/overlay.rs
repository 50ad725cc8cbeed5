//! The keys of a batch that is not complete yet.

use super::arrivals::Arrivals;
use super::epochs::{Epochs, join, split};

#[derive(Debug, Clone, Default)]
pub(crate) struct Overlay {
    pub(super) epochs: Epochs<Arrivals>,
}

impl Overlay {
    /// Of several times of a key the latest counts. Returns the previous latest, if it was in the same epoch.
    pub(super) fn put(&mut self, key: u128, time_ms: i64) -> Option<i64> {
        let (epoch, within) = split(time_ms);
        let before = self.epochs.of(epoch).insert(key, within);
        before.map(|within| join(epoch, within))
    }

    /// Inserts, and returns whether `key` was present with a log time of at least `from_ms`: both in one look-up.
    pub(super) fn insert_and_check(&mut self, key: u128, time_ms: i64, from_ms: i64) -> bool {
        if let Some(before_ms) = self.put(key, time_ms) {
            return before_ms >= from_ms;
        }
        // Usually there is one epoch.
        let (this, _) = split(time_ms);
        self.epochs
            .since(from_ms)
            .filter(|(epoch, _)| *epoch < this)
            .any(|(epoch, arrivals)| arrivals.get(key).is_some_and(|within| join(epoch, within) >= from_ms))
    }

    /// See [`Groups::touch`](super::groups::Groups::touch).
    pub(super) fn touch(&self, keys: &[u128]) -> u64 {
        let each = |arrivals: &Arrivals| keys.iter().fold(0, |word, key| word ^ arrivals.touch(*key));
        self.epochs.iter().fold(0, |word, (_, arrivals)| word ^ each(arrivals))
    }

    pub(crate) fn len(&self) -> usize {
        self.epochs.iter().map(|(_, arrivals)| arrivals.len()).sum()
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.epochs.iter().map(|(_, arrivals)| arrivals.memory_bytes()).sum()
    }
}
