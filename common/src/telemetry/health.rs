//! Readiness of a role: every component that reports must be ready.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Shared by all components of a role. A component is ready until it reports otherwise; one that has to start first
/// reports so when it is created.
#[derive(Debug, Clone, Default)]
pub struct Health {
    problems: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Health {
    pub fn not_ready(&self, component: &str, reason: &str) {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).insert(component.to_owned(), reason.to_owned());
    }

    pub fn ready(&self, component: &str) {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).remove(component);
    }

    /// The reasons for not being ready, by component; empty = ready.
    pub fn problems(&self) -> BTreeMap<String, String> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
