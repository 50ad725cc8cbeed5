//! A chain that was lost, in whole or in part, made again from the files' footers and the log.
//!
//! Only objects that are missing are put, each only if nothing stands there; what is there is trusted, and nothing is
//! ever changed or removed. Nothing is put before every partition has been gone through without a refusal.
//!
//! - Which batches there were is said by cuts, completions and footers. They have to tile the offsets. What lies between
//!   two of them becomes a batch without files if the log shows nothing but duplicates there; otherwise it is refused,
//!   or, if an operator says so, passed over.
//! - A batch that the log still holds is made again by the code that made it, and its files have to be those that
//!   stand there. Of an older one the cut and the completion come from [`crate::batch::Stated`] in its footers, and the
//!   key run from its rows, in which dropped duplicates do not stand.
//! - The newest batch is left open if some of its files are missing and it had no completion: a distributor completes it.
//! - Of a batch that was made again by a rewrite (`revised`), the files of the newest revision count. If the document of
//!   that revision is missing, it is put again with the files, counts, layout and encoding that footers and log tell, and
//!   with whichever key run fits. If what was before the revision is missing, what stands in for it says so little that
//!   nobody can take a replaced file for its own. While a rewrite is not finished, only that can tell what stands: refused.
//! - `rebuild.json` says that a partition's chain is being made again, from before the first object until after the last.
//!   Key runs come first, revisions next, then completions, then cuts from the newest on, and the origin last. Wherever
//!   that is broken off, a distributor refuses to go on, and the next try puts the rest.

mod batches;
mod footing;
mod gaps;
mod known;
mod partition;
mod revised;
mod runs;
mod windows;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use common::log::{Log, LogError};
use common::store::Store;
use serde::Serialize;

use super::AuditError;
use super::present::{Names, chains};
use crate::batch::Encoding;
use crate::chain::{ChainError, ChainStore};
use crate::scratch::Scratch;
use partition::Pass;

/// Everything a rebuild works with.
pub struct ChainRebuilder {
    pub store: Arc<dyn Store>,
    pub log: Arc<dyn Log>,
    pub topic: String,
    pub group: String,
    pub encoding: Encoding,
    /// Memory of deduplication windows, bytes, and where they go when it does not suffice.
    pub window_memory: u64,
    /// Memory of a batch that is made again, bytes. What exceeds it goes to `scratch`.
    pub batch_memory: u64,
    pub scratch: Scratch,
    /// Offsets that nobody can account for are passed over, as cuts that say so.
    pub accept_gaps: bool,
    /// Called after each batch that was gone through, with how many there were so far.
    pub on_batch: Box<dyn Fn(u64) + Send + Sync>,
}

/// What was missing, or is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ChainRebuild {
    pub partitions: Vec<PartitionRebuild>,
}

impl ChainRebuild {
    /// Why nothing can be put, if so.
    pub fn refusals(&self) -> impl Iterator<Item = &str> {
        self.partitions.iter().filter_map(|partition| partition.refused.as_deref())
    }
}

/// Of one log partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PartitionRebuild {
    pub partition: i32,
    /// Offsets that the whole chain covers.
    pub from: i64,
    pub to: i64,
    pub batches: u64,
    /// Objects that are missing.
    pub origins: u64,
    pub cuts: u64,
    pub completions: u64,
    pub key_runs: u64,
    /// Documents of batches that were made again by a rewrite.
    pub revisions: u64,
    /// Of the key runs those made from rows, without the times of dropped duplicates.
    pub key_runs_from_rows: u64,
    /// Batches made again from the log and found to be those that stand there.
    pub recounted_batches: u64,
    /// Offsets of gaps that were accepted.
    pub gap_offsets: u64,
    /// Nothing is put while any partition has this.
    pub refused: Option<String>,
}

impl PartitionRebuild {
    /// Whether anything is missing.
    pub fn is_due(&self) -> bool {
        self.origins + self.cuts + self.completions + self.key_runs + self.revisions > 0
    }
}

/// Why a partition is not gone through to its end.
enum Stop {
    Refused(String),
    Failed(AuditError),
}

impl<E: Into<AuditError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl From<ChainError> for Stop {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::Store(error) => Self::Failed(error.into()),
            damaged @ ChainError::Damaged { .. } => {
                Self::Refused(format!("{damaged}; move it away, and it is made again"))
            }
            unwritable @ ChainError::Unwritable { .. } => Self::Refused(unwritable.to_string()),
        }
    }
}

fn refused<T>(message: impl fmt::Display) -> Result<T, Stop> {
    Err(Stop::Refused(message.to_string()))
}

impl ChainRebuilder {
    /// Says what is missing; puts it unless this is a `dry_run` or a partition is refused.
    ///
    /// # Errors
    /// The store's, the log's and the encoder's; [`LogError`] of kind `NotAssigned` if the group has members; a document
    /// that somebody else put meanwhile.
    pub async fn rebuild(&self, dry_run: bool) -> Result<ChainRebuild, AuditError> {
        let names = Names::list(&*self.store, &self.topic).await?;
        let planned = self.go_through(&names, false).await?;
        if dry_run || planned.refusals().next().is_some() {
            return Ok(planned);
        }
        self.keep_others_out(&planned).await?;
        let (mut due, mut begun) = (Vec::new(), Vec::new());
        for partition in &planned.partitions {
            let chain = ChainStore::new(self.store.clone(), &self.topic, partition.partition);
            let was_broken_off = chain.is_being_rebuilt().await?;
            if partition.is_due() && !was_broken_off {
                chain.begin_rebuilding().await?;
                begun.push(chain.clone());
            }
            if partition.is_due() || was_broken_off {
                due.push((partition.partition, chain));
            }
        }
        // Whoever became a member before it could see that: one of us sees the other.
        if let Err(error) = self.keep_others_out(&planned).await {
            for chain in begun {
                chain.end_rebuilding().await?;
            }
            return Err(error.into());
        }
        let rebuild = self.go_through(&names, true).await?;
        let refused: BTreeSet<i32> =
            rebuild.partitions.iter().filter(|done| done.refused.is_some()).map(|done| done.partition).collect();
        for (_, chain) in due.into_iter().filter(|(id, _)| !refused.contains(id)) {
            chain.end_rebuilding().await?;
        }
        Ok(rebuild)
    }

    /// Fails while the group has members. A group without offsets gets them, so that whoever starts before the origin is
    /// put is refused rather than begin afresh.
    async fn keep_others_out(&self, planned: &ChainRebuild) -> Result<(), LogError> {
        let mut offsets = self.log.committed(&self.group, &self.topic).await?;
        for partition in &planned.partitions {
            offsets.entry(partition.partition).or_insert(partition.to);
        }
        if offsets.is_empty() {
            return Ok(());
        }
        self.log.set_committed(&self.group, &self.topic, &offsets).await
    }

    async fn go_through(&self, names: &Names, put: bool) -> Result<ChainRebuild, AuditError> {
        let log_id = self.log.identity().await?;
        let bounds = self.log.bounds(&self.topic).await?;
        let committed = self.log.committed(&self.group, &self.topic).await?;
        let chains: BTreeSet<i32> = chains(&*self.store, &self.topic).await?.into_iter().collect();
        let mut rebuild = ChainRebuild::default();
        let mut batches = 0;
        for id in chains.into_iter().chain(names.partitions()).collect::<BTreeSet<_>>() {
            let mut pass = Pass::new(self, id, &log_id, put);
            let done = match bounds.get(&id) {
                Some(bounds) => pass.run(names, *bounds, committed.get(&id).copied(), &mut batches).await,
                None => refused("the topic has no such partition: is this the log that the files were written from?"),
            };
            let mut report = pass.close().await;
            match done {
                Ok(()) => {}
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::Refused(message)) => report.refused = Some(format!("{}/{id}: {message}", self.topic)),
            }
            rebuild.partitions.push(report);
        }
        Ok(rebuild)
    }
}

#[cfg(test)]
mod tests;
