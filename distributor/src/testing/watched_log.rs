//! A log whose calls a test observes and can refuse.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::log::{Bounds, Log, LogReader, LogWriter, Membership, ReadEvent, Result, TopicInfo, TopicSpec};

/// A test's reactions to a log's calls.
pub(crate) trait Watcher: Send + Sync + 'static {
    /// Before offsets are set.
    fn setting_committed(&self) -> Result<()> {
        Ok(())
    }
    /// After something was read.
    fn was_read(&self, _event: &ReadEvent) {}
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
}

#[async_trait]
impl LogReader for WatchedReader {
    async fn poll(&mut self, max_wait: Duration) -> Result<ReadEvent> {
        let event = self.inner.poll(max_wait).await?;
        self.watcher.was_read(&event);
        Ok(event)
    }
    async fn start(&mut self, partition: i32, offset: i64) -> Result<()> {
        self.inner.start(partition, offset).await
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
        Ok(Box::new(WatchedReader { inner, watcher: self.watcher.clone() }))
    }
    async fn writer(&self, id: &str) -> Result<Box<dyn LogWriter>> {
        self.inner.writer(id).await
    }
    async fn trim(&self, topic: &str, partition: i32, below_offset: i64, before_ms: i64) -> Result<()> {
        self.inner.trim(topic, partition, below_offset, before_ms).await
    }
}
