//! Reports that a store keeps failing.
//!
//! A call that is repeated until it succeeds reports nothing meanwhile. A call that has been failing for longer than
//! [`TOLERATED_OUTAGE`] therefore makes a component of the role not ready, with the last failure as the reason. The
//! component is ready again once every such call has succeeded or was given up.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::store::StoreError;
use crate::telemetry::Health;

/// How long a call may fail before it is reported: longer than common temporary failures.
pub const TOLERATED_OUTAGE: Duration = Duration::from_secs(10);

/// The component whose readiness is set.
pub(super) struct Outages {
    health: Option<(Health, &'static str)>,
    /// Calls that have been failing for too long.
    failing: Mutex<usize>,
}

impl Outages {
    pub fn new(health: Option<(Health, &'static str)>) -> Self {
        Self { health, failing: Mutex::new(0) }
    }

    /// Records a call that has been failing for too long; `is_new` the first time.
    pub fn report(&self, is_new: bool, error: &StoreError) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        *failing += usize::from(is_new);
        if let Some((health, component)) = &self.health {
            health.not_ready(component, &error.to_string());
        }
    }

    /// Records the end of such a call.
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
