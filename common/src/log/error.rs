//! One error type for the log seam.

use std::fmt;

/// The kinds that callers treat differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogErrorKind {
    /// The call may succeed later: the log is down, slow or electing a leader.
    Transient,
    /// Another writer of the same id has taken over; this one must stop writing.
    Fenced,
    /// The transaction can no longer be committed: abort it and repeat its work.
    MustAbort,
    /// The commit may or may not have happened: own the id again, then read.
    UnknownOutcome,
    /// The partition is not assigned to this reader.
    NotAssigned,
    /// The requested offset is not in the log (trimmed, truncated or recreated).
    OffsetOutOfRange,
    /// Records failed the checks of the client or of the file: read them again from a known position, and never skip
    /// them.
    Corrupt,
    /// An operator must change topic or client settings.
    Misconfigured,
    /// Another process holds the embedded log.
    Locked,
    /// A record that breaks the log's contract (wrong kind of time, too large to encode).
    BadRecord,
    /// Damaged data or a bug.
    Other,
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("log: {message}")]
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
