//! A set of places in a stream of bytes: one bit for each byte from the first relevant one on.

use std::collections::VecDeque;

#[derive(Debug, Default)]
pub(super) struct Places {
    /// 64 places each.
    words: VecDeque<u64>,
    /// The index of the first word, counted from the beginning of the stream.
    first: u64,
}

impl Places {
    pub(super) fn from(place: u64) -> Self {
        Self { words: VecDeque::new(), first: place / 64 }
    }

    fn index(&self, place: u64) -> Option<usize> {
        usize::try_from((place / 64).checked_sub(self.first)?).ok()
    }

    /// Adds a place, unless it was already dropped.
    pub(super) fn add(&mut self, place: u64) {
        let Some(index) = self.index(place) else { return };
        if index >= self.words.len() {
            self.words.resize(index + 1, 0);
        }
        if let Some(word) = self.words.get_mut(index) {
            *word |= 1 << (place % 64);
        }
    }

    pub(super) fn has(&self, place: u64) -> bool {
        self.index(place).and_then(|index| self.words.get(index)).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }

    /// The first place of the set in `from..to`.
    pub(super) fn first_in(&self, from: u64, to: u64) -> Option<u64> {
        let from = from.max(self.first * 64);
        let (begin, end) = (self.index(from)?, self.index(to)?.saturating_add(1).min(self.words.len()));
        let mut mask = u64::MAX << (from % 64);
        for index in begin..end {
            let word = self.words.get(index)? & mask;
            if word != 0 {
                let place = (self.first + index as u64) * 64 + u64::from(word.trailing_zeros());
                return (place < to).then_some(place);
            }
            mask = u64::MAX;
        }
        None
    }

    /// Drops the places before this one, perhaps not all of them.
    pub(super) fn forget_before(&mut self, place: u64) {
        while self.first < place / 64 && self.words.pop_front().is_some() {
            self.first += 1;
        }
        if self.words.is_empty() {
            self.first = self.first.max(place / 64);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set_of_places(
            begin in 0_u64..200,
            added in prop::collection::vec(0_u64..400, 0..30),
            ranges in prop::collection::vec((0_u64..700, 0_u64..700), 0..20),
            forgotten in 0_u64..400,
        ) {
            let mut places = Places::from(begin);
            let mut model = BTreeSet::new();
            for place in added {
                places.add(begin + place);
                model.insert(begin + place);
            }
            places.forget_before(begin + forgotten);
            model.retain(|place| *place >= begin + forgotten);
            for (from, to) in ranges {
                let from = from.max(begin + forgotten);
                let expected = if from < to { model.range(from..to).next().copied() } else { None };
                prop_assert_eq!(places.first_in(from, to.max(from)), expected);
                prop_assert_eq!(places.has(from), model.contains(&from));
            }
        }
    }
}
