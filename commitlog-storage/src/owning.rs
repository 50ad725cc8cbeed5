//! Runs the owner of the core over a store: asks it what to do, does it, and tells it what came of it.
//!
//! What an owner does with records and files is [`Work`]. It decides nothing: whether a batch may be begun, adopted,
//! committed, or has to be dropped, is the core's to say.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use commitlog::actor::{Action, Answer, Encoded, Misheard};
use commitlog::decide::{Facts, Refusal};
use commitlog::{FileId, Head, Intent, Invalid, LiveFile, Op, Owner, Recipe, Stored, Witness};
use common::clock::Clock;

use crate::{Append, CommitLog, CommitLogError, Recent, Tail};

/// A proof of the tail is used for so long. The fence counts with three times as much.
pub const PROOF_LASTS_MS: i64 = 5 * 60 * 1000;

/// What a put that makes rows visible rests on: at `proved_ms` these were all entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    pub entries: u64,
    /// By the clock of the owner, before the request that proved it was sent.
    pub proved_ms: i64,
}

/// What came of reading records.
#[derive(Debug)]
pub enum Filled {
    Batch(Box<Encoded>),
    /// The log no longer has the offset.
    OutOfRange,
    /// Records are not those that were there: the one before `at`, or those of the intent.
    OtherRecords,
    /// A while has passed.
    Woken,
    /// No more is to be read.
    Ended,
}

/// What came of putting a file if its name is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutFile {
    Stands(Stored),
    /// The store did not accept the proof.
    TooOld,
}

/// What an owner does with records, files and offsets.
#[async_trait]
pub trait Work: Send {
    type Error: From<CommitLogError> + From<Misheard> + Send;

    /// Reads what log and group say.
    async fn facts(&mut self) -> Result<Facts, Self::Error>;

    /// Fills a batch from `at` on, and encodes it. `recent` holds what was decided lately, and names the key runs of the
    /// deduplication window.
    async fn fill(&mut self, at: i64, last: Option<Witness>, recent: &Recent) -> Result<Filled, Self::Error>;

    /// Makes the batch of an intent, by its recipe.
    async fn make(&mut self, intent: &Intent, recent: &Recent) -> Result<Filled, Self::Error>;

    /// Puts files of the batch that was encoded last, each if its name is free, and says what stands there.
    async fn put_files(&mut self, files: &[u32], proof: Proof) -> Result<Vec<(u32, PutFile)>, Self::Error>;

    /// Number of keys and key run of the batch that was encoded last.
    fn key_run(&mut self) -> Result<(u64, Bytes), Self::Error>;

    /// Which of these files are not there.
    async fn missing(&mut self, live: Vec<(FileId, LiveFile)>) -> Result<Vec<(FileId, LiveFile)>, Self::Error>;

    /// Makes these files again and puts each if its name is free. Returns those that are there now; none if the store did
    /// not accept the proof.
    async fn put_again(&mut self, files: &[FileId], recent: &Recent, proof: Proof) -> Result<Vec<FileId>, Self::Error>;

    /// Everything before the offset is decided.
    async fn commit_offset(&mut self, offset: i64) -> Result<(), Self::Error>;

    /// An entry of this owner is in the commit log. After a commit the batch that was encoded last is complete; without
    /// one, it is useless as soon as another one is to be filled or made.
    fn appended(&mut self, ops: &[Op], head: &Head);
}

/// How an owner ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Work had nothing more to read.
    Done,
    /// A person has to act.
    Refused(Refusal),
}

/// An owner at work.
pub struct Owning<W> {
    log: CommitLog,
    clock: Arc<dyn Clock>,
    /// Random and new for each entry.
    writer: Box<dyn FnMut() -> String + Send>,
    owner: Owner,
    recent: Recent,
    tail: Tail,
    proved_ms: i64,
    work: W,
}

impl<W: Work> Owning<W> {
    pub fn new(
        log: CommitLog,
        clock: Arc<dyn Clock>,
        writer: Box<dyn FnMut() -> String + Send>,
        recipe: Recipe,
        restores: bool,
        work: W,
    ) -> Self {
        Self {
            log,
            clock,
            writer,
            owner: Owner::new(recipe, restores),
            recent: Recent::default(),
            tail: Tail::default(),
            proved_ms: i64::MIN,
            work,
        }
    }

    /// Works until there is nothing more to read, or a person has to act. May be dropped at any moment: whoever takes the
    /// partition over goes on.
    ///
    /// # Errors
    /// Of the store, and of the work.
    pub async fn run(mut self) -> Result<Ended, W::Error> {
        loop {
            match self.owner.next() {
                Action::Refuse(refusal) => return Ok(Ended::Refused(refusal)),
                Action::Fill { at, last } => match self.work.fill(at, last, &self.recent).await? {
                    Filled::Ended => return Ok(Ended::Done),
                    filled => self.hear(answer_of(filled))?,
                },
                action => self.perform(action).await?,
            }
        }
    }

    fn hear(&mut self, answer: Answer) -> Result<(), Misheard> {
        self.owner.heard(answer)
    }

    async fn perform(&mut self, action: Action) -> Result<(), W::Error> {
        match action {
            Action::Load => self.load().await?,
            Action::Facts => {
                let facts = self.work.facts().await?;
                self.hear(Answer::Facts(facts))?;
            }
            Action::Make(intent) => {
                let made = self.work.make(&intent, &self.recent).await?;
                self.hear(answer_of(made))?;
            }
            Action::Append { ops, .. } => self.append(&ops).await?,
            Action::ReadFloor => {
                let floor = self.log.floor().await?;
                self.hear(Answer::Floor(floor))?;
            }
            Action::Prove { .. } => {
                let asked_ms = self.clock.now_ms();
                let (entries, tail) = self.log.follow(self.tail).await?;
                self.follow(entries.into_iter().map(|sealed| sealed.entry.ops).collect(), tail, Answer::Tail).await?;
                self.proved_ms = asked_ms;
            }
            Action::PutFiles { files, .. } => self.put_files(&files).await?,
            Action::PutKeys { from } => {
                let (keys, run) = self.work.key_run()?;
                let stored = self.log.put_key_run(from, keys, run).await?;
                self.hear(Answer::KeysStand(stored))?;
            }
            Action::FindMissing { from, .. } => {
                let missing = self.find_missing(from).await?;
                self.hear(Answer::Missing(missing))?;
            }
            Action::PutAgain { files, .. } => self.put_again(&files).await?,
            Action::CommitOffset(offset) => {
                self.work.commit_offset(offset).await?;
                self.hear(Answer::OffsetCommitted)?;
            }
            // None of an owner's.
            action => return Err(Misheard { action: format!("{action:?}"), answer: "nothing".to_owned() }.into()),
        }
        Ok(())
    }

    async fn load(&mut self) -> Result<(), W::Error> {
        let asked_ms = self.clock.now_ms();
        let loaded = self.log.load().await?;
        let head = Box::new(loaded.head.clone());
        self.tail = loaded.tail;
        self.recent = loaded.recent;
        self.proved_ms = asked_ms;
        Ok(self.hear(Answer::Loaded(head))?)
    }

    async fn append(&mut self, ops: &[Op]) -> Result<(), W::Error> {
        let (asked_ms, writer) = (self.clock.now_ms(), (self.writer)());
        match self.log.append(self.tail, &writer, ops).await? {
            Append::Appended { tail } => {
                self.follow(vec![ops.to_vec()], tail, |_| Answer::Appended).await?;
                self.proved_ms = asked_ms;
                self.work.appended(ops, self.owner.head());
            }
            Append::Lost { entries, tail } => {
                let entries = entries.into_iter().map(|sealed| sealed.entry.ops).collect();
                self.follow(entries, tail, Answer::Lost).await?;
            }
            Append::Behind => self.begin_again(),
        }
        Ok(())
    }

    /// As after a crash, with what is configured.
    fn begin_again(&mut self) {
        self.owner = self.owner.fresh();
        (self.recent, self.tail, self.proved_ms) = (Recent::default(), Tail::default(), i64::MIN);
    }

    async fn follow(
        &mut self,
        entries: Vec<Vec<Op>>,
        tail: Tail,
        answer: impl FnOnce(Vec<Vec<Op>>) -> Answer,
    ) -> Result<(), W::Error> {
        let mut head = self.owner.head().clone();
        for ops in &entries {
            let damaged = |invalid: Invalid, n| CommitLogError::damaged(self.log.entry_key(n), invalid);
            self.recent.push(&head, ops.clone()).map_err(|invalid| damaged(invalid, head.next))?;
            head.apply(ops).map_err(|invalid| damaged(invalid, head.next))?;
        }
        self.tail = tail;
        Ok(self.hear(answer(entries))?)
    }

    /// What puts may rest on; none, if the tail has to be proved again.
    fn proof(&self) -> Option<Proof> {
        let proof = Proof { entries: self.tail.next, proved_ms: self.proved_ms };
        let age_ms = self.clock.now_ms().checked_sub(self.proved_ms)?;
        (0..PROOF_LASTS_MS).contains(&age_ms).then_some(proof)
    }

    async fn put_files(&mut self, files: &[u32]) -> Result<(), W::Error> {
        let Some(proof) = self.proof() else { return Ok(self.hear(Answer::TooOld)?) };
        for (k, put) in self.work.put_files(files, proof).await? {
            match put {
                PutFile::Stands(stored) => self.hear(Answer::Stands { k, stored })?,
                PutFile::TooOld => return Ok(self.hear(Answer::TooOld)?),
            }
        }
        Ok(())
    }

    async fn find_missing(&mut self, from: i64) -> Result<Vec<(FileId, LiveFile)>, W::Error> {
        let state = self.log.state_at(&self.recent).await?;
        let live = state.live.into_iter().filter(|(_, file)| file.to > from).collect();
        self.work.missing(live).await
    }

    async fn put_again(&mut self, files: &[FileId]) -> Result<(), W::Error> {
        let Some(proof) = self.proof() else { return Ok(self.hear(Answer::TooOld)?) };
        let there = self.work.put_again(files, &self.recent, proof).await?;
        if there.is_empty() {
            return Ok(self.hear(Answer::TooOld)?);
        }
        for id in there {
            self.hear(Answer::PutAgain(id))?;
        }
        Ok(())
    }
}

fn answer_of(filled: Filled) -> Answer {
    match filled {
        Filled::Batch(encoded) => Answer::Encoded(encoded),
        Filled::OutOfRange => Answer::OutOfRange,
        Filled::OtherRecords => Answer::OtherRecords,
        Filled::Woken | Filled::Ended => Answer::Woken,
    }
}

#[cfg(test)]
mod tests;
