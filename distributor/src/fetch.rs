//! Files of the tables: taken to local disk, and compared.

use std::sync::Arc;

use bytes::Bytes;
use common::store::{GetOptions, ObjectReader, Store, StoreError, StoreErrorKind};

use crate::batch::{Body, Spool};
use crate::decode::Decoder;
use crate::error::PartitionError;
use crate::scratch::Scratch;

/// A file is taken from the store a piece of this size after another, and waits on local disk.
const PIECE_BYTES: usize = 1024 * 1024;

/// A piece of a file, or its end; `None` if the file was removed or replaced while it was read.
///
/// # Errors
/// The store's.
pub(crate) async fn next_piece(reader: &mut dyn ObjectReader) -> Result<Option<Option<Bytes>>, StoreError> {
    match reader.next().await {
        Err(error) if error.kind == StoreErrorKind::VersionMismatch => Ok(None),
        piece => Ok(Some(piece?)),
    }
}

/// A file; `None` if it is gone, or was removed while it was read, or has more than `most_bytes`.
///
/// # Errors
/// The store's and the disk's.
pub(crate) async fn fetch(
    store: &dyn Store,
    path: &str,
    most_bytes: u64,
    scratch: &Scratch,
) -> Result<Option<Body>, PartitionError> {
    let Some((meta, mut reader)) = store.open(path, GetOptions::default()).await? else { return Ok(None) };
    if meta.size_bytes > most_bytes {
        return Ok(None);
    }
    let (mut spool, mut disk) = (Spool::default(), None);
    loop {
        let Some(piece) = next_piece(&mut *reader).await? else { return Ok(None) };
        let Some(piece) = piece else { break };
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

/// Whether a file has the rows of one that was made, in the same order.
///
/// # Errors
/// The disk's, or either cannot be decoded.
pub(crate) fn same_rows(made: &Body, there: &Body) -> Result<bool, PartitionError> {
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
