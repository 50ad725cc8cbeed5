//! A member of the consumer group: passes records to a lane for each of its partitions, and commits what they complete.
//!
//! The worker waits for no lane. While a lane has enough work, its partition is paused at the reader. A store that is
//! slow or hangs for one partition therefore delays only that partition, and memory stays bounded, because read-ahead
//! is. Reports of the others, rebalances and a shutdown are handled meanwhile.

mod end;
mod memory;
mod orders;
mod parked;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use common::log::{LogErrorKind, LogReader, ReadEvent, settled_bounds};
use common::shutdown::Shutdown;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::context::Context;
use crate::error::PartitionError;
use crate::lane::{LaneHandle, LaneState, Order, Report, Shared, Target, Targets};
use crate::metrics::WorkerState;
use crate::owner;
use crate::role::{COMPONENT, Distributor, EndOfInput};
use crate::watch::{Lanes, Watch};
use parked::Parked;

/// The longest wait between checks of ages and ends.
const MAX_POLL: Duration = Duration::from_millis(250);

pub(crate) struct Worker<'a> {
    role: &'a Distributor,
    context: Arc<Context>,
    reader: Box<dyn LogReader>,
    lanes: BTreeMap<i32, LaneHandle>,
    /// The same, as observers see them.
    observed: Lanes,
    /// Partitions whose windows are being rebuilt.
    starting: BTreeSet<i32>,
    generation: u64,
    shared: Shared,
    reports: mpsc::UnboundedReceiver<(i32, u64, Report)>,
    /// Reports received before one that was awaited.
    earlier_reports: VecDeque<(i32, u64, Report)>,
    parked: Parked,
    /// Notified when a lane has taken an order, or has ended.
    room: Arc<Notify>,
    assigned_once: bool,
    /// The ends to read to, once the end of input is announced.
    targets: watch::Sender<Option<Targets>>,
}

impl<'a> Worker<'a> {
    pub(crate) fn new(
        role: &'a Distributor,
        context: Context,
        reader: Box<dyn LogReader>,
        targets: Option<Target>,
    ) -> Self {
        let context = Arc::new(context);
        let (sender, reports) = mpsc::unbounded_channel();
        let (targets, watched) = watch::channel(targets.map(Arc::new));
        let room = Arc::new(Notify::new());
        let shared = Shared {
            context: context.clone(),
            log: role.log.clone(),
            plain_store: role.store.clone(),
            targets: watched,
            reports: sender,
            room: room.clone(),
        };
        Self {
            role,
            context,
            reader,
            lanes: BTreeMap::new(),
            observed: Lanes::default(),
            starting: BTreeSet::new(),
            generation: 0,
            shared,
            reports,
            earlier_reports: VecDeque::new(),
            parked: Parked::default(),
            room,
            assigned_once: false,
            targets,
        }
    }

    /// Works until the end of input is reached and flushed, or shut down, and leaves the group.
    ///
    /// # Errors
    /// The error of the log, or of any lane.
    pub(crate) async fn run(mut self, end: &EndOfInput, shutdown: &Shutdown) -> Result<(), PartitionError> {
        let mut watch = JoinSet::new();
        watch.spawn(self.watch().run());
        let outcome = self.work(end, shutdown).await;
        watch.shutdown().await;
        // Nothing is flushed: the next owner reads the open batches again, which costs only reading.
        for lane in std::mem::take(&mut self.lanes).into_values() {
            lane.stop().await;
        }
        self.reader.close().await;
        outcome
    }

    async fn work(&mut self, end: &EndOfInput, shutdown: &Shutdown) -> Result<(), PartitionError> {
        let mut quiet_since = Instant::now();
        loop {
            if shutdown.is_triggered() {
                return Ok(());
            }
            let is_announced = self.targets.borrow().is_some();
            if !is_announced && end.is_announced() {
                let (log, patience) = (&*self.role.log, self.role.settings.patience);
                let asked_ms = self.role.clock.now_ms();
                let bounds = settled_bounds(log, &self.context.topic, patience).await?;
                self.targets.send_replace(Some(Arc::new(Target { asked_ms, bounds })));
            }
            if self.is_finished().await? {
                if !self.parked.is_empty() {
                    return Err(self.parked.take_errors());
                }
                let targets = self.targets.borrow().clone();
                if let Some(targets) = targets {
                    self.watch().at_the_end(targets.asked_ms, &targets.bounds).await;
                }
                return Ok(());
            }
            if let Some((id, generation, report)) = self.earlier_reports.pop_front() {
                self.heed(id, generation, report).await?;
                continue;
            }
            self.make_room();
            let has_room = self.has_room();
            let retry = self.parked.next_retry();
            let any_paused = self.lanes.values().any(|lane| lane.is_paused);
            // In a fixed order, so that a simulation can repeat a run. Lanes report only on given orders, and take only
            // given orders, so neither can delay reading for ever.
            let event = tokio::select! {
                biased;
                () = shutdown.wait() => continue,
                () = end.announced(), if !is_announced => continue,
                Some((id, generation, report)) = self.reports.recv() => {
                    tokio::select! {
                        biased;
                        () = shutdown.wait() => continue,
                        heeded = self.heed(id, generation, report) => heeded?,
                    }
                    quiet_since = Instant::now();
                    continue;
                }
                () = tokio::time::sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => {
                    let due = self.parked.due(Instant::now());
                    due.iter().for_each(|id| self.reader.resume(*id));
                    self.take_over(&due).await;
                    self.tell_health();
                    continue;
                }
                () = self.room.notified(), if any_paused => {
                    self.go_on()?;
                    continue;
                }
                event = self.reader.poll(MAX_POLL), if has_room => event,
                () = tokio::time::sleep(MAX_POLL), if !has_room => Ok(ReadEvent::Idle),
            };
            if self.lanes.values().any(|lane| lane.state.is_busy()) {
                // The time of handling it is not the log's silence.
                quiet_since = Instant::now();
            }
            match event {
                Ok(ReadEvent::Idle) => self.check_patience(quiet_since, None)?,
                Ok(event) => {
                    tokio::select! {
                        biased;
                        () = shutdown.wait() => continue,
                        handled = self.handle(event) => handled?,
                    }
                    quiet_since = Instant::now();
                }
                Err(error) if error.kind == LogErrorKind::Transient => {
                    self.role.metrics.log_failed(&error);
                    self.role.health.not_ready(COMPONENT, &error.to_string());
                    tracing::warn!(%error, "reading is interrupted; the client keeps trying");
                    self.check_patience(quiet_since, Some(error))?;
                }
                Err(error) => return Err(error.into()),
            }
            self.observe();
        }
    }

    /// Parks a partition that cannot continue, while others can.
    ///
    /// # Errors
    /// The errors of all of them, if none is left: then the role begins again, or ends.
    fn lane_failed(&mut self, id: i32, error: PartitionError) -> Result<(), PartitionError> {
        self.starting.remove(&id);
        self.observed.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        self.lanes.remove(&id);
        if self.lanes.is_empty() && self.parked.is_empty() {
            return Err(error);
        }
        tracing::warn!(partition = id, %error, "a partition cannot continue; the others can");
        for error in error.of_the_store() {
            self.role.metrics.store_failed(error);
        }
        self.reader.pause(id);
        let settings = &self.role.settings;
        self.parked.park(id, error, settings.once, Instant::now());
        if self.lanes.is_empty() {
            return Err(self.parked.take_errors());
        }
        self.tell_health();
        Ok(())
    }

    async fn give_up(&mut self, id: i32) {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some(lane) = self.lanes.remove(&id) {
            lane.stop().await;
        }
    }

    fn watch(&self) -> Watch {
        Watch {
            log: self.role.log.clone(),
            store: self.role.store.clone(),
            clock: self.role.clock.clone(),
            metrics: self.role.metrics.clone(),
            topic: self.context.topic.clone(),
            lanes: self.observed.clone(),
        }
    }

    fn states(&self) -> impl Iterator<Item = &LaneState> {
        self.lanes.values().map(|lane| &*lane.state)
    }

    async fn handle(&mut self, event: ReadEvent) -> Result<(), PartitionError> {
        match event {
            ReadEvent::Assigned(partitions) => {
                self.role.metrics.rebalanced("assigned", &partitions);
                self.take_over(&partitions).await;
                self.assigned_once = true;
                self.tell_health();
            }
            ReadEvent::Revoked(partitions) => {
                self.role.metrics.rebalanced("revoked", &partitions);
                for partition in partitions {
                    self.parked.is_revoked(partition);
                    self.starting.remove(&partition);
                    self.give_up(partition).await;
                }
                self.tell_health();
            }
            ReadEvent::Chunk(chunk) => {
                self.parked.was_read(chunk.partition, chunk.offsets.last().copied());
                self.tell_health();
                self.order(chunk.partition, Order::Chunk(chunk))?;
            }
            ReadEvent::EndReached(id) => {
                self.parked.was_read(id, None);
                self.tell_health();
                let announced = self.targets.borrow().is_some();
                self.order(id, Order::EndReached { announced })?;
            }
            ReadEvent::Failed { partition, offset, error } => {
                self.role.metrics.log_failed(&error);
                self.parked.cannot_be_read(partition, offset, &error);
                self.tell_health();
                self.order(partition, Order::Unreadable(error))?;
            }
            ReadEvent::Idle => {}
        }
        Ok(())
    }

    fn tell_health(&self) {
        if let Some(reason) = self.parked.reason() {
            self.role.health.not_ready(COMPONENT, &reason);
            return;
        }
        match self.starting.len() {
            0 => self.role.health.ready(COMPONENT),
            count => self.role.health.not_ready(COMPONENT, &format!("rebuilding the windows of {count} partitions")),
        }
    }

    async fn take_over(&mut self, ids: &[i32]) {
        for id in ids {
            self.give_up(*id).await;
            self.parked.is_tried(*id);
            self.generation += 1;
            let lane = owner::start(&self.shared, &self.role.host, *id, self.generation);
            self.starting.insert(*id);
            self.observed.lock().unwrap_or_else(PoisonError::into_inner).insert(*id, lane.state.clone());
            self.lanes.insert(*id, lane);
        }
    }

    async fn heed(&mut self, id: i32, generation: u64, report: Report) -> Result<(), PartitionError> {
        if self.lanes.get(&id).is_none_or(|lane| lane.generation != generation) {
            return Ok(());
        }
        match report {
            Report::Start(offset) => {
                self.starting.remove(&id);
                self.restart(id, offset).await?;
                self.tell_health();
            }
            Report::Commit(offset) => {
                self.parked.forget(id);
                self.commit(id, offset).await;
            }
            Report::Progress => {}
            Report::Failed(error) => return self.lane_failed(id, error),
        }
        Ok(())
    }

    async fn restart(&mut self, id: i32, offset: i64) -> Result<(), PartitionError> {
        match self.reader.start(id, offset).await {
            Ok(()) => self.order(id, Order::Restarted),
            // It was revoked meanwhile; the event is on its way.
            Err(error) if error.kind == LogErrorKind::NotAssigned => {
                self.give_up(id).await;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Commits a completed offset. A failure loses nothing: the commit log is authoritative, and the next commit covers it.
    async fn commit(&mut self, id: i32, offset: i64) {
        if let Err(error) = self.reader.commit(&BTreeMap::from([(id, offset)])).await {
            self.role.metrics.commit_failed(&error);
            return;
        }
        let keep_ms = i64::try_from(self.role.settings.retention.as_millis()).unwrap_or(i64::MAX);
        // The record before the next batch stays, so that it can be compared.
        let before_ms = self.role.clock.now_ms().saturating_sub(keep_ms);
        if let Err(error) = self.role.log.trim(&self.context.topic, id, offset - 1, before_ms).await {
            tracing::warn!(%error, "the embedded log could not be trimmed; trying again after the next batch");
        }
    }

    fn observe(&self) {
        self.role.metrics.worker_state(&WorkerState {
            assigned: self.lanes.len(),
            paused: self.lanes.values().filter(|lane| lane.is_paused).count(),
            parked: self.parked.count(),
            window_entries: self.states().map(LaneState::window_entries).sum(),
            window_bytes: self.states().map(LaneState::window_bytes).sum(),
            scratch_bytes: self.context.budget.disk_bytes(),
            open_files: self.states().map(LaneState::open_files).sum(),
            batch_memory_bytes: self.states().map(LaneState::memory_bytes).sum(),
            oldest_unflushed: self.states().filter_map(LaneState::filling_for).max().unwrap_or_default(),
        });
    }
}

#[cfg(test)]
mod tests;
