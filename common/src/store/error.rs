//! One error type for the store seam: the reason, the operation and the key.

use std::fmt;

/// The kinds that callers treat differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// Time-outs, connection failures, 5xx, throttling: the call may succeed later.
    Transient,
    /// Credentials or permissions. An operator has to act, and may do so while the caller waits.
    Denied,
    /// The bucket or root directory does not exist.
    NoSuchStore,
    /// A conditional read found another version of the object.
    VersionMismatch,
    /// A key that this store cannot hold, or that would leave its root.
    InvalidKey,
    /// Larger than the caller's limit.
    TooLarge,
    /// The store does not support the operation.
    Unsupported,
    /// Any other error: a bug or a broken store.
    Other,
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("store {operation} of '{key}': {message}")]
pub struct StoreError {
    pub kind: StoreErrorKind,
    pub operation: &'static str,
    pub key: String,
    pub message: String,
}

impl StoreError {
    pub fn new(kind: StoreErrorKind, operation: &'static str, key: &str, message: impl fmt::Display) -> Self {
        Self { kind, operation, key: key.to_owned(), message: message.to_string() }
    }

    /// Whether the same call may succeed later without a change of the request.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Transient | StoreErrorKind::Denied | StoreErrorKind::NoSuchStore)
    }
}
