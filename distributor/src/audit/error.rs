//! Why an audit has no result.

use common::log::LogError;
use common::store::StoreError;
use parquet::errors::ParquetError;

use crate::batch::BatchError;
use crate::error::PartitionError;
use crate::scratch::ScratchError;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("trusted zone")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
    /// A batch was made under a layout that this build does not write.
    #[error("a batch cannot be made again by this build: {0}")]
    Layout(String),
    #[error("encoding Parquet")]
    Encode(#[from] ParquetError),
    /// Local disk.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
}

impl From<BatchError> for AuditError {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Encode(error) => Self::Encode(error),
            BatchError::Scratch(error) => Self::Scratch(error),
        }
    }
}

impl From<PartitionError> for AuditError {
    fn from(error: PartitionError) -> Self {
        match error {
            PartitionError::Store(error) => Self::Store(error),
            PartitionError::Log(error) => Self::Log(error),
            PartitionError::Encode(error) => Self::Encode(error),
            PartitionError::Scratch(error) => Self::Scratch(error),
            error => Self::Layout(error.to_string()),
        }
    }
}
