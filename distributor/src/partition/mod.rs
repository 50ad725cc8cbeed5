//! One assigned log partition: from the chain's facts to batches, one after another.

mod error;
mod files;
mod gap;
mod phases;
pub(crate) mod rebuild;
mod rewritten;
mod salvage;
mod state;
mod uploads;
mod walk;
mod write;

use std::sync::Arc;
use std::time::Duration;

use common::config::{MissingFiles, TypeAges};
use common::log::{Bounds, Chunk};
use common::store::Store;
use tokio::time::Instant;

use crate::batch::{Batch, Encoding};
use crate::chain::{ChainStore, Cut, Origin, Part, Plan, PutDocument, Refusal, Revisions, Witness, decide, gap_at};
use crate::layout::Layout;
use crate::metrics::Metrics;
use crate::scratch::Scratch;
use crate::window::{Budget, Window};

pub(crate) use crate::chain::Facts;
pub(crate) use error::PartitionError;
use error::Result;
pub(crate) use files::{MULTIPART_FROM_BYTES, entries as file_entries, missing as missing_files, put_all as put_files};
pub(crate) use phases::Phases;
use rewritten::refuse_while_rewritten;
use salvage::Salvaging;
pub(crate) use uploads::UploadRoom;

const DOCUMENT_VERSION: u32 = 1;
/// How often another owner may put a cut first; more than two in a row is no accident.
const MAX_RIVALRY: usize = 100;

/// The state shared by all partitions of a worker.
pub(crate) struct Context {
    pub store: Arc<dyn Store>,
    pub topic: String,
    pub group: String,
    pub log_id: String,
    /// For new cuts, as is the encoding; a batch whose cut exists keeps its cut's.
    pub layout: Layout,
    pub encoding: Encoding,
    pub max_age: Duration,
    pub ages: TypeAges,
    pub max_rows: u64,
    pub max_bytes: u64,
    /// The most files of a batch.
    pub max_files: usize,
    /// For the windows of all partitions.
    pub budget: Arc<Budget>,
    pub scratch: Scratch,
    /// For files of all partitions on their way to the store.
    pub uploads: UploadRoom,
    /// What to do about missing files of complete batches.
    pub missing: MissingFiles,
    pub metrics: Arc<Metrics>,
}

enum Phase {
    /// The record before `at` comes next and must equal the one that the last cut recorded.
    CheckLast { at: i64, expected: Witness },
    /// Fills a batch whose cut is not put yet.
    Fill(Box<Batch>),
    /// Writes the batch of an existing cut, or the rest of it.
    Redo { cut: Box<Cut>, batch: Box<Batch>, already_complete: bool, salvaging: Option<Box<Salvaging>> },
}

/// What the worker has to do after a chunk or a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Continue,
    /// Restart reading there; the rest of the records read is dropped.
    Restart(i64),
    /// Another owner was faster: read the chain again.
    Resolve,
}

/// Where to start reading a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    At(i64),
    /// Another owner has put a cut: the facts have changed.
    ReadAgain,
}

impl From<Start> for Next {
    fn from(start: Start) -> Self {
        match start {
            Start::At(offset) => Self::Restart(offset),
            Start::ReadAgain => Self::Resolve,
        }
    }
}

pub(crate) struct Partition {
    id: i32,
    chain: ChainStore,
    origin: Option<Origin>,
    log: Bounds,
    /// The group's offset when the partition was taken over.
    committed: Option<i64>,
    window: Window,
    /// Log time at which the window is valid.
    clock_ms: i64,
    /// Oldest batch whose keys are in the window.
    window_from: i64,
    phase: Phase,
    /// The revisions of the batches being walked.
    revisions: Revisions,
    /// When the open batch got its first record.
    filling_since: Option<Instant>,
    /// The latest time at which the open batch has to be written.
    due: Option<Instant>,
    /// Offset to commit: everything before it is complete.
    commit: Option<i64>,
    /// The end of the chain and log time there, once reached.
    reached: Option<(i64, i64)>,
    /// Encoded bytes for each byte of rows in the last batch.
    ratio: Option<f64>,
    /// The last batch was written for lack of memory although its rows were on disk: its encoders took too much.
    is_tight: bool,
    /// The log's end was reached since the last check.
    pub(crate) end_seen: bool,
}

impl Partition {
    /// Takes a partition over: reads the facts, decides, and returns where to start reading.
    ///
    /// # Errors
    /// A refusal, a damaged chain, or the store's error.
    pub(crate) async fn take_over(
        context: &Context,
        id: i32,
        committed: Option<i64>,
        log: Bounds,
    ) -> Result<(Self, i64)> {
        for _ in 0..MAX_RIVALRY {
            let (partition, start) = Self::take_over_once(context, id, committed, log).await?;
            if let Start::At(start) = start {
                return Ok((partition, start));
            }
        }
        Err(refused(
            context,
            id,
            "another owner kept changing the chain; is a second group writing to this trusted zone?",
        ))
    }

    async fn take_over_once(context: &Context, id: i32, committed: Option<i64>, log: Bounds) -> Result<(Self, Start)> {
        let chain = ChainStore::new(context.store.clone(), &context.topic, id);
        refuse_while_rewritten(context, id, &chain).await?;
        let newest_done = chain.newest(Part::Completions).await?;
        let tail = match chain.last_cut().await? {
            Some(cut) => {
                let complete = !cut.is_batch() || chain.completion(cut.from).await?.is_some();
                Some((cut, complete))
            }
            None => None,
        };
        // After the last cut: another owner may begin the chain meanwhile, and puts the origin first.
        let origin = chain.origin().await?;
        let salvaged = match &tail {
            Some((cut, false)) => chain.is_salvaged(cut).await?,
            _ => false,
        };
        let facts = Facts {
            topic: context.topic.clone(),
            partition: id,
            group: context.group.clone(),
            log_id: context.log_id.clone(),
            origin,
            newest_done,
            tail,
            salvaged,
            committed,
            log,
        };
        let plan = decide(&facts).map_err(PartitionError::Refused)?;
        tracing::debug!(topic = context.topic, partition = id, ?plan, "taking over");
        let window = Window::new(context.layout.window_ms, &context.budget);
        let batch =
            Batch::new(&context.topic, id, log.earliest, i64::MIN, &context.layout, context.encoding, &context.scratch)
                .map_err(|message| refused(context, id, message))?;
        let mut partition = Self {
            id,
            chain,
            origin: facts.origin,
            log,
            committed,
            window,
            clock_ms: i64::MIN,
            window_from: log.earliest,
            phase: Phase::Fill(Box::new(batch)),
            revisions: Revisions::new(),
            filling_since: None,
            due: None,
            commit: None,
            reached: None,
            ratio: None,
            is_tight: false,
            end_seen: false,
        };
        let tail = facts.tail.map(|(cut, _)| cut);
        let start = match (plan, tail) {
            (Plan::Redo, Some(cut)) => partition.redo(context, cut, false).await?,
            (Plan::ReadOn { .. }, Some(cut)) => partition.read_on(context, &cut).await?,
            (Plan::Walk { at }, Some(_)) => {
                let holder = partition.chain.cut_at_or_before(at).await?;
                let holder = holder.ok_or_else(|| refused(context, id, format!("no cut holds offset {at}")))?;
                partition.revisions = partition.chain.revisions(holder.from, i64::MAX).await?;
                partition.walk(context, holder).await?
            }
            (Plan::Begin { at }, _) => partition.begin(context, at).await?,
            (Plan::Salvage, Some(cut)) => partition.salvage(context, cut).await?,
            (Plan::Redo | Plan::Salvage | Plan::ReadOn { .. } | Plan::Walk { .. }, None) => {
                return Err(refused(context, id, "the chain changed while it was read".to_owned()));
            }
        };
        partition.chain.forget_summary();
        Ok((partition, start))
    }

    async fn begin(&mut self, context: &Context, at: i64) -> Result<Start> {
        self.window_from = at;
        // Without an origin no offset can be missing.
        if self.origin.is_some() && gap_at(at, self.committed, self.log).is_some() {
            return self.pass_over(context, at, None).await;
        }
        self.phase = Phase::Fill(self.new_batch(context, at)?);
        self.reached = self.origin.is_some().then_some((at, i64::MIN));
        Ok(Start::At(at))
    }

    fn new_batch(&self, context: &Context, at: i64) -> Result<Box<Batch>> {
        let Context { topic, layout, encoding, scratch, .. } = context;
        let batch = Batch::new(topic, self.id, at, self.clock_ms, layout, *encoding, scratch);
        let mut batch = batch.map_err(|message| refused(context, self.id, message))?.of_files(context.max_files);
        if let Some(ratio) = self.ratio {
            batch.expect_ratio(ratio);
        }
        if self.is_tight {
            batch.defer();
        }
        Ok(Box::new(batch))
    }

    /// After a complete batch: the next begins at its end, once the record before it has been compared.
    async fn read_on(&mut self, context: &Context, last: &Cut) -> Result<Start> {
        self.rebuild(context, last.to, context.layout.window_ms).await?;
        (self.filling_since, self.due) = (None, None);
        let at = last.to;
        if gap_at(at, self.committed, self.log).is_some() {
            return self.pass_over(context, at, last.last).await;
        }
        Ok(Start::At(self.read_from(context, at, last.last)?))
    }

    /// Begins the next batch at `at`. `last` is the record before it, if it was recorded and may still exist.
    fn read_from(&mut self, context: &Context, at: i64, last: Option<Witness>) -> Result<i64> {
        self.reached = Some((at, self.clock_ms));
        match last.filter(|_| self.log.earliest < at) {
            Some(expected) => {
                self.phase = Phase::CheckLast { at, expected };
                Ok(at - 1)
            }
            None => {
                self.phase = Phase::Fill(self.new_batch(context, at)?);
                Ok(at)
            }
        }
    }

    /// Writes the batch of an existing cut, under the cut's layout and encoding.
    async fn redo(&mut self, context: &Context, cut: Cut, already_complete: bool) -> Result<Start> {
        let from = cut.from;
        let encoding = cut.encoding.unwrap_or(context.encoding);
        // The last cut may be open, and `decide` or `walk` has checked that the log has it. No other can be.
        if self.log.earliest > from {
            let message = format!("the batch {from}..{} is not complete, though later ones are", cut.to);
            return Err(refused(context, self.id, message));
        }
        self.rebuild(context, from, cut.layout.window_ms).await?;
        let batch = Batch::new(&context.topic, self.id, from, self.clock_ms, &cut.layout, encoding, &context.scratch)
            .map_err(|message| {
            refused(context, self.id, format!("the batch {from}..{} cannot be made by this build: {message}", cut.to))
        })?;
        let batch = batch.of_revision(cut.revision);
        let (cut, batch) = (Box::new(cut), Box::new(batch));
        self.phase = Phase::Redo { cut, batch, already_complete, salvaging: None };
        Ok(Start::At(from))
    }

    /// Makes the window valid at `at` for a window of `window_ms`, from the key runs of the chain.
    async fn rebuild(&mut self, context: &Context, at: i64, window_ms: i64) -> Result<()> {
        let begun = Instant::now();
        let rebuilt = rebuild::rebuild(&self.chain, at, window_ms, &context.budget).await?;
        tracing::debug!(
            topic = context.topic,
            partition = self.id,
            offset = at,
            keys = rebuilt.window.len(),
            took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            "window rebuilt"
        );
        (self.window, self.clock_ms, self.window_from) = (rebuilt.window, rebuilt.clock_ms, rebuilt.window_from);
        Ok(())
    }

    /// Takes the records of a chunk.
    pub(crate) async fn take(&mut self, context: &Context, chunk: &Chunk) -> Result<Next> {
        let mut next = 0;
        while let (Some(offset), Some(append_ms)) = (chunk.offsets.get(next), chunk.times_ms.get(next)) {
            match &mut self.phase {
                Phase::Fill(batch) => {
                    if batch.is_empty() {
                        if self.origin.is_none() {
                            let first = Witness::of(&chunk.records.get(next), *append_ms);
                            if !self.put_origin(context, *offset, first).await? {
                                return Ok(Next::Resolve);
                            }
                        }
                        let now = Instant::now();
                        (self.filling_since, self.due) = (Some(now), now.checked_add(context.max_age));
                    }
                    let (taken_to, is_full) = self.fill(context, chunk, next)?;
                    next = taken_to;
                    if is_full {
                        match self.flush(context).await? {
                            Next::Continue => {}
                            next => return Ok(next),
                        }
                    }
                }
                Phase::CheckLast { at, expected } => {
                    let at = *at;
                    if *offset != at - 1 || Witness::of(&chunk.records.get(next), *append_ms) != *expected {
                        return Err(refused(
                            context,
                            self.id,
                            format!(
                                "the record at offset {} is not the one that was written to the trusted zone: the topic was recreated or \
                             replaced. Use a new log.events_topic for the new log",
                                at - 1
                            ),
                        ));
                    }
                    self.phase = Phase::Fill(self.new_batch(context, at)?);
                    next += 1;
                }
                Phase::Redo { cut, batch, salvaging, .. } => {
                    if *offset >= cut.to {
                        return Err(changed(context, cut));
                    }
                    let end = chunk.offsets.partition_point(|offset| *offset < cut.to);
                    next = match salvaging {
                        None => batch.push_all(&self.window, chunk, next..end, |_| true)?,
                        Some(salvaging) => salvaging.push_all(batch, &self.window, chunk, next..end)?,
                    };
                    if batch.ends().is_some_and(|ends| ends.to == cut.to) {
                        let is_salvage = salvaging.is_some();
                        let start = if is_salvage {
                            self.finish_salvage(context).await
                        } else {
                            self.finish_redo(context).await
                        };
                        return start.map(Next::from);
                    }
                }
            }
        }
        Ok(Next::Continue)
    }

    /// Fills the open batch with records of a chunk, from index `from` on, until it is full. Returns the index of the
    /// first record not taken, and whether the batch is full.
    fn fill(&mut self, context: &Context, chunk: &Chunk, from: usize) -> Result<(usize, bool)> {
        let Phase::Fill(batch) = &mut self.phase else { return Ok((from, false)) };
        // A group never exceeds the batch.
        let room = usize::try_from(context.max_rows.saturating_sub(batch.rows())).unwrap_or(usize::MAX);
        let range = from..chunk.offsets.len().min(from.saturating_add(room.max(1)));
        let end = range.end;
        let mut is_full = false;
        let taken_to = batch.push_all(&self.window, chunk, range, |batch| {
            if let Some(age) = batch.take_begun().and_then(|begun| context.ages.for_type(begun)) {
                let due = Instant::now().checked_add(age);
                self.due = [self.due, due].into_iter().flatten().min();
            }
            is_full = batch.rows() >= context.max_rows || batch.estimated_bytes() >= context.max_bytes;
            !is_full
        })?;
        // The next record would begin a file too many.
        Ok((taken_to, is_full || taken_to < end))
    }

    /// Fixes the origin with the first record. False if another owner fixed another one.
    async fn put_origin(&mut self, context: &Context, start: i64, first: Witness) -> Result<bool> {
        let origin = Origin {
            version: DOCUMENT_VERSION,
            topic: context.topic.clone(),
            partition: self.id,
            start,
            log_id: context.log_id.clone(),
            first,
        };
        let put = self.chain.put_origin(&origin).await?;
        // Aborted records may precede the first one: the chain begins with the first committed record.
        self.window_from = start;
        self.phase = Phase::Fill(self.new_batch(context, start)?);
        self.origin = Some(origin);
        self.reached = Some((start, i64::MIN));
        Ok(put == PutDocument::Ours)
    }

    /// The offset to commit, once.
    pub(crate) fn take_commit(&mut self) -> Option<i64> {
        self.commit.take()
    }
}

/// The log does not have the records of a cut.
fn changed(context: &Context, cut: &Cut) -> PartitionError {
    let message = format!(
        "the records of the batch {}..{} are not those it was cut from: the topic was truncated, recreated or replaced. \
         Use a new log.events_topic for the new log",
        cut.from, cut.to
    );
    refused(context, cut.partition, message)
}

fn refused(context: &Context, partition: i32, message: impl std::fmt::Display) -> PartitionError {
    PartitionError::Refused(Refusal(format!("{}/{partition}: {message}", context.topic)))
}

#[cfg(test)]
mod encodings;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod rivals;
