//! Files fetched to local disk, and their rows.

use std::fmt;
use std::sync::Arc;

use common::store::{GetOptions, Store};

use super::AuditError;
use crate::batch::{Body, Spool};
use crate::decode::Decoder;
use crate::scratch::Scratch;
use crate::written::Written;

/// A file is taken from the store a piece of this size after another, and waits on local disk.
const PIECE_BYTES: usize = 1024 * 1024;

/// A file; `None` if it is gone or larger than its entry says, which its size has told already.
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
