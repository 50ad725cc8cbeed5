//! Telling that a store goes on failing.
//!
//! A call that is repeated until it works says nothing to who waits for it. So a call that has been failing for longer
//! than [`TOLERATED_OUTAGE`] makes a component of the role not ready, with the last failure as the reason, until no call is in
//! that state any more: it succeeded, or was given up.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::store::StoreError;
use crate::telemetry::Health;

/// How long a call may fail before anybody is told: longer than what passes by itself all the time.
pub const TOLERATED_OUTAGE: Duration = Duration::from_secs(10);

/// Whom to tell.
pub(super) struct Outages {
    health: Option<(Health, &'static str)>,
    /// Calls that have been failing for too long.
    failing: Mutex<usize>,
}

impl Outages {
    pub fn new(health: Option<(Health, &'static str)>) -> Self {
        Self { health, failing: Mutex::new(0) }
    }

    /// A call is failing for too long: since now, or still.
    pub fn tell(&self, is_new: bool, error: &StoreError) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        *failing += usize::from(is_new);
        if let Some((health, component)) = &self.health {
            health.not_ready(component, &error.to_string());
        }
    }

    /// One of them is over.
    pub fn end(&self) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        *failing -= 1;
        if let Some((health, component)) = &self.health
            && *failing == 0
        {
            health.ready(component);
        }
    }
}
