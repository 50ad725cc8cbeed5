//! Deleting what no reader needs any more, while others append and read.

use std::collections::BTreeSet;

use commitlog::Checkpoint;
use common::store::{DeleteOutcome, ListOptions, ObjectMeta};

use crate::error::Result;
use crate::names::number_of;
use crate::{CommitLog, CommitLogError, Damage};

/// Checkpoints that are kept whatever their age, newest first.
const KEPT_CHECKPOINTS: usize = 3;
/// Deletes of one request.
const DELETED_AT_ONCE: usize = 1_000;

/// How much was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    pub entries: usize,
    pub checkpoints: usize,
    pub segments: usize,
    pub key_runs: usize,
}

impl CommitLog {
    /// The checkpoint of the first `entries` entries.
    ///
    /// # Errors
    /// Of the store; it is missing or damaged.
    pub async fn checkpoint(&self, entries: u64) -> Result<Checkpoint> {
        let key = self.checkpoint_key(entries);
        let checkpoint = self.find_checkpoint(entries).await?;
        checkpoint.ok_or_else(|| CommitLogError::damaged(key, Damage::Missing))
    }

    /// Deletes entries below `floor` that were put before `before_ms`. The floor has to be raised before.
    ///
    /// # Errors
    /// Of the store.
    pub async fn delete_entries(&self, floor: u64, before_ms: i64) -> Result<usize> {
        let start_after = self.entry_key(floor);
        let old = self.objects(&self.entries_prefix(), Some(start_after), before_ms).await?;
        self.delete(old).await
    }

    /// Deletes checkpoints and segments that were put before `before_ms` and are no longer needed: all checkpoints but the
    /// newest three, and every segment that none of the checkpoints names which stay.
    ///
    /// # Errors
    /// Of the store, and a checkpoint that is damaged: what it names is then unknown, and nothing is deleted.
    pub async fn delete_checkpoints(&self, before_ms: i64) -> Result<Collected> {
        let prefix = self.checkpoints_prefix();
        let mut all = self.objects(&prefix, None, i64::MAX).await?;
        let newest = all.drain(..all.len().min(KEPT_CHECKPOINTS)).collect::<Vec<_>>();
        let (old, young): (Vec<_>, Vec<_>) = all.into_iter().partition(|object| object.modified_ms < before_ms);
        let mut named = BTreeSet::new();
        for object in newest.iter().chain(&young) {
            // One that is gone by now was collected by somebody else.
            if let Some(checkpoint) = self.find_checkpoint(number_of(&object.key, &prefix)?).await? {
                named.extend(checkpoint.segments.iter().map(|segment| self.segment_key(segment.sha256)));
            }
        }
        let checkpoints = self.delete(old).await?;
        let mut segments = self.objects(&self.segments_prefix(), None, before_ms).await?;
        segments.retain(|object| !named.contains(&object.key));
        Ok(Collected { checkpoints, segments: self.delete(segments).await?, ..Collected::default() })
    }

    /// Deletes key runs of batches that begin before offset `from`, if they were put before `before_ms`.
    ///
    /// # Errors
    /// Of the store, and an object among them that is none.
    pub async fn delete_key_runs(&self, from: i64, before_ms: i64) -> Result<usize> {
        let mut old = Vec::new();
        for object in self.objects(&self.keys_prefix(), None, before_ms).await? {
            if self.begin_of_key_run(&object.key)? < from {
                old.push(object);
            }
        }
        self.delete(old).await
    }

    /// Every object below a prefix and after a key that was put before `before_ms`.
    async fn objects(&self, prefix: &str, mut start_after: Option<String>, before_ms: i64) -> Result<Vec<ObjectMeta>> {
        let mut found = Vec::new();
        loop {
            let options = ListOptions { prefix: prefix.to_owned(), start_after, limit: None, delimiter: false };
            let page = self.store.list(&options).await?;
            start_after = page.objects.last().map(|object| object.key.clone());
            found.extend(page.objects.into_iter().filter(|object| object.modified_ms < before_ms));
            if !page.more || start_after.is_none() {
                return Ok(found);
            }
        }
    }

    async fn delete(&self, objects: Vec<ObjectMeta>) -> Result<usize> {
        let mut deleted = 0;
        let objects: Vec<_> = objects.into_iter().map(|object| (object.key, object.version)).collect();
        for some in objects.chunks(DELETED_AT_ONCE) {
            for outcome in self.store.delete_many(some).await {
                deleted += usize::from(outcome? == DeleteOutcome::Deleted);
            }
        }
        Ok(deleted)
    }
}
