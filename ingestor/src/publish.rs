//! From framed pieces to committed transactions.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::event::{
    EventProblem, HEADER_BYTE_OFFSET, HEADER_DETAIL, HEADER_IDENTITY, HEADER_LENGTH, HEADER_REASON, HEADER_SOURCE,
    partition_for_key,
};
use common::log::{LogError, LogErrorKind, LogWriter, RecordBatch};
use common::store::Version;

use crate::framing::Framed;
use crate::ledger::{Entry, push_entry, push_meta};
use crate::metrics::Metrics;

/// A transaction is committed when it holds this much …
const MAX_BYTES: usize = 12 * 1024 * 1024;
/// … or this many files …
const MAX_FILES: usize = 1_000;
/// … or began this long ago.
const MAX_AGE: Duration = Duration::from_millis(500);

/// Names of the topics a transaction goes to.
#[derive(Debug, Clone)]
pub(crate) struct Topics {
    pub events: String,
    pub dlq: String,
    pub ledger: String,
    pub events_partitions: u32,
}

/// A file version whose last event is in this transaction, to be archived after the commit.
#[derive(Debug, Clone)]
pub(crate) struct Finished {
    pub path: String,
    pub version: Version,
    pub identity: String,
    /// `None`: it stays.
    pub target: Option<String>,
    /// False for content that was ingested before.
    pub is_new: bool,
}

/// What one transaction will hold. Built in memory, so that it is open on the log only while it is appended.
pub(crate) struct Pending {
    events: Vec<RecordBatch>,
    dlq: RecordBatch,
    entries: Vec<(String, Entry)>,
    finished: Vec<Finished>,
    rejected: BTreeMap<&'static str, u64>,
    begun: Instant,
    write_meta: bool,
    /// Of events and DLQ records, kept up because it is asked after every event.
    bytes: usize,
}

/// A place in a [`Pending`] to go back to, when a file turns out to have changed under us.
pub(crate) struct Mark {
    events: Vec<usize>,
    dlq: usize,
    rejected: BTreeMap<&'static str, u64>,
}

/// The file a piece came from.
pub(crate) struct Source<'a> {
    pub path: &'a str,
    pub identity: &'a str,
}

impl Pending {
    pub(crate) fn new(events_partitions: u32, write_meta: bool) -> Self {
        Self {
            events: (0..events_partitions).map(|_| RecordBatch::new()).collect(),
            dlq: RecordBatch::new(),
            entries: Vec::new(),
            finished: Vec::new(),
            rejected: BTreeMap::new(),
            begun: Instant::now(),
            write_meta,
            bytes: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.events.iter().all(RecordBatch::is_empty) && self.dlq.is_empty()
    }

    pub(crate) fn is_large(&self) -> bool {
        self.bytes >= MAX_BYTES
    }

    pub(crate) fn is_due(&self) -> bool {
        self.is_large() || self.finished.len() >= MAX_FILES || (!self.is_empty() && self.begun.elapsed() >= MAX_AGE)
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark {
            events: self.events.iter().map(RecordBatch::len).collect(),
            dlq: self.dlq.len(),
            rejected: self.rejected.clone(),
        }
    }

    pub(crate) fn roll_back(&mut self, mark: Mark) {
        for (batch, len) in self.events.iter_mut().zip(mark.events) {
            batch.truncate(len);
        }
        self.dlq.truncate(mark.dlq);
        self.rejected = mark.rejected;
        self.bytes = self.events.iter().map(RecordBatch::size_bytes).sum::<usize>() + self.dlq.size_bytes();
    }

    /// Adds a piece; true for an event, false for a bad one.
    pub(crate) fn add(&mut self, source: &Source<'_>, framed: &Framed<'_>) -> Result<bool, LogError> {
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
                self.add_bad(source, *offset, *length, head, problem)?;
                Ok(false)
            }
        }
    }

    fn add_bad(
        &mut self,
        source: &Source<'_>,
        offset: u64,
        length: u64,
        head: &[u8],
        problem: &EventProblem,
    ) -> Result<(), LogError> {
        let key = format!("{}:{offset}", source.path);
        let before = self.dlq.size_bytes();
        self.dlq.push(key.as_bytes(), Some(head), |headers| {
            headers.put(HEADER_REASON, problem.code().as_bytes());
            headers.put(HEADER_DETAIL, problem.to_string().as_bytes());
            headers.put(HEADER_SOURCE, source.path.as_bytes());
            headers.put(HEADER_IDENTITY, source.identity.as_bytes());
            headers.put(HEADER_BYTE_OFFSET, decimal(offset, &mut [0; 20]));
            headers.put(HEADER_LENGTH, decimal(length, &mut [0; 20]));
        })?;
        self.bytes += self.dlq.size_bytes() - before;
        *self.rejected.entry(problem.code()).or_default() += 1;
        Ok(())
    }

    pub(crate) fn set_entry(&mut self, identity: &str, entry: Entry) {
        self.entries.push((identity.to_owned(), entry));
    }

    pub(crate) fn set_finished(&mut self, finished: Finished) {
        self.finished.push(finished);
    }

    /// Commits everything as one transaction and returns the files to archive.
    ///
    /// # Errors
    /// The log's. Nothing may be assumed then: the caller ends its session.
    pub(crate) async fn publish(
        self,
        writer: &mut dyn LogWriter,
        topics: &Topics,
        metrics: &Metrics,
    ) -> Result<Vec<Finished>, LogError> {
        let begun = Instant::now();
        let outcome = self.append_and_commit(writer, topics).await;
        if let Err(error) = outcome {
            metrics.transaction_failed();
            if error.kind != LogErrorKind::Fenced
                && let Err(abort) = writer.abort().await
            {
                tracing::debug!(error = %abort, "the abort failed too; the next session's fencing ends the transaction");
            }
            return Err(error);
        }
        let events = self.events.iter().map(|batch| batch.len() as u64).sum();
        let rejected: Vec<_> = self.rejected.into_iter().collect();
        let files = self.finished.iter().filter(|finished| finished.is_new).count() as u64;
        metrics.committed(events, &rejected, files, begun.elapsed());
        Ok(self.finished)
    }

    async fn append_and_commit(&self, writer: &mut dyn LogWriter, topics: &Topics) -> Result<(), LogError> {
        let mut ledger = RecordBatch::new();
        if self.write_meta {
            push_meta(&mut ledger, topics.events_partitions)?;
        }
        for (identity, entry) in &self.entries {
            push_entry(&mut ledger, identity, entry)?;
        }
        writer.begin().await?;
        for (partition, batch) in (0..).zip(&self.events) {
            if !batch.is_empty() {
                writer.append(&topics.events, partition, batch).await?;
            }
        }
        if !self.dlq.is_empty() {
            writer.append(&topics.dlq, 0, &self.dlq).await?;
        }
        writer.append(&topics.ledger, 0, &ledger).await?;
        writer.commit().await
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

    #[test]
    fn decimals_are_as_printed() {
        for number in [0, 7, 10, 1_234_567_890, u64::MAX] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string().as_bytes());
        }
    }
}
