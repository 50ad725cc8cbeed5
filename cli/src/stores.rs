//! The stores that the locations of a configuration name. All are opened here.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use anyhow::anyhow;
use common::store::{LocalStore, Location, Store, StoreError, check_writable, connect_s3, probe};

use crate::Failure;

/// The prefix of the objects that the start-up check of the trusted store writes and removes.
const PROBE_PREFIX: &str = "_commits";

/// The landing zone, which others have made.
///
/// # Errors
/// It is no folder, or no bucket can be reached from here.
pub async fn landing(location: &Location) -> Result<Arc<dyn Store>, Failure> {
    match location {
        Location::Local(path) if is_pending_itself(path) => Err(Failure::usage(anyhow!(
            "landing.url: {} holds no folder pending/, and is called so itself; did you mean '{}'?",
            path.display(),
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).display()
        ))),
        Location::Local(path) if path.is_dir() => Ok(Arc::new(LocalStore::landing(path.clone()))),
        Location::Local(path) => {
            let why = if path.exists() {
                "is no folder: name one that has a folder pending/ with the files"
            } else {
                "is not a folder; create it with a folder pending/ inside and put files there"
            };
            Err(Failure::usage(anyhow!("landing.url: {} {why}", path.display())))
        }
        Location::S3 { bucket, prefix } => s3(bucket, prefix).await,
    }
}

/// Whether the location is the folder with the files instead of the one that contains it.
fn is_pending_itself(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "pending") && path.is_dir() && !path.join("pending").exists()
}

/// The trusted zone as a distributor opens it, which makes the folder with its first put.
///
/// # Errors
/// No folder can be there.
pub async fn to_be_made(location: &Location) -> Result<Arc<dyn Store>, Failure> {
    match location {
        Location::Local(path) => {
            refuse_no_folder("trusted.url", path)?;
            Ok(Arc::new(LocalStore::new(path.clone())))
        }
        Location::S3 { bucket, prefix } => s3(bucket, prefix).await,
    }
}

/// The trusted zone as commands open it that make no folders.
///
/// # Errors
/// There is none.
pub async fn as_it_is(location: &Location) -> Result<Arc<dyn Store>, Failure> {
    match location {
        Location::Local(path) if path.is_dir() => Ok(Arc::new(LocalStore::open(path.clone()))),
        Location::Local(path) => {
            let why = if path.exists() { "is not a folder" } else { "does not exist" };
            Err(Failure::usage(anyhow!("trusted.url: {} {why}", path.display())))
        }
        Location::S3 { bucket, prefix } => s3(bucket, prefix).await,
    }
}

async fn s3(bucket: &str, prefix: &str) -> Result<Arc<dyn Store>, Failure> {
    connect_s3(bucket, prefix).await.map_err(Failure::usage)
}

/// Checks that a store keeps the guarantees that exactly-once needs. Removes everything that it writes.
pub async fn probe_trusted(store: &dyn Store) -> Result<(), StoreError> {
    probe(store, PROBE_PREFIX).await
}

/// Refuses a path where no folder can be, such as that of a file.
pub fn refuse_no_folder(key: &str, path: &Path) -> Result<(), Failure> {
    match check_writable(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotADirectory | ErrorKind::NotFound) => {
            let why = if path.is_file() {
                "is a file, not a folder".to_owned()
            } else {
                format!("cannot be a folder: {error}")
            };
            Err(Failure::usage(anyhow!("{key}: {} {why}", path.display())))
        }
        // A role that needs the permission reports that it lacks it.
        _ => Ok(()),
    }
}
