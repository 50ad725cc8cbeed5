//! The keys that may be in a run on disk: a split-block Bloom filter (Putze, Sanders and Singler, "Cache-, Hash- and
//! Space-Efficient Bloom Filters", 2007; in Parquet's form). It has no false negatives.

/// Twelve bits a key: the rate of false positives is below one in a hundred.
const BITS_PER_KEY: usize = 12;
const WORDS: usize = 8;
const SALTS: [u32; WORDS] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

#[derive(Debug)]
pub(super) struct Filter {
    blocks: Box<[[u32; WORDS]]>,
}

impl Filter {
    pub(super) fn for_keys(count: usize) -> Self {
        let blocks = (count * BITS_PER_KEY).div_ceil(WORDS * 32).max(1);
        Self { blocks: vec![[0; WORDS]; blocks].into_boxed_slice() }
    }

    /// Block and, for each of its words, one bit. Fingerprints are uniform, so their low bits serve as the hash.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "parts of a 128-bit number; a product of 32-bit numbers, shifted"
    )]
    fn place(&self, key: u128) -> (usize, [u32; WORDS]) {
        let low = key as u64;
        let block = ((u128::from(low) * self.blocks.len() as u128) >> 64) as usize;
        (block, SALTS.map(|salt| 1 << ((low as u32).wrapping_mul(salt) >> 27)))
    }

    pub(super) fn insert(&mut self, key: u128) {
        let (block, bits) = self.place(key);
        self.blocks[block].iter_mut().zip(bits).for_each(|(word, bit)| *word |= bit);
    }

    pub(super) fn may_hold(&self, key: u128) -> bool {
        let (block, bits) = self.place(key);
        self.blocks[block].iter().zip(bits).all(|(word, bit)| word & bit != 0)
    }

    /// Reads a part of a look-up's memory; see [`Groups::touch`](super::groups::Groups::touch).
    pub(super) fn touch(&self, key: u128) -> u64 {
        u64::from(self.blocks[self.place(key).0][0])
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_no_false_negatives_and_few_false_positives() {
        let key = |number: u64| xxhash_rust::xxh3::xxh3_128(&number.to_le_bytes());
        let mut filter = Filter::for_keys(20_000);
        (0..20_000).for_each(|number| filter.insert(key(number)));
        assert!((0..20_000).all(|number| filter.may_hold(key(number))));
        let passed = (20_000..120_000).filter(|number| filter.may_hold(key(*number))).count();
        assert!(passed < 1_500, "{passed} of 100,000");
        assert!(filter.memory_bytes() < 20_000 * 2);
    }
}
