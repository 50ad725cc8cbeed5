//! The deduplication window: which keys stood in the last W of log time.
//!
//! # Definition (exact)
//!
//! *Log time* of a record is the running maximum of the log-append times in its partition. A record at log time t is a
//! duplicate iff an equal key stands earlier in the partition with a log time of at least t - W.
//!
//! # Invariants
//!
//! 1. The window is valid at exactly one offset: it holds the keys of every record before it that can still matter,
//!    and takes each record once, in order.
//! 2. Keys of the open batch stay in an [`Overlay`] of their own. They are merged when the batch is complete, and
//!    dropped when reading goes back, so an unfinished batch leaves no trace.
//! 3. Only the latest log time of a key is kept: an earlier one inside the window implies the later one.
//! 4. Slices cover fixed spans of absolute log time, and are dropped whole once no record can reach back to them.

mod key_run;
mod table;

use std::collections::BTreeMap;

pub(crate) use key_run::{KeyRunError, decode_key_run, encode_key_run};
use table::Table;

/// The window is cut into this many slices: more would drop memory earlier, fewer make look-ups cheaper …
const SLICES: i64 = 8;
/// … of at least this width, for a slice has a fixed cost too.
const MIN_WIDTH_MS: i64 = 60_000;

/// Keys by absolute slice of log time.
#[derive(Debug, Clone)]
pub(crate) struct Slices {
    width_ms: i64,
    tables: BTreeMap<i64, Table>,
}

/// Keys of a batch that is not complete yet.
pub(crate) type Overlay = Slices;

impl Slices {
    fn new(width_ms: i64) -> Self {
        Self { width_ms: width_ms.clamp(1, i64::from(u32::MAX)), tables: BTreeMap::new() }
    }

    /// The latest time of `key` that is at least `from_ms`.
    fn contains_since(&self, key: u128, from_ms: i64) -> bool {
        let oldest = from_ms.div_euclid(self.width_ms);
        self.tables.range(oldest..).rev().any(|(slice, table)| {
            table.get(key).is_some_and(|offset_ms| slice * self.width_ms + i64::from(offset_ms) >= from_ms)
        })
    }

    pub(crate) fn insert(&mut self, key: u128, time_ms: i64) {
        let slice = time_ms.div_euclid(self.width_ms);
        // Within a slice the remainder is below the width, which fits.
        let offset_ms = u32::try_from(time_ms.rem_euclid(self.width_ms)).unwrap_or(u32::MAX);
        self.tables.entry(slice).or_default().insert(key, offset_ms);
    }

    pub(crate) fn len(&self) -> usize {
        self.tables.values().map(Table::len).sum()
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.tables.values().map(Table::memory_bytes).sum()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Window {
    window_ms: i64,
    keys: Slices,
}

impl Window {
    pub(crate) fn new(window_ms: i64) -> Self {
        Self::with_slices(window_ms, (window_ms / SLICES).max(MIN_WIDTH_MS))
    }

    fn with_slices(window_ms: i64, width_ms: i64) -> Self {
        Self { window_ms, keys: Slices::new(width_ms) }
    }

    pub(crate) fn overlay(&self) -> Overlay {
        Slices::new(self.keys.width_ms)
    }

    /// Whether a record of `key` at log time `time_ms` is a duplicate, given the complete batches and the open one.
    pub(crate) fn is_duplicate(&self, overlay: &Overlay, key: u128, time_ms: i64) -> bool {
        let from_ms = time_ms.saturating_sub(self.window_ms);
        overlay.contains_since(key, from_ms) || self.keys.contains_since(key, from_ms)
    }

    /// Takes the keys of a batch that is now complete and forgets what no later record can reach.
    /// `clock_ms` is the log time at the batch's end.
    pub(crate) fn merge(&mut self, overlay: Overlay, clock_ms: i64) {
        for (slice, table) in overlay.tables {
            match self.keys.tables.entry(slice) {
                std::collections::btree_map::Entry::Vacant(slot) => {
                    slot.insert(table);
                }
                std::collections::btree_map::Entry::Occupied(mut slot) => {
                    for (key, offset_ms) in table.iter() {
                        slot.get_mut().insert(key, offset_ms);
                    }
                }
            }
        }
        self.forget_before(clock_ms);
    }

    /// Adds one key of a completed batch, when the window is rebuilt.
    pub(crate) fn restore(&mut self, key: u128, time_ms: i64) {
        self.keys.insert(key, time_ms);
    }

    pub(crate) fn forget_before(&mut self, clock_ms: i64) {
        let oldest = clock_ms.saturating_sub(self.window_ms).div_euclid(self.keys.width_ms);
        self.keys.tables = self.keys.tables.split_off(&oldest);
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.keys.memory_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, word for word.
    fn ideal(records: &[(u128, i64)], window_ms: i64) -> Vec<bool> {
        let mut clock = i64::MIN;
        let mut seen: Vec<(u128, i64)> = Vec::new();
        records
            .iter()
            .map(|(key, append_ms)| {
                clock = clock.max(*append_ms);
                let duplicate = seen.iter().any(|(other, time)| other == key && *time >= clock - window_ms);
                seen.push((*key, clock));
                duplicate
            })
            .collect()
    }

    proptest! {
        #[test]
        fn live_and_rebuilt_windows_follow_the_definition(
            steps in prop::collection::vec((0_u128..6, -3_i64..30), 1..60),
            window_ms in 0_i64..60,
            batches in prop::collection::vec(1_usize..9, 1..6),
            width_ms in 1_i64..20,
            drop_once in any::<bool>(),
        ) {
            let mut append_ms = 1_000;
            let records: Vec<(u128, i64)> = steps.iter().map(|(key, step)| { append_ms += step; (*key + 1, append_ms) }).collect();
            let expected = ideal(&records, window_ms);
            let mut window = Window::with_slices(window_ms, width_ms);
            let mut runs: Vec<Vec<u8>> = Vec::new();
            let (mut clock, mut at) = (i64::MIN, 0);
            let mut sizes = batches.iter().cycle();
            let mut dropped = !drop_once;
            while at < records.len() {
                let end = (at + sizes.next().copied().unwrap_or(1)).min(records.len());
                let mut overlay = window.overlay();
                let mut batch_clock = clock;
                for index in at..end {
                    let (key, append_ms) = records[index];
                    batch_clock = batch_clock.max(append_ms);
                    prop_assert_eq!(window.is_duplicate(&overlay, key, batch_clock), expected[index], "record {}", index);
                    overlay.insert(key, batch_clock);
                }
                if !dropped {
                    // The batch is given up and read again.
                    dropped = true;
                    continue;
                }
                runs.push(encode_key_run(&overlay));
                window.merge(overlay, batch_clock);
                clock = batch_clock;
                at = end;
                // Another worker rebuilds it from the key runs.
                let mut rebuilt = Window::with_slices(window_ms, width_ms);
                for run in &runs {
                    decode_key_run(run, |key, time| rebuilt.restore(key, time)).map_err(|error| TestCaseError::fail(error.to_string()))?;
                }
                rebuilt.forget_before(clock);
                window = rebuilt;
            }
        }
    }
}
