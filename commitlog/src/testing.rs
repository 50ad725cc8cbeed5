//! Histories for tests: entries that are valid one after another, of every kind.

#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "for tests: a history that is not valid is a bug here"
)]

use std::cell::Cell;

use crate::files::State;
use crate::hash::Hash;
use crate::head::{BatchSlot, Head, ReplaceSlot, Stage};
use crate::op::{
    AbandonIntent, Abandoned, CollectKeys, Commit, FileId, Header, InFolder, Intent, Op, Pass, PassReason, Planned,
    Reason, Recipe, ReplaceEnd, ReplaceIntent, ReplaceReady, Scope, Source, Stored, Witness,
};

thread_local! {
    static FULL_SPANS: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Runs `work` on this thread with segments of so few spans.
pub fn with_full_spans<T>(spans: usize, work: impl FnOnce() -> T) -> T {
    FULL_SPANS.set(Some(spans));
    let done = work();
    FULL_SPANS.set(None);
    done
}

pub(crate) fn full_spans() -> Option<usize> {
    FULL_SPANS.get()
}

/// A state and the choices that led to it.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub state: State,
    pub entries: Vec<Vec<Op>>,
}

fn witness(n: i64) -> Witness {
    Witness { append_ms: n, key_hash: n.unsigned_abs() }
}

fn recipe() -> Recipe {
    Recipe { layout: serde_json::json!({"version": 1}), encoding: serde_json::json!("zstd") }
}

fn stored(n: i64) -> Stored {
    Stored { rows: n.unsigned_abs(), bytes: n.unsigned_abs() * 100, sha256: Hash::of(&n.to_le_bytes()), bounds: None }
}

impl History {
    /// A history of one entry for each choice.
    pub fn of(choices: &[u8]) -> Self {
        let mut history = Self::default();
        for choice in choices {
            history.go_on(*choice);
        }
        history
    }

    /// One entry more: which kind, of those that are valid now, the choice says.
    pub fn go_on(&mut self, choice: u8) {
        let ops = self.next(choice);
        self.state.apply(&ops).unwrap();
        self.entries.push(ops);
    }

    /// An entry that would be valid next.
    pub fn one_more(&self) -> Vec<Op> {
        self.next(9)
    }

    fn next(&self, choice: u8) -> Vec<Op> {
        let head = &self.state.head;
        let size = i64::from(choice / 16) + 1;
        if head.header.is_none() {
            let header = Header {
                topic: "t".to_owned(),
                partition: 0,
                log_id: "log".to_owned(),
                start: size,
                first: witness(size),
            };
            return vec![Op::Header(header), Op::Intent(intent(size, size, 2))];
        }
        match choice % 16 {
            0..=2 if self.replace(ReplaceSlot::Merging).is_some() => return vec![self.carry(ReplaceSlot::Merging)],
            3 if self.replace(ReplaceSlot::Remaking).is_some() => return vec![self.carry(ReplaceSlot::Remaking)],
            4 => {
                if let Some(op) = self.begin(Reason::Compaction, size) {
                    return vec![op];
                }
            }
            5 => {
                if let Some(op) = self.begin(Reason::Restore, size) {
                    return vec![op];
                }
            }
            _ => {}
        }
        match &head.batch {
            BatchSlot::Abandoning { intent, .. } => vec![Op::Abandoned(Abandoned { from: intent.from })],
            BatchSlot::Open(intent) if choice % 16 == 6 => {
                vec![Op::AbandonIntent(AbandonIntent { from: intent.from, resume_at: intent.to })]
            }
            BatchSlot::Open(_) | BatchSlot::Free if choice % 16 == 10 && self.keys_from(size).is_some() => {
                self.keys_from(size).into_iter().map(|from| Op::CollectKeys(CollectKeys { from })).collect()
            }
            BatchSlot::Open(intent) => vec![commit(intent)],
            BatchSlot::Free if choice % 16 == 7 => {
                let reason = if size % 2 == 0 { PassReason::Lost } else { PassReason::Skipped };
                vec![Op::Pass(Pass { reason, to: head.end + size })]
            }
            BatchSlot::Free if choice % 16 == 8 => {
                let all_duplicates = intent(head.end, size, 0);
                let commit = commit(&all_duplicates);
                vec![Op::Intent(all_duplicates), commit]
            }
            BatchSlot::Free => vec![Op::Intent(intent(head.end, size, size))],
        }
    }

    /// A place up to which keys may be collected now.
    fn keys_from(&self, size: i64) -> Option<i64> {
        let Head { keys_from, end, .. } = self.state.head;
        let needed = self.state.head.intent().map_or(end, |intent| intent.window_from);
        Some((keys_from + size).min(needed)).filter(|from| *from > keys_from)
    }

    fn replace(&self, slot: ReplaceSlot) -> Option<&crate::head::Replace> {
        self.state.head.replace(slot)
    }

    fn carry(&self, slot: ReplaceSlot) -> Op {
        let replace = self.replace(slot).unwrap();
        let number = replace.intent.replace;
        match &replace.stage {
            Stage::Open if number % 4 == 3 => Op::ReplaceAbort(ReplaceEnd { replace: number }),
            Stage::Open => {
                let outputs = replace.intent.outputs().map(|(_, planned)| stored(planned.from)).collect();
                Op::ReplaceReady(ReplaceReady { replace: number, outputs })
            }
            Stage::Ready(_) => Op::ReplaceDone(ReplaceEnd { replace: number }),
        }
    }

    /// Replaces the first files of a folder.
    fn begin(&self, reason: Reason, size: i64) -> Option<Op> {
        let head = &self.state.head;
        if self.replace(ReplaceSlot::of(reason)).is_some() {
            return None;
        }
        let taken: Vec<FileId> =
            head.replaces().flat_map(|replace| replace.intent.inputs().map(|(_, id)| id)).collect();
        let folder = format!("f{}", size % 3);
        let files: Vec<_> = self
            .state
            .live
            .iter()
            .filter(|(id, file)| file.folder == folder && !taken.contains(id))
            .filter(|(id, _)| !head.replaces().any(|open| is_output_of(id, open.intent.replace)))
            .take(usize::try_from(size).unwrap_or(1))
            .collect();
        let from = files.iter().map(|(_, file)| file.from).min()?;
        let to = files.iter().map(|(_, file)| file.to).max()?;
        let inputs = vec![InFolder { folder: folder.clone(), files: files.iter().map(|(id, _)| **id).collect() }];
        let scope = Scope { from, to, inputs, outputs: vec![Planned { folder, from, to }] };
        Some(Op::ReplaceIntent(ReplaceIntent {
            replace: head.next_replace,
            reason,
            source: Source::Inputs,
            recipe: recipe(),
            scopes: vec![scope],
        }))
    }
}

fn is_output_of(id: &FileId, number: u64) -> bool {
    matches!(id, FileId::Replace { replace, .. } if *replace == number)
}

fn intent(from: i64, length: i64, files: i64) -> Intent {
    Intent {
        from,
        to: from + length,
        recipe: recipe(),
        window_from: from,
        clock_ms: from + length,
        first: witness(from),
        last: witness(from + length - 1),
        folders: (0..files).map(|k| format!("f{}", k % 3)).collect(),
    }
}

fn commit(intent: &Intent) -> Op {
    Op::Commit(Commit {
        from: intent.from,
        files: (0i64..).zip(&intent.folders).map(|(k, _)| stored(intent.from * 10 + k)).collect(),
        keys: stored(intent.from),
        counts: serde_json::json!({"read": intent.to - intent.from}),
    })
}
