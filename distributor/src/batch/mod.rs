//! A batch in the making: rows of consecutive records of one log partition, routed, deduplicated and encoded.
//!
//! Which rows stand in which file is a pure function of the records, the window before them and the layout: files are
//! numbered in the order in which their first rows come, and roll over by rows only.

mod file;
mod rows;
mod stated;

use std::collections::{BTreeSet, HashMap};

use common::event::{HEADER_SOURCE, civil_from_micros};
use common::log::RecordRef;
use parquet::errors::ParquetError;

pub use file::Encoding;
pub(crate) use file::FinishedFile;
use file::OpenFile;
use rows::{Lineage, Table};
pub(crate) use stated::{STATED, Stated};

use crate::chain::{Cut, Witness};
use crate::layout::Layout;
use crate::reader::EventReader;
use crate::route::{Rejection, fingerprint, folder, read_event, rejected_folder};
use crate::window::{Overlay, Window};
use common::event::Event;

/// Counts of a batch. `read` = `written` + `duplicates` + `rejected`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Counts {
    pub read: u64,
    pub written: u64,
    pub duplicates: u64,
    pub rejected: u64,
}

/// First and last record of a batch as its cut will remember them.
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
    layout: Layout,
    reader: EventReader,
    encoding: Encoding,
    clock_ms: i64,
    overlay: Overlay,
    ends: Option<Ends>,
    counts: Counts,
    /// Open files by what decides their folder; the key is built in `scratch`.
    open: HashMap<String, usize>,
    scratch: String,
    /// In sequence.
    files: Vec<OpenFile>,
    types: BTreeSet<String>,
    next_sequence: u32,
    memory_bytes: usize,
    estimated_bytes: usize,
    measured_at_rows: u64,
    unmeasured_bytes: usize,
}

/// Memory and size are measured again after this many rows: both need a look at every open file.
const ROWS_BETWEEN_MEASURES: u64 = 512;
/// … or this many bytes, for events may be large.
const BYTES_BETWEEN_MEASURES: usize = 2_000_000;

/// A batch that has ended, encoded.
pub(crate) struct Encoded {
    pub files: Vec<FinishedFile>,
    pub overlay: Overlay,
    pub counts: Counts,
    pub ends: Ends,
}

impl Batch {
    /// Begins at offset `from`, where log time is `clock_ms` (`i64::MIN` at the chain's origin).
    ///
    /// # Errors
    /// This build cannot write the layout; the message says what is needed.
    pub(crate) fn new(
        topic: &str,
        partition: i32,
        from: i64,
        clock_ms: i64,
        layout: &Layout,
        encoding: Encoding,
        window: &Window,
    ) -> Result<Self, String> {
        Ok(Self {
            topic: topic.to_owned(),
            partition,
            from,
            reader: layout.reader()?,
            layout: layout.clone(),
            encoding,
            clock_ms,
            overlay: window.overlay(),
            ends: None,
            counts: Counts::default(),
            open: HashMap::new(),
            scratch: String::new(),
            files: Vec::new(),
            types: BTreeSet::new(),
            next_sequence: 0,
            memory_bytes: 0,
            estimated_bytes: 0,
            measured_at_rows: 0,
            unmeasured_bytes: 0,
        })
    }

    pub(crate) fn from(&self) -> i64 {
        self.from
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
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

    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes + self.overlay.memory_bytes()
    }

    pub(crate) fn estimated_bytes(&self) -> u64 {
        self.estimated_bytes as u64
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// The encoder's; the batch is useless then.
    pub(crate) fn push(
        &mut self,
        window: &Window,
        record: &RecordRef<'_>,
        offset: i64,
        append_ms: i64,
    ) -> Result<(), ParquetError> {
        self.clock_ms = self.clock_ms.max(append_ms);
        let witness = Witness::of(record, append_ms);
        let first = self.ends.map_or(witness, |ends| ends.first);
        self.ends = Some(Ends { first, last: witness, to: offset + 1, clock_ms: self.clock_ms });
        self.counts.read += 1;
        let source = record.headers.text(HEADER_SOURCE).unwrap_or_default();
        let lineage = Lineage { partition: self.partition, offset, log_time_ms: self.clock_ms, source };
        match read_event(record.value, &self.reader) {
            Err(rejection) => self.reject(&rejection, None, record, &lineage)?,
            Ok(event) => self.push_event(window, &event, record, &lineage)?,
        }
        self.unmeasured_bytes += record.value.map_or(0, <[u8]>::len);
        let many = self.counts.read - self.measured_at_rows >= ROWS_BETWEEN_MEASURES;
        if many || self.unmeasured_bytes >= BYTES_BETWEEN_MEASURES {
            self.measure();
        }
        Ok(())
    }

    fn push_event(
        &mut self,
        window: &Window,
        event: &Event<'_>,
        record: &RecordRef<'_>,
        lineage: &Lineage<'_>,
    ) -> Result<(), ParquetError> {
        let key = fingerprint(&event.event_id, event.timestamp_us);
        let duplicate = window.is_duplicate(&self.overlay, key, lineage.log_time_ms);
        self.overlay.insert(key, lineage.log_time_ms);
        if duplicate {
            self.counts.duplicates += 1;
            return Ok(());
        }
        match self.file_for(event)? {
            Ok(index) => {
                self.counts.written += 1;
                self.push_to(index, |rows| rows.push_event(event, lineage))
            }
            Err(rejection) => self.reject(&rejection, Some(&event.event_id), record, lineage),
        }
    }

    /// The open file for an event, begun if need be.
    fn file_for(&mut self, event: &Event<'_>) -> Result<Result<usize, Rejection>, ParquetError> {
        use std::fmt::Write;
        let date = civil_from_micros(event.timestamp_us);
        self.scratch.clear();
        // Unambiguous, for a length precedes the first text. Writing to a String cannot fail.
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
        if let Some(index) = self.open.get(&self.scratch) {
            return Ok(Ok(*index));
        }
        let folder = match folder(event, &self.layout) {
            Ok(folder) => folder,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let segment = folder.split('/').nth(1).unwrap_or_default();
        if !self.types.contains(segment) {
            if self.types.len() >= self.layout.max_types as usize {
                return Ok(Err(Rejection::TooManyTypes));
            }
            self.types.insert(segment.to_owned());
        }
        let key = self.scratch.clone();
        self.open_file(key, Table::Events, folder).map(Ok)
    }

    fn open_file(&mut self, key: String, table: Table, folder: String) -> Result<usize, ParquetError> {
        let file = OpenFile::new(table, folder, self.next_sequence, self.encoding)?;
        self.next_sequence += 1;
        self.files.push(file);
        let index = self.files.len() - 1;
        self.open.insert(key, index);
        Ok(index)
    }

    fn reject(
        &mut self,
        rejection: &Rejection,
        event_id: Option<&str>,
        record: &RecordRef<'_>,
        lineage: &Lineage<'_>,
    ) -> Result<(), ParquetError> {
        self.counts.rejected += 1;
        let folder = rejected_folder(lineage.log_time_ms);
        // No event's key begins like this: theirs begin with a digit.
        let key = format!("rejected|{folder}");
        let index = match self.open.get(&key) {
            Some(index) => *index,
            None => self.open_file(key, Table::Rejected, folder)?,
        };
        let detail = rejection.detail(&self.layout);
        self.push_to(index, |rows| rows.push_rejected((rejection.code(), &detail), event_id, record.value, lineage))
    }

    fn push_to(&mut self, index: usize, push: impl FnOnce(&mut rows::Rows)) -> Result<(), ParquetError> {
        let Some(file) = self.files.get_mut(index) else {
            return Err(ParquetError::General("a row for a file that was never begun".to_owned()));
        };
        file.push(push)?;
        if file.total_rows() >= self.layout.max_rows_per_file {
            // It is closed with the batch, for its footer names the batch's end.
            file.seal()?;
            self.open.retain(|_, open| *open != index);
        }
        Ok(())
    }

    fn measure(&mut self) {
        self.measured_at_rows = self.counts.read;
        self.unmeasured_bytes = 0;
        self.memory_bytes = self.files.iter().map(OpenFile::memory_bytes).sum();
        self.estimated_bytes = self.files.iter().map(OpenFile::estimated_bytes).sum();
    }

    /// Ends all files; `None` if no record came.
    ///
    /// # Errors
    /// The encoder's.
    pub(crate) fn finish(self) -> Result<Option<Encoded>, ParquetError> {
        let Some(ends) = self.ends else { return Ok(None) };
        let place =
            Place { topic: &self.topic, partition: self.partition, from: self.from, to: ends.to, layout: &self.layout };
        let stated = Stated::new(&ends, self.counts, self.files.len()).fact()?;
        let files = self.files.into_iter().map(|file| {
            let mut facts = place.footer_facts(file.sequence)?;
            facts.push(stated.clone());
            file.finish(&facts)
        });
        let files = files.collect::<Result<_, _>>()?;
        Ok(Some(Encoded { files, overlay: self.overlay, counts: self.counts, ends }))
    }
}

/// The batch that a file belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub from: i64,
    pub to: i64,
    pub layout: &'a Layout,
}

impl<'a> Place<'a> {
    pub(crate) fn of(cut: &'a Cut) -> Self {
        Self { topic: &cut.topic, partition: cut.partition, from: cut.from, to: cut.to, layout: &cut.layout }
    }

    /// Key of a file of the batch.
    pub(crate) fn path(&self, folder: &str, sequence: u32) -> String {
        format!("{folder}/{}-{}-{}-{sequence}.parquet", self.topic, self.partition, self.from)
    }

    /// What a file's footer says of its place: enough to know it again. What it says of the whole batch is [`Stated`].
    ///
    /// # Errors
    /// Never for a layout that was read or configured.
    pub(crate) fn footer_facts(&self, sequence: u32) -> Result<Vec<(&'static str, String)>, ParquetError> {
        let layout = serde_json::to_string(self.layout).map_err(|error| ParquetError::General(error.to_string()))?;
        Ok(vec![
            ("event_distributor.topic", self.topic.to_owned()),
            ("event_distributor.partition", self.partition.to_string()),
            ("event_distributor.from", self.from.to_string()),
            ("event_distributor.to", self.to.to_string()),
            ("event_distributor.sequence", sequence.to_string()),
            ("event_distributor.layout", layout),
        ])
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
