//! The parts of an audit that read rows: are keys unique within the window, and do the log's records make these rows?

use std::fmt;
use std::sync::Arc;

use common::log::{Log, LogError};
use common::store::{GetOptions, Store};

use super::AuditError;
use crate::batch::{Body, Encoded, Encoding, Place, Spool};
use crate::chain::{Completion, Cut};
use crate::decode::Decoder;
use crate::partition::file_entries;
use crate::remake::{Remade, Remake, Room};
use crate::scratch::Scratch;
use crate::window::Window;
pub(super) use crate::written::Key;
use crate::written::Written;

/// A file is taken from the store a piece of this size after another, and waits on local disk.
const PIECE_BYTES: usize = 1024 * 1024;

/// A file; `None` if it is gone or larger than the chain says, which its size has told already.
///
/// # Errors
/// The store's and the disk's.
pub(super) async fn fetch(
    store: &dyn Store,
    path: &str,
    size_bytes: u64,
    scratch: &Scratch,
) -> Result<Option<Body>, AuditError> {
    let Some((meta, mut reader)) = store.open(path, GetOptions::default()).await? else { return Ok(None) };
    if meta.size_bytes > size_bytes {
        return Ok(None);
    }
    let (mut spool, mut disk) = (Spool::default(), None);
    while let Some(piece) = reader.next().await? {
        spool.push(&piece);
        if spool.memory_bytes() > PIECE_BYTES {
            let disk = match &mut disk {
                Some(disk) => disk,
                None => disk.insert(Arc::new(scratch.file()?)),
            };
            spool.spill(disk)?;
        }
    }
    Ok(Some(spool.finish()))
}

/// Offsets of all rows of a file, and keys of those that have one.
///
/// # Errors
/// It is not a file of ours, or is damaged.
pub(super) fn written(body: &Body) -> Result<Written, String> {
    let mut written = Written::default();
    let unreadable = |error: &dyn fmt::Display| format!("its rows cannot be read: {error}");
    let decoder = Decoder::of_file(body.clone()).map_err(|error| unreadable(&error))?;
    let at_once = decoder.rows_at_once();
    for batch in decoder.rows(at_once).map_err(|error| unreadable(&error))? {
        written.add(&batch.map_err(|error| unreadable(&error))?)?;
    }
    Ok(written)
}

/// Whether a file that was read before has the rows of one that was made.
///
/// # Errors
/// The disk's, or either cannot be decoded.
pub(super) fn same_rows(made: &Body, there: &Body) -> Result<bool, AuditError> {
    if made.is_same(there)? {
        return Ok(true);
    }
    let (made, there) = (Decoder::of_file(made.clone())?, Decoder::of_file(there.clone())?);
    // Batches are equal only if they are divided alike.
    let at_once = made.rows_at_once().min(there.rows_at_once());
    let (mut made, mut there) = (made.rows(at_once)?, there.rows(at_once)?);
    loop {
        match (made.next().transpose(), there.next().transpose()) {
            (Ok(None), Ok(None)) => return Ok(true),
            (Ok(made), Ok(there)) if made == there => {}
            (Ok(_), Ok(_)) => return Ok(false),
            (Err(error), _) | (_, Err(error)) => return Err(error.into()),
        }
    }
}

/// The rows of consecutive batches, made again from the log.
pub(super) struct Recount {
    remake: Remake,
    pub window_ms: i64,
}

/// What the log's records make of a batch.
pub(super) enum Made {
    /// The same: its files, in sequence.
    Files(Vec<Body>),
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
        room: Room,
    ) -> Result<Self, LogError> {
        let remake = Remake::new(log, cut, window, clock_ms, room).await?;
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
        let listed = completion.files.iter().map(|file| (file.path.as_str(), file.rows));
        let entries = file_entries(Place::of(cut), &files);
        if !entries.iter().map(|file| (file.path.as_str(), file.rows)).eq(listed) {
            return Ok(Made::Other("the log's records make other files".to_owned()));
        }
        Ok(Made::Files(files.into_iter().map(|file| file.body).collect()))
    }
}
