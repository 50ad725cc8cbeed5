//! The log's file: held by one process, and there whole or not at all.
//!
//! A database that is being created is useless until its first commit, and a process can be killed before that. So it
//! is made under another name and renamed once it is whole; what a killed creation left is made anew.
//!
//! It is opened read-only until something is to be written: a run that has nothing to do changes no file.

use std::fs::{File, OpenOptions};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use redb::{Database, ReadOnlyDatabase, ReadTransaction, ReadableDatabase, WriteTransaction};
use rustix::fs::{FlockOperation, flock};

use crate::log::{LogError, LogErrorKind, Result};

const CACHE_BYTES: usize = 48 * 1024 * 1024;
pub(super) const FILE_NAME: &str = "log.redb";
const UNFINISHED_NAME: &str = "log.redb.new";
const LOCK_NAME: &str = "lock";

enum Handle {
    ReadOnly(ReadOnlyDatabase),
    ReadWrite(Database),
    /// Between the two, and for good if the second could not be had.
    Closed,
}

/// The opened file.
pub(super) struct Storage {
    directory: PathBuf,
    handle: RwLock<Handle>,
    /// The system lets go of it when the process ends, however it ends.
    _lock: File,
}

/// A read transaction; the file is not reopened for writing while one lives.
pub(super) struct Reading<'a> {
    transaction: ReadTransaction,
    _handle: RwLockReadGuard<'a, Handle>,
}

impl Deref for Reading<'_> {
    type Target = ReadTransaction;

    fn deref(&self) -> &ReadTransaction {
        &self.transaction
    }
}

fn failed(directory: &Path, what: &str, error: &dyn std::fmt::Display) -> LogError {
    LogError::new(LogErrorKind::Other, format!("embedded log in {}: cannot {what}: {error}", directory.display()))
}

impl Storage {
    /// Opens the log in `directory`, which is created if need be; a new one is given to `prepare` before it counts.
    ///
    /// # Errors
    /// [`LogErrorKind::Locked`] when another process holds it; otherwise what the file system or redb says.
    pub(super) fn open(directory: &Path, prepare: impl FnOnce(&Database) -> Result<()>) -> Result<Self> {
        let failed = |what: &str, error: &dyn std::fmt::Display| failed(directory, what, error);
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
            create(directory, &path, prepare)?;
        }
        // A file that was not closed properly has to be repaired first, which is writing.
        let handle = match Database::builder().set_cache_size(CACHE_BYTES).open_read_only(&path) {
            Ok(database) => Handle::ReadOnly(database),
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => return Err(in_use(directory)),
            Err(_) => Handle::ReadWrite(open_for_writing(directory)?),
        };
        Ok(Self { directory: directory.to_owned(), handle: RwLock::new(handle), _lock: lock })
    }

    pub(super) fn begin_read(&self) -> Result<Reading<'_>> {
        let handle = self.handle.read().unwrap_or_else(PoisonError::into_inner);
        let transaction = match &*handle {
            Handle::ReadOnly(database) => database.begin_read(),
            Handle::ReadWrite(database) => database.begin_read(),
            Handle::Closed => {
                return Err(failed(&self.directory, "read", &"it could not be opened for writing before"));
            }
        };
        let transaction = transaction.map_err(|error| failed(&self.directory, "begin reading", &error))?;
        Ok(Reading { transaction, _handle: handle })
    }

    /// Waits for the write transaction before this one.
    pub(super) fn begin_write(&self) -> Result<WriteTransaction> {
        loop {
            let handle = self.handle.read().unwrap_or_else(PoisonError::into_inner);
            if let Handle::ReadWrite(database) = &*handle {
                return database.begin_write().map_err(|error| failed(&self.directory, "begin writing", &error));
            }
            drop(handle);
            self.reopen_for_writing()?;
        }
    }

    fn reopen_for_writing(&self) -> Result<()> {
        let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        if !matches!(&*handle, Handle::ReadWrite(_)) {
            // redb's own lock is let go of before it is taken again; ours is held throughout.
            *handle = Handle::Closed;
            *handle = Handle::ReadWrite(open_for_writing(&self.directory)?);
        }
        Ok(())
    }
}

fn open_for_writing(directory: &Path) -> Result<Database> {
    let database = Database::builder().set_cache_size(CACHE_BYTES).open(directory.join(FILE_NAME));
    database.map_err(|error| match error {
        redb::DatabaseError::DatabaseAlreadyOpen => in_use(directory),
        other => failed(directory, "open the log", &other),
    })
}

fn create(directory: &Path, path: &Path, prepare: impl FnOnce(&Database) -> Result<()>) -> Result<()> {
    let failed = |what: &str, error: &dyn std::fmt::Display| failed(directory, what, error);
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
    std::fs::rename(&unfinished, path).map_err(|error| failed("name the log", &error))?;
    File::open(directory).and_then(|folder| folder.sync_all()).map_err(|error| failed("sync the folder", &error))
}

fn in_use(directory: &Path) -> LogError {
    LogError::new(
        LogErrorKind::Locked,
        format!(
            "the embedded log in {} is in use by another process, such as `run`; only one can use it at a time",
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
        for _ in 0..2 {
            drop(Storage::open(directory.path(), |_| {
                prepared += 1;
                Ok(())
            })?);
        }
        assert!(!directory.path().join(UNFINISHED_NAME).exists());
        assert_eq!(prepared, 1, "a log that is there is not made again");
        Ok(())
    }

    #[test]
    fn a_failed_preparation_leaves_no_log() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let refused = Storage::open(directory.path(), |_| Err(LogError::new(LogErrorKind::Other, "killed here")));
        assert!(refused.is_err());
        assert!(!directory.path().join(FILE_NAME).exists());
        assert!(Storage::open(directory.path(), |_| Ok(())).is_ok());
        Ok(())
    }

    #[test]
    fn reading_changes_nothing_and_writing_works_after_it() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        drop(Storage::open(directory.path(), |_| Ok(()))?);
        let state = || std::fs::metadata(directory.path().join(FILE_NAME)).and_then(|file| file.modified());
        let before = state()?;
        let storage = Storage::open(directory.path(), |_| Ok(()))?;
        drop(storage.begin_read()?);
        assert_eq!(state()?, before);
        storage.begin_write()?.commit()?;
        assert_ne!(state()?, before);
        drop(storage.begin_read()?);
        Ok(())
    }
}
