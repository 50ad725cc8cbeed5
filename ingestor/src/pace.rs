//! Giving the runtime's thread back after a bounded amount of work.
//!
//! Reading, decompressing and framing compute; a hostile file makes them compute for seconds without any wait for I/O.
//! The runtime cannot interrupt a task: timers, signals and other files would wait for as long. Files of usual size never
//! reach a slice's end, and a yield takes about a microsecond, so this costs nothing worth measuring.

/// Some half a millisecond of framing or of inflating.
const SLICE_BYTES: usize = 256 * 1024;

/// Counts work in bytes at the speed of framing.
pub(crate) struct Pace {
    left: usize,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { left: SLICE_BYTES }
    }

    /// Notes work; true when the thread should be given back.
    #[inline]
    pub(crate) fn is_due(&mut self, bytes: usize) -> bool {
        let is_due = bytes >= self.left;
        self.left = if is_due { SLICE_BYTES } else { self.left - bytes };
        is_due
    }

    /// Notes work, and lets others run where the slice is used up.
    pub(crate) async fn spend(&mut self, bytes: usize) {
        if self.is_due(bytes) {
            tokio::task::yield_now().await;
        }
    }
}
