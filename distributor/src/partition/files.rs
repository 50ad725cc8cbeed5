//! Puts the files of a batch, and recognizes those already put.

use common::store::{Metadata, PutCondition, PutOutcome, Store};
use futures_util::{FutureExt, StreamExt, TryStreamExt};

use super::PartitionError;
use super::uploads::{UploadRoom, Uploads};
use crate::batch::{Body, FinishedFile, Place, STANDS_IN, Stated};
use crate::chain::{Completion, FileEntry};
use crate::footer::{Footer, FooterError};
use crate::in_turn::in_turn;

/// A file that is removed repeatedly while it is put is given up after this many puts.
const MAX_PUTS: usize = 10;
/// Larger files are put in parts, so that a failure repeats only a part, and one on local disk is read in parts. In
/// tests the limit is low.
pub(crate) const MULTIPART_FROM_BYTES: usize = if cfg!(test) { 16 * 1024 } else { 16 * 1024 * 1024 };

/// Puts all files below `prefix`, and returns them as the completion lists them, in sequence and without the prefix.
/// Those on local disk take memory within `room`.
///
/// `None` if a stand-in exists under the name of one of them: the batch is being closed without it, see `salvage`.
pub(crate) async fn put_all(
    store: &dyn Store,
    prefix: &str,
    place: Place<'_>,
    files: Vec<FinishedFile>,
    stated: Option<&Stated>,
    room: &UploadRoom,
) -> Result<Option<Vec<FileEntry>>, PartitionError> {
    let uploads = Uploads::new(room);
    let puts = in_turn(files.into_iter().map(|file| put(store, prefix, place, file, stated, &uploads).boxed()));
    let outcomes: Vec<Option<FileEntry>> = puts.try_collect().await?;
    Ok(outcomes.into_iter().collect())
}

/// Files as a completion lists them once they are put.
pub(crate) fn entries(place: Place<'_>, files: &[FinishedFile]) -> Vec<FileEntry> {
    let entry = |file: &FinishedFile| FileEntry {
        path: place.path(&file.folder, file.sequence),
        rows: file.rows,
        bytes: file.body.len() as u64,
    };
    files.iter().map(entry).collect()
}

async fn put(
    store: &dyn Store,
    prefix: &str,
    place: Place<'_>,
    file: FinishedFile,
    stated: Option<&Stated>,
    uploads: &Uploads,
) -> Result<Option<FileEntry>, PartitionError> {
    let FinishedFile { folder, sequence, rows, body, .. } = file;
    let path = place.path(&folder, sequence);
    let facts = place.footer_facts(sequence)?;
    let mut metadata = facts.clone();
    metadata.extend(stated.map(Stated::fact).transpose()?);
    let size = body.len() as u64;
    let key = format!("{prefix}{path}");
    for _ in 0..MAX_PUTS {
        let is_put = {
            let _held = uploads.room_for(body.disk_bytes()).await;
            put_once(store, &key, &body, &metadata).await?
        };
        if is_put {
            return Ok(Some(FileEntry { path, rows, bytes: size }));
        }
        match known(store, place.from, &facts, &key).await? {
            Known::File { footer, bytes } if footer.rows() == rows => {
                return Ok(Some(FileEntry { path, rows, bytes }));
            }
            Known::File { .. } => {
                return Err(foreign(&key, place.from, "its footer names another number of rows"));
            }
            Known::StandIn { .. } => return Ok(None),
            Known::Gone => tracing::info!(key, "it was there and has just been removed; it is put again"),
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

/// The object under a file's name.
pub(super) enum Known {
    File {
        footer: Footer,
        bytes: u64,
    },
    /// A file without rows that prevents the actual one.
    StandIn {
        bytes: u64,
    },
    /// It was removed meanwhile.
    Gone,
}

/// Reserves the name of a file, unless an object has it: afterwards the object under the name never changes.
pub(super) async fn take_name(
    store: &dyn Store,
    place: Place<'_>,
    stand_in: FinishedFile,
) -> Result<(String, Known), PartitionError> {
    let path = place.path(&stand_in.folder, stand_in.sequence);
    let facts = place.footer_facts(stand_in.sequence)?;
    let mut metadata = facts.clone();
    metadata.push((STANDS_IN, "true".to_owned()));
    for _ in 0..MAX_PUTS {
        if put_once(store, &path, &stand_in.body, &metadata).await? {
            let bytes = stand_in.body.len() as u64;
            return Ok((path, Known::StandIn { bytes }));
        }
        match known(store, place.from, &facts, &path).await? {
            Known::Gone => tracing::info!(path, "it was there and has just been removed; its name is taken"),
            known => return Ok((path, known)),
        }
    }
    Err(PartitionError::Damaged { key: path, message: "something keeps putting and removing it".to_owned() })
}

/// An existing object belongs to the batch if its footer names the same batch and sequence.
async fn known(
    store: &dyn Store,
    from: i64,
    facts: &[(&'static str, String)],
    key: &str,
) -> Result<Known, PartitionError> {
    let Some(meta) = store.head(key).await? else { return Ok(Known::Gone) };
    let bytes = meta.size_bytes;
    let footer = match Footer::read(store, key, bytes).await {
        Ok(footer) => footer,
        Err(FooterError::Store(error)) => return Err(error.into()),
        Err(FooterError::Gone) => return Ok(Known::Gone),
        Err(FooterError::Unreadable(error)) => {
            return Err(foreign(key, from, &format!("its footer cannot be read ({error})")));
        }
    };
    if !footer.says(facts) {
        return Err(foreign(key, from, "its footer names another batch"));
    }
    Ok(if footer.fact(STANDS_IN).is_some() { Known::StandIn { bytes } } else { Known::File { footer, bytes } })
}

fn foreign(key: &str, from: i64, message: &str) -> PartitionError {
    let message = format!("{message}; move it away, it is where a file of batch {from} belongs");
    PartitionError::Damaged { key: key.to_owned(), message }
}

/// The files listed by a completion that do not exist. One of another size is reported and kept.
pub(crate) async fn missing(store: &dyn Store, completion: &Completion) -> Result<Vec<String>, PartitionError> {
    let heads = completion.files.iter().map(|file| async move { (file, store.head(&file.path).await) }.boxed());
    let mut heads = in_turn(heads);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use common::store::LocalStore;

    use super::*;
    use crate::batch::Spool;
    use crate::batch::testing::cut;
    use crate::scratch::Scratch;
    use crate::testing::interposed::{Fate, delayed};

    const FILES: u32 = 40;
    /// Put whole, one by one within the room of a partition.
    const FILE_BYTES: usize = MULTIPART_FROM_BYTES / 2 + 1;

    /// The most files that are put at the same time.
    async fn most_at_once(on_disk: bool) -> usize {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(Scratch::new(folder.path()).file().unwrap());
        let file = |sequence: u32| {
            let mut spool = Spool::default();
            spool.push(&vec![1; FILE_BYTES]);
            if on_disk {
                spool.spill(&disk).unwrap();
            }
            FinishedFile { folder: "events/f".into(), sequence, rows: 1, offsets: 0..1, body: spool.finish() }
        };
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let seen = most.clone();
        let store = delayed(Arc::new(LocalStore::new(folder.path().join("trusted"))), move |operation, _| {
            let (now, most) = (now.clone(), seen.clone());
            async move {
                if operation == "put" {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    for _ in 0..10 {
                        tokio::task::yield_now().await;
                    }
                    now.fetch_sub(1, Ordering::SeqCst);
                }
                Fate::Pass
            }
            .boxed()
        });
        let cut = cut(0, 10);
        let files = (0..FILES).map(file).collect();
        let put = put_all(&*store, "", Place::of(&cut), files, None, &UploadRoom::default()).await.unwrap().unwrap();
        assert_eq!(put.len(), FILES as usize);
        most.load(Ordering::SeqCst)
    }

    #[tokio::test]
    async fn files_on_disk_are_put_within_their_room_however_many_there_are() {
        assert_eq!(most_at_once(true).await, 2, "one in the partition's room, one in that of the process");
        assert!(most_at_once(false).await > 2, "files in memory take no more of it");
    }
}
