//! The fold of a commit log's files: which of them count, what each holds, and what was decided of every offset.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::head::{Head, Invalid, Stage};
use crate::op::{Commit, FileId, Intent, Op, PassReason, Recipe, ReplaceIntent, Stored};

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
    Abandoned,
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
            let before = self.rests_on(op);
            self.head.fold(op)?;
            self.fold(op, before);
        }
        self.head.next += 1;
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
            Op::Pass(_) | Op::Abandoned(_) => Ended::Before(self.head.end),
            Op::Header(_)
            | Op::Intent(_)
            | Op::AbandonIntent(_)
            | Op::ReplaceIntent(_)
            | Op::ReplaceAbort(_)
            | Op::ReplaceDone(_) => Ended::Nothing,
        }
    }

    fn fold(&mut self, op: &Op, ended: Ended) {
        match (op, ended) {
            (Op::Commit(commit), Ended::Batch(intent)) => self.commit(intent, commit),
            (Op::ReplaceReady(ready), Ended::Replace(intent)) => self.decide(&intent, &ready.outputs),
            (Op::Pass(pass), Ended::Before(from)) => {
                self.spans.insert(from, Span { to: pass.to, fate: Fate::Passed(pass.reason) });
            }
            (Op::Abandoned(_), Ended::Before(from)) => {
                self.spans.insert(from, Span { to: self.head.end, fate: Fate::Abandoned });
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

    /// Whether a replace may be begun that says these inputs: all of them count.
    pub fn are_live<'a>(&self, mut ids: impl Iterator<Item = (&'a str, FileId)>) -> bool {
        ids.all(|(folder, id)| self.live.get(&id).is_some_and(|file| file.folder == folder))
    }

    /// Names under which an object may stand besides the live files: those of the open batch, the inputs of a decided
    /// replace until they are deleted. Whatever else stands among the data is an orphan.
    pub fn expected_besides_live(&self) -> impl Iterator<Item = FileId> {
        let open = self
            .head
            .intent()
            .into_iter()
            .flat_map(|intent| (0u32..).zip(&intent.folders).map(|(k, _)| FileId::Batch { from: intent.from, k }));
        let inputs = self.head.replaces().filter(|replace| replace.stage != Stage::Open);
        open.chain(inputs.flat_map(|replace| replace.intent.inputs().map(|(_, id)| id)))
    }
}
