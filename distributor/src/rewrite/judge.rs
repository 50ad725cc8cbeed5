//! What is to become of a group of batches.

use std::collections::{BTreeMap, BTreeSet};

use commitlog::{FileId, LiveFile, State};
use futures_util::{FutureExt, StreamExt};

use super::groups::Group;
use super::{Rewriter, differences, encoding_words};
use crate::batch::{Encoding, LAYOUT, path};
use crate::error::PartitionError;
use crate::footer::{Footer, FooterError, is_encoded};
use crate::in_turn::in_turn;
use crate::layout::Layout;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is as it is wanted.
    Stands,
    Again,
    /// But for these outputs of replaces, which are missing or damaged.
    Lost(Vec<FileId>),
    /// It should be made again, but the log no longer holds its records.
    NotInLog,
    /// Another replace has its files.
    Taken,
    /// Two of its types have one folder: a range of offsets does not tell their files apart.
    Mixed,
}

/// Judges the groups of one partition.
pub(super) struct Judge<'a> {
    rewriter: &'a Rewriter,
    partition: i32,
    /// Where the log begins.
    pub log_from: i64,
    /// Outputs of this replace and later ones are of this run: they stand, even if all batches were asked for.
    since: u64,
    /// How outputs of replaces differ from what is wanted. A name never gets another file.
    seen: BTreeMap<FileId, Vec<String>>,
    /// Outputs of replaces that are missing or damaged.
    pub gone: BTreeSet<FileId>,
    /// Where groups begin that cannot be planned.
    pub mixed: BTreeSet<i64>,
    /// How batches differ from what is wanted.
    pub differences: BTreeSet<String>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(rewriter: &'a Rewriter, partition: i32, log_from: i64, since: u64) -> Self {
        let (seen, gone, mixed, differences) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        Self { rewriter, partition, log_from, since, seen, gone, mixed, differences }
    }

    /// # Errors
    /// The store's; and a batch whose duplicates would be others under the wanted layout.
    pub(super) async fn judge(&mut self, state: &State, group: &Group<'_>) -> Result<Fate, PartitionError> {
        if group.files.is_empty() {
            return Ok(Fate::Stands);
        }
        if is_taken(state, group) {
            return Ok(Fate::Taken);
        }
        let differences = self.differences_of(group).await?;
        let is_older = |(id, _): &(FileId, _)| !matches!(id, FileId::Replace { replace, .. } if *replace >= self.since);
        let is_forced = self.rewriter.all && group.files.iter().any(is_older);
        if differences.is_empty() && !is_forced {
            return Ok(Fate::Stands);
        }
        if let Some(fate) = self.lost(group, differences.len()).filter(|_| !is_forced) {
            self.differences.extend(differences);
            return Ok(fate);
        }
        if self.log_from > group.from {
            self.differences.extend(differences);
            return Ok(Fate::NotInLog);
        }
        self.check_keys(group)?;
        self.differences.extend(differences);
        Ok(if self.mixed.contains(&group.from) { Fate::Mixed } else { Fate::Again })
    }

    /// Of a group in which nothing differs but that outputs of replaces are lost: each says one difference.
    fn lost(&self, group: &Group<'_>, differences: usize) -> Option<Fate> {
        let gone = || group.files.iter().filter(|(id, _)| self.gone.contains(id));
        if gone().count() != differences {
            return None;
        }
        if !self.rewriter.restores {
            return Some(Fate::Stands);
        }
        let begins =
            |offset: i64| group.batches.iter().rev().find(|(from, _, _)| *from <= offset).map(|(from, _, _)| *from);
        let is_in_log = |(_, file): &&(FileId, &LiveFile)| begins(file.from).is_some_and(|from| from >= self.log_from);
        let lost: Vec<FileId> = gone().filter(is_in_log).map(|(id, _)| *id).collect();
        Some(if lost.is_empty() { Fate::NotInLog } else { Fate::Lost(lost) })
    }

    async fn differences_of(&mut self, group: &Group<'_>) -> Result<BTreeSet<String>, PartitionError> {
        let mut found = BTreeSet::new();
        for (from, _, batch) in &group.batches {
            let is_replaced =
                !group.files.iter().any(|(id, _)| matches!(id, FileId::Batch { from: of, .. } if of == from));
            if is_replaced {
                continue;
            }
            let layout: Option<Layout> = serde_json::from_value(batch.recipe.layout.clone()).ok();
            let encoding: Option<Encoding> = serde_json::from_value(batch.recipe.encoding.clone()).ok();
            found.extend(self.layout_differences(layout.as_ref()));
            if encoding != Some(self.rewriter.encoding) {
                found.insert(self.other_encoding());
            }
        }
        self.read_footers(group).await?;
        for (id, _) in &group.files {
            found.extend(self.seen.get(id).into_iter().flatten().cloned());
        }
        Ok(found)
    }

    fn layout_differences(&self, layout: Option<&Layout>) -> Vec<String> {
        layout.map_or_else(|| vec!["layout".to_owned()], |layout| differences(layout, &self.rewriter.layout))
    }

    fn other_encoding(&self) -> String {
        format!("files are to have {}", encoding_words(self.rewriter.encoding))
    }

    /// Reads those of the outputs of replaces that were not read yet.
    async fn read_footers(&mut self, group: &Group<'_>) -> Result<(), PartitionError> {
        let (rewriter, partition) = (self.rewriter, self.partition);
        let unread: Vec<(FileId, &LiveFile)> = group
            .files
            .iter()
            .filter(|(id, _)| matches!(id, FileId::Replace { .. }) && !self.seen.contains_key(id))
            .copied()
            .collect();
        let mut footers = in_turn(unread.into_iter().map(|(id, file)| {
            let path = path(&rewriter.topic, partition, &file.folder, id);
            async move {
                let footer = Footer::read(&*rewriter.store, &path, file.stored.bytes).await;
                (id, path, footer)
            }
            .boxed()
        }));
        let (mut read, mut gone) = (Vec::new(), BTreeSet::new());
        while let Some((id, path, footer)) = footers.next().await {
            let is_events = path.starts_with("events/");
            let found = match footer {
                Ok(footer) => {
                    let layout = footer.fact(LAYOUT).and_then(|text| serde_json::from_str::<Layout>(text).ok());
                    let mut found = self.layout_differences(layout.as_ref());
                    if !is_encoded(&footer, rewriter.encoding, is_events) {
                        found.push(self.other_encoding());
                    }
                    found
                }
                // Only a replace makes an output of a replace again.
                Err(FooterError::Gone | FooterError::Unreadable(_)) => {
                    gone.insert(id);
                    vec![format!("'{path}' is missing or damaged")]
                }
                Err(FooterError::Store(error)) => return Err(error.into()),
            };
            read.push((id, found));
        }
        drop(footers);
        self.seen.extend(read);
        self.gone.extend(gone);
        Ok(())
    }

    /// Duplicates stay what they are: key runs are not made again.
    fn check_keys(&self, group: &Group<'_>) -> Result<(), PartitionError> {
        let wanted = &self.rewriter.layout;
        for (from, to, batch) in &group.batches {
            let layout: Option<Layout> = serde_json::from_value(batch.recipe.layout.clone()).ok();
            let has_same = |layout: &Layout| layout.reads_like(wanted) && layout.window_ms == wanted.window_ms;
            if layout.as_ref().is_some_and(has_same) {
                continue;
            }
            let differences: Vec<String> = self
                .layout_differences(layout.as_ref())
                .into_iter()
                .filter(|named| {
                    ["layout", "version", "rules", "timezone", "window_ms"].iter().any(|key| named.starts_with(key))
                })
                .collect();
            let message = format!(
                "the batch {from}..{to} cannot be rewritten, for other events would be its duplicates ({}). Keep format.* and \
                 dedup.window as they were, or begin after the batches that were written with other ones (--from {to} or later)",
                differences.join(", ")
            );
            return Err(self.rewriter.refusal(self.partition, message));
        }
        Ok(())
    }
}

/// Whether a replace that is not done has files of a group, or makes them.
fn is_taken(state: &State, group: &Group<'_>) -> bool {
    state.head.replaces().any(|replace| {
        let number = replace.intent.replace;
        let inputs: BTreeSet<FileId> = replace.intent.inputs().map(|(_, id)| id).collect();
        group
            .files
            .iter()
            .any(|(id, _)| inputs.contains(id) || matches!(id, FileId::Replace { replace, .. } if *replace == number))
    })
}
