//! One partition at work, in a task of its own: rebuilding, reading, encoding and putting of one partition wait for no
//! other.
//!
//! A lane gets orders in sequence and reports to its worker without ever waiting for it. Dropped anywhere, it leaves what
//! a crash leaves; see `partition` for why that is harmless.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use common::log::{Bounds, Chunk, Log, LogError, LogErrorKind};
use common::store::Store;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use crate::compaction::Compaction;
use crate::partition::{Context, Next, Partition, PartitionError};

/// Orders on their way to a lane: enough to keep it at work while the worker sees to others.
const ORDERS_IN_FLIGHT: usize = 3;

pub(crate) type Targets = Arc<BTreeMap<i32, Bounds>>;

/// What the worker tells a lane.
#[derive(Debug)]
pub(crate) enum Order {
    Chunk(Chunk),
    /// The log had no more to read; whether the end of input had been announced by then.
    EndReached {
        announced: bool,
    },
    /// Reading begins where the lane last asked for. What came before is of no use.
    Restarted,
}

/// What a lane tells the worker.
#[derive(Debug)]
pub(crate) enum Report {
    /// Read from this offset on; chunks are dropped until [`Order::Restarted`].
    Start(i64),
    /// Everything below this offset is complete.
    Commit(i64),
    /// Something is flushed, or all is done.
    Progress,
    Failed(PartitionError),
}

/// What can be seen of a lane from outside.
#[derive(Debug, Default)]
pub(crate) struct LaneState {
    memory_bytes: AtomicUsize,
    window_entries: AtomicUsize,
    window_bytes: AtomicUsize,
    filling_since: Mutex<Option<Instant>>,
    is_busy: AtomicBool,
    is_done: AtomicBool,
    /// The worker needs the memory of the open batch.
    flush_wanted: AtomicBool,
    flush_asked: Notify,
}

impl LaneState {
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes.load(Ordering::Acquire)
    }

    pub(crate) fn window_entries(&self) -> usize {
        self.window_entries.load(Ordering::Relaxed)
    }

    pub(crate) fn window_bytes(&self) -> usize {
        self.window_bytes.load(Ordering::Relaxed)
    }

    /// Age of the open batch.
    pub(crate) fn filling_for(&self) -> Option<Duration> {
        self.filling_since.lock().unwrap_or_else(PoisonError::into_inner).map(|since| since.elapsed())
    }

    /// At work: what comes meanwhile from the log is no measure of its silence.
    pub(crate) fn is_busy(&self) -> bool {
        self.is_busy.load(Ordering::Acquire)
    }

    /// Has read to where input ends, and flushed.
    pub(crate) fn is_done(&self) -> bool {
        self.is_done.load(Ordering::Acquire)
    }

    pub(crate) fn is_about_to_flush(&self) -> bool {
        self.flush_wanted.load(Ordering::Acquire)
    }

    pub(crate) fn ask_to_flush(&self) {
        self.flush_wanted.store(true, Ordering::Release);
        self.flush_asked.notify_one();
    }
}

/// What all lanes of a worker share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub context: Arc<Context>,
    pub log: Arc<dyn Log>,
    /// The store without patience, for what may fail.
    pub plain_store: Arc<dyn Store>,
    pub targets: watch::Receiver<Option<Targets>>,
    /// By partition and generation: reports of a lane that is gone are nobody's.
    pub reports: mpsc::UnboundedSender<(i32, u64, Report)>,
    pub max_age: Duration,
}

/// The worker's end of a lane; dropped, it ends the lane.
pub(crate) struct LaneHandle {
    pub generation: u64,
    pub state: Arc<LaneState>,
    orders: mpsc::Sender<Order>,
    task: JoinHandle<()>,
}

impl LaneHandle {
    /// Waits while the lane has enough to do.
    pub(crate) async fn order(&self, order: Order) -> Result<(), LogError> {
        let gone = |_| LogError::new(LogErrorKind::Transient, "a partition's task ended before its time");
        self.orders.send(order).await.map_err(gone)
    }

    /// Ends it wherever it is.
    pub(crate) async fn stop(self) {
        self.task.abort();
        // Cancelled, or ended by itself just now.
        let _ended = self.task.await;
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
        compaction: Compaction::default(),
    };
    let task = tokio::spawn(lane.run(committed, bounds));
    LaneHandle { generation, state, orders, task }
}

struct Lane {
    shared: Shared,
    id: i32,
    generation: u64,
    state: Arc<LaneState>,
    orders: mpsc::Receiver<Order>,
    partition: Option<Partition>,
    /// For [`Order::Restarted`].
    is_waiting: bool,
    compaction: Compaction,
}

impl Lane {
    async fn run(mut self, committed: Option<i64>, bounds: Bounds) {
        self.state.is_busy.store(true, Ordering::Release);
        if let Err(error) = self.work(committed, bounds).await {
            self.report(Report::Failed(error));
        }
    }

    fn report(&self, report: Report) {
        // A worker that is gone needs no reports.
        let _ = self.shared.reports.send((self.id, self.generation, report));
    }

    async fn work(&mut self, committed: Option<i64>, bounds: Bounds) -> Result<(), PartitionError> {
        let context = self.shared.context.clone();
        self.take_over(committed, bounds).await?;
        loop {
            self.publish();
            let due = self.filling_for().map(|age| self.shared.max_age.saturating_sub(age));
            tokio::select! {
                order = self.orders.recv() => {
                    let Some(order) = order else { return Ok(()) };
                    self.state.is_busy.store(true, Ordering::Release);
                    self.heed(&context, order).await?;
                }
                () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => {}
                () = self.state.flush_asked.notified() => {}
                changed = self.shared.targets.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
            }
            if self.is_flush_due() {
                self.state.is_busy.store(true, Ordering::Release);
                self.flush(&context).await?;
            }
        }
    }

    async fn take_over(&mut self, committed: Option<i64>, bounds: Bounds) -> Result<(), PartitionError> {
        let (partition, start) = Partition::take_over(&self.shared.context, self.id, committed, bounds).await?;
        self.partition = Some(partition);
        self.restart(start);
        Ok(())
    }

    fn restart(&mut self, offset: i64) {
        if let Some(partition) = &mut self.partition {
            partition.end_seen = false;
        }
        self.is_waiting = true;
        self.report(Report::Start(offset));
    }

    async fn heed(&mut self, context: &Context, order: Order) -> Result<(), PartitionError> {
        let Some(partition) = &mut self.partition else { return Ok(()) };
        match order {
            Order::Restarted => self.is_waiting = false,
            Order::Chunk(_) | Order::EndReached { .. } if self.is_waiting => {}
            Order::EndReached { announced } => partition.end_seen = announced,
            Order::Chunk(chunk) => {
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
        self.state.flush_wanted.store(false, Ordering::Release);
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
                let Shared { log, context, .. } = &self.shared;
                let committed = log.committed(&context.group, &context.topic).await?.get(&self.id).copied();
                let bounds = log.bounds(&context.topic).await?.get(&self.id).copied();
                let bounds = bounds.ok_or_else(|| {
                    LogError::new(LogErrorKind::NotAssigned, format!("{}/{} does not exist", context.topic, self.id))
                })?;
                self.take_over(committed, bounds).await?;
                if let Some(offset) = self.partition.as_mut().and_then(Partition::take_commit) {
                    self.report(Report::Commit(offset));
                }
            }
        }
        Ok(())
    }

    fn filling_for(&self) -> Option<Duration> {
        self.partition.as_ref().and_then(Partition::filling_for)
    }

    fn target(&self) -> Option<Option<Bounds>> {
        self.shared.targets.borrow().as_ref().map(|targets| targets.get(&self.id).copied())
    }

    /// Read to where input ends, if that is known.
    fn has_read_all(&self, partition: &Partition) -> bool {
        match self.target() {
            None => false,
            Some(None) => true,
            Some(Some(target)) => partition.has_read_to(target.latest),
        }
    }

    fn is_flush_due(&self) -> bool {
        let Some(partition) = &self.partition else { return false };
        let is_old = self.filling_for().is_some_and(|age| age >= self.shared.max_age);
        let is_last = self.has_read_all(partition) && !partition.is_flushed();
        is_old || is_last || self.state.is_about_to_flush()
    }

    /// Makes the state what it is. Before each wait, so that nobody waits for what is told already.
    fn publish(&self) {
        let Some(partition) = &self.partition else { return };
        let state = &self.state;
        state.memory_bytes.store(partition.memory_bytes(), Ordering::Release);
        state.window_entries.store(partition.window_entries(), Ordering::Relaxed);
        state.window_bytes.store(partition.window_bytes(), Ordering::Relaxed);
        *state.filling_since.lock().unwrap_or_else(PoisonError::into_inner) =
            partition.filling_for().and_then(|age| Instant::now().checked_sub(age));
        let is_done = self.has_read_all(partition) && partition.is_flushed();
        let was_done = state.is_done.swap(is_done, Ordering::AcqRel);
        state.is_busy.store(false, Ordering::Release);
        if is_done && !was_done {
            self.report(Report::Progress);
        }
    }
}
