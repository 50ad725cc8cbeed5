//! Closes a batch whose head the log has lost before it was committed, by an explicit command.
//!
//! 1. `AbandonIntent`: no commit from here on, and it is fixed where reading resumes, whatever the log does,
//! 2. every name of the batch is taken by a file without rows: a late put of anybody finds it taken,
//! 3. `Abandoned`: reading resumes as an ordinary batch, with other names.
//!
//! Files that were there already are the driver's to keep aside before it blanks their names.

use std::collections::BTreeSet;

use crate::actor::{Action, Answer, Check, Misheard, reads_floor_after};
use crate::decide::{Facts, Refusal};
use crate::head::{BatchSlot, Head};
use crate::op::{AbandonIntent, Abandoned, Intent, Op};
use crate::rules::{Rule, holds};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Abandoner {
    head: Head,
    check: Check,
    phase: Phase,
    blanked: BTreeSet<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    Load,
    Look,
    Begin(AbandonIntent),
    Close,
    Rest,
    Refused(Refusal),
}

impl Default for Abandoner {
    fn default() -> Self {
        Self { head: Head::default(), check: Check::None, phase: Phase::Load, blanked: BTreeSet::new() }
    }
}

impl Abandoner {
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// What it wants done.
    pub fn next(&self) -> Action {
        if self.check != Check::None {
            return Action::ReadFloor;
        }
        let append = |op| Action::Append { n: self.head.next, ops: vec![op] };
        match &self.phase {
            Phase::Load => Action::Load,
            Phase::Look => Action::Facts,
            Phase::Begin(abandon) => {
                let files = self.to_blank();
                if !files.is_empty() && !holds(Rule::AbandonBeforeBlank) {
                    return Action::Blank { from: abandon.from, files };
                }
                append(Op::AbandonIntent(abandon.clone()))
            }
            Phase::Close => {
                let from = self.head.intent().map_or(0, |intent| intent.from);
                let files = self.to_blank();
                if !files.is_empty() && holds(Rule::BlankBeforeAbandoned) {
                    return Action::Blank { from, files };
                }
                append(Op::Abandoned(Abandoned { from }))
            }
            Phase::Rest => Action::Rest,
            Phase::Refused(refusal) => Action::Refuse(refusal.clone()),
        }
    }

    fn to_blank(&self) -> Vec<u32> {
        let folders = self.head.intent().map_or(&[][..], |intent: &Intent| &intent.folders);
        (0u32..).zip(folders).map(|(k, _)| k).filter(|k| !self.blanked.contains(k)).collect()
    }

    /// Takes the answer to [`Abandoner::next`].
    ///
    /// # Errors
    /// It answers something else.
    pub fn heard(&mut self, answer: Answer) -> Result<(), Misheard> {
        let action = self.next();
        match (&action, answer) {
            (Action::Load, Answer::Loaded(head)) => {
                self.head = *head;
                self.settle();
            }
            (Action::Facts, Answer::Facts(facts)) => self.look(&facts),
            (Action::Append { n, ops }, Answer::Appended) => self.appended(*n, ops),
            (Action::Append { .. }, Answer::Lost(_) | Answer::Behind) => self.phase = Phase::Load,
            (Action::ReadFloor, Answer::Floor(floor)) => {
                if matches!(self.check, Check::Floor { of } if of < floor) {
                    *self = Self::default();
                }
                self.check = Check::None;
            }
            (Action::Blank { files, .. }, Answer::Blanked { k }) if files.contains(&k) => {
                self.blanked.insert(k);
            }
            (action, answer) => return Err(Misheard::new(action, &answer)),
        }
        Ok(())
    }

    fn settle(&mut self) {
        self.blanked.clear();
        self.phase = if matches!(self.head.batch, BatchSlot::Abandoning { .. }) { Phase::Close } else { Phase::Look };
    }

    fn look(&mut self, facts: &Facts) {
        self.phase = match &self.head.batch {
            BatchSlot::Open(intent) if facts.earliest > intent.from => {
                Phase::Begin(AbandonIntent { from: intent.from, resume_at: facts.earliest.min(intent.to) })
            }
            _ => Phase::Refused(Refusal::NothingToAbandon),
        };
    }

    fn appended(&mut self, n: u64, ops: &[Op]) {
        let entry = self.head.next;
        if let Err(invalid) = self.head.apply(ops) {
            self.phase = Phase::Refused(Refusal::Damaged { entry, invalid });
            return;
        }
        if reads_floor_after(ops) {
            self.check = Check::Floor { of: n };
        }
        self.phase = if self.head.intent().is_some() { Phase::Close } else { Phase::Rest };
    }
}
