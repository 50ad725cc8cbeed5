//! Making complete batches of one log partition again from the log, one after another.

use std::time::Duration;

use crate::batch::{Batch, BatchError, Encoded, Encoding, Ends};
use crate::chain::Cut;
use crate::scratch::Scratch;
use crate::window::{Overlay, Window};
use common::log::{Chunk, Log, LogError, LogErrorKind, LogReader, Membership, ReadEvent};

/// How long the log may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) enum RemakeError {
    Log(LogError),
    /// This build does not write the layout.
    Layout(String),
    Batch(BatchError),
}

impl From<LogError> for RemakeError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<BatchError> for RemakeError {
    fn from(error: BatchError) -> Self {
        Self::Batch(error)
    }
}

pub(crate) enum Remade {
    /// From the very records that the batch was cut from.
    Batch(Box<Encoded>),
    /// The log does not hold them; why.
    Other(String),
}

pub(crate) struct Remake {
    reader: Box<dyn LogReader>,
    partition: i32,
    chunk: Chunk,
    next: usize,
    window: Window,
    clock_ms: i64,
    scratch: Scratch,
}

impl Remake {
    /// From the beginning of `cut` on, where the window is `window` and log time `clock_ms`.
    ///
    /// # Errors
    /// The log's.
    pub(crate) async fn new(
        log: &dyn Log,
        cut: &Cut,
        window: Window,
        clock_ms: i64,
        scratch: Scratch,
    ) -> Result<Self, LogError> {
        let (topic, partition) = (&cut.topic, cut.partition);
        let mut reader = log.reader(topic, &Membership::Direct { partitions: vec![partition] }).await?;
        loop {
            match reader.poll(PATIENCE).await? {
                ReadEvent::Assigned(_) => break,
                ReadEvent::Idle => {
                    return Err(LogError::new(LogErrorKind::Transient, format!("{topic}/{partition} does not answer")));
                }
                ReadEvent::Revoked(_) | ReadEvent::Chunk(_) | ReadEvent::EndReached(_) => {}
            }
        }
        reader.start(partition, cut.from).await?;
        Ok(Self { reader, partition, chunk: Chunk::default(), next: 0, window, clock_ms, scratch })
    }

    pub(crate) async fn close(self) {
        self.reader.close().await;
    }

    /// Passes over offsets that nothing was written of.
    pub(crate) async fn pass_over(&mut self, to: i64) -> Result<(), LogError> {
        (self.chunk, self.next) = (Chunk::default(), 0);
        self.reader.start(self.partition, to).await
    }

    /// Makes the next batch, under the layout that `cut` has. Its keys are to be handed back by [`Self::take`] before
    /// the one after it is made.
    ///
    /// # Errors
    /// The log's, the encoder's, or a layout of another build.
    pub(crate) async fn make(&mut self, cut: &Cut, encoding: Encoding) -> Result<Remade, RemakeError> {
        let batch =
            Batch::new(&cut.topic, cut.partition, cut.from, self.clock_ms, &cut.layout, encoding, &self.scratch);
        let mut batch = batch.map_err(RemakeError::Layout)?.of_revision(cut.revision);
        while batch.ends().is_none_or(|ends| ends.to < cut.to) {
            let Some(offset) = self.chunk.offsets.get(self.next).copied() else {
                match self.reader.poll(PATIENCE).await? {
                    ReadEvent::Chunk(chunk) => (self.chunk, self.next) = (chunk, 0),
                    ReadEvent::EndReached(_) => {
                        return Ok(Remade::Other("the log ends before the batch does".to_owned()));
                    }
                    ReadEvent::Idle => {
                        let message = format!("{}/{} went silent", cut.topic, cut.partition);
                        return Err(LogError::new(LogErrorKind::Transient, message).into());
                    }
                    ReadEvent::Assigned(_) | ReadEvent::Revoked(_) => {}
                }
                continue;
            };
            if offset >= cut.to {
                break;
            }
            if offset >= cut.from {
                let time_ms = self.chunk.times_ms.get(self.next).copied().unwrap_or(i64::MIN);
                batch.push(&self.window, &self.chunk.records.get(self.next), offset, time_ms)?;
            }
            self.next += 1;
        }
        let Some(encoded) = batch.finish()? else {
            return Ok(Remade::Other("the log has no record of the batch".to_owned()));
        };
        let Ends { first, last, to, clock_ms } = encoded.ends;
        if (Some(first), Some(last), to, clock_ms) != (cut.first, cut.last, cut.to, cut.clock_ms) {
            return Ok(Remade::Other("the records in the log are not those the batch was cut from".to_owned()));
        }
        Ok(Remade::Batch(Box::new(encoded)))
    }

    /// Takes the keys of the batch that was made last: the window is the one after it.
    ///
    /// # Errors
    /// The disk's, where old keys go.
    pub(crate) fn take(&mut self, overlay: Overlay, clock_ms: i64) -> Result<(), BatchError> {
        self.clock_ms = clock_ms;
        Ok(self.window.merge(overlay, clock_ms)?)
    }
}
