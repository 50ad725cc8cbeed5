//! Keys of the open batch: entries by shard in the order of arrival, and an index of them.
//!
//! An entry is appended to its shard, and only its four-byte position goes to a random place. That is a third of the
//! memory accesses of a table of entries. An entry takes 26 to 34 bytes.

use super::entry::Entry;
use super::groups::{Groups, SHARDS, shard_of};

#[derive(Debug, Clone, Default)]
struct Shard {
    groups: Groups,
    /// By place in the groups: position in `entries`.
    positions: Box<[u32]>,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
pub(super) struct Arrivals {
    shards: Box<[Shard]>,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self { shards: vec![Shard::default(); SHARDS].into_boxed_slice() }
    }
}

impl Shard {
    fn find(&self, key: u128) -> Option<usize> {
        let position = |at: usize| self.positions[at] as usize;
        self.groups.find(key, |at| self.entries[position(at)].is_of(key)).map(position)
    }

    fn insert(&mut self, key: u128, time: u32) -> Option<u32> {
        if let Some(at) = self.find(key) {
            let before = self.entries[at].time;
            self.entries[at].time = before.max(time);
            return Some(before);
        }
        if self.groups.is_full() {
            self.grow();
        }
        let at = self.groups.put(key);
        // A shard of 2³² entries would take 80 GB.
        self.positions[at] = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact((self.entries.len() / 4).max(4));
        }
        self.entries.push(Entry::new(key, time));
        None
    }

    fn grow(&mut self) {
        let mut groups = Groups::new(self.groups.groups() + (self.groups.groups() / 2).max(1));
        let mut positions = vec![0; groups.places()].into_boxed_slice();
        // Reads the larger part sequentially.
        for (position, entry) in (0..).zip(&self.entries) {
            positions[groups.put(entry.key())] = position;
        }
        (self.groups, self.positions) = (groups, positions);
    }

    /// Puts all entries into `sorted`, approximately in the order of their keys.
    fn collect(&self, sorted: &mut Vec<Entry>) {
        // Reads them once sequentially, which the processor prefetches: they are then in the cache, whatever the order.
        std::hint::black_box(self.entries.iter().fold(0, |sum, entry| sum ^ entry.time));
        sorted.clear();
        sorted.extend(self.groups.iter().map(|at| self.entries[self.positions[at] as usize]));
    }

    fn memory_bytes(&self) -> usize {
        self.groups.memory_bytes() + size_of_val(&*self.positions) + self.entries.capacity() * size_of::<Entry>()
    }
}

impl Arrivals {
    pub(super) fn get(&self, key: u128) -> Option<u32> {
        let shard = &self.shards[shard_of(key)];
        shard.find(key).map(|at| shard.entries[at].time)
    }

    /// Reads the memory that [`Arrivals::insert`] will need; see [`Groups::touch`].
    #[inline]
    pub(super) fn touch(&self, key: u128) -> u64 {
        let Shard { groups, positions, entries } = &self.shards[shard_of(key)];
        let position = positions.get(groups.about(key)).copied().unwrap_or_default();
        let last = entries.last().map_or(0, |entry| entry.time);
        groups.touch(key) ^ u64::from(position ^ last)
    }

    /// Keeps the later of the old and the new time. Returns the old one.
    pub(super) fn insert(&mut self, key: u128, time: u32) -> Option<u32> {
        self.shards[shard_of(key)].insert(key, time)
    }

    /// Passes the entries of each shard to `visit`, sorted by key. The shards are in order too.
    pub(super) fn sorted(&self, mut visit: impl FnMut(&[Entry])) {
        let mut entries = Vec::new();
        for shard in &self.shards {
            shard.collect(&mut entries);
            entries.sort_unstable_by_key(Entry::key);
            visit(&entries);
        }
    }

    /// Passes all entries to `visit`, approximately in the order of their keys, and frees their memory on the way.
    pub(super) fn drain(self, mut visit: impl FnMut(&Entry)) {
        let mut entries = Vec::new();
        for shard in self.shards {
            shard.collect(&mut entries);
            drop(shard);
            entries.iter().for_each(&mut visit);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.entries.len()).sum()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.shards.iter().map(Shard::memory_bytes).sum::<usize>() + SHARDS * size_of::<Shard>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// As for a table: few shards, groups and tags.
        #[test]
        fn it_is_a_sorted_map_that_keeps_the_latest_time(
            entries in prop::collection::vec((0_u128..400, 0_u32..1_000), 0..800),
        ) {
            let spread = |key: u128| ((key % 7) << 118) | ((key / 7) << 60) | (key % 3);
            let mut arrivals = Arrivals::default();
            let mut model: BTreeMap<u128, u32> = BTreeMap::new();
            for (key, time) in entries {
                prop_assert_eq!(arrivals.insert(spread(key), time), model.get(&spread(key)).copied());
                let latest = model.entry(spread(key)).or_default();
                *latest = (*latest).max(time);
            }
            prop_assert_eq!(arrivals.len(), model.len());
            for key in (0..400).map(spread) {
                prop_assert_eq!(arrivals.get(key), model.get(&key).copied());
            }
            let mut sorted = Vec::new();
            arrivals.sorted(|entries| sorted.extend(entries.iter().map(|entry| (entry.key(), entry.time))));
            prop_assert_eq!(sorted, model.clone().into_iter().collect::<Vec<_>>());
            let mut drained = Vec::new();
            arrivals.drain(|entry| drained.push((entry.key(), entry.time)));
            drained.sort_unstable();
            prop_assert_eq!(drained, model.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_entry_takes_25_to_34_bytes() {
        let mut arrivals = Arrivals::default();
        for number in 1..=600_000_u64 {
            arrivals.insert(xxhash_rust::xxh3::xxh3_128(&number.to_le_bytes()), 0);
            if number >= 100_000 && number % 10_000 == 0 {
                let bytes = arrivals.memory_bytes() / arrivals.len();
                assert!((25..=34).contains(&bytes), "{bytes} bytes at {number} entries");
            }
        }
    }
}
