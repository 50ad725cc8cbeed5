//! Breadth first through every world, and what must never be in one.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use super::intern::Interned;
use super::scenarios::Scenario;
use super::shared::{Shared, Step};
use super::world::{Key, Rows, World, rows_of};
use crate::files::Fate;
use crate::op::FileId;

#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub max_states: usize,
}

#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub states: usize,
    /// Worlds in which nothing is left to do.
    pub rests: usize,
    pub is_cut_short: bool,
    /// The first path to each fault.
    pub faults: BTreeMap<String, Vec<String>>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, rests, .. } = self;
        let verdict = if self.faults.is_empty() { "safe".to_owned() } else { format!("{:?}", self.faults.keys()) };
        let cut_short = if self.is_cut_short { " (cut short)" } else { "" };
        write!(formatter, "{states:>8} states {rests:>6} at rest: {verdict}{cut_short}")
    }
}

impl Outcome {
    pub(super) fn explain(&self) -> String {
        let fault = |(fault, path): (&String, &Vec<String>)| format!("{fault}:\n    {}", path.join("\n    "));
        self.faults.iter().map(fault).collect::<Vec<_>>().join("\n")
    }
}

struct Search<'a> {
    shared: Shared<'a>,
    worlds: Interned<Rc<World>>,
    /// World and step that led to each world.
    parents: Vec<(u32, u32)>,
    /// From, to.
    edges: Vec<(u32, u32)>,
    good: Vec<u32>,
    outcome: Outcome,
}

pub(super) fn search(scenario: &Scenario, bounds: Bounds) -> Outcome {
    let mut search = Search {
        shared: Shared::new(scenario),
        worlds: Interned::new(),
        parents: Vec::new(),
        edges: Vec::new(),
        good: Vec::new(),
        outcome: Outcome::default(),
    };
    let start = search.shared.start();
    search.worlds.number(Rc::new(start));
    search.parents.push((0, 0));
    let mut next = 0;
    while (next as usize) < search.parents.len() {
        search.visit(next);
        if search.outcome.faults.keys().any(|fault| fault.starts_with("row") || fault.starts_with("keys")) {
            break;
        }
        if search.parents.len() > bounds.max_states {
            search.outcome.is_cut_short = true;
            break;
        }
        next += 1;
    }
    search.outcome.states = search.parents.len();
    if search.outcome.faults.is_empty() && !search.outcome.is_cut_short {
        search.all_can_end_well();
    }
    search.outcome
}

impl Search<'_> {
    fn steps(&mut self, world: &World) -> (Vec<Step>, bool) {
        let mut steps = self.shared.progress(world);
        // Nothing new can come of who asks for the same and hears the same.
        let is_at_rest = steps.iter().all(|step| step.after == *world) && world.late.is_empty();
        self.shared.accidents(world, &mut steps);
        (steps, is_at_rest)
    }

    fn visit(&mut self, number: u32) {
        let world = self.worlds.get(number).clone();
        if let Some(fault) = self.fault(&world) {
            self.note(fault, number);
            return;
        }
        let (mut steps, is_at_rest) = self.steps(&world);
        if is_at_rest {
            self.outcome.rests += 1;
            self.rest(&world, number, &mut steps);
        }
        for (step, Step { after, .. }) in (0u32..).zip(steps) {
            let to = self.worlds.number(Rc::new(after));
            if to as usize == self.parents.len() {
                self.parents.push((number, step));
            }
            self.edges.push((number, to));
        }
    }

    /// What is wrong with a world, whatever comes.
    fn fault(&self, world: &World) -> Option<&'static str> {
        let mut visible: Rows = 0;
        for rows in world.files.values() {
            if visible & rows != 0 {
                return Some("row visible twice");
            }
            visible |= rows;
        }
        let Some(state) = self.shared.state(world) else { return Some("row order: an entry is not valid") };
        let mut at = state.head.header.as_ref().map_or(state.head.end, |header| header.start);
        for (from, span) in &state.spans {
            if *from != at {
                return Some("row with two fates, or none");
            }
            at = span.to;
        }
        if at != state.head.end {
            return Some("row with two fates, or none");
        }
        let batches = state.spans.iter().filter(|(_, span)| matches!(span.fate, Fate::Batch(_)));
        if batches.into_iter().any(|(from, _)| world.keys.binary_search(from).is_err()) {
            return Some("keys of a committed batch are not there");
        }
        (world.deleted > world.checkpoint).then_some("row unknown: entries are gone that no checkpoint holds")
    }

    fn rest(&mut self, world: &World, number: u32, steps: &mut Vec<Step>) {
        let Some(state) = self.shared.state(world).cloned() else { return };
        let offsets = self.shared.scenario.offsets;
        let start = state.head.header.as_ref().map_or(world.start, |header| header.start);
        let is_gone = |offset: i64| {
            let span = state.spans.range(..=offset).next_back().filter(|(_, span)| offset < span.to);
            offset < start || span.is_some_and(|(_, span)| !matches!(span.fate, Fate::Batch(_)))
        };
        let visible = world.files.values().fold(0, |all, rows| all | rows);
        let missing: Rows =
            (0..offsets).filter(|offset| !is_gone(*offset)).fold(0, |all, offset| all | 1 << offset) & !visible;
        // Of files that were deleted by hand, those whose records the log has let go of are gone, and outputs that no
        // replacer makes again. People know.
        let unmakeable =
            state.live.iter().filter(|(id, file)| file.from < world.start || matches!(id, FileId::Replace { .. }));
        let unmakeable = unmakeable.fold(0, |all, (_, file)| all | rows_of(&file.stored));
        let missing = missing & !(world.taken & world.reported & unmakeable);
        if missing == 0 {
            self.good.push(number);
        } else if missing & !world.taken == 0 {
            if let Some(step) = self.shared.replay(world) {
                steps.push(step);
            }
        } else {
            self.note("row lost", number);
        }
        let counts = |(key, rows): (&Key, &Rows)| {
            let live = state.live.get(&key.id).filter(|file| Key::new(&file.folder, key.id) == *key);
            *rows == 0 || live.is_some_and(|file| rows_of(&file.stored) == *rows)
        };
        if !world.files.iter().all(counts) {
            self.note("row visible of a file that does not count", number);
        }
        if state.head.intent().is_some() || state.head.replaces().next().is_some() {
            self.note("row waits for ever: something is under way at rest", number);
        }
    }

    fn note(&mut self, fault: &str, number: u32) {
        if self.outcome.faults.contains_key(fault) {
            return;
        }
        let path = self.path(number);
        self.outcome.faults.insert(fault.to_owned(), path);
    }

    fn path(&mut self, number: u32) -> Vec<String> {
        self.shared.explains = true;
        let mut path = Vec::new();
        let mut at = number;
        while at != 0 {
            let (parent, step) = self.parents[at as usize];
            let world = self.worlds.get(parent).clone();
            let (mut steps, _) = self.steps(&world);
            steps.extend(self.shared.replay(&world));
            path.push(steps.into_iter().nth(step as usize).map(|step| step.what).unwrap_or_default());
            at = parent;
        }
        self.shared.explains = false;
        path.reverse();
        path
    }

    /// From every world one can be reached in which every row is there once.
    fn all_can_end_well(&mut self) {
        let mut ends_well = vec![false; self.parents.len()];
        self.edges.sort_unstable_by_key(|(_, to)| *to);
        let mut work = std::mem::take(&mut self.good);
        for number in &work {
            ends_well[*number as usize] = true;
        }
        while let Some(number) = work.pop() {
            let first = self.edges.partition_point(|(_, to)| *to < number);
            for (from, _) in self.edges[first..].iter().take_while(|(_, to)| *to == number) {
                if !std::mem::replace(&mut ends_well[*from as usize], true) {
                    work.push(*from);
                }
            }
        }
        if let Some(stuck) = ends_well.iter().position(|well| !well) {
            let stuck = u32::try_from(stuck).expect("as many as worlds");
            self.note("row waits for ever: no good end can be reached", stuck);
        }
    }
}
