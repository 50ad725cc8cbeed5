//! The remaining rows of an open batch that lost its head to retention: the rows that can still be read and are in none
//! of its files.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use common::event::Event;
use common::log::RecordRef;

use super::file::Table;
use super::finish::{Ended, end_all};
use super::promoted::Promoted;
use super::rows::{Kind, Lineage, Rows};
use super::{Batch, BatchError, Counts, FinishedFile, OpenFile, Place, STANDS_IN, Series};
use crate::chain::Cut;
use crate::route::{Rejection, fingerprint, folder, read_event, rejected_folder, type_of};
use crate::window::{Overlay, Window};

/// The facts about the batch as it was cut.
#[derive(Debug, Default)]
pub(crate) struct Remaining {
    /// Offsets of rows in files, from the log's beginning on, in order; the next one first.
    written: Vec<i64>,
    next: usize,
    /// Sequence number of the one file by folder.
    sequences: HashMap<String, u32>,
    /// The last folder of rejected rows.
    rejected: Option<String>,
    /// The batch had its maximum of types: records of further ones were rejected.
    has_all_types: bool,
    /// Offset of a row that the batch cannot have had.
    foreign_row: Option<i64>,
}

impl Remaining {
    /// `written`: the offsets of rows in files, in any order.
    pub(crate) fn new(cut: &Cut, mut written: Vec<i64>) -> Self {
        written.sort_unstable();
        let folders = distinct(cut.folders.as_deref().unwrap_or_default());
        let types: HashSet<&str> = folders.iter().copied().filter_map(type_of).collect();
        Self {
            written,
            next: 0,
            rejected: folders.iter().rev().find(|folder| type_of(folder).is_none()).map(|folder| (*folder).to_owned()),
            has_all_types: types.len() >= cut.layout.max_types as usize,
            sequences: folders.into_iter().map(str::to_owned).zip(0..).collect(),
            foreign_row: None,
        }
    }

    fn is_written(&mut self, offset: i64) -> bool {
        while self.written.get(self.next).is_some_and(|written| *written < offset) {
            self.next += 1;
        }
        self.written.get(self.next) == Some(&offset)
    }
}

/// Folders in the order of their first occurrence.
pub(crate) fn distinct(folders: &[String]) -> Vec<&str> {
    let mut seen = HashSet::new();
    folders.iter().map(String::as_str).filter(|folder| seen.insert(*folder)).collect()
}

/// The remaining rows, encoded.
pub(crate) struct RemainingFiles {
    /// One for each folder, in sequence, some without rows.
    pub files: Vec<FinishedFile>,
    pub overlay: Overlay,
    pub duplicates: u64,
    /// Rows in whose `data` lone surrogates were replaced.
    pub replaced: u64,
    /// By promoted column: values that did not fit it.
    pub unfit: BTreeMap<String, u64>,
    /// Offset of a row that the batch cannot have had: the log is not the one of its cut.
    pub foreign_row: Option<i64>,
}

impl Batch {
    /// Adds the key of a row in a file whose record retention has deleted.
    pub(crate) fn know(&mut self, key: u128, log_time_ms: i64) {
        self.clock_ms = self.clock_ms.max(log_time_ms);
        self.overlay.insert(key, self.clock_ms);
    }

    /// Takes the next record. Its row is added if no file has it yet.
    ///
    /// # Errors
    /// As for [`Batch::push_all`].
    pub(crate) fn push_remaining(
        &mut self,
        remaining: &mut Remaining,
        window: &Window,
        record: &RecordRef<'_>,
        offset: i64,
        append_ms: i64,
    ) -> Result<(), BatchError> {
        let lineage = self.see(record, offset, append_ms);
        let is_written = remaining.is_written(offset);
        match read_event(record.value, &self.reader) {
            Err(_) if is_written => Ok(()),
            Err(rejection) => self.reject_remaining(remaining, &rejection, None, record, &lineage),
            Ok(event) => {
                let key = fingerprint(&event.event_id, event.timestamp_us);
                let is_duplicate = window.take(&mut self.overlay, key, lineage.log_time_ms)?;
                if is_written {
                    return Ok(());
                }
                if is_duplicate {
                    self.counts.duplicates += 1;
                    return Ok(());
                }
                self.push_event_remaining(remaining, &event, record, &lineage)
            }
        }
    }

    fn push_event_remaining(
        &mut self,
        remaining: &mut Remaining,
        event: &Event<'_>,
        record: &RecordRef<'_>,
        lineage: &Lineage<'_>,
    ) -> Result<(), BatchError> {
        let folder = match folder(event, &self.layout) {
            Ok(folder) => folder,
            Err(rejection) => {
                return self.reject_remaining(remaining, &rejection, Some(&event.event_id), record, lineage);
            }
        };
        let Some(sequence) = remaining.sequences.get(&folder).copied() else {
            if remaining.has_all_types && remaining.rejected.is_some() {
                return self.reject_remaining(
                    remaining,
                    &Rejection::TooManyTypes,
                    Some(&event.event_id),
                    record,
                    lineage,
                );
            }
            // The batch had no row here: this is the duplicate of a lost record.
            self.counts.duplicates += 1;
            return Ok(());
        };
        let index = match self.open.get(&folder) {
            Some(index) => *index,
            None => {
                let kind = Kind::Events {
                    domain: event.domain.clone().into_owned(),
                    event_type: event.event_type.clone().into_owned(),
                };
                self.open_remaining(folder, sequence, kind)
            }
        };
        self.counts.replaced += u64::from(event.has_replacements());
        self.push_to_remaining(index, |rows| rows.push_event(event, lineage))
    }

    fn reject_remaining(
        &mut self,
        remaining: &mut Remaining,
        rejection: &Rejection,
        event_id: Option<&str>,
        record: &RecordRef<'_>,
        lineage: &Lineage<'_>,
    ) -> Result<(), BatchError> {
        // A lost record may have advanced log time, and with it the date.
        let dated = rejected_folder(lineage.log_time_ms);
        let folder = Some(dated)
            .filter(|folder| remaining.sequences.contains_key(folder))
            .or_else(|| remaining.rejected.clone());
        let found = folder.and_then(|folder| remaining.sequences.get(&folder).map(|sequence| (*sequence, folder)));
        let Some((sequence, folder)) = found else {
            remaining.foreign_row.get_or_insert(lineage.offset);
            return Ok(());
        };
        let index = match self.open.get(&folder) {
            Some(index) => *index,
            None => self.open_remaining(folder, sequence, Kind::Rejected),
        };
        let detail = rejection.detail(&self.layout);
        self.push_to_remaining(index, |rows| {
            rows.push_rejected((rejection.code(), &detail), event_id, record.value, lineage)
        })
    }

    /// The one file of a folder, however many rows it gets.
    fn open_remaining(&mut self, folder: String, sequence: u32, kind: Kind) -> usize {
        let table = if type_of(&folder).is_some() { self.events.clone() } else { self.rejected.clone() };
        let promoted = self.promoted.of_type(type_of(&folder).unwrap_or_default());
        let rows = Rows::new(kind, self.partition, promoted);
        self.next_sequence = sequence;
        self.open_file(folder.clone(), &table, folder, rows)
    }

    fn push_to_remaining(
        &mut self,
        index: usize,
        push: impl FnOnce(&mut Rows) -> Result<(), BatchError>,
    ) -> Result<(), BatchError> {
        let (is_deferred, offset) = (self.is_deferred, self.last_offset());
        self.account(index, |file| file.push(is_deferred, offset, push))
    }

    /// Ends the files of a round of salvage, one for each folder of the cut.
    ///
    /// # Errors
    /// The encoder's or the disk's error.
    pub(crate) fn finish_remaining(
        mut self,
        remaining: &Remaining,
        place: Place<'_>,
    ) -> Result<RemainingFiles, BatchError> {
        for (folder, sequence) in &remaining.sequences {
            if !self.open.contains_key(folder) {
                self.open_remaining(folder.clone(), *sequence, kind_of(folder));
            }
        }
        self.files.sort_unstable_by_key(|file| file.sequence);
        let Ended { files, unfit } =
            end_all(self.files, &self.promoted, &mut self.overflow, |file| Ok(place.footer_facts(file.sequence)?))?;
        let Counts { duplicates, replaced, .. } = self.counts;
        Ok(RemainingFiles {
            files,
            overlay: self.overlay,
            duplicates,
            replaced,
            unfit,
            foreign_row: remaining.foreign_row,
        })
    }

    pub(crate) fn stand_ins(&self) -> StandIns {
        let (events, rejected, promoted) = (self.events.clone(), self.rejected.clone(), self.promoted.clone());
        StandIns { events, rejected, promoted, partition: self.partition }
    }
}

/// Makes files without rows that reserve the names of a batch's files: the store then refuses a later file under such a
/// name.
pub(crate) struct StandIns {
    events: Arc<Table>,
    rejected: Arc<Table>,
    promoted: Arc<Promoted>,
    partition: i32,
}

impl StandIns {
    /// # Errors
    /// The encoder's error.
    pub(crate) fn of(&self, place: Place<'_>, folder: &str, sequence: u32) -> Result<FinishedFile, BatchError> {
        let table = if type_of(folder).is_some() { &self.events } else { &self.rejected };
        let promoted = self.promoted.of_type(type_of(folder).unwrap_or_default());
        let rows = Rows::new(kind_of(folder), self.partition, promoted);
        let mut facts = place.footer_facts(sequence)?;
        facts.push((STANDS_IN, "true".to_owned()));
        let mut file = OpenFile::new(table, folder.to_owned(), sequence, rows);
        file.seal(None)?;
        file.finish(&facts)
    }
}

/// The kind of a file without rows.
fn kind_of(folder: &str) -> Kind {
    match type_of(folder) {
        Some(_) => Kind::Events { domain: String::new(), event_type: String::new() },
        None => Kind::Rejected,
    }
}

/// The files of a damaged batch in the order of its completion: those of the cut, then those of each round of salvage.
pub(crate) fn series_of(folders: &[String], rounds: u32) -> impl Iterator<Item = (Series, u32, &str)> {
    let of_cut = (0..).zip(folders).map(|(sequence, folder)| (Series::Cut, sequence, folder.as_str()));
    of_cut.chain((1..=rounds).flat_map(move |round| {
        (0..).zip(distinct(folders)).map(move |(sequence, folder)| (Series::Salvage(round), sequence, folder))
    }))
}
