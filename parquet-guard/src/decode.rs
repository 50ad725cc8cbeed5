//! Decodes the rows of Parquet files in a bucket to which others may write.
//!
//! The decoder of the `parquet` crate allocates as much as a page's header requests, and panics on some damaged pages.
//! Three measures turn every damage into an error:
//!
//! 1. All page headers are read first (`pages`). A header that this program does not write, or that contradicts the
//!    footer, is an error before anything is allocated for it.
//! 2. Fewer rows are decoded at a time if a dictionary has large values: each row may repeat the largest one.
//! 3. A panic of the decoder is caught.

use arrow_array::RecordBatch;
use common::guard;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::reader::ChunkReader;

use crate::footer::Footer;
use crate::pages;

/// Rows decoded at a time, unless a dictionary has large values.
const MOST_ROWS: usize = 8_192;
/// The memory that values of a dictionary may take once they are repeated for each row.
pub const REPEATED_BYTES: usize = 256 * 1024 * 1024;

/// A file, or parts of one, whose page headers are sound.
pub struct Decoder<R> {
    file: R,
    metadata: ArrowReaderMetadata,
    groups: Vec<usize>,
    mask: ProjectionMask,
    rows_at_once: usize,
}

/// The metadata by which rows are decoded.
///
/// # Errors
/// The schema is not one that Arrow can represent.
pub fn metadata_of(footer: &Footer) -> Result<ArrowReaderMetadata, ParquetError> {
    metadata_with(footer, ArrowReaderOptions::new())
}

/// The same, without the types of Arrow that a writer may have noted in the file.
///
/// # Errors
/// As [`metadata_of`].
pub fn plain_metadata_of(footer: &Footer) -> Result<ArrowReaderMetadata, ParquetError> {
    metadata_with(footer, ArrowReaderOptions::new().with_skip_arrow_metadata(true))
}

fn metadata_with(footer: &Footer, options: ArrowReaderOptions) -> Result<ArrowReaderMetadata, ParquetError> {
    let metadata = footer.metadata().clone();
    guard::catch(|| ArrowReaderMetadata::try_new(metadata, options)).unwrap_or_else(|panic| damaged(&panic))
}

impl<R: ChunkReader + 'static> Decoder<R> {
    /// A decoder of all columns of all row groups.
    ///
    /// # Errors
    /// The footer or a page header is damaged.
    pub fn of_file(file: R) -> Result<Self, ParquetError> {
        let metadata = metadata_of(&Footer::of_file(&file)?)?;
        let groups = (0..metadata.metadata().num_row_groups()).collect();
        Self::new(file, metadata, groups, ProjectionMask::all())
    }

    /// A decoder of the columns in `mask` of some row groups. `file` need not have any others.
    ///
    /// # Errors
    /// A page header is damaged.
    pub fn new(
        file: R,
        metadata: ArrowReaderMetadata,
        groups: Vec<usize>,
        mask: ProjectionMask,
    ) -> Result<Self, ParquetError> {
        let mut largest_dictionary = 0;
        for group in groups.iter().filter_map(|group| metadata.metadata().row_groups().get(*group)) {
            let columns = group.columns().iter().enumerate();
            for (_, column) in columns.filter(|(index, _)| mask.leaf_included(*index)) {
                let dictionary_bytes = pages::check(&file, column, group.num_rows())?;
                largest_dictionary = largest_dictionary.max(dictionary_bytes);
            }
        }
        let rows_at_once = (REPEATED_BYTES / largest_dictionary.max(1)).clamp(1, MOST_ROWS);
        Ok(Self { file, metadata, groups, mask, rows_at_once })
    }

    /// The most rows that may be decoded at a time.
    pub fn rows_at_once(&self) -> usize {
        self.rows_at_once
    }

    /// Decodes so many rows at a time.
    ///
    /// # Errors
    /// The first pages are damaged.
    pub fn rows(self, at_once: usize) -> Result<Rows, ParquetError> {
        let Self { file, metadata, groups, mask, .. } = self;
        let build = || {
            ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
                .with_projection(mask)
                .with_row_groups(groups)
                .with_batch_size(at_once)
                .build()
        };
        Ok(Rows(Some(guard::catch(build).unwrap_or_else(|panic| damaged(&panic))?)))
    }
}

/// The rows in batches; ends with the first error.
pub struct Rows(Option<ParquetRecordBatchReader>);

impl Iterator for Rows {
    type Item = Result<RecordBatch, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut reader = self.0.take()?;
        let next = guard::catch(move || {
            let next = reader.next();
            (reader, next)
        });
        match next {
            Ok((reader, Some(Ok(batch)))) => {
                self.0 = Some(reader);
                Some(Ok(batch))
            }
            Ok((_, Some(Err(error)))) => Some(Err(error.into())),
            Ok((_, None)) => None,
            Err(panic) => Some(damaged(&panic)),
        }
    }
}

fn damaged<T>(panic: &str) -> Result<T, ParquetError> {
    Err(ParquetError::General(format!("a page is damaged: {panic}")))
}
