//! The lanes of this process: one for each ledger partition that the group assigns, restarted after temporary failures,
//! ended when the partition is revoked. Also runs discovery.
//!
//! Assignment only suggests the owner of a partition; the fence ensures that no other process can commit for it (see
//! [`crate::ownership`]). A lane that learns late of a revocation, or a zombie, therefore does no harm.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::log::{LogError, LogErrorKind, LogReader, ReadEvent};
use common::shutdown::Shutdown;
use common::store::{StoreError, StoreErrorKind};
use tokio::sync::{Mutex, Notify, mpsc};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::discovery::Discovery;
use crate::error::IngestError;
use crate::hints::Hint;
use crate::lane::{self, Shared};
use crate::problems::{Kind, Problems};
use crate::role::{COMPONENT, Ingestor, LISTING_COMPONENT};
use crate::routes::{Route, Waiting};
use crate::tries::Tries;

/// The longest pause between polls of the group.
const POLL: Duration = Duration::from_millis(500);
/// The minimum wait of a fenced lane: if another ingestor is the owner, the group reports it meanwhile.
const AFTER_FENCE: Duration = Duration::from_secs(1);
const GROUP_FAILURE_PAUSE: Duration = Duration::from_secs(5);
/// With `once`: how often files that changed while they were read are listed again.
const MAX_CHANGED_SWEEPS: u32 = 5;

struct Handle {
    stop: Shutdown,
    idle: Arc<AtomicBool>,
    waiting: Arc<Waiting>,
    generation: u64,
}

/// The state of a `--once` run.
#[derive(Default)]
struct Once {
    /// A whole listing was made since the last change of lanes.
    swept: bool,
    changed_sweeps: u32,
}

pub(crate) struct Crew<'a> {
    ingestor: &'a Ingestor,
    shared: Shared,
    hints: Arc<Mutex<mpsc::Receiver<Hint>>>,
    wake: Arc<Notify>,
    lanes: JoinSet<(i32, u64, Result<(), IngestError>)>,
    handles: BTreeMap<i32, Handle>,
    /// Assigned partitions without a lane, and the time to start one.
    restarts: BTreeMap<i32, Instant>,
    generation: u64,
    discovery: Option<JoinHandle<Result<(), StoreError>>>,
    discover_at: Instant,
    once: Once,
    /// With `once`: partitions whose lane has failed permanently.
    failed: BTreeMap<i32, IngestError>,
    /// With `once`: the time since when no partition is assigned.
    unassigned_since: Option<Instant>,
    group_failure_logged: Option<Instant>,
}

impl<'a> Crew<'a> {
    pub(crate) fn new(ingestor: &'a Ingestor, shared: Shared, hints: Arc<Mutex<mpsc::Receiver<Hint>>>) -> Self {
        Self {
            ingestor,
            shared,
            hints,
            wake: Arc::new(Notify::new()),
            lanes: JoinSet::new(),
            handles: BTreeMap::new(),
            restarts: BTreeMap::new(),
            generation: 0,
            discovery: None,
            discover_at: Instant::now(),
            once: Once::default(),
            failed: BTreeMap::new(),
            unassigned_since: None,
            group_failure_logged: None,
        }
    }

    /// Works until shutdown, or with `once` until everything is done.
    ///
    /// # Errors
    /// An error that cannot be retried, or not for longer.
    pub(crate) async fn work(
        &mut self,
        group: &mut dyn LogReader,
        tries: &mut Tries,
        shutdown: &Shutdown,
    ) -> Result<(), IngestError> {
        loop {
            self.start_due();
            if self.ingestor.settings.once && self.is_all_done(tries)? {
                return Ok(());
            }
            let next = self.next_start();
            tokio::select! {
                event = group.poll(POLL) => self.assignment_changed(event)?,
                Some(ended) = self.lanes.join_next(), if !self.lanes.is_empty() => self.lane_ended(ended, tries)?,
                ended = end_of(&mut self.discovery), if self.discovery.is_some() => {
                    self.discovery = None;
                    self.discovery_ended(ended, tries)?;
                }
                () = self.shared.activity.notified() => {}
                () = tokio::time::sleep_until(next) => {}
                () = shutdown.wait() => return Ok(()),
            }
        }
    }

    /// Ends everything in order: commits the batches read, records the files archived.
    pub(crate) async fn end(mut self) {
        // Without lanes nothing is listed.
        self.ingestor.health.ready(LISTING_COMPONENT);
        if let Some(discovery) = self.discovery.take() {
            discovery.abort();
        }
        for partition in self.handles.keys().copied().collect::<Vec<_>>() {
            self.stop(partition);
        }
        while let Some(ended) = self.lanes.join_next().await {
            match ended {
                Ok((partition, _, Err(error))) => tracing::debug!(partition, %error, "a lane failed while it ended"),
                Err(error) => tracing::error!(%error, "a lane of the ingestor failed"),
                Ok((_, _, Ok(()))) => {}
            }
        }
    }

    fn assignment_changed(&mut self, event: common::log::Result<ReadEvent>) -> Result<(), IngestError> {
        match event {
            Ok(ReadEvent::Assigned(partitions)) => {
                tracing::info!(?partitions, "ledger partitions assigned");
                let now = Instant::now();
                self.restarts.extend(partitions.into_iter().map(|partition| (partition, now)));
                self.start_due();
                // Also without a partition: a standby member is healthy.
                self.update_health(None);
            }
            Ok(ReadEvent::Revoked(partitions)) => {
                tracing::info!(?partitions, "ledger partitions revoked");
                for partition in partitions {
                    self.failed.remove(&partition);
                    self.restarts.remove(&partition);
                    self.stop(partition);
                }
                if self.handles.is_empty() && self.restarts.is_empty() {
                    self.ingestor.health.ready(LISTING_COMPONENT);
                }
                self.update_health(None);
            }
            // No partition is ever started, so nothing is read.
            Ok(ReadEvent::Chunk(_) | ReadEvent::EndReached(_) | ReadEvent::Failed { .. } | ReadEvent::Idle) => {}
            // The client recovers by itself; a failure that it cannot recover from causes a revocation.
            Err(error) if error.kind == LogErrorKind::Transient => self.group_failed(&error),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Logs at most once in a while: the client reports every connection that it loses.
    fn group_failed(&mut self, error: &LogError) {
        let now = Instant::now();
        if self.group_failure_logged.is_none_or(|logged| now.duration_since(logged) >= GROUP_FAILURE_PAUSE) {
            self.group_failure_logged = Some(now);
            tracing::warn!(%error, "the group of ingestors cannot be reached; trying again");
        }
    }

    fn start_due(&mut self) {
        let now = Instant::now();
        let due: Vec<i32> =
            self.restarts.iter().filter(|(_, at)| **at <= now).map(|(partition, _)| *partition).collect();
        for partition in due {
            self.restarts.remove(&partition);
            self.start(partition);
        }
        let has_swept = self.ingestor.settings.once && self.once.swept;
        let is_wanted = !has_swept && !self.handles.is_empty();
        if self.discovery.is_none() && is_wanted && self.discover_at <= now {
            self.discover();
        }
    }

    fn next_start(&self) -> Instant {
        let mut next = Instant::now() + POLL;
        if let Some(restart) = self.restarts.values().min() {
            next = next.min(*restart);
        }
        if self.discovery.is_none() && self.discover_at > Instant::now() {
            next = next.min(self.discover_at);
        }
        next
    }

    fn start(&mut self, partition: i32) {
        self.stop(partition);
        self.generation += 1;
        let (sender, found) = mpsc::unbounded_channel();
        let (waiting, idle, stop) = (Arc::new(Waiting::default()), Arc::new(AtomicBool::new(false)), Shutdown::new());
        self.shared.routes.open(partition, Route { sender, waiting: waiting.clone() });
        let handle =
            Handle { stop: stop.clone(), idle: idle.clone(), waiting: waiting.clone(), generation: self.generation };
        self.handles.insert(partition, handle);
        let (shared, generation) = (self.shared.clone(), self.generation);
        self.lanes.spawn(async move {
            (partition, generation, lane::run(shared, partition, found, waiting, idle, stop).await)
        });
        // A listing in progress has skipped this partition's files.
        self.once.swept = false;
        self.wake.notify_one();
        if self.ingestor.settings.once {
            self.abandon_listing();
        }
        self.update_health(None);
    }

    fn abandon_listing(&mut self) {
        if let Some(discovery) = self.discovery.take() {
            discovery.abort();
        }
    }

    /// Asks the lane of the partition to end; it finishes its commit in progress, if it still owns the partition.
    fn stop(&mut self, partition: i32) {
        self.shared.routes.close(partition);
        if let Some(handle) = self.handles.remove(&partition) {
            handle.stop.trigger();
        }
    }

    fn lane_ended(
        &mut self,
        ended: Result<(i32, u64, Result<(), IngestError>), JoinError>,
        tries: &mut Tries,
    ) -> Result<(), IngestError> {
        let (partition, generation, outcome) = ended.map_err(|error| IngestError::task(&error))?;
        let is_current = self.handles.get(&partition).is_some_and(|handle| handle.generation == generation);
        if !is_current {
            // Revoked: its end was requested, and a fence adds nothing.
            return Ok(());
        }
        self.stop(partition);
        let wait = match outcome {
            Ok(()) => Duration::ZERO,
            Err(error) => {
                let fenced = matches!(&error, IngestError::Log(error) if error.kind == LogErrorKind::Fenced);
                self.update_health(Some(&error));
                match self.wait_after(error, tries, &format!("ledger partition {partition}")) {
                    Ok(wait) if fenced => wait.max(AFTER_FENCE),
                    Ok(wait) => wait,
                    Err(error) => return self.lane_failed(partition, error),
                }
            }
        };
        self.restarts.insert(partition, Instant::now() + wait);
        Ok(())
    }

    /// A failed partition does not keep the others from their end, if there is one.
    fn lane_failed(&mut self, partition: i32, error: IngestError) -> Result<(), IngestError> {
        let is_only_one = self.handles.is_empty() && self.restarts.is_empty() && self.failed.is_empty();
        if !self.ingestor.settings.once || is_only_one {
            return Err(error);
        }
        tracing::warn!(partition, %error, "a ledger partition cannot be worked on; the others are");
        self.failed.insert(partition, error);
        self.note_failed();
        Ok(())
    }

    fn note_failed(&self) {
        let seen = self.shared.routes.sweep();
        for (partition, error) in &self.failed {
            let key = format!("ledger partition {partition}");
            let error = StoreError::new(StoreErrorKind::Other, "own", &key, error);
            self.shared.problems.note(&key, Kind::Partition, error, seen);
        }
    }

    fn discovery_ended(
        &mut self,
        ended: Result<Result<(), StoreError>, JoinError>,
        tries: &mut Tries,
    ) -> Result<(), IngestError> {
        match ended.map_err(|error| IngestError::task(&error))? {
            Ok(()) => self.once.swept = true,
            Err(error) => {
                // No listing follows, and none is needed, while no partition is assigned.
                if !(self.handles.is_empty() && self.restarts.is_empty()) {
                    self.ingestor.health.not_ready(LISTING_COMPONENT, &error.to_string());
                }
                match self.wait_after(error.clone().into(), tries, "listing") {
                    Ok(wait) => self.discover_at = Instant::now() + wait,
                    Err(_) if self.ingestor.settings.once => self.listing_failed(error),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// With `once`: what was found before the failure is done all the same.
    fn listing_failed(&mut self, error: StoreError) {
        tracing::warn!(%error, "the listing cannot be completed; the files found so far are ingested");
        let (key, seen) = (error.key.clone(), self.shared.routes.sweep());
        self.shared.problems.note(&key, Kind::Unlisted, error, seen);
        self.once.swept = true;
    }

    fn wait_after(&self, error: IngestError, tries: &mut Tries, what: &str) -> Result<Duration, IngestError> {
        let Some(wait) = tries.failed(&error, self.ingestor.progress(), Instant::now()) else { return Err(error) };
        let retry_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(%error, retry_in_ms, "{what} failed; trying again");
        Ok(wait)
    }

    fn update_health(&self, error: Option<&IngestError>) {
        match error {
            Some(error) => self.ingestor.health.not_ready(COMPONENT, &error.to_string()),
            None => self.ingestor.health.ready(COMPONENT),
        }
    }

    fn discover(&mut self) {
        let Shared { file, routes, problems, topics, .. } = &self.shared;
        let discovery = Discovery::new(
            file.store.clone(),
            file.clock.clone(),
            self.ingestor.health.clone(),
            file.metrics.clone(),
            file.settings.discovery.clone(),
            routes.clone(),
            problems.clone(),
            topics.ledger_partitions,
        );
        if self.ingestor.settings.once {
            problems.begin_listing();
            self.note_failed();
            self.discovery = Some(tokio::spawn(discovery.run_once()));
        } else {
            let (hints, wake) = (self.hints.clone(), self.wake.clone());
            self.discovery = Some(tokio::spawn(async move {
                // A listing that was aborted has released the hints.
                let mut hints = hints.lock().await;
                discovery.run(&mut hints, wake).await
            }));
        }
    }

    /// With `once`: whether every pending file is done. Begins another listing if one is needed.
    fn is_all_done(&mut self, tries: &mut Tries) -> Result<bool, IngestError> {
        if self.handles.is_empty() && self.restarts.is_empty() {
            if !self.failed.is_empty() {
                return self.end_of_work();
            }
            // Also while the group moves partitions during the work.
            let since = *self.unassigned_since.get_or_insert_with(Instant::now);
            let waited_long = since.elapsed() >= self.ingestor.settings.patience;
            return if waited_long { Err(IngestError::NothingAssigned) } else { Ok(false) };
        }
        self.unassigned_since = None;
        let is_idle = |handle: &Handle| handle.idle.load(Ordering::Acquire) && handle.waiting.is_empty();
        if !self.once.swept || !self.restarts.is_empty() || !self.handles.values().all(is_idle) {
            return Ok(false);
        }
        let Some(wait) = self.wait_for_temporary_problems(tries) else { return self.end_of_work() };
        self.list_again(wait);
        Ok(false)
    }

    /// Everything possible is done; unfinished work is reported as an error.
    fn end_of_work(&self) -> Result<bool, IngestError> {
        let problems = self.shared.problems.all(Problems::MOST_LISTED);
        problems.map_or(Ok(true), |all| Err(IngestError::Incomplete(all)))
    }

    /// The time until another listing may find more; `None` if none would.
    fn wait_for_temporary_problems(&mut self, tries: &mut Tries) -> Option<Duration> {
        let problems = self.shared.problems.clone();
        if problems.has_changed() || problems.wants_a_listing() {
            self.once.changed_sweeps += 1;
            if self.once.changed_sweeps <= MAX_CHANGED_SWEEPS {
                let poll_interval = self.ingestor.settings.discovery.poll_interval;
                return Some(if problems.wants_a_listing() { Duration::ZERO } else { poll_interval });
            }
            problems.give_changing_up(self.shared.routes.sweep());
        }
        let error = problems.temporary()?;
        self.wait_after(error.into(), tries, "a file").ok()
    }

    fn list_again(&mut self, wait: Duration) {
        self.once.swept = false;
        self.discover_at = Instant::now() + wait;
    }
}

async fn end_of<T>(task: &mut Option<JoinHandle<T>>) -> Result<T, JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}
