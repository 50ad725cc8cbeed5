//! The records of one partition.

use std::collections::BTreeSet;

use crate::log::{Bounds, Chunk, LogError, LogErrorKind, RecordBatch, RecordRef, Result};

/// A committed record.
#[derive(Debug, Clone)]
pub struct StoredRecord {
    pub offset: i64,
    pub append_ms: i64,
    /// Of one record.
    batch: RecordBatch,
}

impl StoredRecord {
    pub fn record(&self) -> RecordRef<'_> {
        self.batch.get(0)
    }
}

#[derive(Debug, Default)]
pub(super) struct Partition {
    /// In order of offsets, trimmed ones too.
    pub records: Vec<StoredRecord>,
    pub earliest: i64,
    pub latest: i64,
    /// Offsets of damaged records.
    pub unreadable: BTreeSet<i64>,
}

impl Partition {
    pub fn bounds(&self) -> Bounds {
        Bounds { earliest: self.earliest, latest: self.latest }
    }

    /// Records from `offset` on.
    fn from(&self, offset: i64) -> &[StoredRecord] {
        &self.records[self.records.partition_point(|record| record.offset < offset)..]
    }

    /// A record whose key is its offset, behind `hole` offsets without one.
    pub fn insert(&mut self, hole: i64, append_ms: i64, value: &[u8]) -> Result<i64> {
        let offset = self.latest + hole;
        let mut batch = RecordBatch::new();
        batch.push(format!("k{offset}").as_bytes(), Some(value), |_| {})?;
        self.records.push(StoredRecord { offset, append_ms, batch });
        self.latest = offset + 1;
        Ok(offset)
    }

    pub fn append(&mut self, records: &RecordBatch, append_ms: i64) -> Result<()> {
        for record in records.iter() {
            let mut batch = RecordBatch::new();
            batch.push_record(&record)?;
            self.records.push(StoredRecord { offset: self.latest, append_ms, batch });
            self.latest += 1;
        }
        Ok(())
    }

    pub fn offset_for_time(&self, time_ms: i64) -> Option<i64> {
        self.from(self.earliest).iter().find(|record| record.append_ms >= time_ms).map(|record| record.offset)
    }

    pub fn trim(&mut self, below_offset: i64, before_ms: i64) {
        let mut stays = self.from(self.earliest).iter();
        let stays = stays.find(|record| record.offset >= below_offset || record.append_ms >= before_ms);
        let end = stays.map_or(self.latest, |record| record.offset);
        self.earliest = self.earliest.max(end.min(below_offset));
    }

    /// # Errors
    /// [`LogErrorKind::OffsetOutOfRange`] if `next` is neither in the partition nor at its end.
    pub fn check(&self, topic: &str, partition: i32, next: i64) -> Result<()> {
        let Bounds { earliest, latest } = self.bounds();
        if (earliest..=latest).contains(&next) {
            return Ok(());
        }
        let message = format!("{topic}/{partition} has offsets {earliest}..{latest}, not {next}");
        Err(LogError::new(LogErrorKind::OffsetOutOfRange, message))
    }

    /// At most `most` records from `next` on; `None` at the end.
    ///
    /// # Errors
    /// As [`Partition::check`], and [`LogErrorKind::Corrupt`] if the record that comes next is damaged.
    pub fn chunk(&self, topic: &str, partition: i32, next: i64, most: usize) -> Result<Option<Chunk>> {
        self.check(topic, partition, next)?;
        let mut chunk = Chunk { partition, ..Chunk::default() };
        for stored in self.from(next).iter().take(most) {
            if self.unreadable.contains(&stored.offset) {
                if chunk.offsets.is_empty() {
                    let message = format!("the record of {topic}/{partition} at offset {} is damaged", stored.offset);
                    return Err(LogError::new(LogErrorKind::Corrupt, message));
                }
                break;
            }
            chunk.records.push_record(&stored.record())?;
            chunk.offsets.push(stored.offset);
            chunk.times_ms.push(stored.append_ms);
        }
        Ok((!chunk.offsets.is_empty()).then_some(chunk))
    }
}
