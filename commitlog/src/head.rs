//! The fold of a commit log, without its files: whether the next operation is valid depends on this alone.
//!
//! | Operation | Valid if | Effect |
//! |---|---|---|
//! | `Header` | it is the first | `end = start` |
//! | `Intent` | batch slot free, `from = end`, log time does not go back, the window not behind `keys_from` | takes the slot |
//! | `Commit` | the slot holds its intent, and a file for each folder | `end = to`, slot free |
//! | `Pass` | slot free, `to > end` | `end = to` |
//! | `AbandonIntent` | the slot holds its intent, `from < resume_at <= to` | no commit from here on |
//! | `Abandoned` | the slot is being abandoned | `end = resume_at`, slot free |
//! | `ReplaceIntent` | its slot free, next number, inputs committed or published and in no other slot | takes the slot |
//! | `ReplaceReady` | the slot holds its intent, and an output for each planned one | decides |
//! | `ReplaceAbort` | the slot holds its intent, not ready | slot free, the number is spent |
//! | `ReplaceDone` | ready | slot free |
//! | `CollectKeys` | `keys_from < from <= end`, and the open batch does not need older ones | `keys_from = from` |
//!
//! Batches and replaces never wait for each other. Whether the inputs of a replace count, and whether its outputs have
//! all of their rows, the files say ([`crate::State::allows`]): a head does not know them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::op::{FileId, Header, Intent, Op, PassReason, Planned, Reason, ReplaceIntent, Scope, Stored, Witness};
use crate::rules::{Rule, holds};

/// What is under way for the offsets from `end` on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchSlot {
    #[default]
    Free,
    Open(Intent),
    Abandoning {
        intent: Intent,
        resume_at: i64,
        /// Number of the entry that said so.
        entry: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Open,
    /// What stands staged for each output.
    Ready(Vec<Stored>),
}

/// A replace that is not done.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replace {
    pub intent: ReplaceIntent,
    /// Number of the entry of the intent: who has folded it leaves the inputs alone.
    pub entry: u64,
    pub stage: Stage,
}

/// Replaces of two kinds do not wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReplaceSlot {
    /// Compaction, forget.
    Merging,
    /// Restore, rewrite.
    Remaking,
}

impl ReplaceSlot {
    pub const ALL: [Self; 2] = [Self::Merging, Self::Remaking];

    pub fn of(reason: Reason) -> Self {
        match reason {
            Reason::Compaction | Reason::Forget => Self::Merging,
            Reason::Restore | Reason::Rewrite => Self::Remaking,
        }
    }
}

/// The state of a commit log after its first `next` entries, without its files.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Number of the next entry.
    pub next: u64,
    pub header: Option<Header>,
    /// Everything before it is decided: in the tables, passed over, or lost.
    pub end: i64,
    /// Log time (running maximum) there; none before the first batch.
    pub clock_ms: Option<i64>,
    /// The record before `end`, if it is of a batch.
    pub last: Option<Witness>,
    /// Begin of the oldest batch whose keys mattered to the last one.
    pub window_from: i64,
    /// Key runs of batches that begin before it may have been deleted.
    pub keys_from: i64,
    pub batch: BatchSlot,
    merging: Option<Replace>,
    remaking: Option<Replace>,
    /// Number of the next replace.
    pub next_replace: u64,
}

/// Why an operation is not valid in a state. An entry with one that stands in a commit log was altered, or written by a
/// build with other rules.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Invalid {
    #[error("the commit log has no header yet")]
    NoHeader,
    #[error("the commit log has a header already")]
    SecondHeader,
    #[error("a batch that begins at offset {from} is under way")]
    BatchOpen { from: i64 },
    #[error("no batch that begins at offset {from} is under way")]
    NoSuchBatch { from: i64 },
    #[error("the batch that begins at offset {from} is being abandoned")]
    BatchAbandoning { from: i64 },
    #[error("it begins at offset {from}, and the offsets before {end} are decided")]
    NotAtEnd { from: i64, end: i64 },
    #[error("the range {from}..{to} is empty or reversed")]
    EmptyRange { from: i64, to: i64 },
    #[error("it lists {listed} files where the intent has {planned}")]
    OtherFiles { planned: usize, listed: usize },
    #[error("it has number {number} where {next} is next")]
    OtherNumber { number: u64, next: u64 },
    #[error("replace {number} is under way")]
    ReplaceOpen { number: u64 },
    #[error("no replace {number} is under way")]
    NoSuchReplace { number: u64 },
    #[error("replace {number} is decided")]
    ReplaceDecided { number: u64 },
    #[error("replace {number} is not decided")]
    ReplaceUndecided { number: u64 },
    #[error("input {id} is of a batch that is not committed")]
    InputIncomplete { id: FileId },
    #[error("input {id} is an output of a replace that is not done")]
    InputUnpublished { id: FileId },
    #[error("input {id} is one of replace {number}, which is under way")]
    InputTaken { id: FileId, number: u64 },
    #[error("a replace without inputs, or with an input twice")]
    Inputs,
    #[error("the log cannot begin at offset {start}")]
    Start { start: i64 },
    #[error("the window of a batch from offset {from} cannot begin at {window_from}")]
    Window { window_from: i64, from: i64 },
    #[error("log time goes back from {before} to {clock_ms}")]
    TimeBack { clock_ms: i64, before: i64 },
    #[error("a scope of offsets {from}..{to} has inputs or outputs beyond it, outputs that overlap, or no inputs")]
    Scope { from: i64, to: i64 },
    #[error("input {id} does not count in folder {folder}")]
    InputNotLive { id: FileId, folder: String },
    #[error("input {id} has rows beyond its scope of offsets {from}..{to}")]
    InputBeyondScope { id: FileId, from: i64, to: i64 },
    #[error("rows of offsets {from}..{to} of input {id} go into no output")]
    Uncovered { id: FileId, from: i64, to: i64 },
    #[error("the output of offsets {from}..{to} in folder {folder} is made of no input")]
    NoInputs { folder: String, from: i64, to: i64 },
    #[error("{id} is no input, and rows of it would be in an output that is made from the log")]
    Bystander { id: FileId },
    #[error("keys from {keys_from} on may be there and those from {needed} on are needed: {from} does not lie between")]
    Keys { from: i64, keys_from: i64, needed: i64 },
    #[error("no number comes after {number}")]
    NoMoreNumbers { number: u64 },
}

impl Head {
    pub fn replace(&self, slot: ReplaceSlot) -> Option<&Replace> {
        match slot {
            ReplaceSlot::Merging => self.merging.as_ref(),
            ReplaceSlot::Remaking => self.remaking.as_ref(),
        }
    }

    #[cfg(test)]
    pub(crate) fn set_replace(&mut self, slot: ReplaceSlot, replace: Replace) {
        *self.slot(slot) = Some(replace);
    }

    fn slot(&mut self, slot: ReplaceSlot) -> &mut Option<Replace> {
        match slot {
            ReplaceSlot::Merging => &mut self.merging,
            ReplaceSlot::Remaking => &mut self.remaking,
        }
    }

    /// Every replace that is not done.
    pub fn replaces(&self) -> impl Iterator<Item = &Replace> {
        self.merging.iter().chain(&self.remaking)
    }

    /// The batch that is under way, to be committed or abandoned.
    pub fn intent(&self) -> Option<&Intent> {
        match &self.batch {
            BatchSlot::Free => None,
            BatchSlot::Open(intent) | BatchSlot::Abandoning { intent, .. } => Some(intent),
        }
    }

    /// Folds an entry.
    ///
    /// # Errors
    /// The first operation that is not valid after those before it. Those before it are folded: the state is of no use
    /// any more.
    pub fn apply(&mut self, ops: &[Op]) -> Result<(), Invalid> {
        ops.iter().try_for_each(|op| self.fold(op))?;
        self.next += 1;
        Ok(())
    }

    /// Whether an entry with these operations is valid now.
    ///
    /// # Errors
    /// Why not.
    pub fn allows(&self, ops: &[Op]) -> Result<(), Invalid> {
        self.clone().apply(ops)
    }

    /// Folds one operation of an entry; if it is not valid, the state is as it was.
    pub(crate) fn fold(&mut self, op: &Op) -> Result<(), Invalid> {
        if let Op::Header(header) = op {
            if self.header.is_some() || self.next > 0 {
                return Err(Invalid::SecondHeader);
            }
            if header.start < 0 {
                return Err(Invalid::Start { start: header.start });
            }
            (self.end, self.window_from, self.keys_from) = (header.start, header.start, header.start);
            self.header = Some(header.clone());
            return Ok(());
        }
        if self.header.is_none() {
            return Err(Invalid::NoHeader);
        }
        match op {
            Op::Header(_) => Err(Invalid::SecondHeader),
            Op::Intent(intent) => self.fold_intent(intent),
            Op::Commit(commit) => self.fold_commit(commit.from, commit.files.len()),
            Op::Pass(pass) => self.fold_pass(pass.reason, pass.to),
            Op::AbandonIntent(abandon) => self.fold_abandon_intent(abandon.from, abandon.resume_at),
            Op::Abandoned(abandoned) => self.fold_abandoned(abandoned.from),
            Op::ReplaceIntent(intent) => self.fold_replace_intent(intent),
            Op::ReplaceReady(ready) => self.fold_replace_ready(ready.replace, &ready.outputs),
            Op::ReplaceAbort(abort) => self.fold_replace_abort(abort.replace),
            Op::ReplaceDone(done) => self.fold_replace_done(done.replace),
            Op::CollectKeys(collect) => self.fold_collect_keys(collect.from),
        }
    }

    fn no_batch(&self) -> Result<(), Invalid> {
        self.intent().map_or(Ok(()), |intent| Err(Invalid::BatchOpen { from: intent.from }))
    }

    fn fold_intent(&mut self, intent: &Intent) -> Result<(), Invalid> {
        let Intent { from, to, .. } = *intent;
        if holds(Rule::OneIntent) {
            self.no_batch()?;
        }
        if from >= to {
            return Err(Invalid::EmptyRange { from, to });
        }
        if from != self.end && holds(Rule::IntentFromEnd) {
            return Err(Invalid::NotAtEnd { from, end: self.end });
        }
        if intent.window_from < self.keys_from || intent.window_from > from {
            return Err(Invalid::Window { window_from: intent.window_from, from });
        }
        if let Some(before) = self.clock_ms.filter(|before| intent.clock_ms < *before) {
            return Err(Invalid::TimeBack { clock_ms: intent.clock_ms, before });
        }
        self.batch = BatchSlot::Open(intent.clone());
        Ok(())
    }

    fn fold_commit(&mut self, from: i64, files: usize) -> Result<(), Invalid> {
        let (intent, is_abandoning) = match &self.batch {
            BatchSlot::Open(intent) if intent.from == from => (intent, false),
            BatchSlot::Abandoning { intent, .. } if intent.from == from => (intent, true),
            _ => return Err(Invalid::NoSuchBatch { from }),
        };
        if is_abandoning && holds(Rule::NoCommitWhileAbandoning) {
            return Err(Invalid::BatchAbandoning { from });
        }
        if files != intent.folders.len() {
            return Err(Invalid::OtherFiles { planned: intent.folders.len(), listed: files });
        }
        (self.end, self.clock_ms) = (intent.to, Some(intent.clock_ms));
        (self.last, self.window_from) = (Some(intent.last), intent.window_from);
        self.batch = BatchSlot::Free;
        Ok(())
    }

    fn fold_collect_keys(&mut self, from: i64) -> Result<(), Invalid> {
        let needed = match &self.batch {
            BatchSlot::Open(intent) => intent.window_from,
            BatchSlot::Free | BatchSlot::Abandoning { .. } => self.end,
        };
        if from <= self.keys_from || from > needed {
            return Err(Invalid::Keys { from, keys_from: self.keys_from, needed });
        }
        self.keys_from = from;
        Ok(())
    }

    fn fold_pass(&mut self, reason: PassReason, to: i64) -> Result<(), Invalid> {
        self.no_batch()?;
        if to <= self.end {
            return Err(Invalid::EmptyRange { from: self.end, to });
        }
        self.end = to;
        // Skipped records are there, but nobody has seen the last of them; lost ones cannot be looked at again.
        let (PassReason::Skipped | PassReason::Lost) = reason;
        self.last = None;
        Ok(())
    }

    fn fold_abandon_intent(&mut self, from: i64, resume_at: i64) -> Result<(), Invalid> {
        let intent = match &self.batch {
            BatchSlot::Open(intent) if intent.from == from => intent,
            BatchSlot::Abandoning { .. } => return Err(Invalid::BatchAbandoning { from }),
            _ => return Err(Invalid::NoSuchBatch { from }),
        };
        if resume_at <= from || resume_at > intent.to {
            return Err(Invalid::EmptyRange { from, to: resume_at });
        }
        self.batch = BatchSlot::Abandoning { intent: intent.clone(), resume_at, entry: self.next };
        Ok(())
    }

    fn fold_abandoned(&mut self, from: i64) -> Result<(), Invalid> {
        let resume_at = match &self.batch {
            BatchSlot::Abandoning { intent, resume_at, .. } if intent.from == from => *resume_at,
            _ => return Err(Invalid::NoSuchBatch { from }),
        };
        (self.end, self.last) = (resume_at, None);
        self.batch = BatchSlot::Free;
        Ok(())
    }

    fn fold_replace_intent(&mut self, intent: &ReplaceIntent) -> Result<(), Invalid> {
        let slot = ReplaceSlot::of(intent.reason);
        if let Some(open) = self.replace(slot) {
            return Err(Invalid::ReplaceOpen { number: open.intent.replace });
        }
        if intent.replace != self.next_replace && holds(Rule::NumbersAreSpent) {
            return Err(Invalid::OtherNumber { number: intent.replace, next: self.next_replace });
        }
        let next_replace = intent.replace.checked_add(1).ok_or(Invalid::NoMoreNumbers { number: intent.replace })?;
        if let Some(scope) = intent.scopes.iter().find(|scope| !self.is_sound(scope)) {
            return Err(Invalid::Scope { from: scope.from, to: scope.to });
        }
        let mut inputs = BTreeSet::new();
        for (_, id) in intent.inputs() {
            let is_complete = match id {
                FileId::Batch { from, .. } => from < self.end && self.intent().is_none_or(|open| from < open.from),
                FileId::Replace { replace, .. } => replace < intent.replace,
            };
            if let FileId::Replace { replace, .. } = id
                && holds(Rule::OnlyPublishedInputs)
                && self.replaces().any(|other| other.intent.replace == replace)
            {
                return Err(Invalid::InputUnpublished { id });
            }
            if !is_complete && holds(Rule::OnlyCompleteInputs) {
                return Err(Invalid::InputIncomplete { id });
            }
            if !inputs.insert(id) {
                return Err(Invalid::Inputs);
            }
        }
        if inputs.is_empty() {
            return Err(Invalid::Inputs);
        }
        if holds(Rule::DisjointReplaces) {
            for other in self.replaces() {
                if let Some((_, id)) = other.intent.inputs().find(|(_, id)| inputs.contains(id)) {
                    return Err(Invalid::InputTaken { id, number: other.intent.replace });
                }
            }
        }
        let entry = self.next;
        *self.slot(slot) = Some(Replace { intent: intent.clone(), entry, stage: Stage::Open });
        if holds(Rule::NumbersAreSpent) {
            self.next_replace = next_replace;
        }
        Ok(())
    }

    /// What can be said of a scope without knowing files: it has inputs, and everything in it lies inside.
    fn is_sound(&self, scope: &Scope) -> bool {
        let start = self.header.as_ref().map_or(self.end, |header| header.start);
        let is_decided = scope.to <= self.end || !holds(Rule::OnlyCompleteInputs);
        let range = scope.from..scope.to;
        let is_inside = |id: FileId| match id {
            FileId::Batch { from, .. } => range.contains(&from),
            // The head does not remember which offsets an output has.
            FileId::Replace { .. } => true,
        };
        let mut outputs: Vec<&Planned> = scope.outputs.iter().collect();
        outputs.sort_unstable_by_key(|planned| (&planned.folder, planned.from));
        let overlap = outputs.windows(2).any(|two| match two {
            [one, next] => one.folder == next.folder && next.from < one.to,
            _ => false,
        });
        scope.from >= start
            && is_decided
            && scope.inputs().next().is_some()
            && scope.inputs().all(|(_, id)| is_inside(id))
            && outputs
                .iter()
                .all(|planned| scope.from <= planned.from && planned.from < planned.to && planned.to <= scope.to)
            && !overlap
    }

    fn under_way(&mut self, number: u64) -> Result<&mut Option<Replace>, Invalid> {
        for slot in ReplaceSlot::ALL {
            if self.replace(slot).is_some_and(|replace| replace.intent.replace == number) {
                return Ok(self.slot(slot));
            }
        }
        Err(Invalid::NoSuchReplace { number })
    }

    fn fold_replace_ready(&mut self, number: u64, outputs: &[Stored]) -> Result<(), Invalid> {
        let Some(replace) = self.under_way(number)? else { return Err(Invalid::NoSuchReplace { number }) };
        if replace.stage != Stage::Open {
            return Err(Invalid::ReplaceDecided { number });
        }
        let planned = replace.intent.outputs().count();
        if planned != outputs.len() {
            return Err(Invalid::OtherFiles { planned, listed: outputs.len() });
        }
        replace.stage = Stage::Ready(outputs.to_vec());
        Ok(())
    }

    fn fold_replace_abort(&mut self, number: u64) -> Result<(), Invalid> {
        let slot = self.under_way(number)?;
        if slot.as_ref().is_some_and(|replace| replace.stage != Stage::Open) && holds(Rule::NoAbortAfterReady) {
            return Err(Invalid::ReplaceDecided { number });
        }
        *slot = None;
        Ok(())
    }

    fn fold_replace_done(&mut self, number: u64) -> Result<(), Invalid> {
        let slot = self.under_way(number)?;
        if slot.as_ref().is_some_and(|replace| replace.stage == Stage::Open) {
            return Err(Invalid::ReplaceUndecided { number });
        }
        *slot = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{FileId, InFolder, Recipe, Source};
    use crate::testing::History;

    /// After two batches, of which the second begins at 2 and ends at 3.
    fn head() -> Head {
        History::of(&[9, 9, 9, 9]).state.head
    }

    fn replace(head: &Head, scope: Scope) -> Op {
        let recipe = Recipe { layout: 1.into(), encoding: 1.into() };
        let (replace, reason, source) = (head.next_replace, Reason::Compaction, Source::Inputs);
        Op::ReplaceIntent(ReplaceIntent { replace, reason, source, recipe, scopes: vec![scope] })
    }

    fn scope() -> Scope {
        let files = vec![FileId::Batch { from: 1, k: 0 }, FileId::Batch { from: 2, k: 0 }];
        let planned = |from, to| Planned { folder: "f0".to_owned(), from, to };
        let inputs = vec![InFolder { folder: "f0".to_owned(), files }];
        Scope { from: 1, to: 3, inputs, outputs: vec![planned(1, 2), planned(2, 3)] }
    }

    #[test]
    fn a_scope_holds_its_inputs_and_its_outputs_each_offset_once() {
        let head = head();
        assert_eq!(head.end, 3);
        assert_eq!(head.allows(&[replace(&head, scope())]), Ok(()));
        let refused = |change: fn(&mut Scope)| {
            let mut scope = scope();
            change(&mut scope);
            let invalid = head.allows(&[replace(&head, scope.clone())]);
            assert_eq!(invalid, Err(Invalid::Scope { from: scope.from, to: scope.to }), "{scope:?}");
        };
        refused(|scope| scope.outputs[1].from = 1);
        refused(|scope| scope.outputs[0].to = 1);
        refused(|scope| scope.outputs[0].from = 0);
        refused(|scope| scope.outputs[1].to = 4);
        refused(|scope| scope.from = 2);
        refused(|scope| scope.to = 2);
        refused(|scope| scope.to = 4);
        refused(|scope| scope.inputs.clear());
        refused(|scope| (scope.from, scope.outputs[0].from) = (0, 0));
    }

    #[test]
    fn window_and_log_time_of_a_batch_fit_those_before_it() {
        let head = head();
        let mut history = History::of(&[9, 9, 9, 9]);
        history.go_on(9);
        let Some(Op::Intent(intent)) = history.entries.last().and_then(|ops| ops.first()) else { panic!("an intent") };
        let with =
            |window_from, clock_ms| head.allows(&[Op::Intent(Intent { window_from, clock_ms, ..intent.clone() })]);
        let before = head.clock_ms.unwrap_or_default();
        assert_eq!(with(1, before), Ok(()));
        assert_eq!(with(0, before), Err(Invalid::Window { window_from: 0, from: 3 }));
        assert_eq!(with(4, before), Err(Invalid::Window { window_from: 4, from: 3 }));
        assert_eq!(with(1, before - 1), Err(Invalid::TimeBack { clock_ms: before - 1, before }));
        let Some(Op::Header(header)) = history.entries[0].first() else { panic!("a header") };
        let negative = Op::Header(Header { start: -1, ..header.clone() });
        assert_eq!(Head::default().allows(&[negative]), Err(Invalid::Start { start: -1 }));
    }

    #[test]
    fn keys_are_collected_up_to_where_a_batch_needs_them() {
        let head = head();
        let collect = |from| Op::CollectKeys(crate::op::CollectKeys { from });
        assert_eq!((head.keys_from, head.end), (1, 3));
        let allowed = |head: &Head, from| head.allows(&[collect(from)]).is_ok();
        assert_eq!(
            [1, 2, 3, 4].map(|from| allowed(&head, from)),
            [false, true, true, false],
            "not twice, nor beyond the end"
        );
        let mut history = History::of(&[9, 9, 9, 9]);
        history.go_on(9);
        let Some([Op::Intent(intent)]) = history.entries.last().map(Vec::as_slice) else { panic!("an intent") };
        let mut open = head.clone();
        open.apply(&[Op::Intent(Intent { window_from: 2, ..intent.clone() })]).unwrap();
        assert_eq!([2, 3].map(|from| allowed(&open, from)), [true, false], "the batch under way needs them");
        let mut collected = head;
        collected.apply(&[collect(3)]).unwrap();
        let behind = collected.allows(&[Op::Intent(Intent { window_from: 2, ..intent.clone() })]);
        assert_eq!(behind, Err(Invalid::Window { window_from: 2, from: 3 }));
    }

    #[test]
    fn numbers_end_without_a_panic() {
        let head = Head { next_replace: u64::MAX, ..head() };
        assert_eq!(head.allows(&[replace(&head, scope())]), Err(Invalid::NoMoreNumbers { number: u64::MAX }));
    }
}
