//! The deduplication window: the keys within the last W of log time.
//!
//! # Definition (exact)
//!
//! *Log time* of a record is the running maximum of the log-append times in its partition. A record at log time t is a
//! duplicate iff an equal key precedes it in the partition with a log time of at least t - W.
//!
//! # Invariants
//!
//! 1. The window is valid at exactly one offset: it contains the keys of every earlier record that can still matter,
//!    and takes each record once, in order.
//! 2. Keys of the open batch are in a separate [`Overlay`]. They are merged when the batch is complete, and dropped
//!    when reading goes back, so an unfinished batch leaves no trace.
//! 3. Only the latest log time of a key counts: an earlier one inside the window implies the later one.
//! 4. A key leaves memory for two reasons: no record can reach back to it any more, or it was spilled to disk, where it
//!    is still found. If there is no disk space either, the window stops; it never drops a key.
//!
//! Keys that have left the window are swept out shard by shard, each shard once in an eighth of the window. Old keys
//! are spilled to disk when the windows of all partitions together exceed their [`Budget`].

mod arrivals;
mod budget;
mod entry;
mod epochs;
#[cfg(test)]
mod figures;
mod filter;
mod groups;
mod key_run;
mod keys;
mod overlay;
mod run;
mod spilled;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;

#[cfg(feature = "fuzz")]
pub(crate) use self::key_run::fuzz::key_run;
pub(crate) use self::key_run::{decode_key_run, encode_key_run, most_bytes};
pub(crate) use budget::Budget;
use budget::Lease;
use keys::Keys;
pub(crate) use overlay::Overlay;
use run::RunWriter;
use spilled::Spilled;
use table::Table;

use crate::scratch::ScratchError;

/// The number of slices of a window, the unit in which keys are spilled and dropped on disk, and in which all of memory
/// is swept once …
const SLICES: i64 = 8;
/// … of at least this width on disk …
const MIN_WIDTH_MS: i64 = 60_000;
/// … and at most this one.
const MAX_WIDTH_MS: i64 = epochs::EPOCH_MS;
/// Keys that are looked up together: as many as the processor's outstanding reads allow.
pub(crate) const GROUP: usize = 24;
/// Minimum memory of an entry.
const ENTRY_BYTES: usize = 24;

#[derive(Debug)]
pub(crate) struct Window {
    window_ms: i64,
    keys: Keys,
    spilled: Spilled,
    /// Log time before which nothing matters any more.
    oldest_ms: i64,
    /// Log time of the last sweep, and the next shard.
    swept_ms: Option<i64>,
    next_shard: usize,
    lease: Lease,
}

impl Window {
    pub(crate) fn new(window_ms: i64, budget: &Arc<Budget>) -> Self {
        Self::with_slices(window_ms, (window_ms / SLICES).clamp(MIN_WIDTH_MS, MAX_WIDTH_MS), budget)
    }

    fn with_slices(window_ms: i64, width_ms: i64, budget: &Arc<Budget>) -> Self {
        Self {
            window_ms,
            keys: Keys::default(),
            spilled: Spilled::new(width_ms),
            oldest_ms: i64::MIN,
            swept_ms: None,
            next_shard: 0,
            lease: Lease::new(budget),
        }
    }

    pub(crate) fn overlay() -> Overlay {
        Overlay::default()
    }

    /// Whether a record of `key` at log time `time_ms` is a duplicate, given the complete batches and the open one,
    /// whose `overlay` takes the key.
    ///
    /// # Errors
    /// The error of the disk with old keys. The overlay is then unusable.
    pub(crate) fn take(&self, overlay: &mut Overlay, key: u128, time_ms: i64) -> Result<bool, ScratchError> {
        let from_ms = time_ms.saturating_sub(self.window_ms);
        if overlay.insert_and_check(key, time_ms, from_ms) || self.keys.contains_since(key, from_ms) {
            return Ok(true);
        }
        self.spilled.contains_since(key, from_ms)
    }

    /// Reads the first memory that [`Window::take`] will need for each of `keys`: the processor loads all of it at the
    /// same time instead of one after the other. Affects only speed.
    pub(crate) fn warm(&self, overlay: &Overlay, keys: &[u128]) {
        std::hint::black_box(self.keys.touch(keys) ^ overlay.touch(keys) ^ self.spilled.touch(keys));
    }

    /// Merges the keys of a batch that is now complete and drops those that no later record can reach. `clock_ms` is
    /// the log time at the batch's end.
    ///
    /// # Errors
    /// The disk's error if keys had to be spilled. The window is then unusable.
    pub(crate) fn merge(&mut self, overlay: Overlay, clock_ms: i64) -> Result<(), ScratchError> {
        self.keys.absorb(overlay);
        self.forget_before(clock_ms);
        self.fit()
    }

    /// Begins rebuilding for log time `clock_ms`: keys that cannot matter then are ignored.
    pub(crate) fn expect(&mut self, clock_ms: i64) {
        self.oldest_ms = clock_ms.saturating_sub(self.window_ms);
    }

    /// Adds one key of a completed batch during rebuilding.
    pub(crate) fn restore(&mut self, key: u128, time_ms: i64) {
        if time_ms >= self.oldest_ms {
            self.keys.insert(key, time_ms);
        }
    }

    fn forget_before(&mut self, clock_ms: i64) {
        self.oldest_ms = clock_ms.saturating_sub(self.window_ms);
        self.spilled.forget_before(self.oldest_ms);
        let shards = i64::try_from(Table::SHARDS).unwrap_or(i64::MAX);
        let each_ms = (self.window_ms / SLICES / shards).max(1);
        let since_ms = *self.swept_ms.get_or_insert(clock_ms);
        let due = (clock_ms.saturating_sub(since_ms) / each_ms).min(shards);
        for _ in 0..due {
            self.keys.sweep(self.next_shard, self.oldest_ms, |_, _| {});
            self.next_shard = (self.next_shard + 1) % Table::SHARDS;
        }
        self.swept_ms = Some(if due == shards { clock_ms } else { since_ms + due * each_ms });
    }

    /// Spills old keys if the budget requires it.
    ///
    /// # Errors
    /// The disk's error. The window is then unusable: rebuild it from the key runs.
    pub(crate) fn fit(&mut self) -> Result<(), ScratchError> {
        let Some(target) = self.lease.book(self.memory_bytes()) else { return Ok(()) };
        let for_keys = target.saturating_sub(self.spilled.memory_bytes());
        self.spill(for_keys / ENTRY_BYTES)?;
        self.spilled.shed_filters(target);
        self.lease.book(self.memory_bytes());
        Ok(())
    }

    /// Writes the oldest slices to disk, until at most `staying` keys are in memory.
    fn spill(&mut self, staying: usize) -> Result<(), ScratchError> {
        let (width_ms, oldest_ms) = (self.spilled.width_ms, self.oldest_ms);
        let slice_of = |time_ms: i64| time_ms.div_euclid(width_ms);
        let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
        for (_, time_ms) in self.keys.iter().filter(|(_, time_ms)| *time_ms >= oldest_ms) {
            *counts.entry(slice_of(time_ms)).or_default() += 1;
        }
        let mut left: usize = counts.values().sum();
        let mut writers = BTreeMap::new();
        for (slice, count) in counts {
            if left <= staying {
                break;
            }
            left -= count;
            writers.insert(slice, RunWriter::new(&self.lease.budget, count)?);
        }
        let Some((newest, _)) = writers.last_key_value() else { return Ok(()) };
        let staying_from_ms = (newest + 1).saturating_mul(width_ms);
        // Shards are in the order of their keys, so the runs are sorted.
        for shard in 0..Table::SHARDS {
            let mut removed = Vec::new();
            self.keys.sweep(shard, staying_from_ms, |key, time_ms| removed.push((key, time_ms)));
            removed.sort_unstable();
            // A key of two epochs occurs twice, the later time last.
            let mut removed = removed.into_iter().filter(|(_, time_ms)| *time_ms >= oldest_ms).peekable();
            while let Some((key, time_ms)) = removed.next() {
                let again = removed
                    .peek()
                    .is_some_and(|(next, later_ms)| *next == key && slice_of(*later_ms) == slice_of(time_ms));
                if let Some(writer) = writers.get_mut(&slice_of(time_ms)).filter(|_| !again) {
                    writer.push(key, time_ms)?;
                }
            }
        }
        for (slice, writer) in writers {
            self.spilled.add(slice, writer.finish()?, oldest_ms)?;
        }
        Ok(())
    }

    /// Keys in memory and on disk. One that is in both, or in several runs, counts several times.
    pub(crate) fn len(&self) -> usize {
        self.keys.len() + self.spilled.len()
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.keys.memory_bytes() + self.spilled.memory_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scratch::Scratch;

    /// The definition, literally.
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

    #[test]
    fn without_disk_space_the_window_stops_rather_than_drop_keys() {
        let budget = Budget::new(0, Scratch::new("/no/such/folder"));
        let mut window = Window::new(1_000, &budget);
        let mut overlay = Window::overlay();
        assert!(!window.take(&mut overlay, 7, 5_000).unwrap());
        let error = window.merge(overlay, 5_000).unwrap_err();
        assert!(error.to_string().contains("scratch.dir, files in '/no/such/folder'"), "{error}");
    }

    proptest! {
        #[test]
        fn live_and_rebuilt_windows_follow_the_definition(
            steps in prop::collection::vec((0_u128..6, -3_i64..30), 1..60),
            window_ms in 0_i64..60,
            batches in prop::collection::vec(1_usize..9, 1..6),
            width_ms in 1_i64..20,
            drop_once in any::<bool>(),
            keeps_live in any::<bool>(),
            // Also across the border of two tables.
            begins_ms in prop::sample::select(vec![1_000, epochs::EPOCH_MS - 150]),
            // With so small a budget nearly the whole of each window is on disk.
            budget_bytes in prop::sample::select(vec![0_u64, 70_000, 1_000_000_000]),
            // Groups that are touched ahead, also beyond the batch's end and with repeated keys, as with records of a
            // chunk.
            groups in prop::collection::vec(0_usize..12, 1..5),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let budget = Budget::new(budget_bytes, Scratch::new(folder.path()));
            let mut append_ms = begins_ms;
            let records: Vec<(u128, i64)> = steps.iter().map(|(key, step)| { append_ms += step; (*key + 1, append_ms) }).collect();
            let expected = ideal(&records, window_ms);
            let mut window = Window::with_slices(window_ms, width_ms, &budget);
            let mut runs: Vec<Vec<u8>> = Vec::new();
            let (mut clock, mut at) = (i64::MIN, 0);
            let mut sizes = batches.iter().cycle();
            let mut ahead = groups.iter().cycle();
            let keys: Vec<u128> = records.iter().map(|(key, _)| *key).collect();
            let mut dropped = !drop_once;
            while at < records.len() {
                let end = (at + sizes.next().copied().unwrap_or(1)).min(records.len());
                let mut overlay = Window::overlay();
                let mut batch_clock = clock;
                let mut touched_to = at;
                for index in at..end {
                    if index >= touched_to {
                        touched_to = (index + ahead.next().copied().unwrap_or_default()).min(keys.len());
                        window.warm(&overlay, &keys[index..touched_to.max(index)]);
                    }
                    let (key, append_ms) = records[index];
                    batch_clock = batch_clock.max(append_ms);
                    prop_assert_eq!(window.take(&mut overlay, key, batch_clock).unwrap(), expected[index], "record {}", index);
                }
                if !dropped {
                    // The batch is dropped and read again.
                    dropped = true;
                    continue;
                }
                runs.push(encode_key_run(&overlay));
                window.merge(overlay, batch_clock).unwrap();
                clock = batch_clock;
                at = end;
                // Another worker rebuilds it from the key runs.
                let mut rebuilt = Window::with_slices(window_ms, width_ms, &budget);
                rebuilt.expect(clock);
                for run in &runs {
                    decode_key_run(run, |key, time| rebuilt.restore(key, time)).map_err(|error| TestCaseError::fail(error.to_string()))?;
                    rebuilt.fit().unwrap();
                }
                if keeps_live { continue; }
                window = rebuilt;
            }
        }
    }
}
