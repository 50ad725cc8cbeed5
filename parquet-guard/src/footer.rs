//! Reads the footer of a Parquet file in the store, without the rest of the file.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use common::store::{GetOptions, Store, StoreError, StoreErrorKind};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::reader::ChunkReader;

use crate::shape;

/// Enough for almost every footer; a larger one is read again at its own length.
const GUESS_BYTES: u64 = 64 * 1024;
/// The length of the footer and the magic, at the end of the file.
const END_BYTES: usize = 8;
const MAGIC: &[u8] = b"PAR1";
/// The largest footer accepted. The largest file of this program, with a hundred columns, takes half of it.
const LIMIT_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Debug)]
pub enum FooterError {
    Store(StoreError),
    Gone,
    /// Not a Parquet file, or a damaged one.
    Unreadable(String),
}

impl From<StoreError> for FooterError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A footer whose counts and ranges agree with its file.
#[derive(Debug)]
pub struct Footer(Arc<ParquetMetaData>);

impl Footer {
    /// # Errors
    /// The store's error, or the file is invalid.
    pub async fn read(store: &dyn Store, path: &str, size_bytes: u64) -> Result<Self, FooterError> {
        let mut wanted = GUESS_BYTES;
        loop {
            let start = size_bytes.saturating_sub(wanted);
            let tail = read_range(store, path, start..size_bytes).await?;
            match Self::of_tail(&tail, size_bytes) {
                Ok(footer) => return Ok(footer),
                Err(ParquetError::NeedMoreData(needed)) if needed as u64 > LIMIT_BYTES => {
                    return Err(FooterError::Unreadable(format!(
                        "it has {needed} bytes, more than this program writes"
                    )));
                }
                Err(ParquetError::NeedMoreData(needed)) if (needed as u64) > wanted && start > 0 => {
                    wanted = needed as u64;
                }
                Err(error) => return Err(FooterError::Unreadable(error.to_string())),
            }
        }
    }

    /// Parses the footer in the last bytes of a file of that size.
    ///
    /// # Errors
    /// It is not a footer of a shape that is known here, or contradicts the file.
    pub fn of_tail(tail: &Bytes, size_bytes: u64) -> Result<Self, ParquetError> {
        if footer_in(tail).is_some_and(|footer| !shape::is_known(footer)) {
            return Err(ParquetError::General("its footer is not one that this program writes".to_owned()));
        }
        let mut reader = ParquetMetaDataReader::new();
        reader.try_parse_sized(tail, size_bytes)?;
        let metadata = reader.finish()?;
        match flaw(&metadata, size_bytes) {
            Some(flaw) => Err(ParquetError::General(flaw.to_owned())),
            None => Ok(Self(Arc::new(metadata))),
        }
    }

    /// # Errors
    /// The reader's, or the file is not what its name says.
    pub fn of_file(file: &impl ChunkReader) -> Result<Self, ParquetError> {
        let size_bytes = file.len();
        let tail = |wanted: u64| {
            let start = size_bytes.saturating_sub(wanted);
            file.get_bytes(start, usize::try_from(size_bytes - start)?)
        };
        let end = tail(END_BYTES as u64)?;
        let length = end.first_chunk().map_or(0, |length| u64::from(u32::from_le_bytes(*length)));
        if length > LIMIT_BYTES {
            return Err(ParquetError::General(format!("its footer has {length} bytes, more than this program writes")));
        }
        Self::of_tail(&tail(length + END_BYTES as u64)?, size_bytes)
    }

    pub fn metadata(&self) -> &Arc<ParquetMetaData> {
        &self.0
    }

    pub fn rows(&self) -> u64 {
        self.0.file_metadata().num_rows().unsigned_abs()
    }

    /// The value of a key.
    pub fn fact(&self, key: &str) -> Option<&str> {
        let mut stated = self.0.file_metadata().key_value_metadata()?.iter();
        stated.find(|fact| fact.key == key)?.value.as_deref()
    }

    /// Whether it contains all of `facts`.
    pub fn says(&self, facts: &[(&str, String)]) -> bool {
        let Some(stated) = self.0.file_metadata().key_value_metadata() else { return facts.is_empty() };
        facts.iter().all(|(key, value)| {
            stated.iter().any(|fact| fact.key == *key && fact.value.as_deref() == Some(value.as_str()))
        })
    }
}

/// The footer, if it is completely in `tail`.
fn footer_in(tail: &[u8]) -> Option<&[u8]> {
    let (rest, end) = tail.split_last_chunk::<END_BYTES>()?;
    let length = u32::from_le_bytes(*end.strip_suffix(MAGIC)?.first_chunk()?);
    rest.get(rest.len().checked_sub(usize::try_from(length).ok()?)?..)
}

/// Why the footer cannot be that of a file of that size. Readers of rows trust its ranges and counts.
fn flaw(metadata: &ParquetMetaData, size_bytes: u64) -> Option<&'static str> {
    let columns = metadata.row_groups().iter().flat_map(RowGroupMetaData::columns);
    let is_within = |column: &ColumnChunkMetaData| {
        let first_page = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
        let range = [first_page, column.data_page_offset(), column.compressed_size(), column.num_values()];
        let end = first_page.checked_add(column.compressed_size()).and_then(|end| u64::try_from(end).ok());
        range.iter().all(|number| *number >= 0) && end.is_some_and(|end| end <= size_bytes)
    };
    if !columns.into_iter().all(is_within) {
        return Some("its footer refers to bytes outside of the file");
    }
    let mut counts = metadata.row_groups().iter().map(RowGroupMetaData::num_rows);
    let rows = counts.try_fold(0_i64, |rows, count| rows.checked_add(count).filter(|_| count >= 0));
    (rows != Some(metadata.file_metadata().num_rows())).then_some("its row count is not that of its row groups")
}

/// Bytes of a file.
///
/// # Errors
/// The store's error, or the file no longer exists.
pub async fn read_range(store: &dyn Store, path: &str, range: Range<u64>) -> Result<Bytes, FooterError> {
    let options = GetOptions { range: Some(range), if_version: None };
    let Some((_, mut reader)) = store.open(path, options).await? else { return Err(FooterError::Gone) };
    let mut body = BytesMut::new();
    loop {
        match reader.next().await {
            Ok(Some(piece)) => body.extend_from_slice(&piece),
            Ok(None) => return Ok(body.freeze()),
            // Removed, or replaced by another one, since it was opened.
            Err(error) if error.kind == StoreErrorKind::VersionMismatch => return Err(FooterError::Gone),
            Err(error) => return Err(error.into()),
        }
    }
}
