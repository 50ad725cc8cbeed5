//! Rebuilds complete batches of one log partition from the log, one after another.

use crate::batch::{Batch, BatchError, Encoded, Encoding, Ends};
use crate::chain::Cut;
use crate::records::{Filled, Records};
use crate::scratch::Scratch;
use crate::window::{Overlay, Window};
use common::log::{Log, LogError};

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
    /// From exactly the records of the cut.
    Batch(Box<Encoded>),
    /// The log does not have them; holds the reason.
    Other(String),
}

pub(crate) struct Remake {
    records: Records,
    window: Window,
    clock_ms: i64,
    room: Room,
}

/// Resources for rebuilding a batch.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    pub scratch: Scratch,
    /// Bytes in memory. More goes to `scratch`.
    pub batch_memory: u64,
}

impl Remake {
    /// Begins at the start of `cut`, where the window is `window` and log time `clock_ms`.
    ///
    /// # Errors
    /// The log's error.
    pub(crate) async fn new(
        log: &dyn Log,
        cut: &Cut,
        window: Window,
        clock_ms: i64,
        room: Room,
    ) -> Result<Self, LogError> {
        let records = Records::open(log, &cut.topic, cut.partition, cut.from).await?;
        Ok(Self { records, window, clock_ms, room })
    }

    pub(crate) async fn close(self) {
        self.records.close().await;
    }

    /// Skips offsets that were not written.
    pub(crate) async fn pass_over(&mut self, to: i64) -> Result<(), LogError> {
        self.records.seek(to).await
    }

    /// Rebuilds the next batch under the layout and encoding of `cut`; uses `configured` if it has no encoding. Its
    /// keys must be passed to [`Self::take`] before the next batch is rebuilt.
    ///
    /// # Errors
    /// The log's, the encoder's, or a layout of another build.
    pub(crate) async fn make(&mut self, cut: &Cut, configured: Encoding) -> Result<Remade, RemakeError> {
        let encoding = cut.encoding.unwrap_or(configured);
        let Self { records, window, clock_ms, room } = self;
        let batch = Batch::new(&cut.topic, cut.partition, cut.from, *clock_ms, &cut.layout, encoding, &room.scratch);
        let mut batch = batch.map_err(RemakeError::Layout)?.of_revision(cut.revision);
        if records.fill(&mut batch, window, cut.from, cut.to, room.batch_memory).await? == Filled::LogEnded {
            return Ok(Remade::Other("the log ends before the batch does".to_owned()));
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

    /// Merges the keys of the last batch: the window is then the one after it.
    ///
    /// # Errors
    /// The error of the disk with old keys.
    pub(crate) fn take(&mut self, overlay: Overlay, clock_ms: i64) -> Result<(), BatchError> {
        self.clock_ms = clock_ms;
        Ok(self.window.merge(overlay, clock_ms)?)
    }
}
