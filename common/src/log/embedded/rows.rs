//! The tables of the embedded log and their rows. Each row ends in a checksum of its key and the other values, which is
//! verified on each read.

use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::checksum::checksum;
use super::damage::damaged;
use super::file::{Reading, Storage};
use crate::log::{LogError, LogErrorKind, Result, Retention};

/// name -> value
pub(super) const META: TableDefinition<&str, (&str, u64)> = TableDefinition::new("meta");
/// topic -> (partitions, retention)
pub(super) const TOPICS: TableDefinition<&str, (u32, u8, u64)> = TableDefinition::new("topics");
/// (topic, partition, first offset) -> chunk. The chunks of a partition are contiguous from its earliest to its next
/// offset.
pub(super) const CHUNKS: TableDefinition<(&str, i32, i64), &[u8]> = TableDefinition::new("chunks");
/// (topic, partition) -> (earliest, next offset, last log-append time)
pub(super) const ENDS: TableDefinition<(&str, i32), (i64, i64, i64, u64)> = TableDefinition::new("ends");
/// (group, topic, partition) -> offset
pub(super) const COMMITTED: TableDefinition<(&str, &str, i32), (i64, u64)> = TableDefinition::new("committed");
pub(super) const LOG_ID: &str = "log_id";

/// [`super::damage::guarded`] adds the name of the file.
pub(super) fn failed(action: &str) -> impl Fn(redb::Error) -> LogError {
    move |error| {
        let advice = match error {
            redb::Error::Corrupted(_) => "; the file is damaged: bring its folder back from a backup",
            redb::Error::TableTypeMismatch { .. } | redb::Error::TableDoesNotExist(_) => {
                "; another program wrote it, or another version of this one: give another --data-dir"
            }
            redb::Error::PreviousIo | redb::Error::LockPoisoned(_) => {
                "; it failed before, which the first error explains: start the program again after that is corrected"
            }
            _ => "",
        };
        LogError::new(LogErrorKind::Other, format!("{action}: {error}{advice}"))
    }
}

/// redb has an error type per operation; they all convert into [`redb::Error`].
macro_rules! attempt {
    ($result:expr, $action:literal) => {
        $result.map_err(redb::Error::from).map_err($crate::log::embedded::rows::failed($action))?
    };
}

pub(super) use attempt;

pub(super) fn retention_code(retention: Retention) -> u8 {
    match retention {
        Retention::Delete => 0,
        Retention::Forever => 1,
        Retention::Compact => 2,
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) earliest: i64,
    pub(super) next: i64,
    pub(super) last_time_ms: i64,
}

impl End {
    pub(super) const NEW: Self = Self { earliest: 0, next: 0, last_time_ms: i64::MIN };

    pub(super) fn row(self, topic: &str, partition: i32) -> (i64, i64, i64, u64) {
        let Self { earliest, next, last_time_ms } = self;
        let numbers = [earliest, next, last_time_ms].map(i64::to_le_bytes).concat();
        (earliest, next, last_time_ms, checksum(&[topic.as_bytes(), &partition.to_le_bytes(), &numbers]))
    }

    /// `None` if the row is damaged.
    pub(super) fn from_row(topic: &str, partition: i32, row: (i64, i64, i64, u64)) -> Option<Self> {
        let end = Self { earliest: row.0, next: row.1, last_time_ms: row.2 };
        Some(end).filter(|end| end.row(topic, partition) == row)
    }
}

pub(super) fn topic_row(topic: &str, partitions: u32, retention: u8) -> (u32, u8, u64) {
    (partitions, retention, checksum(&[topic.as_bytes(), &partitions.to_le_bytes(), &[retention]]))
}

pub(super) fn committed_row(group: &str, topic: &str, partition: i32, offset: i64) -> (i64, u64) {
    let parts = [group.as_bytes(), topic.as_bytes(), &partition.to_le_bytes(), &offset.to_le_bytes()];
    (offset, checksum(&parts))
}

/// Name, partitions and retention of each topic.
pub(super) fn read_topics(storage: &Storage, read: &Reading<'_>) -> Result<Vec<(String, u32, u8)>> {
    let table = attempt!(read.open_table(TOPICS), "open topics");
    let mut topics = Vec::new();
    for row in attempt!(table.iter(), "read topics") {
        let (name, row) = attempt!(row, "read topics");
        let (name, (partitions, retention, _)) = (name.value(), row.value());
        if topic_row(name, partitions, retention) != row.value() {
            let what = format_args!("topic '{name}': its settings are not as they were written");
            return Err(damaged(storage.directory(), what));
        }
        topics.push((name.to_owned(), partitions, retention));
    }
    Ok(topics)
}

pub(super) fn read_end(storage: &Storage, read: &Reading<'_>, topic: &str, partition: i32) -> Result<End> {
    let ends = attempt!(read.open_table(ENDS), "open ends");
    let row = attempt!(ends.get((topic, partition)), "read end").map(|row| row.value());
    checked_end(storage, topic, partition, row)
}

pub(super) fn checked_end(
    storage: &Storage,
    topic: &str,
    partition: i32,
    row: Option<(i64, i64, i64, u64)>,
) -> Result<End> {
    row.and_then(|row| End::from_row(topic, partition, row)).ok_or_else(|| {
        let what = "its first and next offset are not as they were written";
        damaged(storage.directory(), format_args!("topic '{topic}', partition {partition}: {what}"))
    })
}

pub(super) fn write_end(write: &WriteTransaction, topic: &str, partition: i32, end: End) -> Result<()> {
    let mut ends = attempt!(write.open_table(ENDS), "open ends");
    attempt!(ends.insert((topic, partition), end.row(topic, partition)), "write end");
    Ok(())
}
