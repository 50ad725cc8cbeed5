//! Yields to other tasks after a bounded amount of work.
//!
//! Reading, decompressing and framing are computations; a hostile file makes them run for seconds without any wait for
//! I/O. The runtime cannot interrupt a task: timers, signals and other files would wait that long. Files of usual size
//! never use a slice up, and a yield takes about a microsecond, so the cost is negligible.

/// About half a millisecond of framing or decompression.
const SLICE_BYTES: usize = 256 * 1024;

/// Counts work in bytes at the speed of framing.
pub(crate) struct Pace {
    left: usize,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { left: SLICE_BYTES }
    }

    /// Adds work; true if the task should yield.
    #[inline]
    pub(crate) fn is_due(&mut self, bytes: usize) -> bool {
        let is_due = bytes >= self.left;
        self.left = if is_due { SLICE_BYTES } else { self.left - bytes };
        is_due
    }

    /// Adds work, and yields if the slice is used up.
    pub(crate) async fn spend(&mut self, bytes: usize) {
        if self.is_due(bytes) {
            tokio::task::yield_now().await;
        }
    }
}
