//! Reading and putting checkpoints and their segments.

use bytes::Bytes;
use commitlog::{Checkpoint, Hash, Places, Segment, SegmentRef, State};
use common::store::{Metadata, PutCondition};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::error::{CommitLogError, Result};
use crate::root::CheckpointRef;
use crate::{AT_ONCE, CommitLog, Damage, Loaded, Recent};

/// A checkpoint has head and names of segments: 100 million batches have 100,000 segments, of 200 bytes each.
const MAX_CHECKPOINT_BYTES: u64 = 64 * 1024 * 1024;
/// 1,000 batches of 10 files are some 2 MB; one batch may have 10,000 files.
const MAX_SEGMENT_BYTES: u64 = 256 * 1024 * 1024;

impl CommitLog {
    /// A checkpoint that the root names; none if it was collected since.
    pub(crate) async fn find_checkpoint(&self, named: CheckpointRef) -> Result<Option<Checkpoint>> {
        let key = self.checkpoint_key(named.entries, named.sha256);
        let Some(body) = self.read(&key, MAX_CHECKPOINT_BYTES).await? else { return Ok(None) };
        let found = Hash::of(&body);
        if found != named.sha256 {
            return Err(CommitLogError::damaged(key, Damage::Hash { expected: named.sha256, found }));
        }
        let checkpoint = Checkpoint::decode(&body, named.entries);
        checkpoint.map(Some).map_err(|error| CommitLogError::damaged(key, error))
    }

    /// A segment that a checkpoint names.
    ///
    /// # Errors
    /// Of the store, and a segment that is missing or altered.
    pub async fn segment(&self, named: &SegmentRef) -> Result<Segment> {
        let key = self.segment_key(named);
        let body = self.read(&key, MAX_SEGMENT_BYTES).await?;
        let body = body.ok_or_else(|| CommitLogError::damaged(&key, Damage::Missing))?;
        named.decode(&body).map_err(|error| CommitLogError::damaged(key, error))
    }

    /// A segment of a checkpoint that counted when it was read. If it is gone and that checkpoint does not count any more, it
    /// was collected.
    pub(crate) async fn segment_of(&self, checkpoint: CheckpointRef, named: &SegmentRef) -> Result<Segment> {
        match self.segment(named).await {
            Err(CommitLogError::Damaged { damage: Damage::Missing, .. })
                if !self.root().await?.checkpoints.contains(&checkpoint) =>
            {
                Err(CommitLogError::Superseded { entries: checkpoint.entries })
            }
            segment => segment,
        }
    }

    /// The state after the entries of `recent`, of which the checkpoint's segments at `places` are read.
    pub(crate) async fn state_of(&self, recent: &Recent, places: &Places) -> Result<State> {
        let mut state = State::default();
        if let Some((named, checkpoint)) = &recent.base {
            let segments: Vec<SegmentRef> =
                places.iter().filter_map(|place| checkpoint.segments.get(*place)).cloned().collect();
            let segments: Vec<Segment> = stream::iter(segments)
                .map(|segment| async move { self.segment_of(*named, &segment).await })
                .buffered(AT_ONCE)
                .try_collect()
                .await?;
            let key = || self.checkpoint_key(named.entries, named.sha256);
            state = checkpoint.join(segments).map_err(|error| CommitLogError::damaged(key(), error))?;
        }
        for ops in recent.entries() {
            let n = state.head.next;
            state.apply(ops).map_err(|invalid| CommitLogError::damaged(self.entry_key(n), invalid))?;
        }
        Ok(state)
    }

    /// Puts the checkpoint of what was loaded: the segments that changed since the last one, then the checkpoint, then its
    /// name into the root. Returns whether it counts: not if another one was faster, and who wants one has to load again.
    ///
    /// # Errors
    /// Of the store, and whatever is damaged.
    pub async fn put_checkpoint(&self, loaded: &Loaded) -> Result<bool> {
        let before = loaded.recent.base.as_ref();
        let entries = loaded.tail.next;
        if before.is_some_and(|(named, _)| named.entries == entries) {
            return Ok(true);
        }
        let Some(last_entry) = loaded.tail.last else {
            return Err(CommitLogError::damaged(self.entries_prefix(), Damage::EntriesLost { entries: 0 }));
        };
        let changed = before.map(|(_, checkpoint)| checkpoint.changed_by(loaded.recent.entries())).unwrap_or_default();
        let state = match self.state_of(&loaded.recent, &changed).await {
            Err(CommitLogError::Superseded { .. }) => return Ok(false),
            state => state?,
        };
        let unwritable = |error: commitlog::CheckpointError| CommitLogError::Unwritable {
            key: self.checkpoints_prefix(),
            damage: error.into(),
        };
        let split = Checkpoint::split(before.map(|(_, checkpoint)| checkpoint), &changed, &state, last_entry)
            .map_err(unwritable)?;
        stream::iter(split.made)
            .map(|(named, body)| async move {
                let key = self.segment_key(&named);
                self.store.put(&key, Bytes::from(body), PutCondition::IfAbsent, &Metadata::new()).await
            })
            .buffer_unordered(AT_ONCE)
            .try_for_each(|_| async { Ok(()) })
            .await?;
        let body = split.checkpoint.encode().map_err(unwritable)?;
        let named = CheckpointRef { entries, sha256: Hash::of(&body) };
        let key = self.checkpoint_key(entries, named.sha256);
        self.store.put(&key, Bytes::from(body), PutCondition::IfAbsent, &Metadata::new()).await?;
        // What is deleted rests on it: it has to be there.
        let found = self.find_checkpoint(named).await?;
        if found.as_ref() != Some(&split.checkpoint) {
            // One that was faster may have collected it, for it did not count.
            if found.is_none() && self.root().await?.newest() != before.map(|(named, _)| *named) {
                return Ok(false);
            }
            return Err(CommitLogError::damaged(key, Damage::Missing));
        }
        self.name_checkpoint(before.map(|(named, _)| *named), named).await
    }
}
