//! The ingestor as a role: joins the group that shares the ledger's partitions and processes its assigned ones, until
//! the work is done, an operator ends it, or it must not continue.

use std::path::PathBuf;
use std::sync::Arc;

use common::clock::Clock;
use common::config::{Archive, parse_marker};
use common::log::{Log, LogReader, Membership};
use common::shutdown::Shutdown;
use common::store::{Store, StoreErrorKind, read_all};
use common::telemetry::Health;
use tokio::sync::{Mutex, Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::archive::Names;
use crate::crew::Crew;
use crate::error::IngestError;
use crate::file::{FileContext, memory};
use crate::hints::Hint;
use crate::hints::sqs::poll;
use crate::hints::watch::watch;
use crate::lane::{Shared, check_mode};
use crate::metrics::{IngestReport, Metrics};
use crate::ownership::Topics;
use crate::problems::ProblemBook;
use crate::rate::Rate;
use crate::routes::Routes;
use crate::settings::Settings;
use crate::tries::{Progress, Tries};

/// The file with which a landing zone sets its archive mode (see [`parse_marker`]).
pub const MARKER_KEY: &str = "landing.toml";
const MARKER_LIMIT_BYTES: u64 = 64 * 1024;
pub(crate) const COMPONENT: &str = "ingestor";
/// The component of listings: discovery reports it ready, and no other part of the role does meanwhile.
pub(crate) const LISTING_COMPONENT: &str = "ingestor: landing zone";
/// Hints on their way to discovery; sources wait when it is busy.
const HINTS_IN_FLIGHT: usize = 1_000;

/// A source that may report new files before a listing does.
#[derive(Debug, Clone)]
pub enum HintSource {
    /// A local landing zone.
    Folder(PathBuf),
    /// S3 event notifications of a landing zone in a bucket.
    Queue { url: String, bucket: String, prefix: String },
}

/// An ingestor with its dependencies.
pub struct Ingestor {
    pub store: Arc<dyn Store>,
    pub log: Arc<dyn Log>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub health: Health,
    pub hints: Vec<HintSource>,
    pub settings: Settings,
}

impl Ingestor {
    /// Runs until done (`once`) or shut down.
    ///
    /// # Errors
    /// An error that cannot be retried, or with `once` one that persisted beyond the patience.
    pub async fn run(&self, shutdown: &Shutdown) -> Result<IngestReport, IngestError> {
        self.health.not_ready(COMPONENT, "waiting for ledger partitions");
        let began_ms = self.clock.now_ms();
        let mut tries = Tries::new(self.settings.once, self.settings.patience, began_ms.unsigned_abs());
        let (sources, hints) = self.listen_for_hints(shutdown);
        let hints = Arc::new(Mutex::new(hints));
        let outcome = loop {
            let Err(error) = self.work(began_ms, &mut tries, &hints, shutdown).await else { break Ok(()) };
            if shutdown.is_triggered() {
                tracing::info!(%error, "shut down while failing");
                break Ok(());
            }
            let Some(wait) = tries.failed(&error, self.progress(), Instant::now()) else { break Err(error) };
            self.health.not_ready(COMPONENT, &error.to_string());
            let retry_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(%error, retry_in_ms, "ingesting failed; trying again");
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = shutdown.wait() => break Ok(()),
            }
        };
        drop(sources);
        let outcome = outcome.inspect_err(|error| self.health.not_ready(COMPONENT, &error.to_string()));
        outcome.map(|()| self.metrics.report())
    }

    pub(crate) fn progress(&self) -> Progress {
        (self.metrics.report(), self.metrics.read_bytes())
    }

    /// Sources run until shutdown, or until the set is dropped. A single listing needs none.
    fn listen_for_hints(&self, shutdown: &Shutdown) -> (JoinSet<()>, mpsc::Receiver<Hint>) {
        let (sender, receiver) = mpsc::channel(HINTS_IN_FLIGHT);
        let mut sources = JoinSet::new();
        for source in self.hints.iter().filter(|_| !self.settings.once).cloned() {
            let (sender, shutdown) = (sender.clone(), shutdown.clone());
            match source {
                HintSource::Folder(root) => sources.spawn(watch(root, sender, shutdown)),
                HintSource::Queue { url, bucket, prefix } => sources.spawn(poll(url, bucket, prefix, sender, shutdown)),
            };
        }
        (sources, receiver)
    }

    async fn work(
        &self,
        began_ms: i64,
        tries: &mut Tries,
        hints: &Arc<Mutex<mpsc::Receiver<Hint>>>,
        shutdown: &Shutdown,
    ) -> Result<(), IngestError> {
        // An unreachable log or store may take long to answer.
        let (topics, archive, mut group) = tokio::select! {
            joined = self.join() => joined?,
            () = shutdown.wait() => return Ok(()),
        };
        let mut crew = Crew::new(self, self.shared(topics, archive, began_ms), hints.clone());
        let outcome = crew.work(&mut *group, tries, shutdown).await;
        crew.end().await;
        group.close().await;
        outcome
    }

    async fn join(&self) -> Result<(Arc<Topics>, Archive, Box<dyn LogReader>), IngestError> {
        let topics = Arc::new(Topics::ensure(&*self.log, &self.settings).await?);
        let archive = archive_mode(&*self.store, self.settings.archive).await?;
        let membership = Membership::Group { group: topics.group(), instance_id: self.settings.instance_id.clone() };
        let group = self.log.reader(&topics.ledger, &membership).await?;
        Ok((topics, archive, group))
    }

    fn shared(&self, topics: Arc<Topics>, archive: Archive, began_ms: i64) -> Shared {
        let problems = Arc::new(ProblemBook::default());
        self.metrics.joined(topics.ledger_partitions, problems.clone());
        Shared {
            log: self.log.clone(),
            routes: Arc::new(Routes::new()),
            problems,
            rate: Arc::new(Rate::new(self.settings.max_bytes_per_second)),
            file: FileContext {
                store: self.store.clone(),
                clock: self.clock.clone(),
                metrics: self.metrics.clone(),
                settings: Arc::new(self.settings.clone()),
                archive,
                names: Names::of(&*self.store),
                events_partitions: topics.events_partitions,
                memory: memory(&self.settings),
            },
            topics,
            activity: Arc::new(Notify::new()),
            process_began_ms: began_ms,
        }
    }
}

/// The archive mode: as configured, else as the landing zone's marker says, else `move`.
///
/// # Errors
/// The store's error, an invalid marker, or a mode that the store does not support.
pub async fn archive_mode(store: &dyn Store, configured: Option<Archive>) -> Result<Archive, IngestError> {
    if let Some(archive) = configured {
        check_mode(archive, store).map_err(IngestError::Unsupported)?;
        return Ok(archive);
    }
    let archive = read_marker(store).await?.unwrap_or(Archive::Move);
    check_mode(archive, store).map_err(|reason| IngestError::Marker(format!("{MARKER_KEY}: {reason}")))?;
    Ok(archive)
}

/// The mode that the landing zone's marker sets, if there is one.
///
/// # Errors
/// The store's error, or an invalid marker.
pub async fn read_marker(store: &dyn Store) -> Result<Option<Archive>, IngestError> {
    let wrong = |message: String| IngestError::Marker(format!("{MARKER_KEY}: {message}"));
    let text = match read_all(store, MARKER_KEY, MARKER_LIMIT_BYTES).await {
        Ok(Some((_, text))) => text,
        Ok(None) => {
            return match what_is_no_marker(store) {
                Some(what) => {
                    Err(wrong(format!("it is {what}, and has to be a file; remove it, or put the file there")))
                }
                None => Ok(None),
            };
        }
        Err(error) if error.kind == StoreErrorKind::TooLarge => return Err(wrong(error.message)),
        Err(error) => return Err(error.into()),
    };
    let text = std::str::from_utf8(&text).map_err(|_| wrong("is not UTF-8".to_owned()))?;
    parse_marker(text).map(Some).map_err(wrong)
}

/// An entry of a folder under the marker's name that is not a file. It was meant to set a mode, so files must not be
/// moved as if there were no marker.
fn what_is_no_marker(store: &dyn Store) -> Option<&'static str> {
    let folder = store.capabilities().folder?;
    let found = folder.join(MARKER_KEY).symlink_metadata().ok()?.file_type();
    Some(match found {
        kind if kind.is_dir() => "a folder",
        kind if kind.is_symlink() => "a symbolic link, which is not followed",
        // Created since the look-up.
        kind if kind.is_file() => return None,
        _ => "a special file",
    })
}
