//! Room on local disk for what may leave memory: old keys of a deduplication window, finished parts of files. Nothing in
//! it has a name, so that a crash leaves nothing behind; and nothing in it has to outlive the process.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A folder of local disk. Clones share one account of the bytes in use.
#[derive(Debug, Clone)]
pub struct Scratch {
    folder: PathBuf,
    used_bytes: Arc<AtomicU64>,
}

/// The disk did not do what was asked: it is full, or gone, or fails.
#[derive(Debug)]
pub struct ScratchError {
    folder: PathBuf,
    error: io::Error,
}

impl fmt::Display for ScratchError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { folder, error } = self;
        write!(formatter, "scratch.dir, files in '{}': {error}", folder.display())?;
        if error.kind() == io::ErrorKind::StorageFull {
            formatter.write_str("; give it more room, or let more stay in memory (dedup.max_memory)")?;
        }
        Ok(())
    }
}

impl std::error::Error for ScratchError {}

impl Scratch {
    /// In an existing folder; nothing is written before it is needed.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), used_bytes: Arc::default() }
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    fn failed(&self, error: io::Error) -> ScratchError {
        ScratchError { folder: self.folder.clone(), error }
    }

    /// # Errors
    /// No file can be made in the folder.
    pub(crate) fn file(&self) -> Result<ScratchFile, ScratchError> {
        let folder: &Path = &self.folder;
        let file = tempfile::tempfile_in(folder).map_err(|error| self.failed(error))?;
        Ok(ScratchFile { file, bytes: 0, scratch: self.clone() })
    }
}

/// A file that nobody else sees; its room is given back with it.
#[derive(Debug)]
pub(crate) struct ScratchFile {
    file: File,
    bytes: u64,
    scratch: Scratch,
}

impl ScratchFile {
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// # Errors
    /// The disk's, such as being full; what was appended before stays as it is.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), ScratchError> {
        self.file.write_all_at(bytes, self.bytes).map_err(|error| self.scratch.failed(error))?;
        self.bytes += bytes.len() as u64;
        self.scratch.used_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Fills `into` from `offset` on.
    ///
    /// # Errors
    /// The disk's, or the file ends before.
    pub(crate) fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), ScratchError> {
        self.file.read_exact_at(into, offset).map_err(|error| self.scratch.failed(error))
    }

    /// What was read is not what was written.
    pub(crate) fn damaged(&self) -> ScratchError {
        self.scratch.failed(io::Error::new(io::ErrorKind::InvalidData, "a block was altered on disk"))
    }
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        self.scratch.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_no_name_and_gives_its_room_back() {
        let folder = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(folder.path());
        let mut file = scratch.file().unwrap();
        file.append(b"abc").unwrap();
        file.append(b"def").unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut four = [0; 4];
        file.read_at(1, &mut four).unwrap();
        assert_eq!(&four, b"bcde");
        assert!(file.read_at(3, &mut four).is_err());
        assert_eq!((file.bytes(), scratch.used_bytes()), (6, 6));
        drop(file);
        assert_eq!(scratch.used_bytes(), 0);
        let error = Scratch::new(folder.path().join("none")).file().unwrap_err();
        assert!(error.to_string().contains("scratch.dir"), "{error}");
    }
}
