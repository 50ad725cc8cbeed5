//! Deletes old entries while others append, read and audit.
//!
//! The order makes it safe: a checkpoint that was read back holds the state, then the floor rises, then entries below it
//! go. Who appended, or proved the tail, in a hole finds the floor above it and begins again. The entry that began a replace
//! stays until it is done: the time when the store took it says when the fence has passed.

use crate::actor::{Action, Answer, Misheard};
use crate::head::Head;
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
    /// The floor is to rise to `to` afterwards.
    Checkpoint {
        entries: u64,
        to: u64,
    },
    ReadFloor {
        to: u64,
    },
    Raise {
        to: u64,
    },
    Delete {
        to: u64,
    },
    RaiseLate {
        to: u64,
    },
    Rest,
}

impl Collector {
    pub fn new(keep: u64) -> Self {
        Self { keep: keep.max(1), phase: Phase::Load }
    }

    /// Where entries begin that stay.
    fn floor(&self, head: &Head) -> u64 {
        let needed = head.replaces().map(|replace| replace.entry).min().unwrap_or(u64::MAX);
        head.next.saturating_sub(self.keep).min(needed)
    }

    /// What it wants done.
    pub fn next(&self) -> Action {
        match &self.phase {
            Phase::Load => Action::Load,
            Phase::Checkpoint { entries, .. } => Action::Checkpoint { entries: *entries },
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
                Phase::Checkpoint { entries: head.next, to: self.floor(&head) }
            }
            (Phase::Load, Answer::Loaded(head)) if self.floor(&head) == 0 => Phase::Rest,
            (Phase::Load, Answer::Loaded(head)) => Phase::ReadFloor { to: self.floor(&head) },
            (Phase::Checkpoint { to: 0, .. }, Answer::CheckpointRead) => Phase::Rest,
            (Phase::Checkpoint { to, .. }, Answer::CheckpointRead) => Phase::ReadFloor { to: *to },
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::{Replace, ReplaceSlot, Stage};
    use crate::op::{Reason, Recipe, ReplaceIntent, Source};
    use crate::testing::History;

    /// The floor that a collector raises to, if any.
    fn raises_to(head: &Head) -> Option<u64> {
        let mut collector = Collector::new(2);
        collector.heard(Answer::Loaded(Box::new(head.clone()))).unwrap();
        collector.heard(Answer::CheckpointRead).unwrap();
        if collector.next() == Action::ReadFloor {
            collector.heard(Answer::Floor(0)).unwrap();
        }
        if let Action::RaiseFloor(to) = collector.next() { Some(to) } else { None }
    }

    #[test]
    fn the_entry_that_began_a_replace_stays_until_it_is_done() {
        let mut head = History::of(&[9; 20]).state.head;
        let next = head.next;
        assert_eq!(raises_to(&head), Some(next - 2));
        let recipe = Recipe { layout: 1.into(), encoding: 1.into() };
        let intent = ReplaceIntent {
            replace: 0,
            reason: Reason::Compaction,
            source: Source::Inputs,
            recipe,
            scopes: Vec::new(),
        };
        for (entry, floor) in [(next - 1, Some(next - 2)), (3, Some(3)), (0, None)] {
            let replace = Replace { intent: intent.clone(), entry, stage: Stage::Open };
            head.set_replace(ReplaceSlot::Merging, replace);
            assert_eq!(raises_to(&head), floor, "{entry}");
        }
    }
}
