//! A log in memory, for tests and simulations. It keeps every guarantee of the seam, as the conformance suite shows.

mod groups;
mod partition;
mod reader;
mod writer;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;

use super::{
    Bounds, Log, LogError, LogErrorKind, LogReader, LogWriter, Membership, Result, Retention, TopicInfo, TopicSpec,
};
use crate::clock::{Clock, SystemClock};
use groups::Groups;
use partition::Partition;
pub use partition::StoredRecord;
pub use reader::MemoryReader;
use writer::MemoryWriter;

#[derive(Debug)]
struct Topic {
    retention: Retention,
    partitions: BTreeMap<i32, Partition>,
}

#[derive(Debug, Default)]
struct Content {
    topics: BTreeMap<String, Topic>,
    groups: Groups,
    /// The newest writer of each id.
    writers: BTreeMap<String, u64>,
}

impl Content {
    fn partition(&mut self, topic: &str, partition: i32) -> Result<&mut Partition> {
        let of = self.topics.get_mut(topic).and_then(|topic| topic.partitions.get_mut(&partition));
        of.ok_or_else(|| {
            LogError::new(LogErrorKind::Misconfigured, format!("there is no partition {topic}/{partition}"))
        })
    }

    /// An empty map if there is no such topic.
    fn bounds(&self, topic: &str) -> BTreeMap<i32, Bounds> {
        let partitions = self.topics.get(topic).into_iter().flat_map(|topic| &topic.partitions);
        partitions.map(|(id, partition)| (*id, partition.bounds())).collect()
    }

    fn verify(&self, spec: &TopicSpec) -> Result<Option<TopicInfo>> {
        let Some(topic) = self.topics.get(&spec.name) else { return Ok(None) };
        if topic.retention != spec.retention {
            let message =
                format!("the topic {} has the retention {:?}, not {:?}", spec.name, topic.retention, spec.retention);
            return Err(LogError::new(LogErrorKind::Misconfigured, message));
        }
        Ok(Some(TopicInfo { partitions: u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX) }))
    }
}

/// Records in memory. Clones share them. What is trimmed can no longer be read, and stays for [`MemoryLog::history`].
#[derive(Clone)]
pub struct MemoryLog {
    content: Arc<Mutex<Content>>,
    /// Records, members or assignments are new.
    changed: Arc<Notify>,
    clock: Arc<dyn Clock>,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock))
    }
}

impl MemoryLog {
    /// The clock gives records their append times.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { content: Arc::default(), changed: Arc::default(), clock }
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates the topic, or does nothing if it exists.
    pub fn create(&self, topic: &str, partitions: u32, retention: Retention) {
        let ids = 0..i32::try_from(partitions).unwrap_or(i32::MAX);
        let create = || Topic { retention, partitions: ids.map(|id| (id, Partition::default())).collect() };
        self.content().topics.entry(topic.to_owned()).or_insert_with(create);
    }

    /// Appends a record whose append time the caller sets, behind `hole` offsets without a record, as markers of
    /// transactions and aborted records leave. Returns its offset.
    ///
    /// # Errors
    /// There is no such partition, or the record is too large.
    pub fn insert(&self, topic: &str, partition: i32, hole: i64, append_ms: i64, value: &[u8]) -> Result<i64> {
        let offset = self.content().partition(topic, partition)?.insert(hole, append_ms, value)?;
        self.wake();
        Ok(offset)
    }

    /// Ends the partition with offsets that have no record.
    ///
    /// # Errors
    /// There is no such partition.
    pub fn insert_hole(&self, topic: &str, partition: i32, hole: i64) -> Result<()> {
        self.content().partition(topic, partition)?.latest += hole;
        Ok(())
    }

    /// Lets go of what is below `offset`, whatever its age.
    ///
    /// # Errors
    /// There is no such partition.
    pub fn trim_to(&self, topic: &str, partition: i32, offset: i64) -> Result<()> {
        self.content().partition(topic, partition)?.earliest = offset;
        Ok(())
    }

    /// From now on the record at `offset` fails the checks of whoever reads it.
    ///
    /// # Errors
    /// There is no such partition.
    pub fn damage(&self, topic: &str, partition: i32, offset: i64) -> Result<()> {
        self.content().partition(topic, partition)?.unreadable.insert(offset);
        Ok(())
    }

    /// All records that there ever were, trimmed ones too.
    ///
    /// # Errors
    /// There is no such partition.
    pub fn history(&self, topic: &str, partition: i32) -> Result<Vec<StoredRecord>> {
        Ok(self.content().partition(topic, partition)?.records.clone())
    }

    /// As [`Log::bounds`].
    pub fn bounds_now(&self, topic: &str) -> BTreeMap<i32, Bounds> {
        self.content().bounds(topic)
    }

    /// As [`Log::committed`].
    pub fn committed_now(&self, group: &str, topic: &str) -> BTreeMap<i32, i64> {
        self.content().groups.committed(group, topic)
    }

    /// As [`LogReader::commit`], which asks nobody who owns what.
    pub fn commit_now(&self, group: &str, topic: &str, offsets: &BTreeMap<i32, i64>) {
        self.content().groups.commit(group, topic, offsets);
    }

    /// A reader of a group whose assignments the caller makes: `owned` tells what the reader owns, and a number that is
    /// another one for each new assignment. Call [`MemoryLog::wake`] when that changes.
    pub fn reader_of(
        &self,
        topic: &str,
        group: &str,
        owned: impl Fn() -> BTreeMap<i32, u64> + Send + 'static,
    ) -> MemoryReader {
        MemoryReader::given(self.clone(), topic, group, Box::new(owned))
    }

    /// A reader without a group.
    pub fn reader_direct(&self, topic: &str, partitions: &[i32]) -> MemoryReader {
        MemoryReader::direct(self.clone(), topic, partitions)
    }

    /// Lets readers that wait look again.
    pub fn wake(&self) {
        self.changed.notify_waiters();
    }
}

#[async_trait]
impl Log for MemoryLog {
    async fn identity(&self) -> Result<String> {
        Ok("memory".to_owned())
    }

    async fn ensure_topic(&self, spec: &TopicSpec) -> Result<TopicInfo> {
        self.create(&spec.name, spec.partitions, spec.retention);
        let verified = self.content().verify(spec)?;
        verified.ok_or_else(|| LogError::new(LogErrorKind::Other, format!("the topic {} is gone", spec.name)))
    }

    async fn verify_topic(&self, spec: &TopicSpec) -> Result<Option<TopicInfo>> {
        self.content().verify(spec)
    }

    async fn bounds(&self, topic: &str) -> Result<BTreeMap<i32, Bounds>> {
        Ok(self.bounds_now(topic))
    }

    /// Open transactions are not in the log yet.
    async fn settled_end(&self, topic: &str, partition: i32) -> Result<i64> {
        Ok(self.content().partition(topic, partition)?.latest)
    }

    async fn offset_for_time(&self, topic: &str, partition: i32, time_ms: i64) -> Result<Option<i64>> {
        Ok(self.content().partition(topic, partition)?.offset_for_time(time_ms))
    }

    async fn committed(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>> {
        Ok(self.committed_now(group, topic))
    }

    async fn set_committed(&self, group: &str, topic: &str, offsets: &BTreeMap<i32, i64>) -> Result<()> {
        let mut content = self.content();
        if content.groups.has_members(group) {
            return Err(LogError::new(LogErrorKind::NotAssigned, format!("the group {group} has members")));
        }
        content.groups.commit(group, topic, offsets);
        Ok(())
    }

    async fn reader(&self, topic: &str, membership: &Membership) -> Result<Box<dyn LogReader>> {
        Ok(Box::new(match membership {
            Membership::Direct { partitions } => self.reader_direct(topic, partitions),
            Membership::Group { group, .. } => MemoryReader::member(self.clone(), topic, group),
        }))
    }

    async fn writer(&self, id: &str) -> Result<Box<dyn LogWriter>> {
        let mut content = self.content();
        let epoch = content.writers.entry(id.to_owned()).or_default();
        *epoch += 1;
        Ok(Box::new(MemoryWriter::new(self.clone(), id, *epoch)))
    }

    async fn trim(&self, topic: &str, partition: i32, below_offset: i64, before_ms: i64) -> Result<()> {
        self.content().partition(topic, partition)?.trim(below_offset, before_ms);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::conformance;

    #[tokio::test]
    async fn it_keeps_every_guarantee_of_the_seam() {
        let log = MemoryLog::default();
        conformance::run_all(Arc::new(log.clone()), "suite").await;
        conformance::a_partition_that_was_revoked_while_paused_comes_back_without_the_pause(&log, "revoked").await;
        let unreadable = conformance::write_before(&log, "damaged").await;
        log.insert("damaged", 0, 0, 0, b"unreadable").unwrap();
        log.damage("damaged", 0, unreadable).unwrap();
        let place = conformance::write_after(&log, "damaged", unreadable).await;
        conformance::unreadable_records_stop_only_their_partition(&log, "damaged", place).await;
    }

    #[tokio::test]
    async fn holes_and_trimmed_offsets_are_as_those_of_a_kafka_topic() {
        let log = MemoryLog::default();
        log.create("t", 1, Retention::Delete);
        assert_eq!(log.insert("t", 0, 3, 10, b"a").unwrap(), 3);
        assert_eq!(log.insert("t", 0, 2, 20, b"b").unwrap(), 6);
        log.insert_hole("t", 0, 1).unwrap();
        assert_eq!(log.bounds_now("t")[&0], Bounds { earliest: 0, latest: 8 });
        assert_eq!(log.offset_for_time("t", 0, 11).await.unwrap(), Some(6));
        log.trim("t", 0, 8, 20).await.unwrap();
        assert_eq!(log.bounds_now("t")[&0].earliest, 6, "what is younger stays");
        log.trim("t", 0, 8, 21).await.unwrap();
        assert_eq!(log.bounds_now("t")[&0], Bounds { earliest: 8, latest: 8 });
        assert_eq!(log.history("t", 0).unwrap().len(), 2);
        let mut reader = log.reader("t", &Membership::Direct { partitions: vec![0] }).await.unwrap();
        let _ = reader.poll(std::time::Duration::ZERO).await.unwrap();
        for outside in [5, 9] {
            let refused = reader.start(0, outside).await.unwrap_err();
            assert_eq!(refused.kind, LogErrorKind::OffsetOutOfRange, "{refused}");
        }
        reader.start(0, 8).await.unwrap();
    }
}
