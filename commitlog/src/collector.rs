//! Deletes old entries while others append, read and audit.
//!
//! The order makes it safe: a checkpoint that was read back holds the state, then the floor rises, then entries below it
//! go. Who appended, or proved the tail, in a hole finds the floor above it and begins again.

use crate::actor::{Action, Answer, Misheard};
use crate::rules::{Rule, holds};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Collector {
    /// Entries that stay before the checkpoint, for followers that are behind by so many; at least one, by which it shows
    /// that entries were not lost.
    keep: u64,
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    Load,
    Checkpoint { entries: u64 },
    ReadFloor { to: u64 },
    Raise { to: u64 },
    Delete { to: u64 },
    RaiseLate { to: u64 },
    Rest,
}

impl Collector {
    pub fn new(keep: u64) -> Self {
        Self { keep: keep.max(1), phase: Phase::Load }
    }

    /// What it wants done.
    pub fn next(&self) -> Action {
        match &self.phase {
            Phase::Load => Action::Load,
            Phase::Checkpoint { entries } => Action::Checkpoint { entries: *entries },
            Phase::ReadFloor { .. } => Action::ReadFloor,
            Phase::Raise { to } | Phase::RaiseLate { to } => Action::RaiseFloor(*to),
            Phase::Delete { to } => Action::DeleteEntries { below: *to },
            Phase::Rest => Action::Rest,
        }
    }

    /// Takes the answer to [`Collector::next`].
    ///
    /// # Errors
    /// It answers something else.
    pub fn heard(&mut self, answer: Answer) -> Result<(), Misheard> {
        let action = self.next();
        self.phase = match (&self.phase, answer) {
            (Phase::Load, Answer::Loaded(head)) if head.next == 0 => Phase::Rest,
            (Phase::Load, Answer::Loaded(head)) if holds(Rule::CheckpointBeforeFloor) => {
                Phase::Checkpoint { entries: head.next }
            }
            (Phase::Load, Answer::Loaded(head)) if head.next <= self.keep => Phase::Rest,
            (Phase::Load, Answer::Loaded(head)) => Phase::ReadFloor { to: head.next - self.keep },
            (Phase::Checkpoint { entries }, Answer::CheckpointRead) if *entries <= self.keep => Phase::Rest,
            (Phase::Checkpoint { entries }, Answer::CheckpointRead) => Phase::ReadFloor { to: entries - self.keep },
            // Another one has put a newer checkpoint meanwhile.
            (Phase::Checkpoint { .. }, Answer::Behind) => Phase::Load,
            (Phase::ReadFloor { to }, Answer::Floor(floor)) if floor >= *to => Phase::Rest,
            (Phase::ReadFloor { to }, Answer::Floor(_)) if holds(Rule::FloorBeforeCollection) => {
                Phase::Raise { to: *to }
            }
            (Phase::ReadFloor { to }, Answer::Floor(_)) => Phase::Delete { to: *to },
            (Phase::Raise { to }, Answer::FloorRaised) => Phase::Delete { to: *to },
            (Phase::Delete { .. }, Answer::EntriesDeleted) if holds(Rule::FloorBeforeCollection) => Phase::Rest,
            (Phase::Delete { to }, Answer::EntriesDeleted) => Phase::RaiseLate { to: *to },
            (Phase::RaiseLate { .. }, Answer::FloorRaised) => Phase::Rest,
            (Phase::Rest, Answer::Woken) => Phase::Load,
            (_, answer) => return Err(Misheard::new(&action, &answer)),
        };
        Ok(())
    }
}
