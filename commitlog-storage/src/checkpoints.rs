//! Putting checkpoints and their segments.

use bytes::Bytes;
use commitlog::{Checkpoint, SegmentRef, State};
use common::store::{Metadata, PutCondition};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::error::{CommitLogError, Result};
use crate::{AT_ONCE, CommitLog, Damage, Tail};

impl CommitLog {
    /// Puts the checkpoint of a state, and the segments that the one before it does not name, and reads it again. One that
    /// is there already stays.
    ///
    /// # Errors
    /// Of the store; and a checkpoint that is there and is none, or whose segments are not there.
    pub async fn put_checkpoint(&self, state: &State, tail: Tail, before: &[SegmentRef]) -> Result<Checkpoint> {
        let key = self.checkpoint_key(tail.next);
        let Some(last_entry) = tail.last else {
            return Err(CommitLogError::damaged(key, Damage::EntriesLost { entries: 0 }));
        };
        let split = Checkpoint::split(state, last_entry, before)
            .map_err(|error| CommitLogError::Unwritable { key: key.clone(), damage: error.into() })?;
        let mut changed = Vec::new();
        for (named, body) in split.checkpoint.segments.iter().zip(split.segments) {
            if !before.contains(named) {
                changed.push((self.segment_key(named.sha256), Bytes::from(body)));
            }
        }
        stream::iter(changed)
            .map(
                |(key, body)| async move { self.store.put(&key, body, PutCondition::IfAbsent, &Metadata::new()).await },
            )
            .buffer_unordered(AT_ONCE)
            .try_for_each(|_| async { Ok(()) })
            .await?;
        let body = split.checkpoint.encode();
        let body = body.map_err(|error| CommitLogError::Unwritable { key: key.clone(), damage: error.into() })?;
        self.store.put(&key, Bytes::from(body), PutCondition::IfAbsent, &Metadata::new()).await?;
        // Another one may have put it, with segments of other bounds: what stands there has to be whole.
        let stands = self.checkpoint(tail.next).await?;
        if stands.head != state.head || stands.last_entry != last_entry {
            let damage = Damage::Hash { expected: last_entry, found: stands.last_entry };
            return Err(CommitLogError::damaged(key, damage));
        }
        for named in &stands.segments {
            let key = self.segment_key(named.sha256);
            let found = self.store.head(&key).await?;
            let found = found.ok_or_else(|| CommitLogError::damaged(&key, Damage::Missing))?.size_bytes;
            if found != named.bytes {
                return Err(CommitLogError::damaged(key, Damage::Length { expected: named.bytes, found }));
            }
        }
        Ok(stands)
    }
}
