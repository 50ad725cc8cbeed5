//! An open batch: rows of consecutive records of one log partition, routed, deduplicated and encoded.
//!
//! The rows of each file are a pure function of the records, the window before them and the layout. Files are numbered
//! in the order of their first rows, and roll over by rows only.

mod error;
mod file;
mod finish;
mod memory;
mod merged;
mod name;
mod place;
mod promoted;
mod raw;
mod rows;
mod spool;
mod stand_ins;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use commitlog::Witness;
use common::event::{Event, EventFormat, HEADER_SOURCE, civil_from_micros};
use common::log::{Chunk, RecordRef};
use xxhash_rust::xxh3::xxh3_64;

pub(crate) use error::BatchError;
pub use file::Encoding;
pub(crate) use file::FinishedFile;
use file::{OpenFile, Table};
pub(crate) use merged::MergedFile;
pub(crate) use name::Name;
pub(crate) use place::{LAYOUT, Place, STANDS_IN, Series, path};
use promoted::Promoted;
pub(crate) use rows::rejected_schema as rejected_columns;
use rows::{Kind, Lineage, Rows, events_schema};
use spool::Overflow;
pub(crate) use spool::{Body, Spool};
pub(crate) use stand_ins::StandIns;

use crate::layout::Layout;
use crate::route::{Rejection, fingerprint, folder, read_event, rejected_folder, type_of};
use crate::scratch::Scratch;
use crate::window::{GROUP, Overlay, Window};

/// Counts of a batch. `read` = `written` + `duplicates` + `rejected`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Counts {
    pub read: u64,
    pub written: u64,
    pub duplicates: u64,
    pub rejected: u64,
    /// Values that did not fit their column and are null there.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unfit: u64,
    /// Rows in whose `data` lone surrogates were replaced.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub replaced: u64,
}

pub(crate) fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// First and last record of a batch, as its intent records them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    pub first: Witness,
    pub last: Witness,
    /// Offset after the last record.
    pub to: i64,
    /// Log time (running maximum) after the last record.
    pub clock_ms: i64,
}

pub(crate) struct Batch {
    topic: String,
    partition: i32,
    from: i64,
    series: Series,
    layout: Layout,
    reader: EventFormat,
    promoted: Arc<Promoted>,
    events: Arc<Table>,
    rejected: Arc<Table>,
    overflow: Overflow,
    /// Rows are encoded only at the end, because encoders take too much memory.
    is_deferred: bool,
    clock_ms: i64,
    overlay: Overlay,
    ends: Option<Ends>,
    counts: Counts,
    /// Open files by the key that identifies their folder; the key is built in `scratch`.
    open: HashMap<String, usize>,
    scratch: String,
    /// In order of their sequence numbers.
    files: Vec<OpenFile>,
    /// A record that would begin a further file is not taken.
    max_files: usize,
    types: BTreeSet<String>,
    /// The file that the last record began.
    begun: Option<usize>,
    next_sequence: u32,
    /// Memory of all files.
    memory_bytes: usize,
    spillable_bytes: usize,
    /// The sum of [`OpenFile::progress`] of all files.
    progress: [usize; 3],
    /// The expected number of encoded bytes for each byte of rows.
    expected_ratio: f64,
}

/// That ratio before any measurement.
const FIRST_RATIO: f64 = 0.25;

/// A batch that has ended, encoded.
pub(crate) struct Encoded {
    pub files: Vec<FinishedFile>,
    pub overlay: Overlay,
    pub counts: Counts,
    pub ends: Ends,
    /// By promoted column: values that did not fit it.
    pub unfit: BTreeMap<String, u64>,
    /// Encoded bytes for each byte of rows.
    pub ratio: f64,
}

impl Batch {
    /// Begins at offset `from`, where log time is `clock_ms` (`i64::MIN` where the commit log begins).
    ///
    /// # Errors
    /// This build cannot write the layout; the message says which one can.
    pub(crate) fn new(
        topic: &str,
        partition: i32,
        from: i64,
        clock_ms: i64,
        layout: &Layout,
        encoding: Encoding,
        scratch: &Scratch,
    ) -> Result<Self, String> {
        let promoted = Arc::new(Promoted::of(layout)?);
        Ok(Self {
            topic: topic.to_owned(),
            partition,
            from,
            series: Series::Batch,
            reader: layout.reader()?,
            events: Table::events(encoding, &promoted),
            rejected: Table::rejected(encoding),
            overflow: Overflow::new(scratch.clone()),
            is_deferred: false,
            promoted,
            layout: layout.clone(),
            clock_ms,
            overlay: Window::overlay(),
            ends: None,
            counts: Counts::default(),
            open: HashMap::new(),
            scratch: String::new(),
            files: Vec::new(),
            max_files: usize::MAX,
            types: BTreeSet::new(),
            begun: None,
            next_sequence: 0,
            memory_bytes: 0,
            spillable_bytes: 0,
            progress: [0; 3],
            expected_ratio: FIRST_RATIO,
        })
    }

    /// Marks the batch as part of a replace: its files are outputs of it, numbered from `first` on.
    pub(crate) fn of_replace(self, replace: u64, first: u32) -> Self {
        Self { series: Series::Replace(replace), next_sequence: first, ..self }
    }

    /// Takes no record that would begin a file beyond this number (at least one). For batches whose end is not fixed
    /// yet.
    pub(crate) fn of_files(self, max_files: usize) -> Self {
        Self { max_files: max_files.max(1), ..self }
    }

    pub(crate) fn from(&self) -> i64 {
        self.from
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_none()
    }

    pub(crate) fn rows(&self) -> u64 {
        self.counts.read
    }

    pub(crate) fn ends(&self) -> Option<&Ends> {
        self.ends.as_ref()
    }

    /// The number of files begun.
    pub(crate) fn files(&self) -> usize {
        self.files.len()
    }

    /// The type of the file begun since the last call, as in its folder's name; `None` for rejected rows.
    pub(crate) fn take_begun(&mut self) -> Option<&str> {
        let file = self.files.get(self.begun.take()?)?;
        type_of(&file.folder)
    }

    /// Takes records of a chunk, from `from` up to but excluding `to`, in groups. Each group is parsed first, and its
    /// part of the window is fetched for all of its records at once. `goes_on` is asked after each record. If it
    /// returns false, or the next record would begin a file too many, the remaining records have no effect. Returns the
    /// index of the first record that was not taken.
    ///
    /// # Errors
    /// The encoder's or the disk's error; the batch is then unusable.
    pub(crate) fn push_all(
        &mut self,
        window: &Window,
        chunk: &Chunk,
        range: Range<usize>,
        goes_on: &mut dyn FnMut(&mut Self) -> bool,
    ) -> Result<usize, BatchError> {
        let mut rest = chunk.offsets.iter().zip(&chunk.times_ms).enumerate().take(range.end).skip(range.start);
        let (mut ahead, mut keys) = (Vec::with_capacity(GROUP), Vec::with_capacity(GROUP));
        loop {
            for (index, (offset, append_ms)) in rest.by_ref().take(GROUP) {
                let record = chunk.records.get(index);
                let read = self.read(&record);
                keys.extend(read.as_ref().ok().map(|(key, _)| *key));
                ahead.push((index, record, read, *offset, *append_ms));
            }
            if ahead.is_empty() {
                return Ok(range.end);
            }
            window.warm(&self.overlay, &keys);
            for (index, record, read, offset, append_ms) in ahead.drain(..) {
                if self.files.len() >= self.max_files && !self.has_file_for(&read, append_ms) {
                    return Ok(index);
                }
                self.take(window, &record, read, offset, append_ms)?;
                if !goes_on(self) {
                    return Ok(index + 1);
                }
            }
            keys.clear();
        }
    }

    /// Parses a record: an event with its key, or the reason for its rejection.
    fn read<'a>(&self, record: &RecordRef<'a>) -> Result<(u128, Event<'a>), Rejection> {
        let event = read_event(record.value, &self.reader)?;
        Ok((fingerprint(&event.event_id, event.timestamp_us), event))
    }

    fn take(
        &mut self,
        window: &Window,
        record: &RecordRef<'_>,
        read: Result<(u128, Event<'_>), Rejection>,
        offset: i64,
        append_ms: i64,
    ) -> Result<(), BatchError> {
        let lineage = self.see(record, offset, append_ms);
        match read {
            Err(rejection) => self.reject(&rejection, None, record, &lineage),
            Ok((key, event)) => self.take_event(window, key, &event, record, &lineage),
        }
    }

    /// Advances to a record: log time, the batch's ends, and the lineage of its row.
    fn see<'r>(&mut self, record: &RecordRef<'r>, offset: i64, append_ms: i64) -> Lineage<'r> {
        self.clock_ms = self.clock_ms.max(append_ms);
        let witness = witness_of(record, append_ms);
        let first = self.ends.map_or(witness, |ends| ends.first);
        self.ends = Some(Ends { first, last: witness, to: offset + 1, clock_ms: self.clock_ms });
        self.counts.read += 1;
        let source = record.headers.text(HEADER_SOURCE).unwrap_or_default();
        Lineage { offset, log_time_ms: self.clock_ms, source }
    }

    fn take_event(
        &mut self,
        window: &Window,
        key: u128,
        event: &Event<'_>,
        record: &RecordRef<'_>,
        lineage: &Lineage<'_>,
    ) -> Result<(), BatchError> {
        let duplicate = window.take(&mut self.overlay, key, lineage.log_time_ms)?;
        if duplicate {
            self.counts.duplicates += 1;
            return Ok(());
        }
        match self.file_for(event) {
            Ok(index) => {
                self.counts.written += 1;
                self.counts.replaced += u64::from(event.has_replacements());
                self.push_to(index, |rows| rows.push_event(event, lineage))
            }
            Err(rejection) => self.reject(&rejection, Some(&event.event_id), record, lineage),
        }
    }

    /// Writes the key that identifies an event's folder into `scratch`.
    fn name(&mut self, event: &Event<'_>) {
        use std::fmt::Write;
        let date = civil_from_micros(event.timestamp_us);
        self.scratch.clear();
        // Unambiguous, because a length precedes the first text. Writing to a String cannot fail.
        let _ = write!(
            self.scratch,
            "{}:{}{}|{}-{}-{}",
            event.domain.len(),
            event.domain,
            event.event_type,
            date.year,
            date.month,
            date.day
        );
    }

    /// The folder of an event, if the batch may have its type.
    fn folder_of(&self, event: &Event<'_>) -> Result<String, Rejection> {
        let folder = folder(event, &self.layout)?;
        let is_one_too_many = self.types.len() >= self.layout.max_types as usize;
        if is_one_too_many && !type_of(&folder).is_some_and(|name| self.types.contains(name)) {
            return Err(Rejection::TooManyTypes);
        }
        Ok(folder)
    }

    /// Whether a record needs no file beyond the open ones. Duplicates are not recognized here.
    fn has_file_for(&mut self, read: &Result<(u128, Event<'_>), Rejection>, append_ms: i64) -> bool {
        if let Ok((_, event)) = read {
            self.name(event);
            if self.open.contains_key(&self.scratch) {
                return true;
            }
            if self.folder_of(event).is_ok() {
                return false;
            }
        }
        self.open.contains_key(&rejected_key(&rejected_folder(self.clock_ms.max(append_ms))))
    }

    /// The open file for an event; begins it if necessary.
    fn file_for(&mut self, event: &Event<'_>) -> Result<usize, Rejection> {
        self.name(event);
        if let Some(index) = self.open.get(&self.scratch) {
            return Ok(*index);
        }
        let folder = self.folder_of(event)?;
        let name = type_of(&folder).unwrap_or_default();
        if !self.types.contains(name) {
            self.types.insert(name.to_owned());
        }
        let kind = Kind::Events {
            domain: event.domain.clone().into_owned(),
            event_type: event.event_type.clone().into_owned(),
        };
        let rows = Rows::new(kind, self.partition, self.promoted.of_type(name));
        let (key, table) = (self.scratch.clone(), self.events.clone());
        Ok(self.open_file(key, &table, folder, rows))
    }

    fn open_file(&mut self, key: String, table: &Arc<Table>, folder: String, rows: Rows) -> usize {
        let file = OpenFile::new(table, folder, self.next_sequence, rows);
        self.next_sequence += 1;
        self.memory_bytes += file.memory_bytes();
        self.spillable_bytes += file.spillable_bytes();
        self.files.push(file);
        let index = self.files.len() - 1;
        self.begun = Some(index);
        self.open.insert(key, index);
        index
    }

    fn reject(
        &mut self,
        rejection: &Rejection,
        event_id: Option<&str>,
        record: &RecordRef<'_>,
        lineage: &Lineage<'_>,
    ) -> Result<(), BatchError> {
        self.counts.rejected += 1;
        let folder = rejected_folder(lineage.log_time_ms);
        let key = rejected_key(&folder);
        let index = match self.open.get(&key) {
            Some(index) => *index,
            None => {
                let rows = Rows::new(Kind::Rejected, self.partition, self.promoted.of_type(""));
                let table = self.rejected.clone();
                self.open_file(key, &table, folder, rows)
            }
        };
        let detail = rejection.detail(&self.layout);
        self.push_to(index, |rows| rows.push_rejected((rejection.code(), &detail), event_id, record.value, lineage))
    }

    /// Of the record that was taken last.
    fn last_offset(&self) -> i64 {
        self.ends.map_or(self.from, |ends| ends.to - 1)
    }

    fn push_to(
        &mut self,
        index: usize,
        push: impl FnOnce(&mut Rows) -> Result<(), BatchError>,
    ) -> Result<(), BatchError> {
        let (is_deferred, max_rows) = (self.is_deferred, self.layout.max_rows_per_file);
        let offset = self.last_offset();
        let mut is_full = false;
        self.account(index, |file| {
            file.push(is_deferred, offset, push)?;
            is_full = file.total_rows() >= max_rows;
            // It is ended with the batch, because its footer names the batch's end.
            if is_full && !is_deferred { file.seal(None) } else { Ok(()) }
        })?;
        if is_full {
            self.open.retain(|_, open| *open != index);
        }
        Ok(())
    }
}

/// The columns of files of `events` under a layout.
///
/// # Errors
/// It has columns that this build does not know.
pub(crate) fn events_columns(layout: &Layout) -> Result<arrow_schema::SchemaRef, String> {
    Ok(events_schema(&Promoted::of(layout)?))
}

/// A record as the commit log remembers it.
pub(crate) fn witness_of(record: &RecordRef<'_>, append_ms: i64) -> Witness {
    Witness { append_ms, key_hash: xxh3_64(record.key) }
}

/// No event's key begins like this: theirs begin with a digit.
fn rejected_key(folder: &str) -> String {
    format!("rejected|{folder}")
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
