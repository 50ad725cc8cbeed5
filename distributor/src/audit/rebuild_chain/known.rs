//! What stands in the store of each batch of a partition.

use std::collections::{BTreeMap, BTreeSet};

use common::config::Compression;
use common::store::Store;
use futures_util::{StreamExt, stream};

use super::super::AT_ONCE;
use super::super::present::{FileName, NamedFile};
use super::{Stop, refused};
use crate::batch::{Encoding, STATED, Stated};
use crate::chain::{ChainStore, Completion, Cut, Part};
use crate::footer::{Footer, FooterError};
use crate::layout::Layout;

/// A batch, or a range that was passed over. At least one of cut, completion and files is there.
#[derive(Default)]
pub(super) struct Known {
    pub cut: Option<Cut>,
    pub completion: Option<Completion>,
    /// By sequence. Without rows if nothing had to be read of them.
    pub files: BTreeMap<u32, Present>,
    /// From footers, if those were read.
    pub footer: Option<Footing>,
}

pub(super) struct Present {
    pub path: String,
    pub size_bytes: u64,
    pub rows: Option<u64>,
}

/// What the footers of a batch agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Footing {
    pub to: i64,
    pub layout: Layout,
    /// `None` in files of version 0.1.0.
    pub stated: Option<Stated>,
    /// `None` if they do not agree on it, or if it cannot be seen.
    pub encoding: Option<Encoding>,
}

impl Known {
    pub(super) fn to(&self) -> Option<i64> {
        let of_cut = self.cut.as_ref().map(|cut| cut.to);
        of_cut.or(self.footer.as_ref().map(|footer| footer.to)).or(self.completion.as_ref().map(|done| done.to))
    }

    pub(super) fn layout(&self) -> Option<&Layout> {
        self.cut.as_ref().map(|cut| &cut.layout).or(self.footer.as_ref().map(|footer| &footer.layout))
    }

    fn is_whole(&self) -> bool {
        self.cut.as_ref().is_some_and(|cut| !cut.is_batch() || self.completion.is_some())
    }
}

pub(super) struct Everything {
    /// By where they begin.
    pub batches: BTreeMap<i64, Known>,
    /// Where key runs begin.
    pub key_runs: BTreeSet<i64>,
}

/// Reads documents, and footers where documents are missing.
pub(super) async fn gather(
    store: &dyn Store,
    chain: &ChainStore,
    files: impl Iterator<Item = NamedFile>,
) -> Result<Everything, Stop> {
    let mut batches: BTreeMap<i64, Known> = BTreeMap::new();
    // What they replaced, and under which keys later batches were made, only their documents said.
    let rewritten = "batches of it were made again by 'replay --rewrite', which cannot be brought back from files; restore \
                     _batches from a backup";
    if !chain.revisions(0, i64::MAX).await?.is_empty() {
        return refused(rewritten);
    }
    for NamedFile { name, path, size_bytes } in files {
        if name.revision > 0 {
            return refused(rewritten);
        }
        let known = batches.entry(name.from).or_default();
        if let Some(other) = known.files.insert(name.sequence, Present { path, size_bytes, rows: None }) {
            return refused(format!(
                "two files claim to be file {} of the batch that begins at {}; move one of them away: {}",
                name.sequence, name.from, other.path
            ));
        }
    }
    let mut begins = chain.begins(Part::Completions).await?;
    let mut oldest = None;
    loop {
        let page = chain.cuts_begin_before(oldest).await?;
        let Some(last) = page.last() else { break };
        oldest = Some(*last);
        begins.extend(page);
    }
    let mut documents = stream::iter(begins)
        .map(async |from| (from, chain.cut_from(from).await, chain.completion(from).await))
        .buffered(AT_ONCE);
    while let Some((from, cut, completion)) = documents.next().await {
        let known = batches.entry(from).or_default();
        (known.cut, known.completion) = (cut?, completion?);
    }
    drop(documents);
    for (from, known) in &mut batches {
        if !known.is_whole() {
            footers(store, *from, known).await?;
        }
    }
    Ok(Everything { batches, key_runs: chain.begins(Part::KeyRuns).await? })
}

async fn footers(store: &dyn Store, from: i64, known: &mut Known) -> Result<(), Stop> {
    let mut reads = stream::iter(&mut known.files)
        .map(async |(sequence, file)| {
            let footer = Footer::read(store, &file.path, file.size_bytes).await;
            (*sequence, file, footer)
        })
        .buffered(AT_ONCE);
    let mut agreed: Option<Footing> = None;
    let mut encodings = Vec::new();
    while let Some((sequence, file, footer)) = reads.next().await {
        let footer = match footer {
            Ok(footer) => footer,
            Err(FooterError::Store(error)) => return Err(error.into()),
            Err(FooterError::Gone) => return refused(format!("'{}' went away while it was looked at", file.path)),
            Err(FooterError::Unreadable(error)) => {
                return refused(format!(
                    "the footer of '{}' cannot be read ({error}); move the file away: what the log holds of it is made again",
                    file.path
                ));
            }
        };
        let Some(said) = said(&footer, &file.path, from, sequence) else {
            return refused(format!(
                "the footer of '{}' does not say what its name does; move the file away",
                file.path
            ));
        };
        file.rows = Some(footer.rows());
        encodings.push((footer.codec(), file.path.starts_with("events/").then(|| footer.has_filter())));
        match &mut agreed {
            Some(before) if before.stated.is_none() && (before.to, &before.layout) == (said.to, &said.layout) => {
                before.stated = said.stated;
            }
            Some(before) if said.stated.is_none() && (before.to, &before.layout) == (said.to, &said.layout) => {}
            Some(before) if *before != said => {
                return refused(format!(
                    "'{}' does not agree with the other files of its batch; move it away",
                    file.path
                ));
            }
            Some(_) => {}
            None => agreed = Some(said),
        }
    }
    drop(reads);
    if let Some(agreed) = &mut agreed {
        let is_whole = agreed.stated.is_some_and(|stated| encodings.len() == stated.files as usize);
        agreed.encoding = encoding(&encodings, is_whole);
    }
    known.footer = agreed;
    Ok(())
}

/// The encoding of files with these codecs, and with or without a filter where they may have one; `is_whole`: their
/// batch has no others. `None` if it is not the same, or cannot be seen.
fn encoding(files: &[(Option<Compression>, Option<bool>)], is_whole: bool) -> Option<Encoding> {
    let compression = files.first()?.0?;
    let mut filters = files.iter().filter_map(|(_, filter)| *filter);
    // Where no file may have a filter, it makes no difference.
    let bloom_filter = filters.next().or(is_whole.then_some(false))?;
    let is_same = files.iter().all(|(codec, _)| *codec == Some(compression)) && filters.all(|is| is == bloom_filter);
    is_same.then_some(Encoding { compression, bloom_filter })
}

/// `None` if it is the footer of another place, or of none.
fn said(footer: &Footer, path: &str, from: i64, sequence: u32) -> Option<Footing> {
    let fact = |key: &str| footer.fact(&format!("event_distributor.{key}"));
    let name = FileName::parse(path)?;
    let is_here = fact("topic")? == name.topic
        && fact("partition")?.parse() == Ok(name.partition)
        && fact("from")?.parse() == Ok(from)
        && fact("sequence")?.parse() == Ok(sequence);
    let stated = match footer.fact(STATED) {
        Some(text) => Some(serde_json::from_str(text).ok()?),
        None => None,
    };
    let footing = Footing {
        to: fact("to")?.parse().ok()?,
        layout: serde_json::from_str(fact("layout")?).ok()?,
        stated,
        encoding: None,
    };
    (is_here && footing.to > from).then_some(footing)
}
