//! Reads and writes the objects of a table's log.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use common::store::{ListOptions, Metadata, PutCondition, PutOutcome, Store, StoreErrorKind, read_all};
use serde::{Deserialize, Serialize};

use crate::action::{Action, read_actions, write_actions};
use crate::checkpoint::{self, Part};
use crate::error::{DeltaError, Result};
use crate::replay::File;
use crate::snapshot::{Head, Snapshot};
use crate::{READER_VERSION, WRITER_VERSION};

/// Versions are signed numbers of 64 bits. None comes near this one but by a forged name.
const MAX_VERSION: u64 = i64::MAX as u64 / 2;
/// The most bytes of a commit that is read.
const MAX_COMMIT_BYTES: u64 = 256 << 20;
/// The most bytes of a checkpoint that is read: some ten million files.
const MAX_CHECKPOINT_BYTES: u64 = 1 << 30;
const MAX_HINT_BYTES: u64 = 64 << 10;
/// How often the log may change while it is read: older objects are deleted after a checkpoint.
const MAX_RETRIES: usize = 2;
/// Objects of the log that are deleted after a checkpoint, at most. The next one goes on.
const MOST_DELETED: usize = 1_000;

/// The log of one table.
#[derive(Clone)]
pub struct DeltaLog {
    store: Arc<dyn Store>,
    prefix: String,
}

/// What came of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    Written,
    /// Another commit has this version.
    Taken,
    /// It was put below a newer checkpoint, where older commits had been deleted: no reader sees it.
    Behind,
}

/// `_last_checkpoint`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hint {
    version: u64,
    size: i64,
    #[serde(default)]
    size_in_bytes: Option<i64>,
    #[serde(default)]
    num_of_add_files: Option<i64>,
}

/// Versions that were listed.
#[derive(Debug, Default)]
struct Listed {
    commits: BTreeSet<u64>,
    checkpoints: BTreeSet<u64>,
}

impl DeltaLog {
    /// The log of the table with this root, such as `events/`.
    pub fn new(store: Arc<dyn Store>, root: &str) -> Self {
        Self { store, prefix: format!("{root}_delta_log/") }
    }

    /// Begin of the keys of every object of the log.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    fn commit_key(&self, version: u64) -> String {
        format!("{}{version:020}.json", self.prefix)
    }

    fn checkpoint_key(&self, version: u64) -> String {
        format!("{}{version:020}.checkpoint.parquet", self.prefix)
    }

    fn hint_key(&self) -> String {
        format!("{}_last_checkpoint", self.prefix)
    }

    pub(crate) fn missing(&self, version: u64) -> DeltaError {
        DeltaError::damaged(self.commit_key(version), "this commit is missing")
    }

    pub(crate) fn commit_damaged(&self, version: u64, message: impl std::fmt::Display) -> DeltaError {
        DeltaError::damaged(self.commit_key(version), message)
    }

    /// The newest version. `None`: the table has no log.
    ///
    /// # Errors
    /// The store's; a log with a gap, with an object that is damaged, or of a version of the protocol that is unknown here.
    pub async fn load(&self) -> Result<Option<Snapshot>> {
        let mut retries = 0;
        loop {
            let outcome = self.try_to_load().await;
            match outcome {
                // Perhaps it was deleted since it was listed.
                Err(DeltaError::Damaged { .. }) if retries < MAX_RETRIES => retries += 1,
                outcome => return outcome,
            }
        }
    }

    async fn try_to_load(&self) -> Result<Option<Snapshot>> {
        let hint = self.hint().await?;
        let mut listed = self.list(hint).await?;
        if hint.is_some() && listed.checkpoints.is_empty() {
            listed = self.list(None).await?;
        }
        let Some(version) = listed.commits.iter().chain(&listed.checkpoints).max().copied() else { return Ok(None) };
        let checkpoint = listed.checkpoints.last().copied();
        let first = checkpoint.map_or(0, |checkpoint| checkpoint + 1);
        if let Some(missing) = (first..=version).find(|version| !listed.commits.contains(version)) {
            return Err(self.missing(missing));
        }
        let mut head = Head::default();
        if let Some(checkpoint) = checkpoint {
            self.read_checkpoint(checkpoint, Part::Head, &mut |action| {
                head.fold(action);
                Ok(())
            })
            .await?;
        }
        for version in first..=version {
            let actions = self.read_commit(version).await?.ok_or_else(|| self.missing(version))?;
            head.fold_commit(version, actions);
        }
        self.snapshot(head, version, checkpoint).map(Some)
    }

    fn snapshot(&self, head: Head, version: u64, checkpoint: Option<u64>) -> Result<Snapshot> {
        let Head { protocol, metadata, txns, foreign } = head;
        let (Some(protocol), Some(metadata)) = (protocol, metadata) else {
            return Err(self.commit_damaged(version, "the log has no protocol or no metadata up to this commit"));
        };
        let (reader, writer) = (protocol.min_reader_version, protocol.min_writer_version);
        if reader > READER_VERSION || writer > WRITER_VERSION {
            return Err(DeltaError::Protocol { key: self.commit_key(version), reader, writer });
        }
        Ok(Snapshot { version, protocol, metadata, txns, checkpoint, foreign })
    }

    /// Reads the commits after a snapshot. Returns whether there were any.
    ///
    /// # Errors
    /// As [`DeltaLog::load`].
    pub async fn follow(&self, snapshot: &mut Snapshot) -> Result<bool> {
        let before = snapshot.version;
        while let Some(actions) = self.read_commit(snapshot.version + 1).await? {
            let Snapshot { version, protocol, metadata, txns, checkpoint, foreign } = snapshot.clone();
            let mut head = Head { protocol: Some(protocol), metadata: Some(metadata), txns, foreign };
            head.fold_commit(version + 1, actions);
            *snapshot = self.snapshot(head, version + 1, checkpoint)?;
        }
        Ok(snapshot.version > before)
    }

    /// Puts commit `version`, which has to be the one after the newest. `id` is new for each call: by it a writer knows its own
    /// commit whose answer was lost.
    ///
    /// # Errors
    /// The store's.
    pub async fn commit(&self, version: u64, id: &str, actions: &[Action]) -> Result<Committed> {
        let key = self.commit_key(version);
        let body = write_actions(actions).map_err(|error| DeltaError::Internal(error.to_string()))?;
        if body.len() as u64 > MAX_COMMIT_BYTES {
            // Nobody could read it again.
            let bytes = body.len();
            let message =
                format!("a commit of {bytes} bytes would be larger than {MAX_COMMIT_BYTES}: delete {}", self.prefix);
            return Err(DeltaError::Internal(format!("{message}, and the table is made anew in several")));
        }
        match self.store.put(&key, body.into(), PutCondition::IfAbsent, &Metadata::new()).await? {
            PutOutcome::Written(_) => {}
            PutOutcome::AlreadyExists | PutOutcome::VersionMismatch => {
                let there = self.read_commit(version).await?.unwrap_or_default();
                let is_ours =
                    |action: &Action| matches!(action, Action::CommitInfo(info) if info.txn_id.as_deref() == Some(id));
                if !there.iter().any(is_ours) {
                    return Ok(Committed::Taken);
                }
            }
        }
        // A writer that slept may have filled a hole that was left where commits are deleted, below the newest checkpoint.
        let is_behind = match self.hint().await?.filter(|newest| *newest >= version) {
            Some(newest) => self.store.head(&self.checkpoint_key(newest)).await?.is_some(),
            None => false,
        };
        Ok(if is_behind { Committed::Behind } else { Committed::Written })
    }

    /// The hint, if there is no checkpoint where it says: readers fail that trust it.
    ///
    /// # Errors
    /// The store's.
    pub async fn false_hint(&self) -> Result<Option<String>> {
        let is_false = match self.hint().await? {
            Some(version) => self.store.head(&self.checkpoint_key(version)).await?.is_none(),
            None => false,
        };
        Ok(is_false.then(|| self.hint_key()))
    }

    /// Deletes such a hint.
    ///
    /// # Errors
    /// The store's.
    pub async fn delete_false_hint(&self) -> Result<()> {
        if let Some(key) = self.false_hint().await? {
            self.store.delete(&key, None).await?;
        }
        Ok(())
    }

    /// Puts a checkpoint of a snapshot, and the hint to it. Removed files that are older than `forget_before_ms` are left out.
    ///
    /// # Errors
    /// The store's; and whatever is damaged.
    pub async fn put_checkpoint(&self, snapshot: &mut Snapshot, forget_before_ms: i64) -> Result<()> {
        let internal = DeltaError::Internal;
        let mut writer = checkpoint::Writer::new().map_err(internal)?;
        writer.push(&Action::Protocol(snapshot.protocol.clone())).map_err(internal)?;
        writer.push(&Action::MetaData(snapshot.metadata.clone())).map_err(internal)?;
        for txn in snapshot.txns.values() {
            writer.push(&Action::Txn(txn.clone())).map_err(internal)?;
        }
        self.visit(snapshot, &mut |file| match file {
            File::Live(add) => writer.push(&Action::Add(add)),
            File::Removed(remove) if remove.deletion_timestamp.unwrap_or(0) < forget_before_ms => Ok(()),
            File::Removed(remove) => writer.push(&Action::Remove(remove)),
        })
        .await?;
        let checkpoint::Written { body, actions, files } = writer.finish().map_err(internal)?;
        let hint = Hint {
            version: snapshot.version,
            size: i64::try_from(actions).unwrap_or(i64::MAX),
            size_in_bytes: i64::try_from(body.len()).ok(),
            num_of_add_files: i64::try_from(files).ok(),
        };
        let hint = serde_json::to_vec(&hint).map_err(|error| internal(error.to_string()))?;
        let put = |key: String, body: Bytes| async move {
            self.store.put(&key, body, PutCondition::None, &Metadata::new()).await
        };
        put(self.checkpoint_key(snapshot.version), body.into()).await?;
        put(self.hint_key(), hint.into()).await?;
        snapshot.checkpoint = Some(snapshot.version);
        Ok(())
    }

    /// Deletes objects of the log that a checkpoint made unnecessary and that are older than `before_ms`, the oldest first, a
    /// limited number at once. Returns how many.
    ///
    /// # Errors
    /// The store's.
    pub async fn clean_up(&self, snapshot: &Snapshot, before_ms: i64) -> Result<usize> {
        let Some(checkpoint) = snapshot.checkpoint else { return Ok(0) };
        let options = ListOptions { prefix: self.prefix.clone(), limit: Some(MOST_DELETED), ..ListOptions::default() };
        let mut deleted = 0;
        for object in self.store.list(&options).await?.objects {
            // Other programs put objects of other names between them.
            let Some((version, _)) = self.number(&object.key) else { continue };
            if version >= checkpoint || object.modified_ms >= before_ms {
                break;
            }
            self.store.delete(&object.key, None).await?;
            deleted += 1;
        }
        Ok(deleted)
    }

    /// Deletes every object of the log, the newest first: while some are left, the log has a gap or an end, and no beginning
    /// that misses files.
    ///
    /// # Errors
    /// The store's.
    pub async fn delete_all(&self) -> Result<()> {
        let mut keys = Vec::new();
        let mut options = ListOptions { prefix: self.prefix.clone(), ..ListOptions::default() };
        loop {
            let page = self.store.list(&options).await?;
            keys.extend(page.objects.into_iter().map(|object| object.key));
            options.start_after = keys.last().cloned();
            if !page.more {
                break;
            }
        }
        for key in keys.iter().rev() {
            self.store.delete(key, None).await?;
        }
        Ok(())
    }

    pub(crate) async fn read_commit(&self, version: u64) -> Result<Option<Vec<Action>>> {
        let key = self.commit_key(version);
        let Some(body) = self.read(&key, MAX_COMMIT_BYTES).await? else { return Ok(None) };
        let actions = read_actions(&body)
            .map_err(|(line, error)| DeltaError::damaged(key, format!("line {line} is no action: {error}")))?;
        Ok(Some(actions))
    }

    pub(crate) async fn read_checkpoint(
        &self,
        version: u64,
        part: Part,
        take: &mut (dyn FnMut(Action) -> std::result::Result<(), String> + Send),
    ) -> Result<()> {
        let key = self.checkpoint_key(version);
        let read = self.read(&key, MAX_CHECKPOINT_BYTES).await?;
        let body = read.ok_or_else(|| DeltaError::damaged(&key, "this checkpoint is missing"))?;
        checkpoint::read(body, part, take).map_err(|error| DeltaError::damaged(key, error))
    }

    /// What is too large is damaged: nobody wrote it who keeps to the protocol.
    async fn read(&self, key: &str, limit_bytes: u64) -> Result<Option<Bytes>> {
        match read_all(&*self.store, key, limit_bytes).await {
            Err(error) if error.kind == StoreErrorKind::TooLarge => Err(DeltaError::damaged(key, error)),
            read => Ok(read?.map(|(_, body)| body)),
        }
    }

    /// The version that `_last_checkpoint` names. What cannot be read is no hint.
    async fn hint(&self) -> Result<Option<u64>> {
        let read = match self.read(&self.hint_key(), MAX_HINT_BYTES).await {
            Err(DeltaError::Damaged { .. }) => None,
            read => read?,
        };
        Ok(read.and_then(|body| serde_json::from_slice::<Hint>(&body).ok()).map(|hint| hint.version))
    }

    /// Lists what there is from a version on.
    async fn list(&self, from: Option<u64>) -> Result<Listed> {
        let start_after = from.map(|version| format!("{}{version:020}", self.prefix));
        let mut options = ListOptions { prefix: self.prefix.clone(), start_after, ..ListOptions::default() };
        let mut listed = Listed::default();
        loop {
            let page = self.store.list(&options).await?;
            for object in &page.objects {
                match self.number(&object.key) {
                    Some((version, Kind::Commit)) => drop(listed.commits.insert(version)),
                    Some((version, Kind::Checkpoint)) => drop(listed.checkpoints.insert(version)),
                    None => {}
                }
            }
            options.start_after = page.objects.last().map(|object| object.key.clone());
            if !page.more || options.start_after.is_none() {
                return Ok(listed);
            }
        }
    }

    /// Of the name of a commit, or of a checkpoint of one file.
    fn number(&self, key: &str) -> Option<(u64, Kind)> {
        let (digits, rest) = key.strip_prefix(&self.prefix)?.split_once('.')?;
        let is_version = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
        let kind = match rest {
            "json" => Kind::Commit,
            "checkpoint.parquet" => Kind::Checkpoint,
            _ => return None,
        };
        let version = is_version.then(|| digits.parse::<u64>().ok()).flatten();
        version.filter(|version| *version <= MAX_VERSION).map(|version| (version, kind))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Commit,
    Checkpoint,
}

#[cfg(test)]
mod tests;
