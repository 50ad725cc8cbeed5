//! A compact map from 128-bit fingerprints to a 32-bit time, made for tens of millions of entries.
//!
//! Open addressing with linear probing in 256 shards. A shard grows by a quarter at 85 % load, so an entry of 20 bytes
//! takes 24 to 30 bytes, and growing copies one shard at a time instead of doubling everything at once.
//! Fingerprints are uniformly distributed, so their bits serve as the hash.

const SHARDS: usize = 256;
const FIRST_CAPACITY: usize = 8;
/// Marks an empty slot; the fingerprint 0 is stored as 1, at the price of one more collision in 2¹²⁸.
const EMPTY: u128 = 0;

#[derive(Debug, Clone, Default)]
struct Shard {
    keys: Box<[u128]>,
    times: Box<[u32]>,
    len: usize,
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

fn stored(key: u128) -> u128 {
    if key == EMPTY { 1 } else { key }
}

#[allow(clippy::cast_possible_truncation, reason = "the top 8 bits of a 128-bit number")]
fn shard_of(key: u128) -> usize {
    (key >> 120) as usize
}

impl Shard {
    /// First slot to look at: the low 64 bits scaled to the capacity (Lemire, "Fast random integer generation").
    #[allow(clippy::cast_possible_truncation, reason = "the product of two 64-bit numbers, shifted by 64")]
    fn home(&self, key: u128) -> usize {
        ((u128::from(key as u64) * self.keys.len() as u128) >> 64) as usize
    }

    /// The slot of `key`, or the empty one where it would go. There is always an empty slot.
    fn find(&self, key: u128) -> usize {
        let mut slot = self.home(key);
        while self.keys[slot] != key && self.keys[slot] != EMPTY {
            slot += 1;
            if slot == self.keys.len() {
                slot = 0;
            }
        }
        slot
    }

    fn grow(&mut self) {
        let capacity = (self.keys.len() + self.keys.len() / 4).max(self.keys.len() + FIRST_CAPACITY);
        let mut larger = Self {
            keys: vec![EMPTY; capacity].into_boxed_slice(),
            times: vec![0; capacity].into_boxed_slice(),
            len: self.len,
        };
        for (key, time) in self.iter() {
            let slot = larger.find(key);
            larger.keys[slot] = key;
            larger.times[slot] = time;
        }
        *self = larger;
    }

    fn iter(&self) -> impl Iterator<Item = (u128, u32)> {
        self.keys.iter().copied().zip(self.times.iter().copied()).filter(|(key, _)| *key != EMPTY)
    }
}

impl Table {
    pub(super) fn get(&self, key: u128) -> Option<u32> {
        let key = stored(key);
        let shard = &self.shards[shard_of(key)];
        if shard.len == 0 {
            return None;
        }
        let slot = shard.find(key);
        (shard.keys[slot] == key).then(|| shard.times[slot])
    }

    /// Keeps the later of the old and the new time.
    pub(super) fn insert(&mut self, key: u128, time: u32) {
        let key = stored(key);
        let shard = &mut self.shards[shard_of(key)];
        if (shard.len + 1) * 100 > shard.keys.len() * 85 {
            shard.grow();
        }
        let slot = shard.find(key);
        if shard.keys[slot] == EMPTY {
            shard.keys[slot] = key;
            shard.times[slot] = time;
            shard.len += 1;
        } else {
            shard.times[slot] = shard.times[slot].max(time);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len).sum()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.shards.iter().map(|shard| size_of::<Shard>() + shard.keys.len() * 20).sum()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u128, u32)> {
        self.shards.iter().flat_map(Shard::iter)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map_that_keeps_the_latest_time(
            entries in prop::collection::vec((prop_oneof![0_u128..50, any::<u128>()], any::<u32>()), 0..500),
            absent in prop::collection::vec(any::<u128>(), 0..20),
        ) {
            let mut table = Table::default();
            let mut model: HashMap<u128, u32> = HashMap::new();
            for (key, time) in &entries {
                table.insert(*key, *time);
                let slot = model.entry(stored(*key)).or_insert(*time);
                *slot = (*slot).max(*time);
            }
            prop_assert_eq!(table.len(), model.len());
            for (key, time) in &model {
                prop_assert_eq!(table.get(*key), Some(*time));
            }
            for key in absent.iter().filter(|key| !model.contains_key(&stored(**key))) {
                prop_assert_eq!(table.get(*key), None);
            }
            prop_assert_eq!(table.iter().collect::<HashMap<_, _>>(), model);
        }
    }

    #[test]
    fn an_entry_takes_at_most_30_bytes_once_there_are_many() {
        let mut table = Table::default();
        for number in 0..400_000_u64 {
            table.insert(xxhash_rust::xxh3::xxh3_128(&number.to_le_bytes()), 0);
        }
        let bytes = table.memory_bytes() / table.len();
        assert!(bytes <= 30, "{bytes} bytes an entry");
    }
}
