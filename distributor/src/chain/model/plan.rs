//! Where a worker goes on, once the facts are read: a plan by the real `decide`, and what it comes to.

use common::log::Bounds;

use super::Model;
use super::refusal::Refusal;
use super::scenario::{LayoutId, Mutation, Offsets, range};
use super::worker::{Making, Phase, own_layout};
use super::world::{Completion, Cut, Kind, World};
use crate::chain::{CutKind, Plan, gap_at};

/// What was read of the group and the log when the partition was taken over. It is not read again until the next time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Seen {
    pub committed: Option<u8>,
    pub earliest: u8,
    pub latest: u8,
    /// Reading has begun since then: the next look at the chain begins with these facts read anew.
    is_old: bool,
}

impl Seen {
    pub(super) fn new(committed: Option<u8>, world: &World) -> Self {
        Self { committed, earliest: world.earliest, latest: world.latest, is_old: false }
    }

    /// What of it can still matter once the batch of `cut` is being made.
    pub(super) fn grown_old(self, cut: Cut) -> Self {
        Self { committed: self.committed.filter(|offset| *offset > cut.to), latest: 0, is_old: true, ..self }
    }

    pub(super) fn look_again(self) -> Phase {
        if self.is_old { Phase::Stopped } else { Phase::ReadTail { seen: self } }
    }

    pub(super) fn log(self) -> Bounds {
        Bounds { earliest: i64::from(self.earliest), latest: i64::from(self.latest) }
    }

    pub(super) fn gap_at(self, at: u8) -> Option<(Kind, u8)> {
        let (kind, to) = gap_at(i64::from(at), self.committed.map(i64::from), self.log())?;
        let kind = match kind {
            CutKind::Batch => Kind::Batch,
            CutKind::Skipped => Kind::Skipped,
            CutKind::Lost => Kind::Lost,
        };
        Some((kind, u8::try_from(to).unwrap()))
    }
}

impl Model {
    pub(super) fn plan(
        &self,
        world: &World,
        index: usize,
        seen: Seen,
        origin: Option<u8>,
        tail: Option<(Cut, bool)>,
        salvaged: bool,
    ) -> Result<Phase, Refusal> {
        let plan = self.decisions.decide(seen, origin, tail, salvaged);
        if let Some((tail, _)) = tail
            && plan.is_err()
            && tail.to > seen.latest
            && !self.scenario.is(Mutation::LogIsAskedOnce)
        {
            return Ok(Phase::AskAgain { written: tail.to });
        }
        let ignored = plan == Err(Refusal::LostHead) && self.scenario.is(Mutation::LostHeadIsNotRefused);
        let plan = if ignored { Plan::Redo } else { plan? };
        if let Some(committed) = seen.committed
            && plan != Plan::Redo
            && self.scenario.is(Mutation::CommittedOffsetDecides)
        {
            return Ok(Phase::Fill { from: committed, window: 0, has_origin: true });
        }
        let offset = |at: i64| u8::try_from(at).unwrap();
        match (plan, tail) {
            (Plan::Begin { at }, _) => {
                let at = offset(at);
                if origin.is_some() && seen.gap_at(at).is_some() {
                    return Ok(Phase::PassOver { seen, at, window: 0 });
                }
                Ok(Phase::Fill { from: at, window: 0, has_origin: origin.is_some() })
            }
            (Plan::Salvage, Some((tail, _))) => self.salvage(world, index, seen, tail),
            (Plan::Redo, Some((tail, _))) => self.redo(world, index, seen, tail),
            (Plan::ReadOn { .. }, Some((tail, _))) => self.read_on(world, index, seen, tail),
            (Plan::Walk { at }, Some(_)) => {
                let cut = world.cut_before(offset(at) + 1).ok_or(Refusal::NoCutHolds)?;
                Ok(Phase::Walk { seen, cut })
            }
            (Plan::Redo | Plan::Salvage | Plan::ReadOn { .. } | Plan::Walk { .. }, None) => Err(Refusal::ChainChanged),
        }
    }

    fn redo(&self, world: &World, index: usize, seen: Seen, cut: Cut) -> Result<Phase, Refusal> {
        if seen.earliest > cut.from && !self.scenario.is(Mutation::LostHeadIsNotRefused) {
            return Err(Refusal::OpenBeforeTheLast);
        }
        let window = self.rebuild(world, index, cut.from, cut.layout)?;
        let under_its_own =
            self.scenario.is(Mutation::RedoUnderItsOwnLayout) || self.scenario.is(Mutation::FilesAreOverwritten);
        let layout = if under_its_own { own_layout(index) } else { cut.layout };
        let redo = Some(seen.grown_old(cut));
        Ok(Phase::ReadAgain(Making { cut: Cut { layout, ..cut }, window, put: 0, redo, salvage: None }))
    }

    pub(super) fn walk(&self, world: &mut World, index: usize, seen: Seen, cut: Cut) -> Result<Phase, Refusal> {
        if cut.kind == Kind::Batch {
            let Some(Completion { rows: [listed, ..], .. }) = world.completions[usize::from(cut.from)] else {
                if seen.earliest > cut.from && !self.scenario.is(Mutation::WalkDoesNotLookAgain) {
                    return Ok(Phase::IsOpenInBetween { seen, cut });
                }
                return self.redo(world, index, seen, cut);
            };
            let is_missing =
                (0..2).zip(listed).any(|(number, rows)| rows > 0 && world.file(cut.from, number).is_none());
            if is_missing && seen.earliest <= cut.from && !self.scenario.is(Mutation::WalkTrustsCompletions) {
                return self.redo(world, index, seen, cut);
            }
        }
        world.workers[index].commit = Some(cut.to);
        Ok(Phase::ReadNext { seen, last: cut })
    }

    pub(super) fn read_on(&self, world: &World, index: usize, seen: Seen, last: Cut) -> Result<Phase, Refusal> {
        let at = last.to;
        let window = self.rebuild(world, index, at, own_layout(index))?;
        if seen.gap_at(at).is_some() {
            return Ok(Phase::PassOver { seen, at, window });
        }
        if last.kind == Kind::Batch && seen.earliest < at {
            return Ok(Phase::CheckLast { at, window });
        }
        Ok(Phase::Fill { from: at, window, has_origin: true })
    }

    pub(super) fn passed_over(&self, world: &mut World, index: usize, seen: Seen, at: u8, window: Offsets) -> Phase {
        let Some((kind, to)) = seen.gap_at(at) else { return Phase::Fill { from: at, window, has_origin: true } };
        if world.cut(at) != Some(Cut { kind, from: at, to, layout: own_layout(index), names: None }) {
            return seen.look_again();
        }
        world.workers[index].commit = Some(to);
        match seen.gap_at(to) {
            Some(_) => Phase::PassOver { seen, at: to, window },
            None => Phase::Fill { from: to, window, has_origin: true },
        }
    }

    /// Offsets that may be the twin of a record at `at` or later, when the last one stands just before it.
    pub(super) fn reachable(&self, at: u8, layout: LayoutId) -> Offsets {
        let window = self.scenario.layouts[usize::from(layout)].window;
        range(at.saturating_sub(1).saturating_sub(window), at)
    }

    /// The window valid at `at`, from the key runs of the chain.
    pub(super) fn rebuild(&self, world: &World, index: usize, at: u8, layout: LayoutId) -> Result<Offsets, Refusal> {
        if self.scenario.is(Mutation::WindowIsNotRebuilt) {
            return Ok(0);
        }
        let mut window = world.workers[index].kept;
        let Some(last) = world.cut_before(at) else { return Ok(window) };
        if last.to != at {
            return Err(Refusal::BrokenChain);
        }
        let mut end = None;
        let mut before = Some(last);
        while let Some(cut) = before {
            if cut.kind == Kind::Batch {
                let reachable = self.reachable(*end.get_or_insert(cut.to), layout);
                if reachable & range(cut.from, cut.to) == 0 {
                    break;
                }
                let keys = world.key_runs[usize::from(cut.from)];
                if keys == 0 {
                    return Err(Refusal::KeyRunMissing);
                }
                window |= keys & reachable;
            }
            before = world.cut_before(cut.from);
        }
        Ok(window)
    }
}
