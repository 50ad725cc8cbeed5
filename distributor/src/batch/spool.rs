//! The encoded bytes of a file, in memory or on local disk.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use commitlog::{Hash, Hasher};
use common::store::Parts;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use crate::scratch::{Extent, Scratch, ScratchError, ScratchFile};

/// The bytes of two files that are compared at a time.
const COMPARED_BYTES: usize = 64 * 1024;
/// The bytes read ahead when a file is decoded.
const READ_AHEAD_BYTES: usize = 4 * 1024;

/// The file on local disk that the files of one batch share; created when it is first needed.
#[derive(Debug)]
pub(super) struct Overflow {
    scratch: Scratch,
    file: Option<Arc<ScratchFile>>,
}

impl Overflow {
    pub(super) fn new(scratch: Scratch) -> Self {
        Self { scratch, file: None }
    }

    /// The file, if it was created.
    pub(super) fn used(&self) -> Option<Arc<ScratchFile>> {
        self.file.clone()
    }

    /// # Errors
    /// The disk's.
    pub(super) fn file(&mut self) -> Result<Arc<ScratchFile>, ScratchError> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let file = Arc::new(self.scratch.file()?);
        self.file = Some(file.clone());
        Ok(file)
    }
}

/// Bytes in the order in which they were written: those on disk first.
#[derive(Debug, Default)]
pub(crate) struct Spool {
    disk: Option<Arc<ScratchFile>>,
    extents: Vec<Extent>,
    memory: Vec<u8>,
}

impl Spool {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.memory.extend_from_slice(bytes);
    }

    /// Moves the bytes in memory to disk.
    ///
    /// # Errors
    /// The disk's error; nothing is lost.
    pub(crate) fn spill(&mut self, file: &Arc<ScratchFile>) -> Result<(), ScratchError> {
        if !self.memory.is_empty() {
            self.extents.push(file.append(&self.memory)?);
            self.memory = Vec::new();
            self.disk = Some(file.clone());
        }
        Ok(())
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory.capacity()
    }

    pub(crate) fn finish(mut self) -> Body {
        self.memory.shrink_to_fit();
        Body { disk: self.disk, extents: self.extents, memory: Bytes::from(self.memory) }
    }
}

impl io::Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A whole file.
#[derive(Debug, Clone)]
pub(crate) struct Body {
    disk: Option<Arc<ScratchFile>>,
    extents: Vec<Extent>,
    memory: Bytes,
}

impl Body {
    /// Moves the bytes in memory to disk.
    ///
    /// # Errors
    /// The disk's error; nothing is lost.
    pub(super) fn spill(&mut self, file: &Arc<ScratchFile>) -> Result<(), ScratchError> {
        if !self.memory.is_empty() {
            self.extents.push(file.append(&self.memory)?);
            self.memory = Bytes::new();
            self.disk = Some(file.clone());
        }
        Ok(())
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.memory.len() + self.extents.capacity() * size_of::<Extent>()
    }

    pub(crate) fn len(&self) -> usize {
        self.extents.iter().map(|extent| extent.len).sum::<usize>() + self.memory.len()
    }

    /// The bytes on disk.
    pub(crate) fn disk_bytes(&self) -> usize {
        self.extents.iter().map(|extent| extent.len).sum()
    }

    /// The whole file.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn bytes(&self) -> Result<Bytes, ScratchError> {
        self.part(0..self.len())
    }

    /// A part of the file.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn part(&self, range: Range<usize>) -> Result<Bytes, ScratchError> {
        let Some(disk) = &self.disk else { return Ok(self.memory.slice(range)) };
        let mut part = Vec::with_capacity(range.len());
        let mut begin = 0;
        for extent in &self.extents {
            let (start, end) = (range.start.max(begin), range.end.min(begin + extent.len));
            if start < end {
                let offset = extent.offset + (start - begin) as u64;
                part.extend_from_slice(&disk.read(Extent { offset, len: end - start })?);
            }
            begin += extent.len;
        }
        let (start, end) = (range.start.max(begin) - begin, range.end.max(begin) - begin);
        part.extend_from_slice(&self.memory.slice(start..end));
        Ok(Bytes::from(part))
    }
}

impl Body {
    /// # Errors
    /// The disk's.
    pub(crate) fn hash(&self) -> Result<Hash, ScratchError> {
        let mut hasher = Hasher::default();
        for start in (0..self.len()).step_by(COMPARED_BYTES) {
            hasher.update(&self.part(start..self.len().min(start + COMPARED_BYTES))?);
        }
        Ok(hasher.finish())
    }

    /// Whether the bytes equal another's.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn is_same(&self, other: &Self) -> Result<bool, ScratchError> {
        if self.len() != other.len() {
            return Ok(false);
        }
        for start in (0..self.len()).step_by(COMPARED_BYTES) {
            let range = start..self.len().min(start + COMPARED_BYTES);
            if self.part(range.clone())? != other.part(range)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Parts for Body {
    fn len_bytes(&self) -> usize {
        self.len()
    }

    fn part(&self, range: Range<usize>) -> io::Result<Bytes> {
        Self::part(self, range).map_err(io::Error::other)
    }
}

impl Length for Body {
    fn len(&self) -> u64 {
        Self::len(self) as u64
    }
}

impl ChunkReader for Body {
    type T = io::BufReader<BodyReader>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let at = usize::try_from(start).map_err(|error| ParquetError::External(Box::new(error)))?;
        Ok(io::BufReader::with_capacity(READ_AHEAD_BYTES, BodyReader { body: self.clone(), at }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let start = usize::try_from(start).map_err(|error| ParquetError::External(Box::new(error)))?;
        let end = start.checked_add(length).filter(|end| *end <= Self::len(self));
        let end = end.ok_or_else(|| ParquetError::General(format!("it has no {length} bytes at {start}")))?;
        self.part(start..end).map_err(|error| ParquetError::External(Box::new(error)))
    }
}

/// Reads a file from a position on.
pub(crate) struct BodyReader {
    body: Body,
    at: usize,
}

impl io::Read for BodyReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let end = self.body.len().min(self.at.saturating_add(into.len()));
        let part = self.body.part(self.at.min(end)..end).map_err(io::Error::other)?;
        into[..part.len()].copy_from_slice(&part);
        self.at += part.len();
        Ok(part.len())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_are_unchanged_in_memory_and_on_disk(
            writes in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..20), any::<bool>()), 0..12),
            ends in (0.0_f64..1.0, 0.0_f64..1.0),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let mut overflow = Overflow::new(Scratch::new(folder.path()));
            let (mut spool, mut expected) = (Spool::default(), Vec::new());
            for (bytes, spills) in writes {
                spool.write_all(&bytes).unwrap();
                expected.extend_from_slice(&bytes);
                // Another file's bytes are between.
                overflow.file().unwrap().append(b"other").unwrap();
                if spills {
                    spool.spill(&overflow.file().unwrap()).unwrap();
                    prop_assert_eq!(spool.memory_bytes(), 0);
                }
            }
            let body = spool.finish();
            prop_assert_eq!(body.len(), expected.len());
            prop_assert_eq!(&body.bytes().unwrap(), &expected);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let at = |share: f64| (share * expected.len() as f64) as usize;
            let (start, end) = (at(ends.0).min(at(ends.1)), at(ends.0).max(at(ends.1)));
            prop_assert_eq!(&body.part(start..end).unwrap()[..], &expected[start..end]);
            prop_assert_eq!(&body.get_bytes(start as u64, end - start).unwrap()[..], &expected[start..end]);
            prop_assert!(body.get_bytes(start as u64, expected.len() - start + 1).is_err());
            let mut read = Vec::new();
            body.get_read(start as u64).unwrap().read_to_end(&mut read).unwrap();
            prop_assert_eq!(&read[..], &expected[start..]);
            let mut copy = Spool::default();
            copy.push(&expected);
            prop_assert!(body.is_same(&copy.finish()).unwrap());
            let mut other = Spool::default();
            other.push(&expected.iter().map(|byte| !byte).collect::<Vec<_>>());
            prop_assert_eq!(body.is_same(&other.finish()).unwrap(), expected.is_empty());
        }
    }
}
