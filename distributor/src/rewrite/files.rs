//! What a rewrite does with files, as the replacer of the core asks for it.

use async_trait::async_trait;
use commitlog::actor::Choice;
use commitlog::{FileId, Planned, ReplaceIntent, State};
use commitlog_storage::replacing::{Files, Published, Staged};
use commitlog_storage::{CommitLog, Proof};
use common::store::{ListOptions, LockKind, Store, StoreErrorKind};
use futures_util::{FutureExt, StreamExt};

use super::Rewriter;
use super::fence::{self, Fence};
use super::outputs::Unmakeable;
use super::run::Work;
use crate::batch::path;
use crate::error::PartitionError;
use crate::in_turn::in_turn;
use crate::owner::files::{deadline, resting_on};

#[async_trait]
impl Files for Work<'_, '_> {
    type Error = PartitionError;

    async fn choose(&mut self, state: &State) -> Result<Option<Choice>, PartitionError> {
        self.check_members(state.head.end).await?;
        let scopes = self.next_scopes(state).await?;
        if scopes.is_empty() { Ok(None) } else { self.choice(scopes).map(Some) }
    }

    async fn stage(&mut self, intent: &ReplaceIntent, k: u32) -> Result<Staged, PartitionError> {
        let at = (intent.replace, k);
        if !self.staged.contains_key(&at)
            && let Err(Unmakeable(reason)) = self.stage_all(intent).await?
        {
            *self.unmakeable = Some(reason);
            return Ok(Staged::OtherRecords);
        }
        let stored = self.staged.get(&at).copied();
        stored.map(Staged::Stands).ok_or_else(|| PartitionError::Internal(format!("output {k} was not staged")))
    }

    async fn await_fence(&mut self, _entry: u64, put_ms: Option<i64>) -> Result<(), PartitionError> {
        match (self.rewriter.fence, put_ms) {
            (Fence::Offline, _) => self.check_members(self.range.end).await,
            (Fence::Locks, _) => match self.commits.fence(LockKind::Shared).await? {
                Some(_) => Ok(()),
                None => {
                    let message =
                        "the trusted zone's file system has no locks: stop the distributors and rewrite offline";
                    Err(self.rewriter.refusal(self.partition, message))
                }
            },
            (Fence::Wait(_), None) => Ok(()),
            (Fence::Wait(wait), Some(put_ms)) => {
                let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
                let key = self.commits.store_clock_key();
                fence::wait(self.rewriter, &key, put_ms.saturating_add(wait_ms)).await
            }
        }
    }

    async fn delete(&mut self, intent: &ReplaceIntent, files: &[FileId]) -> Result<Vec<FileId>, PartitionError> {
        self.settling(intent).await?;
        let (store, topic, partition) = (&*self.rewriter.store, &self.rewriter.topic, self.partition);
        let deletes = intent.inputs().filter(|(_, id)| files.contains(id)).map(|(folder, id)| {
            let path = path(topic, partition, folder, id);
            async move { (id, store.delete(&path, None).await) }.boxed()
        });
        let mut deletes = in_turn(deletes);
        let mut deleted = Vec::with_capacity(files.len());
        // Awaits all, also after one has failed: what is still under way then could be overtaken by the next run.
        let mut failure = None;
        while let Some((id, outcome)) = deletes.next().await {
            match outcome {
                Ok(_) => deleted.push(id),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        drop(deletes);
        self.outcome.files_removed += deleted.len() as u64;
        failure.map_or(Ok(deleted), |error| Err(error.into()))
    }

    async fn publish(&mut self, intent: &ReplaceIntent, k: u32, proof: Proof) -> Result<Published, PartitionError> {
        let Some((id, output)) = intent.outputs().nth(k as usize) else {
            return Err(PartitionError::Internal(format!("replace {} has no output {k}", intent.replace)));
        };
        let until = deadline(self.rewriter.host.boot_clock.since_boot_ms(), proof);
        let store = resting_on(&self.rewriter.store, proof);
        match tokio::time::timeout_at(until, self.publish_one(&*store, intent.replace, id, output)).await {
            Ok(published) => published,
            Err(_) => Ok(Published::TooOld),
        }
    }

    async fn drop_staged(&mut self, replace: u64) -> Result<(), PartitionError> {
        self.staged.retain(|(of, _), _| *of != replace);
        drop_below(&*self.rewriter.store, &self.commits.staged_prefix(replace)).await
    }
}

impl Work<'_, '_> {
    async fn check_members(&self, end: i64) -> Result<(), PartitionError> {
        match self.rewriter.fence {
            Fence::Offline => self.rewriter.refuse_members(self.partition, end).await,
            Fence::Locks | Fence::Wait(_) => Ok(()),
        }
    }

    async fn publish_one(
        &mut self,
        store: &dyn Store,
        replace: u64,
        id: FileId,
        output: &Planned,
    ) -> Result<Published, PartitionError> {
        let path = path(&self.rewriter.topic, self.partition, &output.folder, id);
        let staged_path = format!("{}{path}", self.commits.staged_prefix(replace));
        loop {
            // In this order: another run drops what is staged after it has published it.
            let (staged, published) = (store.head(&staged_path).await?, store.head(&path).await?);
            match (staged, published) {
                (None, None) => return Ok(Published::Gone),
                (None, Some(_)) => return Ok(Published::Stands),
                (Some(staged), Some(published)) if staged.size_bytes != published.size_bytes => {
                    let message = "it is not the file that belongs there; move it away".to_owned();
                    return Err(PartitionError::Damaged { key: path, message });
                }
                (Some(_), Some(_)) => {}
                (Some(staged), None) => match store.copy(&staged_path, &staged.version, &path).await {
                    Ok(()) => self.outcome.bytes_made += staged.size_bytes,
                    Err(error) if error.kind == StoreErrorKind::VersionMismatch => continue,
                    Err(error) => return Err(error.into()),
                },
            }
            self.outcome.files_made += 1;
            return Ok(Published::Stands);
        }
    }
}

/// Drops what is staged of replaces that are not under way any more: a run that was cut short, or slept, left it.
pub(super) async fn drop_spent(rewriter: &Rewriter, commits: &CommitLog, state: &State) -> Result<(), PartitionError> {
    let root = commits.staged_root();
    let options = ListOptions { prefix: root.clone(), delimiter: true, ..ListOptions::default() };
    let page = rewriter.store.list(&options).await?;
    let numbers = page.prefixes.iter().filter_map(|folder| {
        folder.strip_prefix(&root).and_then(|name| name.trim_end_matches('/').parse::<u64>().ok())
    });
    let is_open = |number: u64| state.head.replaces().any(|open| open.intent.replace == number);
    for number in numbers.filter(|number| *number < state.head.next_replace && !is_open(*number)) {
        drop_below(&*rewriter.store, &commits.staged_prefix(number)).await?;
    }
    Ok(())
}

async fn drop_below(store: &dyn Store, prefix: &str) -> Result<(), PartitionError> {
    loop {
        let options = ListOptions { prefix: prefix.to_owned(), ..ListOptions::default() };
        let page = store.list(&options).await?;
        if page.objects.is_empty() {
            return Ok(());
        }
        let mut deletes = in_turn(page.objects.iter().map(|object| store.delete(&object.key, None).boxed()));
        while let Some(deleted) = deletes.next().await {
            deleted?;
        }
    }
}
