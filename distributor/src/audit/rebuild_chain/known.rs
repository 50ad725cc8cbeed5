//! What stands in the store of each batch of a partition.

use std::collections::{BTreeMap, BTreeSet};

use common::store::Store;
use futures_util::{StreamExt, stream};

use super::super::AT_ONCE;
use super::super::present::NamedFile;
use super::footing::{Footing, footing};
use super::{Stop, refused};
use crate::batch::Encoding;
use crate::chain::{ChainError, ChainStore, Completion, Cut, Part, Revision, Revisions};
use crate::layout::Layout;

/// A batch, or a range that was passed over. At least one of cut, completion, revision and files is there.
#[derive(Default)]
pub(super) struct Known {
    pub cut: Option<Cut>,
    /// As it was cut.
    pub completion: Option<Completion>,
    /// Number of the revision that stands, 0 as it was cut.
    pub number: u32,
    /// Its document; `None` as it was cut, or if that was lost.
    pub revision: Option<Revision>,
    /// If it was lost: what the newest document that is there lists.
    pub former: Option<Completion>,
    /// Those of that revision, by sequence. Without rows if nothing had to be read of them.
    pub files: BTreeMap<u32, Present>,
    /// From footers, if those were read.
    pub footer: Option<Footing>,
    /// The log had let go of its head before it was complete: it has files beyond these.
    pub is_salvaged: bool,
}

pub(super) struct Present {
    pub path: String,
    pub size_bytes: u64,
    pub rows: Option<u64>,
}

impl Known {
    pub(super) fn to(&self) -> Option<i64> {
        let of_cut = self.cut.as_ref().map(|cut| cut.to);
        let of_footer = || self.footer.as_ref().map(|footer| footer.to);
        let of_revision = || self.revision.as_ref().map(|revision| revision.completion.to);
        of_cut.or_else(of_footer).or_else(of_revision).or(self.completion.as_ref().map(|done| done.to))
    }

    /// Under which it stands.
    pub(super) fn layout(&self) -> Option<&Layout> {
        let of_footer = self.footer.as_ref().map(|footer| &footer.layout);
        match (self.number, &self.revision) {
            (0, _) => self.cut.as_ref().map(|cut| &cut.layout).or(of_footer),
            (_, Some(revision)) => Some(&revision.layout),
            (_, None) => of_footer,
        }
    }

    /// How its files are encoded, as far as that is known.
    pub(super) fn encoding(&self) -> Option<Encoding> {
        let of_footer = || self.footer.as_ref().and_then(|footer| footer.encoding);
        match (self.number, &self.revision, &self.cut) {
            (0, _, Some(cut)) => cut.encoding,
            (_, Some(revision), _) => Some(revision.encoding),
            _ => of_footer(),
        }
    }

    /// What lists its files, if that is there.
    pub(super) fn listed(&self) -> Option<&Completion> {
        match self.number {
            0 => self.completion.as_ref(),
            _ => self.revision.as_ref().map(|revision| &revision.completion),
        }
    }

    /// Key of the object that holds its keys; `None` if only the lost document of its revision said it.
    pub(super) fn key_run(&self, chain: &ChainStore, from: i64) -> Option<String> {
        match self.number {
            0 => Some(chain.key_run_key(from)),
            _ => self.revision.as_ref().map(|revision| revision.key_run.clone()),
        }
    }

    /// It was made again, and the document that says so is gone.
    pub(super) fn has_lost_its_revision(&self) -> bool {
        self.number > 0 && self.revision.is_none()
    }

    /// Whether every file that the batch has is there, as far as its files tell.
    pub(super) fn is_all_there(&self) -> bool {
        let stated = self.footer.as_ref().and_then(|footer| footer.stated);
        stated.is_some_and(|stated| self.files.len() == stated.files as usize)
    }

    pub(super) fn is_whole(&self) -> bool {
        let is_done = self.completion.is_some() && !self.has_lost_its_revision();
        self.cut.as_ref().is_some_and(|cut| !cut.is_batch() || is_done)
    }
}

pub(super) struct Everything {
    /// By where they begin.
    pub batches: BTreeMap<i64, Known>,
    /// Where key runs begin.
    pub key_runs: BTreeSet<i64>,
    /// Those of batches that were made again.
    pub revised_key_runs: BTreeMap<i64, Vec<String>>,
}

/// Reads documents, and footers where documents are missing.
pub(super) async fn gather(
    store: &dyn Store,
    chain: &ChainStore,
    files: impl Iterator<Item = NamedFile>,
) -> Result<Everything, Stop> {
    refuse_unfinished_rewrites(chain).await?;
    let revisions = chain.revisions(0, i64::MAX).await?;
    let mut batches = standing(files, &revisions)?;
    let mut begins = chain.begins(Part::Completions).await?;
    begins.extend(revisions.keys());
    let mut oldest = None;
    loop {
        let page = chain.cuts_begin_before(oldest).await?;
        let Some(last) = page.last() else { break };
        oldest = Some(*last);
        begins.extend(page);
    }
    let mut documents = stream::iter(begins)
        .map(async |from| {
            let revision = chain.revision(from, revisions.get(&from).copied()).await;
            (from, chain.cut_from(from).await, chain.completion(from).await, revision)
        })
        .buffered(AT_ONCE);
    while let Some((from, cut, completion, revision)) = documents.next().await {
        let (cut, completion, revision) = (cut?, completion?, revision?);
        let known = batches.entry(from).or_default();
        match revision {
            Some(revision) if revision.revision == known.number => known.revision = Some(revision),
            Some(older) => known.former = Some(older.completion),
            None => known.former.clone_from(&completion),
        }
        (known.cut, known.completion) = (cut, completion);
    }
    drop(documents);
    for (from, known) in &mut batches {
        if !known.is_whole() {
            if known.is_salvaged {
                return refused(damaged(*from));
            }
            known.footer = footing(store, *from, known.number, &mut known.files).await?;
        }
    }
    let revised_key_runs = chain.revised_key_runs().await?;
    Ok(Everything { batches, key_runs: chain.begins(Part::KeyRuns).await?, revised_key_runs })
}

/// Which of a batch's documents and files stand is settled by a rewrite only, from what waits for it.
async fn refuse_unfinished_rewrites(chain: &ChainStore) -> Result<(), Stop> {
    let is_under_way = match chain.rewrite().await {
        Ok(rewrite) => rewrite.is_some(),
        Err(ChainError::Store(error)) => return Err(error.into()),
        // Whatever it says, it was put by a rewrite.
        Err(ChainError::Damaged { .. } | ChainError::Unwritable { .. }) => true,
    };
    if is_under_way {
        return refused(
            "it is being rewritten, or a rewrite was interrupted. Run 'replay --rewrite' with the same settings to its end, then this \
             again. If that refuses for what is missing, bring _batches back from a backup",
        );
    }
    if let Some(staged) = chain.staged().await?.first() {
        return refused(format!(
            "files of a rewrite that was not finished wait below '_batches', among them '{}', and the 'rewrite.json' that tells of it \
             is gone. Bring that back from a backup and run 'replay --rewrite' to its end. Without one, if the log still holds the \
             records, move them away: missing files are then made again after an offset reset",
            staged.key
        ));
    }
    Ok(())
}

pub(super) fn damaged(from: i64) -> String {
    format!(
        "the log let go of the head of the batch that begins at {from} before all its files were written, and how far it was closed cannot \
         be told from files. If its cut is there, start a distributor, which goes on with it; otherwise bring _batches back from a backup"
    )
}

/// The files of each batch as it stands. Those of a revision are visible only after it was decided and what it replaced
/// was removed, so that the highest number counts; what a newer document has replaced is an orphan, and passed over.
fn standing(files: impl Iterator<Item = NamedFile>, revisions: &Revisions) -> Result<BTreeMap<i64, Known>, Stop> {
    let mut by_revision: BTreeMap<i64, BTreeMap<u32, BTreeMap<u32, Present>>> = BTreeMap::new();
    let mut salvaged = BTreeSet::new();
    for NamedFile { name, path, size_bytes } in files {
        if name.salvage > 0 {
            salvaged.insert(name.from);
            continue;
        }
        let of_batch = by_revision.entry(name.from).or_default().entry(name.revision).or_default();
        if let Some(other) = of_batch.insert(name.sequence, Present { path, size_bytes, rows: None }) {
            return refused(format!(
                "two files claim to be file {} of the batch that begins at {}; move one of them away: {}",
                name.sequence, name.from, other.path
            ));
        }
    }
    let mut batches: BTreeMap<i64, Known> =
        revisions.iter().map(|(from, newest)| (*from, Known { number: *newest, ..Known::default() })).collect();
    for (from, mut found) in by_revision {
        let known = batches.entry(from).or_default();
        let Some((highest, newest)) = found.pop_last() else { continue };
        if highest < known.number {
            continue;
        }
        if let Some(older) = found.into_values().flat_map(BTreeMap::into_values).next()
            && highest > known.number
        {
            return refused(format!(
                "files of two revisions of the batch that begins at {from} stand side by side, and the document of revision {highest} is \
                 gone: bring it back from a backup; or move those of the older revision away, which the newer one has replaced: {}",
                older.path
            ));
        }
        (known.number, known.files) = (highest, newest);
    }
    for from in salvaged {
        batches.entry(from).or_default().is_salvaged = true;
    }
    Ok(batches)
}
