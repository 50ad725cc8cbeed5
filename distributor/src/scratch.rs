//! Local disk for data that may leave memory: old keys of a deduplication window, rows and finished parts of files. Its
//! files have no names, so a crash leaves nothing behind. They need not outlive the process.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A folder on local disk. Clones share one count of the bytes in use.
#[derive(Debug, Clone)]
pub struct Scratch {
    folder: Arc<PathBuf>,
    used_bytes: Arc<AtomicU64>,
}

/// The disk failed: it is full, missing or broken.
#[derive(Debug)]
pub struct ScratchError {
    folder: Arc<PathBuf>,
    error: io::Error,
}

impl fmt::Display for ScratchError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { folder, error } = self;
        write!(formatter, "scratch.dir, files in '{}': {error}", folder.display())?;
        if error.kind() == io::ErrorKind::StorageFull {
            formatter
                .write_str("; give it more room, or let more stay in memory (dedup.max_memory, flush.max_memory)")?;
        }
        Ok(())
    }
}

impl std::error::Error for ScratchError {}

impl Scratch {
    /// Uses an existing folder; nothing is written before it is needed.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: Arc::new(folder.into()), used_bytes: Arc::default() }
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    fn failed(&self, error: io::Error) -> ScratchError {
        ScratchError { folder: self.folder.clone(), error }
    }

    /// # Errors
    /// No file can be created in the folder.
    pub(crate) fn file(&self) -> Result<ScratchFile, ScratchError> {
        let file = tempfile::tempfile_in(&**self.folder).map_err(|error| self.failed(error))?;
        Ok(ScratchFile { file, end: AtomicU64::new(0), scratch: self.clone() })
    }
}

/// A file without a name; its space is freed when it is dropped.
#[derive(Debug)]
pub(crate) struct ScratchFile {
    file: File,
    /// The position of the next bytes.
    end: AtomicU64,
    scratch: Scratch,
}

/// The position of bytes in a [`ScratchFile`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub offset: u64,
    pub len: usize,
}

impl ScratchFile {
    /// # Errors
    /// The disk's error, such as being full; bytes appended before are unaffected.
    pub(crate) fn append(&self, bytes: &[u8]) -> Result<Extent, ScratchError> {
        let len = bytes.len() as u64;
        let offset = self.end.fetch_add(len, Ordering::Relaxed);
        self.scratch.used_bytes.fetch_add(len, Ordering::Relaxed);
        self.file.write_all_at(bytes, offset).map_err(|error| self.scratch.failed(error))?;
        Ok(Extent { offset, len: bytes.len() })
    }

    /// # Errors
    /// The disk's error.
    pub(crate) fn read(&self, extent: Extent) -> Result<Vec<u8>, ScratchError> {
        let mut bytes = vec![0; extent.len];
        self.file.read_exact_at(&mut bytes, extent.offset).map_err(|error| self.scratch.failed(error))?;
        Ok(bytes)
    }

    /// The bytes read differ from those written.
    pub(crate) fn damaged(&self) -> ScratchError {
        self.scratch.failed(io::Error::new(io::ErrorKind::InvalidData, "a block was altered on disk"))
    }
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        self.scratch.used_bytes.fetch_sub(self.end.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_no_name_and_frees_its_space() {
        let folder = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(folder.path());
        let file = scratch.file().unwrap();
        file.append(b"abc").unwrap();
        let second = file.append(b"def").unwrap();
        assert_eq!(second, Extent { offset: 3, len: 3 });
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(file.read(Extent { offset: 1, len: 4 }).unwrap(), b"bcde");
        assert!(file.read(Extent { offset: 3, len: 4 }).is_err());
        assert_eq!(scratch.used_bytes(), 6);
        drop(file);
        assert_eq!(scratch.used_bytes(), 0);
        let error = Scratch::new(folder.path().join("none")).file().unwrap_err();
        assert!(error.to_string().contains("scratch.dir"), "{error}");
    }
}
