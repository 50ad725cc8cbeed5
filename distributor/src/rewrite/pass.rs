//! A rewrite at work: see the protocol in the module's documentation, whose numbers stand here too.

use std::collections::BTreeMap;

use super::judge::{Fate, Judge, Opening};
use super::plan::{DOCUMENT_VERSION, PartitionRewrite};
use super::settle::{clear, settle};
use super::{ReplayError, Rewriter};
use crate::batch::{Encoded, Place, Stated};
use crate::chain::{ChainStore, Cut, PutDocument, Revision, Rewrite, Standing};
use crate::partition::rebuild::rebuild;
use crate::partition::{UploadRoom, file_entries, put_files};
use crate::remake::{Remade, Remake, Room};
use crate::window::{Budget, encode_key_run};

/// Batches made one after another share the reader and the window.
struct Making {
    remake: Remake,
    /// Where the next batch begins.
    at: i64,
    window_from: i64,
}

impl Rewriter {
    /// Rewrites what is due in the partitions of a plan, and returns what it came to.
    ///
    /// # Errors
    /// The group has members; another rewrite got ahead; the log does not hold what batches were cut from; the store's
    /// and the log's. Started again, it goes on where it stopped.
    pub async fn apply(&self, plans: &[PartitionRewrite]) -> Result<Vec<PartitionRewrite>, ReplayError> {
        let due: Vec<&PartitionRewrite> = plans.iter().filter(|plan| plan.is_due()).collect();
        if due.is_empty() {
            return Ok(plans.to_vec());
        }
        self.refuse_members(&due).await?;
        let mut begun = BTreeMap::new();
        for plan in &due {
            let chain = ChainStore::new(self.replayer.store.clone(), &self.replayer.topic, plan.partition);
            let opening = self.begin(&chain, plan).await?;
            begun.insert(plan.partition, (chain, opening));
        }
        if let Err(error) = self.refuse_others(&due, &begun).await {
            for (chain, opening) in begun.values() {
                if let Opening::Begin(rewrite) = opening {
                    chain.end_rewrite(rewrite).await?;
                }
            }
            return Err(error);
        }
        let mut looked_at = 0;
        let mut outcomes = Vec::new();
        for plan in plans {
            outcomes.push(match begun.get(&plan.partition) {
                Some((chain, opening)) => self.partition(chain, plan.partition, opening, &mut looked_at).await?,
                None => plan.clone(),
            });
        }
        Ok(outcomes)
    }

    /// Whoever began before it could see that a rewrite is under way: one of us sees the other.
    async fn refuse_others(
        &self,
        due: &[&PartitionRewrite],
        begun: &BTreeMap<i32, (ChainStore, Opening)>,
    ) -> Result<(), ReplayError> {
        self.refuse_members(due).await?;
        for (partition, (chain, _)) in begun {
            self.refuse_rebuilding(chain, *partition).await?;
        }
        Ok(())
    }

    /// Step 2: sets the group's offsets to what they are, which a log refuses while the group has members.
    async fn refuse_members(&self, due: &[&PartitionRewrite]) -> Result<(), ReplayError> {
        let (log, group, topic) = (&self.replayer.log, &self.replayer.group, &self.replayer.topic);
        let committed = log.committed(group, topic).await?;
        // Without an offset the group goes on at the chain's end.
        let offsets = due
            .iter()
            .map(|plan| (plan.partition, committed.get(&plan.partition).copied().unwrap_or(plan.to)))
            .collect();
        Ok(log.set_committed(group, topic, &offsets).await?)
    }

    /// Step 1.
    async fn begin(&self, chain: &ChainStore, plan: &PartitionRewrite) -> Result<Opening, ReplayError> {
        let opening = self.opening(chain, plan.partition, plan.from).await?;
        match &opening {
            Opening::GoOn(rewrite) => self.settle_last(chain, rewrite).await?,
            Opening::Begin(rewrite) => {
                if let PutDocument::Theirs(_) = chain.put_rewrite(rewrite).await? {
                    return Err(self.got_ahead(plan.partition));
                }
            }
            Opening::Replace(unfinished, rewrite) => {
                self.settle_last(chain, unfinished).await?;
                if !chain.replace_rewrite(unfinished, rewrite).await? {
                    return Err(self.got_ahead(plan.partition));
                }
            }
        }
        Ok(opening)
    }

    fn got_ahead(&self, partition: i32) -> ReplayError {
        self.refused(partition, "another run of 'replay --rewrite' is at work on it, or was until now; look again")
    }

    /// Settles the newest revision of a rewrite: those before it are.
    async fn settle_last(&self, chain: &ChainStore, rewrite: &Rewrite) -> Result<(), ReplayError> {
        let revisions = chain.revisions(rewrite.from, i64::MAX).await?;
        for (from, newest) in revisions.into_iter().rev() {
            if let Some(revision) = chain.revision(from, Some(newest)).await?
                && revision.rewrite == rewrite.id
            {
                return settle(&*self.replayer.store, chain, &revision).await;
            }
        }
        Ok(())
    }

    async fn partition(
        &self,
        chain: &ChainStore,
        id: i32,
        opening: &Opening,
        looked_at: &mut u64,
    ) -> Result<PartitionRewrite, ReplayError> {
        let rewrite = opening.rewrite();
        let mut outcome = PartitionRewrite::begin(id, opening);
        let mut making = None;
        let walked = self.batches(chain, rewrite, &mut outcome, &mut making, looked_at).await;
        if let Some(Making { remake, .. }) = making {
            remake.close().await;
        }
        walked?;
        // Step 8.
        clear(&*self.replayer.store, chain).await?;
        chain.end_rewrite(rewrite).await?;
        Ok(outcome)
    }

    /// Steps 3 to 7 for each batch.
    async fn batches(
        &self,
        chain: &ChainStore,
        rewrite: &Rewrite,
        outcome: &mut PartitionRewrite,
        making: &mut Option<Making>,
        looked_at: &mut u64,
    ) -> Result<(), ReplayError> {
        let bounds = self.replayer.log.bounds(&self.replayer.topic).await?;
        let bounds = bounds.get(&outcome.partition);
        let bounds = bounds.ok_or_else(|| self.refused(outcome.partition, "the topic has no such partition"))?;
        let mut judge = Judge::new(self, rewrite, bounds.earliest);
        let revisions = chain.revisions(rewrite.from, i64::MAX).await?;
        let mut next = chain.cut_from(rewrite.from).await?;
        while let Some(cut) = next {
            if cut.is_batch() {
                // The last one may not be complete: a distributor makes it, later.
                let Some(standing) = chain.standing(&cut, revisions.get(&cut.from).copied()).await? else { break };
                outcome.batches += 1;
                match judge.judge(chain, &standing).await? {
                    Fate::Stands => {}
                    Fate::NotInLog => outcome.not_in_log += 1,
                    Fate::Again => self.revise(chain, rewrite, &standing, making, outcome).await?,
                }
                *looked_at += 1;
                (self.on_batch)(*looked_at);
            } else if let Some(making) = making.as_mut().filter(|making| making.at == cut.from) {
                making.remake.pass_over(cut.to).await?;
                making.at = cut.to;
            }
            outcome.to = cut.to;
            next = chain.cut_from(cut.to).await?;
        }
        outcome.differences = judge.differences;
        Ok(())
    }

    async fn revise(
        &self,
        chain: &ChainStore,
        rewrite: &Rewrite,
        standing: &Standing,
        making: &mut Option<Making>,
        outcome: &mut PartitionRewrite,
    ) -> Result<(), ReplayError> {
        let store = &*self.replayer.store;
        let former = Some(standing.cut.revision).filter(|revision| *revision > 0);
        if let Some(former) = chain.revision(standing.cut.from, former).await? {
            // It is, but for a rewrite whose place was taken just when it decided: only what stands can be replaced.
            settle(store, chain, &former).await?;
        }
        let cut = Cut {
            layout: rewrite.layout.clone(),
            encoding: Some(rewrite.encoding),
            revision: standing.cut.revision + 1,
            folders: None,
            ..standing.cut.clone()
        };
        if making.as_ref().is_none_or(|making| making.at != cut.from) {
            if let Some(Making { remake, .. }) = making.take() {
                remake.close().await;
            }
            let budget = Budget::new(self.window_memory, self.scratch.clone());
            let rebuilt = rebuild(chain, cut.from, cut.layout.window_ms, &budget).await?;
            let room = Room { scratch: self.scratch.clone(), batch_memory: self.batch_memory };
            let remake = Remake::new(&*self.replayer.log, &cut, rebuilt.window, rebuilt.clock_ms, room).await?;
            *making = Some(Making { remake, at: cut.from, window_from: rebuilt.window_from });
        }
        let Some(Making { remake, at, window_from }) = making else { return Ok(()) };
        let Encoded { files, overlay, counts, ends, .. } = match remake.make(&cut, rewrite.encoding).await? {
            Remade::Batch(encoded) => *encoded,
            Remade::Other(message) => {
                let message = format!("the batch {}..{} cannot be rewritten: {message}", cut.from, cut.to);
                return Err(self.refused(cut.partition, message));
            }
        };
        let stated = Stated::new(&ends, counts, files.len());
        let place = Place::of(&cut);
        let reads_like = cut.layout.reads_like(&standing.cut.layout);
        let key_run = if reads_like {
            standing.key_run.clone()
        } else {
            chain.revised_key_run_key(cut.from, cut.revision, rewrite.id)
        };
        let mut completion = standing.completion.clone();
        (completion.files, completion.counts) = (file_entries(place, &files), counts);
        let mut revision = Revision {
            version: DOCUMENT_VERSION,
            revision: cut.revision,
            rewrite: rewrite.id,
            layout: cut.layout.clone(),
            encoding: rewrite.encoding,
            window_from: *window_from,
            key_run,
            completion,
            removals: standing.completion.files.iter().map(|file| file.path.clone()).collect(),
        };
        // Other settings may make any number of files of it.
        chain.check(&chain.revision_key(cut.from, cut.revision), &revision)?;
        let staged = chain.staged_prefix(rewrite.id);
        let Some(files) = put_files(store, &staged, place, files, Some(&stated), &UploadRoom::default()).await? else {
            let message = format!("a file below '{staged}' is none that was staged; the trusted zone was altered");
            return Err(self.refused(cut.partition, message));
        };
        revision.completion.files = files;
        if !reads_like {
            chain.put_key_run(&revision.key_run, encode_key_run(&overlay)).await?;
        }
        let revision = self.decide(chain, cut.partition, rewrite, revision).await?;
        settle(store, chain, &revision).await?;
        remake.take(overlay, ends.clock_ms)?;
        *at = cut.to;
        outcome.rewritten += 1;
        outcome.files_removed += revision.removals.len() as u64;
        outcome.files_made += revision.completion.files.len() as u64;
        outcome.rows_made += revision.completion.files.iter().map(|file| file.rows).sum::<u64>();
        tracing::info!(
            topic = self.replayer.topic,
            partition = cut.partition,
            from = cut.from,
            to = cut.to,
            revision = cut.revision,
            files = revision.completion.files.len(),
            removed = revision.removals.len(),
            "batch rewritten"
        );
        Ok(())
    }

    /// Step 5. Returns the revision that stands: ours, or that of another run of the same rewrite.
    async fn decide(
        &self,
        chain: &ChainStore,
        partition: i32,
        rewrite: &Rewrite,
        revision: Revision,
    ) -> Result<Revision, ReplayError> {
        if chain.rewrite().await?.as_ref() != Some(rewrite) {
            return Err(self.got_ahead(partition));
        }
        match chain.put_revision(&revision).await? {
            PutDocument::Ours => Ok(revision),
            PutDocument::Theirs(theirs) if theirs.rewrite == rewrite.id => Ok(theirs),
            PutDocument::Theirs(_) => Err(self.got_ahead(partition)),
        }
    }
}
