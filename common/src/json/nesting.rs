//! Which arrays and objects are open: one bit each.

use super::MAX_DEPTH;

/// The arrays and objects that are open within each other.
#[derive(Debug, Clone)]
pub struct Nesting {
    max_depth: usize,
    depth: usize,
    /// One bit for each: set for an object. The innermost one's is the lowest of word `depth / 64`.
    kinds: [u64; MAX_DEPTH / 64 + 1],
    in_object: bool,
}

impl Nesting {
    /// None is open. At most [`MAX_DEPTH`] can be.
    pub fn new(max_depth: usize) -> Self {
        Self { max_depth: max_depth.min(MAX_DEPTH), depth: 0, kinds: [0; MAX_DEPTH / 64 + 1], in_object: false }
    }

    #[inline(always)]
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// True if the innermost one is an object.
    #[inline(always)]
    pub fn in_object(&self) -> bool {
        self.in_object
    }

    /// Opens an array or object; false if that would be too deep.
    #[inline(always)]
    pub fn open(&mut self, object: bool) -> bool {
        if self.depth >= self.max_depth {
            return false;
        }
        self.depth += 1;
        if let Some(word) = self.kinds.get_mut(self.depth / 64) {
            *word = (*word << 1) | u64::from(object);
        }
        self.in_object = object;
        true
    }

    /// Closes the innermost one.
    #[inline(always)]
    pub fn close(&mut self) {
        if let Some(word) = self.kinds.get_mut(self.depth / 64) {
            *word >>= 1;
        }
        self.depth = self.depth.saturating_sub(1);
        self.in_object = self.kinds.get(self.depth / 64).is_some_and(|word| word & 1 == 1);
    }
}
