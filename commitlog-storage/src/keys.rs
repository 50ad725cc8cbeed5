//! Key runs: the deduplication keys of a batch, in bytes that this crate does not look into.

use bytes::Bytes;
use commitlog::{Hash, Stored};
use common::store::{Metadata, PutCondition};

use crate::error::{CommitLogError, Result};
use crate::{CommitLog, Damage};

impl CommitLog {
    /// Puts the key run of the batch that begins at `from`. The same one may be put again.
    ///
    /// # Errors
    /// Of the store.
    pub async fn put_key_run(&self, from: i64, keys: u64, run: Bytes) -> Result<Stored> {
        let stored = Stored { rows: keys, bytes: run.len() as u64, sha256: Hash::of(&run), bounds: None };
        let key = self.key_run_key(from, stored.sha256);
        self.store.put(&key, run, PutCondition::IfAbsent, &Metadata::new()).await?;
        Ok(stored)
    }

    /// The key run that a commit names.
    ///
    /// # Errors
    /// Of the store, and one that is missing or altered: duplicates could not be detected without it.
    pub async fn key_run(&self, from: i64, named: &Stored) -> Result<Bytes> {
        let key = self.key_run_key(from, named.sha256);
        let body = self.read(&key, named.bytes).await?;
        let body = body.ok_or_else(|| CommitLogError::damaged(&key, Damage::Missing))?;
        if body.len() as u64 != named.bytes {
            let damage = Damage::Length { expected: named.bytes, found: body.len() as u64 };
            return Err(CommitLogError::damaged(key, damage));
        }
        let found = Hash::of(&body);
        if found != named.sha256 {
            return Err(CommitLogError::damaged(key, Damage::Hash { expected: named.sha256, found }));
        }
        Ok(body)
    }
}
