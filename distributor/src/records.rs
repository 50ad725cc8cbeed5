//! Reads ranges of one log partition into batches.

use std::time::Duration;

use common::log::{Chunk, Log, LogError, LogErrorKind, LogReader, Membership, ReadEvent};

use crate::batch::{Batch, BatchError};
use crate::error::PartitionError;
use crate::window::Window;

/// How long the log may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Records {
    reader: Box<dyn LogReader>,
    topic: String,
    partition: i32,
    chunk: Chunk,
    next: usize,
}

/// The reason why a batch was not filled further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filled {
    /// Every record of the range is in it.
    Whole,
    /// The log ends before the range does.
    LogEnded,
}

impl Records {
    /// Begins to read at `at`.
    ///
    /// # Errors
    /// The log's error.
    pub(crate) async fn open(log: &dyn Log, topic: &str, partition: i32, at: i64) -> Result<Self, LogError> {
        let mut reader = log.reader(topic, &Membership::Direct { partitions: vec![partition] }).await?;
        loop {
            match reader.poll(PATIENCE).await? {
                ReadEvent::Assigned(_) => break,
                ReadEvent::Idle => {
                    return Err(LogError::new(LogErrorKind::Transient, format!("{topic}/{partition} does not answer")));
                }
                ReadEvent::Failed { error, .. } => return Err(error),
                ReadEvent::Revoked(_) | ReadEvent::Chunk(_) | ReadEvent::EndReached(_) => {}
            }
        }
        reader.start(partition, at).await?;
        Ok(Self { reader, topic: topic.to_owned(), partition, chunk: Chunk::default(), next: 0 })
    }

    pub(crate) async fn close(self) {
        self.reader.close().await;
    }

    /// Continues at another offset.
    ///
    /// # Errors
    /// The log's error.
    pub(crate) async fn seek(&mut self, at: i64) -> Result<(), LogError> {
        (self.chunk, self.next) = (Chunk::default(), 0);
        self.reader.start(self.partition, at).await
    }

    /// Continues at `from`, using records already read if it is among them.
    ///
    /// # Errors
    /// The log's error.
    pub(crate) async fn go_to(&mut self, from: i64) -> Result<(), LogError> {
        let read = self.chunk.offsets.partition_point(|offset| *offset < from);
        let is_read = self.chunk.offsets.first().is_some_and(|first| *first <= from) && read < self.chunk.offsets.len();
        if is_read {
            self.next = read;
            return Ok(());
        }
        self.seek(from).await
    }

    /// Reads the next chunk; false at the end of the log.
    async fn read(&mut self) -> Result<bool, PartitionError> {
        loop {
            match self.reader.poll(PATIENCE).await? {
                ReadEvent::Chunk(chunk) => {
                    (self.chunk, self.next) = (chunk, 0);
                    return Ok(true);
                }
                ReadEvent::EndReached(_) => return Ok(false),
                ReadEvent::Failed { error, .. } => return Err(error.into()),
                ReadEvent::Idle => {
                    let message = format!("{}/{} went silent", self.topic, self.partition);
                    return Err(LogError::new(LogErrorKind::Transient, message).into());
                }
                ReadEvent::Assigned(_) | ReadEvent::Revoked(_) => {}
            }
        }
    }

    /// Pushes the records from `from` up to but excluding `to`, which come next. The batch takes about `memory` bytes
    /// besides its keys; further rows go to disk.
    ///
    /// # Errors
    /// The log's, the encoder's and the disk's errors.
    pub(crate) async fn fill(
        &mut self,
        batch: &mut Batch,
        window: &Window,
        from: i64,
        to: i64,
        memory: u64,
    ) -> Result<Filled, PartitionError> {
        while batch.ends().is_none_or(|ends| ends.to < to) {
            let place = |offset: i64| self.chunk.offsets.partition_point(|other| *other < offset);
            let range = self.next.max(place(from))..place(to);
            if !range.is_empty() {
                self.next = batch.push_all(window, &self.chunk, range, &mut |_| true)?;
                batch.keep_within(memory).map_err(BatchError::from)?;
            } else if range.end < self.chunk.offsets.len() {
                break;
            } else if !self.read().await? {
                return Ok(Filled::LogEnded);
            }
        }
        Ok(Filled::Whole)
    }
}
