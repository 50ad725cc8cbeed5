//! One Parquet file of a batch, encoded while its rows come in.

use arrow_schema::SchemaRef;
use bytes::Bytes;
use common::config::Compression;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression as Codec, Encoding as ParquetEncoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};

use super::rows::{ROWS_PER_BATCH, Rows, Table};

/// Row groups end by rows only: sizes would depend on how rows were delivered.
const ROWS_PER_ROW_GROUP: usize = 16 * ROWS_PER_BATCH;

/// What decides bytes but not rows.
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

fn properties(table: Table, encoding: Encoding) -> WriterProperties {
    let column = |name: &str| ColumnPath::from(name);
    let mut builder = WriterProperties::builder()
        .set_compression(match encoding.compression {
            Compression::Zstd => Codec::ZSTD(ZstdLevel::default()),
            Compression::Snappy => Codec::SNAPPY,
        })
        .set_max_row_group_row_count(Some(ROWS_PER_ROW_GROUP))
        .set_created_by(format!("event-distributor {}", env!("CARGO_PKG_VERSION")))
        .set_column_dictionary_enabled(column("_offset"), false)
        .set_column_encoding(column("_offset"), ParquetEncoding::DELTA_BINARY_PACKED)
        .set_column_dictionary_enabled(column("event_id"), false);
    if table == Table::Events {
        // Ids, times and free-form text hardly repeat: a dictionary would be built only to be thrown away. Statistics
        // of free-form text help no query.
        builder = builder
            .set_column_dictionary_enabled(column("timestamp"), false)
            .set_column_dictionary_enabled(column("data"), false)
            .set_column_statistics_enabled(column("data"), EnabledStatistics::None)
            .set_column_bloom_filter_enabled(column("event_id"), encoding.bloom_filter);
    } else {
        builder = builder
            .set_column_dictionary_enabled(column("raw"), false)
            .set_column_statistics_enabled(column("raw"), EnabledStatistics::None);
    }
    builder.build()
}

pub(super) struct OpenFile {
    pub folder: String,
    pub sequence: u32,
    rows: Rows,
    schema: SchemaRef,
    writer: ArrowWriter<Vec<u8>>,
    total_rows: u64,
    /// As of the last hand-over to the encoder.
    encoded_bytes: usize,
    encoder_memory_bytes: usize,
}

/// A finished file, ready to be put.
#[derive(Debug, Clone)]
pub(crate) struct FinishedFile {
    pub folder: String,
    pub sequence: u32,
    pub rows: u64,
    pub bytes: Bytes,
}

impl OpenFile {
    pub(super) fn new(table: Table, folder: String, sequence: u32, encoding: Encoding) -> Result<Self, ParquetError> {
        let schema = table.schema();
        // Engines need nothing of the Arrow schema, and it is larger than many a small file's data.
        let options =
            ArrowWriterOptions::new().with_properties(properties(table, encoding)).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(Vec::new(), schema.clone(), options)?;
        Ok(Self {
            folder,
            sequence,
            rows: Rows::new(table),
            schema,
            writer,
            total_rows: 0,
            encoded_bytes: 0,
            encoder_memory_bytes: 0,
        })
    }

    /// Adds a row by `push`.
    pub(super) fn push(&mut self, push: impl FnOnce(&mut Rows)) -> Result<(), ParquetError> {
        push(&mut self.rows);
        self.total_rows += 1;
        if self.rows.len() == ROWS_PER_BATCH { self.encode() } else { Ok(()) }
    }

    pub(super) fn total_rows(&self) -> u64 {
        self.total_rows
    }

    fn encode(&mut self) -> Result<(), ParquetError> {
        let batch = self.rows.take(&self.schema)?;
        self.writer.write(&batch)?;
        self.encoded_bytes = self.writer.bytes_written() + self.writer.in_progress_size();
        self.encoder_memory_bytes = self.writer.bytes_written() + self.writer.memory_size();
        Ok(())
    }

    /// Bytes in memory: rows not encoded, the encoder's buffers and the encoded file so far.
    pub(super) fn memory_bytes(&self) -> usize {
        // Growing buffers are on average half as large again as what they hold.
        self.rows.bytes() * 3 / 2 + self.encoder_memory_bytes
    }

    /// About how large the file would be if it ended here: what is encoded, and what is not at the usual ratio.
    pub(super) fn estimated_bytes(&self) -> usize {
        self.encoded_bytes + self.rows.bytes() / 4
    }

    /// Encodes what is left, when no more rows will come.
    pub(super) fn seal(&mut self) -> Result<(), ParquetError> {
        if self.rows.len() > 0 { self.encode() } else { Ok(()) }
    }

    /// Ends the file; `facts` go into its footer.
    pub(super) fn finish(mut self, facts: &[(&str, String)]) -> Result<FinishedFile, ParquetError> {
        self.seal()?;
        for (key, value) in facts {
            self.writer.append_key_value_metadata(KeyValue::new((*key).to_owned(), value.clone()));
        }
        let bytes = Bytes::from(self.writer.into_inner()?);
        Ok(FinishedFile { folder: self.folder, sequence: self.sequence, rows: self.total_rows, bytes })
    }
}
