//! One error type for the log seam.

use std::fmt;

/// A kind exists only where a caller acts differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogErrorKind {
    /// Worth trying again: the log is down, slow or electing a leader.
    Transient,
    /// Another writer of the same id has taken over; this one must stop writing.
    Fenced,
    /// The transaction cannot be committed any more: abort it and do its work again.
    MustAbort,
    /// The commit may or may not have happened: own the id again, then read.
    UnknownOutcome,
    /// The partition is not assigned to this reader.
    NotAssigned,
    /// The offset asked for is not in the log (trimmed, truncated or recreated).
    OffsetOutOfRange,
    /// Records failed the client's checks: read them again from a position of our own, never on past them.
    Corrupt,
    /// Topic or client settings that must be changed by an operator.
    Misconfigured,
    /// The embedded log is held by another process.
    Locked,
    /// A record that breaks the log's contract (wrong kind of time, too large to encode).
    BadRecord,
    /// Damaged data or a bug.
    Other,
}

#[derive(Debug, Clone)]
pub struct LogError {
    pub kind: LogErrorKind,
    pub message: String,
}

impl LogError {
    pub fn new(kind: LogErrorKind, message: impl fmt::Display) -> Self {
        Self { kind, message: message.to_string() }
    }

    pub fn is_retryable(&self) -> bool {
        self.kind == LogErrorKind::Transient
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "log: {}", self.message)
    }
}

impl std::error::Error for LogError {}
