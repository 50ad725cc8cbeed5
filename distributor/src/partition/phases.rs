//! Measures the phases of writing a batch.

use std::time::{Duration, Instant};

pub(super) struct Phases {
    begun: Instant,
    last: Instant,
    ended: Vec<(&'static str, Duration)>,
}

impl Phases {
    pub(super) fn begin() -> Self {
        let now = Instant::now();
        Self { begun: now, last: now, ended: Vec::new() }
    }

    /// Attributes the time since the previous phase to this one.
    pub(super) fn end(&mut self, name: &'static str) {
        let now = Instant::now();
        self.ended.push((name, now - self.last));
        self.last = now;
    }

    pub(super) fn all(&self) -> &[(&'static str, Duration)] {
        &self.ended
    }

    pub(super) fn total(&self) -> Duration {
        self.begun.elapsed()
    }
}
