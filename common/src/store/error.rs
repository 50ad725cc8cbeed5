//! One error type for the store seam: what went wrong, on which operation and key.

use std::fmt;

/// A kind exists only where a caller acts differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// Time-outs, connection failures, 5xx, throttling: worth trying again.
    Transient,
    /// Credentials or permissions; an operator has to act, and may while we wait.
    Denied,
    /// The bucket or root directory is not there.
    NoSuchStore,
    /// A conditional read found another version of the object.
    VersionMismatch,
    /// A key this store cannot hold (or that would leave its root).
    InvalidKey,
    /// Larger than the caller's limit.
    TooLarge,
    /// The store cannot do this.
    Unsupported,
    /// Anything else: a bug or a broken store.
    Other,
}

#[derive(Debug, Clone)]
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

    /// True when the same call may succeed later without anyone changing the request.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Transient | StoreErrorKind::Denied | StoreErrorKind::NoSuchStore)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "store {} of '{}': {}", self.operation, self.key, self.message)
    }
}

impl std::error::Error for StoreError {}
