//! A worker, one atomic step after another, as `partition/mod.rs` and `partition/gap.rs` go. What to do is decided by the
//! real `decide` and `gap_at`.

use super::Model;
use super::check::Violation;
use super::plan::Seen;
use super::refusal::{Refusal, refuse};
use super::scenario::{FILES, LayoutId, Mutation, Offsets, bit};
use super::world::{Completion, Cut, File, Kind, Request, World};

/// A batch whose records are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Making {
    pub cut: Cut,
    /// Valid at the cut's beginning.
    pub window: Offsets,
    /// Files that are put, as bits.
    pub put: u8,
    /// Of a batch that was cut earlier or by somebody else; what comes after it is looked for in the chain.
    pub redo: Option<Seen>,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    Stopped,
    /// The log has to end at `written` at least, for that was seen to be cut.
    ReadBounds {
        committed: Option<u8>,
        written: u8,
    },
    /// The chain ends at `written`, behind the log's end as it was.
    AskAgain {
        written: u8,
    },
    ReadTail {
        seen: Seen,
    },
    ReadCompletion {
        seen: Seen,
        tail: Cut,
    },
    ReadOrigin {
        seen: Seen,
        tail: Option<(Cut, bool)>,
    },
    Walk {
        seen: Seen,
        cut: Cut,
    },
    /// The log lost the head of this batch, which is not complete.
    IsOpenInBetween {
        seen: Seen,
        cut: Cut,
    },
    ReadNext {
        seen: Seen,
        last: Cut,
    },
    PassOver {
        seen: Seen,
        at: u8,
        window: Offsets,
    },
    CheckLast {
        at: u8,
        window: Offsets,
    },
    Fill {
        from: u8,
        window: Offsets,
        has_origin: bool,
    },
    PutOrigin {
        start: u8,
    },
    PutCut {
        from: u8,
        to: u8,
        window: Offsets,
    },
    ReadAgain(Making),
    PutFiles(Making),
    PutKeyRun(Making),
    PutCompletion(Making),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Worker {
    pub phase: Phase,
    /// To be committed; that is done beside everything else.
    pub commit: Option<u8>,
    /// Only with [`Mutation::OverlayIsKept`].
    pub kept: Offsets,
    /// Only with [`Mutation::OriginIsReadFirst`].
    early_origin: Option<u8>,
}

impl Default for Worker {
    fn default() -> Self {
        Self { phase: Phase::Stopped, commit: None, kept: 0, early_origin: None }
    }
}

impl Worker {
    pub(super) fn is_stopped(&self) -> bool {
        self.phase == Phase::Stopped && self.commit.is_none()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// The one thing that the phase asks for.
    GoOn,
    /// The records up to here are read, and the batch is to end there.
    ReadTo(u8),
    PutFile(u8),
    /// The request is sent, and the worker thinks that it failed: it will try again, unless it crashes.
    Send,
    SendFile(u8),
    Commit,
    SendCommit,
    Crash,
}

impl Model {
    /// What worker `index` may do now.
    pub(super) fn acts(&self, world: &World, index: usize, acts: &mut Vec<Act>) {
        let worker = &world.workers[index];
        match worker.phase {
            Phase::Fill { from, .. } => {
                let may_end = |to: &u8| self.scenario.ends[index] & bit(*to) != 0 && self.scenario.is_record(*to - 1);
                acts.extend((from + 1..=world.latest).filter(may_end).map(Act::ReadTo));
            }
            Phase::PutFiles(making) => {
                for number in (0..2).filter(|number| self.is_to_be_put(&making, *number)) {
                    acts.push(Act::PutFile(number));
                    if world.can_send(&self.scenario, self.file_request(&making, number)) {
                        acts.push(Act::SendFile(number));
                    }
                }
            }
            _ => acts.push(Act::GoOn),
        }
        if self.request(worker, index).is_some_and(|request| world.can_send(&self.scenario, request)) {
            acts.push(Act::Send);
        }
        if let Some(offset) = worker.commit {
            acts.push(Act::Commit);
            if world.can_send(&self.scenario, Request::Commit(offset)) {
                acts.push(Act::SendCommit);
            }
        }
        if !worker.is_stopped() {
            acts.push(Act::Crash);
        }
    }

    /// The put that the phase asks for, other than that of a file.
    fn request(&self, worker: &Worker, index: usize) -> Option<Request> {
        let layout = own_layout(index);
        match worker.phase {
            Phase::PutOrigin { start } => Some(Request::Origin(start)),
            Phase::PutCut { from, to, .. } => Some(Request::Cut(Cut { kind: Kind::Batch, from, to, layout })),
            Phase::PassOver { seen, at, .. } => {
                seen.gap_at(at).map(|(kind, to)| Request::Cut(Cut { kind, from: at, to, layout }))
            }
            Phase::PutKeyRun(Making { cut, .. }) => {
                Some(Request::KeyRun { from: cut.from, keys: self.scenario.records(cut.from, cut.to) })
            }
            Phase::PutCompletion(making) => {
                Some(Request::Completion { from: making.cut.from, completion: self.completion(&making) })
            }
            _ => None,
        }
    }

    fn rows(&self, making: &Making) -> [Offsets; FILES] {
        let Making { cut, window, .. } = making;
        self.scenario.files(cut.layout, self.scenario.rows(cut.layout, *window, cut.from, cut.to))
    }

    fn completion(&self, making: &Making) -> Completion {
        Completion(self.rows(making).map(|rows| u8::try_from(rows.count_ones()).unwrap()))
    }

    fn is_to_be_put(&self, making: &Making, number: u8) -> bool {
        self.rows(making)[usize::from(number)] != 0 && making.put & bit(number) == 0
    }

    fn file_request(&self, making: &Making, number: u8) -> Request {
        let Cut { from, to, layout, .. } = making.cut;
        let rows = self.rows(making)[usize::from(number)];
        Request::File { from, number, file: File { to, layout, rows } }
    }

    /// One step of worker `index`. A refusal stops it.
    pub(super) fn act(&self, world: &mut World, index: usize, act: Act) -> Result<Option<Refusal>, Violation> {
        let worker = world.workers[index];
        let next = match act {
            Act::Crash => {
                world.stop(index);
                return Ok(None);
            }
            Act::Commit | Act::SendCommit => {
                let Some(offset) = world.workers[index].commit.take() else { return Ok(None) };
                let request = Request::Commit(offset);
                if act == Act::Commit {
                    world.take_effect(&self.scenario, request)?;
                } else {
                    world.send(request);
                }
                return Ok(None);
            }
            Act::Send => {
                if let Some(request) = self.request(&worker, index) {
                    world.send(request);
                }
                return Ok(None);
            }
            Act::SendFile(number) => {
                if let Phase::PutFiles(making) = worker.phase {
                    world.send(self.file_request(&making, number));
                }
                return Ok(None);
            }
            Act::PutFile(number) => self.put_file(world, worker.phase, number)?,
            Act::ReadTo(to) => Ok(self.read_to(world, worker.phase, index, to)),
            Act::GoOn => {
                if let Some(request) = self.request(&worker, index) {
                    world.take_effect(&self.scenario, request)?;
                }
                self.go_on_reading(world, index)
            }
        };
        match next {
            Ok(phase) => {
                if phase == Phase::Stopped {
                    self.end_session(world, index);
                }
                world.workers[index].phase = phase;
                Ok(None)
            }
            Err(refusal) => {
                refuse(world, world.workers[index].phase, refusal)?;
                if refusal == Refusal::LostHead && self.scenario.is(Mutation::RemedyIsBlind) {
                    world.refused = world.last_cut().map(|cut| cut.from);
                }
                world.stop(index);
                Ok(Some(refusal))
            }
        }
    }

    /// When another owner was faster, what is to be committed still is. A log that does not hold what is to be read costs
    /// what a crash costs.
    fn end_session(&self, world: &mut World, index: usize) {
        let worker = &mut world.workers[index];
        match worker.phase {
            Phase::Fill { .. } | Phase::CheckLast { .. } | Phase::ReadAgain(_) => worker.commit = None,
            Phase::PutCut { from, to, .. } if self.scenario.is(Mutation::OverlayIsKept) => {
                worker.kept |= self.scenario.records(from, to);
            }
            _ => {}
        }
    }

    fn read_to(&self, world: &World, phase: Phase, index: usize, to: u8) -> Phase {
        let Phase::Fill { from, window, has_origin } = phase else { return phase };
        if world.earliest > from {
            return Phase::Stopped;
        }
        let first = (from..to).find(|offset| self.scenario.is_record(*offset)).unwrap_or(from);
        if !has_origin {
            return Phase::PutOrigin { start: first };
        }
        if self.scenario.is(Mutation::FilesBeforeTheCut) {
            let cut = Cut { kind: Kind::Batch, from, to, layout: own_layout(index) };
            return Phase::PutFiles(Making { cut, window, put: 0, redo: None });
        }
        Phase::PutCut { from, to, window }
    }

    fn put_file(&self, world: &mut World, phase: Phase, number: u8) -> Result<Result<Phase, Refusal>, Violation> {
        let Phase::PutFiles(mut making) = phase else { return Ok(Ok(phase)) };
        let request = self.file_request(&making, number);
        world.take_effect(&self.scenario, request)?;
        let Request::File { from, file, .. } = request else { return Ok(Ok(phase)) };
        let known = world.file(from, number).is_some_and(|there| {
            (there.to, there.layout, there.rows.count_ones()) == (file.to, file.layout, file.rows.count_ones())
        });
        if !known {
            return Ok(Err(Refusal::ForeignFile));
        }
        making.put |= bit(number);
        Ok(Ok(self.after_files(making)))
    }

    fn after_files(&self, making: Making) -> Phase {
        let open = (0..2).filter(|number| self.is_to_be_put(&making, *number)).count();
        let enough = if self.scenario.is(Mutation::CompletionBeforeTheLastFile) { 1 } else { 0 };
        if open > enough {
            return Phase::PutFiles(making);
        }
        if self.scenario.is(Mutation::CompletionBeforeTheKeyRun) {
            return Phase::PutCompletion(making);
        }
        Phase::PutKeyRun(making)
    }

    /// One step, and what is read after it unless reads are steps of their own.
    fn go_on_reading(&self, world: &mut World, index: usize) -> Result<Phase, Refusal> {
        let mut phase = self.go_on(world, index)?;
        while !self.scenario.reads_apart
            && matches!(
                phase,
                Phase::ReadBounds { .. }
                    | Phase::ReadCompletion { .. }
                    | Phase::ReadOrigin { .. }
                    | Phase::ReadNext { .. }
            )
        {
            world.workers[index].phase = phase;
            phase = self.go_on(world, index)?;
        }
        Ok(phase)
    }

    /// The step of every phase that has only one; a put has just taken effect.
    fn go_on(&self, world: &mut World, index: usize) -> Result<Phase, Refusal> {
        let commits_at_the_cut = self.scenario.is(Mutation::CommitsAtTheCut);
        Ok(match world.workers[index].phase {
            Phase::Stopped => Phase::ReadBounds { committed: world.committed, written: 0 },
            Phase::AskAgain { written } => Phase::ReadBounds { committed: world.committed, written },
            Phase::ReadBounds { written, .. } if world.latest < written => return Err(Refusal::LogTruncated),
            Phase::ReadBounds { committed, .. } => {
                if self.scenario.is(Mutation::OriginIsReadFirst) {
                    world.workers[index].early_origin = world.origin;
                }
                Phase::ReadTail { seen: Seen::new(committed, world) }
            }
            Phase::ReadTail { seen } => match world.last_cut() {
                Some(tail) => Phase::ReadCompletion { seen, tail },
                None => Phase::ReadOrigin { seen, tail: None },
            },
            Phase::ReadCompletion { seen, tail } => {
                let complete = world.is_complete(tail) || self.scenario.is(Mutation::OpenBatchIsPassedOver);
                Phase::ReadOrigin { seen, tail: Some((tail, complete)) }
            }
            Phase::ReadOrigin { seen, tail } => {
                let is_early = self.scenario.is(Mutation::OriginIsReadFirst);
                let origin = if is_early { world.workers[index].early_origin } else { world.origin };
                self.plan(world, index, seen, origin, tail)?
            }
            Phase::Walk { seen, cut } => self.walk(world, index, seen, cut)?,
            Phase::ReadNext { seen, last } => match world.cut(last.to) {
                Some(cut) => Phase::Walk { seen, cut },
                None => self.read_on(world, index, seen, last)?,
            },
            Phase::IsOpenInBetween { seen, cut } => {
                if world.cut(cut.to).is_some() && !world.is_complete(cut) {
                    return Err(Refusal::OpenBeforeTheLast);
                }
                seen.look_again()
            }
            Phase::PassOver { seen, at, window } => self.passed_over(world, index, seen, at, window),
            Phase::CheckLast { at, .. } if world.earliest > at - 1 => Phase::Stopped,
            Phase::CheckLast { at, window } => Phase::Fill { from: at, window, has_origin: true },
            Phase::PutOrigin { start } if world.origin != Some(start) => Phase::Stopped,
            Phase::PutOrigin { start } => Phase::Fill { from: start, window: 0, has_origin: true },
            Phase::PutCut { from, to, window } => {
                let ours = Cut { kind: Kind::Batch, from, to, layout: own_layout(index) };
                let is_ours = world.cut(from) == Some(ours);
                if is_ours && commits_at_the_cut {
                    world.workers[index].commit = Some(to);
                }
                if is_ours || self.scenario.is(Mutation::LoserKeepsItsCut) {
                    self.after_files(Making { cut: ours, window, put: 0, redo: None })
                } else {
                    Phase::Stopped
                }
            }
            Phase::ReadAgain(making) if world.earliest > making.cut.from => Phase::Stopped,
            Phase::ReadAgain(making) => self.after_files(making),
            Phase::PutKeyRun(making) if self.scenario.is(Mutation::CompletionBeforeTheKeyRun) => {
                self.completed(world, index, making)
            }
            Phase::PutKeyRun(making) => Phase::PutCompletion(making),
            Phase::PutCompletion(making) => {
                if world.completions[usize::from(making.cut.from)] != Some(self.completion(&making)) {
                    return Err(Refusal::OtherFiles);
                }
                if self.scenario.is(Mutation::CompletionBeforeTheKeyRun) {
                    return Ok(Phase::PutKeyRun(making));
                }
                self.completed(world, index, making)
            }
            phase @ (Phase::Fill { .. } | Phase::PutFiles(_)) => phase,
        })
    }

    fn completed(&self, world: &mut World, index: usize, making: Making) -> Phase {
        let Making { cut, window, redo, .. } = making;
        world.workers[index].commit = Some(cut.to);
        match redo {
            Some(seen) => Phase::ReadNext { seen, last: cut },
            None => {
                let window = window | self.scenario.records(cut.from, cut.to);
                let window = window & self.reachable(cut.to, cut.layout);
                Phase::Fill { from: cut.to, window, has_origin: true }
            }
        }
    }
}

pub(super) fn own_layout(index: usize) -> LayoutId {
    LayoutId::try_from(index).unwrap()
}
