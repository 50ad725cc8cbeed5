//! Runs the owner of the core over a store: asks it what to do, does it, and tells it what came of it.
//!
//! What an owner does with records and files is [`Work`]. It decides nothing: whether a batch may be begun, adopted,
//! committed, or has to be dropped, is the core's to say.

use async_trait::async_trait;
use bytes::Bytes;
use commitlog::actor::{Action, Answer, Encoded, Misheard, Unrestored};
use commitlog::decide::{Facts, Refusal};
use commitlog::{FileId, Head, Intent, LiveFile, Op, Owner, Recipe, Stored, Witness};

use crate::session::{Entered, Proof, Session};
use crate::{CommitLogError, Recent};

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

/// What came of restoring a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    /// It is there, whoever put it.
    Present,
    /// The log no longer holds its records, or holds others.
    CannotMake,
    /// The store did not accept the proof.
    TooOld,
}

/// What an owner does with records, files and offsets.
#[async_trait]
pub trait Work: Send {
    type Error: From<CommitLogError> + Send;

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

    /// Makes these live files again, puts each if its name is free, and says of each what came of it.
    async fn put_again(
        &mut self,
        files: &[FileId],
        recent: &Recent,
        proof: Proof,
    ) -> Result<Vec<(FileId, Restored)>, Self::Error>;

    /// Reports live files that are missing and that this owner does not make again.
    fn unrestored(&mut self, unrestored: &Unrestored);

    /// Everything before the offset is decided.
    async fn commit_offset(&mut self, offset: i64) -> Result<(), Self::Error>;

    /// An entry of this owner is in the commit log, which ended at offset `before`. After a commit the batch that was encoded last is complete; without
    /// one, it is useless as soon as another one is to be filled or made.
    fn appended(&mut self, before: i64, ops: &[Op], head: &Head);
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
    session: Session,
    owner: Owner,
    work: W,
}

impl<W: Work> Owning<W> {
    pub fn new(session: Session, recipe: Recipe, restores: bool, work: W) -> Self {
        Self { session, owner: Owner::new(recipe, restores), work }
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
                Action::Fill { at, last } => match self.work.fill(at, last, self.session.recent()).await? {
                    Filled::Ended => return Ok(Ended::Done),
                    filled => self.hear(answer_of(filled))?,
                },
                action => self.perform(action).await?,
            }
        }
    }

    async fn perform(&mut self, action: Action) -> Result<(), W::Error> {
        let answer = match action {
            Action::Load => self.session.load().await?,
            Action::Facts => Answer::Facts(self.work.facts().await?),
            Action::Make(intent) => answer_of(self.work.make(&intent, self.session.recent()).await?),
            Action::Append { ops, .. } => return self.append(&ops).await,
            Action::ReadFloor => self.session.floor().await?,
            Action::Prove { .. } => self.session.prove().await?,
            Action::PutFiles { files, .. } => return self.put_files(&files).await,
            Action::PutKeys { from } => {
                let (keys, run) = self.work.key_run()?;
                Answer::KeysStand(self.session.log.put_key_run(from, keys, run).await?)
            }
            Action::FindMissing { from, .. } => {
                match self.session.log.state_within(self.session.recent(), from, i64::MAX).await {
                    Err(CommitLogError::Superseded { .. }) => Answer::Behind,
                    state => {
                        let live = state?.live.into_iter().filter(|(_, file)| file.to > from).collect();
                        Answer::Missing(self.work.missing(live).await?)
                    }
                }
            }
            Action::PutAgain { files, .. } => return self.put_again(&files).await,
            Action::CommitOffset(offset) => {
                self.work.commit_offset(offset).await?;
                Answer::OffsetCommitted
            }
            Action::Report(unrestored) => {
                self.work.unrestored(&unrestored);
                Answer::Reported
            }
            action => return Err(CommitLogError::from(Misheard::unknown(&action)).into()),
        };
        self.hear(answer)
    }

    fn hear(&mut self, answer: Answer) -> Result<(), W::Error> {
        Ok(self.owner.heard(answer).map_err(CommitLogError::from)?)
    }

    async fn append(&mut self, ops: &[Op]) -> Result<(), W::Error> {
        let before = self.owner.head().end;
        let answer = self.session.append(ops).await?;
        let is_ours = answer == Answer::Appended;
        self.hear(answer)?;
        if is_ours {
            self.work.appended(before, ops, self.owner.head());
        }
        Ok(())
    }

    async fn put_files(&mut self, files: &[u32]) -> Result<(), W::Error> {
        let Some(proof) = self.session.proof() else { return self.hear(Answer::TooOld) };
        let Entered::Open(lock) = self.session.enter().await? else { return self.hear(Answer::TooOld) };
        let (mut is_too_old, outcomes) = (false, self.work.put_files(files, proof).await?);
        drop(lock);
        for (k, outcome) in outcomes {
            match outcome {
                PutFile::Stands(stored) => self.hear(Answer::Stands { k, stored })?,
                PutFile::TooOld => is_too_old = true,
            }
        }
        if is_too_old { self.hear(Answer::TooOld) } else { Ok(()) }
    }

    async fn put_again(&mut self, files: &[FileId]) -> Result<(), W::Error> {
        let Some(proof) = self.session.proof() else { return self.hear(Answer::TooOld) };
        let Entered::Open(lock) = self.session.enter().await? else { return self.hear(Answer::TooOld) };
        let (mut is_too_old, outcomes) = (false, self.work.put_again(files, self.session.recent(), proof).await?);
        drop(lock);
        for (id, outcome) in outcomes {
            match outcome {
                Restored::Present => self.hear(Answer::PutAgain(id))?,
                Restored::CannotMake => self.hear(Answer::CannotMake(id))?,
                Restored::TooOld => is_too_old = true,
            }
        }
        if is_too_old { self.hear(Answer::TooOld) } else { Ok(()) }
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
