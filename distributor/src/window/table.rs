//! A compact map from 128-bit fingerprints to a 32-bit time, made for tens of millions of entries.
//!
//! Open addressing in 256 shards, with one byte of each fingerprint in a tag array beside the entries (after Google's
//! Swiss tables): a look-up that finds nothing, which is nearly every one, touches one cache line. Tags are compared
//! eight at a time within a 64-bit word. A shard grows by a fifth at 7/8 load, so an entry takes 24 to 30 bytes, and
//! growing copies one shard at a time instead of doubling everything at once.
//!
//! Fingerprints are uniformly distributed, so their bits serve as the hash. Their order decides where they stand: to
//! go through one table and insert into another goes through both from front to back.

const SHARDS: usize = 256;
/// Entries of a group, whose tags are compared at once.
const GROUP: usize = 8;
const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// Twenty bytes, for the parts are aligned to four.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    key: [u32; 4],
    time: u32,
}

#[derive(Debug, Clone, Default)]
struct Shard {
    /// A word for each group, a byte for each entry; 0 marks a free one.
    tags: Box<[u64]>,
    entries: Box<[Entry]>,
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

#[allow(clippy::cast_possible_truncation, reason = "parts of a 128-bit number")]
fn split(key: u128) -> [u32; 4] {
    [key as u32, (key >> 32) as u32, (key >> 64) as u32, (key >> 96) as u32]
}

fn join(parts: [u32; 4]) -> u128 {
    parts.iter().rev().fold(0, |key, part| (key << 32) | u128::from(*part))
}

#[allow(clippy::cast_possible_truncation, reason = "the top 8 bits of a 128-bit number")]
fn shard_of(key: u128) -> usize {
    (key >> 120) as usize
}

/// Never 0.
fn tag_of(key: u128) -> u64 {
    u64::try_from(key & 0xff).unwrap_or(0).max(1)
}

/// The high bit of each byte that is 0. Nothing is carried from byte to byte, so all of them are exact.
fn zero_bytes(word: u64) -> u64 {
    !(((word & !HIGH_BITS) + !HIGH_BITS) | word) & HIGH_BITS
}

/// Where a search ended.
enum Found {
    At(usize),
    /// In this group, at this place within it.
    Free(usize, usize),
}

impl Shard {
    fn with_room_for(entries: usize) -> Self {
        // At most three quarters full to begin with.
        let groups = (entries * 4 / 3).div_ceil(GROUP).max(1);
        Self {
            tags: vec![0; groups].into_boxed_slice(),
            entries: vec![Entry::default(); groups * GROUP].into_boxed_slice(),
            len: 0,
        }
    }

    /// First group to look at: what follows the shard's bits, scaled to the groups (Lemire, "Fast random integer
    /// generation in an interval").
    #[allow(
        clippy::cast_possible_truncation,
        reason = "bits of a 128-bit number; a product of 64-bit numbers, shifted"
    )]
    fn home(&self, key: u128) -> usize {
        ((u128::from((key >> 56) as u64) * self.tags.len() as u128) >> 64) as usize
    }

    /// There is always a free entry, and at least one group.
    fn find(&self, key: u128) -> Found {
        let (parts, tags) = (split(key), tag_of(key) * LOW_BITS);
        let mut group = self.home(key);
        loop {
            let word = self.tags[group];
            let mut candidates = zero_bytes(word ^ tags);
            while candidates != 0 {
                let at = group * GROUP + candidates.trailing_zeros() as usize / 8;
                if self.entries[at].key == parts {
                    return Found::At(at);
                }
                candidates &= candidates - 1;
            }
            let free = zero_bytes(word);
            if free != 0 {
                return Found::Free(group, free.trailing_zeros() as usize / 8);
            }
            group += 1;
            if group == self.tags.len() {
                group = 0;
            }
        }
    }

    fn insert(&mut self, key: u128, time: u32) -> Option<u32> {
        if (self.len + 1) * 8 > self.entries.len() * 7 {
            self.grow();
        }
        match self.find(key) {
            Found::At(at) => {
                let before = self.entries[at].time;
                self.entries[at].time = before.max(time);
                Some(before)
            }
            Found::Free(group, place) => {
                self.tags[group] |= tag_of(key) << (place * 8);
                self.entries[group * GROUP + place] = Entry { key: split(key), time };
                self.len += 1;
                None
            }
        }
    }

    fn grow(&mut self) {
        let groups = self.tags.len() + (self.tags.len() / 5).max(1);
        let mut larger = Self {
            tags: vec![0; groups].into_boxed_slice(),
            entries: vec![Entry::default(); groups * GROUP].into_boxed_slice(),
            len: 0,
        };
        for (key, time) in self.iter() {
            larger.insert(key, time);
        }
        *self = larger;
    }

    fn iter(&self) -> impl Iterator<Item = (u128, u32)> {
        let is_taken = |at: usize| self.tags[at / GROUP] >> (at % GROUP * 8) & 0xff != 0;
        let entries = self.entries.iter().enumerate().filter(move |(at, _)| is_taken(*at));
        entries.map(|(_, entry)| (join(entry.key), entry.time))
    }

    /// Removes what is older than `oldest` and gives its room back.
    fn sweep(&mut self, oldest: u64, removed: &mut impl FnMut(u128, u32)) {
        let stays = |time: u32| u64::from(time) >= oldest;
        let staying = self.iter().filter(|(_, time)| stays(*time)).count();
        if staying == self.len {
            return;
        }
        let mut rest = if staying == 0 { Self::default() } else { Self::with_room_for(staying) };
        for (key, time) in self.iter() {
            if stays(time) {
                rest.insert(key, time);
            } else {
                removed(key, time);
            }
        }
        *self = rest;
    }
}

impl Table {
    pub(super) const SHARDS: usize = SHARDS;

    pub(super) fn get(&self, key: u128) -> Option<u32> {
        let shard = &self.shards[shard_of(key)];
        if shard.len == 0 {
            return None;
        }
        match shard.find(key) {
            Found::At(at) => Some(shard.entries[at].time),
            Found::Free(..) => None,
        }
    }

    /// Keeps the later of the old and the new time. Returns the old one.
    pub(super) fn insert(&mut self, key: u128, time: u32) -> Option<u32> {
        self.shards[shard_of(key)].insert(key, time)
    }

    /// In an order near to that of the keys, so that sorting costs little and inserting goes from front to back.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u128, u32)> {
        self.shards.iter().flat_map(Shard::iter)
    }

    /// Removes what is older than `oldest` from one shard, hands it to `removed`, and gives its room back.
    pub(super) fn sweep(&mut self, shard: usize, oldest: u64, mut removed: impl FnMut(u128, u32)) {
        if let Some(shard) = self.shards.get_mut(shard) {
            shard.sweep(oldest, &mut removed);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len).sum()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let of_shard = |shard: &Shard| shard.tags.len() * size_of::<u64>() + size_of_val(&*shard.entries);
        self.shards.iter().map(of_shard).sum::<usize>() + SHARDS * size_of::<Shard>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few keys in few shards with few tags, so that groups overflow and tags meet.
        #[test]
        fn it_is_a_map_that_keeps_the_latest_time(
            entries in prop::collection::vec((0_u128..400, 0_u32..1_000), 0..800),
            oldest in 0_u32..1_000,
        ) {
            let spread = |key: u128| ((key % 7) << 118) | ((key / 7) << 60) | (key % 3);
            let mut table = Table::default();
            let mut model: HashMap<u128, u32> = HashMap::new();
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
        }
    }

    #[test]
    fn an_entry_takes_24_to_30_bytes() {
        let mut table = Table::default();
        for number in 1..=600_000_u64 {
            table.insert(xxhash_rust::xxh3::xxh3_128(&number.to_le_bytes()), 0);
            if number >= 300_000 && number % 10_000 == 0 {
                let bytes = table.memory_bytes() / table.len();
                assert!((23..=30).contains(&bytes), "{bytes} bytes at {number} entries");
            }
        }
    }
}
