//! Checks by trying whether files could be archived: permissions, read-only mounts and quotas cannot all be queried.
//! Everything created for this is removed at once.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use common::clock::{Clock, SystemClock};
use common::config::Archive;
use common::event::civil_from_micros;
use common::store::{DeleteOutcome, Location, Metadata, PutCondition, PutOutcome, Store, StoreError, free_bytes};
use indicatif::HumanBytes;

/// Hidden, so that no ingestor reads it as a file of events.
const PROBE: &str = ".event-distributor-check";
const PENDING: &str = "pending";
const PROCESSED: &str = "processed";

/// Whether the archive step works in this landing zone.
///
/// # Errors
/// What fails, the reason, and what to do about it.
pub async fn try_archive(location: &Location, store: &dyn Store, archive: Archive) -> Result<(), String> {
    let folders: &[&str] = match archive {
        Archive::Move => &[PENDING, PROCESSED],
        Archive::Delete => &[PENDING],
        // A tag can be tried only on an existing object.
        Archive::Leave | Archive::Tag => return Ok(()),
    };
    for folder in folders {
        let tried = match location {
            Location::Local(root) => try_folder(root, folder).map_err(|error| error.to_string()),
            Location::S3 { .. } => try_prefix(store, folder).await.map_err(|error| error.to_string()),
        };
        tried.map_err(|error| {
            format!(
                "{folder}/ cannot be written to, so that files cannot be archived ({error}); they are ingested all the \
                 same, and each run reports them. Give the permission, or set landing.archive = \"leave\""
            )
        })?;
    }
    Ok(())
}

/// Creates and removes a file in the folder, or in the nearest existing one above it. In `processed/` this is the folder
/// of today, to which the next files go.
fn try_folder(root: &Path, folder: &str) -> io::Result<()> {
    let path = existing(root, folder)?.unwrap_or_else(|| root.to_owned());
    let today = today();
    let of_today = if folder == PROCESSED { existing(&path, &today)? } else { None };
    // No link is followed there.
    if of_today.as_ref().is_some_and(|path| !path.symlink_metadata().is_ok_and(|facts| facts.is_dir())) {
        let message = format!("{today} is there and is no folder, but files of today go into a folder of that name");
        return Err(io::Error::other(message));
    }
    let path = of_today.unwrap_or(path);
    let probe = path.join(format!("{PROBE}-{}", std::process::id()));
    OpenOptions::new().write(true).create_new(true).open(&probe)?;
    std::fs::remove_file(&probe)
}

/// The path of an entry, if there is one.
fn existing(folder: &Path, name: &str) -> io::Result<Option<PathBuf>> {
    let path = folder.join(name);
    match path.symlink_metadata() {
        Ok(_) => Ok(Some(path)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn today() -> String {
    let day = civil_from_micros(SystemClock.now_ms().saturating_mul(1_000));
    format!("date={:04}-{:02}-{:02}", day.year, day.month, day.day)
}

/// The reason why the pending files do not fit into `processed/`, if it is on another disk. On the same one a move takes
/// no room.
pub fn lack_of_room(location: &Location, archive: Archive, pending_bytes: u64) -> Option<String> {
    let Location::Local(root) = location else { return None };
    let (pending, processed) = (root.join(PENDING), root.join(PROCESSED));
    let disk = |folder: &Path| folder.metadata().map(|facts| facts.dev());
    if archive != Archive::Move || disk(&pending).ok()? == disk(&processed).ok()? {
        return None;
    }
    let free = free_bytes(&processed).ok()?;
    (free < pending_bytes).then(|| {
        format!(
            "{PROCESSED}/ is on another disk, which has {} left for the {} in {PENDING}/: files that do not fit are \
             ingested and stay. Make room there",
            HumanBytes(free),
            HumanBytes(pending_bytes)
        )
    })
}

/// Tries the calls of a move under each of the two prefixes: a put into `processed/` and a delete from `pending/`,
/// where nothing may be put that an ingestor would read.
async fn try_prefix(store: &dyn Store, folder: &str) -> Result<(), StoreError> {
    let key = format!("{folder}/{PROBE}-{}", std::process::id());
    if folder == PROCESSED {
        let put = store.put(&key, Vec::new().into(), PutCondition::None, &Metadata::new()).await?;
        let (PutOutcome::Written(_) | PutOutcome::AlreadyExists | PutOutcome::VersionMismatch) = put;
    }
    let (DeleteOutcome::Deleted | DeleteOutcome::VersionMismatch) = store.delete(&key, None).await?;
    Ok(())
}
