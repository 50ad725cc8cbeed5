//! Why an audit has no result.

use std::fmt;

use common::log::LogError;
use common::store::StoreError;
use parquet::errors::ParquetError;

use crate::batch::BatchError;
use crate::scratch::ScratchError;

/// Why there is no result.
#[derive(Debug)]
pub enum AuditError {
    Store(StoreError),
    Log(LogError),
    /// A batch was made under a layout that this build does not write.
    Layout(String),
    Encode(ParquetError),
    /// Local disk.
    Scratch(ScratchError),
}

impl fmt::Display for AuditError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => write!(formatter, "trusted zone: {error}"),
            Self::Log(error) => error.fmt(formatter),
            Self::Layout(message) => write!(formatter, "a batch cannot be made again by this build: {message}"),
            Self::Encode(error) => write!(formatter, "encoding Parquet: {error}"),
            Self::Scratch(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for AuditError {}

impl From<StoreError> for AuditError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<LogError> for AuditError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<ParquetError> for AuditError {
    fn from(error: ParquetError) -> Self {
        Self::Encode(error)
    }
}

impl From<ScratchError> for AuditError {
    fn from(error: ScratchError) -> Self {
        Self::Scratch(error)
    }
}

impl From<BatchError> for AuditError {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Encode(error) => Self::Encode(error),
            BatchError::Scratch(error) => Self::Scratch(error),
        }
    }
}
