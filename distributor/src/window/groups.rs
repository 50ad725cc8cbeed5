//! The places of a shard's entries: open addressing in groups of six places.
//!
//! Each group has one 64-bit word (after Google's Swiss tables and Facebook's F14): ten bits of each fingerprint, its
//! *tag*, and four bits for entries that found the group full and are in a later one, each of which sets one. Tags are
//! compared six at a time. A look-up that finds nothing, as nearly every one does, ends at the first word unless the
//! bit of its fingerprint is set there, and otherwise at the first group that is not full. About one in a hundred meets
//! an equal tag by chance and reads an entry.
//!
//! # Invariant
//!
//! Groups between the one where an entry's search begins, its *home*, and the one that holds it are full. Entries are
//! therefore freed only while all are [settled](Groups::begin_settling) again, which also keeps look-ups as short as
//! after fresh inserts.
//!
//! Fingerprints are uniformly distributed, so their bits serve as the hash: the highest 8 select the shard, those after
//! them the group, the lowest 10 are the tag. Groups are therefore nearly in the order of their fingerprints.

/// Shards of a table.
pub(super) const SHARDS: usize = 256;
/// Places of a group, whose tags are compared at once.
pub(super) const GROUP: usize = 6;
const TAG_WIDTH: usize = 10;
const TAG: u64 = (1 << TAG_WIDTH) - 1;
/// The lowest and the highest bit of each tag.
const LOW_BITS: u64 = 1 | 1 << 10 | 1 << 20 | 1 << 30 | 1 << 40 | 1 << 50;
const HIGH_BITS: u64 = LOW_BITS << (TAG_WIDTH - 1);
const TAGS: u64 = LOW_BITS * TAG;
/// Above the tags: which entries with their home here are in a later group.
const FURTHER_SHIFT: usize = GROUP * TAG_WIDTH;

#[derive(Debug, Clone, Default)]
pub(super) struct Groups {
    words: Box<[u64]>,
    len: usize,
}

#[allow(clippy::cast_possible_truncation, reason = "the top 8 bits of a 128-bit number")]
pub(super) fn shard_of(key: u128) -> usize {
    (key >> 120) as usize
}

/// Never 0, which marks a free place.
#[allow(clippy::cast_possible_truncation, reason = "the lowest bits of a 128-bit number")]
fn tag_of(key: u128) -> u64 {
    (key as u64 & TAG).max(1)
}

/// The bit of `key` in the word of its home, from bits that neither its tag nor its home uses.
#[allow(clippy::cast_possible_truncation, reason = "bits of a 128-bit number")]
fn further(key: u128) -> u64 {
    1 << (FURTHER_SHIFT as u32 + (key as u32 >> TAG_WIDTH) % 4)
}

/// The high bit of each tag that is 0. Nothing is carried from one to the next, so all of them are exact.
fn zero_tags(word: u64) -> u64 {
    let word = word & TAGS;
    !(((word & !HIGH_BITS) + (TAGS ^ HIGH_BITS)) | word) & HIGH_BITS
}

fn place_of(bit: u64) -> usize {
    bit.trailing_zeros() as usize / TAG_WIDTH
}

/// The places within a group whose bits are set, lowest first.
fn places(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = (bits != 0).then(|| place_of(bits))?;
        bits &= bits - 1;
        Some(place)
    })
}

fn taken(word: u64) -> u64 {
    !zero_tags(word) & HIGH_BITS
}

impl Groups {
    pub(super) fn new(groups: usize) -> Self {
        Self { words: vec![0; groups].into_boxed_slice(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn groups(&self) -> usize {
        self.words.len()
    }

    pub(super) fn places(&self) -> usize {
        self.words.len() * GROUP
    }

    /// At 7/8 load; beyond it look-ups would become long.
    pub(super) fn is_full(&self) -> bool {
        (self.len + 1) * 8 > self.places() * 7
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.words)
    }

    /// The home of a key: the bits after the shard's, scaled to the number of groups (Lemire, "Fast random integer
    /// generation in an interval").
    #[allow(
        clippy::cast_possible_truncation,
        reason = "bits of a 128-bit number; a product of 64-bit numbers, shifted"
    )]
    fn home(&self, key: u128) -> usize {
        ((u128::from((key >> 56) as u64) * self.words.len() as u128) >> 64) as usize
    }

    fn after(&self, group: usize) -> usize {
        if group + 1 == self.words.len() { 0 } else { group + 1 }
    }

    /// Reads the first word of a look-up without using it, so that the processor loads many of them at a time.
    #[inline]
    pub(super) fn touch(&self, key: u128) -> u64 {
        self.words.get(self.home(key)).copied().unwrap_or_default()
    }

    /// A place in the middle of the key's home group.
    #[inline]
    pub(super) fn about(&self, key: u128) -> usize {
        self.home(key) * GROUP + GROUP / 2
    }

    /// The place of `key`; `is_it` decides whether a place with an equal tag is the right one.
    #[inline]
    pub(super) fn find(&self, key: u128, mut is_it: impl FnMut(usize) -> bool) -> Option<usize> {
        let tags = tag_of(key) * LOW_BITS;
        let mut stands_in = |group: usize, word: u64| {
            places(zero_tags(word ^ tags)).map(|place| group * GROUP + place).find(|at| is_it(*at))
        };
        let home = self.home(key);
        let mut group = home;
        let mut word = *self.words.get(home)?;
        if word & further(key) == 0 {
            return stands_in(home, word);
        }
        loop {
            if let Some(at) = stands_in(group, word) {
                return Some(at);
            }
            group = self.after(group);
            if group == home || zero_tags(word) != 0 {
                return None;
            }
            word = self.words[group];
        }
    }

    /// Takes a place for a key that is not present. There must be a free one.
    #[inline]
    pub(super) fn put(&mut self, key: u128) -> usize {
        let mut group = self.home(key);
        if zero_tags(self.words[group]) == 0 {
            self.words[group] |= further(key);
            while zero_tags(self.words[group]) == 0 {
                group = self.after(group);
            }
        }
        let place = place_of(zero_tags(self.words[group]));
        self.words[group] |= tag_of(key) << (place * TAG_WIDTH);
        self.len += 1;
        group * GROUP + place
    }

    /// Begins to free or settle every entry: returns the groups in the order in which that has to happen, beginning
    /// with one that no entry has overflowed from. Look-ups are invalid meanwhile.
    pub(super) fn begin_settling(&mut self) -> impl Iterator<Item = usize> + use<> {
        self.words.iter_mut().for_each(|word| *word &= TAGS);
        let first = self.words.iter().position(|word| zero_tags(*word) != 0).map_or(0, |roomy| roomy + 1);
        (first..self.words.len()).chain(0..first)
    }

    /// Frees a taken place.
    pub(super) fn free(&mut self, at: usize) {
        self.words[at / GROUP] &= !(TAG << (at % GROUP * TAG_WIDTH));
        self.len -= 1;
    }

    /// Moves `key` to the place where it would be inserted now, which is never a later one. Returns that place.
    #[inline]
    pub(super) fn settle(&mut self, key: u128, at: usize) -> usize {
        if self.home(key) == at / GROUP {
            return at;
        }
        self.free(at);
        self.put(key)
    }

    /// Places that are taken.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        let groups = self.words.iter().enumerate();
        groups.flat_map(|(group, word)| places(taken(*word)).map(move |place| group * GROUP + place))
    }

    /// Places of one group that are taken.
    pub(super) fn taken_in(&self, group: usize) -> impl Iterator<Item = usize> + use<> {
        places(self.words.get(group).map_or(0, |word| taken(*word))).map(move |place| group * GROUP + place)
    }
}

#[cfg(test)]
impl Groups {
    /// The number of groups that a look-up of an absent key reads.
    pub(super) fn reads(&self, key: u128) -> usize {
        let home = self.home(key);
        if self.words[home] & further(key) == 0 {
            return 1;
        }
        let from_home = (0..self.words.len()).map(|step| self.words[(home + step) % self.words.len()]);
        from_home.take_while(|word| zero_tags(*word) == 0).count() + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` keys of the last of 20 groups, and the place of each.
    fn of_one_group(count: u128) -> (Groups, Vec<(u128, usize)>) {
        let mut groups = Groups::new(20);
        let keys = (1..=count).map(|number| (0xff << 112) | (number << 40) | number);
        let placed = keys.map(|key| (key, groups.put(key))).collect();
        (groups, placed)
    }

    /// Frees the keys at `gone`, and settles the others.
    fn without(groups: &mut Groups, placed: &[(u128, usize)], gone: &[usize]) -> Vec<usize> {
        let mut settled = Vec::new();
        for group in groups.begin_settling() {
            for at in groups.taken_in(group) {
                if gone.contains(&at) {
                    groups.free(at);
                } else {
                    let (key, _) = placed.iter().find(|(_, of_it)| *of_it == at).unwrap();
                    settled.push(groups.settle(*key, at));
                }
            }
        }
        settled
    }

    #[test]
    fn overflowed_entries_return_to_their_home_when_settled() {
        let (groups, placed) = of_one_group(20);
        let (key, last) = placed[19];
        assert_eq!(last, 13, "behind the end it goes on at the beginning");
        assert_eq!(groups.reads(key), 4);
        for gone in [vec![114, 115, 116, 117, 118, 119, 0, 1, 2, 3, 4, 5, 6], vec![0, 2, 4, 115, 12], vec![13], vec![]]
        {
            let mut groups = groups.clone();
            let mut settled = without(&mut groups, &placed, &gone);
            let left = 20 - gone.len();
            assert_eq!(groups.reads(key), left / 6 + 1, "without {gone:?}");
            settled.sort_unstable();
            let mut expected: Vec<usize> = (114..120).chain(0..14).take(left).collect();
            expected.sort_unstable();
            assert_eq!(settled, expected, "without {gone:?}");
        }
        // A key whose bit no other has set ends at its home.
        assert_eq!(groups.reads(key ^ 1 << TAG_WIDTH), 1);
    }
}
