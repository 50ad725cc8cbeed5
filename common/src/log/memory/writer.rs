//! Writing to the log in memory: a transaction is kept aside until it is committed.

use async_trait::async_trait;

use super::{Content, MemoryLog};
use crate::log::{LogError, LogErrorKind, LogWriter, RecordBatch, Result};

pub(super) struct MemoryWriter {
    log: MemoryLog,
    id: String,
    epoch: u64,
    /// The open transaction, by topic and partition.
    open: Option<Vec<(String, i32, RecordBatch)>>,
}

impl MemoryWriter {
    pub(super) fn new(log: MemoryLog, id: &str, epoch: u64) -> Self {
        Self { log, id: id.to_owned(), epoch, open: None }
    }

    fn check(&self, content: &Content) -> Result<()> {
        if content.writers.get(&self.id) == Some(&self.epoch) {
            return Ok(());
        }
        Err(LogError::new(LogErrorKind::Fenced, format!("a newer writer has the id {}", self.id)))
    }

    fn none_is_open(&self) -> LogError {
        LogError::new(LogErrorKind::Other, format!("the writer {} has no open transaction", self.id))
    }
}

#[async_trait]
impl LogWriter for MemoryWriter {
    async fn begin(&mut self) -> Result<()> {
        self.check(&self.log.content())?;
        if self.open.is_some() {
            return Err(LogError::new(LogErrorKind::Other, format!("the writer {} has an open transaction", self.id)));
        }
        self.open = Some(Vec::new());
        Ok(())
    }

    async fn append(&mut self, topic: &str, partition: i32, batch: &RecordBatch) -> Result<()> {
        let mut content = self.log.content();
        self.check(&content)?;
        content.partition(topic, partition)?;
        drop(content);
        let none = self.none_is_open();
        self.open.as_mut().ok_or(none)?.push((topic.to_owned(), partition, batch.clone()));
        Ok(())
    }

    async fn commit(&mut self) -> Result<()> {
        let mut content = self.log.content();
        self.check(&content)?;
        let append_ms = self.log.clock.now_ms();
        for (topic, partition, batch) in self.open.take().ok_or_else(|| self.none_is_open())? {
            content.partition(&topic, partition)?.append(&batch, append_ms)?;
        }
        drop(content);
        self.log.wake();
        Ok(())
    }

    async fn abort(&mut self) -> Result<()> {
        self.check(&self.log.content())?;
        self.open = None;
        Ok(())
    }
}
