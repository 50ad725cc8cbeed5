//! Runs the collector of the core over a store.

use commitlog::Collector;
use commitlog::actor::{Action, Answer, Misheard};

use crate::error::Result;
use crate::{Collected, CommitLog, Loaded};

/// What collection leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Entries before the checkpoint, for followers that are behind.
    pub entries: u64,
    /// Nothing goes that was put at this time or later, milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// Key runs of batches that begin here or later.
    pub keys_from: i64,
}

impl CommitLog {
    /// Puts a checkpoint of the tail, raises the floor, and deletes what is older than `keep` says. Owners, readers and
    /// other collectors may be at work.
    ///
    /// # Errors
    /// Of the store, and whatever is damaged: nothing is deleted then.
    pub async fn collect(&self, keep: Keep) -> Result<Collected> {
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
                    collected.entries = self.delete_entries(below, keep.since_ms).await?;
                    Answer::EntriesDeleted
                }
                Action::Rest => break,
                action => return Err(Misheard::unknown(&action).into()),
            };
            collector.heard(answer)?;
        }
        let objects = self.delete_checkpoints(keep.since_ms).await?;
        let key_runs = self.delete_key_runs(keep.keys_from, keep.since_ms).await?;
        let staged = match &loaded {
            Some(at) => self.delete_staged(&at.head, keep.since_ms).await?,
            None => 0,
        };
        Ok(Collected { key_runs, staged, entries: collected.entries, ..objects })
    }
}
