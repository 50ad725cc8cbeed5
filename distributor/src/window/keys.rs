//! Keys with the latest log time of each, in memory.

use std::collections::BTreeMap;

use super::table::Table;

/// An entry's time is a 32-bit number of milliseconds within an absolute epoch of 49.7 days: nearly always there is one
/// table, sometimes two.
pub(super) const EPOCH_MS: i64 = 1 << 32;

#[derive(Debug, Clone, Default)]
pub(crate) struct Keys {
    pub(super) epochs: BTreeMap<i64, Table>,
}

/// Epoch, and milliseconds within it.
fn split(time_ms: i64) -> (i64, u32) {
    // The remainder is below the width, which fits.
    (time_ms.div_euclid(EPOCH_MS), u32::try_from(time_ms.rem_euclid(EPOCH_MS)).unwrap_or(u32::MAX))
}

fn join(epoch: i64, within: u32) -> i64 {
    epoch * EPOCH_MS + i64::from(within)
}

impl Keys {
    /// Whether `key` stands here with a log time of at least `from_ms`.
    pub(super) fn contains_since(&self, key: u128, from_ms: i64) -> bool {
        let oldest = from_ms.div_euclid(EPOCH_MS);
        self.epochs
            .range(oldest..)
            .rev()
            .any(|(epoch, table)| table.get(key).is_some_and(|within| join(*epoch, within) >= from_ms))
    }

    /// Of several times of a key the latest counts. Returns the latest of before, if that was in the same epoch.
    fn put(&mut self, key: u128, time_ms: i64) -> Option<i64> {
        let (epoch, within) = split(time_ms);
        let before = self.epochs.entry(epoch).or_default().insert(key, within);
        before.map(|within| join(epoch, within))
    }

    /// Of several times of a key the latest counts.
    pub(crate) fn insert(&mut self, key: u128, time_ms: i64) {
        self.put(key, time_ms);
    }

    /// Inserts, and says whether `key` stood here before with a log time of at least `from_ms`: both in one look-up.
    pub(super) fn insert_and_look(&mut self, key: u128, time_ms: i64, from_ms: i64) -> bool {
        if let Some(before_ms) = self.put(key, time_ms) {
            return before_ms >= from_ms;
        }
        // Nearly always there is one epoch.
        let (oldest, epoch) = (from_ms.div_euclid(EPOCH_MS), time_ms.div_euclid(EPOCH_MS));
        oldest < epoch
            && self
                .epochs
                .range(oldest..epoch)
                .rev()
                .any(|(epoch, table)| table.get(key).is_some_and(|within| join(*epoch, within) >= from_ms))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u128, i64)> {
        self.epochs.iter().flat_map(|(epoch, table)| table.iter().map(|(key, within)| (key, join(*epoch, within))))
    }

    pub(super) fn absorb(&mut self, other: Self) {
        for (epoch, table) in other.epochs {
            match self.epochs.entry(epoch) {
                std::collections::btree_map::Entry::Vacant(slot) => {
                    slot.insert(table);
                }
                std::collections::btree_map::Entry::Occupied(mut slot) => {
                    for (key, within) in table.iter() {
                        slot.get_mut().insert(key, within);
                    }
                }
            }
        }
    }

    /// Removes what is older than `oldest_ms` from one shard of each table and hands it to `removed`.
    pub(super) fn sweep(&mut self, shard: usize, oldest_ms: i64, mut removed: impl FnMut(u128, i64)) {
        let (oldest, within) = split(oldest_ms);
        for (epoch, table) in self.epochs.range_mut(..=oldest) {
            // A table of an epoch that is over goes whole.
            let within = if *epoch == oldest { u64::from(within) } else { 1 << 32 };
            table.sweep(shard, within, |key, time| removed(key, join(*epoch, time)));
        }
        self.epochs.retain(|epoch, table| *epoch >= oldest || table.len() > 0);
    }

    pub(super) fn len(&self) -> usize {
        self.epochs.values().map(Table::len).sum()
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.epochs.values().map(Table::memory_bytes).sum()
    }
}
