//! Every state that can be reached, nearest first.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use super::Model;
use super::check::{Property, Violation};
use super::scenario::{Mutation, bit};
use super::worker::Act;
use super::world::World;

#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Worker(usize, Act),
    /// A request that was under way takes effect.
    Lands(usize),
    SetOffset(Option<u8>),
    Delete {
        from: u8,
        number: u8,
    },
    Trim,
    Grow,
    /// The operator removes an open batch whose head the log lost.
    Remedy,
}

/// A violation, with the shortest way to it.
pub(super) struct Found {
    pub violation: Violation,
    pub trace: String,
}

pub(super) struct Explored {
    pub states: usize,
    /// States in which nobody is at work: one worker was let to run from each to the end.
    pub at_rest: usize,
    pub found: Option<Found>,
}

impl Model {
    fn steps(&self, world: &World, acts: &mut Vec<Act>, steps: &mut Vec<Step>) {
        let scenario = &self.scenario;
        for index in 0..2 {
            acts.clear();
            self.acts(world, index, acts);
            steps.extend(acts.iter().map(|act| Step::Worker(index, *act)));
        }
        let under_way = world.under_way.iter().enumerate();
        steps.extend(under_way.filter(|(_, request)| request.is_some()).map(|(index, _)| Step::Lands(index)));
        let settable = (0..7).filter(|offset| scenario.settable & !world.asked & bit(*offset) != 0);
        steps.extend(settable.map(|offset| Step::SetOffset(Some(offset))));
        if scenario.expires && world.committed.is_some() {
            steps.push(Step::SetOffset(None));
        }
        if scenario.deletes && world.deleted.is_none() {
            for from in 0..scenario.end() {
                let there = (0..2).filter(|number| world.file(from, *number).is_some());
                steps.extend(there.map(|number| Step::Delete { from, number }));
            }
        }
        if world.earliest < world.latest.min(scenario.trims_to) {
            steps.push(Step::Trim);
        }
        if world.latest < scenario.end() {
            steps.push(Step::Grow);
        }
        if self.refused_batch(world).is_some() && (world.is_at_rest() || scenario.is(Mutation::RemedyIsHasty)) {
            steps.push(Step::Remedy);
        }
    }

    fn step(&self, world: &mut World, step: Step) -> Result<(), Violation> {
        match step {
            Step::Worker(index, act) => self.act(world, index, act).map(|_| ()),
            Step::Lands(index) => match world.arrive(index) {
                Some(request) => world.take_effect(&self.scenario, request),
                None => Ok(()),
            },
            Step::SetOffset(offset) => {
                world.set_offset(offset);
                Ok(())
            }
            Step::Delete { from, number } => {
                world.files[usize::from(from)][usize::from(number)] = None;
                world.deleted = Some((from, number));
                Ok(())
            }
            Step::Trim => {
                world.earliest += 1;
                Ok(())
            }
            Step::Grow => {
                world.latest += 1;
                Ok(())
            }
            Step::Remedy => {
                if let Some(from) = self.refused_batch(world) {
                    world.remove_batch(from);
                }
                Ok(())
            }
        }
    }

    /// The batch that an operator has to remove. It is asked for when nobody is at work any more.
    fn refused_batch(&self, world: &World) -> Option<u8> {
        if self.scenario.is(Mutation::RemedyIsBlind) { world.refused } else { world.stuck().map(|cut| cut.from) }
    }

    /// Explores all states, up to the first that breaks a property. With `sought`, up to the first that breaks that one:
    /// states that break another are left alone.
    pub(super) fn explore(&self, sought: Option<Property>) -> Explored {
        let first = World::new(&self.scenario);
        let mut reached: HashSet<World, BuildHasherDefault<WordHasher>> = HashSet::default();
        reached.insert(first);
        let mut came_from: Vec<(usize, Step)> = vec![(0, Step::Grow)];
        let (mut frontier, mut next) = (vec![(0, first)], Vec::new());
        let (mut acts, mut steps) = (Vec::new(), Vec::new());
        let mut at_rest = 0;
        let found = |came_from: &[(usize, Step)], at: usize, last: Option<Step>, violation: Violation| {
            Some(Found { trace: self.trace(came_from, at, last), violation })
        };
        while !frontier.is_empty() {
            for (at, world) in frontier.drain(..) {
                steps.clear();
                self.steps(&world, &mut acts, &mut steps);
                for step in steps.iter().copied() {
                    let mut then = world;
                    let mut outcome = self.step(&mut then, step);
                    if outcome.is_ok() {
                        if !reached.insert(then) {
                            continue;
                        }
                        outcome = self.check(&then);
                        if outcome.is_ok() && then.is_at_rest() {
                            at_rest += 1;
                            outcome = self.finish_alone(&then).map_err(Violation::by_one_alone);
                        }
                    }
                    match outcome {
                        Ok(()) => {
                            came_from.push((at, step));
                            next.push((came_from.len() - 1, then));
                        }
                        Err(violation) if sought.is_none_or(|sought| sought == violation.property) => {
                            let found = found(&came_from, at, Some(step), violation);
                            return Explored { states: reached.len(), at_rest, found };
                        }
                        Err(_) => {}
                    }
                }
            }
            std::mem::swap(&mut frontier, &mut next);
        }
        Explored { states: reached.len(), at_rest, found: None }
    }

    fn trace(&self, came_from: &[(usize, Step)], at: usize, last: Option<Step>) -> String {
        let mut steps: Vec<Step> = last.into_iter().collect();
        let mut at = at;
        while at != 0 {
            let (before, step) = came_from[at];
            steps.push(step);
            at = before;
        }
        let mut world = World::new(&self.scenario);
        let mut trace = String::new();
        for (number, step) in steps.into_iter().rev().enumerate() {
            let phase = match step {
                Step::Worker(index, _) => format!("{:?}", world.workers[index].phase),
                Step::Lands(index) => format!("{:?}", world.under_way[index]),
                _ => String::new(),
            };
            trace.push_str(&format!("{:3}. {step:?} {phase}\n", number + 1));
            // The last step may be what breaks a property.
            let _ = self.step(&mut world, step);
        }
        trace
    }
}

/// Quick without optimisation; nobody makes states collide.
#[derive(Default)]
struct WordHasher(u64);

impl Hasher for WordHasher {
    fn finish(&self) -> u64 {
        // The map takes its own bits from the upper end.
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u8(*byte);
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.0 = (self.0 ^ u64::from(value)).wrapping_mul(0x517c_c1b7_2722_0a95);
        self.0 ^= self.0 >> 29;
    }

    fn write_usize(&mut self, _value: usize) {
        // Lengths: they are the same in every state.
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u8(value.to_le_bytes()[0]);
    }
}
