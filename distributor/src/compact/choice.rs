//! Which files of a commit log can be merged, and the scopes of the next replace.

use std::collections::{BTreeMap, BTreeSet};

use commitlog::actor::Choice;
use commitlog::{Fate, FileId, InFolder, LiveFile, Planned, Reason, Recipe, ReplaceSlot, Scope, Source, State};
use futures_util::{FutureExt, StreamExt};

use super::Compactor;
use super::policy::Sized;
use crate::batch::{LAYOUT, path};
use crate::error::PartitionError;
use crate::footer::{Footer, FooterError};
use crate::in_turn::in_turn;
use crate::layout::Layout;
use crate::replace::{MAX_INPUTS, MAX_OUTPUTS};

/// A live file of a folder.
type File<'a> = (FileId, &'a LiveFile);

/// What is known of files beyond the commit log.
#[derive(Default)]
pub(super) struct Seen {
    /// Layouts of outputs of replaces, from their footers. None: it cannot be read.
    layouts: BTreeMap<FileId, Option<Layout>>,
    /// Offsets from which on files are known; `None`: all.
    pub since: Option<i64>,
    /// Inputs that were missing or altered, or that cannot be merged: they stay.
    pub bad: BTreeSet<FileId>,
    /// One was: all are looked for before the next replace begins.
    pub is_wary: bool,
}

/// Files that become one.
pub(super) struct Merge<'a> {
    pub folder: &'a str,
    pub files: Vec<File<'a>>,
    pub layout: Layout,
}

impl Merge<'_> {
    fn scope(&self) -> Scope {
        let from = self.files.iter().map(|(_, file)| file.from).min().unwrap_or_default();
        let to = self.files.iter().map(|(_, file)| file.to).max().unwrap_or_default();
        let files = self.files.iter().map(|(id, _)| *id).collect();
        let folder = self.folder.to_owned();
        let outputs = vec![Planned { folder: folder.clone(), from, to }];
        Scope { from, to, inputs: vec![InFolder { folder, files }], outputs }
    }
}

impl Compactor {
    /// Everything that is to be merged now.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn merges<'a>(
        &self,
        partition: i32,
        state: &'a State,
        seen: &mut Seen,
    ) -> Result<Vec<Merge<'a>>, PartitionError> {
        let mut folders: BTreeMap<&str, Vec<File<'a>>> = BTreeMap::new();
        let from = seen.since.unwrap_or(i64::MIN);
        for (id, file) in state.live.iter().filter(|(_, file)| file.from >= from) {
            folders.entry(&file.folder).or_default().push((*id, file));
        }
        let taken = taken(state);
        let bad = seen.bad.clone();
        let stays = |id: &FileId| taken.contains(id) || bad.contains(id);
        // Footers are read only where something could be merged.
        folders.retain(|_, files| files.iter().filter(|(id, file)| !stays(id) && !self.is_large(file)).count() > 1);
        let unknown: Vec<File<'a>> = folders
            .values()
            .flatten()
            .filter(|(id, file)| matches!(id, FileId::Replace { .. }) && !stays(id) && !self.is_large(file))
            .filter(|(id, _)| !seen.layouts.contains_key(id))
            .copied()
            .collect();
        let read = self.layouts(partition, unknown).await?;
        seen.layouts.extend(read);
        let mut merges = Vec::new();
        for (folder, mut files) in folders {
            files.sort_unstable_by_key(|(id, file)| (file.from, file.to, *id));
            let layouts: Vec<Option<Layout>> =
                files.iter().map(|(id, _)| if stays(id) { None } else { layout_of(state, *id, seen) }).collect();
            let layouts = without_mixed(&files, layouts);
            let whole = whole(&files, &layouts);
            let mut kinds: Vec<&Layout> = Vec::new();
            let sized: Vec<Sized> = whole
                .iter()
                .map(|whole| {
                    let kind = whole.layout.map(|layout| {
                        kinds.iter().position(|known| *known == layout).unwrap_or_else(|| {
                            kinds.push(layout);
                            kinds.len() - 1
                        })
                    });
                    Sized { bytes: whole.files.iter().map(|(_, file)| file.stored.bytes).sum(), kind }
                })
                .collect();
            let newest_ms = files.iter().map(|(_, file)| clock_ms(state, file)).max().unwrap_or(i64::MAX);
            let has_rested = self.policy.has_rested(newest_ms, self.now_ms);
            for run in self.policy.runs(&sized, has_rested) {
                let within = whole.get(run).unwrap_or_default();
                let Some(layout) = within.first().and_then(|first| first.layout) else { continue };
                let files = within.iter().flat_map(|whole| whole.files.iter().copied()).collect();
                merges.push(Merge { folder, files, layout: layout.clone() });
            }
        }
        Ok(merges)
    }

    fn is_large(&self, file: &LiveFile) -> bool {
        self.policy.is_large(file.stored.bytes)
    }

    /// The next replace: merges of one layout.
    ///
    /// # Errors
    /// The layout cannot be written.
    pub(super) fn choice(&self, merges: &[Merge<'_>]) -> Result<Option<Choice>, PartitionError> {
        let Some(first) = merges.first() else { return Ok(None) };
        let (mut scopes, mut inputs) = (Vec::new(), 0);
        for merge in merges.iter().filter(|merge| merge.layout == first.layout) {
            inputs += merge.files.len();
            if !scopes.is_empty() && inputs > MAX_INPUTS || scopes.len() == MAX_OUTPUTS {
                break;
            }
            scopes.push(merge.scope());
        }
        let value = |value: serde_json::Result<serde_json::Value>| {
            value.map_err(|error| PartitionError::Unwritable(format!("the layout cannot be written: {error}")))
        };
        let layout = value(serde_json::to_value(&first.layout))?;
        let encoding = value(serde_json::to_value(self.encoding))?;
        let recipe = Recipe { layout, encoding };
        Ok(Some(Choice { reason: Reason::Compaction, source: Source::Inputs, recipe, scopes }))
    }

    /// Layouts of outputs of replaces.
    async fn layouts(
        &self,
        partition: i32,
        files: Vec<File<'_>>,
    ) -> Result<BTreeMap<FileId, Option<Layout>>, PartitionError> {
        let store = &*self.store;
        let reads = files.into_iter().map(|(id, file)| {
            let path = path(&self.topic, partition, &file.folder, id);
            async move { (id, Footer::read(store, &path, file.stored.bytes).await) }.boxed()
        });
        let (mut reads, mut layouts) = (in_turn(reads), BTreeMap::new());
        while let Some((id, footer)) = reads.next().await {
            let layout = match footer {
                Ok(footer) => footer.fact(LAYOUT).and_then(|text| serde_json::from_str(text).ok()),
                Err(FooterError::Store(error)) => return Err(error.into()),
                Err(FooterError::Gone | FooterError::Unreadable(_)) => None,
            };
            layouts.insert(id, layout);
        }
        Ok(layouts)
    }
}

/// Files that replaces under way have, as inputs or as outputs that are not published.
fn taken(state: &State) -> BTreeSet<FileId> {
    let open = state.head.replaces();
    open.flat_map(|open| open.intent.inputs().map(|(_, id)| id).chain(open.intent.outputs().map(|(id, _)| id)))
        .collect()
}

fn layout_of(state: &State, id: FileId, seen: &Seen) -> Option<Layout> {
    match id {
        FileId::Replace { .. } => seen.layouts.get(&id).cloned().flatten(),
        FileId::Batch { from, .. } => match &state.spans.get(&from)?.fate {
            Fate::Batch(batch) => serde_json::from_value(batch.recipe.layout.clone()).ok(),
            Fate::Passed(_) | Fate::Abandoned(_) => None,
        },
    }
}

/// Files of a folder whose ranges of offsets overlap: those of one batch. They are merged together, for which of them has
/// which of the offsets nobody knows who has not read them.
struct Whole<'f, 'a> {
    files: &'f [File<'a>],
    /// None: they stay as they are.
    layout: Option<&'f Layout>,
}

/// Divides the files of a folder, which are in order.
fn whole<'f, 'a>(files: &'f [File<'a>], layouts: &'f [Option<Layout>]) -> Vec<Whole<'f, 'a>> {
    let (mut all, mut begin, mut end) = (Vec::new(), 0, i64::MIN);
    for (at, (_, file)) in files.iter().enumerate() {
        let next = files.get(at + 1);
        end = end.max(file.to);
        if next.is_some_and(|(_, next)| next.from < end) {
            continue;
        }
        let range = begin..at + 1;
        let layouts = layouts.get(range.clone()).unwrap_or_default();
        let first = layouts.first().and_then(Option::as_ref);
        let layout = first.filter(|first| layouts.iter().all(|layout| layout.as_ref() == Some(*first)));
        all.push(Whole { files: files.get(range).unwrap_or_default(), layout });
        begin = at + 1;
    }
    all
}

/// Two event types may have one folder: their files hold offsets in turn, and stay as they are. Of one type every file but the
/// last of a batch is full.
fn without_mixed(files: &[File<'_>], layouts: Vec<Option<Layout>>) -> Vec<Option<Layout>> {
    let mut kept = Vec::with_capacity(layouts.len());
    let mut layouts = layouts.into_iter();
    let begin = |(id, _): &File<'_>| if let FileId::Batch { from, .. } = id { Some(*from) } else { None };
    for of_batch in files.chunk_by(|one, next| begin(one).is_some() && begin(one) == begin(next)) {
        let these: Vec<Option<Layout>> = layouts.by_ref().take(of_batch.len()).collect();
        let is_full = |((_, file), layout): (&File<'_>, &Option<Layout>)| {
            layout.as_ref().is_none_or(|layout| file.stored.rows == layout.max_rows_per_file)
        };
        let before_last = of_batch.len().saturating_sub(1);
        let is_one_type = of_batch.iter().zip(&these).take(before_last).all(is_full);
        kept.extend(these.into_iter().map(|layout| layout.filter(|_| is_one_type)));
    }
    kept
}

/// Log time of the last batch with rows of a file.
fn clock_ms(state: &State, file: &LiveFile) -> i64 {
    let last = state.spans.range(..file.to).rev().find_map(|(_, span)| match &span.fate {
        Fate::Batch(batch) => Some(batch.clock_ms),
        Fate::Passed(_) | Fate::Abandoned(_) => None,
    });
    last.unwrap_or(i64::MAX)
}

/// Whether a compaction is under way, or was interrupted.
pub(super) fn is_open(state: &State) -> bool {
    state.head.replace(ReplaceSlot::Merging).is_some()
}
