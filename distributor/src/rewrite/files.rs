//! What a rewrite does with files, as the replacer of the core asks for it.

use async_trait::async_trait;
use commitlog::actor::Choice;
use commitlog::{FileId, Planned, ReplaceIntent, State, Stored};
use commitlog_storage::Proof;
use commitlog_storage::replacing::{Files, Published, Staged};
use common::store::{ListOptions, LockKind, Store, StoreErrorKind, Version};
use futures_util::{FutureExt, StreamExt};

use super::fence::{self, Fence};
use super::outputs::Unmakeable;
use super::run::Work;
use crate::batch::path;
use crate::error::PartitionError;
use crate::in_turn::in_turn;
use crate::owner::files::{deadline, hash_in, resting_on};

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

    async fn examine(&mut self, intent: &ReplaceIntent, decided: &[Stored]) -> Result<Vec<u32>, PartitionError> {
        let (store, commits) = (&*self.rewriter.store, &self.commits);
        let (topic, partition) = (&self.rewriter.topic, self.partition);
        let looks = (0u32..).zip(intent.outputs().zip(decided)).map(|(k, ((id, output), stored))| {
            let path = path(topic, partition, &output.folder, id);
            let staged = commits.staged_key(intent.replace, k);
            async move { (k, *stored, examine_one(store, &staged, &path, stored).await) }.boxed()
        });
        let (mut looks, mut gone) = (in_turn(looks), Vec::new());
        let mut examined = Vec::new();
        while let Some((k, stored, found)) = looks.next().await {
            match found? {
                Some(version) => examined.push((k, Examined { stored, version })),
                None => gone.push(k),
            }
        }
        drop(looks);
        for k in &gone {
            self.staged.remove(&(intent.replace, *k));
        }
        self.examined = examined.into_iter().map(|(k, examined)| ((intent.replace, k), examined)).collect();
        gone.sort_unstable();
        Ok(gone)
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
        match tokio::time::timeout_at(until, self.publish_one(&*store, (intent.replace, k), id, output)).await {
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
        (replace, k): (u64, u32),
        id: FileId,
        output: &Planned,
    ) -> Result<Published, PartitionError> {
        let Some(examined) = self.examined.get(&(replace, k)) else {
            return Err(PartitionError::Internal(format!("output {k} of replace {replace} was not examined")));
        };
        let path = path(&self.rewriter.topic, self.partition, &output.folder, id);
        let staged_path = self.commits.staged_key(replace, k);
        loop {
            // In this order: another run drops what is staged after it has published it.
            let (staged, published) = (store.head(&staged_path).await?, store.head(&path).await?);
            match (staged, published) {
                (None, None) => return Ok(Published::Gone),
                (None, Some(_)) => return Ok(Published::Stands),
                (Some(_), Some(_)) => match stands_as(store, &path, &examined.stored).await? {
                    Some(true) => {}
                    Some(false) => return Err(foreign(path)),
                    None => continue,
                },
                (Some(staged), None) if examined.version.as_ref() != Some(&staged.version) => {
                    return Ok(Published::Gone);
                }
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

/// An output of a decided replace that stands as it was decided.
pub(super) struct Examined {
    stored: Stored,
    /// Of what is staged; none, if it is published already.
    version: Option<Version>,
}

/// Whether an output stands as it was decided: its version, if it is staged and not published. What is staged and was
/// altered is deleted.
async fn examine_one(
    store: &dyn Store,
    staged: &str,
    path: &str,
    stored: &Stored,
) -> Result<Option<Option<Version>>, PartitionError> {
    // In this order: another run drops what is staged after it has published it.
    let head = store.head(staged).await?;
    match stands_as(store, path, stored).await? {
        Some(true) => return Ok(Some(None)),
        Some(false) => return Err(foreign(path.to_owned())),
        None => {}
    }
    let Some(head) = head else { return Ok(None) };
    match stands_as(store, staged, stored).await? {
        Some(true) => return Ok(Some(Some(head.version))),
        Some(false) => {
            tracing::warn!(key = staged, "it was altered since it was staged; it is made again");
            store.delete(staged, Some(&head.version)).await?;
        }
        None => {}
    }
    Ok(None)
}

/// Whether an object has the bytes that were decided; none: it does not exist.
async fn stands_as(store: &dyn Store, key: &str, stored: &Stored) -> Result<Option<bool>, PartitionError> {
    let found = hash_in(store, key).await?;
    Ok(found.map(|(bytes, sha256)| (bytes, sha256) == (stored.bytes, stored.sha256)))
}

fn foreign(key: String) -> PartitionError {
    let message = "it is not the output of the rewrite that belongs there; move it away".to_owned();
    PartitionError::Damaged { key, message }
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
