//! Runs the collector of the core over a store.

use commitlog::actor::{Action, Answer, Misheard};
use commitlog::{CollectKeys, Collector, Fate, Op};

use crate::error::Result;
use crate::{Append, Collected, CommitLog, Loaded};

/// What collection leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Entries before the checkpoint, for followers that are behind.
    pub entries: u64,
    /// Nothing goes that was put less than so many milliseconds ago, by the store's clock: that of a process may be wrong by
    /// days, and what rests on the age of objects would go too early.
    pub kept_ms: i64,
    /// Where the log begins: key runs stay that batches need which it still holds, or the next one.
    pub log_from: i64,
}

impl CommitLog {
    /// Puts a checkpoint of the tail, raises the floor, and deletes what is older than `keep` says. Owners, readers and
    /// other collectors may be at work. `writer`: as in [`CommitLog::append`].
    ///
    /// # Errors
    /// Of the store, and whatever is damaged: nothing is deleted then.
    pub async fn collect(&self, keep: Keep, writer: &str) -> Result<Collected> {
        let mut collector = Collector::new(keep.entries);
        let mut collected = Collected::default();
        let mut loaded: Option<Loaded> = None;
        loop {
            let answer = match collector.next() {
                Action::Load => {
                    let at = self.load().await?;
                    let head = at.head.clone();
                    loaded = Some(at);
                    Answer::Loaded(Box::new(head))
                }
                Action::Checkpoint { .. } => {
                    let counts = match &loaded {
                        Some(at) => self.put_checkpoint(at).await?,
                        None => false,
                    };
                    if counts { Answer::CheckpointRead } else { Answer::Behind }
                }
                Action::ReadFloor => Answer::Floor(self.floor().await?),
                Action::RaiseFloor(floor) => {
                    self.raise_floor(floor).await?;
                    Answer::FloorRaised
                }
                Action::DeleteEntries { below } => {
                    collected.entries = self.delete_entries(below, self.before_ms(keep).await?).await?;
                    Answer::EntriesDeleted
                }
                Action::Rest => break,
                action => return Err(Misheard::unknown(&action).into()),
            };
            collector.heard(answer)?;
        }
        let before_ms = self.before_ms(keep).await?;
        let objects = self.delete_checkpoints(before_ms).await?;
        let Some(at) = loaded else { return Ok(objects) };
        let key_runs = self.collect_key_runs(&at, keep, before_ms, writer).await?;
        Ok(Collected { key_runs, entries: collected.entries, ..objects })
    }

    /// What was put before may go. The store's time is at least that of the root, which every collection has put that
    /// deletes anything.
    async fn before_ms(&self, keep: Keep) -> Result<i64> {
        let root = self.store.head(&self.root_key()).await?;
        Ok(root.map_or(i64::MIN, |root| root.modified_ms.saturating_sub(keep.kept_ms)))
    }

    /// Deletes old key runs, once an entry says so: a batch whose window reaches back to them comes before that entry, and
    /// then they are needed, or it never comes.
    async fn collect_key_runs(&self, at: &Loaded, keep: Keep, before_ms: i64, writer: &str) -> Result<usize> {
        let from = at.head.keys_from.max(self.keys_needed_from(at, keep.log_from).await?);
        let old = self.old_key_runs(from, before_ms).await?;
        let ops = [Op::CollectKeys(CollectKeys { from })];
        if from > at.head.keys_from && !old.is_empty() {
            if at.head.allows(&ops).is_err() {
                return Ok(0);
            }
            let n = at.tail.next;
            let Append::Appended { .. } = self.append(at.tail, writer, &ops).await? else { return Ok(0) };
            // It filled a hole that another collector left.
            if n < self.floor().await? {
                return Ok(0);
            }
        }
        self.delete(old).await
    }

    /// Where the oldest batch begins whose keys a batch needs that the log still holds, or the next one. All of these are
    /// looked at, for one with a longer window reaches further back than those before it.
    async fn keys_needed_from(&self, at: &Loaded, log_from: i64) -> Result<i64> {
        let mut oldest: Option<i64> = None;
        let mut newer_from = at.recent.end().unwrap_or(i64::MIN);
        loop {
            let spans = self.spans_before(&at.recent, newer_from).await?;
            for (from, span) in spans.iter().rev() {
                newer_from = *from;
                if let Fate::Batch(batch) = &span.fate {
                    oldest = Some(oldest.map_or(batch.window_from, |oldest| oldest.min(batch.window_from)));
                    // Of the last batch at least, for the next one begins with its window.
                    if span.to <= log_from {
                        return Ok(oldest.unwrap_or(i64::MIN));
                    }
                }
            }
            if spans.is_empty() {
                return Ok(oldest.unwrap_or(i64::MIN));
            }
        }
    }
}
