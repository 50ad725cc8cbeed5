//! Closes an open batch whose head retention has deleted.
//!
//! The worker that cut the batch may still hold its records, and may put its files at any later time. The rows of those
//! files must not be written again until it is certain that the files will not appear:
//!
//! 1. A *round* is begun, which fixes the offset from which on everything is still in the log. If retention deletes
//!    more before the round is complete, a further round is begun.
//! 2. The *names* of all files are reserved, those of the cut and those of earlier rounds: an empty stand-in is put
//!    wherever no file exists. From then on the store refuses files under these names, and a worker that puts one gives
//!    the batch up. Existing files stay.
//! 3. The rows in those files are read. The rows in none of them are taken from the log, by the rules of the cut's
//!    layout. Keys in the files count as if their records had been read.
//! 4. They go to one further file for each folder of the cut, with the round in its name. Then the key run is put, and
//!    then the completion, which records the loss.
//!
//! In every round all workers write the same files, because their inputs are fixed before. If all files of a round
//! exist, no rows are left to write, and no later round counts: all workers put the same completion. The model of the
//! chain (`chain/model`) checks it step by step.

use std::ops::Range;

use common::event::EventFormat;
use common::log::Chunk;
use futures_util::{FutureExt, StreamExt};

use super::files::{self, Known};
use super::phases::Phases;
use super::write::same_files;
use super::{Context, DOCUMENT_VERSION, Partition, PartitionError, Phase, Result, Start, changed, refused};
use crate::batch::{
    Batch, BatchError, Counts, Place, Remaining, RemainingFiles, STATED, Series, StandIns, Stated, UNFIT, distinct,
};
use crate::chain::{Completion, Cut, Damage, FileEntry, PutDocument, Salvage};
use crate::footer::{Footer, FooterError};
use crate::in_turn::in_turn;
use crate::metrics::BatchDone;
use crate::window::{Window, encode_key_run};
use crate::written::Written;

/// A round in progress: its facts, before the log is read.
pub(super) struct Salvaging {
    round: Salvage,
    /// The round whose files all existed, 0 for those of the cut. No rows are left to write then.
    whole: Option<u32>,
    /// As the completion will list them, up to the previous round, or the whole one.
    files: Vec<FileEntry>,
    /// If all files of the cut exist: their facts about the batch.
    stated: Option<Stated>,
    /// Values that did not fit their column, in the existing files.
    unfit: u64,
    remaining: Remaining,
    /// Rows whose records retention has deleted.
    kept_of_lost: u64,
}

impl Salvaging {
    /// Takes records of a chunk. Returns the index of the first record not taken.
    ///
    /// # Errors
    /// As for [`Batch::push_all`].
    pub(super) fn push_all(
        &mut self,
        batch: &mut Batch,
        window: &Window,
        chunk: &Chunk,
        range: Range<usize>,
    ) -> std::result::Result<usize, BatchError> {
        let end = range.end;
        for index in range {
            if let (Some(offset), Some(append_ms)) = (chunk.offsets.get(index), chunk.times_ms.get(index)) {
                batch.push_remaining(&mut self.remaining, window, &chunk.records.get(index), *offset, *append_ms)?;
            }
        }
        Ok(end)
    }
}

/// The objects under the names of the files of the cut, and of rounds of salvage.
#[derive(Default)]
struct Taken {
    /// As the completion will list them.
    files: Vec<FileEntry>,
    /// The round whose files all existed, 0 for those of the cut.
    whole: Option<u32>,
    /// If all files of the cut exist: their facts about the batch.
    stated: Option<Stated>,
    /// Values that did not fit their column, in the existing files.
    unfit: u64,
    /// Offsets of all their rows; keys of those whose records retention has deleted.
    written: Written,
}

impl Partition {
    /// Begins to close the open batch of `cut`, the last one.
    pub(super) async fn salvage(&mut self, context: &Context, cut: Cut) -> Result<Start> {
        let from = cut.from;
        self.rebuild(context, from, cut.layout.window_ms).await?;
        let encoding = cut.encoding.unwrap_or(context.encoding);
        let batch = Batch::new(&context.topic, self.id, from, self.clock_ms, &cut.layout, encoding, &context.scratch);
        let unknown = |message| {
            refused(context, self.id, format!("the batch {from}..{} cannot be made by this build: {message}", cut.to))
        };
        let mut batch = batch.map_err(unknown)?;
        let reader = cut.layout.reader().map_err(unknown)?;
        if self.chain.completion(from).await?.is_some() {
            // Its first owner has completed it after all.
            return Ok(Start::ReadAgain);
        }
        let round = self.begin_round(&cut).await?;
        tracing::warn!(
            topic = context.topic,
            partition = self.id,
            from,
            to = cut.to,
            log_from = round.log_from,
            round = round.round,
            "the log dropped records of this batch before all its files were written; it is closed with the remaining ones"
        );
        let (mut taken, stand_ins) = (Taken::default(), batch.stand_ins());
        for number in 0..round.round {
            taken.take(context, &cut, number, &stand_ins, &reader, round.log_from).await?;
            if taken.whole.is_some() {
                break;
            }
        }
        let Taken { files, whole, stated, unfit, written } = taken;
        let (lost, there): (Vec<i64>, Vec<i64>) =
            written.offsets.into_iter().partition(|offset| *offset < round.log_from);
        let mut keys = written.keys;
        keys.sort_unstable_by_key(|key| key.offset);
        keys.iter().for_each(|key| batch.know(key.fingerprint, key.time_ms));
        let at = round.log_from;
        let is_read = at >= cut.to;
        let (remaining, kept_of_lost) = (Remaining::new(&cut, there), lost.len() as u64);
        let salvaging = Salvaging { remaining, kept_of_lost, round, whole, files, stated, unfit };
        self.phase = Phase::Redo {
            cut: Box::new(cut),
            batch: Box::new(batch),
            already_complete: false,
            salvaging: Some(Box::new(salvaging)),
        };
        if is_read { self.finish_salvage(context).await } else { Ok(Start::At(at)) }
    }

    /// The newest round, or a further one if retention has deleted more since.
    async fn begin_round(&mut self, cut: &Cut) -> Result<Salvage> {
        let needed = self.log.earliest.min(cut.to);
        let mut newest: Option<Salvage> = None;
        loop {
            let number = newest.as_ref().map_or(1, |newest| newest.round + 1);
            if let Some(found) = self.chain.salvage(cut.from, number).await? {
                newest = Some(found);
                continue;
            }
            if let Some(newest) = newest.take_if(|newest| newest.log_from >= needed) {
                return Ok(newest);
            }
            let further = Salvage {
                version: DOCUMENT_VERSION,
                topic: cut.topic.clone(),
                partition: cut.partition,
                from: cut.from,
                to: cut.to,
                round: number,
                log_from: needed,
            };
            newest = match self.chain.put_salvage(&further).await? {
                PutDocument::Ours => return Ok(further),
                PutDocument::Theirs(theirs) => Some(theirs),
            };
        }
    }

    /// All remaining records of the batch are read.
    pub(super) async fn finish_salvage(&mut self, context: &Context) -> Result<Start> {
        let mut phases = Phases::begin();
        let placeholder = Phase::Fill(self.new_batch(context, 0)?);
        let Phase::Redo { cut, batch, salvaging: Some(salvaging), .. } =
            std::mem::replace(&mut self.phase, placeholder)
        else {
            return Err(refused(context, self.id, "no batch is being closed".to_owned()));
        };
        let Salvaging { round, whole, mut files, stated, unfit: unfit_there, remaining, kept_of_lost } = *salvaging;
        let is_same = round.log_from >= cut.to
            || batch.ends().is_some_and(|ends| (Some(ends.last), ends.to) == (cut.last, cut.to));
        let place = place(&cut, round.round);
        let RemainingFiles { files: made, overlay, duplicates, replaced, unfit, foreign_row } =
            batch.finish_remaining(&remaining, place)?;
        if !is_same || foreign_row.is_some() {
            return Err(changed(context, &cut));
        }
        phases.end("encode");
        if whole.is_none() {
            match files::put_all(&*context.store, "", place, made, None, &context.uploads).await? {
                Some(entries) => files.extend(entries),
                // Another worker has begun a further round.
                None => return Ok(Start::ReadAgain),
            }
        }
        phases.end("files");
        let counts = match (whole, stated) {
            (Some(0), Some(stated)) => stated.counts(unfit_there),
            _ => {
                let unfit = unfit_there + unfit.values().sum::<u64>();
                Counts { replaced, unfit, ..counts(&files, duplicates) }
            }
        };
        let damage = match (whole, stated) {
            (Some(0), Some(_)) => None,
            _ => Some(self.damage(&cut, &round, whole, kept_of_lost).await?),
        };
        let completion = Completion {
            version: DOCUMENT_VERSION,
            from: cut.from,
            to: cut.to,
            files,
            counts,
            first_append_ms: cut.first.map_or(cut.clock_ms, |first| first.append_ms),
            last_append_ms: cut.last.map_or(cut.clock_ms, |last| last.append_ms),
            damage,
        };
        self.chain.put_key_run(&self.chain.key_run_key(cut.from), encode_key_run(&overlay)).await?;
        phases.end("keys");
        if let PutDocument::Theirs(theirs) = self.chain.put_completion(&completion).await?
            && !same_files(&theirs.files, &completion.files)
        {
            let message = format!(
                "the batch {}..{} was completed with other files than are left of it; the trusted zone was altered",
                cut.from, cut.to
            );
            return Err(refused(context, self.id, message));
        }
        phases.end("completion");
        self.commit = Some(cut.to);
        if let Some(Damage { log_from, lost_offsets, .. }) = completion.damage {
            tracing::error!(
                topic = context.topic,
                partition = self.id,
                from = cut.from,
                to = cut.to,
                log_from,
                lost_offsets,
                "this batch is damaged: of some offsets before log_from nothing is written, because the log dropped them. Raise the topic's retention"
            );
            context.metrics.damaged(lost_offsets);
        }
        context.metrics.batch_done(&BatchDone {
            topic: &context.topic,
            partition: self.id,
            from: completion.from,
            to: completion.to,
            counts: &completion.counts,
            files: completion.files.len() as u64,
            bytes: completion.files.iter().map(|file| file.bytes).sum(),
            last_append_ms: completion.last_append_ms,
            unfit: &unfit,
            fresh: true,
            total: phases.total(),
            phases: phases.all(),
        });
        Ok(Start::ReadAgain)
    }

    async fn damage(&mut self, cut: &Cut, round: &Salvage, whole: Option<u32>, kept_of_lost: u64) -> Result<Damage> {
        let rounds = whole.unwrap_or(round.round);
        let log_from = match rounds {
            0 => round.log_from,
            number => self.chain.salvage(cut.from, number).await?.map_or(round.log_from, |round| round.log_from),
        };
        // Rows were counted up to where this round reads from, which is no earlier.
        let offsets = (round.log_from - cut.from).unsigned_abs();
        Ok(Damage { rounds, log_from, lost_offsets: offsets.saturating_sub(kept_of_lost) })
    }
}

/// The place of the files of the cut (0) or of a round of salvage.
fn place(cut: &Cut, round: u32) -> Place<'_> {
    let series = if round == 0 { Series::Cut } else { Series::Salvage(round) };
    Place { series, ..Place::of(cut) }
}

impl Taken {
    /// Reserves the names of all files of the cut (0) or of a round, each with a file without rows unless it exists,
    /// and reads the rows of the existing files. The objects under the names never change after that.
    async fn take(
        &mut self,
        context: &Context,
        cut: &Cut,
        number: u32,
        stand_ins: &StandIns,
        reader: &EventFormat,
        log_from: i64,
    ) -> Result<()> {
        let folders = cut.folders.as_deref().unwrap_or_default();
        let folders = if number == 0 { folders.iter().map(String::as_str).collect() } else { distinct(folders) };
        let place = place(cut, number);
        let mut names = in_turn((0..).zip(folders).map(|(sequence, folder)| {
            let stand_in = stand_ins.of(place, folder, sequence);
            async move { files::take_name(&*context.store, place, stand_in?).await }.boxed()
        }));
        let (mut is_whole, mut stated) = (true, None);
        while let Some(taken) = names.next().await {
            let (path, known) = taken?;
            let (rows, bytes) = match known {
                Known::File { footer, bytes } => {
                    self.read(context, &path, &footer, reader, log_from).await?;
                    stated = footer.fact(STATED).and_then(|fact| serde_json::from_str(fact).ok());
                    (footer.rows(), bytes)
                }
                Known::StandIn { bytes } => {
                    is_whole = false;
                    (0, bytes)
                }
                Known::Gone => return Err(missing(path)),
            };
            self.files.push(FileEntry { path, rows, bytes });
        }
        if is_whole {
            self.whole = Some(number);
            self.stated = stated.filter(|_| number == 0);
        }
        Ok(())
    }

    async fn read(
        &mut self,
        context: &Context,
        path: &str,
        footer: &Footer,
        reader: &EventFormat,
        log_from: i64,
    ) -> Result<()> {
        let known = self.written.keys.len();
        read(context, &mut self.written, path, footer, reader).await?;
        // The others are taken from the log.
        let lost = self.written.keys.split_off(known).into_iter().filter(|key| key.offset < log_from);
        self.written.keys.extend(lost);
        self.unfit += footer.fact(UNFIT).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        Ok(())
    }
}

fn counts(files: &[FileEntry], duplicates: u64) -> Counts {
    let rows_of = |is_event: bool| {
        let files = files.iter().filter(|file| file.path.starts_with("events/") == is_event);
        files.map(|file| file.rows).sum::<u64>()
    };
    let (written, rejected) = (rows_of(true), rows_of(false));
    Counts { read: written + rejected + duplicates, written, duplicates, rejected, ..Counts::default() }
}

async fn read(
    context: &Context,
    written: &mut Written,
    path: &str,
    footer: &Footer,
    reader: &EventFormat,
) -> Result<()> {
    match written.read(&*context.store, path, footer, reader).await {
        Ok(()) => Ok(()),
        Err(FooterError::Store(error)) => Err(error.into()),
        Err(FooterError::Gone) => Err(missing(path.to_owned())),
        Err(FooterError::Unreadable(message)) => Err(PartitionError::Damaged {
            key: path.to_owned(),
            message: format!("its rows cannot be read: {message}"),
        }),
    }
}

fn missing(key: String) -> PartitionError {
    PartitionError::Damaged { key, message: "it was there and has just been removed".to_owned() }
}
