//! The parts of an audit that read rows: are keys unique within the window, and do the log's records make these rows?

use arrow_array::RecordBatch;
use bytes::Bytes;
use common::log::{Log, LogError};
use common::store::{Store, StoreError, StoreErrorKind, read_all};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;

use super::AuditError;
use crate::batch::{BatchError, Encoded, Encoding, Place};
use crate::chain::{Completion, Cut};
use crate::remake::{Remade, Remake};
use crate::scratch::Scratch;
use crate::window::Window;
pub(super) use crate::written::Key;
use crate::written::Written;

/// Rows are decoded so many at a time, for both sides of a comparison.
const DECODED_ROWS: usize = 8_192;

pub(super) type Rows = Vec<RecordBatch>;

/// A file; `None` if it is gone or larger than the chain says, which its size has told already.
pub(super) async fn body(store: &dyn Store, path: &str, size_bytes: u64) -> Result<Option<Bytes>, StoreError> {
    match read_all(store, path, size_bytes).await {
        Ok(found) => Ok(found.map(|(_, body)| body)),
        Err(error) if error.kind == StoreErrorKind::TooLarge => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn decode(body: Bytes) -> Result<Rows, ParquetError> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(body)?.with_batch_size(DECODED_ROWS).build()?;
    reader.collect::<Result<_, _>>().map_err(Into::into)
}

/// Offsets of all rows, and keys of those that have one.
pub(super) fn keys(rows: &Rows) -> Result<(Vec<i64>, Vec<Key>), String> {
    let mut written = Written::default();
    rows.iter().try_for_each(|batch| written.add(batch))?;
    Ok((written.offsets, written.keys))
}

/// The rows of consecutive batches, made again from the log.
pub(super) struct Recount {
    remake: Remake,
    pub window_ms: i64,
}

/// What the log's records make of a batch.
pub(super) enum Made {
    /// The same: files as the completion lists them, with their bytes.
    Files(Vec<(String, Bytes)>),
    /// Something else, which this says.
    Other(String),
}

impl Recount {
    /// From the beginning of `cut` on, where the window is `window` and log time `clock_ms`.
    ///
    /// # Errors
    /// The log's.
    pub(super) async fn new(
        log: &dyn Log,
        cut: &Cut,
        window: Window,
        clock_ms: i64,
        scratch: Scratch,
    ) -> Result<Self, LogError> {
        let remake = Remake::new(log, cut, window, clock_ms, scratch).await?;
        Ok(Self { remake, window_ms: cut.layout.window_ms })
    }

    pub(super) async fn close(self) {
        self.remake.close().await;
    }

    /// Passes over offsets that nothing was written of.
    pub(super) async fn pass_over(&mut self, to: i64) -> Result<(), LogError> {
        self.remake.pass_over(to).await
    }

    /// Makes the next batch; `configured` as for [`Remake::make`].
    ///
    /// # Errors
    /// The log's, the encoder's, or a layout of another build.
    pub(super) async fn make(
        &mut self,
        cut: &Cut,
        completion: &Completion,
        configured: Encoding,
    ) -> Result<Made, AuditError> {
        let Encoded { files, overlay, counts, ends, .. } = match self.remake.make(cut, configured).await? {
            Remade::Batch(encoded) => *encoded,
            Remade::Other(message) => return Ok(Made::Other(message)),
        };
        self.remake.take(overlay, ends.clock_ms)?;
        if counts != completion.counts {
            let message = format!("the log's records make {counts:?}, the chain says {:?}", completion.counts);
            return Ok(Made::Other(message));
        }
        let place = Place::of(cut);
        let made: Vec<_> = files.into_iter().map(|file| (place.path(&file.folder, file.sequence), file)).collect();
        let same = made.len() == completion.files.len()
            && made
                .iter()
                .zip(&completion.files)
                .all(|((path, file), listed)| (path, file.rows) == (&listed.path, listed.rows));
        if !same {
            return Ok(Made::Other("the log's records make other files".to_owned()));
        }
        let files: Result<_, BatchError> =
            made.into_iter().map(|(path, file)| Ok((path, file.body.bytes()?))).collect();
        Ok(Made::Files(files?))
    }
}
