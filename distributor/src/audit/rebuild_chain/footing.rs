//! What the footers of a batch's files say of it, if they agree.

use std::collections::BTreeMap;

use common::config::Compression;
use common::store::Store;
use futures_util::{StreamExt, stream};

use super::super::AT_ONCE;
use super::super::present::FileName;
use super::known::{Present, damaged};
use super::{Stop, refused};
use crate::batch::{Encoding, STANDS_IN, STATED, Stated, UNFIT};
use crate::footer::{Footer, FooterError};
use crate::layout::Layout;

/// What the footers of a batch agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Footing {
    pub to: i64,
    pub layout: Layout,
    /// `None` in files of version 0.1.0.
    pub stated: Option<Stated>,
    /// Values that did not fit their column, in all of them.
    pub unfit: u64,
    /// `None` if they do not agree on it, or if it cannot be seen.
    pub encoding: Option<Encoding>,
}

/// Reads the footers of the files of a batch, or of a revision of it, and how many rows each has.
pub(super) async fn footing(
    store: &dyn Store,
    from: i64,
    revision: u32,
    files: &mut BTreeMap<u32, Present>,
) -> Result<Option<Footing>, Stop> {
    let mut reads = stream::iter(files)
        .map(async |(sequence, file)| {
            let footer = Footer::read(store, &file.path, file.size_bytes).await;
            (*sequence, file, footer)
        })
        .buffered(AT_ONCE);
    let mut agreed: Option<Footing> = None;
    let (mut encodings, mut unfit) = (Vec::new(), 0);
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
        let Some(mut said) = said(&footer, &file.path, from, revision, sequence) else {
            return refused(format!(
                "the footer of '{}' does not say what its name does; move the file away",
                file.path
            ));
        };
        if footer.fact(STANDS_IN).is_some() {
            return refused(damaged(from));
        }
        file.rows = Some(footer.rows());
        unfit += std::mem::take(&mut said.unfit);
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
    if let Some(agreed) = &mut agreed {
        let is_whole = agreed.stated.is_some_and(|stated| encodings.len() == stated.files as usize);
        (agreed.encoding, agreed.unfit) = (encoding(&encodings, is_whole), unfit);
    }
    Ok(agreed)
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
fn said(footer: &Footer, path: &str, from: i64, revision: u32, sequence: u32) -> Option<Footing> {
    let fact = |key: &str| footer.fact(&format!("event_distributor.{key}"));
    let name = FileName::parse(path)?;
    let stated_revision: u32 = fact("revision").map_or(Some(0), |text| text.parse().ok())?;
    let is_here = fact("topic")? == name.topic
        && fact("partition")?.parse() == Ok(name.partition)
        && fact("from")?.parse() == Ok(from)
        && stated_revision == revision
        && fact("sequence")?.parse() == Ok(sequence);
    let stated = match footer.fact(STATED) {
        Some(text) => Some(serde_json::from_str(text).ok()?),
        None => None,
    };
    let unfit = footer.fact(UNFIT).map_or(Some(0), |text| text.parse().ok())?;
    let (to, layout) = (fact("to")?.parse().ok()?, serde_json::from_str(fact("layout")?).ok()?);
    (is_here && to > from).then_some(Footing { to, layout, stated, unfit, encoding: None })
}
