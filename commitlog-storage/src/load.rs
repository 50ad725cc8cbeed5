//! The state at the tail: the newest checkpoint and the entries after it.

use commitlog::{Checkpoint, Entry, Head, Invalid, MAX_ENTRY_BYTES, Op, Segment, SegmentRef, Span, State};
use std::collections::BTreeMap;

use common::store::ListOptions;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::error::{CommitLogError, Result};
use crate::names::number_of;
use crate::{AT_ONCE, CommitLog, Damage, Tail};

/// A checkpoint has head and names of segments: 100 million batches have 100,000 segments, of 130 bytes each.
const MAX_CHECKPOINT_BYTES: u64 = 64 * 1024 * 1024;
/// 1,000 batches of 10 files are some 2 MB; one batch may have 10,000 files.
const MAX_SEGMENT_BYTES: u64 = 256 * 1024 * 1024;
/// How often entries may vanish while they are read, each time because collection got further.
const MAX_RETRIES: usize = 5;

/// A commit log at its tail, without what only its checkpoint holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    pub head: Head,
    pub tail: Tail,
    pub recent: Recent,
}

/// What was decided since a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recent {
    pub checkpoint: Option<Checkpoint>,
    /// The entries after the checkpoint.
    entries: Vec<Vec<Op>>,
    /// The fate of the offsets that these entries decide, by the first.
    spans: BTreeMap<i64, Span>,
}

impl Recent {
    /// Whether the commit log has no entry.
    pub fn is_empty(&self) -> bool {
        self.checkpoint.is_none() && self.entries.is_empty()
    }

    /// Takes one entry more. `before` is the head before it.
    pub(crate) fn push(&mut self, before: &Head, ops: Vec<Op>) -> std::result::Result<(), Invalid> {
        let mut state = State { head: before.clone(), ..State::default() };
        state.apply(&ops)?;
        self.spans.extend(state.spans);
        self.entries.push(ops);
        Ok(())
    }
}

impl CommitLog {
    /// Reads the newest checkpoint and the entries after it: two listings, one object, and the entries, side by side.
    ///
    /// # Errors
    /// Of the store, and whatever is damaged or missing.
    pub async fn load(&self) -> Result<Loaded> {
        let mut retries = 0;
        loop {
            // In this order: entries that a newer checkpoint holds may be gone, and this one is then found.
            let newest = self.newest(&self.entries_prefix()).await?;
            let checkpointed = self.newest(&self.checkpoints_prefix()).await?;
            let checkpoint = match checkpointed {
                Some(entries) => self.find_checkpoint(entries).await?,
                None => None,
            };
            if let (Some(entries), None) = (checkpointed, &checkpoint) {
                // A newer one was put, and this one collected.
                self.retry(&mut retries, self.checkpoint_key(entries))?;
                continue;
            }
            let from = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.entries);
            let end = newest.map_or(0, |n| n + 1);
            if end < from {
                // Others may have appended, and put the checkpoint, between the two listings.
                if self.newest(&self.entries_prefix()).await?.is_some_and(|n| n >= from.saturating_sub(1)) {
                    self.retry(&mut retries, self.entry_key(from.saturating_sub(1)))?;
                    continue;
                }
                return Err(CommitLogError::damaged(self.entries_prefix(), Damage::EntriesLost { entries: from }));
            }
            match self.fold(checkpoint, end).await? {
                Ok(loaded) => return Ok(loaded),
                Err(missing) => self.retry(&mut retries, self.entry_key(missing))?,
            }
        }
    }

    #[allow(clippy::unused_self, reason = "reads as a step of the load")]
    fn retry(&self, retries: &mut usize, key: String) -> Result<()> {
        *retries += 1;
        if *retries > MAX_RETRIES { Err(CommitLogError::damaged(key, Damage::Missing)) } else { Ok(()) }
    }

    /// The number of the newest object below a prefix.
    async fn newest(&self, prefix: &str) -> Result<Option<u64>> {
        let options = ListOptions { prefix: prefix.to_owned(), start_after: None, limit: Some(1), delimiter: false };
        let page = self.store.list(&options).await?;
        page.objects.first().map(|object| number_of(&object.key, prefix)).transpose()
    }

    /// Folds the entries up to `end`; or the number of one that is missing.
    async fn fold(&self, checkpoint: Option<Checkpoint>, end: u64) -> Result<std::result::Result<Loaded, u64>> {
        let mut head = checkpoint.as_ref().map(|checkpoint| checkpoint.head.clone()).unwrap_or_default();
        let mut tail = Tail { next: head.next, last: checkpoint.as_ref().map(|checkpoint| checkpoint.last_entry) };
        let mut recent = Recent { checkpoint, ..Recent::default() };
        let mut bodies = stream::iter(tail.next..end)
            .map(|n| async move { self.read(&self.entry_key(n), MAX_ENTRY_BYTES as u64).await })
            .buffered(AT_ONCE);
        while let Some(body) = bodies.try_next().await? {
            let Some(body) = body else { return Ok(Err(tail.next)) };
            let key = self.entry_key(tail.next);
            let damaged = |damage: Damage| CommitLogError::damaged(&key, damage);
            let sealed = Entry::open(&body, tail.next, tail.last).map_err(|error| damaged(error.into()))?;
            let before = head.clone();
            head.apply(&sealed.entry.ops).map_err(|invalid| damaged(invalid.into()))?;
            tail = tail.after(&sealed);
            recent.push(&before, sealed.entry.ops).map_err(|invalid| damaged(invalid.into()))?;
        }
        Ok(Ok(Loaded { head, tail, recent }))
    }

    pub(crate) async fn find_checkpoint(&self, entries: u64) -> Result<Option<Checkpoint>> {
        let key = self.checkpoint_key(entries);
        let Some(body) = self.read(&key, MAX_CHECKPOINT_BYTES).await? else { return Ok(None) };
        Checkpoint::decode(&body, entries).map(Some).map_err(|error| CommitLogError::damaged(key, error))
    }

    /// A segment that a checkpoint names.
    ///
    /// # Errors
    /// Of the store, and a segment that is missing or altered.
    pub async fn segment(&self, named: &SegmentRef) -> Result<Segment> {
        let key = self.segment_key(named.sha256);
        let body = self.read(&key, MAX_SEGMENT_BYTES).await?;
        let body = body.ok_or_else(|| CommitLogError::damaged(&key, Damage::Missing))?;
        named.decode(&body).map_err(|error| CommitLogError::damaged(key, error))
    }

    /// The whole state at the tail: every span and every live file.
    ///
    /// # Errors
    /// As [`CommitLog::load`] and [`CommitLog::segment`].
    pub async fn load_state(&self) -> Result<(State, Tail, Loaded)> {
        let loaded = self.load().await?;
        let state = self.state_at(&loaded.recent).await?;
        Ok((state, loaded.tail, loaded))
    }

    /// The whole state after the entries of `recent`.
    ///
    /// # Errors
    /// As [`CommitLog::segment`].
    pub async fn state_at(&self, recent: &Recent) -> Result<State> {
        let mut state = State::default();
        if let Some(checkpoint) = &recent.checkpoint {
            let segments: Vec<Segment> = stream::iter(checkpoint.segments.clone())
                .map(|named| async move { self.segment(&named).await })
                .buffered(AT_ONCE)
                .try_collect()
                .await?;
            state = checkpoint
                .join(segments)
                .map_err(|error| CommitLogError::damaged(self.checkpoint_key(checkpoint.entries), error))?;
        }
        for ops in &recent.entries {
            let n = state.head.next;
            state.apply(ops).map_err(|invalid| CommitLogError::damaged(self.entry_key(n), invalid))?;
        }
        Ok(state)
    }

    /// Spans in order, those just before `offset`: since the checkpoint, or of one segment. Empty where the commit log
    /// begins.
    ///
    /// # Errors
    /// As [`CommitLog::segment`].
    pub async fn spans_before(&self, recent: &Recent, offset: i64) -> Result<BTreeMap<i64, Span>> {
        let lately: BTreeMap<i64, Span> =
            recent.spans.range(..offset).map(|(from, span)| (*from, span.clone())).collect();
        let named = recent.checkpoint.as_ref().and_then(|checkpoint| checkpoint.segment_of(offset - 1));
        match named {
            Some(named) if lately.is_empty() => {
                let segment = self.segment(named).await?;
                Ok(segment.spans.into_iter().filter(|(from, _)| *from < offset).collect())
            }
            _ => Ok(lately),
        }
    }
}
