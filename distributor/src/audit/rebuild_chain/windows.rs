//! The dedup windows that batches were made under: one for each length that a layout asks for, all at the same offset.

use std::collections::BTreeMap;

use crate::window::{KeyRunError, Window, decode_key_run};

pub(super) struct Windows {
    by_ms: BTreeMap<i64, Window>,
    /// Log time at this offset.
    pub clock_ms: i64,
}

impl Windows {
    /// At the beginning of a chain.
    pub(super) fn new(lengths_ms: impl Iterator<Item = i64>) -> Self {
        Self { by_ms: lengths_ms.map(|length_ms| (length_ms, Window::new(length_ms))).collect(), clock_ms: i64::MIN }
    }

    pub(super) fn of(&self, length_ms: i64) -> Option<&Window> {
        self.by_ms.get(&length_ms)
    }

    /// Goes past a batch with these keys.
    ///
    /// # Errors
    /// The key run is damaged; the windows are of no use then.
    pub(super) fn take(&mut self, run: &[u8], clock_ms: i64) -> Result<(), KeyRunError> {
        self.clock_ms = clock_ms;
        for window in self.by_ms.values_mut() {
            decode_key_run(run, |fingerprint, time_ms| window.restore(fingerprint, time_ms))?;
            window.forget_before(clock_ms);
        }
        Ok(())
    }
}
