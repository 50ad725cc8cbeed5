//! Where the entries of a shard stand: open addressing in groups of six places.
//!
//! Of each group there is one 64-bit word (after Google's Swiss tables and Facebook's F14): ten bits of each fingerprint, its
//! *tag*, and a count of the entries that found the group full and stand further on. Tags are compared six at a time. A
//! look-up that finds nothing, which is nearly every one, reads one word; one in two hundred meets a tag that is the same
//! by chance and waits for an entry, where tags of eight bits would make it one in fifty. And an entry is removed where it
//! stands, without moving any other.
//!
//! Fingerprints are uniformly distributed, so their bits serve as the hash: the highest 8 name the shard, those after them
//! the group, the lowest 10 are the tag. So groups are in the order of their fingerprints, nearly.

/// Shards of a table.
pub(super) const SHARDS: usize = 256;
/// Places of a group, whose tags are compared at once.
pub(super) const GROUP: usize = 6;
const TAG_WIDTH: usize = 10;
const TAG: u64 = (1 << TAG_WIDTH) - 1;
/// The lowest and the highest bit of each tag. Above the tags is the count.
const LOW_BITS: u64 = 1 | 1 << 10 | 1 << 20 | 1 << 30 | 1 << 40 | 1 << 50;
const HIGH_BITS: u64 = LOW_BITS << (TAG_WIDTH - 1);
const TAGS: u64 = LOW_BITS * TAG;
const COUNT_SHIFT: usize = GROUP * TAG_WIDTH;
/// A count that has come so far stays there: look-ups go on, which is never wrong.
const MAX_COUNT: u64 = u64::MAX >> COUNT_SHIFT;

#[derive(Debug, Clone, Default)]
pub(super) struct Groups {
    words: Box<[u64]>,
    len: usize,
    /// Groups whose count has come as far as it goes, and stays there.
    stuck: usize,
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
        Self { words: vec![0; groups].into_boxed_slice(), len: 0, stuck: 0 }
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

    /// At 7/8 load; look-ups would become long.
    pub(super) fn is_full(&self) -> bool {
        (self.len + 1) * 8 > self.places() * 7
    }

    /// Groups that no look-up ends at any more, whoever has gone: they become more with time, until the entries are put
    /// anew.
    pub(super) fn stuck(&self) -> usize {
        self.stuck
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.words)
    }

    /// First group to look at: what follows the shard's bits, scaled to the groups (Lemire, "Fast random integer
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

    /// Reads the word that a look-up begins with, and decides nothing by it: the processor waits for many such at a time.
    #[inline]
    pub(super) fn touch(&self, key: u128) -> u64 {
        self.words.get(self.home(key)).copied().unwrap_or_default()
    }

    /// A place in the middle of the group that a look-up begins with.
    #[inline]
    pub(super) fn about(&self, key: u128) -> usize {
        self.home(key) * GROUP + GROUP / 2
    }

    /// Where `key` stands; `is_it` tells whether it is the one at a place whose tag is the same.
    #[inline]
    pub(super) fn find(&self, key: u128, mut is_it: impl FnMut(usize) -> bool) -> Option<usize> {
        let tags = tag_of(key) * LOW_BITS;
        let home = self.home(key);
        let mut group = home;
        loop {
            let word = *self.words.get(group)?;
            let candidates = zero_tags(word ^ tags);
            if candidates != 0
                && let Some(at) = places(candidates).map(|place| group * GROUP + place).find(|at| is_it(*at))
            {
                return Some(at);
            }
            if word >> COUNT_SHIFT == 0 {
                return None;
            }
            group = self.after(group);
            if group == home {
                return None;
            }
        }
    }

    /// Takes a place for a key that is not there yet. There has to be a free one.
    #[inline]
    pub(super) fn put(&mut self, key: u128) -> usize {
        let mut group = self.home(key);
        loop {
            let word = self.words[group];
            let free = zero_tags(word);
            if free != 0 {
                let place = place_of(free);
                self.words[group] = word | tag_of(key) << (place * TAG_WIDTH);
                self.len += 1;
                return group * GROUP + place;
            }
            if word >> COUNT_SHIFT < MAX_COUNT {
                let counted = word + (1 << COUNT_SHIFT);
                self.words[group] = counted;
                self.stuck += usize::from(counted >> COUNT_SHIFT == MAX_COUNT);
            }
            group = self.after(group);
        }
    }

    /// Frees the place of `key`.
    pub(super) fn remove(&mut self, key: u128, at: usize) {
        let (group, place) = (at / GROUP, at % GROUP);
        self.words[group] &= !(TAG << (place * TAG_WIDTH));
        self.len -= 1;
        let mut passed = self.home(key);
        while passed != group {
            if self.words[passed] >> COUNT_SHIFT < MAX_COUNT {
                self.words[passed] -= 1 << COUNT_SHIFT;
            }
            passed = self.after(passed);
        }
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
mod tests {
    use super::*;

    /// So many keys of the first of 20 groups, and where each stands.
    fn of_one_group(count: u128) -> (Groups, Vec<(u128, usize)>) {
        let mut groups = Groups::new(20);
        let keys = (1..=count).map(|number| (number << 40) | number);
        let placed = keys.map(|key| (key, groups.put(key))).collect();
        (groups, placed)
    }

    fn find(groups: &Groups, placed: &[(u128, usize)], key: u128) -> Option<usize> {
        groups.find(key, |at| placed.contains(&(key, at)))
    }

    #[test]
    fn look_ups_end_at_once_again_when_those_who_passed_are_gone() {
        let (mut groups, placed) = of_one_group(20);
        assert!(find(&groups, &placed, placed[19].0).is_some());
        assert_eq!(groups.touch(0) >> COUNT_SHIFT, 14);
        for (key, at) in &placed[6..] {
            groups.remove(*key, *at);
        }
        assert_eq!(groups.touch(0) >> COUNT_SHIFT, 0);
        assert_eq!(groups.iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn more_may_pass_a_group_than_it_can_count() {
        let (mut groups, placed) = of_one_group(60);
        let (gone, stay) = placed.split_at(55);
        for (key, at) in gone {
            groups.remove(*key, *at);
        }
        assert_eq!(groups.len(), 5);
        // Of 60, 45 passed the third group, and 39 the fourth: seven counts are stuck.
        assert_eq!(groups.stuck(), 7);
        assert!(stay.iter().all(|(key, at)| find(&groups, &placed, *key) == Some(*at)));
    }
}
