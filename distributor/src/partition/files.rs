//! Putting the files of a batch, and knowing them again.

use common::store::{MIN_PART_BYTES, Metadata, PutCondition, PutOutcome, Store, StoreError};
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};

use super::{Context, PartitionError};
use crate::batch::{FinishedFile, Place, Stated};
use crate::chain::{Completion, Cut, FileEntry};
use crate::footer::{Footer, FooterError};

/// Files put or looked at at the same time.
const AT_ONCE: usize = 8;
/// Larger files go up in parts, so that a failure costs a part.
const MULTIPART_FROM_BYTES: usize = 64 * 1024 * 1024;
const PART_BYTES: usize = 4 * MIN_PART_BYTES;

/// Puts all files and returns them as the completion lists them, in sequence.
pub(super) async fn put_all(
    context: &Context,
    cut: &Cut,
    files: Vec<FinishedFile>,
    stated: &Stated,
) -> Result<Vec<FileEntry>, PartitionError> {
    let place = Place::of(cut);
    // Boxed and gathered: the compiler cannot see otherwise that the whole may move between threads.
    let puts: Vec<_> = files.into_iter().map(|file| put(context, place, file, stated).boxed()).collect();
    let puts = stream::iter(puts);
    puts.buffered(AT_ONCE).try_collect().await
}

async fn put(
    context: &Context,
    place: Place<'_>,
    file: FinishedFile,
    stated: &Stated,
) -> Result<FileEntry, PartitionError> {
    let FinishedFile { folder, sequence, rows, bytes } = file;
    let path = place.path(&folder, sequence);
    let facts = place.footer_facts(sequence)?;
    let metadata: Metadata = facts
        .iter()
        .chain([&stated.fact()?])
        .map(|(key, value)| (key.replace("event_distributor.", "ed-"), value.clone()))
        .collect();
    let size = bytes.len() as u64;
    let outcome = if bytes.len() > MULTIPART_FROM_BYTES {
        put_in_parts(&*context.store, &path, &bytes, &metadata).await?
    } else {
        context.store.put(&path, bytes, PutCondition::IfAbsent, &metadata).await?
    };
    match outcome {
        PutOutcome::Written(_) => Ok(FileEntry { path, rows, bytes: size }),
        PutOutcome::AlreadyExists | PutOutcome::VersionMismatch => known(context, place.from, &facts, rows, path).await,
    }
}

async fn put_in_parts(
    store: &dyn Store,
    path: &str,
    bytes: &bytes::Bytes,
    metadata: &Metadata,
) -> Result<PutOutcome, StoreError> {
    let mut upload = store.multipart(path, metadata).await?;
    let mut start = 0;
    while start < bytes.len() {
        let end = (start + PART_BYTES).min(bytes.len());
        if let Err(error) = upload.part(bytes.slice(start..end)).await {
            if let Err(abort) = upload.abort().await {
                tracing::debug!(path, error = %abort, "an upload could not be given up; the bucket's lifecycle rule removes it");
            }
            return Err(error);
        }
        start = end;
    }
    upload.complete(PutCondition::IfAbsent).await
}

/// A file that stands there already is ours if its footer says the same batch and sequence, and has the same rows.
async fn known(
    context: &Context,
    from: i64,
    facts: &[(&'static str, String)],
    rows: u64,
    path: String,
) -> Result<FileEntry, PartitionError> {
    let foreign = |message: &str| PartitionError::Damaged {
        key: path.clone(),
        message: format!("{message}; move it away, it stands where a file of batch {from} belongs"),
    };
    let meta = context.store.head(&path).await?.ok_or_else(|| foreign("it was there and is gone"))?;
    let footer = match Footer::read(&*context.store, &path, meta.size_bytes).await {
        Ok(footer) => footer,
        Err(FooterError::Store(error)) => return Err(error.into()),
        Err(FooterError::Gone) => return Err(foreign("it was there and is gone")),
        Err(FooterError::Unreadable(error)) => return Err(foreign(&format!("its footer cannot be read ({error})"))),
    };
    if !footer.says(facts) || footer.rows() != rows {
        return Err(foreign("its footer names another batch or another number of rows"));
    }
    Ok(FileEntry { path, rows, bytes: meta.size_bytes })
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
