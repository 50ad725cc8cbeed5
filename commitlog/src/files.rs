//! The fold of a commit log's files: which of them count, what each holds, and what was decided of every offset.
//!
//! A replace is valid if each input counts and lies inside its scope, if each of their offsets is one of an output of the
//! same folder (of any folder, if the layout changes), and each output has an input. One that is made from the log has
//! every row of its offsets: no other file of these may count.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::head::{BatchSlot, Head, Invalid, Stage};
use crate::op::{
    Commit, FileId, Intent, Op, PassReason, Planned, Reason, Recipe, ReplaceIntent, Scope, Source, Stored,
};
use crate::rules::{Rule, holds};

/// A file that counts: its rows are in the tables.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveFile {
    pub folder: String,
    /// Rows have offsets in `[from, to)`.
    pub from: i64,
    pub to: i64,
    pub stored: Stored,
}

/// What became of the offsets from the key of the map up to `to`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    pub to: i64,
    pub fate: Fate,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    Batch(Box<Batch>),
    Passed(PassReason),
    /// The batch that began here lost its head before it was committed.
    Abandoned(Blanks),
}

/// Files without rows under the names of a batch that was abandoned.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blanks {
    /// Of each file, in sequence.
    pub folders: Vec<String>,
    /// Number of the entry since which the batch is not committed: the blanks may go when the fence has passed for it.
    pub entry: u64,
}

/// A committed batch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    pub recipe: Recipe,
    pub window_from: i64,
    pub clock_ms: i64,
    pub keys: Stored,
    pub counts: Value,
}

enum Ended {
    Nothing,
    Batch(Intent),
    Replace(ReplaceIntent),
    Abandoned(Intent, u64),
    /// Offsets from here on.
    Before(i64),
}

/// The state of a commit log: its head, its files, and the fate of every offset.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    pub head: Head,
    pub live: BTreeMap<FileId, LiveFile>,
    /// By the first offset.
    pub spans: BTreeMap<i64, Span>,
}

impl State {
    /// Folds an entry.
    ///
    /// # Errors
    /// It is not valid after those before it: the state is of no use any more.
    pub fn apply(&mut self, ops: &[Op]) -> Result<(), Invalid> {
        for op in ops {
            self.apply_unseen(op)?;
            if let Op::ReplaceIntent(intent) = op {
                self.check(intent)?;
            }
        }
        self.head.next += 1;
        Ok(())
    }

    /// Folds one operation of which the files are not known.
    fn apply_unseen(&mut self, op: &Op) -> Result<(), Invalid> {
        let before = self.rests_on(op);
        self.head.fold(op)?;
        self.fold(op, before);
        Ok(())
    }

    /// Folds an entry into a head, and says the fates of the offsets that it decides, by the first.
    ///
    /// # Errors
    /// It is not valid after those before it.
    pub fn spans_of(head: &mut Head, ops: &[Op]) -> Result<BTreeMap<i64, Span>, Invalid> {
        let mut state = Self { head: head.clone(), ..Self::default() };
        ops.iter().try_for_each(|op| state.apply_unseen(op))?;
        state.head.next += 1;
        *head = state.head;
        Ok(state.spans)
    }

    /// Whether an entry with these operations is valid now, as far as one replace goes.
    ///
    /// # Errors
    /// Why not.
    pub fn allows(&self, ops: &[Op]) -> Result<(), Invalid> {
        self.head.allows(ops)?;
        ops.iter().try_for_each(|op| match op {
            Op::ReplaceIntent(intent) => self.check(intent),
            _ => Ok(()),
        })
    }

    fn check(&self, intent: &ReplaceIntent) -> Result<(), Invalid> {
        // Without one of these rules other inputs are let through, too.
        let all_count = holds(Rule::OnlyCompleteInputs) && holds(Rule::DisjointReplaces);
        for scope in &intent.scopes {
            let mut inputs = Vec::new();
            for (folder, id) in scope.inputs() {
                match self.live.get(&id).filter(|file| file.folder == folder) {
                    Some(file) if file.from < scope.from || scope.to < file.to => {
                        return Err(Invalid::InputBeyondScope { id, from: scope.from, to: scope.to });
                    }
                    Some(file) => inputs.push((id, file)),
                    None if all_count => return Err(Invalid::InputNotLive { id, folder: folder.to_owned() }),
                    None => return Ok(()),
                }
            }
            self.check_scope(intent, scope, &inputs)?;
        }
        Ok(())
    }

    fn check_scope(
        &self,
        intent: &ReplaceIntent,
        scope: &Scope,
        inputs: &[(FileId, &LiveFile)],
    ) -> Result<(), Invalid> {
        let moves = intent.reason == Reason::Rewrite;
        let ids: BTreeSet<FileId> = inputs.iter().map(|(id, _)| *id).collect();
        let mut outputs: Vec<&Planned> = scope.outputs.iter().collect();
        outputs.sort_unstable_by_key(|planned| planned.from);
        // Of what is forgotten nothing is left.
        for (id, file) in inputs.iter().filter(|_| intent.reason != Reason::Forget) {
            let mut at = file.from;
            for planned in outputs.iter().filter(|planned| moves || planned.folder == file.folder) {
                if planned.from <= at {
                    at = at.max(planned.to);
                }
            }
            if at < file.to {
                return Err(Invalid::Uncovered { id: *id, from: at, to: file.to });
            }
        }
        for Planned { folder, from, to } in outputs {
            let meets = |file: &LiveFile| (moves || file.folder == *folder) && file.from < *to && *from < file.to;
            if !inputs.iter().any(|(_, file)| meets(file)) {
                return Err(Invalid::NoInputs { folder: folder.clone(), from: *from, to: *to });
            }
            if intent.source == Source::Log
                && let Some((id, _)) = self.live.iter().find(|(id, file)| meets(file) && !ids.contains(id))
            {
                return Err(Invalid::Bystander { id: *id });
            }
        }
        Ok(())
    }

    /// What an operation ends, before the head forgets it.
    fn rests_on(&self, op: &Op) -> Ended {
        match op {
            Op::Commit(_) => self.head.intent().cloned().map_or(Ended::Nothing, Ended::Batch),
            Op::ReplaceReady(ready) => {
                let decided = self.head.replaces().find(|replace| replace.intent.replace == ready.replace);
                decided.map_or(Ended::Nothing, |replace| Ended::Replace(replace.intent.clone()))
            }
            Op::Abandoned(_) => match &self.head.batch {
                BatchSlot::Abandoning { intent, entry, .. } => Ended::Abandoned(intent.clone(), *entry),
                BatchSlot::Free | BatchSlot::Open(_) => Ended::Nothing,
            },
            Op::Pass(_) => Ended::Before(self.head.end),
            Op::Header(_)
            | Op::Intent(_)
            | Op::AbandonIntent(_)
            | Op::ReplaceIntent(_)
            | Op::ReplaceAbort(_)
            | Op::ReplaceDone(_)
            | Op::CollectKeys(_) => Ended::Nothing,
        }
    }

    fn fold(&mut self, op: &Op, ended: Ended) {
        match (op, ended) {
            (Op::Commit(commit), Ended::Batch(intent)) => self.commit(intent, commit),
            (Op::ReplaceReady(ready), Ended::Replace(intent)) => self.decide(&intent, &ready.outputs),
            (Op::Pass(pass), Ended::Before(from)) => {
                self.spans.insert(from, Span { to: pass.to, fate: Fate::Passed(pass.reason) });
            }
            (Op::Abandoned(_), Ended::Abandoned(Intent { from, folders, .. }, entry)) => {
                let fate = Fate::Abandoned(Blanks { folders, entry });
                self.spans.insert(from, Span { to: self.head.end, fate });
            }
            _ => {}
        }
    }

    fn commit(&mut self, intent: Intent, commit: &Commit) {
        let Intent { from, to, .. } = intent;
        for (k, (folder, stored)) in (0u32..).zip(intent.folders.iter().zip(&commit.files)) {
            let file = LiveFile { folder: folder.clone(), from, to, stored: *stored };
            self.live.insert(FileId::Batch { from, k }, file);
        }
        let batch = Batch {
            recipe: intent.recipe,
            window_from: intent.window_from,
            clock_ms: intent.clock_ms,
            keys: commit.keys,
            counts: commit.counts.clone(),
        };
        self.spans.insert(from, Span { to, fate: Fate::Batch(Box::new(batch)) });
    }

    fn decide(&mut self, intent: &ReplaceIntent, outputs: &[Stored]) {
        for (_, id) in intent.inputs() {
            self.live.remove(&id);
        }
        for ((id, planned), stored) in intent.outputs().zip(outputs) {
            let file = LiveFile { folder: planned.folder.clone(), from: planned.from, to: planned.to, stored: *stored };
            self.live.insert(id, file);
        }
    }

    /// Names under which an object may stand besides the live files: those of the batch under way, inputs of a decided
    /// replace until they are deleted, and blanks. Whatever else stands among the data is an orphan.
    pub fn expected_besides_live(&self) -> impl Iterator<Item = (&str, FileId)> {
        let open = self.head.intent().into_iter().flat_map(|intent| names(intent.from, &intent.folders));
        let inputs = self.head.replaces().filter(|replace| replace.stage != Stage::Open);
        let blanks = self.blanks().map(|(folder, id, _)| (folder, id));
        open.chain(inputs.flat_map(|replace| replace.intent.inputs())).chain(blanks)
    }

    /// Blanks of abandoned batches, with the number of the entry for which the fence has to have passed before somebody
    /// deletes them. Their names are never used again.
    pub fn blanks(&self) -> impl Iterator<Item = (&str, FileId, u64)> {
        self.spans
            .iter()
            .filter_map(|(from, span)| match &span.fate {
                Fate::Abandoned(blanks) => Some((*from, blanks)),
                Fate::Batch(_) | Fate::Passed(_) => None,
            })
            .flat_map(|(from, blanks)| names(from, &blanks.folders).map(|(folder, id)| (folder, id, blanks.entry)))
    }
}

/// The files of a batch.
fn names(from: i64, folders: &[String]) -> impl Iterator<Item = (&str, FileId)> {
    (0u32..).zip(folders).map(move |(k, folder)| (folder.as_str(), FileId::Batch { from, k }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::InFolder;
    use crate::testing::History;

    /// Batches 1..2, 2..3 and 3..4, each with a file in f0, and the first with one in f1, too.
    fn state() -> State {
        History::of(&[9, 9, 9, 9, 9, 9]).state
    }

    fn compaction() -> ReplaceIntent {
        let files = [1, 3].map(|from| FileId::Batch { from, k: 0 }).to_vec();
        let inputs = vec![InFolder { folder: "f0".to_owned(), files }];
        let outputs = vec![Planned { folder: "f0".to_owned(), from: 1, to: 4 }];
        ReplaceIntent {
            replace: 0,
            reason: Reason::Compaction,
            source: Source::Inputs,
            recipe: Recipe { layout: 1.into(), encoding: 1.into() },
            scopes: vec![Scope { from: 1, to: 4, inputs, outputs }],
        }
    }

    fn refused(change: impl FnOnce(&mut ReplaceIntent)) -> Option<Invalid> {
        let (mut state, mut intent) = (state(), compaction());
        change(&mut intent);
        let ops = [Op::ReplaceIntent(intent)];
        let refused = state.allows(&ops).err();
        assert_eq!(state.apply(&ops).err(), refused, "whoever reads it says the same");
        refused
    }

    #[test]
    fn what_is_replaced_counts_and_goes_into_the_outputs() {
        assert_eq!(refused(|_| {}), None);
        let other = FileId::Batch { from: 2, k: 1 };
        let dead = refused(|intent| intent.scopes[0].inputs[0].files.push(other));
        assert_eq!(dead, Some(Invalid::InputNotLive { id: other, folder: "f0".to_owned() }));
        let elsewhere = refused(|intent| intent.scopes[0].inputs[0].folder = "f1".to_owned());
        assert!(matches!(elsewhere, Some(Invalid::InputNotLive { .. })), "{elsewhere:?}");
        let id = FileId::Batch { from: 3, k: 0 };
        let short = refused(|intent| intent.scopes[0].outputs[0].to = 3);
        assert_eq!(short, Some(Invalid::Uncovered { id, from: 3, to: 4 }));
        let planned = |folder: &str, from, to| Planned { folder: folder.to_owned(), from, to };
        let gap = refused(|intent| intent.scopes[0].outputs = vec![planned("f0", 1, 2), planned("f0", 2, 3)]);
        assert_eq!(gap, Some(Invalid::Uncovered { id, from: 3, to: 4 }));
        let moved = refused(|intent| intent.scopes[0].outputs[0].folder = "f1".to_owned());
        assert!(matches!(moved, Some(Invalid::Uncovered { .. })), "{moved:?}");
        let empty = refused(|intent| intent.scopes[0].outputs.push(planned("f1", 1, 4)));
        assert_eq!(empty, Some(Invalid::NoInputs { folder: "f1".to_owned(), from: 1, to: 4 }));
    }

    #[test]
    fn what_is_made_from_the_log_has_no_rows_of_files_that_stay() {
        let restore = |intent: &mut ReplaceIntent| (intent.reason, intent.source) = (Reason::Restore, Source::Log);
        assert_eq!(refused(restore), Some(Invalid::Bystander { id: FileId::Batch { from: 2, k: 0 } }));
        let all = |intent: &mut ReplaceIntent| {
            intent.scopes[0].inputs[0].files.push(FileId::Batch { from: 2, k: 0 });
        };
        let whole_folder = refused(|intent| {
            restore(intent);
            all(intent);
        });
        assert_eq!(whole_folder, None);
        // Another layout takes rows from every folder.
        let rewrite = |intent: &mut ReplaceIntent| {
            (intent.reason, intent.source) = (Reason::Rewrite, Source::Log);
            intent.scopes[0].outputs[0].folder = "f7".to_owned();
            all(intent);
        };
        assert_eq!(refused(rewrite), Some(Invalid::Bystander { id: FileId::Batch { from: 1, k: 1 } }));
        let whole = |intent: &mut ReplaceIntent| {
            rewrite(intent);
            let files = vec![FileId::Batch { from: 1, k: 1 }];
            intent.scopes[0].inputs.push(InFolder { folder: "f1".to_owned(), files });
        };
        assert_eq!(refused(whole), None);
    }

    #[test]
    fn blanks_of_abandoned_batches_are_known() {
        // A batch of two files is abandoned, and one that follows is under way.
        let mut history = History::of(&[9, 9, 25, 6]);
        let abandoned = [FileId::Batch { from: 2, k: 0 }, FileId::Batch { from: 2, k: 1 }];
        let of = |state: &State| state.expected_besides_live().map(|(_, id)| id).collect::<Vec<_>>();
        assert_eq!(of(&history.state), abandoned, "while it is abandoned");
        history.go_on(9);
        assert_eq!(of(&history.state), abandoned);
        let expected = [("f0", abandoned[0], 3), ("f1", abandoned[1], 3)];
        assert_eq!(history.state.blanks().collect::<Vec<_>>(), expected);
        history.go_on(9);
        let open = FileId::Batch { from: 4, k: 0 };
        assert_eq!(of(&history.state), [&[open], &abandoned[..]].concat());
    }

    #[test]
    fn an_output_that_is_replaced_lies_inside_its_scope() {
        let mut state = state();
        let ready = Op::ReplaceReady(crate::op::ReplaceReady {
            replace: 0,
            outputs: vec![Stored { rows: 2, bytes: 1, sha256: crate::Hash::of(b""), bounds: None }],
        });
        let done = Op::ReplaceDone(crate::op::ReplaceEnd { replace: 0 });
        for op in [Op::ReplaceIntent(compaction()), ready, done] {
            state.apply(&[op]).unwrap();
        }
        let mut again = compaction();
        let id = FileId::Replace { replace: 0, k: 0 };
        again.replace = 1;
        again.scopes[0].inputs[0].files = vec![id];
        assert_eq!(state.allows(&[Op::ReplaceIntent(again.clone())]), Ok(()));
        (again.scopes[0].to, again.scopes[0].outputs[0].to) = (3, 3);
        let beyond = Invalid::InputBeyondScope { id, from: 1, to: 3 };
        assert_eq!(state.allows(&[Op::ReplaceIntent(again)]), Err(beyond));
    }
}
