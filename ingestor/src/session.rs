//! One ownership of the ledger: sweeps over `pending/`, each file framed into transactions, each commit followed by the
//! archive step. Reading the next files, committing the last ones and archiving those before overlap.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::config::Archive;
use common::log::LogError;
use common::shutdown::Shutdown;
use common::store::{GetOptions, ListOptions, ObjectMeta, ObjectReader, Store, StoreError, StoreErrorKind, Version};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use xxhash_rust::xxh3::Xxh3;

use crate::archive::{Archived, PENDING, archive, target};
use crate::framing::{Framer, FramingState};
use crate::ledger::{self, Entry, FileState, Ledger};
use crate::metrics::Metrics;
use crate::publish::{Finished, Pending, Source};
use crate::role::{IngestError, Ingestor};

const ENTRY_VERSION: u8 = 1;
/// With `once`: how often files that changed under us are looked at again, a poll interval apart.
const MAX_CHANGED_SWEEPS: u32 = 5;
/// Finished files waiting to be moved.
const ARCHIVE_QUEUE: usize = 4_096;
/// A local page reads its directories again, so it is large; S3 gives 1,000 at most whatever is asked.
const LIST_PAGE: usize = 10_000;

type InFlight = Arc<Mutex<HashSet<String>>>;

pub(crate) struct Session<'a> {
    ingestor: &'a Ingestor,
    archive: Archive,
    ledger: Ledger,
    pending: Pending,
    events_partitions: u32,
    publisher: Option<mpsc::Sender<Pending>>,
    publishing: JoinHandle<Result<(), LogError>>,
    archiver: Option<mpsc::Sender<Finished>>,
    archiving: JoinHandle<()>,
    /// Identities on their way through the publisher and the archiver.
    in_flight: InFlight,
    /// Identities counted as skipped already.
    skipped: HashSet<String>,
    /// Identities that cannot be read, told once a session.
    quarantined: HashSet<String>,
    /// Local files seen, with the time the version was first seen.
    ripening: HashMap<String, (Version, i64)>,
}

struct Swept {
    /// A file changed or vanished under us; the next sweep sees what it is now.
    replaced: bool,
    /// The first file that could not be read; the others were.
    unreadable: Option<StoreError>,
}

enum FileOutcome {
    Done,
    Replaced,
    /// It can never be read under this name.
    Quarantined,
    /// Not now, for a reason that may go away.
    Unreadable(StoreError),
}

impl<'a> Session<'a> {
    /// Takes the ledger over (fencing whoever had it) and reads it.
    pub(crate) async fn begin(ingestor: &'a Ingestor, archive: Archive) -> Result<Self, IngestError> {
        let topics = ingestor.ensure_topics().await?;
        let mut writer = ingestor.log.writer(&ledger::writer_id(&topics.ledger)).await?;
        let ledger = ledger::read(&*ingestor.log, &topics.ledger, &topics.events, topics.events_partitions).await?;
        let in_flight = InFlight::default();
        let (archiver, finished) = mpsc::channel(ARCHIVE_QUEUE);
        let archiving =
            tokio::spawn(archive_all(ingestor.store.clone(), ingestor.metrics.clone(), finished, in_flight.clone()));
        // One transaction is being committed while the next one is filled.
        let (publisher, mut transactions) = mpsc::channel::<Pending>(1);
        let (metrics, to_archive) = (ingestor.metrics.clone(), archiver.clone());
        let events_partitions = topics.events_partitions;
        let publishing = tokio::spawn(async move {
            while let Some(pending) = transactions.recv().await {
                for finished in pending.publish(&mut *writer, &topics, &metrics).await? {
                    // The archiver ends only after every sender, so this cannot fail while we run.
                    let _ = to_archive.send(finished).await;
                }
            }
            Ok(())
        });
        Ok(Self {
            ingestor,
            archive,
            pending: Pending::new(events_partitions, ledger::needs_meta(&ledger)),
            ledger,
            events_partitions,
            publisher: Some(publisher),
            publishing,
            archiver: Some(archiver),
            archiving,
            in_flight,
            skipped: HashSet::new(),
            quarantined: HashSet::new(),
            ripening: HashMap::new(),
        })
    }

    pub(crate) async fn run(mut self, shutdown: &Shutdown) -> Result<(), IngestError> {
        let outcome = self.sweep_until_done(shutdown).await;
        // What is already being committed is finished and archived, also when a sweep failed.
        self.publisher = None;
        let published = match (&mut self.publishing).await {
            Ok(published) => published.map_err(IngestError::Log),
            Err(error) => Err(task_failed(&error)),
        };
        self.archiver = None;
        if let Err(error) = (&mut self.archiving).await {
            return Err(task_failed(&error));
        }
        // A failed commit is the cause when a sweep could not hand over its work.
        published.and(outcome)
    }

    async fn sweep_until_done(&mut self, shutdown: &Shutdown) -> Result<(), IngestError> {
        let settings = &self.ingestor.settings;
        let mut changed_sweeps = 0;
        loop {
            let swept = self.sweep(shutdown).await?;
            self.send_pending().await?;
            if shutdown.is_triggered() {
                return Ok(());
            }
            if settings.once {
                if !swept.replaced {
                    // Everything else is done; the one that is not must not look like it.
                    return swept.unreadable.map_or(Ok(()), |error| Err(error.into()));
                }
                changed_sweeps += 1;
                if changed_sweeps > MAX_CHANGED_SWEEPS {
                    return Err(IngestError::Store(StoreError::new(
                        StoreErrorKind::VersionMismatch,
                        "read",
                        PENDING,
                        "a file keeps changing while it is read; write files under a hidden name and rename them when they are whole",
                    )));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(settings.poll_interval) => {}
                () = shutdown.wait() => return Ok(()),
                // The publisher only ends by itself when it failed.
                () = self.publisher_ended() => return Ok(()),
            }
        }
    }

    async fn publisher_ended(&self) {
        match &self.publisher {
            Some(publisher) => publisher.closed().await,
            None => std::future::pending().await,
        }
    }

    /// Goes through the whole listing once. A listing that fails half-way is an error, never the end.
    async fn sweep(&mut self, shutdown: &Shutdown) -> Result<Swept, IngestError> {
        let mut swept = Swept { replaced: false, unreadable: None };
        let mut options = ListOptions { prefix: PENDING.to_owned(), limit: Some(LIST_PAGE), ..ListOptions::default() };
        let mut waiting = 0;
        let mut present = HashSet::new();
        loop {
            let page = self.ingestor.store.list(&options).await?;
            for object in &page.objects {
                if shutdown.is_triggered() {
                    return Ok(swept);
                }
                // "Folders" made by consoles are empty objects whose key ends in a slash.
                let Some(path) =
                    object.key.strip_prefix(PENDING).filter(|path| !path.is_empty() && !path.ends_with('/'))
                else {
                    continue;
                };
                present.insert(path.to_owned());
                waiting += i64::from(self.consider(path, object, &mut swept).await?);
            }
            match page.objects.last() {
                Some(last) if page.more => options.start_after = Some(last.key.clone()),
                _ => break,
            }
        }
        self.ripening.retain(|path, _| present.contains(path));
        self.ingestor.metrics.pending_listed(waiting);
        Ok(swept)
    }

    /// Decides what to do with a listed file; true if it still has events to publish.
    async fn consider(&mut self, path: &str, object: &ObjectMeta, swept: &mut Swept) -> Result<bool, IngestError> {
        let identity = self.identity(path, &object.version);
        if lock(&self.in_flight).contains(&identity) || self.quarantined.contains(&identity) {
            return Ok(false);
        }
        let resume = match self.ledger.get(&identity) {
            Some(entry) if entry.state == FileState::Done => {
                let archived = entry.archive.clone();
                self.already_done(path, object, identity, archived).await?;
                return Ok(false);
            }
            known => known.cloned(),
        };
        if !self.is_ripe(path, object) {
            return Ok(true);
        }
        if resume.is_none() && self.is_twin(path, object).await? {
            self.finish_twin(path, object, &identity);
            return Ok(false);
        }
        match self.ingest(path, object, &identity, resume).await? {
            FileOutcome::Done => {}
            FileOutcome::Quarantined => {
                self.quarantined.insert(identity);
                self.ingestor.metrics.file_quarantined();
            }
            FileOutcome::Unreadable(error) => {
                swept.unreadable.get_or_insert(error);
            }
            FileOutcome::Replaced => {
                self.ingestor.metrics.file_replaced();
                swept.replaced = true;
            }
        }
        if self.pending.is_due() {
            self.send_pending().await?;
        }
        Ok(true)
    }

    /// Local versions name an inode, so they are unique on their own; an ETag is only a hash of the content.
    fn identity(&self, path: &str, version: &Version) -> String {
        match self.ingestor.store.location() {
            location if location.starts_with("s3://") => format!("{location}/{PENDING}{path}|{}", version.0),
            _ => format!("{path}|{}", version.0),
        }
    }

    async fn already_done(
        &mut self,
        path: &str,
        object: &ObjectMeta,
        identity: String,
        archived: Option<String>,
    ) -> Result<(), IngestError> {
        if self.skipped.insert(identity.clone()) {
            self.ingestor.metrics.file_skipped();
        }
        let target = archived.or_else(|| self.target(path));
        if target.is_some() {
            lock(&self.in_flight).insert(identity.clone());
            let finished =
                Finished { path: path.to_owned(), version: object.version.clone(), identity, target, is_new: false };
            if let Some(archiver) = &self.archiver {
                // Only fails when the archiver has panicked, which `run` reports.
                let _ = archiver.send(finished).await;
            }
        }
        Ok(())
    }

    fn target(&self, path: &str) -> Option<String> {
        (self.archive == Archive::Move).then(|| target(path, self.ingestor.clock.now_ms()))
    }

    /// A file that someone may still be writing is left alone until it has been unchanged for a while by our clock.
    fn is_ripe(&mut self, path: &str, object: &ObjectMeta) -> bool {
        let min_age = self.ingestor.settings.min_age;
        if min_age == Duration::ZERO {
            return true;
        }
        let now_ms = self.ingestor.clock.now_ms();
        let seen = self.ripening.entry(path.to_owned()).or_insert_with(|| (object.version.clone(), now_ms));
        if seen.0 != object.version {
            *seen = (object.version.clone(), now_ms);
        }
        now_ms.saturating_sub(seen.1) >= i64::try_from(min_age.as_millis()).unwrap_or(i64::MAX)
    }

    /// Whether this is content that was ingested before under another identity (touched, or copied back).
    async fn is_twin(&self, path: &str, object: &ObjectMeta) -> Result<bool, IngestError> {
        let Some(known) = self.ledger.twin(path, object.size_bytes) else { return Ok(false) };
        let Some(mut reader) = open(&*self.ingestor.store, path, object, 0).await? else { return Ok(false) };
        let mut hash = Xxh3::new();
        loop {
            match reader.next().await {
                Ok(Some(bytes)) => hash.update(&bytes),
                Ok(None) => return Ok(known.hash.as_deref() == Some(&hex(&hash))),
                Err(error) if error.kind == StoreErrorKind::VersionMismatch => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn finish_twin(&mut self, path: &str, object: &ObjectMeta, identity: &str) {
        let Some(known) = self.ledger.twin(path, object.size_bytes) else { return };
        let entry = Entry { archive: self.target(path), events: 0, rejected: 0, ..known.clone() };
        tracing::info!(file = path, "the same content was ingested before; not again");
        self.ingestor.metrics.file_skipped();
        self.skipped.insert(identity.to_owned());
        self.finish(path, object, identity, entry, false);
    }

    fn finish(&mut self, path: &str, object: &ObjectMeta, identity: &str, entry: Entry, is_new: bool) {
        self.pending.set_finished(Finished {
            path: path.to_owned(),
            version: object.version.clone(),
            identity: identity.to_owned(),
            target: entry.archive.clone(),
            is_new,
        });
        lock(&self.in_flight).insert(identity.to_owned());
        self.ledger.insert(identity.to_owned(), entry.clone());
        self.pending.set_entry(identity, entry);
    }

    /// Frames a file from where the ledger says, handing over transactions as they fill up.
    async fn ingest(
        &mut self,
        path: &str,
        object: &ObjectMeta,
        identity: &str,
        resume: Option<Entry>,
    ) -> Result<FileOutcome, IngestError> {
        let mut entry = resume.unwrap_or_else(|| Entry {
            v: ENTRY_VERSION,
            state: FileState::Reading,
            path: path.to_owned(),
            size: object.size_bytes,
            byte: 0,
            framing: FramingState::default(),
            events: 0,
            rejected: 0,
            hash: None,
            archive: None,
        });
        let mut reader = match open(&*self.ingestor.store, path, object, entry.byte).await {
            Ok(Some(reader)) => reader,
            Ok(None) => return Ok(FileOutcome::Replaced),
            // A foreign client can make keys that no store of ours could hold (`a//b`, `..`): one must not stop the rest.
            Err(IngestError::Store(error)) if error.kind == StoreErrorKind::InvalidKey => {
                tracing::warn!(file = path, %error, "this file cannot be read and stays where it is; rename it");
                return Ok(FileOutcome::Quarantined);
            }
            // Nor may one object that we may not read, or that is archived: the listing worked. It is tried again.
            Err(IngestError::Store(error)) if matches!(error.kind, StoreErrorKind::Denied | StoreErrorKind::Other) => {
                tracing::warn!(file = path, %error, "this file cannot be read now; trying again at the next sweep");
                return Ok(FileOutcome::Unreadable(error));
            }
            Err(error) => return Err(error),
        };
        let settings = &self.ingestor.settings;
        let source = Source { path, identity };
        let mut framer = Framer::new(settings.limits, entry.byte, entry.framing);
        let mut hash = (entry.byte == 0).then(Xxh3::new);
        let mut mark = self.pending.mark();
        loop {
            let piece = match reader.next().await {
                Ok(piece) => piece,
                Err(error) if error.kind == StoreErrorKind::VersionMismatch => {
                    tracing::warn!(
                        file = path,
                        committed_bytes = entry.byte,
                        "changed while it was read; reading the new content"
                    );
                    self.pending.roll_back(mark);
                    return Ok(FileOutcome::Replaced);
                }
                Err(error) => return Err(error.into()),
            };
            match &piece {
                Some(bytes) => {
                    self.ingestor.metrics.read(bytes.len());
                    if let Some(hash) = &mut hash {
                        hash.update(bytes);
                    }
                    framer.push(bytes);
                }
                None => framer.finish(),
            }
            while let Some(framed) = framer.next(&settings.format) {
                if self.pending.add(&source, &framed)? {
                    entry.events += 1;
                } else {
                    entry.rejected += 1;
                }
                // Also in the middle of a piece: a megabyte of rubbish can be a million bad pieces.
                if self.pending.is_large()
                    && let Some((byte, framing)) = framer.checkpoint()
                {
                    entry = Entry { byte, framing, ..entry };
                    self.ledger.insert(identity.to_owned(), entry.clone());
                    self.pending.set_entry(identity, entry.clone());
                    self.send_pending().await?;
                    mark = self.pending.mark();
                }
            }
            if piece.is_none() {
                break;
            }
        }
        tracing::info!(
            file = path,
            bytes = object.size_bytes,
            events = entry.events,
            rejected = entry.rejected,
            "file read"
        );
        let entry = Entry {
            state: FileState::Done,
            byte: object.size_bytes,
            hash: hash.map(|hash| hex(&hash)),
            archive: self.target(path),
            ..entry
        };
        self.finish(path, object, identity, entry, true);
        Ok(FileOutcome::Done)
    }

    async fn send_pending(&mut self) -> Result<(), IngestError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.pending, Pending::new(self.events_partitions, false));
        if let Some(publisher) = &self.publisher
            && publisher.send(full).await.is_ok()
        {
            return Ok(());
        }
        // The publisher has failed; `run` reports why.
        Err(IngestError::Log(LogError::new(
            common::log::LogErrorKind::Transient,
            "the transaction before this one failed",
        )))
    }
}

async fn open(
    store: &dyn Store,
    path: &str,
    object: &ObjectMeta,
    from: u64,
) -> Result<Option<Box<dyn ObjectReader>>, IngestError> {
    let range = (from > 0).then_some(from..object.size_bytes.max(from));
    let options = GetOptions { range, if_version: Some(object.version.clone()) };
    match store.open(&format!("{PENDING}{path}"), options).await {
        Ok(opened) => Ok(opened.map(|(_, reader)| reader)),
        Err(error) if error.kind == StoreErrorKind::VersionMismatch => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Moves files one after another. A failure is counted and left to the next sweep, which finds the file again.
async fn archive_all(
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    mut finished: mpsc::Receiver<Finished>,
    in_flight: InFlight,
) {
    while let Some(Finished { path, version, identity, target, .. }) = finished.recv().await {
        let Some(target) = target else {
            lock(&in_flight).remove(&identity);
            continue;
        };
        match archive(&*store, &path, &version, &identity, &target).await {
            Ok(Archived::Moved) => tracing::debug!(file = path, target, "archived"),
            Ok(Archived::SourceChanged) => tracing::info!(file = path, "gone or replaced before it was archived"),
            Err(error) => {
                metrics.archive_failed();
                tracing::warn!(file = path, %error, "could not archive; trying again at the next sweep");
            }
        }
        lock(&in_flight).remove(&identity);
    }
}

fn lock(set: &InFlight) -> std::sync::MutexGuard<'_, HashSet<String>> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hex(hash: &Xxh3) -> String {
    format!("{:032x}", hash.digest128())
}

fn task_failed(error: &tokio::task::JoinError) -> IngestError {
    IngestError::Log(LogError::new(common::log::LogErrorKind::Other, format!("a task of the ingestor failed: {error}")))
}
