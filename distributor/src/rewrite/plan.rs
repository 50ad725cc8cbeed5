//! What a rewrite comes to, before anything is changed.

use std::collections::BTreeSet;

use serde::Serialize;

use super::judge::{Fate, Judge, Opening, open};
use super::{ReplayError, Rewriter};
use crate::chain::{ChainStore, Rewrite};
use crate::replay::{Place, ReplayTarget};

pub(super) const DOCUMENT_VERSION: u32 = 1;

/// What a rewrite of one partition comes to, or came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionRewrite {
    pub partition: i32,
    /// Offsets that were looked at: from where a batch begins to the end of the last complete one.
    pub from: i64,
    pub to: i64,
    pub batches: u64,
    /// Batches to be made again, or that were.
    pub rewritten: u64,
    /// Batches that should be made again, but whose records the log has let go of: they stay as they are.
    pub not_in_log: u64,
    /// Files of the batches to be made again: they make room.
    pub files_removed: u64,
    /// Files made; known once they are.
    pub files_made: u64,
    /// Rows in them, rejected ones too.
    pub rows_made: u64,
    /// Settings in which batches differ from what is wanted.
    pub differences: BTreeSet<String>,
    /// An earlier rewrite was not finished, and is by this one.
    pub unfinished: bool,
}

impl PartitionRewrite {
    pub(super) fn begin(partition: i32, opening: &Opening) -> Self {
        let from = opening.rewrite().from;
        Self {
            partition,
            from,
            to: from,
            batches: 0,
            rewritten: 0,
            not_in_log: 0,
            files_removed: 0,
            files_made: 0,
            rows_made: 0,
            differences: BTreeSet::new(),
            unfinished: !matches!(opening, Opening::Begin(_)),
        }
    }

    /// Whether anything is to be done.
    pub fn is_due(&self) -> bool {
        self.unfinished || self.rewritten > 0
    }
}

impl Rewriter {
    /// What [`Self::apply`] would do. Changes nothing.
    ///
    /// Partitions without a chain are passed over, and so are those that have no record at or after a time asked for.
    ///
    /// # Errors
    /// A target that is none; a batch that is not complete; an unfinished rewrite that would be left so; records that
    /// the log has let go of, if all are required; the store's and the log's.
    pub async fn plan(
        &self,
        target: ReplayTarget,
        partitions: Option<&[i32]>,
    ) -> Result<Vec<PartitionRewrite>, ReplayError> {
        let mut plans = Vec::new();
        let mut looked_at = 0;
        for place in self.replayer.places(target, partitions).await? {
            let opening = self.opening(&place.chain, place.id, place.holder.from).await?;
            let plan = self.look(&place, &opening, &mut looked_at).await?;
            if self.require_all && plan.not_in_log > 0 {
                return Err(self.refused(
                    place.id,
                    format!(
                        "the log no longer holds the records of {} batches before offset {}, which cannot be rewritten",
                        plan.not_in_log, place.log.earliest
                    ),
                ));
            }
            plans.push(plan);
        }
        Ok(plans)
    }

    pub(super) fn refused(&self, partition: i32, message: impl std::fmt::Display) -> ReplayError {
        ReplayError::Refused(format!("{}/{partition}: {message}", self.replayer.topic))
    }

    pub(super) async fn refuse_rebuilding(&self, chain: &ChainStore, id: i32) -> Result<(), ReplayError> {
        if !chain.is_being_rebuilt().await? {
            return Ok(());
        }
        let message =
            "its chain is being rebuilt, or that was broken off: run 'verify --rebuild-chain' to its end first";
        Err(self.refused(id, message))
    }

    /// How the rewrite of a partition from `from` on is begun.
    pub(super) async fn opening(&self, chain: &ChainStore, id: i32, from: i64) -> Result<Opening, ReplayError> {
        let wanted = Rewrite {
            version: DOCUMENT_VERSION,
            id: self.now_ms,
            from,
            layout: self.layout.clone(),
            encoding: self.encoding,
            all: self.all,
        };
        self.refuse_rebuilding(chain, id).await?;
        open(chain.rewrite().await?, wanted).map_err(|message| self.refused(id, message))
    }

    async fn look(
        &self,
        place: &Place,
        opening: &Opening,
        looked_at: &mut u64,
    ) -> Result<PartitionRewrite, ReplayError> {
        let Place { id, chain, log, .. } = place;
        let rewrite = opening.rewrite();
        let mut plan = PartitionRewrite::begin(*id, opening);
        let mut judge = Judge::new(self, rewrite, log.earliest);
        let revisions = chain.revisions(rewrite.from, i64::MAX).await?;
        let mut next = chain.cut_from(rewrite.from).await?;
        while let Some(cut) = next {
            if cut.is_batch() {
                let Some(standing) = chain.standing(&cut, revisions.get(&cut.from).copied()).await? else {
                    if matches!(opening, Opening::Begin(_)) {
                        return Err(self.refused(
                            *id,
                            format!(
                                "the batch {}..{} is not complete yet: let a distributor finish it first",
                                cut.from, cut.to
                            ),
                        ));
                    }
                    break;
                };
                plan.batches += 1;
                match judge.judge(chain, &standing).await? {
                    Fate::Stands => {}
                    Fate::NotInLog => plan.not_in_log += 1,
                    Fate::Again => {
                        plan.rewritten += 1;
                        plan.files_removed += standing.completion.files.len() as u64;
                    }
                }
                *looked_at += 1;
                (self.on_batch)(*looked_at);
            }
            plan.to = cut.to;
            next = chain.cut_from(cut.to).await?;
        }
        if log.latest < plan.to {
            return Err(self.refused(
                *id,
                format!(
                    "the log ends at {}, the trusted zone at {}: it was truncated or recreated",
                    log.latest, plan.to
                ),
            ));
        }
        plan.differences = judge.differences;
        Ok(plan)
    }
}
