//! What replacers choose, and the rows of what they make.

use std::collections::BTreeMap;

use super::actors::{Kind, recipe};
use super::scenarios::Choosing;
use super::shared::Shared;
use super::world::{Key, Rows, World, range, rows_of};
use crate::actor::Choice;
use crate::files::{LiveFile, State};
use crate::head::{Replace, ReplaceSlot};
use crate::op::{FileId, InFolder, Op, Planned, Reason, Scope, Source};
use crate::rules::{Rule, holds};

/// A file, its folder and its offsets.
type Candidate = (String, FileId, i64, i64);

impl Shared<'_> {
    /// Rows of an output; or an input that is not there.
    pub(super) fn output_rows(&self, world: &World, open: &Replace, k: u32) -> Result<Rows, FileId> {
        let before = self.logs.state(self.logs.prefix(world.log, open.entry));
        let mut first = 0;
        for scope in &open.intent.scopes {
            let outputs = u32::try_from(scope.outputs.len()).expect("few outputs");
            if k < first + outputs {
                let planned = &scope.outputs[(k - first) as usize];
                let mut rows = 0;
                for (folder, id) in scope.inputs().filter(|(folder, _)| **folder == *planned.folder) {
                    let of_log = || before?.live.get(&id).map(|file| rows_of(&file.stored));
                    rows |= match open.intent.source {
                        Source::Inputs => world.files.get(&Key::new(folder, id)).copied(),
                        Source::Log => of_log(),
                    }
                    .ok_or(id)?;
                }
                return Ok(rows & range(planned.from, planned.to));
            }
            first += outputs;
        }
        Ok(0)
    }

    /// What a replacer chooses to replace.
    pub(super) fn choose(&self, world: &World, entries: u64, kind: Kind) -> Option<Choice> {
        let state = self.logs.state(self.logs.prefix(world.log, entries))?;
        let Kind::Replacer(slot) = kind else { return None };
        if state.head.next_replace >= self.scenario.replaces
            || state.head.replaces().count() as u64 >= self.scenario.replaces
        {
            return None;
        }
        let (reason, source, least) = match slot {
            ReplaceSlot::Merging => (Reason::Compaction, Source::Inputs, self.scenario.least_inputs),
            ReplaceSlot::Remaking => (Reason::Restore, Source::Log, 1),
        };
        let wanted = state.live.iter().filter(|(id, file)| self.is_wanted(world, reason, **id, file));
        let mut files: Vec<Candidate> = wanted
            .filter(|(id, _)| is_free(state, **id))
            .map(|(id, file)| (file.folder.clone(), *id, file.from, file.to))
            .collect();
        if !holds(Rule::OnlyCompleteInputs)
            && let Some(intent) = state.head.intent()
        {
            let open = (0u32..).zip(&intent.folders);
            files.extend(
                open.map(|(k, folder)| {
                    (folder.clone(), FileId::Batch { from: intent.from, k }, intent.from, intent.to)
                }),
            );
        }
        if files.len() < least || files.is_empty() {
            return None;
        }
        let choice = Choice { reason, source, recipe: recipe(1), scopes: self.scopes(files) };
        let is_allowed = state.allows(&[Op::ReplaceIntent(choice.clone().intent(state.head.next_replace))]).is_ok();
        is_allowed.then_some(choice)
    }

    fn is_wanted(&self, world: &World, reason: Reason, id: FileId, file: &LiveFile) -> bool {
        let is_there = world.files.contains_key(&Key::new(&file.folder, id));
        match reason {
            Reason::Restore => !is_there && matches!(id, FileId::Replace { .. }) || self.scenario.remakes,
            _ => is_there,
        }
    }

    fn scopes(&self, files: Vec<Candidate>) -> Vec<Scope> {
        match self.scenario.choosing {
            Choosing::ByFile => files.into_iter().map(|file| scope(vec![file])).collect(),
            Choosing::Together => vec![scope(files)],
        }
    }
}

/// Whether no other replace has it, as input or as output that is not published yet.
fn is_free(state: &State, id: FileId) -> bool {
    let is_frozen = state.head.replaces().any(|open| open.intent.inputs().any(|(_, input)| input == id));
    let is_unpublished = matches!(id, FileId::Replace { replace, .. }
        if state.head.replaces().any(|open| open.intent.replace == replace));
    !(is_frozen && holds(Rule::DisjointReplaces) || is_unpublished && holds(Rule::OnlyPublishedInputs))
}

/// One scope, with an output for each folder.
fn scope(files: Vec<Candidate>) -> Scope {
    let mut folders: BTreeMap<String, (Vec<FileId>, i64, i64)> = BTreeMap::new();
    for (folder, id, from, to) in files {
        let (ids, first, last) = folders.entry(folder).or_insert_with(|| (Vec::new(), from, to));
        ids.push(id);
        (*first, *last) = (from.min(*first), to.max(*last));
    }
    let from = folders.values().map(|(_, from, _)| *from).min().unwrap_or_default();
    let to = folders.values().map(|(_, _, to)| *to).max().unwrap_or_default();
    let planned =
        |(folder, (_, from, to)): (&String, &(_, i64, i64))| Planned { folder: folder.clone(), from: *from, to: *to };
    let outputs = folders.iter().map(planned).collect();
    let inputs = folders.into_iter().map(|(folder, (files, ..))| InFolder { folder, files }).collect();
    Scope { from, to, inputs, outputs }
}
