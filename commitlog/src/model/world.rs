//! The world: log, store, actors, requests under way; and what a single request does to it.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::actors::{Actor, Kind, recipe};
use super::intern::Interned;
use super::scenarios::{Choosing, Scenario};
use crate::actor::{Action, Anchor, Answer, Choice, Encoded};
use crate::decide::Facts;
use crate::files::State;
use crate::hash::Hash;
use crate::op::{FileId, Header, InFolder, Intent, Op, Planned, Reason, Recipe, Scope, Source, Stored, Witness};
use crate::rules::{Rule, holds};

/// Offsets as bits.
pub(super) type Rows = u16;

pub(super) const WITNESS: Witness = Witness { append_ms: 0, key_hash: 0 };

/// A request of a crashed actor that is still under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Late {
    Entry { n: u64, ops: u32 },
    File { id: FileId, rows: Rows, anchor: Anchor },
    Keys { from: i64 },
    Staged { id: FileId, rows: Rows },
    Delete { id: FileId },
    Publish { id: FileId, anchor: Anchor },
    Blank { id: FileId },
    Drop { replace: u64 },
    Offset { to: i64 },
}

/// How often what may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Budget {
    pub crashes: u8,
    pub resets: u8,
    pub deletions: u8,
    pub moves: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct World {
    /// Every entry ever appended, as the number of its prefix.
    pub log: u32,
    /// Entries below it are deleted.
    pub deleted: u64,
    /// What who slept put where entries are deleted.
    pub holes: BTreeMap<u64, u32>,
    pub floor: u64,
    /// Entries that the newest checkpoint holds.
    pub checkpoint: u64,
    pub files: BTreeMap<FileId, Rows>,
    pub staged: BTreeMap<FileId, Rows>,
    /// Begins of the batches that have a key run.
    pub keys: Vec<i64>,
    /// Puts that rest on no more entries are refused.
    pub fence: Anchor,
    pub committed: Option<i64>,
    /// First offset that the log holds.
    pub start: i64,
    pub actors: Vec<u32>,
    pub late: Vec<Late>,
    pub budget: Budget,
    /// Rows that an operator deleted.
    pub taken: Rows,
    /// Rows of files that an owner reported as missing.
    pub reported: Rows,
}

/// A log as a prefix and one entry more.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Link {
    before: Option<(u32, u32)>,
}

/// What is the same in all worlds of a scenario.
pub(super) struct Shared<'a> {
    pub scenario: &'a Scenario,
    links: Interned<Link>,
    /// By the number of the link, as are the lengths.
    states: Vec<Option<State>>,
    lengths: Vec<u64>,
    ops: Interned<Vec<Op>>,
    pub actors: Interned<Rc<Actor>>,
    /// Whether steps say what they are: only of a path that is shown, for it takes longer than the step.
    pub explains: bool,
}

/// What comes of a request.
pub(super) struct Step {
    pub what: String,
    pub after: World,
}

fn stored(rows: Rows) -> Stored {
    Stored { rows: rows.into(), bytes: 0, sha256: HASH.with(|hash| *hash) }
}

thread_local! {
    static HASH: Hash = Hash::of(b"");
}

pub(super) fn rows_of(stored: &Stored) -> Rows {
    Rows::try_from(stored.rows).expect("rows of the model are a mask")
}

fn range(from: i64, to: i64) -> Rows {
    (from..to).fold(0, |rows, offset| rows | 1 << offset)
}

/// Folder and rows of each file of a batch.
fn plan(from: i64, to: i64, recipe: &Recipe) -> Vec<(String, Rows)> {
    let all = range(from, to);
    if recipe.layout == 2 {
        return vec![("both".to_owned(), all)];
    }
    let halves = [("even", 0b0101_0101_0101_0101), ("odd", 0b1010_1010_1010_1010)];
    halves.iter().map(|(folder, mask)| ((*folder).to_owned(), all & mask)).filter(|(_, rows)| *rows > 0).collect()
}

impl<'a> Shared<'a> {
    pub(super) fn new(scenario: &'a Scenario) -> Self {
        let mut shared = Self {
            scenario,
            links: Interned::new(),
            states: Vec::new(),
            lengths: vec![0],
            ops: Interned::new(),
            actors: Interned::new(),
            explains: false,
        };
        shared.links.number(Link { before: None });
        shared.states.push(Some(State::default()));
        shared
    }

    fn says(&self, what: impl FnOnce() -> String) -> String {
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

    fn append(&mut self, log: u32, ops: &[Op]) -> u32 {
        let ops = self.ops.number(ops.to_vec());
        self.append_number(log, ops)
    }

    fn append_number(&mut self, log: u32, ops: u32) -> u32 {
        let next = self.links.number(Link { before: Some((log, ops)) });
        if next as usize == self.states.len() {
            let state = self.states[log as usize].clone().and_then(|mut state| {
                let valid = state.apply(self.ops.get(ops)).is_ok();
                valid.then_some(state)
            });
            self.states.push(state);
            self.lengths.push(self.length(log) + 1);
        }
        next
    }

    /// The state of a log; none, if an entry is not valid.
    pub(super) fn state(&self, log: u32) -> Option<&State> {
        self.states[log as usize].as_ref()
    }

    pub(super) fn length(&self, log: u32) -> u64 {
        self.lengths[log as usize]
    }

    /// The first `entries` entries.
    fn prefix(&self, log: u32, entries: u64) -> u32 {
        let mut at = log;
        for _ in entries..self.length(log) {
            at = self.links.get(at).before.map_or(0, |(before, _)| before);
        }
        at
    }

    /// The entries from number `from` on.
    fn entries(&self, log: u32, from: u64) -> Vec<Vec<Op>> {
        let mut entries = Vec::new();
        let mut at = log;
        for _ in from..self.length(log) {
            if let Some((before, ops)) = self.links.get(at).before {
                entries.push(self.ops.get(ops).clone());
                at = before;
            }
        }
        entries.reverse();
        entries
    }

    /// The entries from number `n` on that an actor reads; none, if they do not follow what it has folded.
    fn follow(&self, world: &World, n: u64, actor: &Actor) -> Option<Vec<Vec<Op>>> {
        if n >= world.deleted {
            return Some(self.entries(world.log, n));
        }
        let mut head = actor.head().cloned().unwrap_or_default();
        let mut entries = Vec::new();
        while let Some(ops) = world.holes.get(&(n + entries.len() as u64)) {
            let ops = self.ops.get(*ops).clone();
            head.apply(&ops).ok()?;
            entries.push(ops);
        }
        // The next one that is left names another entry before it.
        (n + (entries.len() as u64) < world.deleted).then_some(entries)
    }

    fn facts(&self, world: &World) -> Facts {
        Facts {
            log_id: "log".to_owned(),
            earliest: world.start,
            latest: self.scenario.offsets,
            committed: world.committed,
        }
    }

    fn encoded(from: i64, to: i64, recipe: &Recipe) -> Encoded {
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
                folders: plan(from, to, recipe).into_iter().map(|(folder, _)| folder).collect(),
            },
            counts: serde_json::Value::Null,
            header: Some(header),
        }
    }

    /// Everything that may happen next because an actor does something, crashes not among it.
    pub(super) fn progress(&mut self, world: &World) -> Vec<Step> {
        let mut steps = Vec::new();
        for place in 0..world.actors.len() {
            self.act(world, place, &mut steps);
        }
        steps
    }

    #[allow(clippy::too_many_lines, reason = "one arm an action")]
    fn act(&mut self, world: &World, place: usize, steps: &mut Vec<Step>) {
        let actor = self.actors.get(world.actors[place]).clone();
        let action = actor.next();
        let scenario = self.scenario;
        let mut answers: Vec<(World, Answer)> = Vec::new();
        let mut answer = |after: World, answer: Answer| answers.push((after, answer));
        let same = || world.clone();
        match &action {
            Action::Load => {
                let head = self.state(world.log).map(|state| state.head.clone()).unwrap_or_default();
                answer(same(), Answer::Loaded(Box::new(head)));
            }
            Action::Facts => answer(same(), Answer::Facts(self.facts(world))),
            Action::Fill { at, .. } => {
                if world.start > *at {
                    answer(same(), Answer::OutOfRange);
                } else {
                    let Kind::Owner { layout } = scenario.actors[place] else { return };
                    for to in at + 1..=scenario.offsets.min(at + scenario.batch) {
                        let mut encoded = Self::encoded(*at, to, &recipe(layout));
                        if actor.head().is_some_and(|head| head.header.is_some()) {
                            encoded.header = None;
                        }
                        answer(same(), Answer::Encoded(Box::new(encoded)));
                    }
                }
                if actor.hears(Answer::Woken) != *actor {
                    answer(same(), Answer::Woken);
                }
            }
            Action::Make(intent) => {
                if world.start > intent.from {
                    answer(same(), Answer::OutOfRange);
                } else {
                    let mut encoded = Self::encoded(intent.from, intent.to, &intent.recipe);
                    encoded.header = None;
                    answer(same(), Answer::Encoded(Box::new(encoded)));
                }
            }
            Action::Append { n, ops } => {
                let length = self.length(world.log);
                if *n == length || scenario.overwrites {
                    let before = self.prefix(world.log, *n);
                    let rest = self.entries(world.log, n + 1);
                    let mut after = same();
                    after.log = self.append(before, ops);
                    for ops in rest {
                        after.log = self.append(after.log, &ops);
                    }
                    answer(after, Answer::Appended);
                } else if *n < world.deleted && !world.holes.contains_key(n) {
                    let mut after = same();
                    after.holes.insert(*n, self.ops.number(ops.clone()));
                    answer(after, Answer::Appended);
                } else {
                    answer(same(), self.follow(world, *n, &actor).map_or(Answer::Behind, Answer::Lost));
                }
            }
            Action::ReadFloor => answer(same(), Answer::Floor(world.floor)),
            Action::Prove { n } => {
                answer(same(), self.follow(world, *n, &actor).map_or(Answer::Behind, Answer::Tail));
            }
            Action::PutFiles { from, files, anchor } => {
                let Actor::Owner(owner) = &*actor else { return };
                let Some(encoded) = owner.writing() else { return };
                let plan = plan(*from, encoded.intent.to, &encoded.intent.recipe);
                for k in files {
                    let (id, rows) = (FileId::Batch { from: *from, k: *k }, plan[*k as usize].1);
                    if self.is_too_old(world, *anchor) {
                        answer(same(), Answer::TooOld);
                    } else {
                        let mut after = same();
                        let stands = *after.files.entry(id).or_insert(rows);
                        answer(after, Answer::Stands { k: *k, stored: stored(stands) });
                    }
                }
            }
            Action::PutKeys { from } => {
                let mut after = same();
                put_keys(&mut after, *from);
                answer(after, Answer::KeysStand(stored(0)));
            }
            Action::CommitOffset(offset) => {
                let mut after = same();
                after.committed = Some(*offset);
                answer(after, Answer::OffsetCommitted);
            }
            Action::FindMissing { from, entries } => {
                let state = self.state(self.prefix(world.log, *entries));
                let missing = state.map(|state| {
                    let gone = state.live.iter().filter(|(id, file)| file.to > *from && !world.files.contains_key(id));
                    gone.map(|(id, file)| (*id, file.clone())).collect()
                });
                answer(same(), Answer::Missing(missing.unwrap_or_default()));
            }
            Action::PutAgain { files, anchor } => {
                let entries = actor.head().map_or(0, |head| head.next);
                let state = self.state(self.prefix(world.log, entries)).cloned().unwrap_or_default();
                for id in files {
                    if self.is_too_old(world, *anchor) {
                        answer(same(), Answer::TooOld);
                    } else if state.live.get(id).is_some_and(|file| file.from < world.start) {
                        answer(same(), Answer::CannotMake(*id));
                    } else if let Some(file) = state.live.get(id) {
                        let mut after = same();
                        after.files.entry(*id).or_insert(rows_of(&file.stored));
                        answer(after, Answer::PutAgain(*id));
                    }
                }
            }
            Action::Report(unrestored) => {
                let entries = actor.head().map_or(0, |head| head.next);
                let mut after = same();
                if let Some(state) = self.state(self.prefix(world.log, entries)) {
                    let files = unrestored.files().filter_map(|id| state.live.get(&id));
                    after.reported |= files.fold(0, |all, file| all | rows_of(&file.stored));
                }
                answer(after, Answer::Reported);
            }
            Action::Choose { entries } => {
                let choice = self.choose(world, *entries, scenario.actors[place]);
                answer(same(), choice.map_or(Answer::NothingToReplace, |choice| Answer::Chosen(Box::new(choice))));
            }
            Action::Stage { replace, outputs } => {
                let Actor::Replacer(replacer) = &*actor else { return };
                let Some(open) = replacer.replace() else { return };
                for k in outputs {
                    let id = FileId::Replace { replace: *replace, k: *k };
                    match self.output_rows(world, &open.intent, *k) {
                        Err(gone) => answer(same(), Answer::InputGone(gone)),
                        Ok(rows) => {
                            let mut after = same();
                            let stands = *after.staged.entry(id).or_insert(rows);
                            answer(after, Answer::Staged { k: *k, stored: stored(stands) });
                        }
                    }
                }
            }
            Action::AwaitFence { entry } => {
                let mut after = same();
                after.fence = after.fence.max(entry + 1);
                if !scenario.ignores_fence {
                    let fence = after.fence;
                    after.late.retain(|late| late_anchor(late).is_none_or(|anchor| anchor >= fence));
                }
                answer(after, Answer::FencePassed);
            }
            Action::Delete { files, .. } => {
                for id in files {
                    let mut after = same();
                    after.files.remove(id);
                    answer(after, Answer::Deleted(vec![*id]));
                }
            }
            Action::Publish { replace, outputs, anchor } => {
                for k in outputs {
                    let id = FileId::Replace { replace: *replace, k: *k };
                    let mut after = same();
                    if self.is_too_old(world, *anchor) {
                        answer(after, Answer::TooOld);
                    } else if after.files.contains_key(&id) || publish(&mut after, id) {
                        answer(after, Answer::Published { k: *k });
                    } else {
                        answer(after, Answer::StagedGone);
                    }
                }
            }
            Action::DropStaged { replace } => {
                let mut after = same();
                drop_staged(&mut after, *replace);
                answer(after, Answer::StagedDropped);
            }
            Action::Blank { from, files } => {
                for k in files {
                    let mut after = same();
                    after.files.insert(FileId::Batch { from: *from, k: *k }, 0);
                    answer(after, Answer::Blanked { k: *k });
                }
            }
            Action::Checkpoint { entries } => {
                let mut after = same();
                after.checkpoint = after.checkpoint.max(*entries);
                answer(after, Answer::CheckpointRead);
            }
            Action::RaiseFloor(floor) => {
                let mut after = same();
                after.floor = after.floor.max(*floor);
                answer(after, Answer::FloorRaised);
            }
            Action::DeleteEntries { below } if world.deleted < *below => {
                let mut after = same();
                after.deleted += 1;
                steps.push(Step { what: self.says(|| format!("{place} deletes entry {}", world.deleted)), after });
            }
            Action::DeleteEntries { .. } => answer(same(), Answer::EntriesDeleted),
            Action::Rest => {
                // Worth looking again only if something is new.
                let length = self.length(world.log);
                let is_new = actor.head().is_some_and(|head| head.next < length);
                let is_wanted = is_new || self.choose(world, length, scenario.actors[place]).is_some();
                if is_wanted && matches!(*actor, Actor::Replacer(_)) {
                    answer(same(), Answer::Woken);
                }
            }
            Action::Refuse(_) => {
                // The role tries again, as soon as that can say something else.
                let is_new = actor.head().is_some_and(|head| head.next < self.length(world.log));
                let may_abandon = matches!(*actor, Actor::Abandoner(_)) && self.has_lost_its_head(world);
                if is_new || may_abandon {
                    let mut after = same();
                    after.actors[place] = self.actors.number(Rc::new(scenario.actors[place].begin()));
                    steps.push(Step { what: self.says(|| format!("{place} tries again")), after });
                }
            }
        }
        for (mut after, answer) in answers {
            let what = self.says(|| format!("{place} {} -> {}", brief(&action), brief(&answer)));
            after.actors[place] = self.actors.number(Rc::new(actor.hears(answer)));
            steps.push(Step { what, after });
        }
    }

    fn has_lost_its_head(&self, world: &World) -> bool {
        let intent = self.state(world.log).and_then(|state| state.head.intent());
        intent.is_some_and(|intent| world.start > intent.from)
    }

    fn is_too_old(&self, world: &World, anchor: Anchor) -> bool {
        anchor < world.fence && !self.scenario.ignores_fence
    }

    /// Rows of an output; or an input that is not there.
    fn output_rows(&self, world: &World, intent: &crate::ReplaceIntent, k: u32) -> Result<Rows, FileId> {
        let mut first = 0;
        for scope in &intent.scopes {
            let outputs = u32::try_from(scope.outputs.len()).expect("few outputs");
            if k < first + outputs {
                let planned = &scope.outputs[(k - first) as usize];
                let mut rows = 0;
                for (folder, id) in scope.inputs() {
                    match (intent.source, world.files.get(&id)) {
                        (Source::Inputs, None) => return Err(id),
                        (Source::Inputs, Some(of)) => rows |= of,
                        (Source::Log, _) => rows |= folder_rows(folder),
                    }
                }
                return Ok(rows & range(planned.from, planned.to));
            }
            first += outputs;
        }
        Ok(0)
    }

    /// What a replacer chooses to replace.
    fn choose(&self, world: &World, entries: u64, kind: Kind) -> Option<Choice> {
        let state = self.state(self.prefix(world.log, entries))?;
        let Kind::Replacer(slot) = kind else { return None };
        if state.head.next_replace >= self.scenario.replaces
            || state.head.replaces().count() as u64 >= self.scenario.replaces
        {
            return None;
        }
        let frozen: Vec<FileId> = if holds(Rule::DisjointReplaces) {
            state.head.replaces().flat_map(|replace| replace.intent.inputs().map(|(_, id)| id)).collect()
        } else {
            Vec::new()
        };
        let reason = match slot {
            crate::ReplaceSlot::Merging => Reason::Compaction,
            crate::ReplaceSlot::Remaking => Reason::Restore,
        };
        let mut folders: BTreeMap<String, Vec<(FileId, i64, i64)>> = BTreeMap::new();
        for (id, file) in &state.live {
            let is_there = world.files.contains_key(id);
            let is_wanted = match reason {
                Reason::Restore => !is_there && matches!(id, FileId::Replace { .. }) || self.scenario.remakes,
                _ => is_there,
            };
            let is_unpublished = matches!(id, FileId::Replace { replace, .. }
                if state.head.replaces().any(|open| open.intent.replace == *replace));
            if is_wanted && !frozen.contains(id) && !(is_unpublished && holds(Rule::OnlyPublishedInputs)) {
                folders.entry(file.folder.clone()).or_default().push((*id, file.from, file.to));
            }
        }
        if !holds(Rule::OnlyCompleteInputs)
            && let Some(intent) = state.head.intent()
        {
            for (k, folder) in (0u32..).zip(&intent.folders) {
                let id = FileId::Batch { from: intent.from, k };
                folders.entry(folder.clone()).or_default().push((id, intent.from, intent.to));
            }
        }
        let scopes = self.scopes(folders);
        let inputs = scopes.iter().flat_map(Scope::inputs).count();
        let least = if reason == Reason::Compaction { self.scenario.least_inputs } else { 1 };
        let source = if reason == Reason::Compaction { Source::Inputs } else { Source::Log };
        (inputs >= least && inputs > 0).then(|| Choice { reason, source, recipe: recipe(1), scopes })
    }

    fn scopes(&self, folders: BTreeMap<String, Vec<(FileId, i64, i64)>>) -> Vec<Scope> {
        let scope = |folder: String, files: Vec<(FileId, i64, i64)>| {
            let from = files.iter().map(|(_, from, _)| *from).min().unwrap_or_default();
            let to = files.iter().map(|(_, _, to)| *to).max().unwrap_or_default();
            let planned = Planned { folder: folder.clone(), from, to };
            let files = files.into_iter().map(|(id, ..)| id).collect();
            Scope { from, to, inputs: vec![InFolder { folder, files }], outputs: vec![planned] }
        };
        match self.scenario.choosing {
            Choosing::ByFolder => folders.into_iter().map(|(folder, files)| scope(folder, files)).collect(),
            Choosing::Together => {
                let scopes: Vec<Scope> = folders.into_iter().map(|(folder, files)| scope(folder, files)).collect();
                let (Some(from), Some(to)) =
                    (scopes.iter().map(|scope| scope.from).min(), scopes.iter().map(|scope| scope.to).max())
                else {
                    return Vec::new();
                };
                let planned = Planned { folder: "both".to_owned(), from, to };
                let inputs = scopes.into_iter().flat_map(|scope| scope.inputs).collect();
                vec![Scope { from, to, inputs, outputs: vec![planned] }]
            }
        }
    }

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
            && let Some(state) = self.state(world.log)
        {
            for (id, rows) in world.files.iter().filter(|(id, rows)| **rows > 0 && state.live.contains_key(id)) {
                let mut after = world.clone();
                after.budget.deletions -= 1;
                after.files.remove(id);
                after.taken |= rows;
                after.committed = Some(0);
                after.actors[owners[0]] = fresh[owners[0]];
                steps.push(Step { what: self.says(|| format!("OPERATOR deletes {id}, resets")), after });
            }
        }
        if world.budget.moves > 0 && world.start < self.scenario.offsets {
            let mut after = world.clone();
            after.budget.moves -= 1;
            after.start += 1;
            steps.push(Step { what: self.says(|| "LOG lets go of an offset".to_owned()), after });
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

    /// What a request does that may land late.
    fn requests(&mut self, world: &World, actor: &Actor) -> Vec<Late> {
        match actor.next() {
            Action::Append { n, ops } => vec![Late::Entry { n, ops: self.ops.number(ops) }],
            Action::PutFiles { from, files, anchor } => {
                let Actor::Owner(owner) = actor else { return Vec::new() };
                let Some(encoded) = owner.writing() else { return Vec::new() };
                let plan = plan(from, encoded.intent.to, &encoded.intent.recipe);
                let late = files.iter().map(|k| Late::File {
                    id: FileId::Batch { from, k: *k },
                    rows: plan[*k as usize].1,
                    anchor,
                });
                late.filter(|_| !self.is_too_old(world, anchor)).collect()
            }
            Action::PutAgain { files, anchor } => {
                let entries = actor.head().map_or(0, |head| head.next);
                let Some(state) = self.state(self.prefix(world.log, entries)) else { return Vec::new() };
                let live = files.iter().filter_map(|id| Some((id, state.live.get(id)?)));
                let late = live.map(|(id, file)| Late::File { id: *id, rows: rows_of(&file.stored), anchor });
                late.filter(|_| !self.is_too_old(world, anchor)).collect()
            }
            Action::PutKeys { from } => vec![Late::Keys { from }],
            Action::Stage { replace, outputs } => {
                let Actor::Replacer(replacer) = actor else { return Vec::new() };
                let Some(open) = replacer.replace() else { return Vec::new() };
                let staged = outputs.iter().filter_map(|k| {
                    let rows = self.output_rows(world, &open.intent, *k).ok()?;
                    Some(Late::Staged { id: FileId::Replace { replace, k: *k }, rows })
                });
                staged.collect()
            }
            Action::Delete { files, .. } => files.into_iter().map(|id| Late::Delete { id }).collect(),
            Action::Publish { replace, outputs, anchor } if !self.is_too_old(world, anchor) => {
                outputs.into_iter().map(|k| Late::Publish { id: FileId::Replace { replace, k }, anchor }).collect()
            }
            Action::Blank { from, files } => {
                files.into_iter().map(|k| Late::Blank { id: FileId::Batch { from, k } }).collect()
            }
            Action::DropStaged { replace } => vec![Late::Drop { replace }],
            Action::CommitOffset(to) => vec![Late::Offset { to }],
            _ => Vec::new(),
        }
    }

    fn land(&mut self, world: &mut World, late: &Late) {
        match late {
            Late::Entry { n, ops } => {
                if *n == self.length(world.log) {
                    world.log = self.append_number(world.log, *ops);
                } else if *n < world.deleted {
                    world.holes.entry(*n).or_insert(*ops);
                }
            }
            Late::File { id, rows, anchor } => {
                if !self.is_too_old(world, *anchor) {
                    world.files.entry(*id).or_insert(*rows);
                }
            }
            Late::Keys { from } => put_keys(world, *from),
            Late::Staged { id, rows } => {
                world.staged.entry(*id).or_insert(*rows);
            }
            Late::Delete { id } => drop(world.files.remove(id)),
            Late::Publish { id, anchor } => {
                if !self.is_too_old(world, *anchor) {
                    publish(world, *id);
                }
            }
            Late::Blank { id } => drop(world.files.insert(*id, 0)),
            Late::Drop { replace } => drop_staged(world, *replace),
            Late::Offset { to } => world.committed = Some(*to),
        }
    }
}

fn late_anchor(late: &Late) -> Option<Anchor> {
    match late {
        Late::File { anchor, .. } | Late::Publish { anchor, .. } => Some(*anchor),
        _ => None,
    }
}

fn put_keys(world: &mut World, from: i64) {
    if let Err(at) = world.keys.binary_search(&from) {
        world.keys.insert(at, from);
    }
}

fn drop_staged(world: &mut World, replace: u64) {
    world.staged.retain(|id, _| !matches!(id, FileId::Replace { replace: of, .. } if *of == replace));
}

/// Copies what is staged to its name: false if it is not there.
fn publish(world: &mut World, id: FileId) -> bool {
    let Some(rows) = world.staged.get(&id).copied() else { return false };
    world.files.insert(id, rows);
    true
}

fn folder_rows(folder: &str) -> Rows {
    match folder {
        "even" => 0b0101_0101_0101_0101,
        "odd" => 0b1010_1010_1010_1010,
        _ => Rows::MAX,
    }
}

/// Enough of a value to follow a trace.
fn brief(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.chars().take(150).collect()
}
