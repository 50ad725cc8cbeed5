//! The log's file: held by one process, and either complete or absent.
//!
//! A new database is useless until its first commit, and the process may be killed before that. It is therefore created
//! under another name and renamed once it is complete; an incomplete one is replaced.
//!
//! The file is opened read-only until the first write, so a run without work changes no file.
//!
//! The log holds events and file names, so only its owner can read it. A foreign file is refused: never waited for (a
//! pipe) and never overwritten.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::ops::Deref;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, ReadOnlyDatabase, ReadTransaction, ReadableDatabase, StorageError, WriteTransaction,
};
use rustix::fs::{FlockOperation, OFlags, flock};

use super::damage::{damaged, guarded};
use crate::log::{LogError, LogErrorKind, Result};

const CACHE_BYTES: usize = 48 * 1024 * 1024;
pub(super) const FILE_NAME: &str = "log.redb";
const UNFINISHED_NAME: &str = "log.redb.new";
const LOCK_NAME: &str = "lock";
/// The first bytes of a redb file.
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";
/// Opens without waiting for the other end of a pipe.
const NO_WAIT: i32 = OFlags::NONBLOCK.bits().cast_signed();

enum Handle {
    ReadOnly(ReadOnlyDatabase),
    ReadWrite(Database),
    /// Between the two states, and permanently if reopening failed.
    Closed,
}

/// The open file.
pub(super) struct Storage {
    directory: PathBuf,
    handle: RwLock<Handle>,
    /// The operating system releases the lock when the process ends.
    _lock: File,
}

/// A read transaction; the file is not reopened for writing while one is alive.
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

/// As [`failed`], with what to do about missing rights.
fn refused(directory: &Path, what: &str, error: &std::io::Error) -> LogError {
    let advice = match error.kind() {
        ErrorKind::PermissionDenied => {
            ": the user of this process must be able to read and write the folder and its files, and none may be \
             immutable (lsattr shows that); or give another --data-dir"
        }
        ErrorKind::ReadOnlyFilesystem => ": mount it for writing, or give another --data-dir",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ": make room, or give another --data-dir",
        _ => "",
    };
    failed(directory, what, &format_args!("{error}{advice}"))
}

impl Storage {
    /// Opens the log in `directory`, and creates it if necessary. `prepare` runs on a new log before it becomes
    /// visible.
    ///
    /// # Errors
    /// [`LogErrorKind::Locked`] if another process holds it; otherwise the error of the file system or redb.
    pub(super) fn open(directory: &Path, prepare: impl FnOnce(&Database) -> Result<()>) -> Result<Self> {
        let refused = |what: &str, error: &std::io::Error| refused(directory, what, error);
        create_folder(directory).map_err(|error| refused("create the folder", &error))?;
        let lock = open_lock(&directory.join(LOCK_NAME)).map_err(|error| refused("open the lock file", &error))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(in_use(directory)),
            Err(error) => return Err(refused("lock it", &error.into())),
        }
        let path = directory.join(FILE_NAME);
        if !path.try_exists().map_err(|error| refused("look for the log", &error))? {
            create(directory, &path, prepare)?;
        }
        refuse_foreign(directory, &path)?;
        // A file that was not closed properly needs a repair, which writes.
        let handle = match Database::builder().set_cache_size(CACHE_BYTES).open_read_only(&path) {
            Ok(database) => Handle::ReadOnly(database),
            Err(DatabaseError::DatabaseAlreadyOpen) => return Err(in_use(directory)),
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
                let why = "it could not be opened for writing before, which the first error explains";
                return Err(failed(&self.directory, "read", &why));
            }
        };
        let transaction = transaction.map_err(|error| failed(&self.directory, "begin reading", &error))?;
        Ok(Reading { transaction, _handle: handle })
    }

    /// Waits for the previous write transaction.
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

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    fn reopen_for_writing(&self) -> Result<()> {
        let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        if !matches!(&*handle, Handle::ReadWrite(_)) {
            // redb's own lock is released before it is taken again; the log's lock is held throughout.
            *handle = Handle::Closed;
            *handle = Handle::ReadWrite(open_for_writing(&self.directory)?);
        }
        Ok(())
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        let handle = self.handle.get_mut().unwrap_or_else(PoisonError::into_inner);
        let closed = std::mem::replace(handle, Handle::Closed);
        // redb writes its list of free pages, which may fail in a damaged file; the next start detects that again.
        if let Err(error) = guarded(&self.directory, || {
            drop(closed);
            Ok(())
        }) {
            tracing::warn!(%error, "the embedded log was not closed properly");
        }
    }
}

fn open_for_writing(directory: &Path) -> Result<Database> {
    let database = Database::builder().set_cache_size(CACHE_BYTES).open(directory.join(FILE_NAME));
    database.map_err(|error| cannot_open(directory, error))
}

fn cannot_open(directory: &Path, error: DatabaseError) -> LogError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => in_use(directory),
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() != ErrorKind::UnexpectedEof => {
            refused(directory, &format!("open {FILE_NAME} for writing"), &error)
        }
        DatabaseError::UpgradeRequired(version) => {
            let why = format!(
                "it has format {version} of redb, which this build does not read: use the build that wrote it, or give \
                 another --data-dir"
            );
            failed(directory, &format!("open {FILE_NAME}"), &why)
        }
        // An end before the end among them: the file was cut off.
        other => damaged(directory, other),
    }
}

fn create(directory: &Path, path: &Path, prepare: impl FnOnce(&Database) -> Result<()>) -> Result<()> {
    let refused = |what: &str, error: &std::io::Error| refused(directory, what, error);
    let unfinished = directory.join(UNFINISHED_NAME);
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(refused("remove an unfinished log", &error));
        }
        _ => {}
    }
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&unfinished);
    let file = file.map_err(|error| refused("create the log", &error))?;
    let database = FileBackend::new(file).and_then(|file| Database::builder().create_with_backend(file));
    let database = database.map_err(|error| match error {
        DatabaseError::Storage(StorageError::Io(error)) => refused("create the log", &error),
        other => failed(directory, "create the log", &other),
    })?;
    prepare(&database)?;
    drop(database);
    std::fs::rename(&unfinished, path).map_err(|error| refused("name the log", &error))?;
    File::open(directory).and_then(|folder| folder.sync_all()).map_err(|error| refused("sync the folder", &error))
}

/// Creates the log's folder for its owner only. Its parents may be shared, as the tables are.
fn create_folder(directory: &Path) -> std::io::Result<()> {
    if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        made => made,
    }
}

fn open_lock(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    // Opened for reading too: opening a pipe for writing only waits for a reader.
    options.create(true).truncate(false).read(true).write(true).mode(0o600).custom_flags(NO_WAIT);
    let lock = options.open(path)?;
    if lock.metadata()?.is_file() { Ok(lock) } else { Err(std::io::Error::other("it is not a regular file")) }
}

/// Refuses a file that redb would wait for, or would overwrite with a new log.
fn refuse_foreign(directory: &Path, path: &Path) -> Result<()> {
    let action = format!("open {FILE_NAME}");
    let foreign = |why: &str| failed(directory, &action, &why);
    let unreadable = |error: std::io::Error| refused(directory, &action, &error);
    let file = OpenOptions::new().read(true).custom_flags(NO_WAIT).open(path).map_err(unreadable)?;
    let facts = file.metadata().map_err(unreadable)?;
    if !facts.is_file() {
        return Err(foreign("it is not a regular file; give another --data-dir"));
    }
    if facts.len() == 0 {
        return Err(foreign(
            "it is empty, which no log ever is: it was cut off. Bring it back from a backup; if there never was a log here, remove the file",
        ));
    }
    let mut begin = Vec::new();
    file.take(MAGIC.len() as u64).read_to_end(&mut begin).map_err(unreadable)?;
    if begin == MAGIC {
        return Ok(());
    }
    Err(foreign("it does not begin as a log does. Bring it back from a backup, or give another --data-dir"))
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
    fn an_incomplete_creation_is_replaced() -> std::result::Result<(), Box<dyn std::error::Error>> {
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
        assert_eq!(prepared, 1, "an existing log was created again");
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

    #[test]
    fn the_log_is_its_owners_alone() -> std::result::Result<(), Box<dyn std::error::Error>> {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir()?;
        let directory = root.path().join("shared/log");
        drop(Storage::open(&directory, |_| Ok(()))?);
        let mode = |path: &Path| std::fs::metadata(path).map(|facts| facts.permissions().mode() & 0o777);
        assert_eq!(mode(&directory)?, 0o700);
        assert_eq!(mode(&directory.join(FILE_NAME))?, 0o600);
        assert_eq!(mode(&directory.join(LOCK_NAME))?, 0o600);
        std::fs::create_dir(root.path().join("other"))?;
        assert_eq!(
            mode(&root.path().join("shared"))?,
            mode(&root.path().join("other"))?,
            "folders above may be shared"
        );
        Ok(())
    }

    #[test]
    fn a_foreign_file_is_refused_and_unchanged() -> std::result::Result<(), Box<dyn std::error::Error>> {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let fifo = |path: &Path| mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).map_err(std::io::Error::from);
        type Make<'a> = &'a dyn Fn(&Path) -> std::io::Result<()>;
        let cases: [(&str, Make<'_>, &str); 6] = [
            (FILE_NAME, &fifo, "not a regular file"),
            (LOCK_NAME, &fifo, "not a regular file"),
            (FILE_NAME, &|path| std::fs::create_dir(path), "not a regular file"),
            (FILE_NAME, &|path| std::os::unix::fs::symlink("/dev/zero", path), "not a regular file"),
            (FILE_NAME, &|path| std::fs::write(path, ""), "it is empty"),
            (FILE_NAME, &|path| std::fs::write(path, "a,b\n1,2\n"), "does not begin as a log does"),
        ];
        for (name, make, expected) in cases {
            let directory = tempfile::tempdir()?;
            let path = directory.path().join(name);
            make(&path)?;
            let before = std::fs::symlink_metadata(&path)?;
            let refused = Storage::open(directory.path(), |_| Ok(())).err().map(|error| error.to_string());
            let refused = refused.ok_or_else(|| format!("{name} was taken: {expected}"))?;
            assert!(
                refused.contains(expected) && refused.contains(&directory.path().display().to_string()),
                "{refused}"
            );
            let after = std::fs::symlink_metadata(&path)?;
            assert_eq!((before.file_type(), before.len()), (after.file_type(), after.len()));
        }
        Ok(())
    }
}
