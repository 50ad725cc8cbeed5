//! Which files a reader of a table should read, as a commit log says, and what each entry changes of that.
//!
//! A reader of the folders sees the files of a batch before it is committed, and misses rows while files are replaced. A
//! reader of a table opens the files that the table names, and sees neither:
//!
//! | Entry | Readers of a table |
//! |---|---|
//! | `Commit` | read the files of the batch, too, all at once |
//! | `ReplaceReady` | read the outputs where they are staged, instead of the inputs |
//! | `ReplaceDone` | read the outputs under their names, instead of where they are staged |
//!
//! So a replacer deletes inputs only after a version of the table holds `ReplaceReady`, and staged files only after one holds
//! `ReplaceDone`.

use crate::files::{Fate, State};
use crate::head::{Head, Invalid, Stage};
use crate::op::{FileId, Op, Recipe, ReplaceIntent, Stored};

/// Where a reader of a table finds a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Visible {
    pub folder: String,
    pub id: FileId,
    /// It is an output of a replace that is not done: it is read where it is staged.
    pub is_staged: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Appears {
        file: Visible,
        stored: Stored,
        /// Its rows were in no file before.
        is_new: bool,
    },
    Disappears(Visible),
}

/// What an entry changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// In order.
    pub files: Vec<Change>,
    /// How the files that appear were made.
    pub recipes: Vec<Recipe>,
}

impl Head {
    /// Folds an entry, and says what it changes for readers of a table.
    ///
    /// # Errors
    /// As [`Head::apply`].
    pub fn apply_visibly(&mut self, ops: &[Op]) -> Result<Changes, Invalid> {
        let mut changes = Changes::default();
        for op in ops {
            self.changes_of(op, &mut changes);
            self.fold(op)?;
        }
        self.next += 1;
        Ok(changes)
    }

    /// Before the operation is folded.
    fn changes_of(&self, op: &Op, changes: &mut Changes) {
        match op {
            Op::Commit(commit) => {
                let Some(intent) = self.intent() else { return };
                changes.recipes.push(intent.recipe.clone());
                for (k, (folder, stored)) in (0u32..).zip(intent.folders.iter().zip(&commit.files)) {
                    let id = FileId::Batch { from: commit.from, k };
                    let file = Visible { folder: folder.clone(), id, is_staged: false };
                    changes.files.push(Change::Appears { file, stored: *stored, is_new: true });
                }
            }
            Op::ReplaceReady(ready) => {
                let Some(replace) = self.replaces().find(|open| open.intent.replace == ready.replace) else { return };
                let intent = &replace.intent;
                changes.recipes.push(intent.recipe.clone());
                changes.files.extend(intent.inputs().map(|(folder, id)| {
                    Change::Disappears(Visible { folder: folder.to_owned(), id, is_staged: false })
                }));
                changes.files.extend(outputs(intent, &ready.outputs, true));
            }
            Op::ReplaceDone(done) => {
                let Some(replace) = self.replaces().find(|open| open.intent.replace == done.replace) else { return };
                let Stage::Ready(stored) = &replace.stage else { return };
                let intent = &replace.intent;
                changes.files.extend(intent.outputs().map(|(id, planned)| {
                    Change::Disappears(Visible { folder: planned.folder.clone(), id, is_staged: true })
                }));
                changes.files.extend(outputs(intent, stored, false));
            }
            _ => {}
        }
    }
}

fn outputs<'a>(
    intent: &'a ReplaceIntent,
    stored: &'a [Stored],
    is_staged: bool,
) -> impl Iterator<Item = Change> + use<'a> {
    intent.outputs().zip(stored).map(move |((id, planned), stored)| Change::Appears {
        file: Visible { folder: planned.folder.clone(), id, is_staged },
        stored: *stored,
        is_new: false,
    })
}

impl State {
    /// Every file that a reader of a table should read.
    pub fn visible(&self) -> impl Iterator<Item = (Visible, Stored)> {
        let is_open = |id: &FileId| match id {
            FileId::Replace { replace, .. } => self.head.replaces().any(|open| open.intent.replace == *replace),
            FileId::Batch { .. } => false,
        };
        self.live.iter().map(move |(id, file)| {
            (Visible { folder: file.folder.clone(), id: *id, is_staged: is_open(id) }, file.stored)
        })
    }

    /// How live files of batches were made, and how the replaces that are under way make theirs: each way once. Of outputs of
    /// replaces that are done their footers tell.
    pub fn recipes(&self) -> Vec<&Recipe> {
        let of_batches = self.live.keys().filter_map(|id| match id {
            FileId::Batch { from, .. } => match &self.spans.get(from)?.fate {
                Fate::Batch(batch) => Some(&batch.recipe),
                Fate::Passed(_) | Fate::Abandoned(_) => None,
            },
            FileId::Replace { .. } => None,
        });
        let mut recipes: Vec<&Recipe> = Vec::new();
        for recipe in of_batches.chain(self.head.replaces().map(|open| &open.intent.recipe)) {
            if recipes.last() != Some(&recipe) && !recipes.contains(&recipe) {
                recipes.push(recipe);
            }
        }
        recipes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::History;

    proptest! {
        /// Following the entries gives the same files as folding them all.
        #[test]
        fn changes_add_up_to_the_files_of_the_state(choices in prop::collection::vec(any::<u8>(), 1..120)) {
            let history = History::of(&choices);
            let (mut head, mut visible) = (Head::default(), BTreeMap::new());
            for ops in &history.entries {
                for change in head.apply_visibly(ops).unwrap().files {
                    match change {
                        Change::Appears { file, stored, .. } => prop_assert!(visible.insert(file, stored).is_none()),
                        Change::Disappears(file) => prop_assert!(visible.remove(&file).is_some()),
                    }
                }
            }
            prop_assert_eq!(&head, &history.state.head);
            prop_assert_eq!(visible, history.state.visible().collect::<BTreeMap<_, _>>());
        }
    }
}
