//! Replaces files that count by others with the same rows: compaction, forget, restore and rewrite.
//!
//! It runs beside owners and other replacers. Whoever finds a replace under way goes on with it:
//!
//! 1. the intent freezes the inputs,
//! 2. the outputs are staged where no reader looks,
//! 3. `ReplaceReady` decides: from here on only forward,
//! 4. the fence: no put of an input can come late any more,
//! 5. the outputs are examined: one that was lost or altered meanwhile is made again, the same, or nothing is deleted,
//! 6. for each scope: its inputs are deleted, then its outputs published,
//! 7. `ReplaceDone`; what is staged goes.

use std::collections::{BTreeMap, BTreeSet};

use crate::actor::{Action, Answer, Check, Choice, Misheard, reads_floor_after};
use crate::decide::Refusal;
use crate::hash::Hash;
use crate::head::{Head, Replace, ReplaceSlot, Stage};
use crate::op::{FileId, Op, ReplaceEnd, ReplaceIntent, ReplaceReady, Scope, Stored};
use crate::owner::anchor;
use crate::rules::{Rule, holds};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Replacer {
    slot: ReplaceSlot,
    /// A decided output that is lost for good ends nothing.
    accepts_lost: bool,
    head: Head,
    check: Check,
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    Load,
    Choose,
    Begin(Box<ReplaceIntent>),
    Carry(Carry),
    Drop { replace: u64, is_aborted: bool },
    Rest,
    Refused(Refusal),
}

/// What this replacer knows to be done of the replace that is under way. All of it may be done again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Carry {
    replace: u64,
    staged: BTreeMap<u32, Stored>,
    /// An input is gone or altered, or the log has not its records.
    is_unmakeable: bool,
    is_fenced: bool,
    /// Every output stood as it was decided.
    is_examined: bool,
    /// Decided outputs that are to be made again.
    gone: BTreeSet<u32>,
    /// Some were made again already: what is gone once more is damage.
    is_remade: bool,
    deleted: BTreeSet<FileId>,
    published: BTreeSet<u32>,
    /// Decided outputs that are lost, and accepted as such: live files that are missing once the replace is done.
    lost: BTreeSet<u32>,
    /// Outputs were missing once. Another one may have ended this replace; the tail says so.
    missed: bool,
    /// It was decided before this replacer came.
    is_inherited: bool,
}

impl Carry {
    fn of(replace: &Replace) -> Self {
        Self { replace: replace.intent.replace, is_inherited: replace.stage != Stage::Open, ..Self::default() }
    }

    fn next(&self, head: &Head, replace: &Replace) -> Action {
        let number = self.replace;
        let append = |op| Action::Append { n: head.next, ops: vec![op] };
        let outputs = || (0u32..).zip(replace.intent.outputs()).map(|(k, _)| k);
        match &replace.stage {
            Stage::Open => {
                if self.is_unmakeable {
                    return append(Op::ReplaceAbort(ReplaceEnd { replace: number }));
                }
                if !holds(Rule::ReadyBeforeDelete)
                    && let Some(scope) = replace.intent.scopes.iter().find(|scope| self.has_inputs(scope))
                {
                    return self.delete(scope);
                }
                let missing: Vec<u32> = outputs().filter(|k| !self.staged.contains_key(k)).collect();
                if !missing.is_empty() && holds(Rule::StagedBeforeReady) {
                    return Action::Stage { replace: number, outputs: missing };
                }
                let nothing = Stored { rows: 0, bytes: 0, sha256: Hash::of(b""), bounds: None };
                let outputs = outputs().map(|k| self.staged.get(&k).copied().unwrap_or(nothing)).collect();
                append(Op::ReplaceReady(ReplaceReady { replace: number, outputs }))
            }
            Stage::Ready(_) => {
                if self.is_inherited && !holds(Rule::NoAbortAfterReady) {
                    return append(Op::ReplaceAbort(ReplaceEnd { replace: number }));
                }
                if !self.is_fenced && holds(Rule::WaitForFence) {
                    return Action::AwaitFence { entry: replace.entry };
                }
                if !self.is_examined && holds(Rule::ExaminedBeforeDelete) {
                    if self.gone.is_empty() {
                        return Action::Examine { replace: number };
                    }
                    return Action::Stage { replace: number, outputs: self.gone.iter().copied().collect() };
                }
                if !holds(Rule::DoneBeforeDrop) && !self.missed {
                    return Action::DropStaged { replace: number };
                }
                let mut k = 0u32;
                for scope in &replace.intent.scopes {
                    let first = k;
                    k = k.saturating_add(u32::try_from(scope.outputs.len()).unwrap_or(u32::MAX));
                    let is_left = |k: &u32| !self.published.contains(k) && !self.lost.contains(k);
                    let publish: Vec<u32> = (first..k).filter(is_left).collect();
                    let publishes = !publish.is_empty() && holds(Rule::PublishedBeforeDone);
                    if self.has_inputs(scope) && (holds(Rule::DeleteBeforePublish) || !publishes) {
                        return self.delete(scope);
                    }
                    if publishes {
                        let anchor = anchor(head, Rule::PutsAreAnchored);
                        return Action::Publish { replace: number, outputs: publish, anchor };
                    }
                }
                append(Op::ReplaceDone(ReplaceEnd { replace: number }))
            }
        }
    }

    fn has_inputs(&self, scope: &Scope) -> bool {
        scope.inputs().any(|(_, id)| !self.deleted.contains(&id))
    }

    fn delete(&self, scope: &Scope) -> Action {
        let files = scope.inputs().map(|(_, id)| id).filter(|id| !self.deleted.contains(id)).collect();
        Action::Delete { replace: self.replace, files }
    }
}

impl Replacer {
    /// One that carries replaces of one kind.
    pub fn new(slot: ReplaceSlot) -> Self {
        Self { slot, accepts_lost: false, head: Head::default(), check: Check::None, phase: Phase::Load }
    }

    /// Ends a decided replace also if an output of it is lost and cannot be made again from its inputs. That output is then a
    /// live file that is missing, which a replace of reason restore makes from the log.
    #[must_use]
    pub fn accepting_lost_outputs(self) -> Self {
        Self { accepts_lost: true, ..self }
    }

    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The replace that is under way in its slot.
    pub fn replace(&self) -> Option<&Replace> {
        self.head.replace(self.slot)
    }

    /// What it wants done.
    pub fn next(&self) -> Action {
        match self.check {
            Check::Floor { .. } | Check::FloorOfTail { .. } => return Action::ReadFloor,
            Check::Tail => return Action::Prove { n: self.head.next },
            Check::None => {}
        }
        match &self.phase {
            Phase::Load => Action::Load,
            Phase::Choose => Action::Choose { entries: self.head.next },
            Phase::Begin(intent) => {
                Action::Append { n: self.head.next, ops: vec![Op::ReplaceIntent((**intent).clone())] }
            }
            Phase::Carry(carry) => match self.replace() {
                Some(replace) if replace.intent.replace == carry.replace => carry.next(&self.head, replace),
                _ => Action::Load,
            },
            Phase::Drop { replace, .. } => Action::DropStaged { replace: *replace },
            Phase::Rest => Action::Rest,
            Phase::Refused(refusal) => Action::Refuse(refusal.clone()),
        }
    }

    /// Takes the answer to [`Replacer::next`].
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
            (Action::Choose { .. }, Answer::NothingToReplace) => self.phase = Phase::Rest,
            (Action::Choose { .. }, Answer::Chosen(choice)) => self.begin(*choice),
            (Action::Rest, Answer::Woken) => self.phase = Phase::Load,
            (Action::Append { n, ops }, Answer::Appended) => self.appended(*n, ops),
            (Action::Append { ops, .. }, Answer::Lost(entries)) => self.lost(ops, &entries),
            (Action::Append { .. } | Action::Prove { .. } | Action::Choose { .. }, Answer::Behind) => {
                self.begin_anew();
            }
            (Action::ReadFloor, Answer::Floor(floor)) => self.floor(floor),
            (Action::Prove { .. }, Answer::Tail(entries)) => {
                if self.fold_all(&entries) {
                    let checked = holds(Rule::FloorAfterProof);
                    self.check = if checked { Check::FloorOfTail { of: self.head.next } } else { Check::None };
                }
            }
            (Action::DropStaged { .. }, Answer::StagedDropped) => match &mut self.phase {
                Phase::Carry(carry) => carry.missed = true,
                // What could not be made now is not tried again at once: whoever wakes it sets the pace.
                Phase::Drop { is_aborted: true, .. } => self.phase = Phase::Rest,
                _ => self.phase = Phase::Load,
            },
            (action, answer) => return self.carried(action, answer),
        }
        Ok(())
    }

    /// The answer to an action on the files of the replace that is under way.
    fn carried(&mut self, action: &Action, answer: Answer) -> Result<(), Misheard> {
        let decided = self.replace().and_then(|replace| match &replace.stage {
            Stage::Ready(outputs) => Some(outputs.clone()),
            Stage::Open => None,
        });
        let carry = if let Phase::Carry(carry) = &mut self.phase { Some(carry) } else { None };
        let Some(carry) = carry else { return Err(Misheard::new(action, &answer)) };
        match (action, answer, decided) {
            (Action::Stage { outputs, .. }, Answer::Staged { k, stored }, None) if outputs.contains(&k) => {
                carry.staged.insert(k, stored);
            }
            (Action::Stage { .. }, Answer::InputGone(_) | Answer::OutOfRange | Answer::OtherRecords, None) => {
                carry.is_unmakeable = true;
            }
            (Action::Stage { outputs, .. }, Answer::Staged { k, stored }, Some(decided)) if outputs.contains(&k) => {
                if decided.get(k as usize) == Some(&stored) {
                    carry.gone.remove(&k);
                    carry.is_remade = true;
                } else {
                    self.lost_output(k);
                }
            }
            (
                Action::Stage { outputs, .. },
                Answer::InputGone(_) | Answer::OutOfRange | Answer::OtherRecords,
                Some(_),
            ) => {
                self.lost_output(outputs.first().copied().unwrap_or_default());
            }
            (Action::AwaitFence { .. }, Answer::FencePassed, _) => carry.is_fenced = true,
            (Action::Examine { .. }, Answer::Examined { mut gone }, _) => {
                gone.retain(|k| !carry.lost.contains(k));
                match gone.first() {
                    None => carry.is_examined = true,
                    Some(_) if !carry.missed => {
                        carry.missed = true;
                        self.check = Check::Tail;
                    }
                    Some(k) if carry.is_remade => self.lost_output(*k),
                    Some(_) => carry.gone.extend(gone),
                }
            }
            (Action::Delete { .. }, Answer::Deleted(files), _) => carry.deleted.extend(files),
            (Action::Publish { outputs, .. }, Answer::Published { k }, _) if outputs.contains(&k) => {
                carry.published.insert(k);
            }
            (Action::Publish { .. }, Answer::TooOld, _) => self.check = Check::Tail,
            (Action::Publish { .. }, Answer::StagedGone, _) if !carry.missed => {
                carry.missed = true;
                self.check = Check::Tail;
            }
            (Action::Publish { outputs, .. }, Answer::StagedGone, _) => {
                // What stood when it was examined stands no longer.
                if carry.is_examined && !carry.is_remade {
                    carry.is_examined = false;
                } else {
                    self.lost_output(outputs.first().copied().unwrap_or_default());
                }
            }
            (action, answer, _) => return Err(Misheard::new(action, &answer)),
        }
        Ok(())
    }

    /// A person has to act, or has done so by accepting it: until then nothing more is deleted.
    fn lost_output(&mut self, k: u32) {
        let Phase::Carry(carry) = &mut self.phase else { return };
        if self.accepts_lost {
            carry.gone.remove(&k);
            carry.lost.insert(k);
        } else {
            self.phase = Phase::Refused(Refusal::OutputGone { replace: carry.replace, k });
        }
    }

    /// What it knows is behind the floor of the commit log.
    fn begin_anew(&mut self) {
        *self = Self { accepts_lost: self.accepts_lost, ..Self::new(self.slot) };
    }

    /// Goes on with what is under way, or chooses.
    fn settle(&mut self) {
        self.phase = match self.replace() {
            Some(replace) => Phase::Carry(Carry::of(replace)),
            None => Phase::Choose,
        };
    }

    fn begin(&mut self, choice: Choice) {
        let is_ours = ReplaceSlot::of(choice.reason) == self.slot;
        let intent = choice.intent(self.head.next_replace);
        // What was chosen badly is not begun: inputs of a batch under way, or of another replace. Who chose has seen the
        // files, and asked `State::allows`.
        let is_valid = self.head.allows(&[Op::ReplaceIntent(intent.clone())]).is_ok();
        self.phase = if is_valid && is_ours { Phase::Begin(Box::new(intent)) } else { Phase::Rest };
    }

    fn appended(&mut self, n: u64, ops: &[Op]) {
        if !self.fold(ops) {
            return;
        }
        if reads_floor_after(ops) {
            self.check = Check::Floor { of: n };
        }
        match ops {
            [Op::ReplaceIntent(_)] => self.settle(),
            [Op::ReplaceDone(end)] => self.phase = Phase::Drop { replace: end.replace, is_aborted: false },
            [Op::ReplaceAbort(end)] => self.phase = Phase::Drop { replace: end.replace, is_aborted: true },
            _ => {}
        }
    }

    fn lost(&mut self, ops: &[Op], entries: &[Vec<Op>]) {
        let decided = entries.iter().flatten().any(|op| matches!(op, Op::ReplaceReady(_)));
        if !self.fold_all(entries) {
            return;
        }
        if holds(Rule::FloorAfterLoss) {
            self.check = Check::FloorOfTail { of: self.head.next };
        }
        // The head does not know which files count: what another replace decided may be one of ours.
        let is_valid = self.head.allows(ops).is_ok() && !(decided && matches!(self.phase, Phase::Begin(_)));
        if !is_valid && holds(Rule::CheckAfterLoss) {
            self.phase = Phase::Load;
        }
    }

    fn floor(&mut self, floor: u64) {
        let (Check::Floor { of } | Check::FloorOfTail { of }) = self.check else { return };
        self.check = Check::None;
        if of < floor {
            self.begin_anew();
        }
    }

    fn fold(&mut self, ops: &[Op]) -> bool {
        let entry = self.head.next;
        let Err(invalid) = self.head.apply(ops) else { return true };
        (self.check, self.phase) = (Check::None, Phase::Refused(Refusal::Damaged { entry, invalid }));
        false
    }

    fn fold_all(&mut self, entries: &[Vec<Op>]) -> bool {
        entries.iter().all(|ops| self.fold(ops))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::ReplaceEnd;
    use crate::testing::History;

    /// One that is about to abort, for an input is gone.
    fn aborting() -> Replacer {
        let head = History::of(&[9, 9, 36]).state.head;
        let mut replacer = Replacer::new(ReplaceSlot::Merging);
        replacer.heard(Answer::Loaded(Box::new(head))).unwrap();
        assert!(matches!(replacer.next(), Action::Stage { .. }));
        replacer.heard(Answer::InputGone(FileId::Batch { from: 1, k: 0 })).unwrap();
        let abort = vec![Op::ReplaceAbort(ReplaceEnd { replace: 0 })];
        assert_eq!(replacer.next(), Action::Append { n: 3, ops: abort });
        replacer
    }

    /// Its input is gone because another one decided, and waits for the fence. That entry is collected.
    #[test]
    fn an_abort_in_a_hole_drops_nothing() {
        let mut replacer = aborting();
        replacer.heard(Answer::Appended).unwrap();
        assert_eq!(replacer.next(), Action::ReadFloor);
        replacer.heard(Answer::Floor(4)).unwrap();
        assert_eq!(replacer.next(), Action::Load);
    }

    #[test]
    fn who_aborted_waits_to_be_woken() {
        let mut replacer = aborting();
        replacer.heard(Answer::Appended).unwrap();
        replacer.heard(Answer::Floor(3)).unwrap();
        assert_eq!(replacer.next(), Action::DropStaged { replace: 0 });
        replacer.heard(Answer::StagedDropped).unwrap();
        assert_eq!(replacer.next(), Action::Rest, "choosing at once chooses the same");
        replacer.heard(Answer::Woken).unwrap();
        assert_eq!(replacer.next(), Action::Load);
    }

    #[test]
    fn what_collection_has_passed_is_loaded_again() {
        let mut replacer = aborting();
        replacer.heard(Answer::Behind).unwrap();
        assert_eq!(replacer.next(), Action::Load);
    }
}
