//! What every actor at work needs of a commit log: to load it, to append, to prove its tail.

use std::sync::Arc;

use commitlog::actor::Answer;
use commitlog::{Head, Invalid, Op};
use common::clock::BootClock;
use common::store::{LockKind, StoreLock};

use crate::error::Result;
use crate::{Append, CommitLog, CommitLogError, Recent, Tail};

/// A proof of the tail is used for so long. The fence waits for several times as much.
pub const PROOF_LASTS_MS: i64 = 5 * 60 * 1000;

/// What a put that makes rows visible rests on: at `proved_ms` these were all entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    pub entries: u64,
    /// By this machine's time since it booted, before the request that proved it was sent.
    pub proved_ms: i64,
}

/// Whether files may be made visible now.
#[derive(Debug)]
pub(crate) enum Entered {
    /// As long as the lock lives, if the store has locks.
    Open(Option<StoreLock>),
    /// Entries were appended: the tail has to be proved again.
    Behind,
}

/// Random text, new for each call: by it an appender knows its own entry.
pub type Writer = Box<dyn FnMut() -> String + Send + Sync>;

/// A commit log as far as one actor has folded it.
pub struct Session {
    pub log: CommitLog,
    clock: Arc<dyn BootClock>,
    writer: Writer,
    head: Head,
    recent: Recent,
    tail: Tail,
    proved_ms: i64,
}

impl Session {
    pub fn new(log: CommitLog, clock: Arc<dyn BootClock>, writer: Writer) -> Self {
        let (head, recent, tail) = (Head::default(), Recent::default(), Tail::default());
        Self { log, clock, writer, head, recent, tail, proved_ms: i64::MIN }
    }

    /// What was decided since a checkpoint.
    pub fn recent(&self) -> &Recent {
        &self.recent
    }

    #[cfg(test)]
    pub(crate) fn tail(&self) -> Tail {
        self.tail
    }

    pub(crate) async fn load(&mut self) -> Result<Answer> {
        let asked_ms = self.clock.since_boot_ms();
        let loaded = self.log.load().await?;
        (self.head, self.recent, self.tail) = (loaded.head, loaded.recent, loaded.tail);
        self.proved_ms = asked_ms;
        Ok(Answer::Loaded(Box::new(self.head.clone())))
    }

    pub(crate) async fn append(&mut self, ops: &[Op]) -> Result<Answer> {
        let (first, answer) = (self.tail.next, self.try_to_append(ops).await);
        Self::unless_behind(&self.log, first, answer).await
    }

    async fn try_to_append(&mut self, ops: &[Op]) -> Result<Answer> {
        let (asked_ms, writer) = (self.clock.since_boot_ms(), (self.writer)());
        match self.log.append(self.tail, &writer, ops).await? {
            Append::Appended { tail } => {
                self.follow(&[ops.to_vec()], tail)?;
                self.proved_ms = asked_ms;
                Ok(Answer::Appended)
            }
            Append::Lost { entries, tail } => {
                let entries: Vec<Vec<Op>> = entries.into_iter().map(|sealed| sealed.entry.ops).collect();
                self.follow(&entries, tail)?;
                Ok(Answer::Lost(entries))
            }
            Append::Behind => Ok(Answer::Behind),
        }
    }

    pub(crate) async fn prove(&mut self) -> Result<Answer> {
        let (first, answer) = (self.tail.next, self.try_to_prove().await);
        Self::unless_behind(&self.log, first, answer).await
    }

    async fn try_to_prove(&mut self) -> Result<Answer> {
        let asked_ms = self.clock.since_boot_ms();
        let (entries, tail) = self.log.follow(self.tail).await?;
        let entries: Vec<Vec<Op>> = entries.into_iter().map(|sealed| sealed.entry.ops).collect();
        self.follow(&entries, tail)?;
        self.proved_ms = asked_ms;
        Ok(Answer::Tail(entries))
    }

    /// Reads the root. It says which checkpoint is the newest, too: what that holds is not kept here.
    pub(crate) async fn floor(&mut self) -> Result<Answer> {
        let root = self.log.root().await?;
        if let Some(named) = root.newest()
            && named.entries > self.recent.first_entry()
            && named.entries <= self.tail.next
            && let Some(checkpoint) = self.log.find_checkpoint(named).await?
        {
            self.recent.rest_on(named, checkpoint);
        }
        Ok(Answer::Floor(root.floor))
    }

    /// What is there does not follow what was folded, or is not valid after it. Below the floor that is no damage: others
    /// who slept put it where entries were deleted.
    async fn unless_behind(log: &CommitLog, first: u64, answer: Result<Answer>) -> Result<Answer> {
        match answer {
            Err(CommitLogError::Damaged { .. }) if first < log.floor().await? => Ok(Answer::Behind),
            answer => answer,
        }
    }

    /// Excludes deletes of replacers while files become visible, where the store has locks: whoever holds the lock and sees
    /// that nothing was appended puts no file that was deleted.
    pub(crate) async fn enter(&self) -> Result<Entered> {
        let Some(lock) = self.log.fence(LockKind::Shared).await? else { return Ok(Entered::Open(None)) };
        let is_at_tail = self.log.is_tail(self.tail).await?;
        Ok(if is_at_tail { Entered::Open(Some(lock)) } else { Entered::Behind })
    }

    fn follow(&mut self, entries: &[Vec<Op>], tail: Tail) -> Result<()> {
        for ops in entries {
            let n = self.head.next;
            let damaged = |invalid: Invalid| CommitLogError::damaged(self.log.entry_key(n), invalid);
            self.recent.push(&mut self.head, ops.clone()).map_err(damaged)?;
        }
        self.tail = tail;
        Ok(())
    }

    /// What puts may rest on; none, if the tail has to be proved again.
    pub(crate) fn proof(&self) -> Option<Proof> {
        let proof = Proof { entries: self.tail.next, proved_ms: self.proved_ms };
        let age_ms = self.clock.since_boot_ms().checked_sub(self.proved_ms)?;
        (0..PROOF_LASTS_MS).contains(&age_ms).then_some(proof)
    }
}
