//! The observable state of a lane at work.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::log::Chunk;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::watch::Progress;

/// What a partition at work shows of itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Observed {
    pub memory_bytes: usize,
    /// The memory that making room would free.
    pub reclaimable_bytes: usize,
    pub window_entries: usize,
    pub window_bytes: usize,
    pub open_files: usize,
    /// `None` while earlier batches are checked or restored.
    pub progress: Option<Progress>,
    /// Age of the open batch.
    pub filling_for: Option<Duration>,
}

/// The observable state of a lane.
#[derive(Debug, Default)]
pub(crate) struct LaneState {
    memory_bytes: AtomicUsize,
    reclaimable_bytes: AtomicUsize,
    window_entries: AtomicUsize,
    window_bytes: AtomicUsize,
    filling_since: Mutex<Option<Instant>>,
    open_files: AtomicUsize,
    progress: Mutex<Option<Progress>>,
    is_busy: AtomicBool,
    is_done: AtomicBool,
    /// The worker needs memory.
    room_wanted: AtomicBool,
    room_asked: Notify,
}

impl LaneState {
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes.load(Ordering::Acquire)
    }

    pub(crate) fn window_entries(&self) -> usize {
        self.window_entries.load(Ordering::Relaxed)
    }

    pub(crate) fn window_bytes(&self) -> usize {
        self.window_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn open_files(&self) -> usize {
        self.open_files.load(Ordering::Relaxed)
    }

    /// `None` while earlier batches are checked or restored.
    pub(crate) fn progress(&self) -> Option<Progress> {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Age of the open batch.
    pub(crate) fn filling_for(&self) -> Option<Duration> {
        self.filling_since.lock().unwrap_or_else(PoisonError::into_inner).map(|since| since.elapsed())
    }

    /// Busy: the log's silence meanwhile does not count.
    pub(crate) fn is_busy(&self) -> bool {
        self.is_busy.load(Ordering::Acquire)
    }

    /// Has read to the end of input, and flushed.
    pub(crate) fn is_done(&self) -> bool {
        self.is_done.load(Ordering::Acquire)
    }

    /// The memory that making room would free.
    pub(crate) fn reclaimable_bytes(&self) -> usize {
        self.reclaimable_bytes.load(Ordering::Acquire)
    }

    pub(crate) fn is_about_to_make_room(&self) -> bool {
        self.room_wanted.load(Ordering::Acquire)
    }

    pub(crate) fn ask_for_room(&self) {
        self.room_wanted.store(true, Ordering::Release);
        self.room_asked.notify_one();
    }

    /// Resolves once the worker has requested memory.
    pub(crate) async fn asked_for_room(&self) {
        self.room_asked.notified().await;
    }

    pub(crate) fn made_room(&self) {
        self.room_wanted.store(false, Ordering::Release);
    }

    pub(crate) fn begins(&self) {
        self.is_busy.store(true, Ordering::Release);
    }

    /// A chunk is being delivered to the lane, which may be delayed for long: the lane is no longer at its end, and the
    /// chunk's first record is not in the tables yet.
    pub(crate) fn is_to_take(&self, chunk: &Chunk) {
        if let Some(progress) = &mut *self.progress.lock().unwrap_or_else(PoisonError::into_inner) {
            progress.at_end = false;
            progress.open_since_ms = progress.open_since_ms.or(chunk.times_ms.first().copied());
        }
    }

    /// Copies the partition's state. Returns whether it was done before.
    pub(crate) fn publish(&self, observed: &Observed, is_done: bool) -> bool {
        self.memory_bytes.store(observed.memory_bytes, Ordering::Release);
        self.reclaimable_bytes.store(observed.reclaimable_bytes, Ordering::Release);
        self.window_entries.store(observed.window_entries, Ordering::Relaxed);
        self.window_bytes.store(observed.window_bytes, Ordering::Relaxed);
        self.open_files.store(observed.open_files, Ordering::Relaxed);
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = observed.progress;
        *self.filling_since.lock().unwrap_or_else(PoisonError::into_inner) =
            observed.filling_for.and_then(|age| Instant::now().checked_sub(age));
        let was_done = self.is_done.swap(is_done, Ordering::AcqRel);
        self.is_busy.store(false, Ordering::Release);
        was_done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_being_delivered_counts_as_lag_however_long_that_takes() {
        let state = LaneState::default();
        let chunk = |append_ms| Chunk { offsets: vec![20], times_ms: vec![append_ms], ..Chunk::default() };
        state.is_to_take(&chunk(1));
        assert_eq!(state.progress(), None, "while batches are restored there is no progress");
        let idle = Progress { position: 20, complete_to: 20, complete_ms: Some(5), open_since_ms: None, at_end: true };
        *state.progress.lock().unwrap() = Some(idle);
        state.is_to_take(&chunk(7));
        state.is_to_take(&chunk(9));
        assert_eq!(state.progress(), Some(Progress { open_since_ms: Some(7), at_end: false, ..idle }));
    }
}
