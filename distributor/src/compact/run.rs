//! What a compaction comes to, and its run to the end.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use commitlog::actor::Choice;
use commitlog::{Fate, FileId, LiveFile, Replace, ReplaceIntent, ReplaceSlot, Span, Stage, State, Stored};
use commitlog_storage::replacing::{Ended, Files, Published, Replacing, Staged};
use commitlog_storage::{CommitLog, CommitLogError, Proof, Recent, Session};
use common::store::{HEADS_AT_ONCE, StoreError, StoreErrorKind};
use serde::Serialize;

use super::Compactor;
use super::choice::{Merge, Seen, is_open};
use super::merge::{Unmakeable, inputs_of};
use crate::batch::path;
use crate::error::PartitionError;
use crate::refusals;
use crate::replace::Carrier;

/// What a compaction of one partition comes to, or came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PartitionCompaction {
    pub partition: i32,
    /// Live files before and after, and their bytes before.
    pub files_before: u64,
    pub files_after: u64,
    pub bytes_before: u64,
    /// Folders in which files are merged.
    pub folders: u64,
    /// Files that are merged, their bytes and their rows.
    pub files_removed: u64,
    pub bytes_removed: u64,
    pub rows: u64,
    /// Files that are made, and their bytes; the bytes are known once they are.
    pub files_made: u64,
    pub bytes_made: u64,
    /// Requests of the store: reads of inputs and outputs, puts, copies and deletes.
    pub requests: u64,
    /// Files that are missing or altered, and not merged.
    pub skipped: BTreeSet<String>,
    /// An earlier compaction was not finished, and is by this one.
    pub unfinished: bool,
}

impl PartitionCompaction {
    /// Whether anything is to be done.
    pub fn is_due(&self) -> bool {
        self.unfinished || self.files_made > 0
    }

    fn of(partition: i32, state: &State, merges: &[Merge<'_>]) -> Self {
        let mut folders: BTreeSet<&str> = merges.iter().map(|merge| merge.folder).collect();
        let mut inputs: Vec<&LiveFile> = merges.iter().flat_map(|merge| &merge.files).map(|(_, file)| *file).collect();
        let (mut files_removed, mut files_made) = (inputs.len() as u64, merges.len() as u64);
        // Of what was decided already, the outputs are live and the inputs forgotten.
        let (mut files_before, mut decided_rows) = (state.live.len() as u64, 0);
        if let Some(Replace { intent, stage, .. }) = state.head.replace(ReplaceSlot::Merging) {
            let (removed, made) = (intent.inputs().count() as u64, intent.outputs().count() as u64);
            files_removed += removed;
            files_made += made;
            folders.extend(intent.outputs().map(|(_, planned)| planned.folder.as_str()));
            match stage {
                Stage::Open => inputs.extend(intent.inputs().filter_map(|(_, id)| state.live.get(&id))),
                Stage::Ready(decided) => {
                    files_before = (files_before + removed).saturating_sub(made);
                    decided_rows = decided.iter().map(|stored| stored.rows).sum();
                }
            }
        }
        Self {
            partition,
            files_before,
            files_after: (files_before + files_made).saturating_sub(files_removed),
            bytes_before: state.live.values().map(|file| file.stored.bytes).sum(),
            folders: folders.len() as u64,
            files_removed,
            bytes_removed: inputs.iter().map(|file| file.stored.bytes).sum(),
            rows: inputs.iter().map(|file| file.stored.rows).sum::<u64>() + decided_rows,
            files_made,
            // An input is read and deleted; an output is put, looked for and read again, looked for twice and copied, and what
            // was staged is deleted. Besides, a few of the commit log.
            requests: 2 * files_removed + 7 * files_made,
            unfinished: is_open(state),
            ..Self::default()
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// The message says what to do.
    #[error("{0}")]
    Refused(String),
    #[error("trusted zone")]
    Store(#[from] StoreError),
}

impl From<PartitionError> for CompactError {
    fn from(error: PartitionError) -> Self {
        match error {
            PartitionError::Store(error) => Self::Store(error),
            other => Self::Refused(other.to_string()),
        }
    }
}

/// The files of one partition while it is compacted.
pub(super) struct Work<'w> {
    compactor: &'w Compactor,
    pub carrier: &'w mut Carrier,
    seen: &'w mut Seen,
    /// What the commit log says of the inputs of a replace.
    pub inputs: Option<(u64, State)>,
    /// Why the replace that was under way could not be made.
    given_up: &'w mut Option<String>,
    skipped: &'w mut BTreeSet<String>,
    made: &'w AtomicU64,
}

#[async_trait]
impl Files for Work<'_> {
    type Error = PartitionError;

    fn since(&self) -> Option<i64> {
        self.seen.since
    }

    async fn choose(&mut self, state: &State) -> Result<Option<Choice>, PartitionError> {
        self.carrier.check_members(state.head.end).await?;
        loop {
            let merges = self.compactor.merges(self.carrier.partition, state, self.seen).await?;
            let Some(choice) = self.compactor.choice(&merges)? else { return Ok(None) };
            if !self.seen.is_wary || !self.leave_bad(state, &choice).await? {
                return Ok(Some(choice));
            }
        }
    }

    async fn stage(&mut self, intent: &ReplaceIntent, k: u32) -> Result<Staged, PartitionError> {
        if self.carrier.staged(intent.replace, k).is_none() {
            let pace = self.compactor.pace.clone();
            let bytes = self.input_bytes(intent, k).await?;
            match pace.take(bytes, self.stage_one(intent, k)).await? {
                Ok(()) => (self.compactor.on_file)(self.made.fetch_add(1, Ordering::Relaxed) + 1),
                Err(Unmakeable::Input(id)) => {
                    let input = intent.inputs().find(|(_, input)| *input == id);
                    let folder = input.map_or("", |(folder, _)| folder);
                    let path = path(&self.carrier.topic, self.carrier.partition, folder, id);
                    self.seen.bad.insert(id);
                    self.seen.is_wary = true;
                    self.skipped.insert(path);
                    return Ok(Staged::InputGone(id));
                }
                Err(Unmakeable::Unlike(reason)) => {
                    let (topic, partition) = (&self.carrier.topic, self.carrier.partition);
                    tracing::info!(topic, partition, reason, "files that cannot be in one file stay as they are");
                    let (planned, inputs) = inputs_of(intent, k).ok_or_else(|| no_output(k))?;
                    let Some(first) = inputs.first().copied() else { return Err(no_output(k)) };
                    tracing::debug!(folder = planned.folder, files = inputs.len(), "they stay");
                    self.seen.bad.extend(inputs);
                    return Ok(Staged::InputGone(first));
                }
                Err(Unmakeable::Recipe(reason)) => {
                    *self.given_up = Some(reason);
                    return Ok(Staged::OtherRecords);
                }
            }
        }
        let stored = self.carrier.staged(intent.replace, k);
        stored.map(Staged::Stands).ok_or_else(|| no_output(k))
    }

    async fn await_fence(&mut self, _entry: u64, put_ms: Option<i64>) -> Result<(), PartitionError> {
        let end = self.carrier.commits.load().await?.head.end;
        self.carrier.await_fence(put_ms, end).await
    }

    async fn examine(&mut self, intent: &ReplaceIntent, decided: &[Stored]) -> Result<Vec<u32>, PartitionError> {
        self.carrier.examine(intent, decided).await
    }

    async fn delete(&mut self, intent: &ReplaceIntent, files: &[FileId]) -> Result<Vec<FileId>, PartitionError> {
        self.carrier.delete(intent, files).await
    }

    async fn publish(&mut self, intent: &ReplaceIntent, k: u32, proof: Proof) -> Result<Published, PartitionError> {
        self.carrier.publish(intent, k, proof).await
    }

    async fn drop_staged(&mut self, replace: u64) -> Result<(), PartitionError> {
        self.carrier.drop_staged(replace).await
    }
}

/// Where the first batch begins whose log time ends at `since_ms` or later. A newer checkpoint that takes the place of the one
/// that is read makes it a later one: the next time it is found.
async fn since(commits: &CommitLog, recent: &Recent, since_ms: i64) -> Result<i64, PartitionError> {
    let mut from = recent.end().unwrap_or(0);
    loop {
        let spans = match commits.spans_before(recent, from).await {
            Err(CommitLogError::Superseded { .. }) => return Ok(from),
            spans => spans?,
        };
        if spans.is_empty() {
            return Ok(from);
        }
        for (begin, Span { fate, .. }) in spans.iter().rev() {
            if matches!(fate, Fate::Batch(batch) if batch.clock_ms < since_ms) {
                return Ok(from);
            }
            from = *begin;
        }
    }
}

fn no_output(k: u32) -> PartitionError {
    PartitionError::Internal(format!("output {k} was not staged"))
}

impl Work<'_> {
    /// Inputs that are missing, or may not be looked at, or have another size stay. Returns whether there are any.
    async fn leave_bad(&mut self, state: &State, choice: &Choice) -> Result<bool, PartitionError> {
        let bad_before = self.seen.bad.len();
        let inputs: Vec<(FileId, String, Option<u64>)> = choice
            .scopes
            .iter()
            .flat_map(|scope| scope.inputs())
            .map(|(folder, id)| {
                let size = state.live.get(&id).map(|file| file.stored.bytes);
                (id, path(&self.carrier.topic, self.carrier.partition, folder, id), size)
            })
            .collect();
        for inputs in inputs.chunks(HEADS_AT_ONCE) {
            let paths: Vec<String> = inputs.iter().map(|(_, path, _)| path.clone()).collect();
            for ((id, path, size), head) in inputs.iter().zip(self.carrier.store.head_many(&paths).await) {
                let is_sound = match head {
                    Ok(meta) => meta.map(|meta| meta.size_bytes) == *size,
                    Err(error) if error.kind == StoreErrorKind::Denied => false,
                    Err(error) => return Err(error.into()),
                };
                if !is_sound {
                    self.seen.bad.insert(*id);
                    self.skipped.insert(path.clone());
                }
            }
        }
        Ok(self.seen.bad.len() > bad_before)
    }
}

impl Compactor {
    /// What [`Self::apply`] would do, for each partition that has a commit log, or those of `partitions`. Changes nothing.
    ///
    /// # Errors
    /// The store's, a commit log that is damaged, and a partition that has none.
    pub async fn plan(&self, partitions: Option<&[i32]>) -> Result<Vec<PartitionCompaction>, CompactError> {
        let known = commitlog_storage::partitions(&*self.store, &self.topic).await?;
        if let Some(unknown) = partitions.into_iter().flatten().find(|id| !known.contains(id)) {
            let message = format!("topic '{}' has no commit log of partition {unknown}", self.topic);
            return Err(CompactError::Refused(message));
        }
        let mut plans = Vec::new();
        for id in known.into_iter().filter(|id| partitions.is_none_or(|wanted| wanted.contains(id))) {
            plans.push(self.plan_one(id).await?);
        }
        Ok(plans)
    }

    async fn plan_one(&self, id: i32) -> Result<PartitionCompaction, PartitionError> {
        let mut seen = Seen::default();
        let state = self.state(id, &mut seen).await?;
        let merges = self.merges(id, &state, &mut seen).await?;
        Ok(PartitionCompaction::of(id, &state, &merges))
    }

    /// What the commit log says of files that may be merged.
    async fn state(&self, id: i32, seen: &mut Seen) -> Result<State, PartitionError> {
        let commits = self.commits(id);
        let Some(since_ms) = self.since_ms else { return Ok(commits.load_state().await?.0) };
        let recent = commits.load().await?.recent;
        let from = since(&commits, &recent, since_ms).await?;
        seen.since = Some(from);
        Ok(commits.load_state_within(from, i64::MAX).await?)
    }

    /// Merges what is due in one partition, and returns what it came to. Nothing is due where there is no commit log.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub(crate) async fn round(&self, id: i32) -> Result<PartitionCompaction, PartitionError> {
        let plan = self.plan_one(id).await?;
        if !plan.is_due() {
            return Ok(plan);
        }
        let outcome = self.partition(&plan, &AtomicU64::new(0)).await?;
        self.carrier(id).drop_spent().await?;
        Ok(outcome)
    }

    /// Merges what is due in the partitions of a plan, and returns what it came to.
    ///
    /// # Errors
    /// The group has members, with [`crate::Fence::Offline`]; the store's. Started again, it goes on where it stopped.
    pub async fn apply(&self, plans: &[PartitionCompaction]) -> Result<Vec<PartitionCompaction>, CompactError> {
        // Before anything is begun that could not go on.
        if let Some(tables) = self.tables.as_ref().filter(|_| plans.iter().any(PartitionCompaction::is_due)) {
            tables.publish().await.map_err(PartitionError::from)?;
        }
        let (mut outcomes, made) = (Vec::with_capacity(plans.len()), AtomicU64::new(0));
        for plan in plans {
            outcomes.push(if plan.is_due() { self.partition(plan, &made).await? } else { plan.clone() });
            self.carrier(plan.partition).drop_spent().await?;
        }
        Ok(outcomes)
    }

    fn commits(&self, partition: i32) -> CommitLog {
        CommitLog::new(self.store.clone(), &self.topic, partition)
    }

    async fn partition(
        &self,
        plan: &PartitionCompaction,
        made: &AtomicU64,
    ) -> Result<PartitionCompaction, PartitionError> {
        let id = plan.partition;
        let (mut seen, mut skipped) = (Seen::default(), BTreeSet::new());
        self.state(id, &mut seen).await?;
        let mut carrier = self.carrier(id);
        // Each round leaves more files as they are than the one before.
        loop {
            let (mut given_up, bad_before) = (None, seen.bad.len());
            let session = Session::new(self.commits(id), self.host.boot_clock.clone(), self.host.writer());
            let work = Work {
                compactor: self,
                carrier: &mut carrier,
                seen: &mut seen,
                inputs: None,
                given_up: &mut given_up,
                skipped: &mut skipped,
                made,
            };
            let replacing = Replacing::new(session, ReplaceSlot::Merging, work);
            let ended = replacing.accepting_lost_outputs(self.accepts_lost).run().await?;
            if let Ended::Refused(refusal) = ended {
                return Err(refusals::refused(&self.topic, &self.group, id, &refusal));
            }
            if let Some(reason) = given_up {
                return Err(carrier.refusal(format!("a compaction was given up: {reason}")));
            }
            // What is missing or altered stays, and the rest is merged.
            if seen.bad.len() == bad_before {
                break;
            }
        }
        let state = self.state(id, &mut Seen::default()).await?;
        // What another run has merged meanwhile was missing for a reason.
        let live: BTreeSet<String> =
            state.live.iter().map(|(file, live)| path(&self.topic, id, &live.folder, *file)).collect();
        skipped.retain(|path| live.contains(path));
        Ok(PartitionCompaction {
            files_after: state.live.len() as u64,
            files_removed: carrier.files_removed,
            files_made: carrier.files_made,
            bytes_made: carrier.bytes_made,
            skipped,
            ..plan.clone()
        })
    }
}
