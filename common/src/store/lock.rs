//! A lock that every process sees which uses the same store.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// Any number at a time.
    Shared,
    /// One, and no shared one.
    Exclusive,
}

/// Held until it is dropped and every call that began meanwhile has ended.
pub struct StoreLock {
    _held: Arc<dyn Any + Send + Sync>,
}

impl StoreLock {
    pub(super) fn new(held: Arc<dyn Any + Send + Sync>) -> Self {
        Self { _held: held }
    }
}

impl fmt::Debug for StoreLock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("StoreLock")
    }
}
