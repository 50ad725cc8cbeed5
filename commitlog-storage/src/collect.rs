//! Deleting what no reader needs any more, while others append and read.

use std::collections::BTreeSet;

use commitlog::Head;
use common::store::{DeleteOutcome, ListOptions, ObjectMeta};

use crate::CommitLog;
use crate::error::Result;
use crate::names::number_of;

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
    /// Deletes entries below `floor` that were put before `before_ms`. The floor has to be raised before.
    ///
    /// # Errors
    /// Of the store.
    pub async fn delete_entries(&self, floor: u64, before_ms: i64) -> Result<usize> {
        let start_after = self.entry_key(self.first_to_keep(floor, before_ms).await?);
        let old = self.objects(&self.entries_prefix(), Some(start_after), before_ms).await?;
        self.delete(old).await
    }

    /// The entry below `floor` that was put at `before_ms` or later, with the lowest number. Listings begin with the
    /// newest entry: young ones are many.
    async fn first_to_keep(&self, floor: u64, before_ms: i64) -> Result<u64> {
        let (mut low, mut high) = (0, floor);
        while low < high {
            let middle = low + (high - low) / 2;
            let meta = self.store.head(&self.entry_key(middle)).await?;
            if meta.is_some_and(|meta| meta.modified_ms >= before_ms) { high = middle } else { low = middle + 1 }
        }
        Ok(low)
    }

    /// Deletes checkpoints and segments that were put before `before_ms` and are no longer needed: those that are not newer
    /// than the newest checkpoint that counts, and that no checkpoint that counts is or names.
    ///
    /// # Errors
    /// Of the store, and a checkpoint that is damaged: what it names is then unknown, and nothing is deleted.
    pub async fn delete_checkpoints(&self, before_ms: i64) -> Result<Collected> {
        let root = self.root().await?;
        let Some(newest) = root.newest() else { return Ok(Collected::default()) };
        let mut named = BTreeSet::new();
        for counts in root.checkpoints {
            named.insert(self.checkpoint_key(counts.entries, counts.sha256));
            match self.find_checkpoint(counts).await? {
                Some(checkpoint) => named.extend(checkpoint.segments.iter().map(|named| self.segment_key(named))),
                // Others have put newer ones since, and collected. What those name is unknown here.
                None if counts == newest => return Ok(Collected::default()),
                None => {}
            }
        }
        let mut deleted = [0, 0];
        for (prefix, deleted) in [self.checkpoints_prefix(), self.segments_prefix()].iter().zip(&mut deleted) {
            let mut garbage = Vec::new();
            for object in self.objects(prefix, None, before_ms).await? {
                if !named.contains(&object.key) && number_of(&object.key, prefix)? <= newest.entries {
                    garbage.push(object);
                }
            }
            *deleted = self.delete(garbage).await?;
        }
        let [checkpoints, segments] = deleted;
        Ok(Collected { checkpoints, segments, ..Collected::default() })
    }

    /// Key runs of batches that begin before offset `from`, if they were put before `before_ms`.
    ///
    /// # Errors
    /// Of the store, and an object among them that is none.
    pub(crate) async fn old_key_runs(&self, from: i64, before_ms: i64) -> Result<Vec<ObjectMeta>> {
        let mut old = Vec::new();
        for object in self.objects(&self.keys_prefix(), Some(self.key_runs_from(from)), before_ms).await? {
            if self.begin_of_key_run(&object.key)? < from {
                old.push(object);
            }
        }
        Ok(old)
    }

    /// Deletes what was staged before `before_ms` for replaces that have ended: their numbers are spent, so nobody publishes
    /// it. No table may name it any more: a collection leaves it alone, for it does not know tables.
    ///
    /// # Errors
    /// Of the store, and an object among them whose name has no number.
    pub async fn delete_staged(&self, head: &Head, before_ms: i64) -> Result<usize> {
        let spent = self.spent(head, before_ms).await?;
        self.delete(spent).await
    }

    /// Deletes what is staged of a replace.
    ///
    /// # Errors
    /// As [`CommitLog::delete_staged`].
    pub async fn delete_staged_of(&self, replace: u64) -> Result<usize> {
        let mut its = Vec::new();
        for root in self.staged_roots() {
            for object in self.objects(&root, None, i64::MAX).await? {
                if self.replace_of_staged(&object.key)? == replace {
                    its.push(object);
                }
            }
        }
        self.delete(its).await
    }

    /// Whether anything is staged for replaces that have ended.
    ///
    /// # Errors
    /// As [`CommitLog::delete_staged`].
    pub async fn has_spent(&self, head: &Head) -> Result<bool> {
        Ok(!self.spent(head, i64::MAX).await?.is_empty())
    }

    async fn spent(&self, head: &Head, before_ms: i64) -> Result<Vec<ObjectMeta>> {
        let mut garbage = Vec::new();
        for root in self.staged_roots() {
            for object in self.objects(&root, None, before_ms).await? {
                let number = self.replace_of_staged(&object.key)?;
                if number < head.next_replace && !head.replaces().any(|open| open.intent.replace == number) {
                    garbage.push(object);
                }
            }
        }
        Ok(garbage)
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

    pub(crate) async fn delete(&self, objects: Vec<ObjectMeta>) -> Result<usize> {
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
