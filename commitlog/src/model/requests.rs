//! What a single request of an actor does to the world.

use std::rc::Rc;

use super::actors::{Actor, Kind, recipe};
use super::shared::{Shared, Step};
use super::world::{Key, Late, World, plan, rows_of, stored};
use crate::actor::{Action, Anchor, Answer};
use crate::op::FileId;

impl Shared<'_> {
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
                let head = self.logs.state(world.log).map(|state| state.head.clone()).unwrap_or_default();
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
                let length = self.logs.length(world.log);
                if *n == length || scenario.overwrites {
                    let before = self.logs.prefix(world.log, *n);
                    let rest = self.logs.entries(world.log, n + 1);
                    let mut after = same();
                    after.log = self.logs.append(before, ops);
                    for ops in rest {
                        after.log = self.logs.append(after.log, &ops);
                    }
                    answer(after, Answer::Appended);
                } else if *n < world.deleted && !world.holes.contains_key(n) {
                    let mut after = same();
                    after.holes.insert(*n, self.logs.entry(ops.clone()));
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
                    let (folder, rows) = plan[*k as usize];
                    let key = Key { folder, id: FileId::Batch { from: *from, k: *k } };
                    if self.is_too_old(world, *anchor) {
                        answer(same(), Answer::TooOld);
                    } else {
                        let mut after = same();
                        let stands = *after.files.entry(key).or_insert(rows);
                        answer(after, Answer::Stands { k: *k, stored: stored(stands) });
                    }
                }
            }
            Action::PutKeys { from } => {
                let mut after = same();
                after.put_keys(*from);
                answer(after, Answer::KeysStand(stored(0)));
            }
            Action::CommitOffset(offset) => {
                let mut after = same();
                after.committed = Some(*offset);
                answer(after, Answer::OffsetCommitted);
            }
            Action::FindMissing { from, entries } => {
                let state = self.logs.state(self.logs.prefix(world.log, *entries));
                let missing = state.map(|state| {
                    let gone = state.live.iter().filter(|(id, file)| {
                        file.to > *from && !world.files.contains_key(&Key::new(&file.folder, **id))
                    });
                    gone.map(|(id, file)| (*id, file.clone())).collect()
                });
                answer(same(), Answer::Missing(missing.unwrap_or_default()));
            }
            Action::PutAgain { files, anchor } => {
                let entries = actor.head().map_or(0, |head| head.next);
                let state = self.logs.state(self.logs.prefix(world.log, entries)).cloned().unwrap_or_default();
                for id in files {
                    if self.is_too_old(world, *anchor) {
                        answer(same(), Answer::TooOld);
                    } else if state.live.get(id).is_some_and(|file| file.from < world.start) {
                        answer(same(), Answer::CannotMake(*id));
                    } else if let Some(file) = state.live.get(id) {
                        let mut after = same();
                        after.files.entry(Key::new(&file.folder, *id)).or_insert(rows_of(&file.stored));
                        answer(after, Answer::PutAgain(*id));
                    }
                }
            }
            Action::Report(unrestored) => {
                let entries = actor.head().map_or(0, |head| head.next);
                let mut after = same();
                if let Some(state) = self.logs.state(self.logs.prefix(world.log, entries)) {
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
                    match self.output_rows(world, open, *k) {
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
            Action::Examine { .. } => {
                let all: Vec<u32> = (0..16).collect();
                let is_gone =
                    |(_, key): &(u32, Key)| !world.files.contains_key(key) && !world.staged.contains_key(&key.id);
                let gone = output_keys(&actor, &all).into_iter().filter(is_gone).map(|(k, _)| k).collect();
                answer(same(), Answer::Examined { gone });
            }
            Action::Delete { files, .. } => {
                for (id, key) in input_keys(&actor, files) {
                    let mut after = same();
                    after.files.remove(&key);
                    answer(after, Answer::Deleted(vec![id]));
                }
            }
            Action::Publish { outputs, anchor, .. } => {
                for (k, key) in output_keys(&actor, outputs) {
                    let mut after = same();
                    if self.is_too_old(world, *anchor) {
                        answer(after, Answer::TooOld);
                    } else if after.files.contains_key(&key) || after.publish(key) {
                        answer(after, Answer::Published { k });
                    } else {
                        answer(after, Answer::StagedGone);
                    }
                }
            }
            Action::DropStaged { replace } => {
                let mut after = same();
                after.drop_staged(*replace);
                answer(after, Answer::StagedDropped);
            }
            Action::Blank { files, .. } => {
                for (k, key) in batch_keys(&actor, files) {
                    let mut after = same();
                    after.files.insert(key, 0);
                    answer(after, Answer::Blanked { k });
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
                let length = self.logs.length(world.log);
                let is_new = actor.head().is_some_and(|head| head.next < length);
                let is_wanted = is_new || self.choose(world, length, scenario.actors[place]).is_some();
                if is_wanted && matches!(*actor, Actor::Replacer(_)) {
                    answer(same(), Answer::Woken);
                }
            }
            Action::Refuse(_) => {
                // The role tries again, as soon as that can say something else.
                let is_new = actor.head().is_some_and(|head| head.next < self.logs.length(world.log));
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
        let intent = self.logs.state(world.log).and_then(|state| state.head.intent());
        intent.is_some_and(|intent| world.start > intent.from)
    }

    /// What a request does that may land late.
    pub(super) fn requests(&mut self, world: &World, actor: &Actor) -> Vec<Late> {
        match actor.next() {
            Action::Append { n, ops } => vec![Late::Entry { n, ops: self.logs.entry(ops) }],
            Action::PutFiles { from, files, anchor } => {
                let Actor::Owner(owner) = actor else { return Vec::new() };
                let Some(encoded) = owner.writing() else { return Vec::new() };
                let plan = plan(from, encoded.intent.to, &encoded.intent.recipe);
                let late = files.iter().map(|k| {
                    let (folder, rows) = plan[*k as usize];
                    Late::File { key: Key { folder, id: FileId::Batch { from, k: *k } }, rows, anchor }
                });
                late.filter(|_| !self.is_too_old(world, anchor)).collect()
            }
            Action::PutAgain { files, anchor } => {
                let entries = actor.head().map_or(0, |head| head.next);
                let Some(state) = self.logs.state(self.logs.prefix(world.log, entries)) else { return Vec::new() };
                let live = files.iter().filter_map(|id| Some((id, state.live.get(id)?)));
                let late = live.map(|(id, file)| Late::File {
                    key: Key::new(&file.folder, *id),
                    rows: rows_of(&file.stored),
                    anchor,
                });
                late.filter(|_| !self.is_too_old(world, anchor)).collect()
            }
            Action::PutKeys { from } => vec![Late::Keys { from }],
            Action::Stage { replace, outputs } => {
                let Actor::Replacer(replacer) = actor else { return Vec::new() };
                let Some(open) = replacer.replace() else { return Vec::new() };
                let staged = outputs.iter().filter_map(|k| {
                    let rows = self.output_rows(world, open, *k).ok()?;
                    Some(Late::Staged { id: FileId::Replace { replace, k: *k }, rows })
                });
                staged.collect()
            }
            Action::Delete { files, .. } => {
                input_keys(actor, &files).into_iter().map(|(_, key)| Late::Delete { key }).collect()
            }
            Action::Publish { outputs, anchor, .. } if !self.is_too_old(world, anchor) => {
                output_keys(actor, &outputs).into_iter().map(|(_, key)| Late::Publish { key, anchor }).collect()
            }
            Action::Blank { files, .. } => {
                batch_keys(actor, &files).into_iter().map(|(_, key)| Late::Blank { key }).collect()
            }
            Action::DropStaged { replace } => vec![Late::Drop { replace }],
            Action::CommitOffset(to) => vec![Late::Offset { to }],
            _ => Vec::new(),
        }
    }
}

fn late_anchor(late: &Late) -> Option<Anchor> {
    match late {
        Late::File { anchor, .. } | Late::Publish { anchor, .. } => Some(*anchor),
        _ => None,
    }
}

/// Where the inputs of the replace under way stand.
fn input_keys(actor: &Actor, files: &[FileId]) -> Vec<(FileId, Key)> {
    let Actor::Replacer(replacer) = actor else { return Vec::new() };
    let inputs = replacer.replace().into_iter().flat_map(|open| open.intent.inputs());
    inputs.filter(|(_, id)| files.contains(id)).map(|(folder, id)| (id, Key::new(folder, id))).collect()
}

/// Where the outputs of the replace under way belong.
fn output_keys(actor: &Actor, outputs: &[u32]) -> Vec<(u32, Key)> {
    let Actor::Replacer(replacer) = actor else { return Vec::new() };
    let planned = replacer.replace().into_iter().flat_map(|open| open.intent.outputs());
    let keys = (0u32..).zip(planned).map(|(k, (id, planned))| (k, Key::new(&planned.folder, id)));
    keys.filter(|(k, _)| outputs.contains(k)).collect()
}

/// Where the files of the batch under way stand.
fn batch_keys(actor: &Actor, files: &[u32]) -> Vec<(u32, Key)> {
    let Some(intent) = actor.head().and_then(|head| head.intent()) else { return Vec::new() };
    let key = |k: u32, folder: &String| Key::new(folder, FileId::Batch { from: intent.from, k });
    let keys = (0u32..).zip(&intent.folders).map(|(k, folder)| (k, key(k, folder)));
    keys.filter(|(k, _)| files.contains(k)).collect()
}

/// Enough of a value to follow a trace.
fn brief(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.chars().take(150).collect()
}
