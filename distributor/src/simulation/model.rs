//! What must stand in the tables: the events as plain lists, and the rules in their simplest form.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::chance::MONTH_MS;
use super::log::{History, Record};
use crate::layout::Layout;

const DAY_MS: i64 = 86_400_000;

/// An event as the simulation makes it, or something that is none.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Event {
    pub event_id: String,
    pub timestamp: String,
    pub domain: String,
    pub event_type: String,
    pub data: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    pub offset: i64,
    pub log_time_ms: i64,
    /// The data of an event, or why it was rejected.
    pub content: String,
}

/// Rows by file.
pub(super) type Tables = BTreeMap<String, Vec<Row>>;

/// A record of a batch, with its log time.
#[derive(Debug, Clone)]
struct Timed<'a> {
    record: &'a Record,
    log_time_ms: i64,
    event: Option<Event>,
}

impl<'a> Timed<'a> {
    fn new(record: &'a Record, log_time_ms: i64) -> Self {
        Self { record, log_time_ms, event: serde_json::from_str(&record.value).ok() }
    }
}

/// What was decided of offsets.
#[derive(Debug, Clone)]
pub(super) struct Decided {
    pub from: i64,
    pub to: i64,
    pub what: What,
}

#[derive(Debug, Clone)]
pub(super) enum What {
    Batch {
        layout: Box<Layout>,
        /// Keys of earlier records were kept no longer: a window that was made longer does not reach behind.
        keys_from: i64,
    },
    Skipped,
    /// Also of batches that were abandoned.
    Lost,
}

/// What the decisions of a partition, in order, make of its log.
///
/// # Errors
/// They do not decide all that the log held since the commit log began.
pub(super) fn tables(partition: i32, start: i64, decided: &[Decided], log: &History) -> Result<Tables, String> {
    check_order(start, decided, log)?;
    let mut tables = Tables::new();
    let mut before: Vec<Timed<'_>> = Vec::new();
    let mut log_time_ms = i64::MIN;
    for Decided { from, to, what } in decided {
        let What::Batch { layout, keys_from } = what else { continue };
        let mut files = Files::new(partition, *from, layout);
        for record in log.records.iter().filter(|record| (*from..*to).contains(&record.offset)) {
            log_time_ms = log_time_ms.max(record.append_ms);
            let timed = Timed::new(record, log_time_ms);
            let kept = before.partition_point(|earlier| earlier.record.offset < *keys_from);
            if !is_duplicate(&before[kept..], &timed, layout.window_ms) {
                files.take(&timed);
            }
            before.push(timed);
        }
        tables.extend(files.rows);
    }
    Ok(tables)
}

fn check_order(start: i64, decided: &[Decided], log: &History) -> Result<(), String> {
    let mut at = start;
    for Decided { from, to, what } in decided {
        if *from != at || to <= from {
            return Err(format!("a decision on {from}..{to} where the commit log is at {at}"));
        }
        if matches!(what, What::Lost) && *to > log.earliest {
            return Err(format!("{from}..{to} are called lost, but the log begins at {}", log.earliest));
        }
        at = *to;
    }
    let is_left_out =
        |record: &&Record| record.offset >= at || (record.offset < start && record.offset >= log.earliest);
    match log.records.iter().find(is_left_out) {
        Some(record) => Err(format!("the commit log {start}..{at} leaves out offset {}", record.offset)),
        None => Ok(()),
    }
}

fn is_duplicate(before: &[Timed<'_>], timed: &Timed<'_>, window_ms: i64) -> bool {
    let Some(event) = &timed.event else { return false };
    before.iter().any(|earlier| {
        let is_same = |other: &Event| (&other.event_id, &other.timestamp) == (&event.event_id, &event.timestamp);
        earlier.log_time_ms >= timed.log_time_ms - window_ms && earlier.event.as_ref().is_some_and(is_same)
    })
}

/// The files of one batch.
struct Files<'a> {
    partition: i32,
    from: i64,
    layout: &'a Layout,
    /// Path of the file that is open for a folder.
    open: BTreeMap<String, String>,
    types: BTreeSet<String>,
    sequence: u32,
    rows: Tables,
}

impl<'a> Files<'a> {
    fn new(partition: i32, from: i64, layout: &'a Layout) -> Self {
        let (open, types, rows) = (BTreeMap::new(), BTreeSet::new(), Tables::new());
        Self { partition, from, layout, open, types, sequence: 0, rows }
    }

    fn take(&mut self, timed: &Timed<'_>) {
        let (folder, content) = match place(timed) {
            Err(reason) => (rejected(timed), reason.to_owned()),
            Ok((kind, folder, content)) => {
                let is_room = self.types.len() < self.layout.max_types as usize;
                if is_room || self.types.contains(&kind) {
                    self.types.insert(kind);
                    (folder, content)
                } else {
                    (rejected(timed), "too_many_types".to_owned())
                }
            }
        };
        let (partition, from, sequence) = (self.partition, self.from, &mut self.sequence);
        let path = self.open.entry(folder.clone()).or_insert_with(|| {
            *sequence += 1;
            format!("{folder}/events-{partition}-{from}-{}.parquet", *sequence - 1)
        });
        let rows = self.rows.entry(path.clone()).or_default();
        rows.push(Row { offset: timed.record.offset, log_time_ms: timed.log_time_ms, content });
        if rows.len() as u64 >= self.layout.max_rows_per_file {
            self.open.remove(&folder);
        }
    }
}

/// Type, folder and data of an event, or why it is rejected.
fn place(timed: &Timed<'_>) -> Result<(String, String, String), &'static str> {
    let event = timed.event.as_ref().ok_or("not_json")?;
    if event.timestamp.starts_with("19") {
        return Err("year_out_of_range");
    }
    let kind = format!("{}-{}", event.domain, event.event_type);
    let (year, month, day) = (&event.timestamp[..4], &event.timestamp[5..7], &event.timestamp[8..10]);
    let folder = format!("events/domain_event_type={kind}/year={year}/month={month}/day={day}");
    Ok((kind, folder, event.data.to_string()))
}

/// The days of a run lie within one month.
fn rejected(timed: &Timed<'_>) -> String {
    format!("rejected/year=2021/month=06/day={:02}", 1 + (timed.log_time_ms - MONTH_MS) / DAY_MS)
}

/// Rows of a file as it is.
pub(super) fn rows(body: Bytes) -> Result<Vec<Row>, String> {
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let reader = ParquetRecordBatchReaderBuilder::try_new(body).map_err(|error| failed(&error))?;
    let mut rows = Vec::new();
    for batch in reader.build().map_err(|error| failed(&error))? {
        let batch = batch.map_err(|error| failed(&error))?;
        let column = |name: &str| batch.column_by_name(name).ok_or_else(|| format!("no column {name}"));
        let offsets = column("_offset")?.as_primitive::<Int64Type>();
        let times = column("_ingested_at")?.as_primitive::<TimestampMicrosecondType>();
        let content = column("data").or_else(|_| column("reason"))?.as_string::<i32>();
        rows.extend((0..batch.num_rows()).map(|row| Row {
            offset: offsets.value(row),
            log_time_ms: times.value(row) / 1_000,
            content: content.value(row).to_owned(),
        }));
    }
    Ok(rows)
}
