//! Runs the abandoner of the core over a store. What it does with files is [`Names`]; what is decided, the core decides.

use async_trait::async_trait;
use commitlog::actor::{Action, Answer, Misheard};
use commitlog::decide::{Facts, Refusal};
use commitlog::{Abandoner, Intent, Op};

use crate::CommitLogError;
use crate::session::Session;

/// What an abandoner does with log and files.
#[async_trait]
pub trait Names: Send {
    type Error: From<CommitLogError> + Send;

    /// Reads what log and group say.
    async fn facts(&mut self) -> Result<Facts, Self::Error>;

    /// Takes the name of file `k` of a batch with a file without rows, whatever stands there. What stands there is kept
    /// aside first.
    async fn blank(&mut self, intent: &Intent, k: u32) -> Result<(), Self::Error>;
}

/// How an abandoner ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The batch is closed.
    Abandoned { from: i64, resume_at: i64 },
    /// A person has to act, or nothing is to be done.
    Refused(Refusal),
}

/// An abandoner at work.
pub struct Abandoning<N> {
    session: Session,
    abandoner: Abandoner,
    names: N,
}

impl<N: Names> Abandoning<N> {
    pub fn new(session: Session, names: N) -> Self {
        Self { session, abandoner: Abandoner::default(), names }
    }

    /// Closes the batch whose head the log has lost. May be dropped at any moment: the next one goes on.
    ///
    /// # Errors
    /// Of the store, and of the names.
    pub async fn run(mut self) -> Result<Ended, N::Error> {
        let mut from = 0;
        loop {
            let answer = match self.abandoner.next() {
                Action::Load => self.session.load().await?,
                Action::Facts => Answer::Facts(self.names.facts().await?),
                Action::ReadFloor => self.session.floor().await?,
                Action::Blank { files, .. } => {
                    self.blank(&files).await?;
                    continue;
                }
                Action::Append { ops, .. } => {
                    if let [Op::Abandoned(abandoned)] = &ops[..] {
                        from = abandoned.from;
                    }
                    self.session.append(&ops).await?
                }
                Action::Rest => return Ok(Ended::Abandoned { from, resume_at: self.abandoner.head().end }),
                Action::Refuse(refusal) => return Ok(Ended::Refused(refusal)),
                action => return Err(CommitLogError::from(Misheard::unknown(&action)).into()),
            };
            self.hear(answer)?;
        }
    }

    fn hear(&mut self, answer: Answer) -> Result<(), N::Error> {
        Ok(self.abandoner.heard(answer).map_err(CommitLogError::from)?)
    }

    async fn blank(&mut self, files: &[u32]) -> Result<(), N::Error> {
        let intent = self.abandoner.head().intent().cloned();
        let action = Action::Blank { from: 0, files: files.to_vec() };
        let intent = intent.ok_or_else(|| CommitLogError::from(Misheard::unknown(&action)))?;
        for k in files.iter().copied() {
            self.names.blank(&intent, k).await?;
            self.hear(Answer::Blanked { k })?;
        }
        Ok(())
    }
}
