//! The ingestor as a role: sessions one after another until the work is done, an operator ends it, or it must not go on.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::backoff::Backoff;
use common::clock::Clock;
use common::config::{Archive, parse_marker};
use common::event::EventFormat;
use common::log::{Log, LogError, LogErrorKind, Retention, TopicSpec};
use common::shutdown::Shutdown;
use common::store::{Store, StoreError, StoreErrorKind, read_all};
use common::telemetry::Health;

use crate::framing::Limits;
use crate::ledger;
use crate::metrics::{IngestReport, Metrics};
use crate::publish::Topics;
use crate::session::Session;

/// Where a landing zone may say for itself what becomes of its files (see [`parse_marker`]).
pub const MARKER_KEY: &str = "landing.toml";
const MARKER_LIMIT_BYTES: u64 = 64 * 1024;
const COMPONENT: &str = "ingestor";

#[derive(Debug)]
pub enum IngestError {
    Log(LogError),
    Store(StoreError),
    /// The landing zone's marker file is wrong.
    Marker(String),
}

impl fmt::Display for IngestError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(error) if error.kind == LogErrorKind::Fenced => {
                write!(
                    formatter,
                    "another ingestor has taken over this ledger; only one may run for a landing zone ({error})"
                )
            }
            Self::Log(error) => error.fmt(formatter),
            Self::Store(error) => write!(formatter, "landing zone: {error}"),
            Self::Marker(message) => write!(formatter, "landing zone: {MARKER_KEY}: {message}"),
        }
    }
}

impl std::error::Error for IngestError {}

impl From<LogError> for IngestError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<StoreError> for IngestError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl IngestError {
    /// Whether a new session may succeed without anybody doing something here.
    fn is_retryable(&self, once: bool) -> bool {
        match self {
            Self::Log(error) => {
                matches!(error.kind, LogErrorKind::Transient | LogErrorKind::MustAbort | LogErrorKind::UnknownOutcome)
            }
            // A person waits for `--once`: what only an operator can mend is said at once.
            Self::Store(error) if once => error.kind == StoreErrorKind::Transient,
            Self::Store(error) => error.is_retryable(),
            Self::Marker(_) => false,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub events_topic: String,
    pub dlq_topic: String,
    pub ledger_topic: String,
    /// For creating the events topic only.
    pub partitions: u32,
    /// `None`: as the landing zone's marker says, else move.
    pub archive: Option<Archive>,
    pub poll_interval: Duration,
    /// A file must be unchanged this long by our clock before it is read; zero for stores that show whole files only.
    pub min_age: Duration,
    pub format: EventFormat,
    pub limits: Limits,
    /// End when everything pending at the start is done.
    pub once: bool,
    /// With `once`: how long to try without any progress.
    pub patience: Duration,
}

/// Everything a session works with.
pub struct Ingestor {
    pub store: Arc<dyn Store>,
    pub log: Arc<dyn Log>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub health: Health,
    pub settings: Settings,
}

impl Ingestor {
    /// Creates or verifies the topics.
    ///
    /// # Errors
    /// The log cannot be reached, or a topic is not as it must be.
    pub(crate) async fn ensure_topics(&self) -> Result<Topics, LogError> {
        let settings = &self.settings;
        let spec = |name: &str, partitions, retention| TopicSpec { name: name.to_owned(), partitions, retention };
        let events =
            self.log.ensure_topic(&spec(&settings.events_topic, settings.partitions, Retention::Delete)).await?;
        self.log.ensure_topic(&spec(&settings.dlq_topic, 1, Retention::Forever)).await?;
        ledger::ensure_topic(&*self.log, &settings.ledger_topic).await?;
        Ok(Topics {
            events: settings.events_topic.clone(),
            dlq: settings.dlq_topic.clone(),
            ledger: settings.ledger_topic.clone(),
            events_partitions: events.partitions,
        })
    }

    /// Runs until done (`once`) or shut down.
    ///
    /// # Errors
    /// What cannot be retried, or with `once` what still failed after the patience.
    pub async fn run(&self, shutdown: &Shutdown) -> Result<IngestReport, IngestError> {
        self.health.not_ready(COMPONENT, "taking over the ledger");
        let mut backoff =
            Backoff::new(Duration::from_millis(200), Duration::from_secs(15), self.clock.now_ms().unsigned_abs());
        let fresh_backoff = backoff.clone();
        let mut failing_since = None;
        let mut progress = self.progress();
        loop {
            let outcome = self.session(shutdown).await;
            let Err(error) = outcome else { return Ok(self.metrics.report()) };
            if shutdown.is_triggered() {
                tracing::info!(%error, "shut down while failing");
                return Ok(self.metrics.report());
            }
            if !error.is_retryable(self.settings.once) {
                return Err(error);
            }
            if progress != self.progress() {
                progress = self.progress();
                failing_since = None;
                backoff = fresh_backoff.clone();
            }
            let since = *failing_since.get_or_insert_with(Instant::now);
            if self.settings.once && since.elapsed() >= self.settings.patience {
                return Err(error);
            }
            self.health.not_ready(COMPONENT, &error.to_string());
            let wait = backoff.next_wait();
            tracing::warn!(%error, retry_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), "ingest session failed; trying again");
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = shutdown.wait() => return Ok(self.metrics.report()),
            }
        }
    }

    fn progress(&self) -> (IngestReport, u64) {
        (self.metrics.report(), self.metrics.read_bytes())
    }

    async fn session(&self, shutdown: &Shutdown) -> Result<(), IngestError> {
        let archive = match self.settings.archive {
            Some(archive) => archive,
            None => read_marker(&*self.store).await?.unwrap_or(Archive::Move),
        };
        let session = Session::begin(self, archive).await?;
        self.metrics.session_begun();
        self.health.ready(COMPONENT);
        session.run(shutdown).await
    }
}

/// What the landing zone says of itself, if it does.
///
/// # Errors
/// The store's, and a marker that cannot be understood.
pub async fn read_marker(store: &dyn Store) -> Result<Option<Archive>, IngestError> {
    let Some((_, text)) = read_all(store, MARKER_KEY, MARKER_LIMIT_BYTES).await? else { return Ok(None) };
    let text = std::str::from_utf8(&text).map_err(|_| IngestError::Marker("is not UTF-8".to_owned()))?;
    parse_marker(text).map(Some).map_err(IngestError::Marker)
}
