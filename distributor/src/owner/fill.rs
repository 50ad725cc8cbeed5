//! Reads records into batches: new ones, until a limit closes them, and those of intents.

use std::time::Duration;

use commitlog::actor::Encoded as CoreEncoded;
use commitlog::{Header, Intent, Witness};
use commitlog_storage::Recent;
use commitlog_storage::owning::Filled;
use tokio::time::Instant;

use super::phases::Phases;
use super::{Filling, Partition, Phase, Writing};
use crate::batch::{Batch, Encoded, Encoding, Ends};
use crate::close::{CloseFacts, CloseLimits, CloseReason, close_reason};
use crate::context::Context;
use crate::error::PartitionError;
use crate::layout::Layout;
use crate::refusals;

/// How often the core is asked whether files that could not be restored can be now.
const WAKE_EVERY: Duration = Duration::from_secs(300);

/// What came of the records that are there.
enum Took {
    /// More have to come.
    All,
    /// The batch takes no more, and why.
    Full(CloseReason),
    /// The batch of the intent has all of its records.
    Whole,
    /// They are not those that were there.
    Others,
}

impl Partition {
    /// Fills a batch from `at` on, or goes on filling it, until it has to be closed.
    pub(super) async fn fill_from(
        &mut self,
        at: i64,
        last: Option<Witness>,
        recent: &Recent,
    ) -> Result<Filled, PartitionError> {
        let context = self.shared.context.clone();
        let keys_from = recent.keys_from();
        let window_ms = context.layout.window_ms;
        let goes_on = matches!(&self.phase, Phase::Fill(filling) if filling.asked_at == at);
        if !goes_on || !self.known.is_valid(recent, at, window_ms, keys_from) {
            self.phase = Phase::Other;
            self.know(at, window_ms, None, recent).await?;
            let batch = self.new_batch(&context, at)?;
            let begins_log = recent.is_empty();
            self.phase = Phase::Fill(Filling { batch, asked_at: at, begins_log, since: None, due: None });
            self.reached = Some((at, self.known.clock_ms()));
            self.reading.go_to(at, last);
        }
        let wake_at = Instant::now() + WAKE_EVERY;
        loop {
            let reason = match self.take(&context)? {
                Took::Others => return Ok(Filled::OtherRecords),
                Took::Full(reason) => Some(reason),
                Took::Whole => return Err(PartitionError::Internal("a new batch has no end".to_owned())),
                Took::All => match self.reason(&context, false) {
                    None if self.make_room(&context)? => self.reason(&context, true),
                    reason => reason,
                },
            };
            if let Some(reason) = reason {
                return self.close(&context, reason);
            }
            if let Some(error) = self.reading.unreadable.take() {
                return Err(error.into());
            }
            if wake_at <= Instant::now() {
                return Ok(Filled::Woken);
            }
            let due =
                if let Phase::Fill(Filling { due: Some(due), .. }) = self.phase { due.min(wake_at) } else { wake_at };
            if !self.wait(due).await? {
                return Ok(Filled::Ended);
            }
        }
    }

    /// Waits for an order or anything else that may be reason to act, at most until `due`. False: the worker has ended.
    async fn wait(&mut self, due: Instant) -> Result<bool, PartitionError> {
        self.publish();
        let goes_on = tokio::select! {
            biased;
            order = self.reading.order() => order.is_some(),
            () = tokio::time::sleep_until(due) => true,
            () = self.state.asked_for_room() => true,
            changed = self.parts.changed() => {
                self.known.window.fit()?;
                changed.is_ok()
            }
            changed = self.shared.targets.changed() => changed.is_ok(),
        };
        self.state.begins();
        Ok(goes_on)
    }

    /// Makes the batch of an intent.
    pub(super) async fn make_again(&mut self, intent: &Intent, recent: &Recent) -> Result<Filled, PartitionError> {
        let context = self.shared.context.clone();
        let Intent { from, to, window_from, .. } = *intent;
        let (layout, encoding) = understood(&context, self.id, intent)?;
        self.phase = Phase::Other;
        self.know(from, layout.window_ms, Some(window_from), recent).await?;
        let clock_ms = self.known.clock_ms().unwrap_or(i64::MIN);
        let batch = Batch::new(&context.topic, self.id, from, clock_ms, &layout, encoding, &context.scratch)
            .map_err(|message| cannot_make(&context, self.id, intent, &message))?;
        self.reading.go_to(from, None);
        self.phase = Phase::Make { batch: Box::new(batch), to };
        loop {
            match self.take(&context)? {
                Took::Others => return Ok(Filled::OtherRecords),
                Took::Whole => return self.finish_again(intent),
                Took::All | Took::Full(_) => {}
            }
            if let Some(error) = self.reading.unreadable.take() {
                return Err(error.into());
            }
            self.make_room(&context)?;
            let far = Instant::now() + WAKE_EVERY;
            if !self.wait(far).await? {
                return Ok(Filled::Ended);
            }
        }
    }

    fn finish_again(&mut self, intent: &Intent) -> Result<Filled, PartitionError> {
        let phases = Phases::begin();
        let Phase::Make { batch, .. } = std::mem::replace(&mut self.phase, Phase::Other) else {
            return Err(PartitionError::Internal("no batch is being made".to_owned()));
        };
        let Some(encoded) = batch.finish()? else { return Ok(Filled::OtherRecords) };
        self.encoded(intent.clone(), encoded, None, None, phases)
    }

    /// Takes the records that are there.
    fn take(&mut self, context: &Context) -> Result<Took, PartitionError> {
        loop {
            if !self.reading.is_as_expected() {
                return Ok(Took::Others);
            }
            let Some((chunk, index)) = self.reading.rest() else { return Ok(Took::All) };
            let Some(offset) = chunk.offsets.get(index) else { return Ok(Took::All) };
            self.state.is_to_take(chunk);
            match &mut self.phase {
                Phase::Fill(filling) => {
                    if filling.batch.is_empty() {
                        // Aborted records may precede the first one: the commit log begins with the first committed
                        // record.
                        if filling.begins_log && *offset != filling.batch.from() {
                            filling.batch = new_batch(context, self.id, *offset, None, self.ratio, self.is_tight)?;
                        }
                        let now = Instant::now();
                        (filling.since, filling.due) = (Some(now), now.checked_add(context.max_age));
                    }
                    // A group never exceeds the batch.
                    let room =
                        usize::try_from(context.max_rows.saturating_sub(filling.batch.rows())).unwrap_or(usize::MAX);
                    let range = index..chunk.offsets.len().min(index.saturating_add(room.max(1)));
                    let (end, mut reason, mut due) = (range.end, None, filling.due);
                    let taken_to = filling.batch.push_all(&self.known.window, chunk, range, &mut |batch| {
                        if let Some(age) = batch.take_begun().and_then(|begun| context.ages.for_type(begun)) {
                            due = [due, Instant::now().checked_add(age)].into_iter().flatten().min();
                        }
                        reason = close_reason(&limits(context), &facts(batch));
                        reason.is_none()
                    })?;
                    filling.due = due;
                    self.reading.took_to(taken_to);
                    let facts = CloseFacts { is_file_too_many: taken_to < end, ..facts(&filling.batch) };
                    if let Some(reason) = reason.or_else(|| close_reason(&limits(context), &facts)) {
                        return Ok(Took::Full(reason));
                    }
                }
                Phase::Make { batch, to } => {
                    if *offset >= *to {
                        return Ok(Took::Others);
                    }
                    let end = chunk.offsets.partition_point(|offset| *offset < *to);
                    let taken_to = batch.push_all(&self.known.window, chunk, index..end, &mut |_| true)?;
                    let is_full = batch.ends().is_some_and(|ends| ends.to == *to);
                    self.reading.took_to(taken_to);
                    if is_full {
                        return Ok(Took::Whole);
                    }
                }
                Phase::Other | Phase::Write(_) => return Ok(Took::All),
            }
        }
    }

    /// Why the open batch has to be closed, when nothing more is there to be taken.
    fn reason(&self, context: &Context, is_short_of_memory: bool) -> Option<CloseReason> {
        let Phase::Fill(filling) = &self.phase else { return None };
        let facts = CloseFacts {
            is_old: filling.due.is_some_and(|due| due <= Instant::now()),
            is_short_of_memory,
            // The others are not kept waiting before records that cannot be read.
            is_before_unreadable: self.reading.unreadable.is_some(),
            is_last: self.has_read_all(),
            ..facts(&filling.batch)
        };
        close_reason(&limits(context), &facts)
    }

    /// Frees memory, if the worker asked for it: rows go to disk, and if that frees less than half, a new batch is to be
    /// closed, and later ones are encoded at their end only, file by file. Returns whether it is to be closed.
    fn make_room(&mut self, context: &Context) -> Result<bool, PartitionError> {
        if !self.state.is_about_to_make_room() {
            return Ok(false);
        }
        let mut is_to_be_closed = false;
        match &mut self.phase {
            Phase::Fill(Filling { batch, .. }) => {
                let before = batch.memory_bytes();
                let spilled = batch.spill();
                if let Err(error) = &spilled {
                    tracing::warn!(%error, topic = context.topic, partition = self.id, "rows cannot go to disk; the batch is written instead");
                }
                if (spilled.is_err() || batch.memory_bytes() > before / 2) && !batch.is_empty() {
                    self.is_tight = spilled.is_ok();
                    is_to_be_closed = true;
                }
            }
            Phase::Make { batch, .. } => {
                let before = batch.memory_bytes();
                batch.spill()?;
                if batch.memory_bytes() > before / 2 {
                    batch.defer();
                }
            }
            Phase::Other | Phase::Write(_) => {}
        }
        // In this order: whoever sees that it was made sees how much.
        self.publish();
        self.state.begins();
        self.state.made_room();
        self.reading.report(crate::lane::Report::Progress);
        Ok(is_to_be_closed)
    }

    fn close(&mut self, context: &Context, reason: CloseReason) -> Result<Filled, PartitionError> {
        let phases = Phases::begin();
        let Phase::Fill(filling) = std::mem::replace(&mut self.phase, Phase::Other) else {
            return Err(PartitionError::Internal("no batch is open".to_owned()));
        };
        self.is_tight &= filling.batch.has_spilled();
        let from = filling.batch.from();
        let Some(encoded) = filling.batch.finish()? else {
            return Err(PartitionError::Internal("a batch without records was closed".to_owned()));
        };
        let Ends { first, last, to, clock_ms } = encoded.ends;
        let header = filling.begins_log.then(|| Header {
            topic: context.topic.clone(),
            partition: self.id,
            log_id: context.log_id.clone(),
            start: from,
            first,
        });
        let intent = Intent {
            from,
            to,
            recipe: self.recipe.clone(),
            window_from: self.known.window_from(from),
            clock_ms,
            first,
            last,
            folders: Vec::new(),
        };
        self.encoded(intent, encoded, header, Some(reason), phases)
    }

    /// A batch is encoded: what it is in truth goes into its intent.
    fn encoded(
        &mut self,
        intent: Intent,
        encoded: Encoded,
        header: Option<Header>,
        reason: Option<CloseReason>,
        mut phases: Phases,
    ) -> Result<Filled, PartitionError> {
        phases.end("encode");
        let Ends { first, last, to, clock_ms } = encoded.ends;
        let folders = encoded.files.iter().map(|file| file.folder.clone()).collect();
        let intent = Intent { to, clock_ms, first, last, folders, ..intent };
        let counts = serde_json::to_value(encoded.counts)
            .map_err(|error| PartitionError::Internal(format!("counts cannot be written: {error}")))?;
        self.puts = 0;
        self.phase = Phase::Write(Box::new(Writing { intent: intent.clone(), encoded, reason, phases }));
        Ok(Filled::Batch(Box::new(CoreEncoded { intent, counts, header })))
    }

    fn new_batch(&self, context: &Context, at: i64) -> Result<Box<Batch>, PartitionError> {
        new_batch(context, self.id, at, self.known.clock_ms(), self.ratio, self.is_tight)
    }

    /// Makes the window valid at `at`, for a new batch, or for one whose window began at `window_from`.
    async fn know(
        &mut self,
        at: i64,
        window_ms: i64,
        window_from: Option<i64>,
        recent: &Recent,
    ) -> Result<(), PartitionError> {
        let begun = Instant::now();
        let budget = &self.shared.context.budget;
        let (known, commits) = (&mut self.known, &self.commits);
        let is_rebuilt = match window_from {
            None => known.rebuild_for_new(commits, recent, at, window_ms, budget).await?,
            Some(from) => known.rebuild(commits, recent, at, window_ms, budget, from).await?,
        };
        if !is_rebuilt {
            return Ok(());
        }
        tracing::debug!(
            topic = self.shared.context.topic,
            partition = self.id,
            offset = at,
            keys = self.known.window.len(),
            took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            "window rebuilt"
        );
        Ok(())
    }
}

fn limits(context: &Context) -> CloseLimits {
    CloseLimits { rows: context.max_rows, bytes: context.max_bytes }
}

fn facts(batch: &Batch) -> CloseFacts {
    CloseFacts { rows: batch.rows(), bytes: batch.estimated_bytes(), ..CloseFacts::default() }
}

fn new_batch(
    context: &Context,
    id: i32,
    at: i64,
    clock_ms: Option<i64>,
    ratio: Option<f64>,
    is_tight: bool,
) -> Result<Box<Batch>, PartitionError> {
    let Context { topic, layout, encoding, scratch, .. } = context;
    let batch = Batch::new(topic, id, at, clock_ms.unwrap_or(i64::MIN), layout, *encoding, scratch);
    let refused = |message: String| refusals::text(&context.topic, id, &message);
    let mut batch = batch.map_err(refused)?.of_files(context.max_files);
    if let Some(ratio) = ratio {
        batch.expect_ratio(ratio);
    }
    if is_tight {
        batch.defer();
    }
    Ok(Box::new(batch))
}

/// The layout and encoding of an intent, if this build knows them.
fn understood(context: &Context, id: i32, intent: &Intent) -> Result<(Layout, Encoding), PartitionError> {
    let cannot = |error: serde_json::Error| cannot_make(context, id, intent, &error.to_string());
    let layout = serde_json::from_value(intent.recipe.layout.clone()).map_err(cannot)?;
    let encoding = serde_json::from_value(intent.recipe.encoding.clone()).map_err(cannot)?;
    Ok((layout, encoding))
}

fn cannot_make(context: &Context, id: i32, intent: &Intent, message: &str) -> PartitionError {
    let Intent { from, to, .. } = intent;
    refusals::text(&context.topic, id, &format!("the batch {from}..{to} cannot be made by this build: {message}"))
}
