//! A worker, one atomic step after another, as `partition/mod.rs` and `partition/gap.rs` go. What to do is decided by the
//! real `decide` and `gap_at`.

use super::Model;
use super::check::Violation;
use super::plan::Seen;
use super::refusal::{Refusal, refuse};
use super::scenario::{FILES, LayoutId, Mutation, Offsets, ROUNDS, bit};
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
    pub salvage: Option<Salvaging>,
}

/// An open batch whose head the log has lost is closed. Names are taken round by round, then what is left is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Salvaging {
    /// The round that is ours, and the one whose files are put: 0 are those of the cut.
    pub own: u8,
    pub round: u8,
    /// All files of `round` are there, so that nothing is left to write.
    pub whole: bool,
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
        salvaged: bool,
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
    PutRound {
        seen: Seen,
        cut: Cut,
        round: u8,
        log_from: u8,
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
                for (number, request) in self.puts(world, &making) {
                    acts.push(Act::PutFile(number));
                    if world.can_send(&self.scenario, request) {
                        acts.push(Act::SendFile(number));
                    }
                }
            }
            _ => acts.push(Act::GoOn),
        }
        if self.request(world, index).is_some_and(|request| world.can_send(&self.scenario, request)) {
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
    fn request(&self, world: &World, index: usize) -> Option<Request> {
        let layout = own_layout(index);
        match world.workers[index].phase {
            Phase::PutOrigin { start } => Some(Request::Origin(start)),
            Phase::PutCut { from, to, window } => Some(Request::Cut(self.own_cut(index, from, to, window))),
            Phase::PassOver { seen, at, .. } => {
                seen.gap_at(at).map(|(kind, to)| Request::Cut(Cut { kind, from: at, to, layout, names: None }))
            }
            Phase::PutRound { cut, round, log_from, .. } => Some(Request::Round { from: cut.from, round, log_from }),
            Phase::PutKeyRun(making) => {
                Some(Request::KeyRun { from: making.cut.from, keys: self.key_run(world, &making) })
            }
            Phase::PutCompletion(making) => {
                Some(Request::Completion { from: making.cut.from, completion: self.completion(world, &making) })
            }
            _ => None,
        }
    }

    fn own_cut(&self, index: usize, from: u8, to: u8, window: Offsets) -> Cut {
        let layout = own_layout(index);
        let files = self.scenario.files(layout, self.scenario.rows(layout, window, from, to));
        let names = (0..2).zip(files).filter(|(_, rows)| *rows != 0).fold(0, |names, (number, _)| names | bit(number));
        Cut { kind: Kind::Batch, from, to, layout, names: Some(names).filter(|_| !self.scenario.old_cuts) }
    }

    fn rows(&self, making: &Making) -> [Offsets; FILES] {
        let Making { cut, window, .. } = making;
        self.scenario.files(cut.layout, self.scenario.rows(cut.layout, *window, cut.from, cut.to))
    }

    fn completion(&self, world: &World, making: &Making) -> Completion {
        let count = |rows: Offsets| u8::try_from(rows.count_ones()).unwrap();
        let mut rows = [[0; FILES]; ROUNDS + 1];
        let Some(Salvaging { round, .. }) = making.salvage else {
            rows[0] = self.rows(making).map(count);
            return Completion { rows, rounds: 0 };
        };
        for (of_round, rows) in (0..=round).zip(&mut rows) {
            for (number, rows) in (0..2).zip(rows) {
                *rows = world.file_of(making.cut.from, of_round, number).map_or(0, |file| count(file.rows));
            }
        }
        Completion { rows, rounds: round }
    }

    /// The files that are still to be put.
    fn puts(&self, world: &World, making: &Making) -> Vec<(u8, Request)> {
        let Making { cut, put, salvage, .. } = *making;
        let Cut { from, to, layout, names, .. } = cut;
        let round = salvage.map_or(0, |salvage| salvage.round);
        let stands_in = salvage.is_some_and(|salvage| salvage.round < salvage.own);
        let rows = match salvage {
            None => self.rows(making),
            Some(_) if stands_in => [0; FILES],
            Some(_) => self.left(world, making),
        };
        let is_wanted = |number: u8| match salvage {
            None => rows[usize::from(number)] != 0,
            Some(_) => names.unwrap_or_default() & bit(number) != 0,
        };
        let file = |number: u8| File { to, layout, rows: rows[usize::from(number)], stands_in };
        (0..2)
            .filter(|number| is_wanted(*number) && put & bit(*number) == 0)
            .map(|number| (number, Request::File { from, round, number, file: file(number) }))
            .collect()
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
                if let Some(request) = self.request(world, index) {
                    world.send(request);
                }
                return Ok(None);
            }
            Act::SendFile(number) => {
                if let Phase::PutFiles(making) = worker.phase
                    && let Some((_, request)) = self.puts(world, &making).into_iter().find(|(put, _)| *put == number)
                {
                    world.send(request);
                }
                return Ok(None);
            }
            Act::PutFile(number) => self.put_file(world, worker.phase, number)?,
            Act::ReadTo(to) => Ok(self.read_to(world, worker.phase, index, to)),
            Act::GoOn => {
                if let Some(request) = self.request(world, index) {
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
            let cut = self.own_cut(index, from, to, window);
            return Phase::PutFiles(Making { cut, window, put: 0, redo: None, salvage: None });
        }
        Phase::PutCut { from, to, window }
    }

    fn put_file(&self, world: &mut World, phase: Phase, number: u8) -> Result<Result<Phase, Refusal>, Violation> {
        let Phase::PutFiles(mut making) = phase else { return Ok(Ok(phase)) };
        let put = self.puts(world, &making).into_iter().find(|(put, _)| *put == number);
        let Some((_, Request::File { from, round, number, file })) = put else { return Ok(Ok(phase)) };
        world.take_effect(&self.scenario, Request::File { from, round, number, file })?;
        let Some(there) = world.file_of(from, round, number) else { return Ok(Err(Refusal::ForeignFile)) };
        if there.stands_in && !file.stands_in && !self.scenario.is(Mutation::StandInIsTakenForTheFile) {
            return Ok(Ok(Phase::Stopped));
        }
        let is_known = (there.to, there.layout) == (file.to, file.layout)
            && (file.stands_in || there.stands_in || there.rows.count_ones() == file.rows.count_ones());
        if !is_known {
            return Ok(Err(Refusal::ForeignFile));
        }
        making.put |= bit(number);
        Ok(Ok(self.after_files(world, making)))
    }

    pub(super) fn after_files(&self, world: &World, making: Making) -> Phase {
        let open = self.puts(world, &making).len();
        let enough = if self.scenario.is(Mutation::CompletionBeforeTheLastFile) { 1 } else { 0 };
        if open > enough {
            return Phase::PutFiles(making);
        }
        if let Some(salvage) = making.salvage.filter(|salvage| salvage.round < salvage.own) {
            return self.after_names(world, making, salvage);
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
                None => Phase::ReadOrigin { seen, tail: None, salvaged: false },
            },
            Phase::ReadCompletion { seen, tail } => {
                let complete = world.is_complete(tail) || self.scenario.is(Mutation::OpenBatchIsPassedOver);
                let salvaged = !complete && world.salvage(tail.from).rounds() > 0;
                Phase::ReadOrigin { seen, tail: Some((tail, complete)), salvaged }
            }
            Phase::ReadOrigin { seen, tail, salvaged } => {
                let is_early = self.scenario.is(Mutation::OriginIsReadFirst);
                let origin = if is_early { world.workers[index].early_origin } else { world.origin };
                self.plan(world, index, seen, origin, tail, salvaged)?
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
                let ours = self.own_cut(index, from, to, window);
                let is_ours = world.cut(from) == Some(ours);
                if is_ours && commits_at_the_cut {
                    world.workers[index].commit = Some(to);
                }
                if is_ours || self.scenario.is(Mutation::LoserKeepsItsCut) {
                    self.after_files(world, Making { cut: ours, window, put: 0, redo: None, salvage: None })
                } else {
                    Phase::Stopped
                }
            }
            Phase::PutRound { seen, cut, round, .. } => self.began_round(world, index, seen, cut, round)?,
            Phase::ReadAgain(making) if world.earliest > self.read_from(world, &making) => Phase::Stopped,
            Phase::ReadAgain(making) if making.salvage.is_some_and(|salvage| salvage.whole) => Phase::PutKeyRun(making),
            Phase::ReadAgain(making) => self.after_files(world, making),
            Phase::PutKeyRun(making) if self.scenario.is(Mutation::CompletionBeforeTheKeyRun) => {
                self.completed(world, index, making)
            }
            Phase::PutKeyRun(making) => Phase::PutCompletion(making),
            Phase::PutCompletion(making) => {
                if world.completions[usize::from(making.cut.from)] != Some(self.completion(world, &making)) {
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
        let Making { cut, window, redo, salvage, .. } = making;
        if let (Some(_), Some(seen)) = (salvage, redo) {
            return seen.look_again();
        }
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
