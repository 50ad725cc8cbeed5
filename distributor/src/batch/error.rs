//! The errors that stop an open batch.

use parquet::errors::ParquetError;

use crate::scratch::ScratchError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum BatchError {
    #[error("encoding Parquet: {0}")]
    Encode(ParquetError),
    /// Local disk, which has old keys.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
}

impl From<ParquetError> for BatchError {
    fn from(error: ParquetError) -> Self {
        Self::Encode(error)
    }
}
