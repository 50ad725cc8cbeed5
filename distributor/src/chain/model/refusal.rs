//! Refusals, and whether the state of the world is a reason for them.

use std::cell::RefCell;
use std::collections::HashMap;

use super::check::{Property, Violation};
use super::plan::Seen;
use super::scenario::bit;
use super::worker::Phase;
use super::world::{Cut, World};
use crate::batch::testing;
use crate::chain::{Facts, Plan, decide};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    // By `decide`, known by their words.
    CutsWithoutOrigin,
    OffsetWithoutChain,
    LogTruncated,
    OffsetBeyondTheLog,
    LostHead,
    OtherByDecide,
    // By the worker.
    ChainChanged,
    NoCutHolds,
    OpenBeforeTheLast,
    BrokenChain,
    KeyRunMissing,
    ForeignFile,
    OtherFiles,
}

/// Who refuses must have a reason, or an operator is sent to mend what is whole.
pub(super) fn refuse(world: &World, phase: Phase, refusal: Refusal) -> Result<(), Violation> {
    let (was_asked, has_lost_head) = match phase {
        Phase::ReadOrigin { seen, tail, .. } => (
            seen.committed.is_some_and(|offset| world.asked & bit(offset) != 0),
            tail.filter(|(cut, _)| world.earliest > cut.from),
        ),
        _ => (false, None),
    };
    let has_reason = match refusal {
        Refusal::OffsetWithoutChain | Refusal::OffsetBeyondTheLog => was_asked,
        // It may be complete by now.
        Refusal::LostHead => has_lost_head.is_some(),
        _ => false,
    };
    if has_reason { Ok(()) } else { Err(Violation::new(Property::RefusedForNoReason, format!("{refusal:?}"))) }
}

type Question = (Seen, Option<u8>, Option<(Cut, bool)>, bool);

/// The real `decide`, asked once for equal facts.
#[derive(Default)]
pub(super) struct Decisions(RefCell<HashMap<Question, Result<Plan, Refusal>>>);

impl Decisions {
    pub(super) fn decide(
        &self,
        seen: Seen,
        origin: Option<u8>,
        tail: Option<(Cut, bool)>,
        salvaged: bool,
    ) -> Result<Plan, Refusal> {
        let mut known = self.0.borrow_mut();
        known.entry((seen, origin, tail, salvaged)).or_insert_with(|| ask(seen, origin, tail, salvaged)).clone()
    }
}

fn ask(seen: Seen, origin: Option<u8>, tail: Option<(Cut, bool)>, salvaged: bool) -> Result<Plan, Refusal> {
    let real = |cut: Cut| crate::chain::Cut {
        folders: cut.names.map(|names| vec!["events/f".to_owned(); names.count_ones() as usize]),
        ..testing::cut(i64::from(cut.from), i64::from(cut.to))
    };
    let facts = Facts {
        topic: "events".into(),
        partition: 0,
        group: "g".into(),
        log_id: "log".into(),
        origin: origin.map(|start| testing::origin(i64::from(start))),
        tail: tail.map(|(cut, complete)| (real(cut), complete)),
        salvaged,
        newest_done: tail.filter(|(_, complete)| *complete).map(|(cut, _)| i64::from(cut.from)),
        committed: seen.committed.map(i64::from),
        log: seen.log(),
    };
    let known = [
        ("cuts but no origin", Refusal::CutsWithoutOrigin),
        ("has committed offset", Refusal::OffsetWithoutChain),
        ("truncated or recreated", Refusal::LogTruncated),
        ("where the log ends", Refusal::OffsetBeyondTheLog),
        ("was begun", Refusal::LostHead),
    ];
    decide(&facts).map_err(|refusal| {
        let found = known.iter().find(|(words, _)| refusal.0.contains(words));
        found.map_or(Refusal::OtherByDecide, |(_, refusal)| *refusal)
    })
}
