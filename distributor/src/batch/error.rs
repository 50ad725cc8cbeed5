//! The errors that stop an open batch.

use std::fmt;

use parquet::errors::ParquetError;

use crate::scratch::ScratchError;

#[derive(Debug)]
pub(crate) enum BatchError {
    Encode(ParquetError),
    /// Local disk, which has old keys.
    Scratch(ScratchError),
}

impl fmt::Display for BatchError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encode(error) => write!(formatter, "encoding Parquet: {error}"),
            Self::Scratch(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for BatchError {}

impl From<ParquetError> for BatchError {
    fn from(error: ParquetError) -> Self {
        Self::Encode(error)
    }
}

impl From<ScratchError> for BatchError {
    fn from(error: ScratchError) -> Self {
        Self::Scratch(error)
    }
}
