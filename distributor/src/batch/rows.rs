//! The columns of the two tables, and the conversion of rows to columns.
//!
//! Types are those every engine reads (Athena, Spark, Trino, DuckDB, pyarrow): strings, 32- and 64-bit integers, and
//! timestamps in microseconds, UTC. Partition columns are not repeated in the file.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder};
use arrow_array::{ArrayRef, Int32Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use common::event::Event;
use parquet::errors::ParquetError;

use super::BatchError;
use super::promoted::{Promoted, PromotedColumns, PromotedRows};
use super::raw::{RawRow, RawRows};
use crate::scratch::{ScratchError, ScratchFile};

/// Rows are passed to the encoder in batches of exactly this many, counted from the start of a file, so that its
/// decisions about pages and dictionaries never depend on how the log delivered them.
pub(super) const ROWS_PER_BATCH: usize = 8_192;

/// The origin of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lineage<'a> {
    pub offset: i64,
    pub log_time_ms: i64,
    pub source: &'a str,
}

/// The common properties of a file's rows.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Events { domain: String, event_type: String },
    Rejected,
}

pub(super) fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

pub(super) fn utc_builder() -> TimestampMicrosecondBuilder {
    TimestampMicrosecondBuilder::new().with_data_type(timestamp())
}

fn schema(own: Vec<Field>) -> SchemaRef {
    let lineage = [
        Field::new("_ingested_at", timestamp(), false),
        Field::new("_partition", DataType::Int32, false),
        Field::new("_offset", DataType::Int64, false),
        Field::new("_source", DataType::Utf8, false),
    ];
    Arc::new(Schema::new(own.into_iter().chain(lineage).collect::<Vec<_>>()))
}

pub(super) fn events_schema(promoted: &Promoted) -> SchemaRef {
    let mut own = vec![
        Field::new("event_id", DataType::Utf8, false),
        Field::new("timestamp", timestamp(), false),
        Field::new("domain", DataType::Utf8, false),
        Field::new("event_type", DataType::Utf8, false),
        Field::new("data", DataType::Utf8, false),
    ];
    own.extend(promoted.fields());
    schema(own)
}

pub(crate) fn rejected_schema() -> SchemaRef {
    schema(vec![
        Field::new("reason", DataType::Utf8, false),
        Field::new("detail", DataType::Utf8, false),
        Field::new("event_id", DataType::Utf8, true),
        Field::new("raw", DataType::Binary, true),
    ])
}

/// Rows not passed to the encoder yet.
pub(super) struct Rows {
    kind: Kind,
    partition: i32,
    raw: RawRows,
    promoted: PromotedRows,
}

impl Rows {
    /// `promoted` are those of the rows' type.
    pub(super) fn new(kind: Kind, partition: i32, promoted: PromotedRows) -> Self {
        Self { kind, partition, raw: RawRows::default(), promoted }
    }

    pub(super) fn len(&self) -> usize {
        self.raw.len()
    }

    /// Bytes of the values, in memory and on disk.
    pub(super) fn bytes(&self) -> usize {
        self.raw.bytes()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let names = match &self.kind {
            Kind::Events { domain, event_type } => domain.capacity() + event_type.capacity(),
            Kind::Rejected => 0,
        };
        names + self.raw.memory_bytes() + self.promoted.memory_bytes()
    }

    /// The part of it that [`Rows::spill`] frees.
    pub(super) fn spillable_bytes(&self) -> usize {
        self.raw.spillable_bytes()
    }

    /// By promoted column: values that did not fit it, among the rows passed on.
    pub(super) fn unfit(&self) -> &[u64] {
        self.promoted.unfit()
    }

    pub(super) fn spill(&mut self, file: &Arc<ScratchFile>) -> Result<(), ScratchError> {
        self.raw.spill(file)
    }

    pub(super) fn push_event(&mut self, event: &Event<'_>, lineage: &Lineage<'_>) -> Result<(), BatchError> {
        let timestamp = event.timestamp_us.to_le_bytes();
        let cells = [Some(timestamp.as_slice()), Some(event.event_id.as_bytes()), Some(event.data.as_bytes()), None];
        self.raw.push(lineage, cells)
    }

    pub(super) fn push_rejected(
        &mut self,
        why: (&str, &str),
        id: Option<&str>,
        value: Option<&[u8]>,
        lineage: &Lineage<'_>,
    ) -> Result<(), BatchError> {
        self.raw.push(lineage, [Some(why.0.as_bytes()), Some(why.1.as_bytes()), id.map(str::as_bytes), value])
    }

    /// Passes all rows to `write`, in batches that end at the table's batch boundaries.
    ///
    /// # Errors
    /// The disk's error, and those of `write`.
    pub(super) fn hand_over(
        &mut self,
        schema: &SchemaRef,
        mut write: impl FnMut(&RecordBatch) -> Result<(), BatchError>,
    ) -> Result<(), BatchError> {
        let Self { kind, partition, raw, promoted } = self;
        let mut rows = 0;
        let mut lineage = LineageColumns::default();
        let mut end = |own: Vec<ArrayRef>, lineage: &mut LineageColumns| {
            let columns = own.into_iter().chain(lineage.finish(*partition)).collect();
            write(&RecordBatch::try_new(schema.clone(), columns).map_err(ParquetError::from)?)
        };
        match kind {
            Kind::Events { domain, event_type } => {
                let mut columns = EventColumns::new(raw.len(), raw.bytes(), promoted);
                raw.drain(|row| {
                    columns.push(row, domain, event_type, promoted)?;
                    lineage.push(row);
                    rows += 1;
                    if rows == ROWS_PER_BATCH {
                        rows = 0;
                        return end(columns.finish(), &mut lineage);
                    }
                    Ok(())
                })?;
                if rows > 0 { end(columns.finish(), &mut lineage) } else { Ok(()) }
            }
            Kind::Rejected => {
                let mut columns = RejectedColumns::default();
                raw.drain(|row| {
                    columns.push(row)?;
                    lineage.push(row);
                    rows += 1;
                    if rows == ROWS_PER_BATCH {
                        rows = 0;
                        return end(columns.finish(), &mut lineage);
                    }
                    Ok(())
                })?;
                if rows > 0 { end(columns.finish(), &mut lineage) } else { Ok(()) }
            }
        }
    }
}

fn text(cell: Option<&[u8]>) -> Result<&str, BatchError> {
    cell.and_then(|bytes| str::from_utf8(bytes).ok())
        .ok_or_else(|| ParquetError::General("a row's text was altered on disk".to_owned()).into())
}

struct EventColumns {
    event_id: StringBuilder,
    timestamp: TimestampMicrosecondBuilder,
    domain: StringBuilder,
    event_type: StringBuilder,
    data: StringBuilder,
    promoted: PromotedColumns,
}

impl EventColumns {
    /// For `all` rows of `bytes` in total, one batch of which is held at a time.
    fn new(all: usize, bytes: usize, promoted: &PromotedRows) -> Self {
        let rows = all.min(ROWS_PER_BATCH);
        let bytes = if all > rows { bytes / all * rows } else { bytes };
        Self {
            event_id: StringBuilder::with_capacity(rows, rows * 36),
            timestamp: TimestampMicrosecondBuilder::with_capacity(rows).with_data_type(timestamp()),
            domain: StringBuilder::with_capacity(rows, rows * 8),
            event_type: StringBuilder::with_capacity(rows, rows * 8),
            data: StringBuilder::with_capacity(rows, bytes),
            promoted: promoted.columns(rows),
        }
    }

    fn push(
        &mut self,
        row: &RawRow<'_>,
        domain: &str,
        event_type: &str,
        promoted: &mut PromotedRows,
    ) -> Result<(), BatchError> {
        let [timestamp, event_id, data, _] = row.cells;
        let timestamp = timestamp.and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
        let timestamp = timestamp.ok_or_else(|| ParquetError::General("a row was altered on disk".to_owned()))?;
        let data = text(data)?;
        self.event_id.append_value(text(event_id)?);
        self.timestamp.append_value(i64::from_le_bytes(timestamp));
        self.domain.append_value(domain);
        self.event_type.append_value(event_type);
        self.data.append_value(data);
        promoted.push(&mut self.promoted, data);
        Ok(())
    }

    fn finish(&mut self) -> Vec<ArrayRef> {
        let mut own: Vec<ArrayRef> = vec![
            Arc::new(self.event_id.finish()),
            Arc::new(self.timestamp.finish()),
            Arc::new(self.domain.finish()),
            Arc::new(self.event_type.finish()),
            Arc::new(self.data.finish()),
        ];
        own.extend(self.promoted.finish());
        own
    }
}

#[derive(Default)]
struct RejectedColumns {
    reason: StringBuilder,
    detail: StringBuilder,
    event_id: StringBuilder,
    raw: BinaryBuilder,
}

impl RejectedColumns {
    fn push(&mut self, row: &RawRow<'_>) -> Result<(), BatchError> {
        let [reason, detail, event_id, raw] = row.cells;
        self.reason.append_value(text(reason)?);
        self.detail.append_value(text(detail)?);
        self.event_id.append_option(event_id.map(|id| text(Some(id))).transpose()?);
        self.raw.append_option(raw);
        Ok(())
    }

    fn finish(&mut self) -> Vec<ArrayRef> {
        vec![
            Arc::new(self.reason.finish()),
            Arc::new(self.detail.finish()),
            Arc::new(self.event_id.finish()),
            Arc::new(self.raw.finish()),
        ]
    }
}

struct LineageColumns {
    ingested_at: TimestampMicrosecondBuilder,
    offset: Int64Builder,
    source: StringBuilder,
}

impl Default for LineageColumns {
    fn default() -> Self {
        Self { ingested_at: utc_builder(), offset: Int64Builder::new(), source: StringBuilder::new() }
    }
}

impl LineageColumns {
    fn push(&mut self, row: &RawRow<'_>) {
        self.ingested_at.append_value(row.log_time_ms.saturating_mul(1_000));
        self.offset.append_value(row.offset);
        self.source.append_value(row.source);
    }

    fn finish(&mut self, partition: i32) -> [ArrayRef; 4] {
        let offset = self.offset.finish();
        let partition = Int32Array::from(vec![partition; arrow_array::Array::len(&offset)]);
        [Arc::new(self.ingested_at.finish()), Arc::new(partition), Arc::new(offset), Arc::new(self.source.finish())]
    }
}
