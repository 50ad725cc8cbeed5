//! One memory budget for the deduplication windows of all partitions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use moka::sync::Cache;
use tokio::sync::watch;

use crate::scratch::Scratch;

/// This fraction of the budget is for blocks of runs, which may be evicted; the rest may not.
const CACHE_PART: u64 = 8;

/// The memory of all windows together, and the disk for old keys beyond it.
#[derive(Debug)]
pub(crate) struct Budget {
    limit_bytes: usize,
    used_bytes: AtomicUsize,
    /// The number of windows that share it; each is guaranteed an equal part.
    windows: watch::Sender<usize>,
    pub(super) scratch: Scratch,
    /// By run and block.
    pub(super) blocks: Cache<(u64, u32), Arc<[u8]>>,
    next_run: AtomicU64,
}

impl Budget {
    pub(crate) fn new(bytes: u64, scratch: Scratch) -> Arc<Self> {
        let of_cache = bytes / CACHE_PART;
        let weight = |_: &(u64, u32), block: &Arc<[u8]>| u32::try_from(block.len()).unwrap_or(u32::MAX);
        Arc::new(Self {
            limit_bytes: usize::try_from(bytes - of_cache).unwrap_or(usize::MAX),
            used_bytes: AtomicUsize::new(0),
            windows: watch::Sender::new(0),
            scratch,
            blocks: Cache::builder().max_capacity(of_cache).weigher(weight).build(),
            next_run: AtomicU64::new(0),
        })
    }

    pub(super) fn name_run(&self) -> u64 {
        self.next_run.fetch_add(1, Ordering::Relaxed)
    }

    /// Notifies of changes of the parts.
    pub(crate) fn watch(&self) -> watch::Receiver<usize> {
        self.windows.subscribe()
    }

    /// Bytes on disk, of windows and of other data in the scratch folder.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.scratch.used_bytes()
    }
}

/// A window's account.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) budget: Arc<Budget>,
    bytes: usize,
}

impl Lease {
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        budget.windows.send_modify(|windows| *windows += 1);
        Self { budget: budget.clone(), bytes: 0 }
    }

    /// Books the window's current memory, and returns the size to which it has to shrink, if it does. A window may use
    /// what others leave of their parts; only one beyond its own part has to shrink.
    pub(super) fn book(&mut self, bytes: usize) -> Option<usize> {
        let budget = &self.budget;
        budget.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        budget.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
        let part = budget.limit_bytes / (*budget.windows.borrow()).max(1);
        let is_over = budget.used_bytes.load(Ordering::Relaxed) > budget.limit_bytes;
        (is_over && bytes > part).then_some(part / 2)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget.windows.send_modify(|windows| *windows -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_window_beyond_its_part_shrinks_and_only_if_all_exceed_the_budget() {
        let budget = Budget::new(800, Scratch::new("."));
        let (mut first, mut second) = (Lease::new(&budget), Lease::new(&budget));
        assert_eq!(first.book(600), None, "the other one leaves room");
        assert_eq!(second.book(200), None, "it has less than a part");
        assert_eq!(first.book(600), Some(175));
        drop(second);
        assert_eq!(first.book(690), None);
        assert_eq!(first.book(710), Some(350));
        drop(first);
        assert_eq!(budget.used_bytes.load(Ordering::Relaxed), 0);
    }
}
