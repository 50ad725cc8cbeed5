//! The encoded bytes of a file, in memory or on local disk.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use common::store::Parts;

use crate::scratch::{Extent, Scratch, ScratchError, ScratchFile};

/// The file on local disk that the files of one batch share; begun when it is needed.
#[derive(Debug)]
pub(super) struct Overflow {
    scratch: Scratch,
    file: Option<Arc<ScratchFile>>,
}

impl Overflow {
    pub(super) fn new(scratch: Scratch) -> Self {
        Self { scratch, file: None }
    }

    /// If there is any.
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
    /// Lets what is in memory go to disk.
    ///
    /// # Errors
    /// The disk's; nothing is lost.
    pub(super) fn spill(&mut self, file: &Arc<ScratchFile>) -> Result<(), ScratchError> {
        if !self.memory.is_empty() {
            self.extents.push(file.append(&self.memory)?);
            self.memory = Vec::new();
            self.disk = Some(file.clone());
        }
        Ok(())
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.memory.capacity()
    }

    pub(super) fn finish(self) -> Body {
        Body { disk: self.disk, extents: self.extents, memory: Bytes::from(self.memory) }
    }
}

impl io::Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.memory.extend_from_slice(bytes);
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
    pub(crate) fn len(&self) -> usize {
        self.extents.iter().map(|extent| extent.len).sum::<usize>() + self.memory.len()
    }

    /// All of it.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn bytes(&self) -> Result<Bytes, ScratchError> {
        self.part(0..self.len())
    }

    /// A part of it.
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

impl Parts for Body {
    fn len_bytes(&self) -> usize {
        self.len()
    }

    fn part(&self, range: Range<usize>) -> io::Result<Bytes> {
        Self::part(self, range).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read_wherever_it_is(
            writes in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..20), any::<bool>()), 0..12),
            ends in (0.0_f64..1.0, 0.0_f64..1.0),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let mut overflow = Overflow::new(Scratch::new(folder.path()));
            let (mut spool, mut expected) = (Spool::default(), Vec::new());
            for (bytes, spills) in writes {
                spool.write_all(&bytes).unwrap();
                expected.extend_from_slice(&bytes);
                // Somebody else's bytes lie between.
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
        }
    }
}
