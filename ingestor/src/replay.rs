//! Publishes dead letters after their cause was corrected: another time format, another preset, a higher limit.
//!
//! # Guarantees
//!
//! 1. **Once.** One transaction contains the events of a letter, new letters for its remaining bad pieces, and the
//!    recorded progress. A replay that ends anywhere is repeated from there, and publishes nothing twice.
//! 2. **One at a time.** A replay takes over a writer id derived from the ledger's name, which ends an older replay's
//!    transaction, and only then reads that one's progress (see [`crate::ownership`] for the reason).
//! 3. **Nothing is lost.** A letter that is still bad, or whose end was not kept, becomes a new open letter with an
//!    incremented `replays` header.
//! 4. **Memory**: one transaction of about 8 MiB, whatever the topic holds.
//!
//! Ingestors may run meanwhile: the next replay processes letters that arrive during this one. The counts in the files'
//! ledger entries do not change.
//!
//! A letter is read as events that are not wrapped. If it contains none and the format has wrapper objects, it is read
//! as one of those.

mod letter;
mod progress;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use common::event::EventFormat;
use common::log::{Bounds, Chunk, Log, LogError, LogErrorKind, LogReader, LogWriter, Membership, ReadEvent, RecordRef};
use serde::Serialize;

use crate::framing::{Framed, Framer, FramingState, Limits};
use crate::ownership::{Topics, check_meta};
use crate::transaction::{Records, Source};
pub use letter::DeadLetter;
pub use progress::ReplayProgress;
use progress::{PARTITION, Recorded};

/// A transaction is committed after this many letters, if it is not full before.
const MAX_LETTERS: u64 = 10_000;
/// How long the log may be silent while letters are read.
const READ_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub struct ReplaySettings {
    pub events_topic: String,
    pub dlq_topic: String,
    pub ledger_topic: String,
    pub format: EventFormat,
    pub limits: Limits,
    /// Only letters with this reason; the others stay open.
    pub reason: Option<String>,
    /// Only report what would be done.
    pub dry_run: bool,
}

/// The result of a replay, or of a dry run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ReplayReport {
    /// Letters that were read again, including those that were cut.
    pub letters: u64,
    /// Events published.
    pub events: u64,
    /// New letters by reason, without those that were cut.
    pub still_bad: BTreeMap<String, u64>,
    /// Letters whose end was not kept: their files have to be put into the landing zone again.
    pub cut: u64,
}

/// Replays every letter that is open when it begins.
///
/// # Errors
/// The log's error: everything up to the last commit is done, and another replay continues from there.
/// [`LogErrorKind::Misconfigured`] when a topic is missing, or has another partition count than the ledger recorded.
pub async fn replay(log: &dyn Log, settings: &ReplaySettings) -> Result<ReplayReport, LogError> {
    let topics = topics(log, settings).await?;
    let writer = match settings.dry_run {
        true => None,
        false => Some(log.writer(&writer_id(&topics.ledger)).await?),
    };
    let Recorded { progress, meta } = Recorded::read(log, &topics.ledger).await?;
    let meta = meta.ok_or_else(|| unrecorded(&topics.ledger))?;
    check_meta(&topics, PARTITION, meta)?;
    let letters = log.bounds(&topics.dlq).await?;
    let mut replay = Replay {
        formats: Formats {
            elements: settings.format.without_records(),
            wrappers: &settings.format,
            limits: settings.limits,
        },
        records: Records::new(topics.events_partitions),
        processed: 0,
        report: ReplayReport::default(),
        log,
        settings,
        topics,
        writer,
        progress,
    };
    for (partition, bounds) in letters {
        replay.partition(partition, bounds).await?;
    }
    replay.commit().await?;
    Ok(replay.report)
}

fn writer_id(ledger_topic: &str) -> String {
    format!("event-distributor-dlq-replay-{ledger_topic}")
}

fn unrecorded(ledger_topic: &str) -> LogError {
    LogError::new(
        LogErrorKind::Misconfigured,
        format!("partition {PARTITION} of the ledger '{ledger_topic}' was never owned by an ingestor; start one first"),
    )
}

/// The existing topics: a replay needs no new ones.
async fn topics(log: &dyn Log, settings: &ReplaySettings) -> Result<Topics, LogError> {
    let count = async |topic: &str| Ok(u32::try_from(log.bounds(topic).await?.len()).unwrap_or(u32::MAX));
    Ok(Topics {
        events_partitions: count(&settings.events_topic).await?,
        ledger_partitions: count(&settings.ledger_topic).await?,
        events: settings.events_topic.clone(),
        dlq: settings.dlq_topic.clone(),
        ledger: settings.ledger_topic.clone(),
    })
}

struct Replay<'a> {
    log: &'a dyn Log,
    settings: &'a ReplaySettings,
    formats: Formats<'a>,
    topics: Topics,
    /// `None`: nothing is written.
    writer: Option<Box<dyn LogWriter>>,
    /// The progress that is committed with `records`.
    progress: ReplayProgress,
    records: Records,
    /// Letters in `records`.
    processed: u64,
    report: ReplayReport,
}

/// The formats in which a letter may be read.
struct Formats<'a> {
    /// Events that are not wrapped.
    elements: EventFormat,
    /// The configured format, perhaps with wrapper objects.
    wrappers: &'a EventFormat,
    limits: Limits,
}

impl Formats<'_> {
    fn of(&self, letter: &DeadLetter<'_>) -> &EventFormat {
        let is_wrapper = self.wrappers.records().is_some()
            && !has_event(letter, &self.elements, self.limits)
            && has_event(letter, self.wrappers, self.limits);
        if is_wrapper { self.wrappers } else { &self.elements }
    }
}

impl Replay<'_> {
    async fn partition(&mut self, partition: i32, bounds: Bounds) -> Result<(), LogError> {
        let begin = self.progress.first_open(partition, self.settings.reason.as_deref()).max(bounds.earliest);
        if begin >= bounds.latest {
            return Ok(());
        }
        let membership = Membership::Direct { partitions: vec![partition] };
        let mut reader = self.log.reader(&self.topics.dlq, &membership).await?;
        let outcome = self.read(&mut *reader, partition, begin..bounds.latest).await;
        reader.close().await;
        outcome
    }

    async fn read(&mut self, reader: &mut dyn LogReader, partition: i32, offsets: Range<i64>) -> Result<(), LogError> {
        loop {
            match reader.poll(READ_PATIENCE).await? {
                ReadEvent::Assigned(_) => reader.start(partition, offsets.start).await?,
                ReadEvent::Chunk(chunk) => {
                    self.take(&chunk, offsets.end).await?;
                    if chunk.offsets.last().is_some_and(|last| last + 1 >= offsets.end) {
                        return Ok(());
                    }
                }
                ReadEvent::EndReached(_) => return Ok(()),
                ReadEvent::Failed { error, .. } => return Err(error),
                ReadEvent::Revoked(_) => {}
                ReadEvent::Idle => {
                    return Err(LogError::new(
                        LogErrorKind::Transient,
                        format!("no answer within {READ_PATIENCE:?} while reading {}/{partition}", self.topics.dlq),
                    ));
                }
            }
        }
    }

    async fn take(&mut self, chunk: &Chunk, end: i64) -> Result<(), LogError> {
        for (record, offset) in chunk.records.iter().zip(&chunk.offsets).take_while(|(_, offset)| **offset < end) {
            let letter = DeadLetter::of(&record);
            let only = self.settings.reason.as_deref();
            let is_wanted = only.is_none_or(|reason| reason == letter.reason);
            if is_wanted && self.progress.is_open(chunk.partition, *offset, &letter.reason) {
                self.deal_with(&record, &letter)?;
            }
            self.progress.processed(chunk.partition, offset + 1, only);
            if self.records.is_full() || self.processed >= MAX_LETTERS {
                self.commit().await?;
            }
        }
        Ok(())
    }

    fn deal_with(&mut self, record: &RecordRef<'_>, letter: &DeadLetter<'_>) -> Result<(), LogError> {
        self.processed += 1;
        self.report.letters += 1;
        if letter.is_cut() {
            self.report.cut += 1;
            return self.records.add_letter(record, letter.replays.saturating_add(1));
        }
        let Self { formats, records, report, .. } = self;
        let source = Source { path: &letter.source, identity: &letter.identity };
        let mut is_empty = true;
        for_each_piece(letter, formats.of(letter), formats.limits, |framed| {
            is_empty = false;
            match framed {
                Framed::Event { .. } => report.events += 1,
                Framed::Bad { problem, .. } => still_bad(report, problem.code()),
            }
            records.add_replayed(source, framed, letter.replays.saturating_add(1)).map(|_| ())
        })?;
        if is_empty {
            // The letter reported something missing, such as the end of an array: it has no bytes that could be read
            // again.
            still_bad(report, &letter.reason);
            records.add_letter(record, letter.replays.saturating_add(1))?;
        }
        Ok(())
    }

    /// Commits everything processed since the last commit, if there is anything.
    async fn commit(&mut self) -> Result<(), LogError> {
        if self.processed == 0 {
            return Ok(());
        }
        self.processed = 0;
        let records = std::mem::replace(&mut self.records, Records::new(self.topics.events_partitions));
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let outcome = append_and_commit(&mut **writer, &self.topics, &records, &self.progress).await;
        if let Err(error) = &outcome
            && error.kind != LogErrorKind::Fenced
            && let Err(abort) = writer.abort().await
        {
            tracing::debug!(error = %abort, "the abort failed too; the next replay ends the transaction");
        }
        outcome?;
        tracing::info!(letters = self.report.letters, events = self.report.events, "dead letters replayed so far");
        Ok(())
    }
}

async fn append_and_commit(
    writer: &mut dyn LogWriter,
    topics: &Topics,
    records: &Records,
    progress: &ReplayProgress,
) -> Result<(), LogError> {
    let progress = progress.record()?;
    writer.begin().await?;
    records.append(writer, topics).await?;
    writer.append(&topics.ledger, PARTITION, &progress).await?;
    writer.commit().await
}

fn still_bad(report: &mut ReplayReport, reason: &str) {
    match report.still_bad.get_mut(reason) {
        Some(count) => *count += 1,
        None => {
            report.still_bad.insert(reason.to_owned(), 1);
        }
    }
}

fn has_event(letter: &DeadLetter<'_>, format: &EventFormat, limits: Limits) -> bool {
    let mut found = false;
    // The callback never fails.
    let _ = for_each_piece(letter, format, limits, |framed| {
        found |= matches!(framed, Framed::Event { .. });
        Ok(())
    });
    found
}

/// Frames the letter's bytes at their place in the file.
fn for_each_piece(
    letter: &DeadLetter<'_>,
    format: &EventFormat,
    limits: Limits,
    mut visit: impl FnMut(&Framed<'_>) -> Result<(), LogError>,
) -> Result<(), LogError> {
    let mut framer = Framer::new(limits, letter.byte_offset, FramingState::default());
    framer.push(letter.kept);
    framer.finish();
    while let Some(framed) = framer.next(format) {
        visit(&framed)?;
    }
    Ok(())
}
