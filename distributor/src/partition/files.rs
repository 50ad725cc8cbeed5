//! Putting the files of a batch, and knowing them again.

use common::store::{Metadata, PutCondition, PutOutcome, Store};
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};

use super::PartitionError;
use crate::batch::{FinishedFile, Place, Stated};
use crate::chain::{Completion, Cut, FileEntry};
use crate::footer::{Footer, FooterError};

/// A file that is removed each time it was found to be there is not put for ever.
const MAX_PUTS: usize = 10;
/// Files put or looked at at the same time.
const AT_ONCE: usize = 8;
/// Larger files go up in parts, so that a failure costs a part, and one on local disk comes to memory by parts. In tests
/// these are files that are soon made.
const MULTIPART_FROM_BYTES: usize = if cfg!(test) { 16 * 1024 } else { 16 * 1024 * 1024 };

/// Puts all files below `prefix`, and returns them as the completion lists them, in sequence and without it.
pub(crate) async fn put_all(
    store: &dyn Store,
    prefix: &str,
    cut: &Cut,
    files: Vec<FinishedFile>,
    stated: &Stated,
) -> Result<Vec<FileEntry>, PartitionError> {
    let place = Place::of(cut);
    // Boxed and gathered: the compiler cannot see otherwise that the whole may move between threads.
    let puts: Vec<_> = files.into_iter().map(|file| put(store, prefix, place, file, stated).boxed()).collect();
    let puts = stream::iter(puts);
    puts.buffered(AT_ONCE).try_collect().await
}

async fn put(
    store: &dyn Store,
    prefix: &str,
    place: Place<'_>,
    file: FinishedFile,
    stated: &Stated,
) -> Result<FileEntry, PartitionError> {
    let FinishedFile { folder, sequence, rows, body } = file;
    let path = place.path(&folder, sequence);
    let facts = place.footer_facts(sequence)?;
    let metadata: Metadata = facts
        .iter()
        .chain([&stated.fact()?])
        .map(|(key, value)| (key.replace("event_distributor.", "ed-"), value.clone()))
        .collect();
    let size = body.len() as u64;
    let key = format!("{prefix}{path}");
    for _ in 0..MAX_PUTS {
        let condition = PutCondition::IfAbsent;
        let outcome = if body.len() > MULTIPART_FROM_BYTES {
            store.put_in_parts(&key, &body, condition, &metadata).await?
        } else {
            store.put(&key, body.bytes()?, condition, &metadata).await?
        };
        match outcome {
            PutOutcome::Written(_) => return Ok(FileEntry { path, rows, bytes: size }),
            PutOutcome::AlreadyExists | PutOutcome::VersionMismatch => {}
        }
        if let Some(bytes) = known(store, place.from, &facts, rows, &key).await? {
            return Ok(FileEntry { path, rows, bytes });
        }
        tracing::info!(key, "it was there and has just been removed; it is put again");
    }
    Err(PartitionError::Damaged { key, message: "something keeps putting and removing it".to_owned() })
}

/// A file that stands there already is ours if its footer says the same batch and sequence, and has the same rows.
/// Returns its size, or `None` if it was taken away meanwhile.
async fn known(
    store: &dyn Store,
    from: i64,
    facts: &[(&'static str, String)],
    rows: u64,
    key: &str,
) -> Result<Option<u64>, PartitionError> {
    let foreign = |message: &str| PartitionError::Damaged {
        key: key.to_owned(),
        message: format!("{message}; move it away, it stands where a file of batch {from} belongs"),
    };
    let Some(meta) = store.head(key).await? else { return Ok(None) };
    let footer = match Footer::read(store, key, meta.size_bytes).await {
        Ok(footer) => footer,
        Err(FooterError::Store(error)) => return Err(error.into()),
        Err(FooterError::Gone) => return Ok(None),
        Err(FooterError::Unreadable(error)) => return Err(foreign(&format!("its footer cannot be read ({error})"))),
    };
    if !footer.says(facts) || footer.rows() != rows {
        return Err(foreign("its footer names another batch or another number of rows"));
    }
    Ok(Some(meta.size_bytes))
}

/// The files a completion lists that are not there. One of another size is reported and kept.
pub(crate) async fn missing(store: &dyn Store, completion: &Completion) -> Result<Vec<String>, PartitionError> {
    let heads: Vec<_> =
        completion.files.iter().map(|file| async move { (file, store.head(&file.path).await) }.boxed()).collect();
    let mut heads = stream::iter(heads).buffered(AT_ONCE);
    let mut missing = Vec::new();
    while let Some((file, head)) = heads.next().await {
        match head? {
            Some(meta) if meta.size_bytes == file.bytes => {}
            Some(meta) => tracing::warn!(
                path = file.path,
                bytes = meta.size_bytes,
                expected_bytes = file.bytes,
                "this file was altered; it is kept"
            ),
            None => missing.push(file.path.clone()),
        }
    }
    Ok(missing)
}
