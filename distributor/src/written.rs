//! Reads the offsets and keys of the rows in a batch's files.

use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch, TimestampMicrosecondArray};
use bytes::Bytes;
use common::event::EventFormat;
use common::store::Store;
use parquet::arrow::ProjectionMask;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use crate::decode::{Decoder, metadata_of};
use crate::footer::{Footer, FooterError, read_range};
use crate::route::{fingerprint, read_event};

/// Columns with the origin and the key of a row.
const COLUMNS: [&str; 5] = ["event_id", "timestamp", "raw", "_ingested_at", "_offset"];

/// The key of a row of `events`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub offset: i64,
    pub fingerprint: u128,
    /// Log time, milliseconds.
    pub time_ms: i64,
}

/// In the order of the rows.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// The offsets of all rows.
    pub offsets: Vec<i64>,
    /// The keys of rows that are events.
    pub keys: Vec<Key>,
}

impl Written {
    /// # Errors
    /// A column is missing or has another type.
    pub(crate) fn add(&mut self, batch: &RecordBatch) -> Result<(), String> {
        let column = |name: &str| batch.column_by_name(name).ok_or_else(|| format!("it has no column {name}"));
        let offset = column("_offset")?.as_primitive_opt::<Int64Type>().ok_or("_offset has another type")?;
        self.offsets.extend(offset.values());
        let Some(timestamp) = batch.column_by_name("timestamp") else { return Ok(()) };
        let timestamp = timestamp.as_primitive_opt::<TimestampMicrosecondType>().ok_or("timestamp has another type")?;
        let ids = column("event_id")?.as_string_opt::<i32>().ok_or("event_id has another type")?;
        let times = log_times(batch)?;
        self.keys.extend((0..batch.num_rows()).filter(|row| ids.is_valid(*row)).map(|row| Key {
            offset: offset.value(row),
            fingerprint: fingerprint(ids.value(row), timestamp.value(row)),
            time_ms: times.value(row) / 1_000,
        }));
        Ok(())
    }

    /// Adds the keys of rejected rows that are events, as `reader` reads them.
    fn add_rejected(&mut self, batch: &RecordBatch, reader: &EventFormat) -> Result<(), String> {
        let (Some(raw), Some(offset)) = (batch.column_by_name("raw"), batch.column_by_name("_offset")) else {
            return Ok(());
        };
        let raw = raw.as_binary_opt::<i32>().ok_or("raw has another type")?;
        let offset = offset.as_primitive_opt::<Int64Type>().ok_or("_offset has another type")?;
        let times = log_times(batch)?;
        for row in (0..batch.num_rows()).filter(|row| raw.is_valid(*row)) {
            if let Ok(event) = read_event(Some(raw.value(row)), reader) {
                let fingerprint = fingerprint(&event.event_id, event.timestamp_us);
                self.keys.push(Key { offset: offset.value(row), fingerprint, time_ms: times.value(row) / 1_000 });
            }
        }
        Ok(())
    }

    /// Adds the rows of a file in the store, and their keys, including those of rejected events as `reader` reads them.
    /// Reads only the necessary columns, one row group at a time.
    ///
    /// # Errors
    /// The store's error, or the file does not exist or differs from its footer.
    pub(crate) async fn read(
        &mut self,
        store: &dyn Store,
        path: &str,
        footer: &Footer,
        reader: &EventFormat,
    ) -> Result<(), FooterError> {
        let unreadable = |error: ParquetError| FooterError::Unreadable(error.to_string());
        let metadata = footer.metadata();
        let arrow = metadata_of(footer).map_err(unreadable)?;
        let mask = ProjectionMask::columns(arrow.parquet_schema(), COLUMNS);
        for (number, group) in metadata.row_groups().iter().enumerate() {
            let mut pieces = Pieces::default();
            for column in
                group.columns().iter().filter(|column| COLUMNS.contains(&column.column_path().string().as_str()))
            {
                let (start, length) = column.byte_range();
                let end = start.saturating_add(length);
                pieces.0.push((start..end, read_range(store, path, start..end).await?));
            }
            let decoder = Decoder::new(pieces, arrow.clone(), vec![number], mask.clone()).map_err(unreadable)?;
            let at_once = decoder.rows_at_once();
            for batch in decoder.rows(at_once).map_err(unreadable)? {
                let batch = batch.map_err(|error| FooterError::Unreadable(error.to_string()))?;
                self.add(&batch).map_err(FooterError::Unreadable)?;
                self.add_rejected(&batch, reader).map_err(FooterError::Unreadable)?;
            }
        }
        Ok(())
    }
}

fn log_times(batch: &RecordBatch) -> Result<&TimestampMicrosecondArray, String> {
    let times = batch.column_by_name("_ingested_at").ok_or("it has no column _ingested_at")?;
    Ok(times.as_primitive_opt::<TimestampMicrosecondType>().ok_or("_ingested_at has another type")?)
}

/// The parts of a file that were read.
#[derive(Default)]
struct Pieces(Vec<(Range<u64>, Bytes)>);

impl Length for Pieces {
    fn len(&self) -> u64 {
        self.0.iter().map(|(range, _)| range.end).max().unwrap_or_default()
    }
}

impl ChunkReader for Pieces {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        use bytes::Buf;
        let (range, bytes) = self.piece(start)?;
        Ok(bytes.slice(index(start - range.start)?..).reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let (range, bytes) = self.piece(start)?;
        let from = index(start - range.start)?;
        let to = from.checked_add(length).filter(|to| *to <= bytes.len());
        Ok(bytes.slice(from..to.ok_or_else(|| outside(start))?))
    }
}

impl Pieces {
    fn piece(&self, at: u64) -> Result<&(Range<u64>, Bytes), ParquetError> {
        let holds =
            |(range, bytes): &&(Range<u64>, Bytes)| range.contains(&at) && at - range.start <= bytes.len() as u64;
        self.0.iter().find(holds).ok_or_else(|| outside(at))
    }
}

fn index(offset: u64) -> Result<usize, ParquetError> {
    usize::try_from(offset).map_err(|_| outside(offset))
}

fn outside(at: u64) -> ParquetError {
    ParquetError::General(format!("its footer names bytes at {at} that are not there"))
}
