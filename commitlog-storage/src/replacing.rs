//! Runs the replacer of the core over a store. What it does with files is [`Files`]; what is decided, the core decides.

use async_trait::async_trait;
use commitlog::actor::{Action, Answer, Choice, Misheard};
use commitlog::decide::Refusal;
use commitlog::{FileId, Op, Replace, ReplaceIntent, ReplaceSlot, Replacer, Stage, State, Stored};
use common::store::LockKind;

use crate::CommitLogError;
use crate::session::{Entered, Proof, Session};

/// What came of making an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staged {
    Stands(Stored),
    /// An input is missing or altered.
    InputGone(FileId),
    /// The log no longer holds the records.
    OutOfRange,
    /// The log holds other records than those that the inputs were made from.
    OtherRecords,
}

/// What came of publishing an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    Stands,
    /// The store did not accept the proof.
    TooOld,
    /// It is neither staged nor published.
    Gone,
}

/// What a replacer does with files.
#[async_trait]
pub trait Files: Send {
    type Error: From<CommitLogError> + Send;

    /// Where the files begin that are chosen from, and what the state is read from; `None`: with all that there are.
    fn since(&self) -> Option<i64> {
        None
    }

    /// What to replace, if anything.
    async fn choose(&mut self, state: &State) -> Result<Option<Choice>, Self::Error>;

    /// Makes output `k` and puts it below `staged/` if its name is free; says what stands there.
    async fn stage(&mut self, intent: &ReplaceIntent, k: u32) -> Result<Staged, Self::Error>;

    /// Waits until no put that rests on so few entries that it does not know entry `entry` is accepted any more, or is
    /// still to become visible. `put_ms` is when the store took that entry, by the store's clock; none: the
    /// replace is done, for the entry of an open one is never collected.
    async fn await_fence(&mut self, entry: u64, put_ms: Option<i64>) -> Result<(), Self::Error>;

    /// Reads each output, staged or published, and says which of them do not stand as they were decided. Those that were altered
    /// stay until they are staged again.
    async fn examine(&mut self, intent: &ReplaceIntent, decided: &[Stored]) -> Result<Vec<u32>, Self::Error>;

    /// Deletes inputs, and returns those that are certainly gone. Where the store has locks, the fence is held meanwhile.
    async fn delete(&mut self, intent: &ReplaceIntent, files: &[FileId]) -> Result<Vec<FileId>, Self::Error>;

    /// Copies output `k` to its name, if that is free.
    async fn publish(&mut self, intent: &ReplaceIntent, k: u32, proof: Proof) -> Result<Published, Self::Error>;

    /// Deletes what is staged of a replace.
    async fn drop_staged(&mut self, replace: u64) -> Result<(), Self::Error>;
}

/// How a replacer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Nothing is to be replaced.
    Rested,
    /// A person has to act.
    Refused(Refusal),
}

/// A replacer at work.
pub struct Replacing<F> {
    session: Session,
    replacer: Replacer,
    files: F,
}

impl<F: Files> Replacing<F> {
    pub fn new(session: Session, slot: ReplaceSlot, files: F) -> Self {
        Self { session, replacer: Replacer::new(slot), files }
    }

    /// As [`Replacer::accepting_lost_outputs`], if `accepts`.
    #[must_use]
    pub fn accepting_lost_outputs(self, accepts: bool) -> Self {
        if accepts { Self { replacer: self.replacer.accepting_lost_outputs(), ..self } } else { self }
    }

    /// Replaces until nothing is left to be replaced. May be dropped at any moment: whoever comes next goes on.
    ///
    /// # Errors
    /// Of the store, and of the files.
    pub async fn run(mut self) -> Result<Ended, F::Error> {
        loop {
            match self.replacer.next() {
                Action::Refuse(refusal) => return Ok(Ended::Refused(refusal)),
                Action::Rest => return Ok(Ended::Rested),
                action => self.perform(action).await?,
            }
        }
    }

    async fn perform(&mut self, action: Action) -> Result<(), F::Error> {
        let answer = match action {
            Action::Load => self.session.load().await?,
            Action::ReadFloor => self.session.floor().await?,
            Action::Prove { .. } => self.session.prove().await?,
            Action::Append { ops, .. } => self.session.append(&ops).await?,
            Action::Choose { .. } => self.choose().await?,
            Action::AwaitFence { entry } => {
                let put_ms = self.session.log.entry_put_ms(entry).await?;
                self.files.await_fence(entry, put_ms).await?;
                Answer::FencePassed
            }
            Action::DropStaged { replace } => {
                self.files.drop_staged(replace).await?;
                Answer::StagedDropped
            }
            action => return self.carry(action).await,
        };
        self.hear(answer)
    }

    async fn choose(&mut self) -> Result<Answer, F::Error> {
        let (log, recent, since) = (&self.session.log, self.session.recent(), self.files.since());
        let state = match since {
            None => log.state_at(recent).await,
            Some(from) => log.state_within(recent, from, i64::MAX).await,
        };
        let state = match state {
            Err(CommitLogError::Superseded { .. }) => return Ok(Answer::Behind),
            state => state?,
        };
        let is_known = |choice: &Choice| choice.scopes.iter().all(|scope| since.is_none_or(|from| scope.from >= from));
        let choice = self.files.choose(&state).await?;
        let choice = choice.filter(|choice| is_known(choice) && is_valid(&state, choice));
        Ok(choice.map_or(Answer::NothingToReplace, |choice| Answer::Chosen(Box::new(choice))))
    }

    fn hear(&mut self, answer: Answer) -> Result<(), F::Error> {
        Ok(self.replacer.heard(answer).map_err(CommitLogError::from)?)
    }

    /// What is done with the files of the replace that is under way.
    async fn carry(&mut self, action: Action) -> Result<(), F::Error> {
        let unknown = || CommitLogError::from(Misheard::unknown(&action));
        let Replace { intent, stage, .. } = self.replacer.replace().cloned().ok_or_else(unknown)?;
        match &action {
            Action::Stage { outputs, .. } => {
                for k in outputs.iter().copied() {
                    match self.files.stage(&intent, k).await? {
                        Staged::Stands(stored) => {
                            self.hear(Answer::Staged { k, stored })?;
                            if matches!(self.replacer.next(), Action::Refuse(_)) {
                                return Ok(());
                            }
                        }
                        Staged::InputGone(id) => return self.hear(Answer::InputGone(id)),
                        Staged::OutOfRange => return self.hear(Answer::OutOfRange),
                        Staged::OtherRecords => return self.hear(Answer::OtherRecords),
                    }
                }
            }
            Action::Examine { .. } => {
                let Stage::Ready(decided) = stage else { return Err(unknown().into()) };
                let gone = self.files.examine(&intent, &decided).await?;
                self.hear(Answer::Examined { gone })?;
            }
            Action::Delete { files, .. } => {
                let lock = self.session.log.fence(LockKind::Exclusive).await?;
                let deleted = self.files.delete(&intent, files).await?;
                drop(lock);
                self.hear(Answer::Deleted(deleted))?;
            }
            Action::Publish { outputs, .. } => {
                let Entered::Open(_lock) = self.session.enter().await? else { return self.hear(Answer::TooOld) };
                for k in outputs.iter().copied() {
                    let Some(proof) = self.session.proof() else { return self.hear(Answer::TooOld) };
                    match self.files.publish(&intent, k, proof).await? {
                        Published::Stands => self.hear(Answer::Published { k })?,
                        Published::TooOld => return self.hear(Answer::TooOld),
                        Published::Gone => return self.hear(Answer::StagedGone),
                    }
                }
            }
            _ => return Err(unknown().into()),
        }
        Ok(())
    }
}

/// The core asks the head alone, which does not know files.
fn is_valid(state: &State, choice: &Choice) -> bool {
    let intent = choice.clone().intent(state.head.next_replace);
    let (reason, allowed) = (intent.reason, state.allows(&[Op::ReplaceIntent(intent)]));
    if let Err(invalid) = &allowed {
        tracing::warn!(?reason, %invalid, "nothing is replaced: what was chosen is not valid");
    }
    allowed.is_ok()
}
