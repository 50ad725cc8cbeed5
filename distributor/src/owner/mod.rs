//! One assigned log partition at work on its commit log, in a task of its own.
//!
//! The core ([`commitlog::Owner`], run by [`Owning`]) decides what is done next. This module does it: it reads records into
//! batches ([`fill`]), puts their files ([`files`]), makes missing ones again ([`restore`]), and keeps the deduplication
//! window ([`crate::known`]). It takes orders from the worker and reports to it as [`crate::lane`] describes. Dropping the task at
//! any point leaves the same state as a crash.

mod collection;
pub(crate) mod files;
mod fill;
mod phases;
mod reading;
mod restore;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use commitlog::actor::Unrestored;
use commitlog::decide::Facts;
use commitlog::{FileId, Head, Intent, LiveFile, Op, PassReason, Recipe, Witness};
use commitlog_storage::owning::{Ended, Filled, Owning, PutFile, Restored, Work};
use commitlog_storage::{CommitLog, CommitLogError, Proof, Recent, Session};
use common::config::MissingFiles;
use common::log::Bounds;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::batch::{Batch, Encoded, path};
use crate::close::CloseReason;
use crate::companion::Accompanied;
use crate::context::Context;
use crate::error::PartitionError;
use crate::host::Host;
use crate::known::Known;
use crate::lane::{LaneHandle, LaneState, ORDERS_IN_FLIGHT, Observed, Report, Shared};
use crate::metrics::{BatchDone, Made};
use crate::refusals;
use crate::watch::Progress;
use crate::window::encode_key_run;
use collection::Collection;
use phases::Phases;
use reading::{Ending, Reading};

/// Begins to work on a partition.
pub(crate) fn start(shared: &Shared, host: &Host, id: i32, generation: u64) -> LaneHandle {
    let (orders, receiver) = mpsc::channel(ORDERS_IN_FLIGHT);
    let state = Arc::new(LaneState::default());
    state.begins();
    // Before the task runs: however that ends, the worker is notified.
    let ending = Ending::new(receiver, shared.room.clone());
    let task = tokio::spawn(run(shared.clone(), host.clone(), id, generation, state.clone(), ending));
    LaneHandle::new(generation, state, orders, task)
}

async fn run(shared: Shared, host: Host, id: i32, generation: u64, state: Arc<LaneState>, ending: Ending) {
    let reports = shared.reports.clone();
    let reading = Reading::new(id, generation, &ending, reports.clone());
    let outcome = own(shared, host, id, state, reading).await;
    if let Err(error) = outcome {
        // A worker that has ended needs no reports.
        let _ = reports.send((id, generation, Report::Failed(error)));
    }
    // After the report: whoever finds the lane gone finds the reason, too.
    drop(ending);
}

async fn own(
    shared: Shared,
    host: Host,
    id: i32,
    state: Arc<LaneState>,
    reading: Reading,
) -> Result<(), PartitionError> {
    let context = shared.context.clone();
    let recipe = recipe_of(&context)?;
    let commits = CommitLog::new(context.store.clone(), &context.topic, id);
    let session = Session::new(commits.clone(), host.boot_clock.clone(), host.writer());
    // Until the owner ends.
    let _accompanied: Vec<Accompanied> =
        context.companions.iter().map(|companion| Accompanied::by(companion, id)).collect();
    let work = Partition {
        known: Known::new(context.layout.window_ms, &context.budget),
        parts: context.budget.watch(),
        collection: Collection::default(),
        reading,
        shared,
        host,
        id,
        state,
        commits,
        recipe: recipe.clone(),
        phase: Phase::Other,
        log: Bounds { earliest: 0, latest: 0 },
        reached: None,
        puts: 0,
        ratio: None,
        is_tight: false,
        failure: None,
    };
    match Owning::new(session, recipe, true, work).run().await? {
        Ended::Done => Ok(()),
        Ended::Refused(refusal) => Err(refusals::refused(&context.topic, &context.group, id, &refusal)),
    }
}

/// How new batches are made.
fn recipe_of(context: &Context) -> Result<Recipe, PartitionError> {
    let value = |value: serde_json::Result<serde_json::Value>| {
        value.map_err(|error| PartitionError::Unwritable(format!("the layout cannot be written: {error}")))
    };
    let layout = value(serde_json::to_value(&context.layout))?;
    let encoding = value(serde_json::to_value(context.encoding))?;
    Ok(Recipe { layout, encoding })
}

/// What is open.
enum Phase {
    /// Neither reading nor writing a batch.
    Other,
    /// A batch that takes records until it is closed.
    Fill(Filling),
    /// The batch of an intent.
    Make { batch: Box<Batch>, to: i64 },
    /// A batch that is encoded.
    Write(Box<Writing>),
}

struct Filling {
    batch: Box<Batch>,
    /// Where reading was to begin: the first record may come later.
    asked_at: i64,
    /// No entry is there yet: the first record makes the header.
    begins_log: bool,
    since: Option<Instant>,
    /// The latest time at which it has to be written.
    due: Option<Instant>,
}

struct Writing {
    intent: Intent,
    encoded: Encoded,
    /// Why it was closed; none, if it was adopted.
    reason: Option<CloseReason>,
    phases: Phases,
}

struct Partition {
    shared: Shared,
    host: Host,
    id: i32,
    state: Arc<LaneState>,
    commits: CommitLog,
    recipe: Recipe,
    reading: Reading,
    known: Known,
    /// Of the memory of all windows.
    parts: watch::Receiver<usize>,
    phase: Phase,
    /// As last read.
    log: Bounds,
    /// The end of the commit log and log time there, once reading.
    reached: Option<(i64, Option<i64>)>,
    /// How often files of the open batch were put.
    puts: u32,
    /// Encoded bytes for each byte of rows in the last batch.
    ratio: Option<f64>,
    /// The last batch was written for lack of memory although its rows were on disk: its encoders took too much.
    is_tight: bool,
    collection: Collection,
    /// Of work that could not report it.
    failure: Option<PartitionError>,
}

impl Partition {
    fn check(&mut self) -> Result<(), PartitionError> {
        self.state.begins();
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Publishes the current state. Called before each wait, so that no task waits for a state already reached.
    fn publish(&self) {
        let is_done = self.has_read_all() && self.is_flushed();
        if is_done && !self.state.publish(&self.observed(), true) {
            self.reading.report(Report::Progress);
        } else if !is_done {
            self.state.publish(&self.observed(), false);
        }
    }

    /// A batch that was encoded and is not committed is of no use any more.
    fn tell_of_rival(&self) {
        let Phase::Write(writing) = &self.phase else { return };
        let Intent { from, to, .. } = writing.intent;
        let (topic, partition) = (&self.shared.context.topic, self.id);
        tracing::info!(topic, partition, from, to, "another owner was faster; this batch is dropped");
    }

    fn batch(&self) -> Option<&Batch> {
        match &self.phase {
            Phase::Fill(Filling { batch, .. }) | Phase::Make { batch, .. } => Some(batch),
            Phase::Other | Phase::Write(_) => None,
        }
    }

    fn observed(&self) -> Observed {
        let filling = if let Phase::Fill(filling) = &self.phase { Some(filling) } else { None };
        Observed {
            memory_bytes: self.batch().map_or(0, Batch::memory_bytes),
            reclaimable_bytes: match &self.phase {
                Phase::Fill(filling) => filling.batch.memory_bytes(),
                Phase::Make { batch, .. } => batch.spillable_bytes(),
                Phase::Other | Phase::Write(_) => 0,
            },
            window_entries: self.known.window.len(),
            window_bytes: self.known.window.memory_bytes(),
            open_files: self.batch().map_or(0, Batch::files),
            progress: self.progress(),
            filling_for: filling
                .filter(|filling| !filling.batch.is_empty())
                .and_then(|filling| filling.since)
                .map(|since| since.elapsed()),
        }
    }

    /// `None` while earlier batches are made or restored.
    fn progress(&self) -> Option<Progress> {
        let Phase::Fill(filling) = &self.phase else { return None };
        let (complete_to, complete_ms) = self.reached?;
        let ends = filling.batch.ends();
        Some(Progress {
            position: ends.map_or(complete_to, |ends| ends.to),
            complete_to,
            complete_ms,
            open_since_ms: ends.map(|ends| ends.first.append_ms),
            at_end: self.reading.at_end,
        })
    }

    fn is_flushed(&self) -> bool {
        matches!(&self.phase, Phase::Fill(filling) if filling.batch.is_empty())
    }

    /// Whether everything up to the end of input has been read, if that is known.
    fn has_read_all(&self) -> bool {
        let Phase::Fill(filling) = &self.phase else { return false };
        let target = self.shared.targets.borrow().as_ref().map(|targets| targets.bounds.get(&self.id).copied());
        match target {
            None => false,
            Some(None) => true,
            Some(Some(target)) => {
                let position = filling.batch.ends().map_or(filling.asked_at, |ends| ends.to);
                self.reading.end_seen || position >= target.latest
            }
        }
    }

    fn committed(&mut self, writing: Writing, files: &[commitlog::Stored], head: &Head) {
        let Writing { intent, encoded, reason, mut phases } = writing;
        phases.end("commit");
        let Encoded { overlay, ends, unfit, counts, ratio, .. } = encoded;
        self.ratio = Some(ratio);
        if let Err(error) = self.known.take(overlay, &intent) {
            self.failure = Some(error.into());
        }
        self.reached = Some((head.end, head.clock_ms));
        self.shared.context.metrics.batch_done(&BatchDone {
            topic: &self.shared.context.topic,
            partition: self.id,
            from: intent.from,
            to: intent.to,
            counts: &counts,
            files: files.len() as u64,
            bytes: files.iter().map(|file| file.bytes).sum(),
            last_append_ms: ends.last.append_ms,
            unfit: &unfit,
            made: reason.map_or(Made::Adopted, Made::Closed),
            total: phases.total(),
            phases: phases.all(),
        });
        self.reading.report(Report::Progress);
        self.collection.batch_done(&self.shared, &self.host, self.id);
    }

    fn passed(&self, reason: PassReason, from: i64, to: i64) {
        let Context { topic, group, metrics, .. } = &*self.shared.context;
        let partition = self.id;
        match reason {
            PassReason::Lost => tracing::error!(
                topic,
                partition,
                from,
                to,
                "the log dropped these offsets before they were written: their events are lost. Raise the topic's retention"
            ),
            PassReason::Skipped => tracing::warn!(
                topic,
                partition,
                from,
                to,
                group,
                "the group's offset was set forward: these offsets are skipped"
            ),
        }
        metrics.passed_over(name_of(reason), to - from);
    }
}

fn name_of(reason: PassReason) -> &'static str {
    match reason {
        PassReason::Skipped => "skipped",
        PassReason::Lost => "lost",
    }
}

#[async_trait]
impl Work for Partition {
    type Error = PartitionError;

    async fn facts(&mut self) -> Result<Facts, PartitionError> {
        self.check()?;
        let (committed, log) = self.shared.ask_log(self.id).await?;
        self.log = log;
        let log_id = self.shared.context.log_id.clone();
        Ok(Facts { log_id, earliest: log.earliest, latest: log.latest, committed })
    }

    async fn fill(&mut self, at: i64, last: Option<Witness>, recent: &Recent) -> Result<Filled, PartitionError> {
        self.check()?;
        self.tell_of_rival();
        self.fill_from(at, last, recent).await
    }

    async fn make(&mut self, intent: &Intent, recent: &Recent) -> Result<Filled, PartitionError> {
        self.check()?;
        self.tell_of_rival();
        self.make_again(intent, recent).await
    }

    async fn put_files(&mut self, files: &[u32], proof: Proof) -> Result<Vec<(u32, PutFile)>, PartitionError> {
        self.check()?;
        self.put(files, proof).await
    }

    fn key_run(&mut self) -> Result<(u64, Bytes), PartitionError> {
        self.check()?;
        let Phase::Write(writing) = &mut self.phase else {
            return Err(PartitionError::Internal("a key run was asked for, and no batch is encoded".to_owned()));
        };
        writing.phases.end("files");
        let overlay = &writing.encoded.overlay;
        Ok((overlay.len() as u64, encode_key_run(overlay).into()))
    }

    async fn missing(&mut self, live: Vec<(FileId, LiveFile)>) -> Result<Vec<(FileId, LiveFile)>, PartitionError> {
        self.check()?;
        let context = self.shared.context.clone();
        let missing = files::missing(&*context.store, &context.topic, self.id, live).await?;
        if missing.is_empty() || context.missing == MissingFiles::Restore {
            return Ok(missing);
        }
        let paths: Vec<String> =
            missing.iter().map(|(id, file)| path(&context.topic, self.id, &file.folder, *id)).collect();
        context.metrics.files_missing(missing.len());
        tracing::warn!(
            missing = ?paths,
            topic = context.topic,
            partition = self.id,
            "these files are missing, and replay.missing is 'report'"
        );
        Ok(Vec::new())
    }

    async fn put_again(
        &mut self,
        files: &[FileId],
        recent: &Recent,
        proof: Proof,
    ) -> Result<Vec<(FileId, Restored)>, PartitionError> {
        self.check()?;
        self.restore(files, recent, proof).await
    }

    fn unrestored(&mut self, unrestored: &Unrestored) {
        let names = |ids: &[FileId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
        let Context { topic, metrics, .. } = &*self.shared.context;
        let partition = self.id;
        metrics.files_missing(unrestored.cannot_make.len() + unrestored.of_replaces.len());
        if !unrestored.cannot_make.is_empty() {
            let log_begins_at = self.log.earliest;
            let missing = names(&unrestored.cannot_make);
            tracing::error!(
                ?missing,
                topic,
                partition,
                log_begins_at,
                "these files are missing and cannot be restored, because the log no longer holds their records"
            );
        }
        if !unrestored.of_replaces.is_empty() {
            let missing = names(&unrestored.of_replaces);
            tracing::error!(?missing, topic, partition, "these files are missing, and only a rewrite makes them again");
        }
        if !unrestored.waiting.is_empty() {
            let missing = names(&unrestored.waiting);
            tracing::info!(
                ?missing,
                topic,
                partition,
                "these files are missing, and a replace that is under way has them"
            );
        }
    }

    async fn commit_offset(&mut self, offset: i64) -> Result<(), PartitionError> {
        self.check()?;
        self.reading.report(Report::Commit(offset));
        Ok(())
    }

    fn appended(&mut self, before: i64, ops: &[Op], head: &Head) {
        for op in ops {
            match op {
                Op::Intent(_) => {
                    if let Phase::Write(writing) = &mut self.phase {
                        writing.phases.end("intent");
                    }
                }
                Op::Commit(commit) => match std::mem::replace(&mut self.phase, Phase::Other) {
                    Phase::Write(writing) if writing.intent.from == commit.from => {
                        self.committed(*writing, &commit.files, head);
                    }
                    other => self.phase = other,
                },
                Op::Pass(pass) => self.passed(pass.reason, before, pass.to),
                _ => {}
            }
        }
    }
}

impl From<CommitLogError> for PartitionError {
    fn from(error: CommitLogError) -> Self {
        match error {
            CommitLogError::Store(error) => Self::Store(error),
            CommitLogError::Damaged { key, damage } => Self::Damaged { key, message: refusals::damage(&damage) },
            unwritable @ CommitLogError::Unwritable { .. } => Self::Unwritable(unwritable.to_string()),
            superseded @ CommitLogError::Superseded { .. } => Self::Overtaken(superseded.to_string()),
            error @ CommitLogError::Misheard(_) => Self::Internal(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
