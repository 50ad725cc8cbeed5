//! The columns of the two tables and the rows being gathered for a file.
//!
//! Types are those every engine reads (Athena, Spark, Trino, DuckDB, pyarrow): strings, 32- and 64-bit integers, and
//! timestamps in microseconds, UTC. Partition columns are not repeated in the file.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, Int32Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};
use common::event::Event;

use super::promoted::{Promoted, PromotedRows};

/// Rows are handed to the encoder in batches of exactly this many, counted from the start of a file, so that its
/// decisions about pages and dictionaries never depend on how the log delivered them.
pub(super) const ROWS_PER_BATCH: usize = 8_192;

/// Where a row comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lineage<'a> {
    pub partition: i32,
    pub offset: i64,
    pub log_time_ms: i64,
    pub source: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Table {
    Events,
    Rejected,
}

pub(super) fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

impl Table {
    pub(super) fn schema(self, promoted: &Promoted) -> SchemaRef {
        let mut own = match self {
            Self::Events => vec![
                Field::new("event_id", DataType::Utf8, false),
                Field::new("timestamp", timestamp(), false),
                Field::new("domain", DataType::Utf8, false),
                Field::new("event_type", DataType::Utf8, false),
                Field::new("data", DataType::Utf8, false),
            ],
            Self::Rejected => vec![
                Field::new("reason", DataType::Utf8, false),
                Field::new("detail", DataType::Utf8, false),
                Field::new("event_id", DataType::Utf8, true),
                Field::new("raw", DataType::Binary, true),
            ],
        };
        if self == Self::Events {
            own.extend(promoted.fields());
        }
        let lineage = [
            Field::new("_ingested_at", timestamp(), false),
            Field::new("_partition", DataType::Int32, false),
            Field::new("_offset", DataType::Int64, false),
            Field::new("_source", DataType::Utf8, false),
        ];
        Arc::new(Schema::new(own.into_iter().chain(lineage).collect::<Vec<_>>()))
    }
}

/// Rows not handed to the encoder yet: fewer than [`ROWS_PER_BATCH`].
pub(super) struct Rows {
    own: Own,
    ingested_at: TimestampMicrosecondBuilder,
    partition: Int32Builder,
    offset: Int64Builder,
    source: StringBuilder,
    rows: usize,
    bytes: usize,
}

enum Own {
    Events {
        event_id: StringBuilder,
        timestamp: TimestampMicrosecondBuilder,
        domain: StringBuilder,
        event_type: StringBuilder,
        data: StringBuilder,
        promoted: PromotedRows,
    },
    Rejected {
        reason: StringBuilder,
        detail: StringBuilder,
        event_id: StringBuilder,
        raw: BinaryBuilder,
    },
}

impl Rows {
    /// For rows of one type, if they are events.
    pub(super) fn new(table: Table, promoted: &Arc<Promoted>, domain_event_type: &str) -> Self {
        let text = StringBuilder::new;
        let own = match table {
            Table::Events => Own::Events {
                event_id: text(),
                timestamp: utc_builder(),
                domain: text(),
                event_type: text(),
                data: text(),
                promoted: promoted.builders(domain_event_type),
            },
            Table::Rejected => {
                Own::Rejected { reason: text(), detail: text(), event_id: text(), raw: BinaryBuilder::new() }
            }
        };
        Self {
            own,
            ingested_at: utc_builder(),
            partition: Int32Builder::new(),
            offset: Int64Builder::new(),
            source: text(),
            rows: 0,
            bytes: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rows
    }

    /// Bytes of the values held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push_event(&mut self, event: &Event<'_>, lineage: &Lineage<'_>) {
        if let Own::Events { event_id, timestamp, domain, event_type, data, promoted } = &mut self.own {
            event_id.append_value(&event.event_id);
            timestamp.append_value(event.timestamp_us);
            domain.append_value(&event.domain);
            event_type.append_value(&event.event_type);
            data.append_value(event.data);
            self.bytes += promoted.push(event.data);
            self.bytes += event.event_id.len() + event.domain.len() + event.event_type.len() + event.data.len() + 24;
            self.push_lineage(lineage);
        }
    }

    pub(super) fn push_rejected(
        &mut self,
        why: (&str, &str),
        id: Option<&str>,
        value: Option<&[u8]>,
        lineage: &Lineage<'_>,
    ) {
        if let Own::Rejected { reason, detail, event_id, raw } = &mut self.own {
            reason.append_value(why.0);
            detail.append_value(why.1);
            event_id.append_option(id);
            raw.append_option(value);
            self.bytes += why.0.len() + why.1.len() + id.map_or(0, str::len) + value.map_or(0, <[u8]>::len) + 16;
            self.push_lineage(lineage);
        }
    }

    fn push_lineage(&mut self, lineage: &Lineage<'_>) {
        self.ingested_at.append_value(lineage.log_time_ms.saturating_mul(1_000));
        self.partition.append_value(lineage.partition);
        self.offset.append_value(lineage.offset);
        self.source.append_value(lineage.source);
        self.bytes += lineage.source.len() + 24;
        self.rows += 1;
    }

    /// By promoted column: values that did not fit it, so far.
    pub(super) fn unfit(&self) -> &[u64] {
        match &self.own {
            Own::Events { promoted, .. } => promoted.unfit(),
            Own::Rejected { .. } => &[],
        }
    }

    /// Hands the rows over and starts afresh.
    pub(super) fn take(&mut self, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
        let mut columns: Vec<ArrayRef> = match &mut self.own {
            Own::Events { event_id, timestamp, domain, event_type, data, promoted } => {
                let mut own: Vec<ArrayRef> = vec![
                    Arc::new(event_id.finish()),
                    Arc::new(timestamp.finish()),
                    Arc::new(domain.finish()),
                    Arc::new(event_type.finish()),
                    Arc::new(data.finish()),
                ];
                own.extend(promoted.finish());
                own
            }
            Own::Rejected { reason, detail, event_id, raw } => vec![
                Arc::new(reason.finish()),
                Arc::new(detail.finish()),
                Arc::new(event_id.finish()),
                Arc::new(raw.finish()),
            ],
        };
        columns.push(Arc::new(self.ingested_at.finish()));
        columns.push(Arc::new(self.partition.finish()));
        columns.push(Arc::new(self.offset.finish()));
        columns.push(Arc::new(self.source.finish()));
        self.rows = 0;
        self.bytes = 0;
        RecordBatch::try_new(schema.clone(), columns)
    }
}

pub(super) fn utc_builder() -> TimestampMicrosecondBuilder {
    TimestampMicrosecondBuilder::new().with_data_type(timestamp())
}
