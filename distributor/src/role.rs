//! The distributor as a role: sessions one after another, each a member of the consumer group with its partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::backoff::Backoff;
use common::clock::Clock;
use common::config::MissingFiles;
use common::log::{
    Bounds, Log, LogError, LogErrorKind, LogReader, Membership, ReadEvent, Retention, TopicSpec, settled_bounds,
};
use common::shutdown::Shutdown;
use common::store::{RetryPolicy, RetryingStore, Store, StoreErrorKind};
use common::telemetry::Health;

use crate::batch::Encoding;
use crate::layout::Layout;
use crate::metrics::{DistributeReport, Metrics, WorkerState};
use crate::partition::{Context, Next, Partition, PartitionError};

const COMPONENT: &str = "distributor";
/// The longest the worker sleeps between looks at ages and ends.
const MAX_POLL: Duration = Duration::from_millis(250);
/// How long an end-of-partition check of somebody else's partition may be silent.
const DRAINED_PATIENCE: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub struct DistributeError(PartitionError);

impl fmt::Display for DistributeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl std::error::Error for DistributeError {}

impl PartitionError {
    fn is_retryable(&self, once: bool) -> bool {
        match self {
            Self::Store(error) if once => error.kind == StoreErrorKind::Transient,
            Self::Store(error) => error.is_retryable(),
            // An offset that is gone is looked into by the next session, which refuses with the fix if it must.
            Self::Log(error) => {
                matches!(
                    error.kind,
                    LogErrorKind::Transient
                        | LogErrorKind::NotAssigned
                        | LogErrorKind::OffsetOutOfRange
                        | LogErrorKind::Corrupt
                )
            }
            Self::Refused(_) | Self::Damaged { .. } | Self::Encode(_) => false,
        }
    }
}

/// Tells the worker that nothing more will be written to the log: it reads to the end, flushes, and ends.
#[derive(Debug, Clone)]
pub struct EndOfInput {
    sender: tokio::sync::watch::Sender<bool>,
}

impl EndOfInput {
    /// For work that ends at the log's present end.
    pub fn now() -> Self {
        Self { sender: tokio::sync::watch::Sender::new(true) }
    }

    /// Not yet: until [`EndOfInput::announce`], if ever.
    pub fn later() -> Self {
        Self { sender: tokio::sync::watch::Sender::new(false) }
    }

    pub fn announce(&self) {
        self.sender.send_replace(true);
    }

    fn is_announced(&self) -> bool {
        *self.sender.borrow()
    }

    async fn announced(&self) {
        // The sender lives as long as `self`.
        let _ = self.sender.subscribe().wait_for(|announced| *announced).await;
    }
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub topic: String,
    /// For creating the topic only.
    pub partitions: u32,
    pub group: String,
    pub instance_id: Option<String>,
    pub layout: Layout,
    pub encoding: Encoding,
    pub max_age: Duration,
    pub max_bytes: u64,
    pub max_rows: u64,
    pub max_memory: u64,
    pub missing: MissingFiles,
    /// How long the embedded log keeps what is in the trusted zone.
    pub retention: Duration,
    pub once: bool,
    /// With `once`: how long to try without any progress.
    pub patience: Duration,
}

pub struct Distributor {
    pub store: Arc<dyn Store>,
    pub log: Arc<dyn Log>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub health: Health,
    pub settings: Settings,
}

impl Distributor {
    /// Runs until the end of input is reached and flushed, or shut down.
    ///
    /// # Errors
    /// What cannot be retried, or with `once` what still failed after the patience.
    pub async fn run(&self, end: &EndOfInput, shutdown: &Shutdown) -> Result<DistributeReport, DistributeError> {
        self.health.not_ready(COMPONENT, "waiting for partitions");
        let fresh_backoff =
            Backoff::new(Duration::from_millis(200), Duration::from_secs(15), self.clock.now_ms().unsigned_abs());
        let mut backoff = fresh_backoff.clone();
        let mut failing_since = None;
        let mut progress = self.metrics.report();
        let store = self.retrying_store(shutdown);
        loop {
            let Err(error) = self.session(&store, end, shutdown).await else { return Ok(self.metrics.report()) };
            if shutdown.is_triggered() {
                tracing::info!(%error, "shut down while failing");
                return Ok(self.metrics.report());
            }
            if !error.is_retryable(self.settings.once) {
                return Err(DistributeError(error));
            }
            if progress != self.metrics.report() {
                progress = self.metrics.report();
                failing_since = None;
                backoff = fresh_backoff.clone();
            }
            let since = *failing_since.get_or_insert_with(Instant::now);
            if self.settings.once && since.elapsed() >= self.settings.patience {
                return Err(DistributeError(error));
            }
            self.health.not_ready(COMPONENT, &error.to_string());
            let wait = backoff.next_wait();
            tracing::warn!(%error, retry_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), "distribute session failed; trying again");
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = shutdown.wait() => return Ok(self.metrics.report()),
            }
        }
    }

    fn retrying_store(&self, shutdown: &Shutdown) -> Arc<dyn Store> {
        let metrics = self.metrics.clone();
        let policy = RetryPolicy {
            patience: self.settings.once.then_some(self.settings.patience),
            wait_for_operator: !self.settings.once,
            shutdown: shutdown.clone(),
            on_retry: Arc::new(move |error| metrics.store_failed(error)),
        };
        Arc::new(RetryingStore::new(self.store.clone(), policy))
    }

    async fn session(
        &self,
        store: &Arc<dyn Store>,
        end: &EndOfInput,
        shutdown: &Shutdown,
    ) -> Result<(), PartitionError> {
        let settings = &self.settings;
        let spec =
            TopicSpec { name: settings.topic.clone(), partitions: settings.partitions, retention: Retention::Delete };
        self.log.ensure_topic(&spec).await?;
        let context = Context {
            store: store.clone(),
            topic: settings.topic.clone(),
            group: settings.group.clone(),
            log_id: self.log.identity().await?,
            layout: settings.layout.clone(),
            encoding: settings.encoding,
            max_rows: settings.max_rows,
            max_bytes: settings.max_bytes,
            missing: settings.missing,
            metrics: self.metrics.clone(),
        };
        // The ends are taken before anything is read: every end-of-partition seen later lies at or behind them.
        let targets = if end.is_announced() {
            Some(settled_bounds(&*self.log, &settings.topic, settings.patience).await?)
        } else {
            None
        };
        let membership = Membership::Group { group: settings.group.clone(), instance_id: settings.instance_id.clone() };
        let reader = self.log.reader(&settings.topic, &membership).await?;
        let mut worker =
            Worker { role: self, context, reader, partitions: BTreeMap::new(), assigned_once: false, targets };
        let outcome = worker.run(end, shutdown).await;
        worker.reader.close().await;
        outcome
    }
}

struct Worker<'a> {
    role: &'a Distributor,
    context: Context,
    reader: Box<dyn LogReader>,
    partitions: BTreeMap<i32, Partition>,
    assigned_once: bool,
    /// Where to end, once the end of input is announced.
    targets: Option<BTreeMap<i32, Bounds>>,
}

impl Worker<'_> {
    async fn run(&mut self, end: &EndOfInput, shutdown: &Shutdown) -> Result<(), PartitionError> {
        let mut quiet_since = Instant::now();
        loop {
            if shutdown.is_triggered() {
                // Nothing is flushed: the next owner reads the open batches again, which costs nothing but reading.
                return Ok(());
            }
            if self.targets.is_none() && end.is_announced() {
                let (log, patience) = (&*self.role.log, self.role.settings.patience);
                self.targets = Some(settled_bounds(log, &self.context.topic, patience).await?);
                self.partitions.values_mut().for_each(|partition| partition.end_seen = false);
            }
            if self.is_finished().await? {
                return Ok(());
            }
            let event = tokio::select! {
                event = self.reader.poll(self.next_wait()) => event,
                () = shutdown.wait() => continue,
                () = end.announced(), if self.targets.is_none() => continue,
            };
            match event {
                Ok(ReadEvent::Idle) => self.check_patience(quiet_since, None)?,
                Ok(event) => {
                    self.handle(event).await?;
                    // What it took to handle it is not the log's silence.
                    quiet_since = Instant::now();
                }
                Err(error) if error.kind == LogErrorKind::Transient => {
                    self.role.metrics.log_failed(&error);
                    self.role.health.not_ready(COMPONENT, &error.to_string());
                    tracing::warn!(%error, "reading is interrupted; the client goes on trying");
                    self.check_patience(quiet_since, Some(error))?;
                }
                Err(error) => return Err(error.into()),
            }
            if self.flush_what_is_due().await? {
                quiet_since = Instant::now();
            }
            self.observe();
        }
    }

    /// With `--once` a log that stays silent or broken for too long ends the run.
    fn check_patience(&self, quiet_since: Instant, error: Option<LogError>) -> Result<(), PartitionError> {
        let settings = &self.role.settings;
        // When only other members' partitions are open, their owners decide how long it takes.
        let ours_open =
            !self.assigned_once || self.partitions.iter().any(|(id, partition)| !self.is_done(*id, partition));
        let waiting = self.targets.is_some() && settings.once && ours_open;
        if waiting && quiet_since.elapsed() >= settings.patience {
            let silent =
                || LogError::new(LogErrorKind::Other, format!("nothing came from the log for {:?}", settings.patience));
            return Err(PartitionError::Log(LogError { kind: LogErrorKind::Other, ..error.unwrap_or_else(silent) }));
        }
        Ok(())
    }

    fn next_wait(&self) -> Duration {
        let max_age = self.role.settings.max_age;
        let due =
            self.partitions.values().filter_map(Partition::filling_for).map(|age| max_age.saturating_sub(age)).min();
        due.unwrap_or(MAX_POLL).min(MAX_POLL)
    }

    async fn handle(&mut self, event: ReadEvent) -> Result<(), PartitionError> {
        match event {
            ReadEvent::Assigned(partitions) => {
                self.role.metrics.rebalanced("assigned", &partitions);
                self.take_over(&partitions).await?;
                self.assigned_once = true;
                self.role.health.ready(COMPONENT);
            }
            ReadEvent::Revoked(partitions) => {
                self.role.metrics.rebalanced("revoked", &partitions);
                for partition in partitions {
                    self.partitions.remove(&partition);
                }
            }
            ReadEvent::Chunk(chunk) => {
                self.role.health.ready(COMPONENT);
                let id = chunk.partition;
                if let Some(partition) = self.partitions.get_mut(&id) {
                    let next = partition.take(&self.context, &chunk).await?;
                    self.go_on(id, next).await?;
                }
            }
            ReadEvent::EndReached(id) => {
                self.role.health.ready(COMPONENT);
                if let Some(partition) = self.partitions.get_mut(&id) {
                    partition.end_seen = self.targets.is_some();
                }
            }
            ReadEvent::Idle => {}
        }
        Ok(())
    }

    async fn take_over(&mut self, ids: &[i32]) -> Result<(), PartitionError> {
        if ids.is_empty() {
            return Ok(());
        }
        let (log, topic) = (&self.role.log, &self.context.topic);
        let committed = log.committed(&self.context.group, topic).await?;
        let bounds = log.bounds(topic).await?;
        for id in ids {
            let known = bounds.get(id).copied();
            let bounds = known.ok_or_else(|| {
                LogError::new(LogErrorKind::NotAssigned, format!("{}/{id} does not exist", self.context.topic))
            })?;
            let (partition, start) =
                Partition::take_over(&self.context, *id, committed.get(id).copied(), bounds).await?;
            self.partitions.insert(*id, partition);
            self.restart(*id, start).await?;
        }
        Ok(())
    }

    async fn restart(&mut self, id: i32, offset: i64) -> Result<(), PartitionError> {
        if let Some(partition) = self.partitions.get_mut(&id) {
            partition.end_seen = false;
        }
        match self.reader.start(id, offset).await {
            // It was revoked meanwhile; the event is on its way.
            Err(error) if error.kind == LogErrorKind::NotAssigned => {
                self.partitions.remove(&id);
                Ok(())
            }
            outcome => Ok(outcome?),
        }
    }

    async fn go_on(&mut self, id: i32, next: Next) -> Result<(), PartitionError> {
        self.commit(id).await;
        match next {
            Next::Continue => Ok(()),
            Next::Restart(offset) => self.restart(id, offset).await,
            Next::Resolve => self.take_over(&[id]).await,
        }
    }

    /// Commits what is complete. A failure loses nothing: the chain is the truth, and the next commit covers it.
    async fn commit(&mut self, id: i32) {
        let Some(offset) = self.partitions.get_mut(&id).and_then(Partition::take_commit) else { return };
        if let Err(error) = self.reader.commit(&BTreeMap::from([(id, offset)])).await {
            self.role.metrics.commit_failed(&error);
            return;
        }
        let keep_ms = i64::try_from(self.role.settings.retention.as_millis()).unwrap_or(i64::MAX);
        // The record before the next batch stays, so that it can be checked.
        let before_ms = self.role.clock.now_ms().saturating_sub(keep_ms);
        if let Err(error) = self.role.log.trim(&self.context.topic, id, offset - 1, before_ms).await {
            tracing::warn!(%error, "the embedded log could not be trimmed; trying again after the next batch");
        }
    }

    async fn flush(&mut self, id: i32) -> Result<(), PartitionError> {
        let Some(partition) = self.partitions.get_mut(&id) else { return Ok(()) };
        let next = partition.flush(&self.context).await?;
        self.go_on(id, next).await
    }

    /// True when something was flushed.
    async fn flush_what_is_due(&mut self) -> Result<bool, PartitionError> {
        let max_age = self.role.settings.max_age;
        let due: Vec<i32> = self
            .partitions
            .iter()
            .filter(|(id, partition)| {
                let at_end = self
                    .targets
                    .as_ref()
                    .and_then(|targets| targets.get(id))
                    .is_some_and(|target| partition.has_read_to(target.latest));
                at_end || partition.filling_for().is_some_and(|age| age >= max_age)
            })
            .map(|(id, _)| *id)
            .collect();
        let mut flushed = !due.is_empty();
        for id in due {
            self.flush(id).await?;
        }
        // One batch after another, the largest first, until the rest fits.
        while self.batch_memory() > self.role.settings.max_memory {
            let fillable = self.partitions.iter().filter(|(_, partition)| partition.filling_for().is_some());
            let Some(largest) = fillable.max_by_key(|(_, partition)| partition.memory_bytes()).map(|(id, _)| *id)
            else {
                break;
            };
            self.flush(largest).await?;
            flushed = true;
        }
        Ok(flushed)
    }

    fn batch_memory(&self) -> u64 {
        self.partitions.values().map(|partition| partition.memory_bytes() as u64).sum()
    }

    /// With an announced end: all of our partitions are read and flushed, and all others are read by their owners.
    async fn is_finished(&mut self) -> Result<bool, PartitionError> {
        let Some(targets) = &self.targets else { return Ok(false) };
        if !self.assigned_once {
            return Ok(false);
        }
        let done = |id: &i32| self.partitions.get(id).is_some_and(|partition| self.is_done(*id, partition));
        let open: BTreeSet<i32> = targets.keys().filter(|id| !done(id)).copied().collect();
        if open.iter().any(|id| self.partitions.contains_key(id)) {
            return Ok(false);
        }
        for id in open {
            if !self.is_drained(id).await? {
                tokio::time::sleep(MAX_POLL).await;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Read to where the end was announced, and flushed.
    fn is_done(&self, id: i32, partition: &Partition) -> bool {
        let target = self.targets.as_ref().and_then(|targets| targets.get(&id));
        target.is_none_or(|target| partition.has_read_to(target.latest)) && partition.is_flushed()
    }

    /// Whether a partition that somebody else owns has no record between its committed offset and its end.
    async fn is_drained(&self, id: i32) -> Result<bool, PartitionError> {
        let (log, topic) = (&self.role.log, &self.context.topic);
        let Some(bounds) = log.bounds(topic).await?.get(&id).copied() else { return Ok(true) };
        let from = log
            .committed(&self.context.group, topic)
            .await?
            .get(&id)
            .copied()
            .unwrap_or(bounds.earliest)
            .max(bounds.earliest);
        let mut reader = log.reader(topic, &Membership::Direct { partitions: vec![id] }).await?;
        let drained = async {
            loop {
                match reader.poll(DRAINED_PATIENCE).await? {
                    ReadEvent::Assigned(_) => reader.start(id, from).await?,
                    ReadEvent::EndReached(_) => return Ok::<bool, LogError>(true),
                    ReadEvent::Chunk(_) | ReadEvent::Idle => return Ok(false),
                    ReadEvent::Revoked(_) => {}
                }
            }
        }
        .await;
        reader.close().await;
        Ok(drained?)
    }

    fn observe(&self) {
        let partitions = || self.partitions.values();
        self.role.metrics.worker_state(&WorkerState {
            assigned: self.partitions.len(),
            window_entries: partitions().map(Partition::window_entries).sum(),
            window_bytes: partitions().map(Partition::window_bytes).sum(),
            batch_memory_bytes: partitions().map(Partition::memory_bytes).sum(),
            oldest_unflushed: partitions().filter_map(Partition::filling_for).max().unwrap_or_default(),
        });
    }
}
