//! Reads the offsets and keys of the rows in a batch's files.

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch, TimestampMicrosecondArray};

use crate::route::fingerprint;

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
}

fn log_times(batch: &RecordBatch) -> Result<&TimestampMicrosecondArray, String> {
    let times = batch.column_by_name("_ingested_at").ok_or("it has no column _ingested_at")?;
    Ok(times.as_primitive_opt::<TimestampMicrosecondType>().ok_or("_ingested_at has another type")?)
}
