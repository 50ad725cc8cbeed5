//! The spilled part of a window: runs on disk, by absolute slice of log time.

use std::collections::BTreeMap;

use super::run::Run;
use crate::scratch::ScratchError;

#[derive(Debug)]
pub(super) struct Spilled {
    pub width_ms: i64,
    /// By slice: the newest run last, and each more than twice as large as the next, so that there are few.
    slices: BTreeMap<i64, Vec<Run>>,
}

impl Spilled {
    pub(super) fn new(width_ms: i64) -> Self {
        Self { width_ms, slices: BTreeMap::new() }
    }

    /// Whether `key` is present with a log time of at least `from_ms`.
    ///
    /// # Errors
    /// The disk's error.
    pub(super) fn contains_since(&self, key: u128, from_ms: i64) -> Result<bool, ScratchError> {
        if self.slices.is_empty() {
            return Ok(false);
        }
        let oldest = from_ms.div_euclid(self.width_ms);
        for run in self.slices.range(oldest..).rev().flat_map(|(_, runs)| runs) {
            if run.get(key)?.is_some_and(|time_ms| time_ms >= from_ms) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// See [`Groups::touch`](super::groups::Groups::touch).
    pub(super) fn touch(&self, keys: &[u128]) -> u64 {
        self.slices.values().flatten().fold(0, |sum, run| sum ^ run.touch(keys))
    }

    /// Adds a run of a slice, and merges runs if there would be too many. Entries older than `oldest_ms` may be
    /// dropped.
    ///
    /// # Errors
    /// The disk's error. The run is added all the same.
    pub(super) fn add(&mut self, slice: i64, run: Run, oldest_ms: i64) -> Result<(), ScratchError> {
        let runs = self.slices.entry(slice).or_default();
        runs.push(run);
        while let [.., before, last] = runs.as_slice()
            && before.len() <= last.len() * 2
        {
            let merged = before.merged(last, oldest_ms)?;
            runs.truncate(runs.len() - 2);
            runs.push(merged);
        }
        Ok(())
    }

    /// Drops slices that are before `oldest_ms` as a whole.
    pub(super) fn forget_before(&mut self, oldest_ms: i64) {
        if !self.slices.is_empty() {
            self.slices = self.slices.split_off(&oldest_ms.div_euclid(self.width_ms));
        }
    }

    /// Drops filters, those of the oldest runs first, until at most `bytes` are in memory.
    pub(super) fn shed_filters(&mut self, bytes: usize) {
        let mut memory_bytes = self.memory_bytes();
        for run in self.slices.values_mut().flatten().filter(|run| run.has_filter()) {
            if memory_bytes <= bytes {
                return;
            }
            memory_bytes -= run.memory_bytes();
            run.drop_filter();
            memory_bytes += run.memory_bytes();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slices.values().flatten().map(Run::len).sum()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.slices.values().flatten().map(Run::memory_bytes).sum()
    }
}
