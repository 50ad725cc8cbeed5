//! Why a table's log cannot be read or written.

use common::store::StoreError;

pub type Result<T> = std::result::Result<T, DeltaError>;

#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An object of the log is missing, or is not what it should be.
    #[error("{key}: {message}")]
    Damaged { key: String, message: String },
    /// The table needs more than this program knows.
    #[error("{key}: the table needs reader version {reader} and writer version {writer}; this program knows 1 and 2")]
    Protocol { key: String, reader: i32, writer: i32 },
    /// Something that was to be written has no encoding.
    #[error("{0}")]
    Internal(String),
}

impl DeltaError {
    pub(crate) fn damaged(key: impl Into<String>, message: impl std::fmt::Display) -> Self {
        Self::Damaged { key: key.into(), message: message.to_string() }
    }
}
