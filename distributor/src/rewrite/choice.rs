//! Chooses the scopes of the next replace and plans their outputs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use commitlog::actor::Choice;
use commitlog::{FileId, InFolder, Planned, Reason, Recipe, Scope, Source, State};
use commitlog_storage::CommitLog;

use super::groups::{Group, groups};
use super::judge::Fate;
use super::mend;
use super::run::Work;
use crate::again::{Again, Made, Under};
use crate::batch::FinishedFile;
use crate::error::PartitionError;
use crate::known::Known;
use crate::replace::{MAX_INPUTS, MAX_OUTPUTS};
use crate::window::Budget;

/// Of one group: what decides them has to fit into an entry.
const MOST_OUTPUTS: usize = 100_000;

/// What became of planning a group.
enum Outputs {
    Planned(Scope),
    /// Files of one folder hold offsets in turn.
    Mixed,
}

impl<'a> Work<'_, 'a> {
    /// The next scopes, in order. The batches are made, and their bytes dropped: which rows go to which output has to be in
    /// the commit log before anything is staged.
    pub(super) async fn next_scopes(&mut self, state: &State) -> Result<Vec<Scope>, PartitionError> {
        let commits = CommitLog::new(self.rewriter.store.clone(), &self.rewriter.topic, self.partition);
        let recent = commits.load().await?.recent;
        let budget = self.budget();
        let mut again = self.again(&commits, &recent, &budget, self.judge.log_from);
        let scopes = self.scopes(state, &mut again).await;
        again.close().await;
        scopes
    }

    /// Scopes of files that were lost, and that are made again alone.
    pub(super) async fn lost(&mut self, state: &State) -> Result<Vec<Scope>, PartitionError> {
        let (mut scopes, range) = (Vec::new(), self.range.clone());
        for group in groups(state).iter().filter(|group| group.to > range.start && group.to <= range.end) {
            if let Fate::Lost(lost) = self.judge.judge(state, group).await? {
                let files = group.files.iter().filter(|(id, _)| lost.contains(id));
                scopes.extend(files.map(|(id, file)| mend::scope(*id, file)));
            }
            if scopes.len() >= mend::MOST {
                break;
            }
        }
        scopes.truncate(mend::MOST);
        Ok(scopes)
    }

    async fn scopes(&mut self, state: &State, again: &mut Again<'_>) -> Result<Vec<Scope>, PartitionError> {
        let (mut scopes, mut inputs, mut outputs) = (Vec::new(), 0, 0);
        let range = self.range.clone();
        for group in groups(state).iter().filter(|group| group.to > range.start && group.to <= range.end) {
            if self.judge.judge(state, group).await? != Fate::Again {
                continue;
            }
            let scope = match self.plan_outputs(again, group).await? {
                Outputs::Planned(scope) => scope,
                Outputs::Mixed => {
                    let (topic, partition, from, to) = (&self.rewriter.topic, self.partition, group.from, group.to);
                    tracing::warn!(
                        topic,
                        partition,
                        from,
                        to,
                        "two event types have one folder; these batches stay as they are"
                    );
                    self.judge.mixed.insert(group.from);
                    continue;
                }
            };
            inputs += group.files.len();
            outputs += scope.outputs.len();
            if !scopes.is_empty() && (inputs > MAX_INPUTS || outputs > MAX_OUTPUTS) {
                break;
            }
            scopes.push(scope);
            if inputs >= MAX_INPUTS || outputs >= MAX_OUTPUTS {
                break;
            }
        }
        Ok(scopes)
    }

    async fn plan_outputs(&self, again: &mut Again<'_>, group: &Group<'_>) -> Result<Outputs, PartitionError> {
        let (mut batches, mut is_mixed) = (Vec::new(), false);
        for (from, to, batch) in &group.batches {
            let (layout, encoding) = (self.rewriter.layout.clone(), self.rewriter.encoding);
            let made = match again.make_under((*from, *to), batch, Under { layout, encoding, replace: None }).await? {
                Made::Batch(made) => made,
                Made::Cannot(reason) => {
                    let message = format!("the batch {from}..{to} cannot be rewritten: {reason}");
                    return Err(self.rewriter.refusal(self.partition, message));
                }
            };
            let exact: Vec<Planned> = made.encoded.files.iter().map(exact).collect();
            is_mixed |= are_mixed(&exact);
            batches.push((*from, *to, tiled(*from, *to, &made.encoded.files)));
            again.keep(*made)?;
        }
        if is_mixed {
            return Ok(Outputs::Mixed);
        }
        let outputs = without_gaps(group.from, group.to, batches);
        if outputs.len() > MOST_OUTPUTS {
            let (from, to, files) = (group.from, group.to, outputs.len());
            let message = format!(
                "the batches of {from}..{to} share files that were merged, and would become {files} files in one step, more than \
                 {MOST_OUTPUTS}: raise trusted.max_rows_per_file"
            );
            return Err(self.rewriter.refusal(self.partition, message));
        }
        Ok(Outputs::Planned(Scope { from: group.from, to: group.to, inputs: inputs(group), outputs }))
    }

    pub(super) fn choice(&self, reason: Reason, scopes: Vec<Scope>) -> Result<Choice, PartitionError> {
        let value = |value: serde_json::Result<serde_json::Value>| {
            value.map_err(|error| PartitionError::Unwritable(format!("the layout cannot be written: {error}")))
        };
        let layout = value(serde_json::to_value(&self.rewriter.layout))?;
        let encoding = value(serde_json::to_value(self.rewriter.encoding))?;
        let recipe = Recipe { layout, encoding };
        Ok(Choice { reason, source: Source::Log, recipe, scopes })
    }

    pub(super) fn again<'b>(
        &self,
        commits: &'b CommitLog,
        recent: &'b commitlog_storage::Recent,
        budget: &'b Arc<Budget>,
        log_from: i64,
    ) -> Again<'b>
    where
        'a: 'b,
    {
        let rewriter = self.rewriter;
        Again {
            commits,
            recent,
            log: &*rewriter.log,
            topic: &rewriter.topic,
            partition: self.partition,
            log_from,
            budget,
            scratch: &rewriter.scratch,
            memory: rewriter.batch_memory,
            known: Known::new(rewriter.layout.window_ms, budget),
            records: None,
        }
    }

    pub(super) fn budget(&self) -> Arc<Budget> {
        Budget::new(self.rewriter.window_memory, self.rewriter.scratch.clone())
    }
}

/// The outputs that the files of a batch become. Those of one folder divide all of its offsets: of some there are no rows,
/// and nobody but the log knows of which.
pub(super) fn tiled(from: i64, to: i64, files: &[FinishedFile]) -> Vec<Planned> {
    let mut begins: BTreeMap<&str, BTreeSet<i64>> = BTreeMap::new();
    for file in files {
        begins.entry(&file.folder).or_default().insert(file.offsets.start);
    }
    let tile = |file: &FinishedFile| {
        let (folder, begin) = (file.folder.clone(), file.offsets.start);
        let of_folder = begins.get(folder.as_str());
        let is_first = of_folder.and_then(BTreeSet::first).is_none_or(|first| *first == begin);
        let next = of_folder.and_then(|begins| begins.range(begin.saturating_add(1)..).next());
        Planned { folder, from: if is_first { from } else { begin }, to: next.copied().unwrap_or(to) }
    };
    files.iter().map(tile).collect()
}

/// Outputs of batches so that every offset between the first and the last one is of some: where a batch has no files, or
/// offsets were passed over, the outputs beside the gap reach into it. They have no row there, but an input may have the
/// offsets: a merged one spans batches.
fn without_gaps(from: i64, to: i64, batches: Vec<(i64, i64, Vec<Planned>)>) -> Vec<Planned> {
    let mut batches: Vec<_> = batches.into_iter().filter(|(_, _, outputs)| !outputs.is_empty()).collect();
    let begins: Vec<i64> = batches.iter().skip(1).map(|(begin, _, _)| *begin).chain([to]).collect();
    for ((_, end, outputs), next) in batches.iter_mut().zip(begins) {
        outputs.iter_mut().filter(|planned| planned.to == *end).for_each(|planned| planned.to = next);
    }
    if let Some((begin, _, outputs)) = batches.first_mut() {
        outputs.iter_mut().filter(|planned| planned.from == *begin).for_each(|planned| planned.from = from);
    }
    batches.into_iter().flat_map(|(_, _, outputs)| outputs).collect()
}

/// Whether an output is the one that was planned, of a batch with these offsets. See [`without_gaps`].
pub(super) fn is_planned(made: &Planned, planned: &Planned, from: i64, to: i64) -> bool {
    let is_begin = made.from == planned.from || made.from == from && planned.from < from;
    let is_end = made.to == planned.to || made.to == to && planned.to > to;
    made.folder == planned.folder && is_begin && is_end
}

/// A file with the offsets from its first row to its last.
fn exact(file: &FinishedFile) -> Planned {
    Planned { folder: file.folder.clone(), from: file.offsets.start, to: file.offsets.end }
}

fn are_mixed(outputs: &[Planned]) -> bool {
    let mut sorted: Vec<&Planned> = outputs.iter().collect();
    sorted.sort_unstable_by_key(|planned| (&planned.folder, planned.from));
    sorted.array_windows().any(|[one, next]| one.folder == next.folder && next.from < one.to)
}

fn inputs(group: &Group<'_>) -> Vec<InFolder> {
    let mut folders: BTreeMap<&str, Vec<FileId>> = BTreeMap::new();
    for (id, file) in &group.files {
        folders.entry(&file.folder).or_default().push(*id);
    }
    folders.into_iter().map(|(folder, files)| InFolder { folder: folder.to_owned(), files }).collect()
}
