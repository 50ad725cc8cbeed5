//! The errors that stop the work on a partition.

use std::collections::BTreeMap;
use std::fmt;

use common::log::LogError;
use common::store::StoreError;
use parquet::errors::ParquetError;

use crate::batch::BatchError;
use crate::scratch::ScratchError;

#[derive(Debug)]
pub(crate) enum PartitionError {
    /// Continuing could lose or repeat events; an operator has to act.
    Refused(String),
    Store(StoreError),
    /// An object is invalid, or was written by another program.
    Damaged {
        key: String,
        message: String,
    },
    /// An object would be too large.
    Unwritable(String),
    Log(LogError),
    Encode(ParquetError),
    /// Local disk.
    Scratch(ScratchError),
    /// Others took the state at hand out of date: it has to be read again.
    Overtaken(String),
    /// A fault of this program.
    Internal(String),
    /// Each of these failed, and the others are done.
    Partitions(BTreeMap<i32, PartitionError>),
}

impl fmt::Display for PartitionError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(message) => formatter.write_str(message),
            Self::Store(error) => write!(formatter, "trusted zone: {error}"),
            Self::Damaged { key, message } => write!(formatter, "trusted zone: '{key}': {message}"),
            Self::Unwritable(message) | Self::Overtaken(message) => write!(formatter, "trusted zone: {message}"),
            Self::Log(error) => error.fmt(formatter),
            Self::Encode(error) => write!(formatter, "encoding Parquet: {error}"),
            Self::Scratch(error) => error.fmt(formatter),
            Self::Internal(message) => write!(formatter, "internal error: {message}"),
            Self::Partitions(failed) => {
                write!(formatter, "{} of the partitions failed; the others are done", failed.len())?;
                failed.iter().try_for_each(|(id, error)| write!(formatter, "\n  partition {id}: {error}"))
            }
        }
    }
}

impl std::error::Error for PartitionError {}

impl From<StoreError> for PartitionError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<LogError> for PartitionError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<ParquetError> for PartitionError {
    fn from(error: ParquetError) -> Self {
        Self::Encode(error)
    }
}

impl From<ScratchError> for PartitionError {
    fn from(error: ScratchError) -> Self {
        Self::Scratch(error)
    }
}

impl From<BatchError> for PartitionError {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Encode(error) => Self::Encode(error),
            BatchError::Scratch(error) => Self::Scratch(error),
        }
    }
}
