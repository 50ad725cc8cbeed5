//! One owned ledger partition at work. Reads its files, several at a time, and gathers their batches into transactions.
//! The archive step follows each commit, and a later commit records its outcome. Reading, committing and archiving
//! overlap; a slow file delays only itself.
//!
//! A lane never continues after a commit that failed or whose outcome is unknown: it ends. The caller then owns the
//! partition again, which determines the outcome.

mod archiving;
mod decide;
mod late;
mod queue;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::config::Archive;
use common::log::{Log, LogError, LogWriter};
use common::shutdown::Shutdown;
use common::store::{Store, StoreError};
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::error::IngestError;
use crate::file::{self, FileContext, FileEnd};
use crate::identity::Identities;
use crate::ledger::{ArchiveMode, Entry, FileState, Ledger, Passed};
use crate::ownership::{Owned, Topics, own};
use crate::problems::{Kind, ProblemBook};
use crate::rate::Rate;
use crate::routes::{Candidate, Found, Routes, Sweep, Waiting};
use crate::transaction::{FileBatch, Last, Transaction};
use crate::uncovered::Uncovered;
use archiving::{ArchivedFile, Late, ToArchive};
use decide::{Decision, decide};
use late::Watch;
use queue::Queued;

pub(crate) use decide::allowed;

/// No further files are begun while this many wait to be archived: twice what is archived at a time. Each takes more than
/// a kilobyte, because its entry is still needed whole.
const ARCHIVE_BACKLOG: usize = 2_000;
/// Batches between the files and the transaction.
const BATCHES_IN_FLIGHT: usize = 16;
/// How long archive steps and checks in progress may delay the end of a lane. Each of them can be repeated.
const STEPS_END_WITHIN: Duration = Duration::from_millis(500);
/// Tombstones committed at a time.
const TOMBSTONES: usize = 1_000;

/// The state shared by all lanes of a process.
#[derive(Clone)]
pub(crate) struct Shared {
    pub log: Arc<dyn Log>,
    pub topics: Arc<Topics>,
    pub routes: Arc<Routes>,
    pub problems: Arc<ProblemBook>,
    pub rate: Arc<Rate>,
    pub file: FileContext,
    /// Notified whenever a lane may have become idle.
    pub activity: Arc<Notify>,
    pub process_began_ms: i64,
}

/// A commit in progress, and its result.
struct Committing {
    writer: Box<dyn LogWriter>,
    transaction: Transaction,
    outcome: Result<(), LogError>,
    took: Duration,
    /// The lane ended before the rate permitted to publish the batches.
    dropped_batches: bool,
}

pub(crate) struct Lane {
    shared: Shared,
    partition: i32,
    mode: ArchiveMode,
    waiting: Arc<Waiting>,
    idle: Arc<AtomicBool>,
    ledger: Ledger,
    identities: Identities,
    queue: VecDeque<Queued>,
    files: JoinSet<(String, String, Result<FileEnd, IngestError>)>,
    batch_sender: mpsc::Sender<FileBatch>,
    batches: mpsc::Receiver<FileBatch>,
    filling: Transaction,
    /// The lane ends and has dropped a batch: none that follows may be committed.
    drops_batches: bool,
    /// `None` during a commit.
    writer: Option<Box<dyn LogWriter>>,
    committing: Option<JoinHandle<Committing>>,
    to_archive: VecDeque<ToArchive>,
    archiving: Option<JoinHandle<Vec<ArchivedFile>>>,
    late: Late,
}

/// Owns the partition and works on it until `stop`, or until it fails. Commits and archive steps in progress are
/// completed first.
///
/// # Errors
/// The log's error. The partition has to be owned again.
pub(crate) async fn run(
    shared: Shared,
    partition: i32,
    found: mpsc::UnboundedReceiver<Found>,
    waiting: Arc<Waiting>,
    idle: Arc<AtomicBool>,
    stop: Shutdown,
) -> Result<(), IngestError> {
    let owned = tokio::select! {
        owned = own(&*shared.log, &shared.topics, partition, shared.routes.sweep()) => owned?,
        () = stop.wait() => return Ok(()),
    };
    tracing::info!(partition, entries = owned.ledger.len(), "owning a ledger partition");
    shared.file.metrics.partition_owned(partition);
    shared.file.metrics.ledger_is(partition, &owned.ledger);
    let mut lane = Lane::new(shared, partition, owned, waiting, idle);
    let outcome = lane.work(found, &stop).await;
    lane.shared.file.metrics.partition_given_up(partition);
    outcome
}

impl Lane {
    fn new(shared: Shared, partition: i32, owned: Owned, waiting: Arc<Waiting>, idle: Arc<AtomicBool>) -> Self {
        let (batch_sender, batches) = mpsc::channel(BATCHES_IN_FLIGHT);
        let Owned { writer, mut ledger } = owned;
        let moved = ledger.take_moved();
        let mut lane = Self {
            mode: shared.file.archive.into(),
            identities: Identities::of(&*shared.file.store),
            shared,
            partition,
            waiting,
            idle,
            ledger,
            queue: VecDeque::new(),
            files: JoinSet::new(),
            batch_sender,
            batches,
            filling: Transaction::new(),
            drops_batches: false,
            writer: Some(writer),
            committing: None,
            to_archive: VecDeque::new(),
            archiving: None,
            late: Late::default(),
        };
        if lane.watches_moved_files() {
            let file = &lane.shared.file;
            lane.late.watch = Watch::new(moved, file.clock.now_ms(), file.settings.once);
        }
        lane
    }

    async fn work(&mut self, mut found: mpsc::UnboundedReceiver<Found>, stop: &Shutdown) -> Result<(), IngestError> {
        let mut stopping = false;
        let mut steps_end = None;
        loop {
            if stopping {
                // Requested by the signal or by the end of the found files, whichever comes first.
                self.queue.clear();
                steps_end.get_or_insert_with(|| Instant::now() + STEPS_END_WITHIN);
            } else {
                self.begin_files(stop);
            }
            self.begin_commit(stop);
            self.begin_archiving();
            if !stopping {
                self.begin_checks();
            }
            let is_idle = self.is_idle() && (stopping || !self.is_check_due());
            if stopping && is_idle {
                return Ok(());
            }
            self.tell_idle(is_idle && found.is_empty());
            let next_check = self.next_check().filter(|_| self.late.checking.is_none() && !stopping);
            let due = self.filling.due().filter(|_| self.writer.is_some()).map(Instant::from_std);
            tokio::select! {
                () = stop.wait(), if !stopping => stopping = true,
                next = found.recv(), if !stopping => match next {
                    Some(found) => self.take(found),
                    None => stopping = true,
                },
                Some(batch) = self.batches.recv(), if !self.filling.is_full() => self.filling.add(batch),
                Some(ended) = self.files.join_next(), if !self.files.is_empty() => self.file_ended(ended)?,
                ended = next_of(&mut self.committing), if self.committing.is_some() => {
                    self.committing = None;
                    self.committed(ended?)?;
                }
                ended = next_of(&mut self.archiving), if self.archiving.is_some() => {
                    self.archiving = None;
                    self.archived(ended?);
                }
                ended = next_of(&mut self.late.checking), if self.late.checking.is_some() => {
                    self.late.checking = None;
                    self.record_checks(ended?);
                }
                () = tokio::time::sleep(next_check.unwrap_or_default()), if next_check.is_some() => {}
                () = sleep_until(due), if due.is_some() => {}
                () = sleep_until(steps_end), if self.has_steps() && steps_end.is_some() => self.abandon_steps(),
            }
        }
    }

    fn has_steps(&self) -> bool {
        self.archiving.is_some() || self.late.checking.is_some() || !self.to_archive.is_empty()
    }

    /// Ends archive steps and checks, which the next owner of the partition repeats.
    fn abandon_steps(&mut self) {
        self.to_archive.clear();
        if let Some(archiving) = self.archiving.take() {
            archiving.abort();
        }
        if let Some(checking) = self.late.checking.take() {
            checking.abort();
        }
    }

    fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && self.files.is_empty()
            && self.batches.is_empty()
            && self.filling.is_empty()
            && self.committing.is_none()
            && self.to_archive.is_empty()
            && self.archiving.is_none()
            && self.late.checking.is_none()
    }

    fn tell_idle(&self, is_idle: bool) {
        if self.idle.swap(is_idle, Ordering::AcqRel) != is_idle && is_idle {
            self.shared.activity.notify_one();
        }
    }

    fn take(&mut self, found: Found) {
        match found {
            Found::File(candidate) => self.consider(candidate),
            Found::Swept(sweep, uncovered) => {
                self.shared.problems.swept(sweep);
                self.forget_missing(sweep, &uncovered);
            }
        }
    }

    fn consider(&mut self, candidate: Candidate) {
        let Candidate { listed, sweep, place } = candidate;
        let identity = self.identities.identity(listed.path(), &listed.version());
        let retry = self.shared.file.settings.retry_quarantined.then_some(self.shared.process_began_ms);
        match decide(self.ledger.see(&identity, sweep), self.mode, retry) {
            Decision::Read(resume) => {
                let twin = if resume.is_none() { self.ledger.twin(listed.path(), listed.size_bytes) } else { None };
                self.queue.push_back(Queued::new(listed, resume, twin, place));
            }
            Decision::Archive(entry) => self.archive_later(entry, listed.version(), identity, true),
            Decision::ArchiveOtherwise(entry, mode) => self.archive_otherwise(entry, mode, listed.version(), identity),
            Decision::ArchiveAgain => self.archive_again(listed.path().to_owned(), listed.version(), identity),
            Decision::Pass => {
                self.count_passed(&identity);
                self.shared.routes.settle(&identity, sweep);
                self.waiting.remove(&identity);
            }
        }
    }

    /// Records that this file version needs no further work.
    fn settle(&self, identity: &str) {
        self.shared.routes.settle(identity, self.ledger.seen(identity).unwrap_or_default());
        self.waiting.remove(identity);
    }

    /// Plans tombstones for files that no listing shows any more and whose retention is over.
    fn forget_missing(&mut self, complete: Sweep, uncovered: &Uncovered) {
        let retain_ms = i64::try_from(self.shared.file.settings.retain.as_millis()).unwrap_or(i64::MAX);
        let before_ms = self.shared.file.clock.now_ms().saturating_sub(retain_ms);
        for identity in self.ledger.missing(complete.seen_since(), before_ms, uncovered, TOMBSTONES) {
            // A waiting file was listed, but is not processed yet.
            if !self.waiting.contains(&identity) {
                self.filling.forget(identity);
            }
        }
    }

    fn begin_files(&mut self, stop: &Shutdown) {
        let limit = self.shared.file.settings.parallel_files;
        while self.files.len() < limit && self.to_archive.len() < ARCHIVE_BACKLOG {
            let Some(queued) = self.queue.pop_front() else { return };
            let job = queued.into_job(&self.identities);
            let (context, batches, stop) = (self.shared.file.clone(), self.batch_sender.clone(), stop.clone());
            self.files.spawn(async move {
                let (identity, path) = (job.identity.clone(), job.path.clone());
                let outcome = tokio::select! {
                    outcome = file::read(&context, job, &batches) => outcome,
                    () = stop.wait() => Ok(FileEnd::Stopped),
                };
                (identity, path, outcome)
            });
        }
    }

    fn file_ended(
        &mut self,
        ended: Result<(String, String, Result<FileEnd, IngestError>), tokio::task::JoinError>,
    ) -> Result<(), IngestError> {
        let (identity, path, outcome) = ended.map_err(|error| IngestError::task(&error))?;
        match outcome? {
            // A file whose commit is outstanding stays in `waiting`.
            FileEnd::HandedOver => self.shared.problems.solved(&identity),
            FileEnd::Replaced => {
                tracing::info!(file = path, "changed or vanished while it was read; listing again");
                self.shared.file.metrics.file_replaced();
                self.shared.problems.changed(&path);
                self.waiting.remove(&identity);
            }
            FileEnd::Unreadable(error) => {
                if self.note(&identity, Kind::Unreadable, &error) {
                    tracing::warn!(file = path, %error, "this file cannot be read now; trying again at each listing");
                }
                self.waiting.remove(&identity);
            }
            FileEnd::Stopped => self.waiting.remove(&identity),
        }
        Ok(())
    }

    /// Whether the problem should be logged: a lasting problem is met at each listing.
    fn note(&self, identity: &str, kind: Kind, error: &StoreError) -> bool {
        self.shared.problems.note(identity, kind, error.clone(), self.shared.routes.sweep())
    }

    /// Commits as soon as no more batches are expected, else when the transaction is full or old enough.
    fn begin_commit(&mut self, stop: &Shutdown) {
        if self.drops_batches {
            self.filling.drop_batches();
        }
        let nothing_comes = self.batches.is_empty() && self.files.is_empty() && self.queue.is_empty();
        let is_due = self.filling.due().is_some_and(|due| due <= std::time::Instant::now());
        if self.filling.is_empty() || !(self.filling.is_full() || is_due || nothing_comes) {
            return;
        }
        let Some(mut writer) = self.writer.take() else { return };
        let mut transaction = std::mem::replace(&mut self.filling, Transaction::new());
        let (shared, partition, stop) = (self.shared.clone(), self.partition, stop.clone());
        self.committing = Some(tokio::spawn(async move {
            let dropped_batches = tokio::select! {
                biased;
                () = shared.rate.wait_for(transaction.bytes()) => false,
                () = stop.wait() => true,
            };
            if dropped_batches {
                transaction.drop_batches();
            }
            let begun = Instant::now();
            let outcome = match transaction.is_empty() {
                true => Ok(()),
                false => transaction.commit(&mut *writer, &shared.topics, partition).await,
            };
            Committing { writer, transaction, outcome, took: begun.elapsed(), dropped_batches }
        }));
    }

    fn committed(&mut self, committing: Committing) -> Result<(), IngestError> {
        let Committing { writer, transaction, outcome, took, dropped_batches } = committing;
        self.drops_batches |= dropped_batches;
        if !transaction.is_empty() {
            self.shared.file.metrics.transaction_ended(outcome.is_ok(), took);
        }
        outcome?;
        self.writer = Some(writer);
        let seen = self.shared.routes.sweep();
        let (batches, entries, tombstones) = transaction.into_parts();
        for batch in batches {
            self.batch_committed(batch, seen);
        }
        for (identity, entry) in entries {
            self.ledger.insert(&identity, entry, seen, true);
        }
        for identity in &tombstones {
            self.ledger.remove(identity);
        }
        self.shared.file.metrics.ledger_is(self.partition, &self.ledger);
        Ok(())
    }

    fn batch_committed(&mut self, batch: FileBatch, seen: Sweep) {
        let FileBatch { records, identity, entry, last, memory } = batch;
        drop(memory);
        self.shared.file.metrics.committed(records.events(), &records.rejected);
        self.ledger.insert(&identity, entry.clone(), seen, true);
        match last {
            Last::No => {}
            Last::New(version) => {
                self.shared.file.metrics.file_ingested();
                self.warn_of_only_copy(&entry);
                self.archive_later(entry, version, identity, false);
            }
            Last::Known(version) => {
                self.shared.file.metrics.file_passed();
                self.archive_later(entry, version, identity, false);
            }
            Last::Quarantined => {
                self.report_quarantine(&entry);
                self.settle(&identity);
            }
        }
    }

    fn report_quarantine(&self, entry: &Entry) {
        self.shared.file.metrics.file_quarantined();
        let from_byte = if entry.state == FileState::Partial { entry.byte } else { 0 };
        tracing::warn!(
            file = entry.path,
            from_byte,
            reason = entry.reason.as_deref().unwrap_or_default(),
            "this file is quarantined and stays where it is; mend it, or ask for another try with --retry-quarantined"
        );
    }
}

/// The outcome of a task; a panic is an error.
async fn next_of<T>(task: &mut Option<JoinHandle<T>>) -> Result<T, IngestError> {
    match task {
        Some(task) => task.await.map_err(|error| IngestError::task(&error)),
        None => std::future::pending().await,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl Drop for Lane {
    /// A failed lane leaves no task running that could still write: its files end with their set, and the next owner of
    /// the partition fences a commit in progress.
    fn drop(&mut self) {
        if let Some(archiving) = &self.archiving {
            archiving.abort();
        }
        if let Some(checking) = &self.late.checking {
            checking.abort();
        }
    }
}

/// Checks that the store supports the mode.
///
/// # Errors
/// The reason why it does not, and what to use instead.
pub(crate) fn check_mode(archive: Archive, store: &dyn Store) -> Result<(), String> {
    if archive == Archive::Tag && !store.capabilities().has_tags {
        return Err("archive mode 'tag' needs an S3 bucket; use move, leave or delete".to_owned());
    }
    Ok(())
}
