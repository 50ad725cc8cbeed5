//! The dedup windows that batches were made under: one for each length that a layout asks for, all at the same offset.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::scratch::ScratchError;
use crate::window::{Budget, KeyRunError, Window, decode_key_run};

pub(super) struct Windows {
    by_ms: BTreeMap<i64, Window>,
    /// Log time at this offset.
    pub clock_ms: i64,
}

impl Windows {
    /// At the beginning of a chain.
    pub(super) fn new(lengths_ms: impl Iterator<Item = i64>, budget: &Arc<Budget>) -> Self {
        let window = |length_ms| (length_ms, Window::new(length_ms, budget));
        Self { by_ms: lengths_ms.map(window).collect(), clock_ms: i64::MIN }
    }

    pub(super) fn of(&self, length_ms: i64) -> Option<&Window> {
        self.by_ms.get(&length_ms)
    }

    /// Goes past a batch with these keys.
    ///
    /// # Errors
    /// The key run is damaged, or the disk fails where old keys go; the windows are of no use then.
    pub(super) fn take(&mut self, run: &[u8], clock_ms: i64) -> Result<Result<(), KeyRunError>, ScratchError> {
        self.clock_ms = clock_ms;
        for window in self.by_ms.values_mut() {
            let mut keys = Window::overlay();
            if let Err(error) = decode_key_run(run, |fingerprint, time_ms| keys.insert(fingerprint, time_ms)) {
                return Ok(Err(error));
            }
            window.merge(keys, clock_ms)?;
        }
        Ok(Ok(()))
    }
}
