//! What a rewrite comes to, before anything is changed.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use commitlog::{ReplaceSlot, State};
use commitlog_storage::CommitLog;
use common::log::Bounds;
use serde::Serialize;

use super::Rewriter;
use super::groups::groups;
use super::judge::{Fate, Judge};
use crate::error::PartitionError;
use crate::target::{Found, ReplayError, ReplayTarget, find};

/// What a rewrite of one partition comes to, or came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PartitionRewrite {
    pub partition: i32,
    /// Offsets that were looked at: from where a batch begins to the end of the last committed one.
    pub from: i64,
    pub to: i64,
    pub batches: u64,
    /// Batches to be made again, or that were.
    pub rewritten: u64,
    /// Batches that should be made again, but whose records the log no longer holds: they stay as they are.
    pub not_in_log: u64,
    /// Files of replaces that are missing or damaged, and that the log no longer holds the records of.
    pub lost_files: u64,
    /// … and that are made again, or were, while the other files of their batches stay.
    pub restored_files: u64,
    /// Batches whose files a compaction has: once it is done, a later run looks at them again.
    pub taken: u64,
    /// Batches that stay as they are because two of their types have one folder.
    pub mixed: u64,
    /// Files of the batches to be made again, or that were, and their bytes.
    pub files_removed: u64,
    pub bytes_removed: u64,
    /// Files made, their bytes and their rows, rejected ones too; known once they are.
    pub files_made: u64,
    pub bytes_made: u64,
    pub rows_made: u64,
    /// Settings in which batches differ from what is wanted.
    pub differences: BTreeSet<String>,
    /// An earlier rewrite was not finished, and is by this one.
    pub unfinished: bool,
    /// Number of the first replace of this run.
    #[serde(skip)]
    pub since: u64,
}

impl PartitionRewrite {
    /// Whether anything is to be done.
    pub fn is_due(&self) -> bool {
        self.unfinished || self.rewritten > 0 || self.restored_files > 0
    }
}

impl Rewriter {
    /// What [`Self::apply`] would do. Changes nothing.
    ///
    /// Skips partitions without a commit log, and those that have no record at or after a requested time.
    ///
    /// # Errors
    /// An invalid target; a batch whose duplicates would be others under the wanted layout; records that the log no longer
    /// holds, if all are required; the store's and the log's.
    pub async fn plan(
        &self,
        target: ReplayTarget,
        partitions: Option<&[i32]>,
    ) -> Result<Vec<PartitionRewrite>, ReplayError> {
        let (mut plans, looked_at) = (Vec::new(), AtomicU64::new(0));
        for found in find(&self.store, &*self.log, &self.topic, target, partitions).await? {
            let Found { id, commits, loaded, from, log } = found;
            let state = commits.state_at(&loaded.recent).await.map_err(PartitionError::from)?;
            let mut judge = Judge::new(self, id, log.earliest, state.head.next_replace);
            let plan = self.look(&mut judge, id, &state, from..state.head.end, &looked_at).await?;
            self.check_all(&plan, log)?;
            plans.push(PartitionRewrite { since: state.head.next_replace, ..plan });
        }
        Ok(plans)
    }

    pub(super) async fn state(&self, id: i32) -> Result<State, PartitionError> {
        Ok(CommitLog::new(self.store.clone(), &self.topic, id).load_state().await?.0)
    }

    fn check_all(&self, plan: &PartitionRewrite, log: Bounds) -> Result<(), PartitionError> {
        if !self.require_all || plan.not_in_log == 0 {
            return Ok(());
        }
        let message = format!(
            "the log no longer holds the records of {} batches before offset {}, which cannot be rewritten",
            plan.not_in_log, log.earliest
        );
        Err(self.refusal(plan.partition, message))
    }

    /// Judges every group that lies within `range` or begins before it and reaches into it.
    pub(super) async fn look(
        &self,
        judge: &mut Judge<'_>,
        partition: i32,
        state: &State,
        range: std::ops::Range<i64>,
        looked_at: &AtomicU64,
    ) -> Result<PartitionRewrite, PartitionError> {
        let mut plan = PartitionRewrite {
            partition,
            from: range.start,
            to: range.end,
            unfinished: state.head.replace(ReplaceSlot::Remaking).is_some(),
            ..PartitionRewrite::default()
        };
        for group in groups(state).iter().filter(|group| group.to > range.start && group.to <= range.end) {
            let batches = group.batches.len() as u64;
            plan.batches += batches;
            match judge.judge(state, group).await? {
                Fate::Stands => {}
                Fate::NotInLog => {
                    plan.not_in_log += batches;
                    plan.lost_files += group.files.iter().filter(|(id, _)| judge.gone.contains(id)).count() as u64;
                }
                Fate::Lost(lost) => {
                    let gone = group.files.iter().filter(|(id, _)| judge.gone.contains(id)).count();
                    plan.lost_files += gone.saturating_sub(lost.len()) as u64;
                    plan.restored_files += lost.len() as u64;
                }
                Fate::Taken => plan.taken += batches,
                Fate::Mixed => plan.mixed += batches,
                Fate::Again => {
                    plan.rewritten += batches;
                    plan.files_removed += group.files.len() as u64;
                    plan.bytes_removed += group.files.iter().map(|(_, file)| file.stored.bytes).sum::<u64>();
                }
            }
            (self.on_batch)(looked_at.fetch_add(batches, Ordering::Relaxed) + batches);
        }
        plan.differences = judge.differences.clone();
        Ok(plan)
    }
}
