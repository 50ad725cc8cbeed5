//! Checks by trying whether files could be archived: permissions, read-only mounts and quotas cannot all be queried.
//! Everything created for this is removed at once.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::Path;

use common::config::Archive;
use common::store::{DeleteOutcome, Location, Metadata, PutCondition, PutOutcome, Store, StoreError};

/// Hidden, so that no ingestor reads it as a file of events.
const PROBE: &str = ".event-distributor-check";

/// Whether the archive step works in this landing zone.
///
/// # Errors
/// What fails, the reason, and what to do about it.
pub async fn try_archive(location: &Location, store: &dyn Store, archive: Archive) -> Result<(), String> {
    let folders: &[&str] = match archive {
        Archive::Move => &["pending", "processed"],
        Archive::Delete => &["pending"],
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

/// Creates and removes a file in the folder, or in the nearest existing one above it.
fn try_folder(root: &Path, folder: &str) -> std::io::Result<()> {
    let path = root.join(folder);
    let path = match path.symlink_metadata() {
        Ok(_) => path,
        Err(error) if error.kind() == ErrorKind::NotFound => root.to_owned(),
        Err(error) => return Err(error),
    };
    let probe = path.join(format!("{PROBE}-{}", std::process::id()));
    OpenOptions::new().write(true).create_new(true).open(&probe)?;
    std::fs::remove_file(&probe)
}

/// Tries the calls of a move under each of the two prefixes: a put into `processed/` and a delete from `pending/`,
/// where nothing may be put that an ingestor would read.
async fn try_prefix(store: &dyn Store, folder: &str) -> Result<(), StoreError> {
    let key = format!("{folder}/{PROBE}-{}", std::process::id());
    if folder == "processed" {
        let put = store.put(&key, Vec::new().into(), PutCondition::None, &Metadata::new()).await?;
        let (PutOutcome::Written(_) | PutOutcome::AlreadyExists | PutOutcome::VersionMismatch) = put;
    }
    let (DeleteOutcome::Deleted | DeleteOutcome::VersionMismatch) = store.delete(&key, None).await?;
    Ok(())
}
