//! A file made of rows of other files.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;

use super::file::{Encoding, FinishedFile, Table, times_us};
use super::promoted::Promoted;
use super::spool::Spool;
use super::{BatchError, Place};
use crate::layout::Layout;
use crate::scratch::{Scratch, ScratchFile};

/// Row groups end when their encoded rows take so much memory, or by rows as those of any file.
const ROW_GROUP_BYTES: usize = 64 * 1024 * 1024;

pub(crate) struct MergedFile {
    table: Arc<Table>,
    writer: ArrowWriter<Spool>,
    /// Finished row groups.
    disk: Arc<ScratchFile>,
    rows: u64,
    /// Offsets of the first and of the last row.
    ends: Option<(i64, i64)>,
}

impl MergedFile {
    /// A file of `events`, or of `rejected`, under a layout.
    ///
    /// # Errors
    /// A layout that this build does not support; the encoder's and the disk's.
    pub(crate) fn new(
        is_rejected: bool,
        layout: &Layout,
        encoding: Encoding,
        scratch: &Scratch,
    ) -> Result<Self, BatchError> {
        let table = if is_rejected {
            Table::rejected(encoding)
        } else {
            Table::events(encoding, &Promoted::of(layout).map_err(ParquetError::General)?)
        };
        let writer = table.encoder()?;
        Ok(Self { table, writer, disk: Arc::new(scratch.file()?), rows: 0, ends: None })
    }

    /// Adds rows. Their offsets have to follow those before them.
    ///
    /// # Errors
    /// They do not, or have other columns; the encoder's and the disk's.
    pub(crate) fn push(&mut self, rows: &RecordBatch) -> Result<(), BatchError> {
        let wrong = |message: &str| BatchError::Encode(ParquetError::General(message.to_owned()));
        let columns: Option<Vec<_>> =
            self.table.schema.fields().iter().map(|field| rows.column_by_name(field.name()).cloned()).collect();
        let columns = columns.filter(|columns| columns.len() == rows.num_columns());
        let columns = columns.ok_or_else(|| wrong("its rows have other columns than their layout"))?;
        let rows = RecordBatch::try_new(self.table.schema.clone(), columns)
            .map_err(|error| wrong(&format!("its rows have other columns than their layout: {error}")))?;
        let offsets = rows.column_by_name("_offset").and_then(|column| column.as_primitive_opt::<Int64Type>());
        let offsets =
            offsets.filter(|offsets| offsets.null_count() == 0).ok_or_else(|| wrong("its rows have no offsets"))?;
        for offset in offsets.values() {
            if self.ends.is_some_and(|(_, last)| *offset <= last) {
                return Err(wrong("its rows are not in the order of their offsets"));
            }
            self.ends = Some((self.ends.map_or(*offset, |(first, _)| first), *offset));
        }
        self.rows += rows.num_rows() as u64;
        self.writer.write(&rows)?;
        if self.writer.in_progress_size() > ROW_GROUP_BYTES {
            self.writer.flush()?;
        }
        if self.writer.in_progress_rows() == 0 {
            // Nothing is written past the encoder.
            self.writer.inner_mut().spill(&self.disk)?;
        }
        Ok(())
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Ends the file, which has at least one row.
    ///
    /// # Errors
    /// The encoder's.
    pub(crate) fn finish(mut self, place: Place<'_>, folder: &str, sequence: u32) -> Result<FinishedFile, BatchError> {
        let none = || ParquetError::General("a merged file without rows".to_owned());
        let (first, last) = self.ends.ok_or_else(none)?;
        for (key, value) in place.footer_facts(sequence)? {
            self.writer.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
        self.writer.flush()?;
        let times_us = times_us(self.writer.flushed_row_groups());
        let body = self.writer.into_inner()?.finish();
        Ok(FinishedFile {
            folder: folder.to_owned(),
            sequence,
            rows: self.rows,
            offsets: first..last.saturating_add(1),
            times_us,
            body,
        })
    }
}
