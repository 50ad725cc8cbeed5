//! The tables of the embedded log and the transactions on them.

mod retention;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{Database, ReadableTable, WriteTransaction};
use tokio::sync::watch;

use super::checksum::checksum;
use super::chunk::{self, Place};
use super::damage::{damaged, unreadable};
use super::file::Storage;
use super::rows::{
    CHUNKS, COMMITTED, ENDS, End, LOG_ID, META, TOPICS, attempt, checked_end, committed_row, read_end, read_topics,
    retention_code, topic_row, write_end,
};
use crate::clock::Clock;
use crate::log::{Bounds, Chunk, LogError, LogErrorKind, RecordBatch, Result, TopicInfo, TopicSpec};

/// The records that one transaction appends, by topic and partition.
pub(super) type Appended = BTreeMap<(String, i32), RecordBatch>;

pub(super) struct Db {
    storage: Storage,
    id: String,
    clock: Arc<dyn Clock>,
    ends: Mutex<HashMap<String, BTreeMap<i32, End>>>,
    epochs: Mutex<HashMap<String, u64>>,
    /// Held from the check of a writer's epoch until readers see its commit.
    committing: Mutex<()>,
    /// Counts commits; waiting readers watch it.
    commits: watch::Sender<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section leaves the data consistent, so a panic elsewhere does not corrupt it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Db {
    pub(super) fn open(directory: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        let now_ms = clock.now_ms();
        let storage = Storage::open(directory, |new| Self::create_tables(new, now_ms))?;
        let db = Self {
            ends: Mutex::new(Self::load_ends(&storage)?),
            id: Self::read_id(&storage)?,
            storage,
            clock,
            epochs: Mutex::default(),
            committing: Mutex::default(),
            commits: watch::Sender::new(0),
        };
        db.compact()?;
        Ok(db)
    }

    fn create_tables(database: &Database, now_ms: i64) -> Result<()> {
        let write = attempt!(database.begin_write(), "begin");
        {
            let mut meta = attempt!(write.open_table(META), "open meta");
            attempt!(write.open_table(TOPICS), "open topics");
            attempt!(write.open_table(CHUNKS), "open chunks");
            attempt!(write.open_table(ENDS), "open ends");
            attempt!(write.open_table(COMMITTED), "open committed");
            let seed = format!("{now_ms}-{}-{:?}", std::process::id(), std::time::Instant::now());
            let id = format!("embedded-{:016x}", xxhash_rust::xxh3::xxh3_64(seed.as_bytes()));
            attempt!(meta.insert(LOG_ID, (id.as_str(), checksum(&[id.as_bytes()]))), "write log id");
        }
        attempt!(write.commit(), "commit");
        Ok(())
    }

    fn read_id(storage: &Storage) -> Result<String> {
        let read = storage.begin_read()?;
        let meta = attempt!(read.open_table(META), "open meta");
        let row = attempt!(meta.get(LOG_ID), "read log id");
        let id = row.and_then(|row| {
            let (id, sum) = row.value();
            (checksum(&[id.as_bytes()]) == sum).then(|| id.to_owned())
        });
        id.ok_or_else(|| damaged(storage.directory(), "its identity is not as it was written"))
    }

    fn load_ends(storage: &Storage) -> Result<HashMap<String, BTreeMap<i32, End>>> {
        let mut ends: HashMap<String, BTreeMap<i32, End>> = HashMap::new();
        let read = storage.begin_read()?;
        for (topic, partitions, _) in read_topics(storage, &read)? {
            let mut known = BTreeMap::new();
            for partition in 0..i32::try_from(partitions).unwrap_or(i32::MAX) {
                known.insert(partition, read_end(storage, &read, &topic, partition)?);
            }
            ends.insert(topic, known);
        }
        Ok(ends)
    }

    pub(super) fn directory(&self) -> &Path {
        self.storage.directory()
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    pub(super) fn partitions(&self, topic: &str) -> Result<Vec<i32>> {
        lock(&self.ends).get(topic).map(|ends| ends.keys().copied().collect()).ok_or_else(|| unknown(topic))
    }

    pub(super) fn ensure_topic(&self, spec: &TopicSpec) -> Result<TopicInfo> {
        match self.verify_topic(spec)? {
            Some(partitions) => Ok(self.register(&spec.name, partitions)),
            None => self.create_topic(spec),
        }
    }

    /// The topic's partition count; `None` if there is no such topic.
    pub(super) fn verify_topic(&self, spec: &TopicSpec) -> Result<Option<u32>> {
        let code = retention_code(spec.retention);
        let known = {
            let read = self.storage.begin_read()?;
            let topics = attempt!(read.open_table(TOPICS), "open topics");
            attempt!(topics.get(spec.name.as_str()), "read topic").map(|row| row.value())
        };
        match known {
            Some(row) if row != topic_row(&spec.name, row.0, row.1) => {
                Err(self.damaged(format_args!("topic '{}': its settings are not as they were written", spec.name)))
            }
            Some((_, other, _)) if other != code => Err(LogError::new(
                LogErrorKind::Misconfigured,
                format!("topic '{}' exists with another retention than {:?}", spec.name, spec.retention),
            )),
            known => Ok(known.map(|(partitions, ..)| partitions)),
        }
    }

    /// Adds a committed topic to memory. Two tasks may create a topic at once: the one that finds it committed must
    /// wait until it is in memory, and must not undo later appends.
    fn register(&self, topic: &str, partitions: u32) -> TopicInfo {
        let mut ends = lock(&self.ends);
        let topic = ends.entry(topic.to_owned()).or_default();
        for partition in 0..i32::try_from(partitions).unwrap_or(i32::MAX) {
            topic.entry(partition).or_insert(End::NEW);
        }
        TopicInfo { partitions }
    }

    fn create_topic(&self, spec: &TopicSpec) -> Result<TopicInfo> {
        let partitions = spec.partitions.max(1);
        let write = self.storage.begin_write()?;
        {
            let mut topics = attempt!(write.open_table(TOPICS), "open topics");
            // Another task may have created it since the check above.
            let known = attempt!(topics.get(spec.name.as_str()), "read topic").map(|row| row.value());
            if let Some((partitions, ..)) = known {
                return Ok(self.register(&spec.name, partitions));
            }
            let mut ends = attempt!(write.open_table(ENDS), "open ends");
            if attempt!(ends.get((spec.name.as_str(), 0)), "read end").is_some() {
                return Err(self.damaged(format_args!("topic '{}' has records, but is not in the list", spec.name)));
            }
            let row = topic_row(&spec.name, partitions, retention_code(spec.retention));
            attempt!(topics.insert(spec.name.as_str(), row), "create topic");
            for partition in 0..i32::try_from(partitions).unwrap_or(i32::MAX) {
                let row = End::NEW.row(&spec.name, partition);
                attempt!(ends.insert((spec.name.as_str(), partition), row), "create topic");
            }
        }
        attempt!(write.commit(), "create topic");
        Ok(self.register(&spec.name, partitions))
    }

    pub(super) fn bounds(&self, topic: &str) -> Result<BTreeMap<i32, Bounds>> {
        let ends = lock(&self.ends);
        let topic = ends.get(topic).ok_or_else(|| unknown(topic))?;
        Ok(topic
            .iter()
            .map(|(partition, end)| (*partition, Bounds { earliest: end.earliest, latest: end.next }))
            .collect())
    }

    pub(super) fn committed(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>> {
        let read = self.storage.begin_read()?;
        let table = attempt!(read.open_table(COMMITTED), "open committed");
        let mut committed = BTreeMap::new();
        // Reads all of the few rows: a row whose key was damaged would otherwise seem to be missing.
        for row in attempt!(table.iter(), "read committed") {
            let (key, value) = attempt!(row, "read committed");
            let ((of_group, of_topic, partition), (offset, _)) = (key.value(), value.value());
            if committed_row(of_group, of_topic, partition, offset) != value.value() {
                return Err(self.damaged(format_args!(
                    "topic '{of_topic}', partition {partition}: the offset of group '{of_group}' is not as it was written"
                )));
            }
            if (of_group, of_topic) == (group, topic) {
                committed.insert(partition, offset);
            }
        }
        Ok(committed)
    }

    pub(super) fn commit_offsets(&self, group: &str, topic: &str, offsets: &BTreeMap<i32, i64>) -> Result<()> {
        let known = self.committed(group, topic)?;
        if offsets.iter().all(|(partition, offset)| known.get(partition) == Some(offset)) {
            return Ok(());
        }
        let write = self.storage.begin_write()?;
        {
            let mut table = attempt!(write.open_table(COMMITTED), "open committed");
            for (partition, offset) in offsets {
                let row = committed_row(group, topic, *partition, *offset);
                attempt!(table.insert((group, topic, *partition), row), "commit offsets");
            }
        }
        attempt!(write.commit(), "commit offsets");
        Ok(())
    }

    /// The records of a stored chunk from `position` on; `None` at the end.
    pub(super) fn read(&self, topic: &str, partition: i32, position: i64) -> Result<Option<Chunk>> {
        let read = self.storage.begin_read()?;
        let end = read_end(&self.storage, &read, topic, partition)?;
        let position = position.max(end.earliest);
        if position >= end.next {
            return Ok(None);
        }
        let table = attempt!(read.open_table(CHUNKS), "open chunks");
        let first = (topic, partition, i64::MIN);
        let holder = attempt!(table.range(first..=(topic, partition, position)), "find chunk").next_back();
        if let Some(row) = holder {
            let (key, stored) = attempt!(row, "read chunk");
            let chunk = self.to_chunk(key.value(), position, stored.value())?;
            if !chunk.offsets.is_empty() {
                return Ok(Some(chunk));
            }
        }
        Err(unreadable(
            self.storage.directory(),
            format_args!("topic '{topic}', partition {partition}: the record of offset {position} is not there"),
        ))
    }

    /// The records of a stored chunk from `position` on.
    fn to_chunk(&self, key: (&str, i32, i64), position: i64, stored: &[u8]) -> Result<Chunk> {
        let place = place(key);
        let (time_ms, batch) = chunk::decode(place, stored).map_err(|why| self.damaged_chunk(place, why))?;
        to_chunk(place, position, time_ms, batch)
    }

    fn time_of(&self, key: (&str, i32, i64), stored: &[u8]) -> Result<i64> {
        let place = place(key);
        chunk::time_ms(place, stored).map_err(|why| self.damaged_chunk(place, why))
    }

    fn damaged(&self, what: impl Display) -> LogError {
        damaged(self.storage.directory(), what)
    }

    fn damaged_chunk(&self, place: Place<'_>, why: chunk::Damage) -> LogError {
        let Place { topic, partition, first_offset } = place;
        unreadable(
            self.storage.directory(),
            format_args!("topic '{topic}', partition {partition}, records from offset {first_offset} on: {why}"),
        )
    }

    pub(super) fn offset_for_time(&self, topic: &str, partition: i32, time_ms: i64) -> Result<Option<i64>> {
        let read = self.storage.begin_read()?;
        let table = attempt!(read.open_table(CHUNKS), "open chunks");
        for row in attempt!(table.range((topic, partition, i64::MIN)..=(topic, partition, i64::MAX)), "scan chunks") {
            let (key, stored) = attempt!(row, "scan chunks");
            if self.time_of(key.value(), stored.value())? >= time_ms {
                return Ok(Some(key.value().2));
            }
        }
        Ok(None)
    }

    /// Starts a new epoch of `id`, which fences every older writer. Waits for a commit of an older writer in progress,
    /// because the new owner then reads to the end and must see it. Blocks.
    pub(super) fn new_epoch(&self, id: &str) -> u64 {
        let _no_commit = lock(&self.committing);
        let mut epochs = lock(&self.epochs);
        let epoch = epochs.entry(id.to_owned()).or_insert(0);
        *epoch += 1;
        *epoch
    }

    pub(super) fn check_epoch(&self, id: &str, epoch: u64) -> Result<()> {
        match lock(&self.epochs).get(id) {
            Some(current) if *current == epoch => Ok(()),
            _ => Err(LogError::new(LogErrorKind::Fenced, format!("writer '{id}' was taken over by a newer one"))),
        }
    }

    /// Makes all appended records visible in one durable transaction, if `epoch` is still the newest of `id`.
    pub(super) fn append(&self, id: &str, epoch: u64, appended: &Appended) -> Result<()> {
        // Once a newer writer exists, no commit of an older one can follow. Nor can the newer one read an end that the
        // older one's last commit has not moved yet.
        let _committing = lock(&self.committing);
        self.check_epoch(id, epoch)?;
        let write = self.storage.begin_write()?;
        let now_ms = self.clock.now_ms();
        let mut moved = Vec::with_capacity(appended.len());
        for ((topic, partition), batch) in appended {
            let end = self.end_to_move(&write, topic, *partition)?;
            let time_ms = end.last_time_ms.max(now_ms);
            let next = store_batch(&write, topic, *partition, end.next, time_ms, batch)?;
            let end = End { next, last_time_ms: time_ms, ..end };
            write_end(&write, topic, *partition, end)?;
            moved.push((topic, *partition, end));
        }
        attempt!(write.commit(), "commit");
        for (topic, partition, end) in moved {
            self.publish_end(topic, partition, end);
        }
        self.commits.send_modify(|count| *count += 1);
        Ok(())
    }

    /// The end as committed by the transaction before `write`.
    fn end_to_move(&self, write: &WriteTransaction, topic: &str, partition: i32) -> Result<End> {
        if !lock(&self.ends).get(topic).is_some_and(|ends| ends.contains_key(&partition)) {
            return Err(unknown(&format!("{topic}/{partition}")));
        }
        let ends = attempt!(write.open_table(ENDS), "open ends");
        let row = attempt!(ends.get((topic, partition)), "read end").map(|row| row.value());
        checked_end(&self.storage, topic, partition, row)
    }

    /// Makes a committed end visible to readers. Two transactions may call this in either order: the end never moves
    /// back.
    fn publish_end(&self, topic: &str, partition: i32, end: End) {
        if let Some(known) = lock(&self.ends).get_mut(topic).and_then(|ends| ends.get_mut(&partition)) {
            known.earliest = known.earliest.max(end.earliest);
            known.next = known.next.max(end.next);
            known.last_time_ms = known.last_time_ms.max(end.last_time_ms);
        }
    }
}

fn unknown(topic: &str) -> LogError {
    LogError::new(LogErrorKind::Misconfigured, format!("topic '{topic}' does not exist in the embedded log"))
}

fn place((topic, partition, first_offset): (&str, i32, i64)) -> Place<'_> {
    Place { topic, partition, first_offset }
}

/// Stores `batch` in chunks from offset `next` on; returns the offset after it.
fn store_batch(
    write: &WriteTransaction,
    topic: &str,
    partition: i32,
    next: i64,
    time_ms: i64,
    batch: &RecordBatch,
) -> Result<i64> {
    let mut table = attempt!(write.open_table(CHUNKS), "open chunks");
    let mut next = next;
    let mut start = 0;
    while start < batch.len() {
        let mut bytes = 0;
        let mut end = start;
        while end < batch.len() && (end == start || bytes < chunk::TARGET_BYTES) {
            let record = batch.get(end);
            bytes += record.key.len() + record.value.map_or(0, <[u8]>::len) + 80;
            end += 1;
        }
        let stored = chunk::encode(place((topic, partition, next)), batch, start..end, time_ms)?;
        attempt!(table.insert((topic, partition, next), stored.as_slice()), "write chunk");
        next += i64::try_from(end - start).unwrap_or(i64::MAX);
        start = end;
    }
    Ok(next)
}

fn to_chunk(place: Place<'_>, position: i64, time_ms: i64, batch: RecordBatch) -> Result<Chunk> {
    let Place { partition, first_offset, .. } = place;
    let count = i64::try_from(batch.len()).unwrap_or(i64::MAX);
    let skip = position.saturating_sub(first_offset).clamp(0, count);
    let offsets: Vec<i64> = (first_offset + skip..first_offset + count).collect();
    let times_ms = vec![time_ms; offsets.len()];
    if skip == 0 {
        return Ok(Chunk { partition, records: batch, offsets, times_ms });
    }
    let mut records = RecordBatch::new();
    for record in batch.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)) {
        records.push_record(&record)?;
    }
    Ok(Chunk { partition, records, offsets, times_ms })
}
