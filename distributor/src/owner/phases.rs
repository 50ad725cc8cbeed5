//! Measures the phases of writing a batch.

use std::time::{Duration, Instant};

pub(crate) struct Phases {
    begun: Instant,
    last: Instant,
    ended: Vec<(&'static str, Duration)>,
}

impl Phases {
    pub(crate) fn begin() -> Self {
        let now = Instant::now();
        Self { begun: now, last: now, ended: Vec::new() }
    }

    /// Attributes the time since the previous phase to this one.
    pub(crate) fn end(&mut self, name: &'static str) {
        let now = Instant::now();
        self.ended.push((name, now - self.last));
        self.last = now;
    }

    pub(crate) fn all(&self) -> &[(&'static str, Duration)] {
        &self.ended
    }

    pub(crate) fn total(&self) -> Duration {
        self.begun.elapsed()
    }
}
