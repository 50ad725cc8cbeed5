//! Carries the replaces of one partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use commitlog::{FileId, Planned, ReplaceIntent, Stored};
use commitlog_storage::owning::PutFile;
use commitlog_storage::replacing::Published;
use commitlog_storage::{CommitLog, Proof};
use common::log::Log;
use common::store::{LockKind, Store, StoreErrorKind, Version};
use futures_util::{FutureExt, StreamExt};
use tokio::time::Instant;

use super::fence::{self, Fence};
use crate::batch::{FinishedFile, Place, path};
use crate::error::PartitionError;
use crate::host::Host;
use crate::in_turn::in_turn;
use crate::owner::files::{deadline, hash_in, put_under, resting_on};
use crate::refusals;
use crate::scratch::Scratch;
use crate::table::Tables;
use crate::uploads::{UploadRoom, Uploads};

pub(crate) struct Carrier {
    pub store: Arc<dyn Store>,
    /// Needed offline only: it says whether the group has members.
    pub log: Option<Arc<dyn Log>>,
    pub host: Host,
    pub topic: String,
    pub group: String,
    pub partition: i32,
    pub commits: CommitLog,
    pub fence: Fence,
    pub scratch: Scratch,
    /// Tables over the files, which are published before a file is deleted.
    pub tables: Option<Arc<Tables>>,
    /// What is staged, by replace and output.
    staged: BTreeMap<(u64, u32), Stored>,
    /// Outputs of the replace that is decided, which stand as it was.
    examined: BTreeMap<(u64, u32), Examined>,
    /// Outputs of it that are staged and were altered.
    altered: BTreeMap<(u64, u32), Examined>,
    pub files_removed: u64,
    pub files_made: u64,
    pub bytes_made: u64,
}

/// An output of a decided replace, which is there.
struct Examined {
    /// As it was decided.
    stored: Stored,
    /// Of what is staged; none, if it is published already.
    version: Option<Version>,
}

/// Where and for whom replaces are carried.
pub(crate) struct Ground<'a> {
    pub store: &'a Arc<dyn Store>,
    pub log: Option<&'a Arc<dyn Log>>,
    pub host: &'a Host,
    pub topic: &'a str,
    pub group: &'a str,
    pub fence: Fence,
    pub scratch: &'a Scratch,
    pub tables: Option<&'a Arc<Tables>>,
}

impl Carrier {
    pub(crate) fn new(ground: &Ground<'_>, partition: i32) -> Self {
        Self {
            store: ground.store.clone(),
            log: ground.log.cloned(),
            host: ground.host.clone(),
            topic: ground.topic.to_owned(),
            group: ground.group.to_owned(),
            partition,
            commits: CommitLog::new(ground.store.clone(), ground.topic, partition),
            fence: ground.fence,
            scratch: ground.scratch.clone(),
            tables: ground.tables.cloned(),
            staged: BTreeMap::new(),
            examined: BTreeMap::new(),
            altered: BTreeMap::new(),
            files_removed: 0,
            files_made: 0,
            bytes_made: 0,
        }
    }

    pub(crate) fn refusal(&self, message: impl std::fmt::Display) -> PartitionError {
        refusals::text(&self.topic, self.partition, &message.to_string())
    }

    /// What this run has staged as output `k`.
    pub(crate) fn staged(&self, replace: u64, k: u32) -> Option<Stored> {
        self.staged.get(&(replace, k)).copied()
    }

    /// Stages files of one place, each if its name is free. One that was altered is replaced by what it was, and only by that: until
    /// then it may be all that a person has.
    ///
    /// # Errors
    /// The store's; and something else that has one of the names.
    pub(crate) async fn stage(
        &mut self,
        replace: u64,
        place: Place<'_>,
        files: &[FinishedFile],
    ) -> Result<(), PartitionError> {
        let uploads = Uploads::new(&UploadRoom::default());
        let (commits, store, scratch) = (&self.commits, &*self.store, &self.scratch);
        let mut puttable = Vec::with_capacity(files.len());
        for file in files {
            let k = file.sequence;
            if let Some(Examined { stored, version: Some(version) }) = self.altered.get(&(replace, k)) {
                let made = file.stored()?;
                if made != *stored {
                    self.staged.insert((replace, k), made);
                    continue;
                }
                store.delete(&commits.staged_key(&file.folder, replace, k), Some(version)).await?;
            }
            puttable.push(file);
        }
        let puts = puttable.into_iter().map(|file| {
            let (key, uploads) = (commits.staged_key(&file.folder, replace, file.sequence), &uploads);
            async move {
                let put = put_under(store, key.clone(), place, file, (uploads, scratch)).await;
                (file.sequence, key, put)
            }
            .boxed()
        });
        let mut puts = in_turn(puts);
        let mut staged: Vec<(u32, Stored)> = Vec::with_capacity(files.len());
        while let Some((k, key, stored)) = puts.next().await {
            match stored? {
                PutFile::Stands(stored) => staged.push((k, stored)),
                PutFile::TooOld => {
                    let message = "a file without rows has this name; move it away".to_owned();
                    return Err(PartitionError::Damaged { key, message });
                }
            }
        }
        drop(puts);
        self.staged.extend(staged.into_iter().map(|(k, stored)| ((replace, k), stored)));
        Ok(())
    }

    /// Offline: refuses while the group has members. It goes on at `end`, if it has no offset.
    ///
    /// # Errors
    /// It has; the log's.
    pub(crate) async fn check_members(&self, end: i64) -> Result<(), PartitionError> {
        match (&self.log, self.fence) {
            (_, Fence::Locks | Fence::Wait(_)) => Ok(()),
            (Some(log), Fence::Offline) => {
                fence::refuse_members(&**log, (&self.topic, &self.group), self.partition, end).await
            }
            (None, Fence::Offline) => Err(self.refusal("without the log nobody knows whether the group has members")),
        }
    }

    /// As [`commitlog_storage::replacing::Files::await_fence`].
    ///
    /// # Errors
    /// The store's and the log's.
    pub(crate) async fn await_fence(&self, put_ms: Option<i64>, end: i64) -> Result<(), PartitionError> {
        // The replace is decided.
        let readers_until = self.publish_tables().await?;
        self.await_puts(put_ms, end).await?;
        if let Some(until) = readers_until {
            tokio::time::sleep_until(until).await;
        }
        Ok(())
    }

    /// Publishes what the commit log says to the tables. Returns when readers of older versions have had their time.
    async fn publish_tables(&self) -> Result<Option<Instant>, PartitionError> {
        let Some(tables) = &self.tables else { return Ok(None) };
        tables.publish_for(self.partition).await?;
        if !tables.retain.is_zero() {
            let (partition, retain) = (self.partition, tables.retain);
            tracing::info!(partition, ?retain, "waiting for readers of older versions of the tables (table.retain)");
        }
        Ok(Some(Instant::now() + tables.retain))
    }

    async fn await_puts(&self, put_ms: Option<i64>, end: i64) -> Result<(), PartitionError> {
        match (self.fence, put_ms) {
            (Fence::Offline, _) => self.check_members(end).await,
            (Fence::Locks, _) => match self.commits.fence(LockKind::Shared).await? {
                Some(_) => Ok(()),
                None => {
                    let message =
                        "the trusted zone's file system has no locks: stop the distributors, then use --offline";
                    Err(self.refusal(message))
                }
            },
            (Fence::Wait(_), None) => Ok(()),
            (Fence::Wait(wait), Some(put_ms)) => {
                let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
                let key = self.commits.store_clock_key();
                fence::wait(&*self.store, &key, put_ms.saturating_add(wait_ms)).await
            }
        }
    }

    /// As [`commitlog_storage::replacing::Files::examine`].
    ///
    /// # Errors
    /// The store's; and another file under the name of an output.
    pub(crate) async fn examine(
        &mut self,
        intent: &ReplaceIntent,
        decided: &[Stored],
    ) -> Result<Vec<u32>, PartitionError> {
        let (store, commits) = (&*self.store, &self.commits);
        let looks = (0u32..).zip(intent.outputs().zip(decided)).map(|(k, ((id, output), stored))| {
            let path = path(&self.topic, self.partition, &output.folder, id);
            let staged = commits.staged_key(&output.folder, intent.replace, k);
            async move { (k, *stored, examine_one(store, &staged, &path, stored).await) }.boxed()
        });
        let (mut looks, mut gone) = (in_turn(looks), Vec::new());
        let (mut examined, mut altered) = (BTreeMap::new(), BTreeMap::new());
        while let Some((k, stored, found)) = looks.next().await {
            let at = (intent.replace, k);
            match found? {
                Look::Published => drop(examined.insert(at, Examined { stored, version: None })),
                Look::Staged(version) => drop(examined.insert(at, Examined { stored, version: Some(version) })),
                Look::Altered(version) => {
                    gone.push(k);
                    altered.insert(at, Examined { stored, version: Some(version) });
                }
                Look::Gone => gone.push(k),
            }
        }
        drop(looks);
        for k in &gone {
            self.staged.remove(&(intent.replace, *k));
        }
        (self.examined, self.altered) = (examined, altered);
        gone.sort_unstable();
        Ok(gone)
    }

    /// As [`commitlog_storage::replacing::Files::delete`].
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn delete(
        &mut self,
        intent: &ReplaceIntent,
        files: &[FileId],
    ) -> Result<Vec<FileId>, PartitionError> {
        let store = &*self.store;
        let deletes = intent.inputs().filter(|(_, id)| files.contains(id)).map(|(folder, id)| {
            let path = path(&self.topic, self.partition, folder, id);
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
        self.files_removed += deleted.len() as u64;
        failure.map_or(Ok(deleted), |error| Err(error.into()))
    }

    /// As [`commitlog_storage::replacing::Files::publish`].
    ///
    /// # Errors
    /// The store's; and another file under the name of the output.
    pub(crate) async fn publish(
        &mut self,
        intent: &ReplaceIntent,
        k: u32,
        proof: Proof,
    ) -> Result<Published, PartitionError> {
        let Some((id, output)) = intent.outputs().nth(k as usize) else {
            return Err(PartitionError::Internal(format!("replace {} has no output {k}", intent.replace)));
        };
        let until = deadline(self.host.boot_clock.since_boot_ms(), proof);
        let store = resting_on(&self.store, proof);
        match tokio::time::timeout_at(until, self.publish_one(&*store, (intent.replace, k), id, output)).await {
            Ok(published) => published,
            Err(_) => Ok(Published::TooOld),
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
        let path = path(&self.topic, self.partition, &output.folder, id);
        let staged_path = self.commits.staged_key(&output.folder, replace, k);
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
                    Ok(()) => self.bytes_made += staged.size_bytes,
                    Err(error) if error.kind == StoreErrorKind::VersionMismatch => continue,
                    Err(error) => return Err(error.into()),
                },
            }
            self.files_made += 1;
            return Ok(Published::Stands);
        }
    }

    /// As [`commitlog_storage::replacing::Files::drop_staged`].
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn drop_staged(&mut self, replace: u64) -> Result<(), PartitionError> {
        self.await_readers().await?;
        self.staged.retain(|(of, _), _| *of != replace);
        self.commits.delete_staged_of(replace).await?;
        Ok(())
    }

    /// Before something staged is deleted: readers of the tables learn that it has been published, and have their time.
    async fn await_readers(&self) -> Result<(), PartitionError> {
        if let Some(until) = self.publish_tables().await? {
            tokio::time::sleep_until(until).await;
        }
        Ok(())
    }

    /// Drops what is staged of replaces that are not under way any more: a run that was cut short, or slept, left it.
    ///
    /// # Errors
    /// The store's; and something that is not staged by a replacer.
    pub(crate) async fn drop_spent(&self) -> Result<(), PartitionError> {
        let head = self.commits.load().await?.head;
        if !self.commits.has_spent(&head).await? {
            return Ok(());
        }
        self.await_readers().await?;
        self.commits.delete_staged(&head, i64::MAX).await?;
        Ok(())
    }
}

/// How an output of a decided replace was found.
enum Look {
    Published,
    /// As it was decided.
    Staged(Version),
    /// Staged, and altered since.
    Altered(Version),
    Gone,
}

async fn examine_one(store: &dyn Store, staged: &str, path: &str, stored: &Stored) -> Result<Look, PartitionError> {
    // In this order: another run drops what is staged after it has published it.
    let head = store.head(staged).await?;
    match stands_as(store, path, stored).await? {
        Some(true) => return Ok(Look::Published),
        Some(false) => return Err(foreign(path.to_owned())),
        None => {}
    }
    let Some(head) = head else { return Ok(Look::Gone) };
    Ok(match stands_as(store, staged, stored).await? {
        Some(true) => Look::Staged(head.version),
        Some(false) => {
            tracing::warn!(key = staged, "this file was altered since it was staged");
            Look::Altered(head.version)
        }
        None => Look::Gone,
    })
}

/// Whether an object has the bytes that were decided; none: it does not exist.
async fn stands_as(store: &dyn Store, key: &str, stored: &Stored) -> Result<Option<bool>, PartitionError> {
    let found = hash_in(store, key).await?;
    Ok(found.map(|(bytes, sha256)| (bytes, sha256) == (stored.bytes, stored.sha256)))
}

fn foreign(key: String) -> PartitionError {
    let message = "it is not the output that belongs there; move it away".to_owned();
    PartitionError::Damaged { key, message }
}
