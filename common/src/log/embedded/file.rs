//! The log's file: held by one process, and there whole or not at all.
//!
//! A database that is being created is useless until its first commit, and a process can be killed before that. So it
//! is made under another name and renamed once it is whole; what a killed creation left is made anew.

use std::fs::{File, OpenOptions};
use std::path::Path;

use redb::Database;
use rustix::fs::{FlockOperation, flock};

use crate::log::{LogError, LogErrorKind, Result};

const CACHE_BYTES: usize = 48 * 1024 * 1024;
pub(super) const FILE_NAME: &str = "log.redb";
const UNFINISHED_NAME: &str = "log.redb.new";
const LOCK_NAME: &str = "lock";

/// Held as long as the log is open; the system lets go of it when the process ends, however it ends.
pub(super) struct Held {
    _lock: File,
}

/// Opens the database in `directory`, which is created if need be; a new one is given to `prepare` before it counts.
///
/// # Errors
/// [`LogErrorKind::Locked`] when another process holds it; otherwise what the file system or redb says.
pub(super) fn open(directory: &Path, prepare: impl FnOnce(&Database) -> Result<()>) -> Result<(Database, Held)> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        LogError::new(LogErrorKind::Other, format!("embedded log in {}: cannot {what}: {error}", directory.display()))
    };
    std::fs::create_dir_all(directory).map_err(|error| failed("create the folder", &error))?;
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(directory.join(LOCK_NAME));
    let lock = lock.map_err(|error| failed("open the lock file", &error))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(in_use(directory)),
        Err(error) => return Err(failed("lock it", &error)),
    }
    let path = directory.join(FILE_NAME);
    if !path.try_exists().map_err(|error| failed("look for the log", &error))? {
        let unfinished = directory.join(UNFINISHED_NAME);
        match std::fs::remove_file(&unfinished) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("remove an unfinished log", &error));
            }
            _ => {}
        }
        let database = Database::builder().create(&unfinished).map_err(|error| failed("create the log", &error))?;
        prepare(&database)?;
        drop(database);
        std::fs::rename(&unfinished, &path).map_err(|error| failed("name the log", &error))?;
        File::open(directory)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| failed("sync the folder", &error))?;
    }
    let database = Database::builder().set_cache_size(CACHE_BYTES).open(&path).map_err(|error| match error {
        redb::DatabaseError::DatabaseAlreadyOpen => in_use(directory),
        other => failed("open the log", &other),
    })?;
    Ok((database, Held { _lock: lock }))
}

fn in_use(directory: &Path) -> LogError {
    LogError::new(
        LogErrorKind::Locked,
        format!(
            "the embedded log in {} is in use by another process; stop it, or give this one its own --data-dir",
            directory.display()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_creation_left_is_made_anew() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        std::fs::write(directory.path().join(UNFINISHED_NAME), vec![0; 4_096])?;
        let mut prepared = 0;
        drop(open(directory.path(), |_| {
            prepared += 1;
            Ok(())
        })?);
        assert!(!directory.path().join(UNFINISHED_NAME).exists());
        drop(open(directory.path(), |_| {
            prepared += 1;
            Ok(())
        })?);
        assert_eq!(prepared, 1, "a log that is there is not made again");
        Ok(())
    }

    #[test]
    fn a_failed_preparation_leaves_no_log() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let refused = open(directory.path(), |_| Err(LogError::new(LogErrorKind::Other, "killed here")));
        assert!(refused.is_err());
        assert!(!directory.path().join(FILE_NAME).exists());
        assert!(open(directory.path(), |_| Ok(())).is_ok());
        Ok(())
    }
}
