//! Closes a batch whose head the log has lost before it was complete: nothing of it stays visible, and reading resumes at
//! what the log still holds.
//!
//! The core decides ([`commitlog::Abandoner`]). What stands under the names of the batch is kept below
//! `_commits/<topic>/<partition>/abandoned/<from>/`, then files without rows take the names: a late put of anybody finds
//! them taken.

use std::sync::Arc;

use async_trait::async_trait;
use commitlog::decide::Facts;
use commitlog::{BatchSlot, FileId, Intent};
use commitlog_storage::abandoning::{Abandoning, Ended, Names};
use commitlog_storage::{CommitLog, Session};
use common::log::{Bounds, Log, LogError, LogErrorKind};
use common::store::{Metadata, PutCondition, Store};
use serde::Serialize;

use crate::batch::{Batch, Place, STANDS_IN, Series, StandIns, path};
use crate::error::PartitionError;
use crate::footer::{Footer, FooterError};
use crate::host::Host;
use crate::layout::Layout;
use crate::refusals;
use crate::scratch::Scratch;

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct AbandonError(PartitionError);

/// Everything needed to abandon batches.
pub struct BatchAbandoner {
    pub store: Arc<dyn Store>,
    pub log: Arc<dyn Log>,
    pub host: Host,
    pub topic: String,
    pub group: String,
    pub scratch: Scratch,
}

/// What abandoning a batch loses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AbandonPlan {
    pub partition: i32,
    /// The offsets of the batch.
    pub from: i64,
    pub to: i64,
    /// Offsets before it are lost, except those that other batches hold.
    pub resume_at: i64,
    /// Files of the batch that stand in the tables, in part of its folders: they disappear.
    pub visible_files: Vec<String>,
}

impl BatchAbandoner {
    /// What [`BatchAbandoner::abandon`] would do. None: no batch under way has lost its head. Changes nothing.
    ///
    /// # Errors
    /// Of store and log.
    pub async fn plan(&self, partition: i32) -> Result<Option<AbandonPlan>, AbandonError> {
        self.look(partition).await.map_err(AbandonError)
    }

    async fn look(&self, partition: i32) -> Result<Option<AbandonPlan>, PartitionError> {
        let loaded = CommitLog::new(self.store.clone(), &self.topic, partition).load().await?;
        let earliest = self.bounds(partition).await?.earliest;
        let (intent, resume_at) = match loaded.head.batch {
            BatchSlot::Open(intent) if earliest > intent.from => {
                let resume_at = earliest.min(intent.to);
                (intent, resume_at)
            }
            BatchSlot::Abandoning { intent, resume_at, .. } => (intent, resume_at),
            BatchSlot::Open(_) | BatchSlot::Free => return Ok(None),
        };
        let mut visible_files = Vec::new();
        for (k, folder) in (0_u32..).zip(&intent.folders) {
            let key = path(&self.topic, partition, folder, FileId::Batch { from: intent.from, k });
            if let Some(meta) = self.store.head(&key).await?
                && !is_blank(&*self.store, &key, meta.size_bytes).await?
            {
                visible_files.push(key);
            }
        }
        Ok(Some(AbandonPlan { partition, from: intent.from, to: intent.to, resume_at, visible_files }))
    }

    /// Closes the batch. May be interrupted at any point: the next run goes on.
    ///
    /// # Errors
    /// No batch under way has lost its head; or of store and log.
    pub async fn abandon(&self, partition: i32) -> Result<AbandonPlan, AbandonError> {
        self.close(partition).await.map_err(AbandonError)
    }

    async fn close(&self, partition: i32) -> Result<AbandonPlan, PartitionError> {
        let plan = self.look(partition).await?;
        let commits = CommitLog::new(self.store.clone(), &self.topic, partition);
        let session = Session::new(commits, self.host.boot_clock.clone(), self.host.writer());
        match Abandoning::new(session, Blanks { of: self, partition }).run().await? {
            Ended::Abandoned { from, resume_at } => {
                tracing::warn!(topic = self.topic, partition, from, resume_at, "the batch is abandoned");
                let (to, visible_files) = plan.map_or((resume_at, Vec::new()), |plan| (plan.to, plan.visible_files));
                Ok(AbandonPlan { partition, from, to, resume_at, visible_files })
            }
            Ended::Refused(refusal) => Err(refusals::refused(&self.topic, &self.group, partition, &refusal)),
        }
    }

    async fn bounds(&self, partition: i32) -> Result<Bounds, PartitionError> {
        let bounds = self.log.bounds(&self.topic).await?.get(&partition).copied();
        let missing = || LogError::new(LogErrorKind::NotAssigned, format!("{}/{partition} does not exist", self.topic));
        Ok(bounds.ok_or_else(missing)?)
    }
}

struct Blanks<'a> {
    of: &'a BatchAbandoner,
    partition: i32,
}

#[async_trait]
impl Names for Blanks<'_> {
    type Error = PartitionError;

    async fn facts(&mut self) -> Result<Facts, PartitionError> {
        let BatchAbandoner { log, topic, group, .. } = self.of;
        let committed = log.committed(group, topic).await?.get(&self.partition).copied();
        let Bounds { earliest, latest } = self.of.bounds(self.partition).await?;
        Ok(Facts { log_id: log.identity().await?, earliest, latest, committed })
    }

    async fn blank(&mut self, intent: &Intent, k: u32) -> Result<(), PartitionError> {
        let (store, topic, partition) = (&*self.of.store, &self.of.topic, self.partition);
        let cannot = |message: String| {
            let Intent { from, to, .. } = intent;
            refusals::text(
                topic,
                partition,
                &format!("the batch {from}..{to} cannot be abandoned by this build: {message}"),
            )
        };
        let layout: Layout =
            serde_json::from_value(intent.recipe.layout.clone()).map_err(|error| cannot(error.to_string()))?;
        let encoding =
            serde_json::from_value(intent.recipe.encoding.clone()).map_err(|error| cannot(error.to_string()))?;
        let Some(folder) = usize::try_from(k).ok().and_then(|k| intent.folders.get(k)) else {
            return Err(PartitionError::Internal(format!("the batch has no file {k}")));
        };
        let Intent { from, to, .. } = *intent;
        let place = Place { topic, partition, from, to, series: Series::Batch, layout: &layout };
        let key = place.path(folder, k);
        if let Some(meta) = store.head(&key).await? {
            if is_blank(store, &key, meta.size_bytes).await? {
                return Ok(());
            }
            let name = key.rsplit('/').next().unwrap_or_default();
            let kept = format!("_commits/{topic}/{partition}/abandoned/{from}/{name}");
            store.copy(&key, &meta.version, &kept).await?;
            tracing::warn!(topic, partition, from, key, kept, "this file disappears from the tables; a copy is kept");
        }
        let batch = Batch::new(topic, partition, from, intent.clock_ms, &layout, encoding, &self.of.scratch);
        let stand_ins: StandIns = batch.map_err(cannot)?.stand_ins();
        let blank = stand_ins.of(place, folder, k)?;
        store.put(&key, blank.body.bytes()?, PutCondition::None, &Metadata::new()).await?;
        Ok(())
    }
}

/// Whether the file has a name so that no other one gets it.
async fn is_blank(store: &dyn Store, key: &str, size_bytes: u64) -> Result<bool, PartitionError> {
    match Footer::read(store, key, size_bytes).await {
        Ok(footer) => Ok(footer.rows() == 0 && footer.fact(STANDS_IN).is_some()),
        Err(FooterError::Gone | FooterError::Unreadable(_)) => Ok(false),
        Err(FooterError::Store(error)) => Err(error.into()),
    }
}
