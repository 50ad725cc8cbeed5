//! What actors ask of the world, and what it answers.
//!
//! An actor is a value: `next` says what it wants done, `heard` takes the answer. It does no I/O and has no clock, so the
//! driver, the exhaustive model and the simulation run the same one. Each action is one request, or several of which each
//! is answered for itself, in any order. A crash is forgetting the actor: a new one begins with [`Action::Load`].

use crate::decide::{Facts, Refusal};
use crate::files::LiveFile;
use crate::head::Head;
use crate::op::{FileId, Intent, Op, Planned, Reason, Recipe, ReplaceIntent, Scope, Source, Stored, Witness};
use crate::rules::{Rule, holds};

/// The number of entries that were folded when the tail was last proved: what puts that make rows visible rest on.
pub type Anchor = u64;

/// What an actor wants done next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// Fold the newest checkpoint and the entries after it, up to the tail.
    Load,
    /// Read what log and group say.
    Facts,
    /// Read records from `at` on, after the one with `last` if it is known, and encode a batch. It takes as long as it
    /// takes, and may never end.
    Fill { at: i64, last: Option<Witness> },
    /// Read the records of this batch and encode it, by its recipe.
    Make(Intent),
    /// Put entry `n` if it is absent.
    Append { n: u64, ops: Vec<Op> },
    /// Read the number below which entries may have been deleted.
    ReadFloor,
    /// Read entry `n`; if it is absent, the tail is proved.
    Prove { n: u64 },
    /// Put each of these files of the batch if its name is free, and say what stands there.
    PutFiles { from: i64, files: Vec<u32>, anchor: Anchor },
    /// Put the key run of the batch if its name is free.
    PutKeys { from: i64 },
    /// Commit an offset to the group.
    CommitOffset(i64),
    /// Look whether each live file that holds offsets from `from` on is there, as of this many entries.
    FindMissing { from: i64, entries: u64 },
    /// Make these live files again, and put each under its own name if that is free.
    PutAgain { files: Vec<FileId>, anchor: Anchor },
    /// Tell people that files are missing, and why this owner does not make them again.
    Report(Unrestored),
    /// Choose what to replace, as of this many entries.
    Choose { entries: u64 },
    /// Make these outputs of a replace and put each below `staged/` if its name is free.
    Stage { replace: u64, outputs: Vec<u32> },
    /// Wait until no put whose anchor is at or below this entry can be accepted any more, nor one that was is still to
    /// become visible.
    AwaitFence { entry: u64 },
    /// Read each output of a decided replace, staged or published, against what was decided.
    Examine { replace: u64 },
    /// Delete these inputs.
    Delete { replace: u64, files: Vec<FileId> },
    /// Copy these outputs from `staged/` to their names, if they are free.
    Publish { replace: u64, outputs: Vec<u32>, anchor: Anchor },
    /// Delete what is staged of a replace.
    DropStaged { replace: u64 },
    /// Take each of these names of the batch with a file without rows, whatever stands there.
    Blank { from: i64, files: Vec<u32> },
    /// Put the checkpoint of the first `entries` entries, and read it again.
    Checkpoint { entries: u64 },
    /// Raise the floor.
    RaiseFloor(u64),
    /// Delete every entry below this one, in any order.
    DeleteEntries { below: u64 },
    /// Nothing is left to do.
    Rest,
    /// It cannot go on; a person has to act.
    Refuse(Refusal),
}

/// What became of an action.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Answer {
    Loaded(Box<Head>),
    Facts(Facts),
    Encoded(Box<Encoded>),
    /// The log no longer holds the records.
    OutOfRange,
    /// The records are not those of the intent; or the one before the batch is not the one that is remembered.
    OtherRecords,
    /// Look again.
    Woken,
    Appended,
    /// Another entry has the number. These follow the ones that were folded, at least one.
    Lost(Vec<Vec<Op>>),
    /// What is there does not follow what was folded, or is gone: collection has passed who asks.
    Behind,
    Floor(u64),
    /// These follow the ones that were folded; none: the tail is proved.
    Tail(Vec<Vec<Op>>),
    /// What stands under the name of one file of the batch.
    Stands {
        k: u32,
        stored: Stored,
    },
    KeysStand(Stored),
    OffsetCommitted,
    Missing(Vec<(FileId, LiveFile)>),
    /// One file is there again.
    PutAgain(FileId),
    /// The log no longer holds its records, or holds others: it stays missing.
    CannotMake(FileId),
    Reported,
    /// The store did not accept a put, for its proof of the tail is too old.
    TooOld,
    Chosen(Box<Choice>),
    NothingToReplace,
    Staged {
        k: u32,
        stored: Stored,
    },
    /// An input is missing or altered.
    InputGone(FileId),
    FencePassed,
    /// These outputs stand neither staged nor published as they were decided.
    Examined {
        gone: Vec<u32>,
    },
    Deleted(Vec<FileId>),
    Published {
        k: u32,
    },
    /// What was staged is not there, nor the output.
    StagedGone,
    StagedDropped,
    Blanked {
        k: u32,
    },
    CheckpointRead,
    FloorRaised,
    EntriesDeleted,
}

/// A batch that is encoded and not visible.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Encoded {
    pub intent: Intent,
    pub counts: serde_json::Value,
    /// Of the first batch of a partition.
    pub header: Option<crate::op::Header>,
}

/// Missing files that an owner does not make again. Offsets are committed nevertheless.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Unrestored {
    /// The log no longer holds their records, or holds others.
    pub cannot_make: Vec<FileId>,
    /// Outputs of a replace: only another replace, of reason restore, makes them again.
    pub of_replaces: Vec<FileId>,
    /// Inputs or outputs of a replace that is under way: the owner looks again when it has ended.
    pub waiting: Vec<FileId>,
}

impl Unrestored {
    pub fn is_empty(&self) -> bool {
        self.files().next().is_none()
    }

    pub fn files(&self) -> impl Iterator<Item = FileId> {
        self.cannot_make.iter().chain(&self.of_replaces).chain(&self.waiting).copied()
    }
}

/// What to replace, and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Choice {
    pub reason: Reason,
    pub source: Source,
    pub recipe: Recipe,
    pub scopes: Vec<Scope>,
}

impl Choice {
    /// The intent of it, under this number.
    pub fn intent(self, replace: u64) -> ReplaceIntent {
        let Self { reason, source, recipe, scopes } = self;
        ReplaceIntent { replace, reason, source, recipe, scopes }
    }

    pub fn outputs(&self) -> impl Iterator<Item = &Planned> {
        self.scopes.iter().flat_map(|scope| &scope.outputs)
    }
}

/// An answer to something that was not asked: a fault of the driver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the answer {answer} does not fit the action {action}")]
pub struct Misheard {
    pub action: String,
    pub answer: String,
}

impl Misheard {
    pub(crate) fn new(action: &Action, answer: &Answer) -> Self {
        Self { action: format!("{action:?}"), answer: format!("{answer:?}") }
    }

    /// For a driver that is asked what this actor never asks.
    pub fn unknown(action: &Action) -> Self {
        Self { action: format!("{action:?}"), answer: "none, for it is not one of this actor".to_owned() }
    }
}

/// Any entry that was appended may have filled a hole that collection left.
pub(crate) fn reads_floor_after(ops: &[Op]) -> bool {
    let rule = match ops {
        [Op::Commit(_)] => Rule::FloorAfterCommit,
        _ => Rule::FloorAfterAppend,
    };
    holds(rule)
}

/// What has to be seen to before going on: shared by all actors that append and rest on the tail.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Check {
    None,
    /// After a won append of whatever: is it above the floor? If not, it filled a hole that collection left.
    Floor {
        of: u64,
    },
    /// The proof of the tail is too old.
    Tail,
    /// After an absent entry, which ends what follows a lost append, too: is it above the floor? If not, it is a hole, and
    /// no tail; and what was folded before it may have been put into holes by others who slept.
    FloorOfTail {
        of: u64,
    },
}
