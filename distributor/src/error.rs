//! The errors that stop the work on a partition.

use std::collections::BTreeMap;

use common::log::LogError;
use common::store::StoreError;
use parquet::errors::ParquetError;

use crate::batch::BatchError;
use crate::scratch::ScratchError;
use crate::table::TableError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum PartitionError {
    /// Continuing could lose or repeat events; an operator has to act.
    #[error("{0}")]
    Refused(String),
    #[error("trusted zone: {0}")]
    Store(StoreError),
    /// An object is invalid, or was written by another program.
    #[error("trusted zone: '{key}': {message}")]
    Damaged { key: String, message: String },
    /// An object would be too large.
    #[error("trusted zone: {0}")]
    Unwritable(String),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("encoding Parquet: {0}")]
    Encode(ParquetError),
    /// Local disk.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// Others took the state at hand out of date: it has to be read again.
    #[error("trusted zone: {0}")]
    Overtaken(String),
    /// A fault of this program.
    #[error("internal error: {0}")]
    Internal(String),
    /// Each of these failed, and the others are done.
    #[error("{} of the partitions failed; the others are done{}", .0.len(), lines(.0))]
    Partitions(BTreeMap<i32, PartitionError>),
}

/// Each with its partition.
fn lines(failed: &BTreeMap<i32, PartitionError>) -> String {
    failed.iter().fold(String::new(), |lines, (id, error)| format!("{lines}\n  partition {id}: {error}"))
}

impl From<BatchError> for PartitionError {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Encode(error) => Self::Encode(error),
            BatchError::Scratch(error) => Self::Scratch(error),
        }
    }
}

impl From<TableError> for PartitionError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Store(error) => Self::Store(error),
            TableError::CommitLog(error) => error.into(),
            other => Self::Refused(other.to_string()),
        }
    }
}

impl From<StoreError> for PartitionError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<ParquetError> for PartitionError {
    fn from(error: ParquetError) -> Self {
        Self::Encode(error)
    }
}
