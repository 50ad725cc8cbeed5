//! One budget of memory for the deduplication windows of all partitions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use moka::sync::Cache;
use tokio::sync::watch;

use crate::scratch::Scratch;

/// This part of the budget is for blocks of runs; they may be forgotten, the rest may not.
const CACHE_PART: u64 = 8;

/// How much memory windows may take together, and where their old keys go when that does not suffice.
#[derive(Debug)]
pub(crate) struct Budget {
    limit_bytes: usize,
    used_bytes: AtomicUsize,
    /// How many windows share it; each may rely on its equal part.
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

    /// Tells when the parts have become others.
    pub(crate) fn watch(&self) -> watch::Receiver<usize> {
        self.windows.subscribe()
    }

    /// Bytes on disk, of windows and of whatever else the scratch folder is used for.
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

    /// Books what the window takes now, and returns to how much it has to come down, if it does: the others may use
    /// what one leaves of its part, and only who has more than a part gives way.
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
    fn who_has_more_than_a_part_gives_way_and_only_when_all_together_have_too_much() {
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
