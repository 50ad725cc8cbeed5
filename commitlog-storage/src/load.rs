//! The state at the tail: the newest checkpoint and the entries after it.

use std::collections::{BTreeMap, BTreeSet};

use commitlog::{Checkpoint, Entry, Head, Invalid, MAX_ENTRY_BYTES, Op, Places, Span, State};
use common::store::ListOptions;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::error::{CommitLogError, Result};
use crate::names::number_of;
use crate::root::CheckpointRef;
use crate::{AT_ONCE, CommitLog, Damage, Tail};

/// How often entries may vanish while they are read, each time because collection got further.
const MAX_RETRIES: usize = 5;

/// A commit log at its tail, without what only its checkpoint holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    pub head: Head,
    pub tail: Tail,
    pub recent: Recent,
}

/// The state after some entries, and the entries after them.
pub type Since<'a> = (Head, &'a [Vec<Op>]);

/// What was decided since a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recent {
    /// The checkpoint, and its name in the root.
    pub(crate) base: Option<(CheckpointRef, Checkpoint)>,
    /// The entries after the checkpoint.
    entries: Vec<Vec<Op>>,
    /// The fate of the offsets that these entries decide, by the first.
    spans: BTreeMap<i64, Span>,
    /// Key runs of batches that begin before it may have been deleted.
    keys_from: i64,
}

impl Recent {
    /// Whether the commit log has no entry.
    pub fn is_empty(&self) -> bool {
        self.base.is_none() && self.entries.is_empty()
    }

    /// What was decided since `base`: nothing yet.
    fn since(base: Option<(CheckpointRef, Checkpoint)>) -> Self {
        let keys_from = base.as_ref().map_or(0, |(_, checkpoint)| checkpoint.head.keys_from);
        Self { base, keys_from, ..Self::default() }
    }

    /// Everything before this offset is decided, if anything is.
    pub fn end(&self) -> Option<i64> {
        let lately = self.spans.values().next_back().map(|span| span.to);
        lately.or_else(|| self.checkpoint().map(|checkpoint| checkpoint.head.end))
    }

    /// Key runs of batches that begin before this offset may have been deleted.
    pub fn keys_from(&self) -> i64 {
        self.keys_from
    }

    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.base.as_ref().map(|(_, checkpoint)| checkpoint)
    }

    pub(crate) fn entries(&self) -> &[Vec<Op>] {
        &self.entries
    }

    /// Number of the first of the entries.
    pub(crate) fn first_entry(&self) -> u64 {
        self.checkpoint().map_or(0, |checkpoint| checkpoint.entries)
    }

    /// The state after the first `entries` entries, and those after them. None: it rests on a later checkpoint, or there are
    /// fewer.
    ///
    /// # Errors
    /// An entry that is not valid after those before it. Those that were read are.
    pub fn since_entry(&self, entries: u64) -> std::result::Result<Option<Since<'_>>, Invalid> {
        let known = entries.checked_sub(self.first_entry()).and_then(|known| usize::try_from(known).ok());
        let Some((before, after)) = known.and_then(|known| self.entries.split_at_checked(known)) else {
            return Ok(None);
        };
        let mut head = self.checkpoint().map(|checkpoint| checkpoint.head.clone()).unwrap_or_default();
        before.iter().try_for_each(|ops| head.apply(ops))?;
        Ok(Some((head, after)))
    }

    /// Takes one entry more, which is folded into `head`.
    pub(crate) fn push(&mut self, head: &mut Head, ops: Vec<Op>) -> std::result::Result<(), Invalid> {
        self.spans.extend(State::spans_of(head, &ops)?);
        self.keys_from = head.keys_from;
        self.entries.push(ops);
        Ok(())
    }

    /// Forgets what a newer checkpoint holds.
    pub(crate) fn rest_on(&mut self, named: CheckpointRef, checkpoint: Checkpoint) {
        let held = usize::try_from(checkpoint.entries.saturating_sub(self.first_entry())).unwrap_or(usize::MAX);
        self.entries.drain(..held.min(self.entries.len()));
        self.spans = self.spans.split_off(&checkpoint.head.end);
        self.base = Some((named, checkpoint));
    }
}

impl CommitLog {
    /// Reads the newest checkpoint and the entries after it: root, checkpoint, a listing of one object, and the entries,
    /// side by side.
    ///
    /// # Errors
    /// Of the store, and whatever is damaged or missing.
    pub async fn load(&self) -> Result<Loaded> {
        let mut retries = 0;
        loop {
            let base = match self.root().await?.newest() {
                Some(named) => match self.find_checkpoint(named).await? {
                    Some(checkpoint) => Some((named, checkpoint)),
                    None => {
                        // It was superseded and collected.
                        self.retry(&mut retries, self.checkpoint_key(named.entries, named.sha256), Damage::Missing)?;
                        continue;
                    }
                },
                None => None,
            };
            let from = base.as_ref().map_or(0, |(named, _)| named.entries);
            // After the root: the newest entry is never collected, and not older than the checkpoint's last.
            let end = self.newest_entry().await?.map_or(0, |n| n.saturating_add(1));
            if end < from {
                return Err(CommitLogError::damaged(self.entries_prefix(), Damage::EntriesLost { entries: from }));
            }
            match self.fold(Recent::since(base), end).await {
                Ok(Ok(loaded)) => return Ok(loaded),
                Ok(Err(missing)) => {
                    let newest = self.entry_key(end.saturating_sub(1));
                    self.retry(&mut retries, self.entry_key(missing), Damage::MissingBefore { newest })?;
                }
                // What who slept put into holes does not follow, and is no damage.
                Err(CommitLogError::Damaged { .. }) if self.floor().await? > from => {
                    self.retry(&mut retries, self.entry_key(from), Damage::Missing)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    #[allow(clippy::unused_self, reason = "reads as a step of the load")]
    fn retry(&self, retries: &mut usize, key: String, damage: Damage) -> Result<()> {
        *retries += 1;
        if *retries > MAX_RETRIES { Err(CommitLogError::damaged(key, damage)) } else { Ok(()) }
    }

    /// Checks the entries that a checkpoint holds and that are not collected yet: each is there, and follows the one before it
    /// up to the checkpoint. Who loads does not need them; who follows the commit log does. With `deep` they are read.
    ///
    /// # Errors
    /// Of the store; and the first one that is missing or altered.
    pub async fn check_held_entries(&self, recent: &Recent, deep: bool) -> Result<()> {
        let Some((_, checkpoint)) = &recent.base else { return Ok(()) };
        let (mut held, mut start_after) = (BTreeSet::new(), None);
        loop {
            let options = ListOptions { prefix: self.entries_prefix(), start_after, limit: None, delimiter: false };
            let page = self.store.list(&options).await?;
            for object in &page.objects {
                held.insert(number_of(&object.key, &self.entries_prefix())?);
            }
            start_after = page.objects.last().map(|object| object.key.clone());
            if !page.more || start_after.is_none() {
                break;
            }
        }
        // Afterwards: it rises before anything is deleted.
        let floor = self.floor().await?;
        if let Some(missing) = (floor..checkpoint.entries).find(|n| !held.contains(n)) {
            return Err(CommitLogError::damaged(
                self.entry_key(missing),
                Damage::MissingBelow { entries: checkpoint.entries },
            ));
        }
        if !deep {
            return Ok(());
        }
        let mut bodies = stream::iter(floor..checkpoint.entries)
            .map(|n| async move { (n, self.read(&self.entry_key(n), MAX_ENTRY_BYTES as u64).await) })
            .buffered(AT_ONCE);
        let mut previous = None;
        while let Some((n, body)) = bodies.next().await {
            // It was collected since.
            let Some(body) = body? else { return Ok(()) };
            let damaged = |error: commitlog::EntryError| CommitLogError::damaged(self.entry_key(n), error);
            let follows = match previous {
                Some(previous) => Some(previous),
                None => Entry::previous_in(&body).map_err(damaged)?,
            };
            previous = Some(Entry::open(&body, n, follows).map_err(damaged)?.hash);
        }
        match previous {
            Some(found) if found != checkpoint.last_entry => {
                let damage = Damage::Hash { expected: checkpoint.last_entry, found };
                Err(CommitLogError::damaged(self.entry_key(checkpoint.entries.saturating_sub(1)), damage))
            }
            _ => Ok(()),
        }
    }

    /// The number of the newest entry.
    async fn newest_entry(&self) -> Result<Option<u64>> {
        let prefix = self.entries_prefix();
        let options = ListOptions { prefix: prefix.clone(), start_after: None, limit: Some(1), delimiter: false };
        let page = self.store.list(&options).await?;
        page.objects.first().map(|object| number_of(&object.key, &prefix)).transpose()
    }

    /// Folds the entries up to `end`; or the number of one that is missing.
    async fn fold(&self, mut recent: Recent, end: u64) -> Result<std::result::Result<Loaded, u64>> {
        let checkpoint = recent.checkpoint();
        let mut head = checkpoint.map(|checkpoint| checkpoint.head.clone()).unwrap_or_default();
        let mut tail = Tail { next: head.next, last: checkpoint.map(|checkpoint| checkpoint.last_entry) };
        let mut bodies = stream::iter(tail.next..end)
            .map(|n| async move { self.read(&self.entry_key(n), MAX_ENTRY_BYTES as u64).await })
            .buffered(AT_ONCE);
        while let Some(body) = bodies.try_next().await? {
            let Some(body) = body else { return Ok(Err(tail.next)) };
            let key = self.entry_key(tail.next);
            let damaged = |damage: Damage| CommitLogError::damaged(&key, damage);
            let sealed = Entry::open(&body, tail.next, tail.last).map_err(|error| damaged(error.into()))?;
            tail = tail.after(&sealed);
            recent.push(&mut head, sealed.entry.ops).map_err(|invalid| damaged(invalid.into()))?;
        }
        Ok(Ok(Loaded { head, tail, recent }))
    }

    /// The whole state at the tail: every span and every live file. After years of batches it may not fit into memory:
    /// [`CommitLog::state_within`] reads a part of it.
    ///
    /// # Errors
    /// As [`CommitLog::load`] and [`CommitLog::segment`].
    pub async fn load_state(&self) -> Result<(State, Tail, Loaded)> {
        let mut retries = 0;
        loop {
            let loaded = self.load().await?;
            match self.state_at(&loaded.recent).await {
                Err(CommitLogError::Superseded { .. }) if retries < MAX_RETRIES => retries += 1,
                state => return Ok((state?, loaded.tail, loaded)),
            }
        }
    }

    /// A part of the state at the tail, as [`CommitLog::state_within`].
    ///
    /// # Errors
    /// As [`CommitLog::load`] and [`CommitLog::segment`].
    pub async fn load_state_within(&self, from: i64, to: i64) -> Result<State> {
        let mut retries = 0;
        loop {
            let loaded = self.load().await?;
            match self.state_within(&loaded.recent, from, to).await {
                Err(CommitLogError::Superseded { .. }) if retries < MAX_RETRIES => retries += 1,
                state => return state,
            }
        }
    }

    /// The whole state after the entries of `recent`.
    ///
    /// # Errors
    /// As [`CommitLog::segment`].
    pub async fn state_at(&self, recent: &Recent) -> Result<State> {
        let all = recent.checkpoint().map(Checkpoint::all).unwrap_or_default();
        self.state_of(recent, &all).await
    }

    /// A part of the state after the entries of `recent`: the fate of every offset in `[from, to)`, every live file that
    /// may hold rows of them, and perhaps more. It reads the segments that hold these, and those in which the entries
    /// changed files.
    ///
    /// # Errors
    /// As [`CommitLog::segment`]; and [`CommitLogError::Superseded`] if newer checkpoints took the place of the one that
    /// `recent` rests on, and it was collected.
    pub async fn state_within(&self, recent: &Recent, from: i64, to: i64) -> Result<State> {
        let places: Places = recent.checkpoint().map_or_else(Places::new, |checkpoint| {
            checkpoint.within(from, to).into_iter().chain(checkpoint.changed_by(recent.entries())).collect()
        });
        self.state_of(recent, &places).await
    }

    /// Spans in order, those just before `offset`: since the checkpoint, or of one segment. Empty where the commit log
    /// begins.
    ///
    /// # Errors
    /// As [`CommitLog::segment`].
    pub async fn spans_before(&self, recent: &Recent, offset: i64) -> Result<BTreeMap<i64, Span>> {
        let lately: BTreeMap<i64, Span> =
            recent.spans.range(..offset).map(|(from, span)| (*from, span.clone())).collect();
        let named = recent.base.as_ref().and_then(|(checkpoint, held)| {
            held.segment_of(offset.saturating_sub(1)).map(|segment| (*checkpoint, segment))
        });
        match named {
            Some((checkpoint, segment)) if lately.is_empty() => {
                let segment = self.segment_of(checkpoint, segment).await?;
                Ok(segment.spans.into_iter().filter(|(from, _)| *from < offset).collect())
            }
            _ => Ok(lately),
        }
    }
}
