//! Keys of complete batches in memory, with the latest log time of each.

use super::epochs::{Epochs, join, split};
use super::overlay::Overlay;
use super::table::Table;

#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    epochs: Epochs<Table>,
}

impl Keys {
    /// Whether `key` is present with a log time of at least `from_ms`.
    pub(super) fn contains_since(&self, key: u128, from_ms: i64) -> bool {
        self.epochs
            .since(from_ms)
            .any(|(epoch, table)| table.get(key).is_some_and(|within| join(epoch, within) >= from_ms))
    }

    /// See [`Groups::touch`](super::groups::Groups::touch).
    pub(super) fn touch(&self, keys: &[u128]) -> u64 {
        let each = |table: &Table| keys.iter().fold(0, |word, key| word ^ table.touch(*key));
        self.epochs.iter().fold(0, |word, (_, table)| word ^ each(table))
    }

    /// Of several times of a key the latest counts.
    pub(super) fn insert(&mut self, key: u128, time_ms: i64) {
        let (epoch, within) = split(time_ms);
        self.epochs.of(epoch).insert(key, within);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u128, i64)> {
        self.epochs.iter().flat_map(|(epoch, table)| table.iter().map(move |(key, within)| (key, join(epoch, within))))
    }

    pub(super) fn absorb(&mut self, overlay: Overlay) {
        for (epoch, arrivals) in overlay.epochs.into_iter() {
            let table = self.epochs.of(epoch);
            arrivals.drain(|entry| {
                table.insert(entry.key(), entry.time);
            });
        }
    }

    /// Removes entries older than `oldest_ms` from one shard of each table and passes them to `removed`.
    pub(super) fn sweep(&mut self, shard: usize, oldest_ms: i64, mut removed: impl FnMut(u128, i64)) {
        let (oldest, within) = split(oldest_ms);
        for (epoch, table) in self.epochs.iter_mut().take_while(|(epoch, _)| *epoch <= oldest) {
            // The table of an epoch that is over is removed as a whole.
            let within = if epoch == oldest { u64::from(within) } else { 1 << 32 };
            table.sweep(shard, within, |key, time| removed(key, join(epoch, time)));
        }
        self.epochs.retain(|epoch, table| epoch >= oldest || table.len() > 0);
    }

    pub(super) fn len(&self) -> usize {
        self.epochs.iter().map(|(_, table)| table.len()).sum()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.epochs.iter().map(|(_, table)| table.memory_bytes()).sum()
    }
}
