//! Sorted keys with their log times on local disk, with a filter in memory.
//!
//! Format: blocks of up to 200 entries `(fingerprint u128, time i64)`, little endian, each followed by the xxh3-64 of
//! its bytes. The first fingerprint of each block stays in memory.

use std::sync::Arc;

use super::budget::Budget;
use super::filter::Filter;
use crate::scratch::{Extent, ScratchError, ScratchFile};

const ENTRY_BYTES: usize = 24;
const BLOCK_ENTRIES: usize = 200;
const CHECKSUM_BYTES: usize = 8;
const BLOCK_BYTES: usize = BLOCK_ENTRIES * ENTRY_BYTES + CHECKSUM_BYTES;

#[derive(Debug)]
pub(super) struct Run {
    budget: Arc<Budget>,
    /// Unique among the runs of the process.
    name: u64,
    file: ScratchFile,
    /// First fingerprint of each block.
    firsts: Vec<u128>,
    filter: Option<Filter>,
    len: usize,
}

fn entry(bytes: &[u8]) -> Option<(u128, i64)> {
    let (key, rest) = bytes.split_first_chunk::<16>()?;
    let (time, _) = rest.split_first_chunk::<8>()?;
    Some((u128::from_le_bytes(*key), i64::from_le_bytes(*time)))
}

impl Run {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.firsts.capacity() * size_of::<u128>() + self.filter.as_ref().map_or(0, Filter::memory_bytes)
    }

    /// Every look-up then reads the disk: slower, and still exact.
    pub(super) fn drop_filter(&mut self) {
        self.filter = None;
    }

    /// See [`Groups::touch`](super::groups::Groups::touch).
    pub(super) fn touch(&self, keys: &[u128]) -> u64 {
        self.filter.as_ref().map_or(0, |filter| keys.iter().fold(0, |sum, key| sum ^ filter.touch(*key)))
    }

    pub(super) fn has_filter(&self) -> bool {
        self.filter.is_some()
    }

    /// The latest time of `key`.
    ///
    /// # Errors
    /// The disk's error.
    pub(super) fn get(&self, key: u128) -> Result<Option<i64>, ScratchError> {
        if self.filter.as_ref().is_some_and(|filter| !filter.may_hold(key)) {
            return Ok(None);
        }
        // The last block that begins at or before the key; a run contains each key once.
        let Some(block) = self.firsts.partition_point(|first| *first <= key).checked_sub(1) else { return Ok(None) };
        let block = self.block(block)?;
        let (mut low, mut high) = (0, block.len() / ENTRY_BYTES);
        while low < high {
            let middle = usize::midpoint(low, high);
            let Some((found, time_ms)) = block.get(middle * ENTRY_BYTES..).and_then(entry) else { return Ok(None) };
            match found.cmp(&key) {
                std::cmp::Ordering::Equal => return Ok(Some(time_ms)),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }

    fn block(&self, number: usize) -> Result<Arc<[u8]>, ScratchError> {
        let cached = (self.name, u32::try_from(number).unwrap_or(u32::MAX));
        if let Some(block) = self.budget.blocks.get(&cached) {
            return Ok(block);
        }
        let block: Arc<[u8]> = self.read(number)?.into();
        self.budget.blocks.insert(cached, block.clone());
        Ok(block)
    }

    fn read(&self, number: usize) -> Result<Vec<u8>, ScratchError> {
        let entries = (self.len - number * BLOCK_ENTRIES).min(BLOCK_ENTRIES);
        let len = entries * ENTRY_BYTES + CHECKSUM_BYTES;
        let mut bytes = self.file.read(Extent { offset: (number * BLOCK_BYTES) as u64, len })?;
        let checksum = bytes.split_off(entries * ENTRY_BYTES);
        if checksum != xxhash_rust::xxh3::xxh3_64(&bytes).to_le_bytes() {
            return Err(self.file.damaged());
        }
        Ok(bytes)
    }

    /// All entries, sorted, block by block and without the cache.
    fn entries(&self) -> impl Iterator<Item = Result<(u128, i64), ScratchError>> {
        (0..self.firsts.len()).flat_map(|number| {
            let (block, failed) = match self.read(number) {
                Ok(block) => (block, None),
                Err(error) => (Vec::new(), Some(Err(error))),
            };
            let entries: Vec<_> = block.chunks_exact(ENTRY_BYTES).filter_map(entry).map(Ok).collect();
            failed.into_iter().chain(entries)
        })
    }

    /// Merges two runs, without entries older than `oldest_ms`.
    ///
    /// # Errors
    /// The disk's error; both are unchanged.
    pub(super) fn merged(&self, other: &Self, oldest_ms: i64) -> Result<Self, ScratchError> {
        let mut writer = RunWriter::new(&self.budget, self.len + other.len)?;
        let (mut left, mut right) = (self.entries().peekable(), other.entries().peekable());
        loop {
            let takes_left = match (left.peek(), right.peek()) {
                (None, None) => return writer.finish(),
                (Some(_), None) | (Some(Err(_)), _) => true,
                (None, Some(_)) | (_, Some(Err(_))) => false,
                (Some(Ok((left, _))), Some(Ok((right, _)))) => left <= right,
            };
            let Some(next) = (if takes_left { left.next() } else { right.next() }) else { continue };
            let (key, mut time_ms) = next?;
            if takes_left
                && let Some(Ok((same, other_ms))) = right.peek()
                && *same == key
            {
                time_ms = time_ms.max(*other_ms);
                right.next();
            }
            if time_ms >= oldest_ms {
                writer.push(key, time_ms)?;
            }
        }
    }
}

/// Writes a run sequentially.
pub(super) struct RunWriter {
    budget: Arc<Budget>,
    file: ScratchFile,
    block: Vec<u8>,
    firsts: Vec<u128>,
    filter: Filter,
    len: usize,
}

impl RunWriter {
    /// For up to `count` keys.
    ///
    /// # Errors
    /// The disk's error.
    pub(super) fn new(budget: &Arc<Budget>, count: usize) -> Result<Self, ScratchError> {
        Ok(Self {
            budget: budget.clone(),
            file: budget.scratch.file()?,
            block: Vec::with_capacity(BLOCK_BYTES),
            firsts: Vec::with_capacity(count.div_ceil(BLOCK_ENTRIES)),
            filter: Filter::for_keys(count),
            len: 0,
        })
    }

    /// Adds the next key, which must be greater than the previous one.
    ///
    /// # Errors
    /// The disk's error.
    pub(super) fn push(&mut self, key: u128, time_ms: i64) -> Result<(), ScratchError> {
        if self.block.is_empty() {
            self.firsts.push(key);
        }
        self.block.extend_from_slice(&key.to_le_bytes());
        self.block.extend_from_slice(&time_ms.to_le_bytes());
        self.filter.insert(key);
        self.len += 1;
        if self.block.len() == BLOCK_ENTRIES * ENTRY_BYTES { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> Result<(), ScratchError> {
        let checksum = xxhash_rust::xxh3::xxh3_64(&self.block);
        self.block.extend_from_slice(&checksum.to_le_bytes());
        self.file.append(&self.block)?;
        self.block.clear();
        Ok(())
    }

    /// # Errors
    /// The disk's error.
    pub(super) fn finish(mut self) -> Result<Run, ScratchError> {
        if !self.block.is_empty() {
            self.end_block()?;
        }
        let Self { budget, file, mut firsts, filter, len, .. } = self;
        firsts.shrink_to_fit();
        Ok(Run { name: budget.name_run(), budget, file, firsts, filter: Some(filter), len })
    }
}
