//! A distributor that believes it has the partition. Two may believe it at the same time, and neither does harm.

use std::collections::{BTreeMap, BTreeSet};

use crate::actor::{Action, Anchor, Answer, Check, Encoded, Misheard, Unrestored, reads_floor_after};
use crate::decide::{Facts, Plan, Refusal, decide, onwards};
use crate::files::LiveFile;
use crate::head::{BatchSlot, Head, Replace};
use crate::op::{Commit, FileId, Intent, Op, Recipe, Stored};
use crate::rules::{Rule, holds};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Of new batches.
    recipe: Recipe,
    /// Whether missing files are made again when offsets are set back.
    restores: bool,
    head: Head,
    facts: Option<Facts>,
    check: Check,
    phase: Phase,
    waits: Option<Wait>,
    /// Offsets were set back to here, and a batch that is under way comes first.
    asked_from: Option<i64>,
    /// Missing files that the log cannot make again.
    unmakeable: BTreeSet<FileId>,
    /// What was reported last.
    reported: Unrestored,
}

/// Files from an offset on are missing, and are looked for again when one of these replaces has ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Wait {
    from: i64,
    replaces: BTreeSet<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    Load,
    Look,
    Pass(Op),
    Fill,
    Make(Intent),
    Write(Box<Write>),
    Find {
        from: i64,
    },
    Restore {
        from: i64,
        files: BTreeSet<FileId>,
    },
    Report(Unrestored),
    CommitOffset,
    /// What log and group say was read after the commit log: it may be newer, and no reason to refuse.
    Confirm(Refusal),
    Refused(Refusal),
}

/// A batch from its encoding to its commit. What is done next follows from what is there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Write {
    encoded: Encoded,
    /// Its intent is in the commit log.
    is_intended: bool,
    files: BTreeMap<u32, Stored>,
    keys: Option<Stored>,
}

impl Write {
    fn new(encoded: Encoded, is_intended: bool) -> Self {
        Self { encoded, is_intended, files: BTreeMap::new(), keys: None }
    }

    fn missing(&self) -> Vec<u32> {
        (0u32..).zip(&self.encoded.intent.folders).map(|(k, _)| k).filter(|k| !self.files.contains_key(k)).collect()
    }

    fn next(&self, head: &Head) -> Action {
        let from = self.encoded.intent.from;
        let missing = self.missing();
        let files_first = !self.is_intended && !holds(Rule::IntentBeforeFiles);
        let is_enough = missing.is_empty() || !self.files.is_empty() && !holds(Rule::FilesBeforeCommit);
        if !self.is_intended && !self.encoded.intent.folders.is_empty() && (missing.is_empty() || !files_first) {
            return Action::Append { n: head.next, ops: self.intent_ops() };
        }
        if !is_enough {
            return Action::PutFiles { from, files: missing, anchor: anchor(head, Rule::PutsAreAnchored) };
        }
        if self.keys.is_none() && holds(Rule::KeysBeforeCommit) {
            return Action::PutKeys { from };
        }
        // A batch of duplicates has nothing to show: one entry begins and ends it.
        let mut ops = if self.is_intended { Vec::new() } else { self.intent_ops() };
        ops.push(Op::Commit(self.commit()));
        Action::Append { n: head.next, ops }
    }

    fn intent_ops(&self) -> Vec<Op> {
        let header = self.encoded.header.iter().cloned().map(Op::Header);
        header.chain([Op::Intent(self.encoded.intent.clone())]).collect()
    }

    fn commit(&self) -> Commit {
        let nothing = Stored { rows: 0, bytes: 0, sha256: crate::hash::Hash::of(b""), bounds: None };
        let files = (0u32..).zip(&self.encoded.intent.folders);
        Commit {
            from: self.encoded.intent.from,
            files: files.map(|(k, _)| self.files.get(&k).copied().unwrap_or(nothing)).collect(),
            keys: self.keys.unwrap_or(nothing),
            counts: self.encoded.counts.clone(),
        }
    }
}

/// What puts rest on; nothing, in tests that drop the rule.
pub(crate) fn anchor(head: &Head, rule: Rule) -> Anchor {
    if holds(rule) { head.next } else { Anchor::MAX }
}

impl Owner {
    pub fn new(recipe: Recipe, restores: bool) -> Self {
        Self {
            recipe,
            restores,
            head: Head::default(),
            facts: None,
            check: Check::None,
            phase: Phase::Load,
            waits: None,
            asked_from: None,
            unmakeable: BTreeSet::new(),
            reported: Unrestored::default(),
        }
    }

    /// As after a crash: the same owner, before it has seen anything.
    #[must_use]
    pub fn fresh(&self) -> Self {
        Self::new(self.recipe.clone(), self.restores)
    }

    /// Forgets the commit log, which has to be read again, and not what people asked for.
    fn begin_again(&mut self) {
        let Self { waits, unmakeable, reported, .. } = self.clone();
        *self = Self { waits, unmakeable, reported, ..self.fresh() };
    }

    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The batch that is being written.
    pub fn writing(&self) -> Option<&Encoded> {
        if let Phase::Write(write) = &self.phase { Some(&write.encoded) } else { None }
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
            Phase::Look => Action::Facts,
            Phase::Pass(op) => Action::Append { n: self.head.next, ops: vec![op.clone()] },
            Phase::Fill => Action::Fill { at: self.fill_at(), last: self.last_to_compare() },
            Phase::Make(intent) if holds(Rule::RecipeOfIntent) => Action::Make(intent.clone()),
            Phase::Make(intent) => Action::Make(Intent { recipe: self.recipe.clone(), ..intent.clone() }),
            Phase::Write(write) => write.next(&self.head),
            Phase::Find { from } => Action::FindMissing { from: *from, entries: self.head.next },
            Phase::Restore { files, .. } => Action::PutAgain {
                files: files.iter().copied().collect(),
                anchor: anchor(&self.head, Rule::RestoresAreAnchored),
            },
            Phase::Report(unrestored) => Action::Report(unrestored.clone()),
            Phase::CommitOffset => Action::CommitOffset(self.head.end),
            Phase::Confirm(refusal) | Phase::Refused(refusal) => Action::Refuse(refusal.clone()),
        }
    }

    fn fill_at(&self) -> i64 {
        let earliest = self.facts.as_ref().map_or(0, |facts| facts.earliest);
        if self.head.header.is_some() { self.head.end } else { earliest }
    }

    fn last_to_compare(&self) -> Option<crate::op::Witness> {
        let earliest = self.facts.as_ref().map_or(i64::MIN, |facts| facts.earliest);
        self.head.last.filter(|_| earliest < self.head.end)
    }

    /// Takes the answer to [`Owner::next`].
    ///
    /// # Errors
    /// It answers something else.
    pub fn heard(&mut self, answer: Answer) -> Result<(), Misheard> {
        let action = self.next();
        match (&action, answer) {
            (Action::Load, Answer::Loaded(head)) => {
                self.head = *head;
                self.phase = Phase::Look;
            }
            (Action::Facts, Answer::Facts(facts)) => self.look(facts),
            (Action::Fill { .. }, Answer::Encoded(encoded)) => {
                let write = Write::new(*encoded, false);
                let is_valid = self.head.allows(&write.intent_ops()).is_ok();
                self.phase = if is_valid { Phase::Write(Box::new(write)) } else { Phase::Look };
            }
            // An owner that has nothing to write learns only so that a replace has ended.
            (Action::Fill { .. }, Answer::Woken) if self.waits.is_some() => self.check = Check::Tail,
            (Action::Fill { .. }, Answer::Woken) => {}
            (Action::Make(intent), Answer::Encoded(encoded)) => {
                self.phase = if encoded.intent == *intent || !holds(Rule::RecipeOfIntent) {
                    Phase::Write(Box::new(Write::new(*encoded, true)))
                } else {
                    Phase::Refused(Refusal::OtherRecords { from: intent.from, to: intent.to })
                };
            }
            (Action::Make(intent), Answer::OtherRecords) => {
                self.phase = Phase::Refused(Refusal::OtherRecords { from: intent.from, to: intent.to });
            }
            (Action::Fill { at, .. }, Answer::OtherRecords) => {
                self.phase = Phase::Refused(Refusal::OtherRecord { at: *at });
            }
            // The log no longer holds what it was to read.
            (Action::Fill { .. } | Action::Make(_), Answer::OutOfRange) => self.phase = Phase::Look,
            (Action::Append { n, ops }, Answer::Appended) => self.appended(*n, ops),
            (Action::Append { ops, .. }, Answer::Lost(entries)) => self.lost(ops, &entries),
            (Action::Append { .. } | Action::Prove { .. } | Action::FindMissing { .. }, Answer::Behind) => {
                self.begin_again();
            }
            (Action::ReadFloor, Answer::Floor(floor)) => self.floor(floor),
            (Action::Prove { .. }, Answer::Tail(entries)) => self.proved(&entries),
            (Action::PutFiles { .. } | Action::PutAgain { .. }, Answer::TooOld) => self.check = Check::Tail,
            (Action::PutFiles { files, .. }, Answer::Stands { k, stored }) if files.contains(&k) => {
                if let Phase::Write(write) = &mut self.phase {
                    write.files.insert(k, stored);
                }
            }
            (Action::PutKeys { .. }, Answer::KeysStand(stored)) => {
                if let Phase::Write(write) = &mut self.phase {
                    write.keys = Some(stored);
                }
            }
            (Action::FindMissing { from, .. }, Answer::Missing(missing)) => self.missing(*from, &missing),
            (Action::PutAgain { .. }, Answer::PutAgain(id)) => self.seen_to(id),
            (Action::PutAgain { files, .. }, Answer::CannotMake(id)) if files.contains(&id) => {
                self.unmakeable.insert(id);
                self.seen_to(id);
            }
            (Action::Report(unrestored), Answer::Reported) => {
                self.reported = unrestored.clone();
                self.phase = Phase::CommitOffset;
            }
            (Action::CommitOffset(_), Answer::OffsetCommitted) => self.go_on(),
            (action, answer) => return Err(Misheard::new(action, &answer)),
        }
        Ok(())
    }

    fn look(&mut self, facts: Facts) {
        let plan = decide(&self.head, &facts);
        let has_none = facts.committed.is_none();
        let asked_from = facts.committed.filter(|committed| *committed < self.head.end && self.restores);
        self.facts = Some(facts);
        match plan {
            Err(refusal) => (self.check, self.phase) = (Check::Tail, Phase::Confirm(refusal)),
            Ok(Plan::Restore { from }) if self.restores => self.phase = Phase::Find { from },
            Ok(Plan::Restore { .. }) => self.phase = Phase::CommitOffset,
            // Expired, or lost with the owner that committed the last batch: lag is measured from it.
            Ok(Plan::ReadOn { .. }) if has_none => self.phase = Phase::CommitOffset,
            Ok(plan) => {
                self.asked_from = asked_from;
                self.follow(plan);
            }
        }
    }

    fn follow(&mut self, plan: Plan) {
        self.phase = match plan {
            Plan::Begin { .. } | Plan::ReadOn { .. } => Phase::Fill,
            Plan::Adopt(intent) => Phase::Make(intent),
            Plan::Restore { from } => Phase::Find { from },
            Plan::Pass(op) => Phase::Pass(op),
        };
    }

    /// After everything up to the end is decided.
    fn go_on(&mut self) {
        if let Some(from) = self.finds_again() {
            self.phase = Phase::Find { from };
            return;
        }
        match &self.facts {
            // Another owner has begun a batch meanwhile.
            Some(_) if self.head.intent().is_some() => self.phase = Phase::Look,
            Some(facts) => {
                // What was committed since is a figure; what was asked for then is seen to.
                let committed = facts.committed.filter(|committed| *committed > self.head.end);
                let plan = onwards(&self.head, &Facts { committed, ..facts.clone() });
                self.follow(plan);
            }
            None => self.phase = Phase::Look,
        }
    }

    fn appended(&mut self, n: u64, ops: &[Op]) {
        if !self.fold(ops) {
            return;
        }
        if reads_floor_after(ops) {
            self.check = Check::Floor { of: n };
        }
        match &mut self.phase {
            Phase::Write(write) if matches!(self.head.batch, BatchSlot::Open(_)) => write.is_intended = true,
            // Committing the offset would undo that it was set back.
            Phase::Write(_) => {
                self.phase = self.asked_from.take().map_or(Phase::CommitOffset, |from| Phase::Find { from });
            }
            _ => self.phase = Phase::Look,
        }
    }

    /// From where on to look for missing files, if a replace that they waited for has ended.
    fn finds_again(&self) -> Option<i64> {
        let Wait { from, replaces } = self.waits.as_ref()?;
        let open: BTreeSet<u64> = self.head.replaces().map(|replace| replace.intent.replace).collect();
        (!replaces.is_subset(&open)).then_some(*from)
    }

    fn lost(&mut self, ops: &[Op], entries: &[Vec<Op>]) {
        if !self.fold_all(entries) {
            return;
        }
        if holds(Rule::FloorAfterLoss) {
            self.check = Check::FloorOfTail { of: self.head.next };
        }
        let is_valid = self.head.allows(ops).is_ok() || !holds(Rule::CheckAfterLoss);
        if !(is_valid && matches!(self.phase, Phase::Write(_))) {
            self.phase = Phase::Look;
        }
    }

    fn floor(&mut self, floor: u64) {
        let (Check::Floor { of } | Check::FloorOfTail { of }) = self.check else { return };
        self.check = Check::None;
        if of < floor {
            // A hole: whatever was folded since it was open is unknown here.
            self.begin_again();
        }
    }

    fn proved(&mut self, entries: &[Vec<Op>]) {
        if !self.fold_all(entries) {
            return;
        }
        self.check = if holds(Rule::FloorAfterProof) { Check::FloorOfTail { of: self.head.next } } else { Check::None };
        match &self.phase {
            Phase::Write(write) => {
                let is_open = matches!(&self.head.batch, BatchSlot::Open(intent) if *intent == write.encoded.intent);
                if write.is_intended && !is_open {
                    self.phase = Phase::Look;
                }
            }
            Phase::Confirm(_) if !entries.is_empty() => self.phase = Phase::Look,
            Phase::Confirm(refusal) => self.phase = Phase::Refused(refusal.clone()),
            Phase::Fill => {
                if let Some(from) = self.finds_again() {
                    self.phase = Phase::Find { from };
                }
            }
            // Looking again takes as long as the look before: only what a replace began may not be restored any more.
            Phase::Restore { from, .. } if entries.iter().flatten().any(Op::is_of_a_replace) => {
                self.phase = Phase::Find { from: *from };
            }
            _ => {}
        }
    }

    fn seen_to(&mut self, id: FileId) {
        if let Phase::Restore { from, files } = &mut self.phase {
            files.remove(&id);
            if files.is_empty() {
                self.phase = Phase::Find { from: *from };
            }
        }
    }

    fn missing(&mut self, from: i64, missing: &[(FileId, LiveFile)]) {
        let missing = || missing.iter().map(|(id, _)| *id);
        let mut under_way: BTreeMap<FileId, u64> = BTreeMap::new();
        for Replace { intent, .. } in self.head.replaces() {
            let files = intent.inputs().map(|(_, id)| id).chain(intent.outputs().map(|(id, _)| id));
            under_way.extend(files.map(|id| (id, intent.replace)));
        }
        let open = |id: FileId| under_way.get(&id).copied();
        let is_ours = |id: FileId| {
            matches!(id, FileId::Batch { .. })
                && !self.unmakeable.contains(&id)
                && (open(id).is_none() || !holds(Rule::RestoreOnlyLive))
        };
        let files: BTreeSet<FileId> = missing().filter(|id| is_ours(*id)).collect();
        if !files.is_empty() {
            self.phase = Phase::Restore { from, files };
            return;
        }
        let mut unrestored = Unrestored::default();
        let mut replaces = BTreeSet::new();
        for id in missing() {
            match (open(id), id) {
                (Some(replace), _) => {
                    replaces.insert(replace);
                    unrestored.waiting.push(id);
                }
                (None, FileId::Batch { .. }) => unrestored.cannot_make.push(id),
                (None, FileId::Replace { .. }) => unrestored.of_replaces.push(id),
            }
        }
        self.waits = (!replaces.is_empty()).then_some(Wait { from, replaces });
        let is_new = !unrestored.is_empty() && unrestored != self.reported;
        self.phase =
            if is_new && holds(Rule::ReportUnrestored) { Phase::Report(unrestored) } else { Phase::CommitOffset };
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
    use crate::hash::Hash;
    use crate::testing::History;

    /// Answers as a world without faults does, and returns the first action that is none of a batch's.
    fn after_the_batch(owner: &mut Owner, head: &Head, facts: &Facts) -> Action {
        let stored = Stored { rows: 1, bytes: 1, sha256: Hash::of(b""), bounds: None };
        loop {
            let answer = match owner.next() {
                Action::Load => Answer::Loaded(Box::new(head.clone())),
                Action::Facts => Answer::Facts(facts.clone()),
                Action::Make(intent) => {
                    Answer::Encoded(Box::new(Encoded { intent, counts: serde_json::Value::Null, header: None }))
                }
                Action::PutFiles { files, .. } => Answer::Stands { k: files[0], stored },
                Action::PutKeys { .. } => Answer::KeysStand(stored),
                Action::Append { .. } => Answer::Appended,
                Action::ReadFloor => Answer::Floor(0),
                action => return action,
            };
            owner.heard(answer).unwrap();
        }
    }

    #[test]
    fn offsets_that_were_set_back_are_looked_from_after_the_batch_that_is_under_way() {
        let head = History::of(&[9, 9, 9]).state.head;
        let intent = head.intent().unwrap().clone();
        let start = head.header.as_ref().unwrap().start;
        let facts = |committed| Facts { log_id: "log".into(), earliest: 0, latest: intent.to, committed };
        let after = |committed, restores| {
            let mut owner = Owner::new(intent.recipe.clone(), restores);
            after_the_batch(&mut owner, &head, &facts(committed))
        };
        assert!(matches!(after(Some(start), true), Action::FindMissing { from, .. } if from == start));
        assert_eq!(after(Some(start), false), Action::CommitOffset(intent.to), "missing files are not looked for");
        assert_eq!(after(Some(intent.from), true), Action::CommitOffset(intent.to), "nobody set it back");
        assert_eq!(after(None, true), Action::CommitOffset(intent.to));
    }
}
