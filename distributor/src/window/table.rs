//! A compact map from 128-bit fingerprints to a 32-bit time, made for tens of millions of entries.
//!
//! The entries of a shard are placed by its [`Groups`]. A shard grows by a fifth when it is full, so an entry takes 24
//! to 30 bytes, and growing copies one shard at a time instead of everything at once.
//!
//! Iterating over one table while inserting into another reads both sequentially.

use super::entry::Entry;
use super::groups::{GROUP, Groups, SHARDS, shard_of};

/// A shard with a lower load than this after sweeping is rebuilt at three quarters. Above it, a shard stays as it is
/// while a sixth of its entries are replaced.
const MIN_LOAD_PERCENT: usize = 72;

#[derive(Debug, Clone, Default)]
struct Shard {
    groups: Groups,
    entries: Box<[Entry]>,
}

#[derive(Debug, Clone)]
pub(super) struct Table {
    shards: Box<[Shard]>,
}

impl Default for Table {
    fn default() -> Self {
        Self { shards: vec![Shard::default(); SHARDS].into_boxed_slice() }
    }
}

impl Shard {
    fn with_groups(groups: usize) -> Self {
        Self { groups: Groups::new(groups), entries: vec![Entry::default(); groups * GROUP].into_boxed_slice() }
    }

    fn find(&self, key: u128) -> Option<usize> {
        self.groups.find(key, |at| self.entries[at].is_of(key))
    }

    fn put(&mut self, key: u128, entry: Entry) {
        let at = self.groups.put(key);
        self.entries[at] = entry;
    }

    fn insert(&mut self, key: u128, time: u32) -> Option<u32> {
        if let Some(at) = self.find(key) {
            let before = self.entries[at].time;
            self.entries[at].time = before.max(time);
            return Some(before);
        }
        if self.groups.is_full() {
            self.lay_out(self.groups.groups() + (self.groups.groups() / 5).max(1));
        }
        self.put(key, Entry::new(key, time));
        None
    }

    /// Moves all entries to `groups` groups, which must suffice.
    fn lay_out(&mut self, groups: usize) {
        let mut other = Self::with_groups(groups);
        for entry in self.iter() {
            other.put(entry.key(), *entry);
        }
        *self = other;
    }

    fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.groups.iter().map(|at| &self.entries[at])
    }

    /// Removes entries older than `oldest` in place, and frees memory if much of it is unused then.
    fn sweep(&mut self, oldest: u64, removed: &mut impl FnMut(u128, u32)) {
        for group in self.groups.begin_settling() {
            for at in self.groups.taken_in(group) {
                let entry = self.entries[at];
                if u64::from(entry.time) < oldest {
                    self.groups.free(at);
                    removed(entry.key(), entry.time);
                } else {
                    let settled = self.groups.settle(entry.key(), at);
                    if settled != at {
                        self.entries[settled] = entry;
                    }
                }
            }
        }
        let len = self.groups.len();
        if len == 0 {
            *self = Self::default();
        } else if len * 100 < self.groups.places() * MIN_LOAD_PERCENT {
            self.lay_out((len * 4 / 3).div_ceil(GROUP));
        }
    }
}

impl Table {
    pub(super) const SHARDS: usize = SHARDS;

    pub(super) fn get(&self, key: u128) -> Option<u32> {
        let shard = &self.shards[shard_of(key)];
        shard.find(key).map(|at| shard.entries[at].time)
    }

    /// See [`Groups::touch`].
    #[inline]
    pub(super) fn touch(&self, key: u128) -> u64 {
        self.shards[shard_of(key)].groups.touch(key)
    }

    /// Keeps the later of the old and the new time. Returns the old one.
    pub(super) fn insert(&mut self, key: u128, time: u32) -> Option<u32> {
        self.shards[shard_of(key)].insert(key, time)
    }

    /// Approximately in the order of the keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u128, u32)> {
        self.shards.iter().flat_map(Shard::iter).map(|entry| (entry.key(), entry.time))
    }

    /// Removes entries older than `oldest` from one shard, passes them to `removed`, and frees their memory.
    pub(super) fn sweep(&mut self, shard: usize, oldest: u64, mut removed: impl FnMut(u128, u32)) {
        if let Some(shard) = self.shards.get_mut(shard) {
            shard.sweep(oldest, &mut removed);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.groups.len()).sum()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let of_shard = |shard: &Shard| shard.groups.memory_bytes() + size_of_val(&*shard.entries);
        self.shards.iter().map(of_shard).sum::<usize>() + SHARDS * size_of::<Shard>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few keys in few shards and groups with few tags, so that groups overflow, also beyond their counters, and
        /// tags collide. Removed entries make room for later ones.
        #[test]
        fn it_is_a_map_that_keeps_the_latest_time(
            rounds in prop::collection::vec((prop::collection::vec((0_u128..400, 0_u32..1_000), 0..400), 0_u32..1_000), 1..6),
        ) {
            let spread = |key: u128| ((key % 7) << 118) | ((key / 7) << 60) | (key % 3);
            let mut table = Table::default();
            let mut model: HashMap<u128, u32> = HashMap::new();
            for (entries, oldest) in rounds {
                for (key, time) in entries {
                    prop_assert_eq!(table.insert(spread(key), time), model.get(&spread(key)).copied());
                    let latest = model.entry(spread(key)).or_default();
                    *latest = (*latest).max(time);
                }
                prop_assert_eq!(table.len(), model.len());
                prop_assert_eq!(table.iter().collect::<HashMap<_, _>>(), model.clone());
                let mut removed = HashMap::new();
                for shard in 0..Table::SHARDS {
                    table.sweep(shard, u64::from(oldest), |key, time| { removed.insert(key, time); });
                }
                for key in (0..400).map(spread) {
                    let expected = model.get(&key).copied();
                    prop_assert_eq!(table.get(key), expected.filter(|time| *time >= oldest));
                    prop_assert_eq!(removed.get(&key).copied(), expected.filter(|time| *time < oldest));
                }
                model.retain(|_, time| *time >= oldest);
            }
        }
    }

    fn key(number: u64) -> u128 {
        xxhash_rust::xxh3::xxh3_128(&number.to_le_bytes())
    }

    #[test]
    fn memory_shrinks_with_the_entries() {
        let mut table = Table::default();
        (0..600_000).for_each(|number| assert_eq!(table.insert(key(number), u32::try_from(number).unwrap()), None));
        for oldest in [100_000, 200_000, 500_000, 590_000] {
            (0..Table::SHARDS).for_each(|shard| table.sweep(shard, oldest, |_, _| {}));
            let left = 600_000 - usize::try_from(oldest).unwrap();
            assert_eq!(table.len(), left);
            // Each shard has a header of its own, and memory in whole groups.
            let most = left * 31 + Table::SHARDS * 200;
            assert!(table.memory_bytes() <= most, "{} bytes for {left} entries", table.memory_bytes());
        }
        (0..Table::SHARDS).for_each(|shard| table.sweep(shard, 1_000_000, |_, _| {}));
        assert!(table.memory_bytes() < 20_000);
    }

    /// The number of groups that ten thousand look-ups of absent keys read.
    fn reads(shard: &Shard) -> usize {
        (0..10_000).map(|number| shard.groups.reads(key(u64::MAX - number))).sum()
    }

    /// Entries that overflowed a full group do not stay displaced for ever.
    #[test]
    fn look_ups_do_not_get_longer_from_window_to_window() {
        const WINDOW: u32 = 40_000;
        let mut shard = Shard::default();
        for slice in 1..=240 {
            let ends = slice * WINDOW / 8;
            for number in ends - WINDOW / 8..ends {
                assert_eq!(shard.insert(key(u64::from(number)), number), None);
            }
            shard.sweep(u64::from(ends.saturating_sub(WINDOW)), &mut |_, _| {});
            let mut rebuilt = shard.clone();
            rebuilt.lay_out(shard.groups.groups());
            let (as_it_is, rebuilt) = (reads(&shard), reads(&rebuilt));
            assert!(as_it_is * 100 <= rebuilt * 105, "{as_it_is} reads, and {rebuilt} after a rebuild");
        }
        let reads = reads(&shard);
        assert!(reads < 14_000, "{reads} groups for ten thousand look-ups");
    }

    #[test]
    fn an_entry_takes_24_to_30_bytes() {
        let mut table = Table::default();
        for number in 1..=600_000_u64 {
            table.insert(key(number), 0);
            if number >= 300_000 && number % 10_000 == 0 {
                let bytes = table.memory_bytes() / table.len();
                assert!((23..=30).contains(&bytes), "{bytes} bytes at {number} entries");
            }
        }
    }
}
