//! Puts the files of a batch, each if its name is free, and says what stands under each name.

use std::sync::Arc;
use std::time::Duration;

use commitlog::{FileId, Hash, Hasher, LiveFile, Stored};
use commitlog_storage::owning::PutFile;
use commitlog_storage::{PROOF_LASTS_MS, Proof};
use common::store::{GetOptions, Metadata, PutCondition, PutOutcome, Store, StoreError};
use futures_util::{FutureExt, StreamExt};
use tokio::time::Instant;

use super::{Partition, Phase, Writing};
use crate::batch::{Body, FinishedFile, Place, STANDS_IN, Series, path};
use crate::error::PartitionError;
use crate::fetch::{fetch, next_piece, same_rows};
use crate::footer::{Footer, FooterError};
use crate::in_turn::in_turn;
use crate::layout::Layout;
use crate::scratch::Scratch;
use crate::uploads::{MULTIPART_FROM_BYTES, UploadRoom, Uploads};

/// The files of a batch are tried so often, each time after a proof of the tail, which lasts for minutes.
const MAX_ROUNDS: u32 = 100;
/// A file that is removed repeatedly while it is put is given up after this many puts.
const MAX_PUTS: usize = 10;

/// When a proof does not count any more.
pub(crate) fn deadline(now_ms: i64, proof: Proof) -> Instant {
    let left_ms = proof.proved_ms.saturating_add(PROOF_LASTS_MS).saturating_sub(now_ms).clamp(0, PROOF_LASTS_MS);
    Instant::now() + Duration::from_millis(left_ms.unsigned_abs())
}

/// The store for puts that rest on a proof.
pub(crate) fn resting_on(store: &Arc<dyn Store>, proof: Proof) -> Arc<dyn Store> {
    store.as_of(proof.proved_ms).unwrap_or_else(|| store.clone())
}

impl Partition {
    /// Puts files of the batch that is encoded. A request is not sent, nor repeated, once the proof does not count any more.
    pub(super) async fn put(&mut self, files: &[u32], proof: Proof) -> Result<Vec<(u32, PutFile)>, PartitionError> {
        self.puts += 1;
        if self.puts > MAX_ROUNDS {
            let message =
                "files of this batch cannot be put: files without rows have their names, or the store is too slow";
            return Err(PartitionError::Damaged { key: self.commits.entry_key(0), message: message.to_owned() });
        }
        let Self { phase: Phase::Write(writing), shared, host, id, .. } = self else {
            return Err(PartitionError::Internal("files were to be put, and no batch is encoded".to_owned()));
        };
        let Writing { intent, encoded, .. } = &**writing;
        let context = &*shared.context;
        let layout: Layout = serde_json::from_value(intent.recipe.layout.clone())
            .map_err(|error| PartitionError::Internal(format!("a layout that was written cannot be read: {error}")))?;
        let place = Place {
            topic: &context.topic,
            partition: *id,
            from: intent.from,
            to: intent.to,
            series: Series::Batch,
            layout: &layout,
        };
        let wanted = encoded.files.iter().filter(|file| files.contains(&file.sequence)).collect();
        let deadline = deadline(host.boot_clock.since_boot_ms(), proof);
        let store = resting_on(&context.store, proof);
        put_all(&*store, place, wanted, (&context.uploads, &context.scratch), deadline).await
    }
}

/// Puts files. Those that are there at the deadline are returned as such, the rest as too old. Those on local disk take
/// memory within the room; what stands in place of them is compared on local disk.
pub(super) async fn put_all(
    store: &dyn Store,
    place: Place<'_>,
    files: Vec<&FinishedFile>,
    (room, scratch): (&UploadRoom, &Scratch),
    deadline: Instant,
) -> Result<Vec<(u32, PutFile)>, PartitionError> {
    let (mut stand, uploads) = (Vec::with_capacity(files.len()), Uploads::new(room));
    let mut outcomes =
        in_turn(files.into_iter().map(|file| put_until(store, place, file, (&uploads, scratch), deadline).boxed()));
    while let Some(outcome) = outcomes.next().await {
        stand.push(outcome?);
    }
    Ok(stand)
}

async fn put_until(
    store: &dyn Store,
    place: Place<'_>,
    file: &FinishedFile,
    with: (&Uploads, &Scratch),
    deadline: Instant,
) -> Result<(u32, PutFile), PartitionError> {
    let key = place.path(&file.folder, file.sequence);
    let put = match tokio::time::timeout_at(deadline, put_under(store, key, place, file, with)).await {
        Ok(put) => put?,
        Err(_) => PutFile::TooOld,
    };
    Ok((file.sequence, put))
}

/// Puts a file under this key if it is free, and says what stands there.
pub(crate) async fn put_under(
    store: &dyn Store,
    key: String,
    place: Place<'_>,
    file: &FinishedFile,
    (uploads, scratch): (&Uploads, &Scratch),
) -> Result<PutFile, PartitionError> {
    let facts = place.footer_facts(file.sequence)?;
    let ours = file.stored()?;
    for _ in 0..MAX_PUTS {
        let is_put = {
            let _held = uploads.room_for(file.body.disk_bytes()).await;
            put_once(store, &key, &file.body, &facts).await?
        };
        if is_put {
            return Ok(PutFile::Stands(ours));
        }
        match stands(store, &key, place.from, &facts, (&ours, &file.body), scratch).await? {
            Some(Stands::File(stored)) => return Ok(PutFile::Stands(stored)),
            // The batch is being abandoned, and the commit log says so.
            Some(Stands::Blank) => return Ok(PutFile::TooOld),
            None => tracing::info!(key, "it was there and has just been removed; it is put again"),
        }
    }
    Err(PartitionError::Damaged { key, message: "something keeps putting and removing it".to_owned() })
}

/// False if an object already exists.
async fn put_once(
    store: &dyn Store,
    key: &str,
    body: &Body,
    metadata: &[(&'static str, String)],
) -> Result<bool, PartitionError> {
    let metadata = metadata.iter().map(|(key, value)| (key.replace("event_distributor.", "ed-"), value.clone()));
    let (metadata, condition): (Metadata, _) = (metadata.collect(), PutCondition::IfAbsent);
    let outcome = if body.len() > MULTIPART_FROM_BYTES {
        store.put_in_parts(key, body, condition, &metadata).await?
    } else {
        store.put(key, body.bytes()?, condition, &metadata).await?
    };
    Ok(matches!(outcome, PutOutcome::Written(_)))
}

/// What stands under the name of a file of ours.
enum Stands {
    /// It, or one of the same rows that another build made.
    File(Stored),
    /// A file without rows, so that no other one gets the name.
    Blank,
}

/// What stands under the name of a file of ours. None: nothing any more.
async fn stands(
    store: &dyn Store,
    key: &str,
    from: i64,
    facts: &[(&'static str, String)],
    (ours, body): (&Stored, &Body),
    scratch: &Scratch,
) -> Result<Option<Stands>, PartitionError> {
    let Some((bytes, sha256)) = hash_in(store, key).await? else { return Ok(None) };
    if (bytes, sha256) == (ours.bytes, ours.sha256) {
        return Ok(Some(Stands::File(*ours)));
    }
    let footer = match Footer::read(store, key, bytes).await {
        Ok(footer) => footer,
        Err(FooterError::Store(error)) => return Err(error.into()),
        Err(FooterError::Gone) => return Ok(None),
        Err(FooterError::Unreadable(error)) => {
            return Err(foreign(key, from, &format!("its footer cannot be read ({error})")));
        }
    };
    if !footer.says(facts) {
        return Err(foreign(key, from, "its footer names another batch"));
    }
    if footer.fact(STANDS_IN).is_some() {
        return Ok(Some(Stands::Blank));
    }
    if footer.rows() != ours.rows {
        return Err(foreign(key, from, "its footer names another number of rows"));
    }
    // Bytes differ between builds and encodings, and where they were altered. Rows tell.
    let Some(there) = fetch(store, key, bytes, scratch).await? else { return Ok(None) };
    if (there.len() as u64, there.hash()?) != (bytes, sha256) {
        return Ok(None);
    }
    match same_rows(body, &there) {
        Ok(true) => Ok(Some(Stands::File(Stored { bytes, sha256, ..*ours }))),
        Ok(false) => Err(foreign(key, from, "its rows are not those of the batch")),
        Err(PartitionError::Encode(error)) => Err(foreign(key, from, &format!("its rows cannot be read ({error})"))),
        Err(error) => Err(error),
    }
}

fn foreign(key: &str, from: i64, message: &str) -> PartitionError {
    let message = format!("{message}; move it away, it is where a file of the batch from offset {from} belongs");
    PartitionError::Damaged { key: key.to_owned(), message }
}

/// Bytes and hash of an object, if it is there and stays while it is read.
pub(crate) async fn hash_in(store: &dyn Store, key: &str) -> Result<Option<(u64, Hash)>, PartitionError> {
    let Some((_, mut body)) = store.open(key, GetOptions::default()).await? else { return Ok(None) };
    let (mut hasher, mut bytes) = (Hasher::default(), 0);
    loop {
        let Some(part) = next_piece(&mut *body).await? else { return Ok(None) };
        let Some(part) = part else { return Ok(Some((bytes, hasher.finish()))) };
        hasher.update(&part);
        bytes += part.len() as u64;
    }
}

/// The live files that do not exist. One of another size is reported and kept.
pub(crate) async fn missing(
    store: &dyn Store,
    topic: &str,
    partition: i32,
    live: Vec<(FileId, LiveFile)>,
) -> Result<Vec<(FileId, LiveFile)>, StoreError> {
    let heads = live.into_iter().map(|(id, file)| {
        let path = path(topic, partition, &file.folder, id);
        async move {
            let head = store.head(&path).await;
            (id, file, path, head)
        }
        .boxed()
    });
    let mut heads = in_turn(heads);
    let mut missing = Vec::new();
    while let Some((id, file, path, head)) = heads.next().await {
        match head? {
            Some(meta) if meta.size_bytes == file.stored.bytes => {}
            Some(meta) => tracing::warn!(
                path,
                bytes = meta.size_bytes,
                expected_bytes = file.stored.bytes,
                "this file was altered; it is kept"
            ),
            None => missing.push((id, file)),
        }
    }
    Ok(missing)
}
