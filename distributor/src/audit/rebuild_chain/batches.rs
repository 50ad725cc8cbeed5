//! Batches, and gaps between them, made again: from the log where it holds their records, else from their files.

use std::collections::BTreeMap;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;

use super::super::AuditError;
use super::super::deep::{self, Rows};
use super::known::{Known, Present};
use super::partition::Pass;
use super::{Stop, refused};
use crate::batch::{Batch, Encoded, Encoding, Place, Stated};
use crate::chain::{Completion, Cut, CutKind, DOCUMENT_VERSION, FileEntry};
use crate::layout::Layout;
use crate::records::{Filled, Records};
use crate::route::{fingerprint, read_event};
use crate::window::{Window, encode_key_run};

impl Pass<'_> {
    /// The records of a range, as a batch; `None` if the log has none there.
    async fn make(
        &mut self,
        from: i64,
        to: i64,
        layout: &Layout,
        encoding: Option<Encoding>,
    ) -> Result<Option<Encoded>, Stop> {
        let Self { rebuilder, id, windows, records, budget, .. } = self;
        let (topic, log) = (&rebuilder.topic, &*rebuilder.log);
        let no_keys = Window::new(layout.window_ms, budget);
        let window = windows.of(layout.window_ms).unwrap_or(&no_keys);
        let encoding = encoding.unwrap_or(rebuilder.encoding);
        let mut batch = Batch::new(topic, *id, from, windows.clock_ms, layout, encoding, &rebuilder.scratch)
            .map_err(|message| Stop::Failed(AuditError::Layout(message)))?;
        let records = match records {
            Some(records) => {
                records.go_to(from).await?;
                records
            }
            None => records.insert(Records::open(log, topic, *id, from).await?),
        };
        if records.fill(&mut batch, window, from, to).await? == Filled::LogEnded && to > self.log.latest {
            return refused(format!(
                "the log ends at {}, before offset {to} that was written: it is not the log that the files were written from",
                self.log.latest
            ));
        }
        Ok(batch.finish()?)
    }

    pub(super) async fn is_without_records(&mut self, from: i64, to: i64, layout: &Layout) -> Result<bool, Stop> {
        Ok(self.make(from, to, layout, None).await?.is_none())
    }

    /// Accounts for the offsets up to `to`, of which neither a document nor a file speaks.
    pub(super) async fn gap(&mut self, to: i64, layout: &Layout) -> Result<(), Stop> {
        if to < self.at {
            return refused(format!(
                "the batch that begins at {to} overlaps the one before it, which ends at {}; find out which files are right and \
                 move the others away",
                self.at
            ));
        }
        while self.at < to {
            // A key run without anything else is the trace of a batch without files.
            let end = self.key_runs.range(self.at + 1..to).next().copied().unwrap_or(to);
            self.unspoken(end, layout).await?;
        }
        Ok(())
    }

    async fn unspoken(&mut self, to: i64, layout: &Layout) -> Result<(), Stop> {
        let from = self.at;
        if self.log.earliest > from {
            return self.unaccounted(CutKind::Lost, to, layout, "the log no longer has them");
        }
        let Some(encoded) = self.make(from, to, layout, None).await? else {
            // Nothing was ever to be read there.
            let cut = self.passed_over(CutKind::Skipped, from, to, layout);
            self.passed(&cut, true, None);
            return Ok(());
        };
        if encoded.files.is_empty() {
            let completion = completion(from, encoded.ends.to, Vec::new(), &stated(&encoded));
            let cut = self.cut_of(from, encoded.ends.to, layout, &stated(&encoded));
            let run = encode_key_run(&encoded.overlay);
            self.key_run(from, &run).await?;
            self.take(from, &run, cut.clock_ms)?;
            self.passed(&cut, true, Some(completion));
            return Ok(());
        }
        let rows = encoded.counts.written + encoded.counts.rejected;
        let why = format!("the log has records there that make {rows} rows, and no file has them");
        self.unaccounted(CutKind::Skipped, to, layout, &why)
    }

    fn unaccounted(&mut self, kind: CutKind, to: i64, layout: &Layout, why: &str) -> Result<(), Stop> {
        let from = self.at;
        if !self.rebuilder.accept_gaps {
            return refused(format!(
                "nothing accounts for the offsets {from} up to before {to}: {why}. They were skipped or lost, or their files are gone. Bring \
                 the files or _batches back from a backup; or, if they come last, set the group's offset back to {from} and they are \
                 written; or pass over them for good with --accept-gaps"
            ));
        }
        self.report.gap_offsets += (to - from).unsigned_abs();
        let cut = self.passed_over(kind, from, to, layout);
        self.passed(&cut, true, None);
        Ok(())
    }

    /// Goes past a batch of which something stands in the store.
    pub(super) async fn batch(
        &mut self,
        from: i64,
        known: Known,
        layout: &Layout,
        is_newest: bool,
    ) -> Result<(), Stop> {
        if let Some(cut) = known.cut.as_ref().filter(|cut| !cut.is_batch()) {
            let cut = cut.clone();
            self.passed(&cut, false, None);
            return Ok(());
        }
        let Some(to) = known.to() else { return refused(format!("nothing says where the batch {from}.. ends")) };
        let has_run = self.key_runs.contains(&from);
        if let (Some(cut), Some(_), true) = (&known.cut, &known.completion, has_run) {
            let (cut, run) = (cut.clone(), self.existing_run(from).await?);
            self.take(from, &run, cut.clock_ms)?;
            self.passed(&cut, false, None);
            return Ok(());
        }
        if let (Some(cut), Some(_)) = (&known.cut, &known.completion)
            && self.chain.is_summarised(from).await?
        {
            // Its keys are older than anything they could matter to.
            let cut = cut.clone();
            self.passed(&cut, false, None);
            return Ok(());
        }
        if let (Some(cut), None, true) = (&known.cut, &known.completion, is_newest)
            && !known.is_all_there()
        {
            // Under way, or broken off: a distributor completes it.
            let cut = cut.clone();
            self.passed(&cut, false, None);
            return Ok(());
        }
        if self.log.earliest <= from {
            self.made_from_log(from, to, known, layout, is_newest).await
        } else {
            self.told_by_files(from, to, known, layout).await
        }
    }

    async fn made_from_log(
        &mut self,
        from: i64,
        to: i64,
        known: Known,
        layout: &Layout,
        is_newest: bool,
    ) -> Result<(), Stop> {
        let other = |what: &str| refused(format!("the batch {from}..{to} that the log's records make {what}"));
        let encoding = known.encoding();
        let Some(encoded) = self.make(from, to, layout, encoding).await? else { return other("has no record") };
        let stated = stated(&encoded);
        if encoded.ends.to != to {
            return other(&format!("ends at {}", encoded.ends.to));
        }
        if known.footer.as_ref().and_then(|footer| footer.stated).is_some_and(|said| said != stated) {
            return other("is not the one that its files speak of: is this the log that they were written from?");
        }
        let listed = known.completion.as_ref();
        let encoding = encoding.filter(|_| listed.is_none_or(|done| made_as_listed(&encoded, done, &known.files)));
        let cut = Cut { encoding, ..self.cut_of(from, to, layout, &stated) };
        if let Some(there) = &known.cut
            && (there.first, there.last, there.clock_ms) != (cut.first, cut.last, cut.clock_ms)
        {
            return other("is not the one of its cut: is this the log that it was cut from?");
        }
        let run = encode_key_run(&encoded.overlay);
        let entries = match entries(&cut, &encoded, &known.files) {
            Ok(entries) => entries,
            Err(path) => return other(&format!("has no such file as '{path}'; move it away")),
        };
        let done = completion(from, to, entries, &stated);
        if let Some(there) = &known.completion
            && (there.counts, there.files.len()) != (done.counts, done.files.len())
        {
            return other("has other counts or files than its completion");
        }
        self.report.recounted_batches += 1;
        let is_open = is_newest && known.completion.is_none() && done.files.len() > known.files.len();
        let cut_is_new = known.cut.is_none();
        if is_open {
            self.passed(&cut, cut_is_new, None);
            return Ok(());
        }
        self.key_run(from, &run).await?;
        self.take(from, &run, cut.clock_ms)?;
        self.passed(&cut, cut_is_new, Some(done).filter(|_| known.completion.is_none()));
        Ok(())
    }

    async fn told_by_files(&mut self, from: i64, to: i64, known: Known, layout: &Layout) -> Result<(), Stop> {
        let stated = known.footer.as_ref().and_then(|footer| footer.stated);
        let unsaid = |what: &str| {
            refused(format!(
                "the {what} of the batch {from}..{to} is missing, the log no longer has its records, and its files were written by a version \
                 that did not say enough in their footers. Bring _batches back from a backup"
            ))
        };
        let cut_is_new = known.cut.is_none();
        let cut = match (&known.cut, &stated) {
            (Some(cut), _) => cut.clone(),
            (None, Some(stated)) => Cut { encoding: known.encoding(), ..self.cut_of(from, to, layout, stated) },
            (None, None) => return unsaid("cut"),
        };
        let done = match (&known.completion, &stated) {
            (Some(_), _) => None,
            (None, None) => return unsaid("completion"),
            (None, Some(stated)) => {
                let wanted = 0..stated.files;
                if let Some(gone) = wanted.clone().find(|sequence| !known.files.contains_key(sequence)) {
                    return refused(format!(
                        "file {gone} of {} of the batch {from}..{to} is missing, and the log no longer has its records. Bring the file or \
                         _batches back from a backup",
                        stated.files
                    ));
                }
                if let Some((_, extra)) = known.files.iter().find(|(sequence, _)| !wanted.contains(sequence)) {
                    return refused(format!("'{}' is not of the batch {from}..{to}; move it away", extra.path));
                }
                let entries = known.files.values().map(Present::entry).collect::<Option<Vec<_>>>();
                let Some(entries) = entries else { return unsaid("completion") };
                Some(completion(from, to, entries, stated))
            }
        };
        let run = if self.key_runs.contains(&from) {
            self.existing_run(from).await?
        } else {
            self.report.key_runs_from_rows += 1;
            self.run_from_rows(&known, layout).await?
        };
        self.key_run(from, &run).await?;
        self.take(from, &run, cut.clock_ms)?;
        self.passed(&cut, cut_is_new, done);
        Ok(())
    }

    async fn existing_run(&self, from: i64) -> Result<Vec<u8>, Stop> {
        let (_, run) = self.chain.standing_key_run(from, None).await?;
        run.map(|run| run.to_vec())
            .map_or_else(|| refused(format!("'{}' went away while it was looked at", self.chain.key_run_key(from))), Ok)
    }

    fn take(&mut self, from: i64, run: &[u8], clock_ms: i64) -> Result<(), Stop> {
        let key = self.chain.key_run_key(from);
        let taken = self.windows.take(run, clock_ms)?;
        taken.or_else(|error| refused(format!("'{key}': {error}; move it away, and it is made again")))
    }

    fn cut_of(&self, from: i64, to: i64, layout: &Layout, stated: &Stated) -> Cut {
        self.cut(CutKind::Batch, from, to, layout, stated.clock_ms, Some((stated.first, stated.last)))
    }

    /// The keys of all rows. Those of dropped duplicates are in the window already, with an earlier time.
    async fn run_from_rows(&self, known: &Known, layout: &Layout) -> Result<Vec<u8>, Stop> {
        let mut overlay = Window::overlay();
        let reader = layout.reader().map_err(|message| Stop::Failed(AuditError::Layout(message)))?;
        for file in known.files.values() {
            let gone = || format!("'{}' went away while it was looked at", file.path);
            let body = deep::body(&*self.rebuilder.store, &file.path, file.size_bytes).await?;
            let Some(body) = body else { return refused(gone()) };
            let unreadable = |error: &dyn std::fmt::Display| {
                Stop::Refused(format!(
                    "the rows of '{}' cannot be read ({error}); bring it back from a backup",
                    file.path
                ))
            };
            let rows = deep::decode(body).map_err(|error| unreadable(&error))?;
            let (_, keys) = deep::keys(&rows).map_err(|message| unreadable(&message))?;
            for key in keys {
                overlay.insert(key.fingerprint, key.time_ms);
            }
            for (value, time_ms) in rejected(&rows) {
                if let Ok(event) = read_event(Some(value), &reader) {
                    overlay.insert(fingerprint(&event.event_id, event.timestamp_us), time_ms);
                }
            }
        }
        Ok(encode_key_run(&overlay))
    }
}

impl Known {
    /// How its files are encoded, as far as that is known.
    fn encoding(&self) -> Option<Encoding> {
        match &self.cut {
            Some(cut) => cut.encoding,
            None => self.footer.as_ref().and_then(|footer| footer.encoding),
        }
    }

    /// Whether every file that the batch has is there, as far as its files tell.
    fn is_all_there(&self) -> bool {
        let stated = self.footer.as_ref().and_then(|footer| footer.stated);
        stated.is_some_and(|stated| self.files.len() == stated.files as usize)
    }
}

impl Present {
    fn entry(&self) -> Option<FileEntry> {
        Some(FileEntry { path: self.path.clone(), rows: self.rows?, bytes: self.size_bytes })
    }
}

/// Whether files that are missing came out as large as a completion says: if not, they were encoded otherwise.
fn made_as_listed(encoded: &Encoded, completion: &Completion, present: &BTreeMap<u32, Present>) -> bool {
    encoded
        .files
        .iter()
        .zip(&completion.files)
        .all(|(made, listed)| present.contains_key(&made.sequence) || made.body.len() as u64 == listed.bytes)
}

fn stated(encoded: &Encoded) -> Stated {
    Stated::new(&encoded.ends, encoded.counts, encoded.files.len())
}

fn completion(from: i64, to: i64, files: Vec<FileEntry>, stated: &Stated) -> Completion {
    Completion {
        version: DOCUMENT_VERSION,
        from,
        to,
        files,
        counts: stated.counts,
        first_append_ms: stated.first.append_ms,
        last_append_ms: stated.last.append_ms,
    }
}

/// The files of a batch as its completion lists them: with the size of what stands there, or else of what would be put.
///
/// # Errors
/// A file that stands there and is none of them.
fn entries(cut: &Cut, encoded: &Encoded, present: &BTreeMap<u32, Present>) -> Result<Vec<FileEntry>, String> {
    let place = Place::of(cut);
    let mut entries = Vec::with_capacity(encoded.files.len());
    for file in &encoded.files {
        let path = place.path(&file.folder, file.sequence);
        let bytes = match present.get(&file.sequence) {
            Some(there) if there.path != path || there.rows.is_some_and(|rows| rows != file.rows) => {
                return Err(there.path.clone());
            }
            Some(there) => there.size_bytes,
            None => file.body.len() as u64,
        };
        entries.push(FileEntry { path, rows: file.rows, bytes });
    }
    let last = u32::try_from(encoded.files.len()).unwrap_or(u32::MAX);
    match present.range(last..).next() {
        Some((_, extra)) => Err(extra.path.clone()),
        None => Ok(entries),
    }
}

/// Values of rejected records with their log times: those that are events all the same have keys.
fn rejected(rows: &Rows) -> impl Iterator<Item = (&[u8], i64)> {
    rows.iter().flat_map(|batch| {
        let raw = batch.column_by_name("raw").and_then(|raw| raw.as_binary_opt::<i32>());
        let times =
            batch.column_by_name("_ingested_at").and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
        let both = raw.zip(times);
        (0..batch.num_rows()).filter_map(move |row| {
            let (raw, times) = both?;
            raw.is_valid(row).then(|| (raw.value(row), times.value(row) / 1_000))
        })
    })
}
