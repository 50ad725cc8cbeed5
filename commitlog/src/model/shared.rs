//! What is the same in all worlds of a scenario, and what actors learn of a world.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::actors::Actor;
use super::intern::Interned;
use super::logs::Logs;
use super::scenarios::Scenario;
use super::world::{WITNESS, World, folders};
use crate::actor::{Anchor, Encoded};
use crate::decide::Facts;
use crate::files::State;
use crate::op::{Header, Intent, Op, Recipe};

pub(super) struct Shared<'a> {
    pub scenario: &'a Scenario,
    pub logs: Logs,
    pub actors: Interned<Rc<Actor>>,
    /// Whether steps say what they are: only of a path that is shown, for it takes longer than the step.
    pub explains: bool,
}

/// What comes of a request.
pub(super) struct Step {
    pub what: String,
    pub after: World,
}

impl<'a> Shared<'a> {
    pub(super) fn new(scenario: &'a Scenario) -> Self {
        Self { scenario, logs: Logs::new(), actors: Interned::new(), explains: false }
    }

    pub(super) fn says(&self, what: impl FnOnce() -> String) -> String {
        if self.explains { what() } else { String::new() }
    }

    pub(super) fn start(&mut self) -> World {
        let kinds = self.scenario.actors.clone();
        let actors = kinds.iter().map(|kind| self.actors.number(Rc::new(kind.begin()))).collect();
        World {
            log: 0,
            deleted: 0,
            holes: BTreeMap::new(),
            floor: 0,
            checkpoint: 0,
            files: BTreeMap::new(),
            staged: BTreeMap::new(),
            keys: Vec::new(),
            fence: 0,
            committed: None,
            start: 0,
            actors,
            late: Vec::new(),
            budget: self.scenario.budget,
            taken: 0,
            reported: 0,
        }
    }

    /// The state of the world's log; none, if an entry is not valid.
    pub(super) fn state(&self, world: &World) -> Option<&State> {
        self.logs.state(world.log)
    }

    /// The entries from number `n` on that an actor reads; none, if they do not follow what it has folded.
    pub(super) fn follow(&self, world: &World, n: u64, actor: &Actor) -> Option<Vec<Vec<Op>>> {
        if n >= world.deleted {
            return Some(self.logs.entries(world.log, n));
        }
        let mut head = actor.head().cloned().unwrap_or_default();
        let mut entries = Vec::new();
        while let Some(ops) = world.holes.get(&(n + entries.len() as u64)) {
            let ops = self.logs.ops(*ops).clone();
            head.apply(&ops).ok()?;
            entries.push(ops);
        }
        // The next one that is left names another entry before it.
        (n + (entries.len() as u64) < world.deleted).then_some(entries)
    }

    pub(super) fn facts(&self, world: &World) -> Facts {
        Facts {
            log_id: "log".to_owned(),
            earliest: world.start,
            latest: self.scenario.offsets,
            committed: world.committed,
        }
    }

    pub(super) fn encoded(from: i64, to: i64, recipe: &Recipe) -> Encoded {
        let header =
            Header { topic: "t".to_owned(), partition: 0, log_id: "log".to_owned(), start: from, first: WITNESS };
        Encoded {
            intent: Intent {
                from,
                to,
                recipe: recipe.clone(),
                window_from: from,
                clock_ms: to,
                first: WITNESS,
                last: WITNESS,
                folders: folders(from, to, recipe),
            },
            counts: serde_json::Value::Null,
            header: Some(header),
        }
    }

    pub(super) fn is_too_old(&self, world: &World, anchor: Anchor) -> bool {
        anchor < world.fence && !self.scenario.ignores_fence
    }
}
