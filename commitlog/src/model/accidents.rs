//! Crashes, requests that land late, and what operators and the log's retention do.

use std::rc::Rc;

use super::actors::Kind;
use super::shared::{Shared, Step};
use super::world::{Key, Late, World};
use crate::actor::Action;
use crate::head::Replace;
use crate::op::Source;

impl Shared<'_> {
    /// Crashes, late requests, and what operators and the log's retention do.
    pub(super) fn accidents(&mut self, world: &World, steps: &mut Vec<Step>) {
        let fresh: Vec<u32> =
            self.scenario.actors.clone().into_iter().map(|kind| self.actors.number(Rc::new(kind.begin()))).collect();
        if world.budget.crashes > 0 {
            for (place, (number, fresh)) in world.actors.iter().zip(&fresh).enumerate() {
                let actor = self.actors.get(*number).clone();
                if number == fresh || matches!(actor.next(), Action::Rest | Action::Refuse(_)) {
                    continue;
                }
                let mut after = world.clone();
                after.budget.crashes -= 1;
                after.actors[place] = *fresh;
                // All of them: which land, and when, and which never do, is open.
                let under_way = self.requests(world, &actor);
                if !under_way.is_empty() {
                    let mut after = after.clone();
                    let what = self.says(|| format!("{place} CRASHES, under way: {under_way:?}"));
                    for late in under_way {
                        if let Err(at) = after.late.binary_search(&late) {
                            after.late.insert(at, late);
                        }
                    }
                    steps.push(Step { what, after });
                }
                steps.push(Step { what: self.says(|| format!("{place} CRASHES")), after });
            }
        }
        for (at, late) in world.late.iter().enumerate() {
            let mut after = world.clone();
            after.late.remove(at);
            let what = self.says(|| format!("LANDS: {late:?}"));
            self.land(&mut after, late);
            steps.push(Step { what, after });
        }
        self.operators(world, &fresh, steps);
    }

    fn operators(&self, world: &World, fresh: &[u32], steps: &mut Vec<Step>) {
        let owners: Vec<usize> =
            (0..fresh.len()).filter(|place| matches!(self.scenario.actors[*place], Kind::Owner { .. })).collect();
        // Offsets without a commit log are refused, and stay so.
        if world.budget.resets > 0 && world.log != 0 {
            for to in &self.scenario.resets {
                for place in &owners {
                    let mut after = world.clone();
                    after.budget.resets -= 1;
                    after.committed = Some(*to);
                    after.actors[*place] = fresh[*place];
                    steps.push(Step { what: self.says(|| format!("RESET to {to}, {place} takes over")), after });
                }
            }
        }
        if world.budget.deletions > 0
            && let Some(state) = self.logs.state(world.log)
        {
            for (key, rows) in world.files.iter().filter(|(key, rows)| **rows > 0 && state.live.contains_key(&key.id)) {
                let mut after = world.clone();
                after.budget.deletions -= 1;
                after.files.remove(key);
                after.taken |= rows;
                after.committed = Some(0);
                after.actors[owners[0]] = fresh[owners[0]];
                steps.push(Step { what: self.says(|| format!("OPERATOR deletes {key:?}, resets")), after });
            }
        }
        if world.budget.losses > 0 {
            self.lose_staged(world, fresh, steps);
        }
        if world.budget.moves > 0 && world.start < self.scenario.offsets {
            let mut after = world.clone();
            after.budget.moves -= 1;
            after.start += 1;
            steps.push(Step { what: self.says(|| "LOG lets go of an offset".to_owned()), after });
        }
    }

    /// A staged file of a replace is lost while nobody works on it. Once its inputs are gone, too, only one whose rows the
    /// log has can be made again.
    fn lose_staged(&self, world: &World, fresh: &[u32], steps: &mut Vec<Step>) {
        let Some(state) = self.logs.state(world.log) else { return };
        let is_working = world.late.iter().any(|late| matches!(late, Late::Delete { .. }));
        for id in world.staged.keys() {
            let open = state.head.replaces().find(|open| open.intent.outputs().any(|(output, _)| output == *id));
            let stand = |open: &Replace| {
                open.intent.inputs().all(|(folder, input)| world.files.contains_key(&Key::new(folder, input)))
            };
            if !open.is_some_and(|open| open.intent.source == Source::Log || !is_working && stand(open)) {
                continue;
            }
            let mut after = world.clone();
            after.budget.losses -= 1;
            after.staged.remove(id);
            for (place, fresh) in fresh.iter().enumerate() {
                if matches!(self.scenario.actors[place], Kind::Replacer(_)) {
                    after.actors[place] = *fresh;
                }
            }
            steps.push(Step { what: self.says(|| format!("LOST: what is staged as {id}")), after });
        }
    }

    /// An operator who deleted files asks for them once more.
    pub(super) fn replay(&mut self, world: &World) -> Option<Step> {
        let place = self.scenario.actors.iter().position(|kind| matches!(kind, Kind::Owner { .. }))?;
        let mut after = world.clone();
        after.committed = Some(0);
        after.actors[place] = self.actors.number(Rc::new(self.scenario.actors[place].begin()));
        Some(Step { what: "OPERATOR replays again".to_owned(), after })
    }

    fn land(&mut self, world: &mut World, late: &Late) {
        match late {
            Late::Entry { n, ops } => {
                if *n == self.logs.length(world.log) {
                    world.log = self.logs.append_entry(world.log, *ops);
                } else if *n < world.deleted {
                    world.holes.entry(*n).or_insert(*ops);
                }
            }
            Late::File { key, rows, anchor } => {
                if !self.is_too_old(world, *anchor) {
                    world.files.entry(*key).or_insert(*rows);
                }
            }
            Late::Keys { from } => world.put_keys(*from),
            Late::Staged { id, rows } => {
                world.staged.entry(*id).or_insert(*rows);
            }
            Late::Delete { key } => drop(world.files.remove(key)),
            Late::Publish { key, anchor } => {
                if !self.is_too_old(world, *anchor) {
                    world.publish(*key);
                }
            }
            Late::Blank { key } => drop(world.files.insert(*key, 0)),
            Late::Drop { replace } => world.drop_staged(*replace),
            Late::Offset { to } => world.committed = Some(*to),
        }
    }
}
