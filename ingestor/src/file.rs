//! Reads one landing file: opens the listed version, frames it from the position in the ledger, and hands it over in
//! batches. Each batch carries the ledger entry that covers it.

use std::sync::Arc;

use common::clock::Clock;
use common::config::Archive;
use common::store::{GetOptions, ObjectMeta, ObjectReader, Store, StoreError, StoreErrorKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use xxhash_rust::xxh3::Xxh3;

use crate::archive::Names;
use crate::content::{Compression, Content, ContentError};
use crate::error::IngestError;
use crate::framing::{Framed, Framer, FramingState};
use crate::identity::PENDING;
use crate::lane::allowed;
use crate::ledger::{ArchiveMode, Entry, FileState, Twin};
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::quarantine::{Counts, judge, judge_published};
use crate::settings::Settings;
use crate::transaction::{BATCH_BYTES, FileBatch, Last, Records, Source};

/// The unit of memory permits, in bytes.
const MEMORY_UNIT_BYTES: u64 = 1024;
/// The permits of a file without a size.
const SMALLEST_BATCH_BYTES: u64 = 16 * 1024;
/// Records carry headers, and compressed files grow: an estimate from the file's size, limited to a batch's.
const GROWTH: u64 = 12;
/// The cost of making the record of an event, and that of a bad piece with its reason, in bytes of framing.
const EVENT_COST: usize = 128;
const BAD_COST: usize = 1024;

/// Everything that reading needs besides the file.
#[derive(Clone)]
pub(crate) struct FileContext {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub settings: Arc<Settings>,
    pub archive: Archive,
    pub names: Names,
    pub events_partitions: u32,
    pub memory: Arc<Semaphore>,
}

/// Permits for memory of events that are read and not committed, for the whole process.
pub(crate) fn memory(settings: &Settings) -> Arc<Semaphore> {
    // A batch must fit, or nothing could ever be read.
    let bytes = settings.max_memory_bytes.max(BATCH_BYTES as u64);
    Arc::new(Semaphore::new(usize::try_from(bytes / MEMORY_UNIT_BYTES).unwrap_or(Semaphore::MAX_PERMITS)))
}

/// A file version to read.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub path: String,
    pub object: ObjectMeta,
    pub identity: String,
    /// The committed part, if any.
    pub resume: Option<Entry>,
    /// An earlier version of the same path and size.
    pub twin: Option<Twin>,
}

/// How reading a file ended. The last batch, if any, was handed over before.
#[derive(Debug)]
pub(crate) enum FileEnd {
    /// Its last batch carries the final state.
    HandedOver,
    /// The file changed or vanished while it was read; the next look-up finds its current state.
    Replaced,
    /// The file cannot be read now and will be retried.
    Unreadable(StoreError),
    /// The lane has been asked to stop.
    Stopped,
}

/// The channel of a file's batches. Closed when the lane has ended.
pub(crate) type Batches = mpsc::Sender<FileBatch>;

/// Reads the file to its end. Dropping the future loses no batch that was handed over.
///
/// # Errors
/// Only errors that concern more than this file.
pub(crate) async fn read(context: &FileContext, job: Job, batches: &Batches) -> Result<FileEnd, IngestError> {
    match read_or_fail(context, job, batches).await {
        Ok(end) => Ok(end),
        Err(Failure::Store(error)) if error.kind == StoreErrorKind::VersionMismatch => Ok(FileEnd::Replaced),
        Err(Failure::Store(error)) => Ok(FileEnd::Unreadable(error)),
        Err(Failure::Other(error)) => Err(error),
    }
}

enum Failure {
    Store(StoreError),
    Other(IngestError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<common::log::LogError> for Failure {
    fn from(error: common::log::LogError) -> Self {
        Self::Other(error.into())
    }
}

async fn read_or_fail(context: &FileContext, job: Job, batches: &Batches) -> Result<FileEnd, Failure> {
    if let Some(twin) = job.twin
        && hash(context, &job).await? == Some(twin.hash)
    {
        return Reading::begin(context, &job, batches).await.finish_twin(twin).await;
    }
    let mut reading = Reading::begin(context, &job, batches).await;
    let mut content = match open(context, &job, &reading.entry).await {
        Ok(Some(content)) => content,
        Ok(None) => return Ok(FileEnd::Replaced),
        // A foreign client can create keys that no store of this program can hold (`a//b`, `..`).
        Err(ContentError::Store(error)) if error.kind == StoreErrorKind::InvalidKey => {
            return reading.quarantine(format!("cannot be read under this name, rename it ({error})")).await;
        }
        Err(ContentError::Store(error)) => return Err(error.into()),
        Err(ContentError::Rejected(what)) => return reading.quarantine(what).await,
    };
    loop {
        let piece = match content.next().await {
            Ok(piece) => piece,
            Err(ContentError::Store(error)) => return Err(error.into()),
            Err(ContentError::Rejected(what)) => return reading.quarantine(what).await,
        };
        reading.entry.compressed = content.compression() != Compression::None;
        let is_end = piece.is_none();
        match piece {
            Some(bytes) => {
                context.metrics.read(bytes.len());
                reading.framer.push(&bytes);
            }
            None => reading.framer.finish(),
        }
        if let Some(reason) = reading.frame().await? {
            return reading.quarantine(reason).await;
        }
        if is_end {
            return reading.finish(content.raw_hash()).await;
        }
    }
}

/// One attempt to read one file.
struct Reading<'a> {
    context: &'a FileContext,
    job: &'a Job,
    batches: &'a Batches,
    framer: Framer,
    /// As of the last batch that was handed over.
    entry: Entry,
    records: Records,
    counts: Counts,
    pace: Pace,
    memory: Option<OwnedSemaphorePermit>,
}

impl<'a> Reading<'a> {
    async fn begin(context: &'a FileContext, job: &'a Job, batches: &'a Batches) -> Self {
        let now_ms = context.clock.now_ms();
        let entry = match &job.resume {
            Some(entry) => Entry { state: FileState::Reading, reason: None, ..entry.clone() },
            None => Entry::new(&job.path, job.object.size_bytes, now_ms),
        };
        Self {
            framer: Framer::new(context.settings.limits, entry.byte, entry.framing),
            records: Records::new(context.events_partitions),
            counts: Counts::default(),
            pace: Pace::new(),
            memory: reserve(context, job.object.size_bytes).await,
            entry,
            context,
            job,
            batches,
        }
    }

    /// Takes all complete records out of the framer; returns the reason if the file has to be quarantined.
    async fn frame(&mut self) -> Result<Option<String>, Failure> {
        let source = Source { path: &self.job.path, identity: &self.job.identity };
        while let Some(framed) = self.framer.next(&self.context.settings.format) {
            let cost = match &framed {
                Framed::Event { bytes, .. } => bytes.len() + EVENT_COST,
                Framed::Bad { head, .. } => head.len() + BAD_COST,
            };
            if self.records.add(source, &framed)? {
                self.counts.good += 1;
            } else {
                self.counts.bad += 1;
            }
            if let Some(reason) = self.judge_published() {
                return Ok(Some(reason));
            }
            // Also in the middle of a piece: a megabyte of noise can be a million bad pieces.
            if self.records.is_full()
                && let Some((byte, framing)) = self.framer.checkpoint()
            {
                if let Some(reason) = judge(self.counts, &self.context.settings.quarantine) {
                    return Ok(Some(reason));
                }
                self.hand_over_checkpoint(byte, framing).await;
            }
            if self.pace.is_due(cost) {
                tokio::task::yield_now().await;
            }
        }
        Ok(None)
    }

    fn judge_published(&self) -> Option<String> {
        let Self { entry, records, .. } = self;
        let published_bytes = entry.published_bytes + records.bytes() as u64;
        judge_published(published_bytes, self.context.settings.max_published_bytes, || Counts {
            good: entry.events + records.events(),
            bad: entry.rejected + records.dead_letters(),
        })
    }

    async fn hand_over_checkpoint(&mut self, byte: u64, framing: FramingState) {
        let entry = Entry { byte, framing, at_ms: self.context.clock.now_ms(), ..self.counted_entry() };
        self.hand_over(entry, Last::No).await;
        self.memory = reserve(self.context, self.job.object.size_bytes).await;
    }

    /// The entry, including the batch in progress.
    fn counted_entry(&self) -> Entry {
        Entry {
            events: self.entry.events + self.records.events(),
            rejected: self.entry.rejected + self.records.dead_letters(),
            cut: self.entry.cut + self.records.cut_letters(),
            published_bytes: self.entry.published_bytes + self.records.bytes() as u64,
            ..self.entry.clone()
        }
    }

    async fn hand_over(&mut self, entry: Entry, last: Last) {
        let records = std::mem::replace(&mut self.records, Records::new(self.context.events_partitions));
        self.entry = entry.clone();
        let batch = FileBatch { records, identity: self.job.identity.clone(), entry, last, memory: self.memory.take() };
        // Fails only if the partition is given up, and then the batch is no longer needed.
        let _ = self.batches.send(batch).await;
    }

    /// The end of the file was reached.
    async fn finish(mut self, hash: Option<String>) -> Result<FileEnd, Failure> {
        if let Some(reason) = judge(self.counts, &self.context.settings.quarantine) {
            return self.quarantine(reason).await;
        }
        let entry = Entry {
            byte: self.framer.checkpoint().map_or(self.entry.byte, |(byte, _)| byte),
            // The hash covers the whole content only if it was read in one pass.
            hash: hash.filter(|_| self.job.resume.as_ref().is_none_or(|entry| entry.byte == 0)),
            ..self.done(self.counted_entry())
        };
        tracing::info!(
            file = self.job.path,
            bytes = self.job.object.size_bytes,
            events = entry.events,
            rejected = entry.rejected,
            "file read"
        );
        self.hand_over(entry, Last::New(self.job.object.version.clone())).await;
        Ok(FileEnd::HandedOver)
    }

    /// The same content was ingested before.
    async fn finish_twin(mut self, twin: Twin) -> Result<FileEnd, Failure> {
        tracing::info!(file = self.job.path, "the same content was ingested before; not again");
        let known = Entry { only_copy: twin.only_copy, ..self.entry.clone() };
        let entry = Entry { hash: Some(format!("{:032x}", twin.hash)), ..self.done(known) };
        self.hand_over(entry, Last::Known(self.job.object.version.clone())).await;
        Ok(FileEnd::HandedOver)
    }

    /// Records mode and target, so that a repeated archive step has the same result.
    fn done(&self, entry: Entry) -> Entry {
        let FileContext { clock, archive, names, .. } = self.context;
        let now_ms = clock.now_ms();
        let only_copy = entry.only_copy || entry.is_only_copy();
        let mode = allowed((*archive).into(), only_copy);
        let target = || names.target(&self.job.path, &self.job.identity, now_ms);
        Entry {
            state: FileState::Done,
            archive: (mode == ArchiveMode::Move).then(target),
            mode: Some(mode),
            only_copy,
            at_ms: now_ms,
            ..entry
        }
    }

    /// Drops the batch in progress. The entry covers everything handed over before.
    async fn quarantine(mut self, reason: String) -> Result<FileEnd, Failure> {
        self.records = Records::new(self.context.events_partitions);
        let state = if self.entry.byte == 0 { FileState::Quarantined } else { FileState::Partial };
        let at_ms = self.context.clock.now_ms();
        let entry = Entry { state, reason: Some(reason), at_ms, ..self.entry.clone() };
        self.hand_over(entry, Last::Quarantined).await;
        Ok(FileEnd::HandedOver)
    }
}

/// Waits for the memory of one batch. `None` only when the process ends.
async fn reserve(context: &FileContext, size_bytes: u64) -> Option<OwnedSemaphorePermit> {
    let bytes = size_bytes.saturating_mul(GROWTH).saturating_add(SMALLEST_BATCH_BYTES).min(BATCH_BYTES as u64);
    let units = u32::try_from(bytes / MEMORY_UNIT_BYTES).unwrap_or(u32::MAX);
    context.memory.clone().acquire_many_owned(units).await.ok()
}

/// Opens the file at the position of the entry; `None` if this version no longer exists.
async fn open(context: &FileContext, job: &Job, entry: &Entry) -> Result<Option<Content>, ContentError> {
    if entry.compressed || entry.byte == 0 {
        let Some(reader) = open_at(context, job, 0).await? else { return Ok(None) };
        let mut content = Content::open(reader, context.settings.expansion).await?;
        content.skip(entry.byte).await?;
        return Ok(Some(content));
    }
    Ok(open_at(context, job, entry.byte).await?.map(Content::plain))
}

async fn open_at(context: &FileContext, job: &Job, from: u64) -> Result<Option<Box<dyn ObjectReader>>, StoreError> {
    let range = (from > 0).then_some(from..job.object.size_bytes.max(from));
    let options = GetOptions { range, if_version: Some(job.object.version.clone()) };
    let opened = context.store.open(&format!("{PENDING}{}", job.path), options).await?;
    Ok(opened.map(|(_, reader)| reader))
}

/// The hash of the whole stored content; `None` if this version no longer exists.
async fn hash(context: &FileContext, job: &Job) -> Result<Option<u128>, StoreError> {
    let Some(mut reader) = open_at(context, job, 0).await? else { return Ok(None) };
    let (mut hash, mut pace) = (Xxh3::new(), Pace::new());
    while let Some(bytes) = reader.next().await? {
        hash.update(&bytes);
        pace.spend(bytes.len()).await;
    }
    Ok(Some(hash.digest128()))
}
