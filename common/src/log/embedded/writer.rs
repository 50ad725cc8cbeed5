//! Writing the embedded log: a transaction is collected in memory and becomes one durable redb transaction.

use std::sync::Arc;

use async_trait::async_trait;

use super::blocking;
use super::db::{Appended, Db};
use crate::log::{LogError, LogErrorKind, LogWriter, RecordBatch, Result};

pub(super) struct EmbeddedWriter {
    db: Arc<Db>,
    id: String,
    epoch: u64,
    open: Option<Appended>,
}

impl EmbeddedWriter {
    /// Fences older writers of `id`.
    pub(super) async fn own(db: Arc<Db>, id: &str) -> Result<Self> {
        let id = id.to_owned();
        let (epoch, id) = blocking(&db, move |db| Ok((db.new_epoch(&id), id))).await?;
        Ok(Self { db, id, epoch, open: None })
    }
}

fn no_transaction() -> LogError {
    LogError::new(LogErrorKind::Other, "no transaction is open")
}

#[async_trait]
impl LogWriter for EmbeddedWriter {
    async fn begin(&mut self) -> Result<()> {
        self.db.check_epoch(&self.id, self.epoch)?;
        self.open = Some(Appended::new());
        Ok(())
    }

    async fn append(&mut self, topic: &str, partition: i32, batch: &RecordBatch) -> Result<()> {
        let open = self.open.as_mut().ok_or_else(no_transaction)?;
        let gathered = open.entry((topic.to_owned(), partition)).or_default();
        batch.iter().try_for_each(|record| gathered.push_record(&record))
    }

    async fn commit(&mut self) -> Result<()> {
        let appended = self.open.take().ok_or_else(no_transaction)?;
        let (id, epoch) = (self.id.clone(), self.epoch);
        blocking(&self.db, move |db| db.append(&id, epoch, &appended)).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.open = None;
        Ok(())
    }
}
