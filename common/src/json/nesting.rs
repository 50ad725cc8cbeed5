//! The arrays and objects that are open, one bit each.

use super::MAX_DEPTH;

/// Whether an object or an array is open, for every depth. Setting a depth invalidates the deeper ones.
#[derive(Debug, Clone)]
pub(super) struct Kinds([u64; MAX_DEPTH / 64 + 1]);

impl Default for Kinds {
    fn default() -> Self {
        Self([0; MAX_DEPTH / 64 + 1])
    }
}

impl Kinds {
    #[inline(always)]
    pub(super) fn set(&mut self, depth: usize, object: bool) {
        if let Some(word) = self.0.get_mut(depth / 64) {
            let bit = 1 << (depth % 64);
            *word = if object { *word | bit } else { *word & !bit };
        }
    }

    #[inline(always)]
    pub(super) fn is_object(&self, depth: usize) -> bool {
        self.0.get(depth / 64).is_some_and(|word| word >> (depth % 64) & 1 == 1)
    }
}

/// The arrays and objects that are open within each other.
#[derive(Debug, Clone)]
pub struct Nesting {
    max_depth: usize,
    depth: usize,
    kinds: Kinds,
}

impl Nesting {
    /// No array or object is open. At most [`MAX_DEPTH`] can be.
    pub fn new(max_depth: usize) -> Self {
        Self { max_depth: max_depth.min(MAX_DEPTH), depth: 0, kinds: Kinds::default() }
    }

    pub fn depth(&self) -> usize {
        self.depth
    }

    /// True if the innermost one is an object.
    pub fn in_object(&self) -> bool {
        self.depth > 0 && self.kinds.is_object(self.depth)
    }

    /// Opens an array or object; false if that exceeds the limit.
    pub fn open(&mut self, object: bool) -> bool {
        if self.depth >= self.max_depth {
            return false;
        }
        self.depth += 1;
        self.kinds.set(self.depth, object);
        true
    }

    /// Closes the innermost one.
    pub fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }
}
