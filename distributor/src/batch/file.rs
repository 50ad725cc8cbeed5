//! One Parquet file of a batch, encoded while its rows arrive.

use std::ops::Range;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use commitlog::{Bounds, Stored};
use common::config::Compression;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression as Codec, Encoding as ParquetEncoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, RowGroupMetaData};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};

use super::BatchError;
use super::promoted::Promoted;
use super::rows::{ROWS_PER_BATCH, Rows, events_schema, rejected_schema};
use super::spool::{Body, Spool};
use crate::scratch::{ScratchError, ScratchFile};

/// Row groups end by rows only: sizes would depend on how the log delivered the rows.
const ROWS_PER_ROW_GROUP: usize = 16 * ROWS_PER_BATCH;
/// Memory of an open file besides its rows, its encoder and its names: the structure, and its entry among the batch's
/// files.
const FIXED_MEMORY_BYTES: usize = size_of::<OpenFile>() + 64;

/// Memory of an encoder, whatever its columns: its buffer, schema and properties.
const WRITER_BYTES: usize = 12 * 1024;
/// Memory of a column of a finished row group: its part of the footer.
const CHUNK_BYTES: usize = 1024;

/// Settings that affect bytes but not rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Encoding {
    #[serde(with = "CompressionName")]
    pub compression: Compression,
    /// Bloom filter on event_id.
    pub bloom_filter: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Compression", rename_all = "lowercase")]
enum CompressionName {
    Zstd,
    Snappy,
}

/// The encoding of a table's files.
pub(super) struct Table {
    pub schema: SchemaRef,
    options: ArrowWriterOptions,
}

fn column(name: &str) -> ColumnPath {
    ColumnPath::from(name)
}

fn properties(encoding: Encoding) -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_compression(match encoding.compression {
            Compression::Zstd => Codec::ZSTD(ZstdLevel::default()),
            Compression::Snappy => Codec::SNAPPY,
        })
        .set_max_row_group_row_count(Some(ROWS_PER_ROW_GROUP))
        .set_created_by(format!("event-distributor {}", env!("CARGO_PKG_VERSION")))
        .set_column_dictionary_enabled(column("_offset"), false)
        .set_column_encoding(column("_offset"), ParquetEncoding::DELTA_BINARY_PACKED)
        .set_column_dictionary_enabled(column("event_id"), false)
}

impl Table {
    fn new(schema: SchemaRef, properties: WriterPropertiesBuilder) -> Arc<Self> {
        // Engines do not need the Arrow schema, and it is larger than the data of many small files.
        let options = ArrowWriterOptions::new().with_properties(properties.build()).with_skip_arrow_metadata(true);
        Arc::new(Self { schema, options })
    }

    /// An encoder of a file.
    pub(super) fn encoder(&self) -> Result<ArrowWriter<Spool>, ParquetError> {
        ArrowWriter::try_new_with_options(Spool::default(), self.schema.clone(), self.options.clone())
    }

    /// Approximate memory of an encoder, with its encoded data. It counts buffers by their capacity and omits the state
    /// of the codecs, which balances: for 39 encoders with 25,000 rows each the result is 126 MiB, and they take 130.
    fn encoder_bytes(&self, writer: &ArrowWriter<Spool>) -> usize {
        let columns = self.schema.fields().len();
        let chunks = writer.flushed_row_groups().len() * columns;
        WRITER_BYTES + chunks * CHUNK_BYTES + writer.memory_size() + writer.inner().memory_bytes()
    }

    pub(super) fn events(encoding: Encoding, promoted: &Promoted) -> Arc<Self> {
        // Ids, times and free-form text rarely repeat: a dictionary would be built only to be discarded. Statistics of
        // free-form text help no query.
        let properties = properties(encoding)
            .set_column_dictionary_enabled(column("timestamp"), false)
            .set_column_dictionary_enabled(column("data"), false)
            .set_column_statistics_enabled(column("data"), EnabledStatistics::None)
            .set_column_bloom_filter_enabled(column("event_id"), encoding.bloom_filter);
        Self::new(events_schema(promoted), properties)
    }

    pub(super) fn rejected(encoding: Encoding) -> Arc<Self> {
        let properties = properties(encoding)
            .set_column_dictionary_enabled(column("raw"), false)
            .set_column_statistics_enabled(column("raw"), EnabledStatistics::None);
        Self::new(rejected_schema(), properties)
    }
}

pub(super) struct OpenFile {
    pub folder: String,
    pub sequence: u32,
    table: Arc<Table>,
    rows: Rows,
    /// Created when there is something to encode: most files of a batch with many types are small.
    writer: Option<Box<ArrowWriter<Spool>>>,
    total_rows: u64,
    /// From the offset of the first row to after that of the last one.
    offsets: Range<i64>,
    /// Bytes of the rows passed to the encoder, before encoding.
    raw_bytes: usize,
    /// Bytes of the rows in finished row groups, before and after encoding.
    finished: [usize; 2],
    /// As of the last rows passed to the encoder.
    encoder_memory_bytes: usize,
}

/// A finished file, ready to be put.
#[derive(Debug, Clone)]
pub(crate) struct FinishedFile {
    pub folder: String,
    pub sequence: u32,
    pub rows: u64,
    /// From the offset of the first row to after that of the last one.
    pub offsets: Range<i64>,
    /// The least and the greatest timestamp; none in a file of rejected rows.
    pub times_us: Option<(i64, i64)>,
    pub body: Body,
}

/// The least and the greatest value of the column `timestamp` in row groups that have their statistics.
pub(super) fn times_us(groups: &[RowGroupMetaData]) -> Option<(i64, i64)> {
    let of_group = |group: &RowGroupMetaData| {
        let column = group.columns().iter().find(|column| column.column_path().string() == "timestamp")?;
        match column.statistics()? {
            Statistics::Int64(times) => Some((*times.min_opt()?, *times.max_opt()?)),
            _ => None,
        }
    };
    let all = groups.iter().map(of_group).collect::<Option<Vec<(i64, i64)>>>()?;
    all.into_iter().reduce(|(least, greatest), (min, max)| (least.min(min), greatest.max(max)))
}

impl OpenFile {
    pub(super) fn new(table: &Arc<Table>, folder: String, sequence: u32, rows: Rows) -> Self {
        Self {
            folder,
            sequence,
            table: table.clone(),
            rows,
            writer: None,
            total_rows: 0,
            offsets: 0..0,
            raw_bytes: 0,
            finished: [0; 2],
            encoder_memory_bytes: 0,
        }
    }

    /// Adds the row of the record at `offset` by `push`. Rows are encoded as soon as a batch of them is complete, or all at the end.
    pub(super) fn push(
        &mut self,
        is_deferred: bool,
        offset: i64,
        push: impl FnOnce(&mut Rows) -> Result<(), BatchError>,
    ) -> Result<(), BatchError> {
        push(&mut self.rows)?;
        let first = if self.total_rows == 0 { offset } else { self.offsets.start };
        self.offsets = first..offset + 1;
        self.total_rows += 1;
        if self.rows.len() >= ROWS_PER_BATCH && !is_deferred { self.encode(None) } else { Ok(()) }
    }

    /// By promoted column: values that did not fit it, among the encoded rows.
    pub(super) fn unfit(&self) -> &[u64] {
        self.rows.unfit()
    }

    pub(super) fn total_rows(&self) -> u64 {
        self.total_rows
    }

    /// Encodes the waiting rows. Finished row groups go to `disk` if it is given.
    fn encode(&mut self, disk: Option<&Arc<ScratchFile>>) -> Result<(), BatchError> {
        let Self { table, rows, writer, .. } = self;
        self.raw_bytes += rows.bytes();
        let writer = match writer {
            Some(writer) => writer,
            None => writer.insert(Box::new(table.encoder()?)),
        };
        rows.hand_over(&table.schema, |batch| {
            writer.write(batch)?;
            match disk {
                // Nothing is written past the encoder.
                Some(disk) if writer.in_progress_rows() == 0 => Ok(writer.inner_mut().spill(disk)?),
                _ => Ok(()),
            }
        })?;
        // Row groups end at the end of a batch of rows. Unfinished ones say little, because they are not compressed
        // yet.
        if writer.in_progress_rows() == 0 {
            self.finished = [self.raw_bytes, writer.bytes_written()];
        }
        self.encoder_memory_bytes = table.encoder_bytes(writer);
        Ok(())
    }

    /// Memory of rows not yet encoded, the encoder's buffers and the encoded file, except for the parts on disk.
    pub(super) fn memory_bytes(&self) -> usize {
        // The key that identifies its folder is about as long.
        FIXED_MEMORY_BYTES + 2 * self.folder.capacity() + self.rows.memory_bytes() + self.encoder_memory_bytes
    }

    /// The part of it that [`OpenFile::spill`] frees.
    pub(super) fn spillable_bytes(&self) -> usize {
        self.rows.spillable_bytes() + self.writer.as_ref().map_or(0, |writer| writer.inner().memory_bytes())
    }

    /// Bytes of rows in no finished row group yet, and those of rows in finished ones, before and after encoding.
    pub(super) fn progress(&self) -> [usize; 3] {
        let [raw, encoded] = self.finished;
        [self.rows.bytes() + self.raw_bytes - raw, raw, encoded]
    }

    /// Moves waiting rows and finished row groups to disk.
    ///
    /// # Errors
    /// The disk's error; nothing is lost.
    pub(super) fn spill(&mut self, file: &Arc<ScratchFile>) -> Result<(), ScratchError> {
        self.rows.spill(file)?;
        if let Some(writer) = &mut self.writer {
            // Everything written has been flushed; nothing is written past the encoder.
            writer.inner_mut().spill(file)?;
            self.encoder_memory_bytes = self.table.encoder_bytes(writer);
        }
        Ok(())
    }

    /// Encodes the remaining rows and ends the row group; no more rows may follow. Row groups go to `disk` if it is
    /// given.
    pub(super) fn seal(&mut self, disk: Option<&Arc<ScratchFile>>) -> Result<(), BatchError> {
        if self.rows.len() > 0 || self.writer.is_none() {
            self.encode(disk)?;
        }
        if let Some(writer) = &mut self.writer {
            writer.flush()?;
            self.encoder_memory_bytes = self.table.encoder_bytes(writer);
        }
        Ok(())
    }

    /// Ends a sealed file and writes `facts` into its footer.
    pub(super) fn finish(self, facts: &[(&str, String)]) -> Result<FinishedFile, BatchError> {
        let none = || ParquetError::General("a file without an encoder".to_owned());
        let mut writer = self.writer.ok_or_else(none)?;
        for (key, value) in facts {
            writer.append_key_value_metadata(KeyValue::new((*key).to_owned(), value.clone()));
        }
        let times_us = times_us(writer.flushed_row_groups());
        let body = writer.into_inner()?.finish();
        Ok(FinishedFile {
            folder: self.folder,
            sequence: self.sequence,
            rows: self.total_rows,
            offsets: self.offsets,
            times_us,
            body,
        })
    }
}

impl FinishedFile {
    /// As the commit log names it.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn stored(&self) -> Result<Stored, ScratchError> {
        let offsets = (self.offsets.start, self.offsets.end.saturating_sub(1));
        let bounds = Some(Bounds { offsets, times_us: self.times_us });
        Ok(Stored { rows: self.rows, bytes: self.body.len() as u64, sha256: self.body.hash()?, bounds })
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.folder.capacity() + self.body.memory_bytes()
    }

    /// Moves its bytes to disk.
    ///
    /// # Errors
    /// The disk's error; nothing is lost.
    pub(super) fn spill(&mut self, disk: &Arc<ScratchFile>) -> Result<(), ScratchError> {
        self.body.spill(disk)
    }
}
