//! What the commit log of a partition has to tell the tables.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use commitlog::{Change, FileId, Head, Op, State, Stored, Visible};
use commitlog_storage::{CommitLog, CommitLogError, Damage, Tail};
use common::store::Store;
use deltalog::Field;
use futures_util::{FutureExt, StreamExt};

use super::TableError;
use super::file::key;
use super::schema::Kind;
use crate::batch::{LAYOUT, path};
use crate::footer::{Footer, FooterError};
use crate::in_turn::in_turn;
use crate::layout::Layout;

/// What is to be done of a file, by its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Due {
    Add { folder: String, stored: Stored, is_new: bool },
    Remove,
}

/// What is due in one table up to an entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Backlog {
    pub files: BTreeMap<String, Due>,
    /// Columns of files that appear.
    pub columns: Vec<Vec<Field>>,
    /// Entries of the commit log that it holds, together with what the table has.
    pub entries: u64,
    /// Entries that the table has.
    pub published: u64,
}

impl Backlog {
    fn take(&mut self, key: String, change: Due) {
        match change {
            Due::Add { .. } => drop(self.files.insert(key, change)),
            // It was not in the table yet.
            Due::Remove if matches!(self.files.get(&key), Some(Due::Add { .. })) => drop(self.files.remove(&key)),
            Due::Remove => drop(self.files.insert(key, Due::Remove)),
        }
    }

    fn take_columns(&mut self, columns: Vec<Field>) {
        if !self.columns.contains(&columns) {
            self.columns.push(columns);
        }
    }
}

/// The commit log of a partition, as far as it was folded.
pub(super) struct Follower {
    pub partition: i32,
    topic: String,
    commits: CommitLog,
    head: Head,
    tail: Tail,
    /// Entries that are read and not folded.
    unfolded: VecDeque<Vec<Op>>,
    pub backlogs: BTreeMap<Kind, Backlog>,
}

impl Follower {
    /// One that goes on where the tables are: `published` entries are in each. None: the commit log no longer says what came after
    /// these.
    ///
    /// # Errors
    /// The store's; a commit log that is damaged; and one with fewer entries.
    pub(super) async fn after(
        commits: CommitLog,
        topic: &str,
        partition: i32,
        published: &BTreeMap<Kind, u64>,
    ) -> Result<Option<Self>, TableError> {
        let loaded = commits.load().await?;
        for (kind, known) in published {
            if *known > loaded.head.next {
                let (root, known) = (kind.root().to_owned(), i64::try_from(*known).unwrap_or(i64::MAX));
                return Err(TableError::Ahead { root, partition, known, entries: loaded.head.next });
            }
        }
        let from = published.values().min().copied().unwrap_or_default();
        let since = loaded.recent.since_entry(from).map_err(|invalid| CommitLogError::Damaged {
            key: commits.entry_key(from),
            damage: Damage::from(invalid),
        })?;
        let Some((head, after)) = since else { return Ok(None) };
        let backlog = |entries: u64| Backlog { entries, published: entries, ..Backlog::default() };
        Ok(Some(Self {
            partition,
            topic: topic.to_owned(),
            head,
            tail: loaded.tail,
            unfolded: after.iter().cloned().collect(),
            backlogs: published.iter().map(|(kind, entries)| (*kind, backlog(*entries))).collect(),
            commits,
        }))
    }

    /// One that makes each table what the whole commit log says. `there` are the keys that it names of this partition.
    ///
    /// # Errors
    /// The store's; and a commit log that is damaged.
    pub(super) async fn anew(
        store: &Arc<dyn Store>,
        commits: CommitLog,
        topic: &str,
        partition: i32,
        there: &BTreeMap<Kind, BTreeSet<String>>,
    ) -> Result<Self, TableError> {
        let (state, tail, _) = commits.load_state().await?;
        let mut backlogs = BTreeMap::new();
        for kind in Kind::ALL {
            let expected = expected(&commits, topic, partition, &state, kind);
            let mut backlog = Backlog { entries: state.head.next, ..Backlog::default() };
            let nothing = BTreeSet::new();
            let there = there.get(&kind).unwrap_or(&nothing);
            for gone in there.iter().filter(|key| !expected.contains_key(*key)) {
                backlog.files.insert(gone.clone(), Due::Remove);
            }
            for (key, (folder, stored)) in expected {
                if !there.contains(&key) {
                    backlog.files.insert(key, Due::Add { folder, stored, is_new: true });
                }
            }
            for recipe in state.recipes() {
                backlog.take_columns(kind.columns_of(recipe)?);
            }
            for layout in replaced_layouts(&**store, topic, partition, &state, kind).await? {
                backlog.take_columns(kind.columns(&layout)?);
            }
            backlogs.insert(kind, backlog);
        }
        let (topic, head) = (topic.to_owned(), state.head);
        Ok(Self { partition, topic, commits, head, tail, unfolded: VecDeque::new(), backlogs })
    }

    /// Reads the entries that were appended since. False: some were deleted, too; it has to begin anew.
    ///
    /// # Errors
    /// The store's; and a commit log that is damaged.
    pub(super) async fn read(&mut self) -> Result<bool, TableError> {
        let first = self.tail.next;
        let followed = self.commits.follow(self.tail).await;
        match followed {
            Ok((entries, tail)) => {
                if !entries.is_empty() && self.commits.floor().await? > first {
                    return Ok(false);
                }
                self.unfolded.extend(entries.into_iter().map(|sealed| sealed.entry.ops));
                self.tail = tail;
                Ok(true)
            }
            Err(CommitLogError::Damaged { .. }) if self.commits.floor().await? > first => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes what was staged before `before_ms` for replaces that had ended by the last entry that was folded.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn delete_staged(&self, before_ms: i64) -> Result<usize, CommitLogError> {
        self.commits.delete_staged(&self.head, before_ms).await
    }

    pub(super) fn has_unfolded(&self) -> bool {
        !self.unfolded.is_empty()
    }

    /// Folds entries until about `most` files are due.
    ///
    /// # Errors
    /// An entry that is not valid; and columns that this build does not know.
    pub(super) fn fold(&mut self, most: usize) -> Result<(), TableError> {
        while self.backlogs.values().map(|backlog| backlog.files.len()).sum::<usize>() < most
            && let Some(ops) = self.unfolded.pop_front()
        {
            let n = self.head.next;
            let damaged = |invalid: commitlog::Invalid| CommitLogError::Damaged {
                key: self.commits.entry_key(n),
                damage: Damage::from(invalid),
            };
            let changes = self.head.apply_visibly(&ops).map_err(damaged)?;
            for (kind, backlog) in &mut self.backlogs {
                if n < backlog.published {
                    continue;
                }
                backlog.entries = n + 1;
                for recipe in &changes.recipes {
                    backlog.take_columns(kind.columns_of(recipe)?);
                }
                for change in &changes.files {
                    let (file, due) = match change {
                        Change::Appears { file, stored, is_new } => {
                            (file, Due::Add { folder: file.folder.clone(), stored: *stored, is_new: *is_new })
                        }
                        Change::Disappears(file) => (file, Due::Remove),
                    };
                    if kind.holds(&file.folder) {
                        backlog.take(key(&self.commits, &self.topic, self.partition, file), due);
                    }
                }
            }
        }
        Ok(())
    }

    /// What was due in a table is in it.
    pub(super) fn published(&mut self, kind: Kind) {
        if let Some(backlog) = self.backlogs.get_mut(&kind) {
            let entries = backlog.entries;
            *backlog = Backlog { entries, published: entries, ..Backlog::default() };
        }
    }
}

/// The layouts of files that replaces made which are done: of each replace that of one file, from its footer.
async fn replaced_layouts(
    store: &dyn Store,
    topic: &str,
    partition: i32,
    state: &State,
    kind: Kind,
) -> Result<Vec<Layout>, TableError> {
    let mut samples: BTreeMap<u64, (String, u64)> = BTreeMap::new();
    for (file, stored) in state.visible().filter(|(file, _)| !file.is_staged && kind.holds(&file.folder)) {
        if let FileId::Replace { replace, .. } = file.id {
            samples.entry(replace).or_insert_with(|| (path(topic, partition, &file.folder, file.id), stored.bytes));
        }
    }
    let mut layouts: Vec<Layout> = Vec::new();
    let reads =
        samples.into_values().map(|(key, bytes)| async move { (Footer::read(store, &key, bytes).await, key) }.boxed());
    let mut reads = in_turn(reads);
    while let Some((footer, key)) = reads.next().await {
        let footer = match footer {
            Ok(footer) => footer,
            Err(FooterError::Store(error)) => return Err(error.into()),
            Err(FooterError::Gone | FooterError::Unreadable(_)) => {
                tracing::warn!(key, "this file is missing or altered: columns that only it has are not in the table");
                continue;
            }
        };
        let layout = footer.fact(LAYOUT).and_then(|text| serde_json::from_str::<Layout>(text).ok());
        layouts.extend(layout.filter(|layout| !layouts.contains(layout)));
    }
    Ok(layouts)
}

/// The files of a partition that a table has to name, by key, with their folders.
pub(super) fn expected(
    commits: &CommitLog,
    topic: &str,
    partition: i32,
    state: &State,
    kind: Kind,
) -> BTreeMap<String, (String, Stored)> {
    let files = state.visible().filter(|(file, _)| kind.holds(&file.folder));
    let named = |(file, stored): (Visible, Stored)| (key(commits, topic, partition, &file), (file.folder, stored));
    files.map(named).collect()
}
