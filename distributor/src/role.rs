//! The distributor as a role: sessions one after another, each a [`Worker`] in the consumer group.

use std::sync::Arc;
use std::time::Duration;

use common::backoff::Backoff;
use common::clock::Clock;
use common::config::{MissingFiles, TypeAges};
use common::log::{
    DIRECT_GROUP, Log, LogErrorKind, Membership, Operation, Retention, Right, TopicSpec, settled_bounds, with_rights,
};
use common::shutdown::Shutdown;
use common::store::{RetryPolicy, RetryingStore, Store, StoreError, StoreErrorKind};
use common::telemetry::Health;
use tokio::time::Instant;

use crate::batch::Encoding;
use crate::companion::Companion;
use crate::context::Context;
use crate::error::PartitionError;
use crate::host::Host;
use crate::lane::Target;
use crate::layout::Layout;
use crate::lost::refuse_lost;
use crate::metrics::{DistributeReport, Metrics};
use crate::scratch::Scratch;
use crate::uploads::UploadRoom;
use crate::window::Budget;
use crate::worker::Worker;

pub(crate) const COMPONENT: &str = "distributor";
/// Not ready while calls of the store keep failing.
pub(crate) const STORE_COMPONENT: &str = "distributor: trusted zone";

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct DistributeError(PartitionError);

impl PartitionError {
    pub(crate) fn of_the_store(&self) -> Vec<&StoreError> {
        match self {
            Self::Store(error) => vec![error],
            Self::Partitions(failed) => failed.values().flat_map(Self::of_the_store).collect(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn is_retryable(&self, once: bool) -> bool {
        match self {
            Self::Store(error) if once => error.kind == StoreErrorKind::Transient,
            Self::Store(error) => error.is_retryable(),
            // With `once` a person waits, and the records stay unreadable.
            Self::Log(error) if error.kind == LogErrorKind::Corrupt => !once,
            // The next session checks a missing offset, and refuses with the remedy if it must.
            Self::Log(error) => {
                matches!(
                    error.kind,
                    LogErrorKind::Transient | LogErrorKind::NotAssigned | LogErrorKind::OffsetOutOfRange
                )
            }
            // The next session rebuilds the window; there may be disk space then.
            Self::Scratch(_) => !once,
            Self::Overtaken(_) => true,
            Self::Partitions(failed) => failed.values().any(|error| error.is_retryable(once)),
            Self::Refused(_) | Self::Damaged { .. } | Self::Unwritable(_) | Self::Encode(_) | Self::Internal(_) => {
                false
            }
        }
    }
}

/// Announces to the worker that nothing more will be written to the log: it reads to the end, flushes, and ends.
#[derive(Debug, Clone)]
pub struct EndOfInput {
    sender: tokio::sync::watch::Sender<bool>,
}

impl EndOfInput {
    /// For work that ends at the log's current end.
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

    pub(crate) fn is_announced(&self) -> bool {
        *self.sender.borrow()
    }

    pub(crate) async fn announced(&self) {
        // The sender lives as long as `self`.
        let _ = self.sender.subscribe().wait_for(|announced| *announced).await;
    }
}

/// The rights that a distributor needs at the log.
pub fn needed_rights(topic: &str, group: &str) -> Vec<Right> {
    vec![
        Right::of_topic(topic, "log.events_topic", [Operation::Read, Operation::DescribeConfigs]),
        Right::of_group(group, "kafka.group", Operation::Read),
        Right::of_group(DIRECT_GROUP, "a fixed name", Operation::Describe),
    ]
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub topic: String,
    /// Used only to create the topic.
    pub partitions: u32,
    pub group: String,
    pub instance_id: Option<String>,
    pub layout: Layout,
    pub encoding: Encoding,
    pub max_age: Duration,
    /// Shorter ages for certain types.
    pub ages: TypeAges,
    pub max_bytes: u64,
    pub max_rows: u64,
    /// The most files of a batch.
    pub max_files: usize,
    pub max_memory: u64,
    /// Memory of all deduplication windows, bytes. More goes to `scratch`.
    pub window_memory: u64,
    pub scratch: Scratch,
    pub missing: MissingFiles,
    /// How long the embedded log keeps records that are in the trusted zone.
    pub retention: Duration,
    pub once: bool,
    /// With `once`: how long to retry without any progress.
    pub patience: Duration,
}

pub struct Distributor {
    pub store: Arc<dyn Store>,
    pub log: Arc<dyn Log>,
    pub clock: Arc<dyn Clock>,
    pub host: Host,
    pub metrics: Arc<Metrics>,
    pub health: Health,
    pub settings: Settings,
    /// Work beside the owner of each partition, unless `once`.
    pub companions: Vec<Arc<dyn Companion>>,
}

impl Distributor {
    /// Runs until the end of input is reached and flushed, or shut down.
    ///
    /// # Errors
    /// An error that cannot be retried, or with `once` one that persisted beyond the patience.
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
            for error in error.of_the_store() {
                self.metrics.store_failed(error);
            }
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
                biased;
                () = shutdown.wait() => return Ok(self.metrics.report()),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn retrying_store(&self, shutdown: &Shutdown) -> Arc<dyn Store> {
        let metrics = self.metrics.clone();
        let policy = RetryPolicy {
            patience: self.settings.once.then_some(self.settings.patience),
            wait_for_operator: !self.settings.once,
            shutdown: shutdown.clone(),
            on_retry: Arc::new(move |error| metrics.store_retried(error)),
        };
        let (store, health, metrics) = (self.store.clone(), self.health.clone(), self.metrics.clone());
        let on_answer = Arc::new(move |operation, took| metrics.store_answered(operation, took));
        Arc::new(RetryingStore::reporting(store, policy, health, STORE_COMPONENT, on_answer))
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
        let ensured = self.log.ensure_topic(&spec).await;
        with_rights(&*self.log, &needed_rights(&settings.topic, &settings.group), ensured).await?;
        refuse_lost(&**store, &settings.topic).await?;
        let context = Context {
            store: store.clone(),
            topic: settings.topic.clone(),
            group: settings.group.clone(),
            log_id: self.log.identity().await?,
            layout: settings.layout.clone(),
            encoding: settings.encoding,
            max_age: settings.max_age,
            ages: settings.ages.clone(),
            max_rows: settings.max_rows,
            max_bytes: settings.max_bytes,
            max_files: settings.max_files,
            scratch: settings.scratch.clone(),
            uploads: UploadRoom::default(),
            budget: Budget::new(settings.window_memory, settings.scratch.clone()),
            missing: settings.missing,
            metrics: self.metrics.clone(),
            companions: if settings.once { Vec::new() } else { self.companions.clone() },
        };
        // The ends are read first: every end of a partition reached later is at or beyond them.
        let asked_ms = self.clock.now_ms();
        let targets = if end.is_announced() {
            let bounds = settled_bounds(&*self.log, &settings.topic, settings.patience).await?;
            Some(Target { asked_ms, bounds })
        } else {
            None
        };
        let membership = Membership::Group { group: settings.group.clone(), instance_id: settings.instance_id.clone() };
        let reader = self.log.reader(&settings.topic, &membership).await?;
        Worker::new(self, context, reader, targets).run(end, shutdown).await
    }
}
