//! One owned ledger partition at work: its files are read, several at a time, their batches gathered into transactions,
//! each commit followed by the archive step, whose outcome is recorded with a later commit. Reading, committing and
//! archiving overlap; one slow file holds up nothing but itself.
//!
//! A lane never goes on after a commit that failed or whose outcome is unknown: it ends, and whoever started it owns the
//! partition again, which settles what happened.

mod decide;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::config::Archive;
use common::log::{Log, LogError, LogWriter};
use common::shutdown::Shutdown;
use common::store::{StoreError, Version};
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::archive::{Archived, Step, Task, archive, target};
use crate::error::IngestError;
use crate::file::{self, FileContext, FileEnd, Job};
use crate::ledger::{ArchiveMode, Entry, FileState, Ledger, Told};
use crate::ownership::{Owned, Topics, own};
use crate::problems::Problems;
use crate::rate::Rate;
use crate::routes::{Candidate, Found, Routes, Sweep, Waiting};
use crate::transaction::{FileBatch, Last, Transaction};
use decide::{Decision, decide};

/// Files archived at a time.
const ARCHIVE_BATCH: usize = 1_000;
/// No more files are begun while this many wait to be archived.
const ARCHIVE_BACKLOG: usize = 10_000;
/// Batches on their way from files to the transaction.
const BATCHES_IN_FLIGHT: usize = 16;
/// Identities forgotten at a time.
const TOMBSTONES: usize = 1_000;

/// What all lanes of a process share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub log: Arc<dyn Log>,
    pub topics: Arc<Topics>,
    pub routes: Arc<Routes>,
    pub problems: Arc<Problems>,
    pub rate: Arc<Rate>,
    pub file: FileContext,
    /// Told whenever a lane may have become idle.
    pub activity: Arc<Notify>,
    pub process_began_ms: i64,
}

/// A commit on its way, and what comes back from it.
struct Committing {
    writer: Box<dyn LogWriter>,
    transaction: Transaction,
    outcome: Result<(), LogError>,
    took: Duration,
}

/// A file to archive, with its entry if the outcome is to be recorded.
struct ToArchive {
    task: Task,
    entry: Option<Entry>,
    /// It was ingested before this lane saw it.
    was_known: bool,
}

/// A file with the outcome of its archive step.
type ArchivedFile = (ToArchive, Result<Archived, StoreError>);

pub(crate) struct Lane {
    shared: Shared,
    partition: i32,
    mode: ArchiveMode,
    waiting: Arc<Waiting>,
    idle: Arc<AtomicBool>,
    ledger: Ledger,
    queue: VecDeque<(Job, tokio::sync::OwnedSemaphorePermit)>,
    files: JoinSet<(String, String, Result<FileEnd, IngestError>)>,
    batch_sender: mpsc::Sender<FileBatch>,
    batches: mpsc::Receiver<FileBatch>,
    filling: Transaction,
    /// `None` while a commit has it.
    writer: Option<Box<dyn LogWriter>>,
    committing: Option<JoinHandle<Committing>>,
    to_archive: VecDeque<ToArchive>,
    archiving: Option<JoinHandle<Vec<ArchivedFile>>>,
}

/// Owns the partition and works on it until `stop`, or until it fails. What is being committed and archived then is
/// finished.
///
/// # Errors
/// The log's. The partition has to be owned again.
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
        Self {
            mode: shared.file.archive.into(),
            shared,
            partition,
            waiting,
            idle,
            ledger: owned.ledger,
            queue: VecDeque::new(),
            files: JoinSet::new(),
            batch_sender,
            batches,
            filling: Transaction::new(),
            writer: Some(owned.writer),
            committing: None,
            to_archive: VecDeque::new(),
            archiving: None,
        }
    }

    async fn work(&mut self, mut found: mpsc::UnboundedReceiver<Found>, stop: &Shutdown) -> Result<(), IngestError> {
        let mut stopping = false;
        loop {
            if stopping {
                // Asked for by the signal or by the end of what is found, whichever comes first.
                self.queue.clear();
            } else {
                self.begin_files(stop);
            }
            self.begin_commit();
            self.begin_archiving();
            let is_idle = self.is_idle();
            if stopping && is_idle {
                return Ok(());
            }
            self.tell_idle(is_idle && found.is_empty());
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
                () = sleep_until(due), if due.is_some() => {}
            }
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
    }

    fn tell_idle(&self, is_idle: bool) {
        if self.idle.swap(is_idle, Ordering::AcqRel) != is_idle && is_idle {
            self.shared.activity.notify_one();
        }
    }

    fn take(&mut self, found: Found) {
        match found {
            Found::File(candidate) => self.consider(candidate),
            Found::Swept(sweep) => self.forget_gone(sweep),
        }
    }

    fn consider(&mut self, candidate: Candidate) {
        let Candidate { path, object, identity, sweep, _place: place } = candidate;
        let retry = self.shared.file.settings.retry_quarantined.then_some(self.shared.process_began_ms);
        match decide(self.ledger.see(&identity, sweep), self.mode, retry) {
            Decision::Read(resume) => {
                let twin = if resume.is_none() { self.ledger.twin_hash(&path, object.size_bytes) } else { None };
                self.queue.push_back((Job { path, object, identity, resume, twin }, place));
            }
            Decision::Archive(entry) => self.archive_later(entry, object.version, identity, true),
            Decision::ArchiveAgain => {
                let step = self.step(self.mode, None, &path);
                if let Some(step) = step {
                    let task = Task { path, version: object.version, identity, step };
                    self.to_archive.push_back(ToArchive { task, entry: None, was_known: true });
                }
            }
            Decision::Pass => {
                self.tell_passed(&identity);
                self.shared.routes.settle(&identity, sweep);
                self.waiting.remove(&identity);
            }
        }
    }

    /// Counts a file that needs nothing, once for this ownership.
    fn tell_passed(&mut self, identity: &str) {
        match self.ledger.tell(identity) {
            Some(Told::Done) => self.shared.file.metrics.file_passed(),
            Some(Told::Quarantined) => self.shared.file.metrics.file_quarantined(),
            None => {}
        }
    }

    fn step(&self, mode: ArchiveMode, fixed_target: Option<&String>, path: &str) -> Option<Step> {
        match mode {
            ArchiveMode::Leave => None,
            ArchiveMode::Tag => Some(Step::Tag),
            ArchiveMode::Delete => Some(Step::Delete),
            ArchiveMode::Move => {
                let target = fixed_target.cloned().unwrap_or_else(|| target(path, self.shared.file.clock.now_ms()));
                Some(Step::Move { target })
            }
        }
    }

    fn archive_later(&mut self, entry: Entry, version: Version, identity: String, was_known: bool) {
        match self.step(entry.mode(), entry.archive.as_ref(), &entry.path) {
            None => self.settle(&identity),
            Some(step) => {
                let task = Task { path: entry.path.clone(), version, identity, step };
                self.to_archive.push_back(ToArchive { task, entry: Some(entry), was_known });
            }
        }
    }

    /// Nothing is left to do for this file version.
    fn settle(&self, identity: &str) {
        self.shared.routes.settle(identity, self.ledger.seen(identity).unwrap_or_default());
        self.waiting.remove(identity);
    }

    /// Plans tombstones for files that no listing shows any more and whose time to be remembered is over.
    fn forget_gone(&mut self, complete: Sweep) {
        let retain_ms = i64::try_from(self.shared.file.settings.retain.as_millis()).unwrap_or(i64::MAX);
        let before_ms = self.shared.file.clock.now_ms().saturating_sub(retain_ms);
        for identity in self.ledger.gone(complete.seen_since(), before_ms, TOMBSTONES) {
            // What is on its way was seen, only not dealt with yet.
            if !self.waiting.contains(&identity) {
                self.filling.forget(identity);
            }
        }
    }

    fn begin_files(&mut self, stop: &Shutdown) {
        let limit = self.shared.file.settings.parallel_files;
        while self.files.len() < limit && self.to_archive.len() < ARCHIVE_BACKLOG {
            let Some((job, place)) = self.queue.pop_front() else { return };
            drop(place);
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
            // What is waiting for its commit stays in `waiting`.
            FileEnd::HandedOver => self.shared.problems.solved(&identity),
            FileEnd::Replaced => {
                tracing::info!(file = path, "changed or vanished while it was read; looking again");
                self.shared.file.metrics.file_replaced();
                self.shared.problems.replaced();
                self.waiting.remove(&identity);
            }
            FileEnd::Unreadable(error) => {
                tracing::warn!(file = path, %error, "this file cannot be read now; trying again at the next sweep");
                self.shared.problems.unreadable(&identity, error);
                self.waiting.remove(&identity);
            }
            FileEnd::Stopped => self.waiting.remove(&identity),
        }
        Ok(())
    }

    /// Commits as soon as nothing more is coming, else when the transaction is full or old enough.
    fn begin_commit(&mut self) {
        let nothing_comes = self.batches.is_empty() && self.files.is_empty() && self.queue.is_empty();
        let is_due = self.filling.due().is_some_and(|due| due <= std::time::Instant::now());
        if self.filling.is_empty() || !(self.filling.is_full() || is_due || nothing_comes) {
            return;
        }
        let Some(mut writer) = self.writer.take() else { return };
        let transaction = std::mem::replace(&mut self.filling, Transaction::new());
        let (shared, partition) = (self.shared.clone(), self.partition);
        self.committing = Some(tokio::spawn(async move {
            shared.rate.wait_for(transaction.bytes()).await;
            let begun = Instant::now();
            let outcome = transaction.commit(&mut *writer, &shared.topics, partition).await;
            Committing { writer, transaction, outcome, took: begun.elapsed() }
        }));
    }

    fn committed(&mut self, committing: Committing) -> Result<(), IngestError> {
        let Committing { writer, transaction, outcome, took } = committing;
        self.shared.file.metrics.transaction_ended(outcome.is_ok(), took);
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

    fn begin_archiving(&mut self) {
        if self.archiving.is_some() || self.to_archive.is_empty() {
            return;
        }
        let count = self.to_archive.len().min(ARCHIVE_BATCH);
        let batch: Vec<ToArchive> = self.to_archive.drain(..count).collect();
        let store = self.shared.file.store.clone();
        self.archiving = Some(tokio::spawn(async move {
            let tasks: Vec<Task> = batch.iter().map(|item| item.task.clone()).collect();
            let outcomes = archive(&*store, &tasks).await;
            batch.into_iter().zip(outcomes).collect()
        }));
    }

    fn archived(&mut self, outcomes: Vec<ArchivedFile>) {
        for (ToArchive { task, entry, was_known }, outcome) in outcomes {
            match outcome {
                Ok(outcome) => self.archived_one(&task, entry, was_known, outcome),
                Err(error) => {
                    self.shared.file.metrics.archive_failed();
                    self.shared.problems.unarchived(&task.identity, error.clone());
                    tracing::warn!(file = task.path, %error, "could not archive; trying again at the next sweep");
                    self.waiting.remove(&task.identity);
                }
            }
        }
    }

    fn archived_one(&mut self, task: &Task, entry: Option<Entry>, was_known: bool, outcome: Archived) {
        self.shared.problems.solved(&task.identity);
        if outcome == Archived::Done && was_known {
            self.tell_passed(&task.identity);
        }
        if outcome == Archived::SourceChanged {
            tracing::info!(file = task.path, "gone or replaced before it was archived");
        }
        match entry {
            Some(entry) => {
                let entry = Entry { archived: true, ..entry };
                self.filling.set_entry(task.identity.clone(), entry);
            }
            None => self.ledger.archived_again(&task.identity, self.mode),
        }
        match task.step {
            // It stays in sight, so it must not be asked about at every listing.
            Step::Tag => self.settle(&task.identity),
            Step::Move { .. } | Step::Delete => self.waiting.remove(&task.identity),
        }
    }
}

/// The outcome of a task of ours, whose panic is an error.
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
    /// A lane that failed leaves nothing running that could still write: files end with their set, and a commit that is
    /// under way is fenced by whoever owns the partition next.
    fn drop(&mut self) {
        if let Some(archiving) = &self.archiving {
            archiving.abort();
        }
    }
}

/// Whether the store can do what the mode needs.
pub(crate) fn check_mode(archive: Archive, is_s3: bool) -> Result<(), IngestError> {
    if archive == Archive::Tag && !is_s3 {
        return Err(IngestError::Marker("archive mode 'tag' needs an S3 bucket; use move, leave or delete".to_owned()));
    }
    Ok(())
}
