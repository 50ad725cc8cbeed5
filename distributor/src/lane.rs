//! One partition at work, in a task of its own: rebuilding, reading, encoding and putting never wait for another
//! partition.
//!
//! A lane receives orders in sequence and reports to its worker, and neither waits for the other. If a lane has no room
//! for an order, the order is delivered later, and reading of the partition is paused meanwhile. Dropping a lane at any
//! point leaves the same state as a crash; see `partition` for why that is harmless.

mod handle;
mod state;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::log::{Bounds, Chunk, Log, LogError, LogErrorKind};
use common::store::Store;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::compaction::Compaction;
use crate::partition::{Context, Next, Partition, PartitionError};

pub(crate) use handle::{LaneHandle, ORDERS_IN_FLIGHT};
pub(crate) use state::{LaneState, Observed};

/// A refusal is final after this many attempts, or if the log has not changed since the previous one.
const MAX_ATTEMPTS: usize = 10;

/// The end of the work.
#[derive(Debug)]
pub(crate) struct Target {
    /// The time of the request, Unix milliseconds.
    pub asked_ms: i64,
    pub bounds: BTreeMap<i32, Bounds>,
}

pub(crate) type Targets = Arc<Target>;

/// An order of the worker to a lane.
#[derive(Debug)]
pub(crate) enum Order {
    Chunk(Chunk),
    /// The log had no more records; whether the end of input was announced by then.
    EndReached {
        announced: bool,
    },
    /// Reading begins where the lane last requested. Everything before is dropped.
    Restarted,
    /// The log cannot be read further.
    Unreadable(LogError),
}

/// A report of a lane to the worker.
#[derive(Debug)]
pub(crate) enum Report {
    /// Read from this offset on; chunks are dropped until [`Order::Restarted`].
    Start(i64),
    /// Everything below this offset is complete.
    Commit(i64),
    /// A batch is flushed, or all is done.
    Progress,
    Failed(PartitionError),
}

/// The state shared by all lanes of a worker.
#[derive(Clone)]
pub(crate) struct Shared {
    pub context: Arc<Context>,
    pub log: Arc<dyn Log>,
    /// The store without retries, for calls that may fail.
    pub plain_store: Arc<dyn Store>,
    pub targets: watch::Receiver<Option<Targets>>,
    /// By partition and generation: reports of an earlier lane are ignored.
    pub reports: mpsc::UnboundedSender<(i32, u64, Report)>,
    /// Notified when a lane has taken an order, or has ended.
    pub room: Arc<Notify>,
}

impl Shared {
    /// The group's offset of a partition, and the bounds of its log.
    pub(crate) async fn ask_log(&self, id: i32) -> Result<(Option<i64>, Bounds), PartitionError> {
        let Self { log, context, .. } = self;
        let committed = log.committed(&context.group, &context.topic).await?.get(&id).copied();
        let bounds = log.bounds(&context.topic).await?.get(&id).copied();
        let bounds = bounds.ok_or_else(|| {
            LogError::new(LogErrorKind::NotAssigned, format!("{}/{id} does not exist", context.topic))
        })?;
        Ok((committed, bounds))
    }
}

/// Begins to work on a partition. `committed` and `bounds` were read after it was assigned.
pub(crate) fn start(shared: &Shared, id: i32, generation: u64, committed: Option<i64>, bounds: Bounds) -> LaneHandle {
    let (orders, receiver) = mpsc::channel(ORDERS_IN_FLIGHT);
    let state = Arc::new(LaneState::default());
    let lane = Lane {
        shared: shared.clone(),
        id,
        generation,
        state: state.clone(),
        orders: receiver,
        partition: None,
        is_waiting: true,
        at_end: false,
        compaction: Compaction::default(),
    };
    let task = tokio::spawn(lane.run(committed, bounds));
    LaneHandle::new(generation, state, orders, task)
}

struct Lane {
    shared: Shared,
    id: i32,
    generation: u64,
    state: Arc<LaneState>,
    orders: mpsc::Receiver<Order>,
    partition: Option<Partition>,
    /// Waits for [`Order::Restarted`].
    is_waiting: bool,
    /// No record has arrived since the log's end was reached.
    at_end: bool,
    compaction: Compaction,
}

impl Lane {
    async fn run(mut self, committed: Option<i64>, bounds: Bounds) {
        self.state.begins();
        if let Err(error) = self.work(committed, bounds).await {
            self.report(Report::Failed(error));
        }
    }

    fn report(&self, report: Report) {
        // A worker that has ended needs no reports.
        let _ = self.shared.reports.send((self.id, self.generation, report));
    }

    async fn work(&mut self, committed: Option<i64>, bounds: Bounds) -> Result<(), PartitionError> {
        let context = self.shared.context.clone();
        let mut parts = context.budget.watch();
        self.take_over(committed, bounds).await?;
        loop {
            self.publish();
            let due = self.partition.as_ref().and_then(Partition::due);
            // In a fixed order, so that a simulation can repeat a run. Other work that is due is checked after each
            // order.
            tokio::select! {
                biased;
                order = self.orders.recv() => {
                    let Some(order) = order else { return Ok(()) };
                    self.state.begins();
                    self.shared.room.notify_one();
                    self.heed(&context, order).await?;
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
                () = self.state.asked_for_room() => {}
                changed = parts.changed() => {
                    if let (Ok(()), Some(partition)) = (changed, &mut self.partition) {
                        partition.fit_window()?;
                    }
                }
                changed = self.shared.targets.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
            }
            if self.state.is_about_to_make_room() {
                self.state.begins();
                self.make_room(&context).await?;
            }
            if self.is_flush_due() {
                self.state.begins();
                self.flush(&context).await?;
            }
        }
    }

    async fn take_over(&mut self, committed: Option<i64>, bounds: Bounds) -> Result<(), PartitionError> {
        let (mut committed, mut bounds) = (committed, bounds);
        let mut attempts = 1;
        let (partition, start) = loop {
            match Partition::take_over(&self.shared.context, self.id, committed, bounds).await {
                // The chain was read after the log: another owner may have continued from there meanwhile, and its
                // batches then seem to be beyond the log's end.
                Err(PartitionError::Refused(refusal)) if attempts < MAX_ATTEMPTS => {
                    let now = self.shared.ask_log(self.id).await?;
                    if now == (committed, bounds) {
                        return Err(PartitionError::Refused(refusal));
                    }
                    (committed, bounds) = now;
                    attempts += 1;
                }
                outcome => break outcome?,
            }
        };
        self.partition = Some(partition);
        self.restart(start);
        Ok(())
    }

    fn restart(&mut self, offset: i64) {
        if let Some(partition) = &mut self.partition {
            partition.end_seen = false;
        }
        self.is_waiting = true;
        self.at_end = false;
        self.report(Report::Start(offset));
    }

    async fn heed(&mut self, context: &Context, order: Order) -> Result<(), PartitionError> {
        let Some(partition) = &mut self.partition else { return Ok(()) };
        match order {
            Order::Restarted => self.is_waiting = false,
            Order::Chunk(_) | Order::EndReached { .. } | Order::Unreadable(_) if self.is_waiting => {}
            Order::EndReached { announced } => {
                self.at_end = true;
                partition.end_seen = announced;
            }
            Order::Unreadable(error) => {
                // The records before it are not kept waiting, and are not read again at each retry.
                self.flush(context).await?;
                if !self.is_waiting {
                    return Err(error.into());
                }
            }
            Order::Chunk(chunk) => {
                self.at_end = false;
                self.state.is_to_take(&chunk);
                let next = partition.take(context, &chunk).await?;
                self.go_on(next).await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self, context: &Context) -> Result<(), PartitionError> {
        let Some(partition) = &mut self.partition else { return Ok(()) };
        let next = partition.flush(context).await?;
        self.go_on(next).await?;
        self.publish();
        self.report(Report::Progress);
        Ok(())
    }

    async fn make_room(&mut self, context: &Context) -> Result<(), PartitionError> {
        let Some(partition) = &mut self.partition else { return Ok(()) };
        let next = partition.make_room(context).await?;
        self.go_on(next).await?;
        self.publish();
        self.state.made_room();
        self.report(Report::Progress);
        Ok(())
    }

    async fn go_on(&mut self, next: Next) -> Result<(), PartitionError> {
        if let Some(offset) = self.partition.as_mut().and_then(Partition::take_commit) {
            self.report(Report::Commit(offset));
            self.compaction.batch_done(&self.shared, self.id);
        }
        match next {
            Next::Continue => {}
            Next::Restart(offset) => self.restart(offset),
            Next::Resolve => {
                let (committed, bounds) = self.shared.ask_log(self.id).await?;
                self.take_over(committed, bounds).await?;
                if let Some(offset) = self.partition.as_mut().and_then(Partition::take_commit) {
                    self.report(Report::Commit(offset));
                }
            }
        }
        Ok(())
    }

    fn target(&self) -> Option<Option<Bounds>> {
        self.shared.targets.borrow().as_ref().map(|targets| targets.bounds.get(&self.id).copied())
    }

    /// Whether everything up to the end of input has been read, if that is known.
    fn has_read_all(&self, partition: &Partition) -> bool {
        match self.target() {
            None => false,
            Some(None) => true,
            Some(Some(target)) => partition.has_read_to(target.latest),
        }
    }

    fn is_flush_due(&self) -> bool {
        let Some(partition) = &self.partition else { return false };
        let is_old = partition.due().is_some_and(|due| due <= Instant::now());
        let is_last = self.has_read_all(partition) && !partition.is_flushed();
        is_old || is_last
    }

    /// Publishes the current state. Called before each wait, so that no task waits for a state already reached.
    fn publish(&self) {
        let Some(partition) = &self.partition else { return };
        let is_done = self.has_read_all(partition) && partition.is_flushed();
        let was_done = self.state.publish(&partition.observed(self.at_end), is_done);
        if is_done && !was_done {
            self.report(Report::Progress);
        }
    }
}

impl Drop for Lane {
    /// Notifies a worker that waits for room, however the lane ends, even by a panic: the worker then finds it gone.
    fn drop(&mut self) {
        self.orders.close();
        self.shared.room.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use common::config::MissingFiles;

    use super::*;
    use crate::batch::testing::{ENCODING, cut, layout};
    use crate::chain::ChainStore;
    use crate::testing::Zone;

    type Reports = mpsc::UnboundedReceiver<(i32, u64, Report)>;

    async fn shared(zone: &Zone) -> (Shared, Reports) {
        let context = Context {
            store: zone.store(),
            topic: "events".into(),
            group: "g".into(),
            log_id: zone.log.identity().await.unwrap(),
            layout: layout(),
            encoding: ENCODING,
            max_rows: u64::MAX,
            max_bytes: u64::MAX,
            max_files: usize::MAX,
            budget: crate::window::Budget::new(u64::MAX, crate::Scratch::new(zone.folder.path())),
            scratch: crate::Scratch::new(zone.folder.path()),
            max_age: Duration::from_secs(3600),
            ages: common::config::TypeAges::default(),
            uploads: crate::partition::UploadRoom::default(),
            missing: MissingFiles::Restore,
            metrics: zone.distributor().metrics,
        };
        let (reports, reported) = mpsc::unbounded_channel();
        let (context, log, plain_store) = (Arc::new(context), zone.log.clone(), zone.store());
        let targets = watch::channel(None).1;
        (Shared { context, log, plain_store, targets, reports, room: Arc::default() }, reported)
    }

    /// The first report of a lane that takes over with outdated bounds of the log.
    async fn first_report(zone: &Zone) -> Report {
        let (shared, mut reported) = shared(zone).await;
        let lane = start(&shared, 0, 1, None, Bounds { earliest: 0, latest: 1 });
        let (_, _, report) = reported.recv().await.unwrap();
        lane.stop().await;
        report
    }

    #[tokio::test]
    async fn a_lane_that_ends_silently_wakes_a_worker_that_waits_for_room() {
        let zone = Zone::new().await;
        let (shared, _reported) = shared(&zone).await;
        let mut lane = start(&shared, 0, 1, None, Bounds { earliest: 0, latest: 1 });
        while lane.has_room(1) {
            lane.order(Order::EndReached { announced: false }).unwrap();
        }
        // As a panic does.
        lane.task.abort();
        tokio::time::timeout(Duration::from_secs(20), shared.room.notified()).await.expect("a notification");
        assert!(lane.hand_over().is_err());
    }

    #[tokio::test]
    async fn the_bounds_of_a_log_are_read_again_before_it_is_called_truncated() {
        let zone = Zone::new().await;
        let latest = zone.log.bounds("events").await.unwrap()[&0].latest;
        let report = first_report(&zone).await;
        assert!(matches!(report, Report::Start(offset) if offset == latest - 1), "{report:?}");
        let chain = ChainStore::new(zone.store(), "events", 0);
        chain.put_cut(&cut(latest, latest + 1)).await.unwrap();
        let Report::Failed(PartitionError::Refused(refusal)) = first_report(&zone).await else {
            panic!("a log that ends before the chain is not refused");
        };
        assert!(refusal.0.contains("the topic was truncated or recreated"), "{refusal}");
    }
}
