//! Rows not yet encoded, as consecutive bytes: compact, fast to append to, and ready to go to disk.
//!
//! A row is `offset i64 | log time i64 | source | cells`, little endian; a source or cell is `length u32 | bytes`. The
//! length 2³²-1 represents null, or the source of the previous row.

use std::sync::Arc;

use parquet::errors::ParquetError;

use super::BatchError;
use super::rows::Lineage;
use crate::scratch::{Extent, ScratchError, ScratchFile};

const NONE: u32 = u32::MAX;
/// Bytes of a row besides its values.
const FIXED_BYTES: usize = 40;
/// Blocks begin small, because there may be many types with few rows …
const FIRST_BLOCK_BYTES: usize = 1024;
/// … and grow up to this.
const BLOCK_BYTES: usize = 64 * 1024;

/// The most cells of a row.
pub(super) const CELLS: usize = 4;

pub(super) struct RawRow<'a> {
    pub offset: i64,
    pub log_time_ms: i64,
    pub source: &'a str,
    pub cells: [Option<&'a [u8]>; CELLS],
}

#[derive(Default)]
pub(super) struct RawRows {
    /// The rows after those on disk. A row is within one block; blocks have one size, so that freed memory fits again.
    blocks: Vec<Vec<u8>>,
    memory_bytes: usize,
    spilled: Vec<Extent>,
    disk: Option<Arc<ScratchFile>>,
    len: usize,
    /// Bytes of the values, in memory and on disk.
    bytes: usize,
    last_source: Option<String>,
}

fn put(into: &mut Vec<u8>, bytes: Option<&[u8]>) -> Result<(), BatchError> {
    let Some(bytes) = bytes else {
        into.extend_from_slice(&NONE.to_le_bytes());
        return Ok(());
    };
    let len = u32::try_from(bytes.len()).ok().filter(|len| *len != NONE);
    let len = len.ok_or_else(|| ParquetError::General("a value has more than 4 GB".to_owned()))?;
    into.extend_from_slice(&len.to_le_bytes());
    into.extend_from_slice(bytes);
    Ok(())
}

/// Takes a value from the front; `None` if there is none, which only a damaged disk can cause.
fn take<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (len, after) = rest.split_first_chunk::<4>()?;
    let len = u32::from_le_bytes(*len);
    if len == NONE {
        *rest = after;
        return Some(None);
    }
    let (bytes, after) = after.split_at_checked(len as usize)?;
    *rest = after;
    Some(Some(bytes))
}

fn take_i64(rest: &mut &[u8]) -> Option<i64> {
    let (bytes, after) = rest.split_first_chunk::<8>()?;
    *rest = after;
    Some(i64::from_le_bytes(*bytes))
}

impl RawRows {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of the values, in memory and on disk.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let places = self.blocks.capacity() * size_of::<Vec<u8>>() + self.spilled.capacity() * size_of::<Extent>();
        self.spillable_bytes() + places
    }

    /// The part of it that [`RawRows::spill`] frees.
    pub(super) fn spillable_bytes(&self) -> usize {
        self.memory_bytes + self.last_source.as_ref().map_or(0, String::capacity)
    }

    /// A block with space for `bytes` more.
    fn block(&mut self, bytes: usize) -> &mut Vec<u8> {
        let has_room = |block: &Vec<u8>| block.capacity() - block.len() >= bytes;
        if !self.blocks.last().is_some_and(has_room) {
            let grown = self.blocks.last().map_or(FIRST_BLOCK_BYTES, |block| (block.capacity() * 2).min(BLOCK_BYTES));
            let block = Vec::with_capacity(grown.max(bytes));
            self.memory_bytes += block.capacity();
            if self.blocks.is_empty() {
                // Most files of a batch with many types have one block.
                self.blocks.reserve_exact(1);
            }
            self.blocks.push(block);
        }
        let last = self.blocks.len().saturating_sub(1);
        // There is a last block: it was just added if there was none.
        &mut self.blocks[last]
    }

    /// # Errors
    /// A value is larger than any log allows.
    pub(super) fn push(&mut self, lineage: &Lineage<'_>, cells: [Option<&[u8]>; CELLS]) -> Result<(), BatchError> {
        let values: usize = cells.iter().map(|cell| cell.map_or(0, <[u8]>::len)).sum();
        // Events of a file are consecutive.
        let source = Some(lineage.source).filter(|source| self.last_source.as_deref() != Some(*source));
        if let Some(source) = source {
            self.last_source = Some(source.to_owned());
        }
        let block = self.block(FIXED_BYTES + values + source.map_or(0, str::len));
        block.extend_from_slice(&lineage.offset.to_le_bytes());
        block.extend_from_slice(&lineage.log_time_ms.to_le_bytes());
        put(block, source.map(str::as_bytes))?;
        for cell in cells {
            put(block, cell)?;
        }
        self.bytes += FIXED_BYTES + lineage.source.len() + values;
        self.len += 1;
        Ok(())
    }

    /// Moves the rows in memory to disk.
    ///
    /// # Errors
    /// The disk's error; nothing is lost.
    pub(super) fn spill(&mut self, file: &Arc<ScratchFile>) -> Result<(), ScratchError> {
        if self.spilled.is_empty() {
            self.spilled.reserve_exact(self.blocks.len());
        }
        // One by one, so that written blocks are released even if a later one fails.
        while !self.blocks.is_empty() {
            let block = std::mem::take(&mut self.blocks[0]);
            match file.append(&block) {
                Ok(extent) => self.spilled.push(extent),
                Err(error) => {
                    self.blocks[0] = block;
                    return Err(error);
                }
            }
            self.memory_bytes -= block.capacity();
            self.blocks.remove(0);
            self.disk = Some(file.clone());
        }
        self.blocks = Vec::new();
        self.last_source = None;
        Ok(())
    }

    /// Passes all rows to `visit`, in order, and clears them.
    ///
    /// # Errors
    /// The disk's error, and those of `visit`.
    pub(super) fn drain(
        &mut self,
        mut visit: impl FnMut(&RawRow<'_>) -> Result<(), BatchError>,
    ) -> Result<(), BatchError> {
        let Self { blocks, spilled, disk, .. } = std::mem::take(self);
        let mut source = String::new();
        if let Some(disk) = disk {
            for extent in spilled {
                let block = disk.read(extent)?;
                each(&block, &mut source, &mut visit)?.ok_or_else(|| disk.damaged())?;
            }
        }
        for block in blocks {
            each(&block, &mut source, &mut visit)?
                .ok_or_else(|| ParquetError::General("rows in memory cannot be read".to_owned()))?;
        }
        Ok(())
    }
}

/// `None` if the bytes are not rows. A source is carried from block to block.
fn each(
    block: &[u8],
    source: &mut String,
    visit: &mut impl FnMut(&RawRow<'_>) -> Result<(), BatchError>,
) -> Result<Option<()>, BatchError> {
    let mut rest = block;
    while !rest.is_empty() {
        let row = (|| {
            let (offset, log_time_ms) = (take_i64(&mut rest)?, take_i64(&mut rest)?);
            if let Some(new) = take(&mut rest)? {
                source.clear();
                source.push_str(str::from_utf8(new).ok()?);
            }
            let mut cells = [None; CELLS];
            for cell in &mut cells {
                *cell = take(&mut rest)?;
            }
            Some((offset, log_time_ms, cells))
        })();
        let Some((offset, log_time_ms, cells)) = row else { return Ok(None) };
        visit(&RawRow { offset, log_time_ms, source, cells })?;
    }
    Ok(Some(()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scratch::Scratch;

    type Cells = (Option<Vec<u8>>, Option<Vec<u8>>);

    proptest! {
        #[test]
        fn rows_are_unchanged_in_memory_and_on_disk(
            rows in prop::collection::vec((any::<i64>(), 0_u8..3, any::<Cells>(), any::<bool>()), 0..40),
            again in any::<bool>(),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let file = Arc::new(Scratch::new(folder.path()).file().unwrap());
            let mut raw = RawRows::default();
            for _ in 0..=usize::from(again) {
                let mut expected = Vec::new();
                for (offset, source, (first, second), spills) in &rows {
                    let source = format!("source {source}");
                    let lineage = Lineage { offset: *offset, log_time_ms: offset / 2, source: &source };
                    raw.push(&lineage, [first.as_deref(), None, second.as_deref(), None]).unwrap();
                    expected.push((*offset, offset / 2, source.clone(), first.clone(), second.clone()));
                    if *spills {
                        raw.spill(&file).unwrap();
                    }
                }
                prop_assert_eq!(raw.len(), rows.len());
                let mut seen = Vec::new();
                raw.drain(|row| {
                    let [first, _, second, _] = row.cells.map(|cell| cell.map(<[u8]>::to_vec));
                    seen.push((row.offset, row.log_time_ms, row.source.to_owned(), first, second));
                    Ok(())
                }).unwrap();
                prop_assert_eq!(seen, expected);
                prop_assert_eq!((raw.len(), raw.bytes(), raw.memory_bytes()), (0, 0, 0));
            }
        }
    }
}
