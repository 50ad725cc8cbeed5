//! A log whose calls a test observes and can refuse.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::log::{
    Bounds, Log, LogError, LogErrorKind, LogReader, LogWriter, Membership, ReadEvent, Result, Right, TopicInfo,
    TopicSpec,
};

/// A test's reactions to a log's calls.
pub(crate) trait Watcher: Send + Sync + 'static {
    /// Before offsets are set.
    fn setting_committed(&self) -> Result<()> {
        Ok(())
    }
    /// After something was read.
    fn was_read(&self, _event: &ReadEvent) {}
    /// The first offset of a partition that cannot be read.
    fn unreadable_from(&self, _partition: i32) -> Option<i64> {
        None
    }
}

pub(crate) fn watched(inner: Arc<dyn Log>, watcher: Arc<impl Watcher>) -> Arc<dyn Log> {
    Arc::new(Watched { inner, watcher })
}

struct Watched {
    inner: Arc<dyn Log>,
    watcher: Arc<dyn Watcher>,
}

struct WatchedReader {
    inner: Box<dyn LogReader>,
    watcher: Arc<dyn Watcher>,
    /// Partitions that could not be read, and have not been started again.
    failed: BTreeSet<i32>,
    next: Option<ReadEvent>,
}

impl WatchedReader {
    /// `None` for what a failed partition would yield.
    fn spoil(&mut self, event: ReadEvent) -> Option<ReadEvent> {
        let mut chunk = match event {
            ReadEvent::EndReached(partition) if self.failed.contains(&partition) => return None,
            ReadEvent::Chunk(chunk) if self.failed.contains(&chunk.partition) => return None,
            ReadEvent::Chunk(chunk) => chunk,
            event => return Some(event),
        };
        let partition = chunk.partition;
        let from = self.watcher.unreadable_from(partition).unwrap_or(i64::MAX);
        let sound = chunk.offsets.partition_point(|offset| *offset < from);
        if sound == chunk.offsets.len() {
            return Some(ReadEvent::Chunk(chunk));
        }
        self.failed.insert(partition);
        let error = LogError::new(LogErrorKind::Corrupt, format!("the test damaged {partition} at offset {from}"));
        let failed = ReadEvent::Failed { partition, offset: from, error };
        chunk.offsets.truncate(sound);
        chunk.times_ms.truncate(sound);
        chunk.records.truncate(sound);
        if sound == 0 {
            return Some(failed);
        }
        self.next = Some(failed);
        Some(ReadEvent::Chunk(chunk))
    }
}

#[async_trait]
impl LogReader for WatchedReader {
    async fn poll(&mut self, max_wait: Duration) -> Result<ReadEvent> {
        if let Some(event) = self.next.take() {
            return Ok(event);
        }
        loop {
            let event = self.inner.poll(max_wait).await?;
            if let Some(event) = self.spoil(event) {
                self.watcher.was_read(&event);
                return Ok(event);
            }
        }
    }
    async fn start(&mut self, partition: i32, offset: i64) -> Result<()> {
        self.inner.start(partition, offset).await?;
        self.failed.remove(&partition);
        Ok(())
    }
    fn pause(&mut self, partition: i32) {
        self.inner.pause(partition);
    }
    fn resume(&mut self, partition: i32) {
        self.inner.resume(partition);
    }
    async fn commit(&mut self, offsets: &BTreeMap<i32, i64>) -> Result<()> {
        self.inner.commit(offsets).await
    }
    async fn close(self: Box<Self>) {
        self.inner.close().await;
    }
}

#[async_trait]
impl Log for Watched {
    async fn identity(&self) -> Result<String> {
        self.inner.identity().await
    }
    async fn ensure_topic(&self, spec: &TopicSpec) -> Result<TopicInfo> {
        self.inner.ensure_topic(spec).await
    }
    async fn verify_topic(&self, spec: &TopicSpec) -> Result<Option<TopicInfo>> {
        self.inner.verify_topic(spec).await
    }
    async fn missing_rights(&self, needed: &[Right]) -> Result<Vec<Right>> {
        self.inner.missing_rights(needed).await
    }
    async fn bounds(&self, topic: &str) -> Result<BTreeMap<i32, Bounds>> {
        self.inner.bounds(topic).await
    }
    async fn settled_end(&self, topic: &str, partition: i32) -> Result<i64> {
        self.inner.settled_end(topic, partition).await
    }
    async fn offset_for_time(&self, topic: &str, partition: i32, time_ms: i64) -> Result<Option<i64>> {
        self.inner.offset_for_time(topic, partition, time_ms).await
    }
    async fn committed(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>> {
        self.inner.committed(group, topic).await
    }
    async fn set_committed(&self, group: &str, topic: &str, offsets: &BTreeMap<i32, i64>) -> Result<()> {
        self.watcher.setting_committed()?;
        self.inner.set_committed(group, topic, offsets).await
    }
    async fn reader(&self, topic: &str, membership: &Membership) -> Result<Box<dyn LogReader>> {
        let inner = self.inner.reader(topic, membership).await?;
        let watcher = self.watcher.clone();
        Ok(Box::new(WatchedReader { inner, watcher, failed: BTreeSet::new(), next: None }))
    }
    async fn writer(&self, id: &str) -> Result<Box<dyn LogWriter>> {
        self.inner.writer(id).await
    }
    async fn trim(&self, topic: &str, partition: i32, below_offset: i64, before_ms: i64) -> Result<()> {
        self.inner.trim(topic, partition, below_offset, before_ms).await
    }
}
