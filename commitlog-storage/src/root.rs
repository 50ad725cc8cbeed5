//! The root: which checkpoints count, and the floor. It is the only object of a commit log that is ever replaced, each
//! time if it is the version that was read.
//!
//! A checkpoint counts from the moment the root names it. It is made from the one that the root named before, so all that
//! count are one chain, and an object that is older than the newest of them and that none of them names is garbage for
//! ever.

use bytes::Bytes;
use commitlog::{Hash, with_sum, without_sum};
use common::store::{Metadata, PutCondition, PutOutcome};
use serde::{Deserialize, Serialize};

use crate::error::{CommitLogError, Result};
use crate::{CommitLog, Damage};

const ROOT_VERSION: u32 = 1;
const MAX_ROOT_BYTES: u64 = 4096;
/// The newest, and some for those who still read them.
const KEPT_CHECKPOINTS: usize = 3;

/// A checkpoint that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointRef {
    pub entries: u64,
    pub sha256: Hash,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    pub(crate) version: u32,
    /// Entries below it may have been deleted.
    pub floor: u64,
    /// Newest first.
    pub checkpoints: Vec<CheckpointRef>,
}

impl Default for Root {
    fn default() -> Self {
        Self { version: ROOT_VERSION, floor: 0, checkpoints: Vec::new() }
    }
}

impl Root {
    pub fn newest(&self) -> Option<CheckpointRef> {
        self.checkpoints.first().copied()
    }

    fn check(&self) -> std::result::Result<(), String> {
        if self.version != ROOT_VERSION {
            return Err(format!("version {}, this build reads {ROOT_VERSION}", self.version));
        }
        let descends = self.checkpoints.is_sorted_by(|newer, older| newer.entries > older.entries);
        let newest = self.newest().map_or(0, |newest| newest.entries);
        if !descends || self.floor > newest {
            return Err(format!("floor {} and checkpoints {:?} do not fit", self.floor, self.checkpoints));
        }
        Ok(())
    }
}

impl CommitLog {
    /// # Errors
    /// Of the store, and an object that is no root.
    pub async fn root(&self) -> Result<Root> {
        Ok(self.read_root().await?.0)
    }

    /// Entries below this number may have been deleted.
    ///
    /// # Errors
    /// As [`CommitLog::root`].
    pub async fn floor(&self) -> Result<u64> {
        Ok(self.root().await?.floor)
    }

    async fn read_root(&self) -> Result<(Root, PutCondition)> {
        let key = self.root_key();
        let Some((meta, body)) = self.read_with_meta(&key, MAX_ROOT_BYTES).await? else {
            return Ok((Root::default(), PutCondition::IfAbsent));
        };
        let damaged = |message: String| CommitLogError::damaged(key.clone(), Damage::Root { message });
        let json = without_sum(&body).map_err(|error| damaged(error.to_string()))?;
        let root: Root = serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
        root.check().map_err(damaged)?;
        Ok((root, PutCondition::IfVersion(meta.version)))
    }

    /// Changes the root, again and again until nobody else has changed it meanwhile. None from `change`: it is to stay.
    async fn change_root(&self, change: impl Fn(&Root) -> Option<Root> + Send + Sync) -> Result<Root> {
        let key = self.root_key();
        loop {
            let (root, condition) = self.read_root().await?;
            let Some(changed) = change(&root) else { return Ok(root) };
            let unwritable =
                |message: String| CommitLogError::Unwritable { key: key.clone(), damage: Damage::Root { message } };
            changed.check().map_err(unwritable)?;
            let json = serde_json::to_vec(&changed).map_err(|error| unwritable(error.to_string()))?;
            let put = self.store.put(&key, Bytes::from(with_sum(&json)), condition, &Metadata::new()).await?;
            if let PutOutcome::Written(_) = put {
                return Ok(changed);
            }
            // Another one changed it: each round somebody got further. Or it was this one, and the answer was lost.
        }
    }

    /// Raises the floor, which never sinks. Returns what it is then.
    ///
    /// # Errors
    /// As [`CommitLog::root`]; and a floor above the newest checkpoint.
    pub async fn raise_floor(&self, to: u64) -> Result<u64> {
        let raised = |root: &Root| (root.floor < to).then(|| Root { floor: to, ..root.clone() });
        Ok(self.change_root(raised).await?.floor)
    }

    /// Lets a checkpoint count that was made from `before`, the newest one that counted then. Returns whether it does: not if
    /// another one was faster.
    pub(crate) async fn name_checkpoint(&self, before: Option<CheckpointRef>, new: CheckpointRef) -> Result<bool> {
        let named = |root: &Root| {
            let is_next = root.newest() == before;
            is_next.then(|| {
                let kept = root.checkpoints.iter().copied().take(KEPT_CHECKPOINTS - 1);
                Root { checkpoints: std::iter::once(new).chain(kept).collect(), ..root.clone() }
            })
        };
        Ok(self.change_root(named).await?.newest() == Some(new))
    }
}
