//! Runs the rewrite of each partition to its end.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use commitlog::{Fate, Reason, ReplaceIntent, ReplaceSlot};
use commitlog_storage::Session;
use commitlog_storage::replacing::{Ended, Replacing};

use super::judge::Judge;
use super::{PartitionRewrite, Rewriter};
use crate::error::PartitionError;
use crate::refusals;
use crate::replace::{Carrier, Fence};
use crate::target::ReplayError;

/// How often a partition is looked at again because others replaced files of it meanwhile.
const MAX_ROUNDS: usize = 5;

/// The files of one partition while it is rewritten.
pub(super) struct Work<'w, 'a> {
    pub rewriter: &'a Rewriter,
    pub partition: i32,
    pub carrier: &'w mut Carrier,
    /// Batches are rewritten that end in it.
    pub range: Range<i64>,
    pub judge: &'w mut Judge<'a>,
    /// Why the replace that was under way could not be made.
    pub unmakeable: &'w mut Option<String>,
    pub outcome: &'w mut PartitionRewrite,
    /// Number of the replace whose batches are counted.
    pub counted: Option<u64>,
    pub made: &'w AtomicU64,
}

impl Work<'_, '_> {
    /// Where the log begins now.
    ///
    /// # Errors
    /// The log's.
    pub(super) async fn log_from(&self) -> Result<i64, PartitionError> {
        let bounds = self.rewriter.log.bounds(&self.rewriter.topic).await?;
        let bounds = bounds.get(&self.partition);
        let bounds = bounds.ok_or_else(|| self.rewriter.refusal(self.partition, "the topic has no such partition"))?;
        Ok(bounds.earliest)
    }

    pub(super) fn batch_made(&self) {
        (self.rewriter.on_batch)(self.made.fetch_add(1, Ordering::Relaxed) + 1);
    }

    /// Counts the batches and rows of a replace that is decided, once.
    ///
    /// # Errors
    /// As [`CommitLog::load_state`].
    pub(super) async fn settling(&mut self, intent: &ReplaceIntent) -> Result<(), PartitionError> {
        if self.counted == Some(intent.replace) {
            return Ok(());
        }
        let (state, _, _) = self.carrier.commits.load_state().await?;
        if intent.reason == Reason::Restore {
            self.outcome.restored_files += intent.outputs().count() as u64;
            self.counted = Some(intent.replace);
            return Ok(());
        }
        for scope in &intent.scopes {
            let spans = state.spans.range(scope.from..scope.to);
            self.outcome.rewritten += spans.filter(|(_, span)| matches!(span.fate, Fate::Batch(_))).count() as u64;
        }
        let rows = intent.outputs().filter_map(|(id, _)| state.live.get(&id)).map(|file| file.stored.rows);
        self.outcome.rows_made += rows.sum::<u64>();
        self.counted = Some(intent.replace);
        Ok(())
    }
}

impl Rewriter {
    /// Rewrites what is due in the partitions of a plan, and returns what it came to.
    ///
    /// # Errors
    /// The group has members, with [`Fence::Offline`]; the log does not hold what batches were made from; the store's and
    /// the log's. Started again, it goes on where it stopped.
    pub async fn apply(&self, plans: &[PartitionRewrite]) -> Result<Vec<PartitionRewrite>, ReplayError> {
        let (mut outcomes, made) = (Vec::with_capacity(plans.len()), AtomicU64::new(0));
        if self.fence == Fence::Offline {
            for plan in plans.iter().filter(|plan| plan.is_due()) {
                self.carrier(plan.partition).check_members(plan.to).await?;
            }
        }
        for plan in plans {
            outcomes.push(if plan.is_due() { self.partition(plan, &made).await? } else { plan.clone() });
            self.carrier(plan.partition).drop_spent().await?;
        }
        Ok(outcomes)
    }

    async fn partition(&self, plan: &PartitionRewrite, made: &AtomicU64) -> Result<PartitionRewrite, PartitionError> {
        let id = plan.partition;
        let mut outcome = PartitionRewrite {
            rewritten: 0,
            restored_files: 0,
            files_removed: 0,
            files_made: 0,
            bytes_made: 0,
            rows_made: 0,
            ..plan.clone()
        };
        for _ in 0..MAX_ROUNDS {
            let left = self.round(plan, &mut outcome, made).await?;
            if !left.is_due() {
                (outcome.not_in_log, outcome.taken, outcome.mixed) = (left.not_in_log, left.taken, left.mixed);
                outcome.lost_files = left.lost_files;
                return Ok(outcome);
            }
        }
        Err(self.refusal(id, "others replace its files at the same time; run it again later"))
    }

    /// Replaces until nothing is left to be replaced, and returns what is due nevertheless.
    async fn round(
        &self,
        plan: &PartitionRewrite,
        outcome: &mut PartitionRewrite,
        made: &AtomicU64,
    ) -> Result<PartitionRewrite, PartitionError> {
        let (id, range) = (plan.partition, plan.from..plan.to);
        let mut carrier = self.carrier(id);
        let session = Session::new(carrier.commits.clone(), self.host.boot_clock.clone(), self.host.writer());
        let mut judge = Judge::new(self, id, i64::MIN, plan.since);
        let mut unmakeable = None;
        let work = Work {
            rewriter: self,
            partition: id,
            carrier: &mut carrier,
            range: range.clone(),
            judge: &mut judge,
            unmakeable: &mut unmakeable,
            outcome: &mut *outcome,
            counted: None,
            made,
        };
        let replacing = Replacing::new(session, ReplaceSlot::Remaking, work);
        let ended = replacing.accepting_lost_outputs(self.accepts_lost).run().await;
        outcome.files_removed += carrier.files_removed;
        outcome.files_made += carrier.files_made;
        outcome.bytes_made += carrier.bytes_made;
        let ended = ended?;
        match (ended, unmakeable) {
            (Ended::Refused(refusal), reason) => {
                if let Some(reason) = reason {
                    tracing::error!(partition = id, reason, "a decided rewrite cannot be made again");
                }
                return Err(refusals::refused(&self.topic, &self.group, id, &refusal));
            }
            (Ended::Rested, Some(reason)) => {
                return Err(self.refusal(id, format!("a rewrite was given up: {reason}")));
            }
            (Ended::Rested, None) => {}
        }
        let state = self.state(id).await?;
        let looked_at = AtomicU64::new(0);
        self.look(&mut judge, id, &state, range, &looked_at).await
    }
}
