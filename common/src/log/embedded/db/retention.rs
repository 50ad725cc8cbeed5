//! Deleting records: trimming old ones, and compacting topics.

use std::collections::BTreeMap;

use redb::WriteTransaction;

use super::super::rows::{CHUNKS, End, attempt, read_topics, retention_code, write_end};
use super::{Db, lock, store_batch, unknown};
use crate::log::{LogErrorKind, RecordBatch, Result, Retention};

/// A compacted topic is rewritten on opening if it has more than this many records, and twice its live ones.
const COMPACT_FROM_RECORDS: usize = 1_000;

impl Db {
    pub(in crate::log::embedded) fn trim(
        &self,
        topic: &str,
        partition: i32,
        below_offset: i64,
        before_ms: i64,
    ) -> Result<()> {
        let Some(end) = lock(&self.ends).get(topic).and_then(|ends| ends.get(&partition)).copied() else {
            return Err(unknown(topic));
        };
        let limit = below_offset.min(end.next);
        let earliest = {
            let read = self.storage.begin_read()?;
            let table = attempt!(read.open_table(CHUNKS), "open chunks");
            let mut earliest = end.earliest;
            let mut rows =
                attempt!(table.range((topic, partition, i64::MIN)..=(topic, partition, i64::MAX)), "scan chunks")
                    .peekable();
            while let Some(row) = rows.next() {
                let (key, stored) = attempt!(row, "scan chunks");
                let chunk_end = match rows.peek() {
                    Some(Ok((key, _))) => key.value().2,
                    Some(Err(_)) => break,
                    None => end.next,
                };
                if chunk_end > limit || self.time_of(key.value(), stored.value())? >= before_ms {
                    break;
                }
                earliest = chunk_end;
            }
            earliest
        };
        if earliest == end.earliest {
            return Ok(());
        }
        let write = self.storage.begin_write()?;
        {
            let mut table = attempt!(write.open_table(CHUNKS), "open chunks");
            attempt!(table.retain_in((topic, partition, i64::MIN)..(topic, partition, earliest), |_, _| false), "trim");
        }
        self.move_earliest(write, topic, partition, earliest)
    }

    fn move_earliest(&self, write: WriteTransaction, topic: &str, partition: i32, earliest: i64) -> Result<()> {
        // The committed end, not the published one: an append may be between the two.
        let end = End { earliest, ..self.end_to_move(&write, topic, partition)? };
        write_end(&write, topic, partition, end)?;
        attempt!(write.commit(), "trim");
        self.publish_end(topic, partition, end);
        Ok(())
    }

    /// Rewrites compacted topics that hold mostly superseded records. One transaction appends the live records again
    /// and deletes the old chunks. Readers of a compacted topic need only the last value of each key.
    pub(super) fn compact(&self) -> Result<()> {
        let topics = read_topics(&self.storage, &self.storage.begin_read()?)?;
        let compacted = topics.into_iter().filter(|(.., retention)| *retention == retention_code(Retention::Compact));
        for (topic, ..) in compacted {
            for partition in self.partitions(&topic)? {
                match self.compact_partition(&topic, partition) {
                    // The owner of the partition reports it; the other partitions can be used.
                    Err(error) if error.kind == LogErrorKind::Corrupt => {
                        tracing::warn!(%error, "a partition of a compacted topic stays as it is");
                    }
                    outcome => outcome?,
                }
            }
        }
        Ok(())
    }

    fn compact_partition(&self, topic: &str, partition: i32) -> Result<()> {
        let Some(end) = lock(&self.ends).get(topic).and_then(|ends| ends.get(&partition)).copied() else {
            return Err(unknown(topic));
        };
        let mut live: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        let mut records = 0;
        let mut position = end.earliest;
        while let Some(chunk) = self.read(topic, partition, position)? {
            for (record, offset) in chunk.records.iter().zip(&chunk.offsets) {
                live.insert(record.key.to_vec(), record.value.map(<[u8]>::to_vec));
                records += 1;
                position = offset + 1;
            }
        }
        live.retain(|_, value| value.is_some());
        if records < COMPACT_FROM_RECORDS || records < 2 * live.len() {
            return Ok(());
        }
        let mut batch = RecordBatch::new();
        for (key, value) in &live {
            batch.push(key, value.as_deref(), |_| {})?;
        }
        let write = self.storage.begin_write()?;
        {
            let mut table = attempt!(write.open_table(CHUNKS), "open chunks");
            attempt!(
                table.retain_in((topic, partition, i64::MIN)..(topic, partition, end.next), |_, _| false),
                "compact"
            );
        }
        let next = store_batch(&write, topic, partition, end.next, end.last_time_ms, &batch)?;
        let compacted = End { earliest: end.next, next, ..end };
        write_end(&write, topic, partition, compacted)?;
        attempt!(write.commit(), "compact");
        if let Some(slot) = lock(&self.ends).get_mut(topic).and_then(|ends| ends.get_mut(&partition)) {
            *slot = compacted;
        }
        Ok(())
    }
}
