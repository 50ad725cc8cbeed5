//! From framed pieces to committed transactions.
//!
//! A [`FileBatch`] is a run of one file's pieces together with the ledger entry that covers them: the two are never
//! separated. A [`Transaction`] holds batches of several files. It is built in memory, so it is open on the log only
//! while it is appended: an open transaction holds back every read_committed reader.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::event::{
    EventProblem, HEADER_BYTE_OFFSET, HEADER_DETAIL, HEADER_IDENTITY, HEADER_LENGTH, HEADER_REASON, HEADER_REPLAYS,
    HEADER_SOURCE, partition_for_key,
};
use common::log::{LogError, LogErrorKind, LogWriter, RecordBatch, RecordRef};
use common::store::Version;
use tokio::sync::OwnedSemaphorePermit;

use crate::framing::Framed;
use crate::ledger::{Entry, push_entry, push_tombstone};
use crate::ownership::Topics;

/// The size at which a file's batch is handed over. A file that fits is committed, or quarantined, whole.
pub(crate) const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// A transaction is committed at this size …
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// … or this many files …
const MAX_FILES: usize = 1_000;
/// … or began this long ago.
pub(crate) const MAX_AGE: Duration = Duration::from_millis(500);

/// The file a piece came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub path: &'a str,
    pub identity: &'a str,
}

/// A piece that is not an event.
struct Bad<'a> {
    offset: u64,
    length: u64,
    head: &'a [u8],
    problem: &'a EventProblem,
}

/// Records of one file, by partition of the events topic.
#[derive(Default)]
pub(crate) struct Records {
    events: Vec<RecordBatch>,
    dlq: RecordBatch,
    pub rejected: BTreeMap<&'static str, u64>,
    /// Dead letters that contain only the first bytes of their piece.
    cut: u64,
    /// Maintained incrementally, because it is read after every event.
    bytes: usize,
}

impl Records {
    pub(crate) fn new(events_partitions: u32) -> Self {
        Self { events: (0..events_partitions).map(|_| RecordBatch::new()).collect(), ..Self::default() }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES
    }

    pub(crate) fn events(&self) -> u64 {
        self.events.iter().map(|batch| batch.len() as u64).sum()
    }

    pub(crate) fn dead_letters(&self) -> u64 {
        self.dlq.len() as u64
    }

    pub(crate) fn cut_letters(&self) -> u64 {
        self.cut
    }

    /// Adds a piece; true for an event, false for a bad one.
    ///
    /// # Errors
    /// [`LogErrorKind::BadRecord`]: larger than a batch can be.
    pub(crate) fn add(&mut self, source: Source<'_>, framed: &Framed<'_>) -> Result<bool, LogError> {
        self.add_replayed(source, framed, 0)
    }

    /// As [`Records::add`], for a piece of a dead letter; a piece that is still bad becomes a letter with `replays`
    /// replays.
    pub(crate) fn add_replayed(
        &mut self,
        source: Source<'_>,
        framed: &Framed<'_>,
        replays: u32,
    ) -> Result<bool, LogError> {
        match framed {
            Framed::Event { offset, bytes, event } => {
                let key = event.event_id.as_bytes();
                let partitions = u32::try_from(self.events.len()).unwrap_or(1);
                let batch = &mut self.events[partition_for_key(key, partitions) as usize];
                let before = batch.size_bytes();
                batch.push(key, Some(bytes), |headers| {
                    headers.put(HEADER_SOURCE, source.path.as_bytes());
                    headers.put(HEADER_BYTE_OFFSET, decimal(*offset, &mut [0; 20]));
                })?;
                self.bytes += batch.size_bytes() - before;
                Ok(true)
            }
            Framed::Bad { offset, length, head, problem } => {
                let bad = Bad { offset: *offset, length: *length, head, problem };
                self.add_bad(source, &bad, replays)?;
                Ok(false)
            }
        }
    }

    fn add_bad(&mut self, source: Source<'_>, bad: &Bad<'_>, replays: u32) -> Result<(), LogError> {
        let key = format!("{}:{}", source.path, bad.offset);
        let before = self.dlq.size_bytes();
        self.dlq.push(key.as_bytes(), Some(bad.head), |headers| {
            headers.put(HEADER_REASON, bad.problem.code().as_bytes());
            headers.put(HEADER_DETAIL, bad.problem.to_string().as_bytes());
            headers.put(HEADER_SOURCE, source.path.as_bytes());
            headers.put(HEADER_IDENTITY, source.identity.as_bytes());
            headers.put(HEADER_BYTE_OFFSET, decimal(bad.offset, &mut [0; 20]));
            headers.put(HEADER_LENGTH, decimal(bad.length, &mut [0; 20]));
            if replays > 0 {
                headers.put(HEADER_REPLAYS, decimal(u64::from(replays), &mut [0; 20]));
            }
        })?;
        self.bytes += self.dlq.size_bytes() - before;
        self.cut += u64::from(bad.length > bad.head.len() as u64);
        *self.rejected.entry(bad.problem.code()).or_default() += 1;
        Ok(())
    }

    /// Adds a dead letter as recorded in the topic, with another number of replays.
    ///
    /// # Errors
    /// As [`Records::add`].
    pub(crate) fn add_letter(&mut self, letter: &RecordRef<'_>, replays: u32) -> Result<(), LogError> {
        let before = self.dlq.size_bytes();
        self.dlq.push(letter.key, letter.value, |headers| {
            for (name, value) in letter.headers.iter().filter(|(name, _)| *name != HEADER_REPLAYS.as_bytes()) {
                headers.put_bytes(name, value);
            }
            headers.put(HEADER_REPLAYS, decimal(u64::from(replays), &mut [0; 20]));
        })?;
        self.bytes += self.dlq.size_bytes() - before;
        Ok(())
    }

    /// Appends everything to the open transaction.
    ///
    /// # Errors
    /// The log's.
    pub(crate) async fn append(&self, writer: &mut dyn LogWriter, topics: &Topics) -> Result<(), LogError> {
        for (partition, batch) in (0..).zip(&self.events) {
            if !batch.is_empty() {
                writer.append(&topics.events, partition, batch).await?;
            }
        }
        if !self.dlq.is_empty() {
            writer.append(&topics.dlq, 0, &self.dlq).await?;
        }
        Ok(())
    }
}

/// A run of one file's pieces and the entry that covers them.
pub(crate) struct FileBatch {
    pub records: Records,
    pub identity: String,
    pub entry: Entry,
    pub last: Last,
    /// Released when the batch is committed.
    pub memory: Option<OwnedSemaphorePermit>,
}

/// Whether a batch is its file's last, and the state of the version that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Last {
    No,
    /// All of it is in this batch and the earlier ones.
    New(Version),
    /// Its content was ingested before under another identity.
    Known(Version),
    Quarantined,
}

/// The content of one transaction.
pub(crate) struct Transaction {
    batches: Vec<FileBatch>,
    /// Entries without records: archive steps performed.
    entries: Vec<(String, Entry)>,
    tombstones: Vec<String>,
    bytes: usize,
    begun: Option<Instant>,
}

impl Transaction {
    pub(crate) fn new() -> Self {
        Self { batches: Vec::new(), entries: Vec::new(), tombstones: Vec::new(), bytes: 0, begun: None }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.begun.is_none()
    }

    /// No more should be added.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= MAX_BYTES || self.batches.len() >= MAX_FILES || self.entries.len() >= 8 * MAX_FILES
    }

    /// The latest time at which it has to be committed.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.begun.map(|begun| begun + MAX_AGE)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn begin(&mut self) {
        self.begun.get_or_insert_with(Instant::now);
    }

    pub(crate) fn add(&mut self, batch: FileBatch) {
        self.begin();
        self.bytes += batch.records.bytes();
        self.batches.push(batch);
    }

    /// Drops the batches, which whoever owns the partition next reads again, and keeps the records about earlier ones.
    /// Later batches of the same files must not be committed either.
    pub(crate) fn drop_batches(&mut self) {
        self.batches.clear();
        self.bytes = 0;
        if self.entries.is_empty() && self.tombstones.is_empty() {
            self.begun = None;
        }
    }

    pub(crate) fn set_entry(&mut self, identity: String, entry: Entry) {
        self.begin();
        self.entries.push((identity, entry));
    }

    pub(crate) fn forget(&mut self, identity: String) {
        self.begin();
        self.tombstones.push(identity);
    }

    /// Commits everything.
    ///
    /// # Errors
    /// The log's error. The outcome is then unknown: the partition has to be owned again.
    pub(crate) async fn commit(
        &self,
        writer: &mut dyn LogWriter,
        topics: &Topics,
        partition: i32,
    ) -> Result<(), LogError> {
        let outcome = self.append_and_commit(writer, topics, partition).await;
        if let Err(error) = &outcome
            && error.kind != LogErrorKind::Fenced
            && let Err(abort) = writer.abort().await
        {
            tracing::debug!(error = %abort, "the abort failed too; owning the partition again ends the transaction");
        }
        outcome
    }

    async fn append_and_commit(
        &self,
        writer: &mut dyn LogWriter,
        topics: &Topics,
        partition: i32,
    ) -> Result<(), LogError> {
        let ledger = self.ledger_records()?;
        writer.begin().await?;
        for batch in &self.batches {
            batch.records.append(writer, topics).await?;
        }
        writer.append(&topics.ledger, partition, &ledger).await?;
        writer.commit().await
    }

    fn ledger_records(&self) -> Result<RecordBatch, LogError> {
        let mut ledger = RecordBatch::new();
        for batch in &self.batches {
            push_entry(&mut ledger, &batch.identity, &batch.entry)?;
        }
        for (identity, entry) in &self.entries {
            push_entry(&mut ledger, identity, entry)?;
        }
        for identity in &self.tombstones {
            push_tombstone(&mut ledger, identity)?;
        }
        Ok(ledger)
    }

    /// The content, once it is committed.
    pub(crate) fn into_parts(self) -> (Vec<FileBatch>, Vec<(String, Entry)>, Vec<String>) {
        (self.batches, self.entries, self.tombstones)
    }
}

/// Decimal digits without an allocation per event.
fn decimal(number: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut rest = number;
    let mut start = buffer.len();
    loop {
        start -= 1;
        // A digit is below 10.
        #[allow(clippy::cast_possible_truncation, reason = "below 10")]
        let digit = (rest % 10) as u8;
        buffer[start] = b'0' + digit;
        rest /= 10;
        if rest == 0 {
            return &buffer[start..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Result<FileBatch, LogError> {
        let (mut records, problem) = (Records::new(1), EventProblem::Truncated);
        let source = Source { path: "a", identity: "a|1" };
        records.add(source, &Framed::Bad { offset: 0, length: 1, head: b"x", problem })?;
        let (identity, entry) = ("a|1".to_owned(), Entry::new("a", 1, 0));
        Ok(FileBatch { records, identity, entry, last: Last::No, memory: None })
    }

    #[test]
    fn without_its_batches_a_transaction_has_only_the_records_about_earlier_ones() -> Result<(), LogError> {
        let mut transaction = Transaction::new();
        transaction.add(batch()?);
        assert!(!transaction.is_empty() && transaction.bytes() > 0);
        transaction.drop_batches();
        assert!(transaction.is_empty() && transaction.bytes() == 0);
        transaction.forget("b|1".to_owned());
        transaction.add(batch()?);
        transaction.drop_batches();
        assert!(!transaction.is_empty());
        let (batches, entries, tombstones) = transaction.into_parts();
        assert_eq!((batches.len(), entries.len(), tombstones), (0, 0, vec!["b|1".to_owned()]));
        Ok(())
    }

    #[test]
    fn decimals_are_as_printed() {
        for number in [0, 7, 10, 1_234_567_890, u64::MAX] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string().as_bytes());
        }
    }
}
