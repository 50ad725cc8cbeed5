//! Batches made again: from the log where it holds their records, else from their files.

use std::collections::BTreeMap;

use super::super::AuditError;
use super::known::{Known, Present, damaged};
use super::partition::Pass;
use super::runs::holds;
use super::{Stop, refused};
use crate::batch::{Batch, Counts, Encoded, Encoding, Place, Stated};
use crate::chain::{Completion, Cut, CutKind, DOCUMENT_VERSION, FileEntry};
use crate::layout::Layout;
use crate::records::{Filled, Records};
use crate::window::{Window, encode_key_run};

impl Pass<'_> {
    /// The records of a range, as a batch of a revision; `None` if the log has none there.
    pub(super) async fn make(
        &mut self,
        from: i64,
        to: i64,
        layout: &Layout,
        revision: u32,
        encoding: Option<Encoding>,
    ) -> Result<Option<Encoded>, Stop> {
        let Self { rebuilder, id, windows, records, budget, .. } = self;
        let (topic, log) = (&rebuilder.topic, &*rebuilder.log);
        let no_keys = Window::new(layout.window_ms, budget);
        let window = windows.of(layout.window_ms).unwrap_or(&no_keys);
        let encoding = encoding.unwrap_or(rebuilder.encoding);
        let batch = Batch::new(topic, *id, from, windows.clock_ms, layout, encoding, &rebuilder.scratch);
        let batch = batch.map_err(|message| Stop::Failed(AuditError::Layout(message)))?;
        let mut batch = batch.of_revision(revision);
        let records = match records {
            Some(records) => {
                records.go_to(from).await?;
                records
            }
            None => records.insert(Records::open(log, topic, *id, from).await?),
        };
        if records.fill(&mut batch, window, from, to, rebuilder.batch_memory).await? == Filled::LogEnded
            && to > self.log.latest
        {
            return refused(format!(
                "the log ends at {}, before offset {to} that was written: it is not the log that the files were written from",
                self.log.latest
            ));
        }
        Ok(batch.finish()?)
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
        if let Some(cut) = known.cut.clone() {
            let key = known.key_run(&self.chain, from).filter(|key| self.has_run(from, key));
            if self.may_have_been_emptied(&known, is_newest) && self.emptied(&cut, &known).await? {
                return Ok(());
            }
            if let Some(key) = key.filter(|_| known.is_whole()) {
                let run = self.existing_run(&key).await?;
                self.take(&key, &run, cut.clock_ms)?;
                self.passed(&cut, false, None);
                return Ok(());
            }
            if known.is_whole() && self.chain.is_summarised(from).await? {
                // Its keys are older than anything they could matter to.
                self.passed(&cut, false, None);
                return Ok(());
            }
            if known.number == 0 && known.completion.is_none() && is_newest && !known.is_all_there() {
                // Under way, or broken off: a distributor completes it.
                self.passed(&cut, false, None);
                return Ok(());
            }
        }
        if known.completion.as_ref().is_some_and(|completion| completion.damage.is_some()) {
            return refused(damaged(from));
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
        let Some(encoded) = self.make(from, to, layout, known.number, encoding).await? else {
            return other("has no record");
        };
        let stated = stated(&encoded);
        if encoded.ends.to != to {
            return other(&format!("ends at {}", encoded.ends.to));
        }
        if known.footer.as_ref().and_then(|footer| footer.stated).is_some_and(|said| said != stated) {
            return other("is not the one that its files speak of: is this the log that they were written from?");
        }
        let listed = known.listed();
        let encoding = encoding.filter(|_| listed.is_none_or(|done| made_as_listed(&encoded, done, &known.files)));
        let cut = Cut { encoding, revision: known.number, ..self.cut_of(from, to, layout, &stated) };
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
        let done = completion(from, to, entries, &stated, encoded.counts);
        if let Some(there) = listed
            && (there.counts, there.files.len()) != (done.counts, done.files.len())
        {
            return other("has other counts or files than its completion");
        }
        self.report.recounted_batches += 1;
        let is_open = is_newest && known.number == 0 && listed.is_none() && done.files.len() > known.files.len();
        if is_open {
            self.passed(&cut, known.cut.is_none(), None);
            return Ok(());
        }
        let (key, is_there) = match known.key_run(&self.chain, from) {
            Some(key) => (key.clone(), self.has_run(from, &key)),
            None => {
                let (key, there) = self.find_run(from, &known, layout, |there| there == run).await?;
                (key, there.is_some())
            }
        };
        if !is_there {
            self.put_run(&key, &run).await?;
        }
        self.take(&key, &run, cut.clock_ms)?;
        self.stands(known, cut, done, key);
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
        let said = stated.as_ref().map(|stated| self.cut_of(from, to, layout, stated));
        let cut = match &known.cut {
            // Its own end of the window is that of the layout it was cut with.
            Some(cut) if known.number == 0 => Some(cut.clone()),
            Some(cut) => {
                Some(Cut { window_from: said.map_or(cut.window_from, |said| said.window_from), ..cut.clone() })
            }
            None => said,
        };
        let Some(cut) = cut else { return unsaid("cut") };
        let cut = Cut { layout: layout.clone(), encoding: known.encoding(), revision: known.number, ..cut };
        let done = match (known.listed(), &stated) {
            (Some(listed), _) => listed.clone(),
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
                let unfit = known.footer.as_ref().map_or(0, |footer| footer.unfit);
                completion(from, to, entries, stated, stated.counts(unfit))
            }
        };
        if known.has_lost_its_revision() && self.chain.is_summarised(from).await? {
            // Its keys are older than anything they could matter to, and need not be there.
            self.stands(known, cut, done, self.chain.key_run_key(from));
            return Ok(());
        }
        let (key, run) = self.keys_from_files(from, &known, layout).await?;
        self.take(&key, &run, cut.clock_ms)?;
        self.stands(known, cut, done, key);
        Ok(())
    }

    /// The key run of a batch that the log no longer holds: what is there of it, or else made from rows, and put.
    async fn keys_from_files(&mut self, from: i64, known: &Known, layout: &Layout) -> Result<(String, Vec<u8>), Stop> {
        let named = known.key_run(&self.chain, from);
        if let Some(key) = named.clone().filter(|key| self.has_run(from, key)) {
            let run = self.existing_run(&key).await?;
            return Ok((key, run));
        }
        let run = self.run_from_rows(known, layout).await?;
        let key = match named {
            Some(key) => key,
            None => match self.find_run(from, known, layout, |there| holds(there, &run)).await? {
                (key, Some(there)) => return Ok((key, there)),
                (key, None) => key,
            },
        };
        self.report.key_runs_from_rows += 1;
        self.put_run(&key, &run).await?;
        Ok((key, run))
    }

    pub(super) fn cut_of(&self, from: i64, to: i64, layout: &Layout, stated: &Stated) -> Cut {
        self.cut(CutKind::Batch, from, to, layout, stated.clock_ms, Some((stated.first, stated.last)))
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

pub(super) fn stated(encoded: &Encoded) -> Stated {
    Stated::new(&encoded.ends, encoded.counts, encoded.files.len())
}

pub(super) fn completion(from: i64, to: i64, files: Vec<FileEntry>, stated: &Stated, counts: Counts) -> Completion {
    Completion {
        version: DOCUMENT_VERSION,
        from,
        to,
        files,
        counts,
        damage: None,
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
