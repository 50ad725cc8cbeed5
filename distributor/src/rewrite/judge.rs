//! What is to become of a batch, and of an unfinished rewrite that is found.

use std::collections::BTreeSet;

use common::store::Store;
use futures_util::{FutureExt, StreamExt, stream};

use super::Rewriter;
use crate::batch::Encoding;
use crate::chain::{ChainStore, Rewrite, Standing};
use crate::footer::{Footer, FooterError};
use crate::replay::ReplayError;
use crate::rewriting::{differences, encoding_words};

/// Footers read at the same time.
const AT_ONCE: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is as it is wanted, or this rewrite has made it.
    Stands,
    Again,
    /// It should be made again, but the log has let go of its records.
    NotInLog,
}

/// Goes along the batches of a partition, upwards.
pub(super) struct Judge<'a> {
    rewriter: &'a Rewriter,
    rewrite: &'a Rewrite,
    log_begins_at: i64,
    /// An earlier batch has got other keys: all later ones are made again.
    keys_changed: bool,
    /// How batches differ from what is wanted.
    pub differences: BTreeSet<String>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(rewriter: &'a Rewriter, rewrite: &'a Rewrite, log_begins_at: i64) -> Self {
        Self { rewriter, rewrite, log_begins_at, keys_changed: false, differences: BTreeSet::new() }
    }

    /// # Errors
    /// The store's.
    pub(super) async fn judge(&mut self, chain: &ChainStore, standing: &Standing) -> Result<Fate, ReplayError> {
        let (wanted, cut) = (&self.rewrite.layout, &standing.cut);
        if standing.rewrite == Some(self.rewrite.id) {
            let own_run = chain.revised_key_run_key(cut.from, cut.revision, self.rewrite.id);
            self.keys_changed |= standing.key_run == own_run;
            return Ok(Fate::Stands);
        }
        let must = self.rewrite.all || self.keys_changed || cut.layout != *wanted;
        self.differences.extend(differences(&cut.layout, wanted));
        let encoding = self.rewrite.encoding;
        let difference = format!("files are to have {}", encoding_words(encoding));
        let is_encoded = (must && self.differences.contains(&difference))
            || is_encoded(&*self.rewriter.replayer.store, standing, encoding).await?;
        if !is_encoded {
            self.differences.insert(difference);
        } else if !must {
            return Ok(Fate::Stands);
        }
        if self.log_begins_at > cut.from || standing.completion.damage.is_some() {
            return Ok(Fate::NotInLog);
        }
        self.keys_changed |= !wanted.reads_like(&cut.layout);
        Ok(Fate::Again)
    }
}

/// Whether those files of a batch that are there are encoded so.
async fn is_encoded(store: &dyn Store, standing: &Standing, encoding: Encoding) -> Result<bool, ReplayError> {
    let files = &standing.completion.files;
    let footers: Vec<_> = files
        .iter()
        .map(|file| async move { (file, Footer::read(store, &file.path, file.bytes).await) }.boxed())
        .collect();
    let mut footers = stream::iter(footers).buffered(AT_ONCE);
    while let Some((file, footer)) = footers.next().await {
        match footer {
            Ok(footer) if footer.is_encoded(encoding, file.path.starts_with("events/")) => {}
            Ok(_) | Err(FooterError::Unreadable(_)) => return Ok(false),
            Err(FooterError::Gone) => {}
            Err(FooterError::Store(error)) => return Err(error.into()),
        }
    }
    Ok(true)
}

/// How a rewrite is begun where another one may be unfinished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Opening {
    Begin(Rewrite),
    GoOn(Rewrite),
    /// The new one takes the place of the first.
    Replace(Box<Rewrite>, Rewrite),
}

impl Opening {
    /// The rewrite that is done then.
    pub(super) fn rewrite(&self) -> &Rewrite {
        match self {
            Self::Begin(rewrite) | Self::GoOn(rewrite) | Self::Replace(_, rewrite) => rewrite,
        }
    }
}

/// # Errors
/// What was begun would be left unfinished; the message says how to go on.
pub(super) fn open(unfinished: Option<Rewrite>, wanted: Rewrite) -> Result<Opening, String> {
    let Some(unfinished) = unfinished else { return Ok(Opening::Begin(wanted)) };
    let is_same = (&unfinished.layout, unfinished.encoding) == (&wanted.layout, wanted.encoding);
    if is_same && unfinished.from <= wanted.from && (unfinished.all || !wanted.all) {
        return Ok(Opening::GoOn(unfinished));
    }
    if !is_same && wanted.from > unfinished.from {
        return Err(format!(
            "a rewrite from offset {} on was begun with other settings and not finished. Finish it with those, or begin no later \
             (--to {})",
            unfinished.from, unfinished.from
        ));
    }
    // Batches that it has made again may have other keys, against which those after them are not deduplicated yet.
    let rewrite = Rewrite { all: true, from: wanted.from.min(unfinished.from), ..wanted };
    Ok(Opening::Replace(Box::new(unfinished), rewrite))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::testing::{ENCODING, layout};

    fn rewrite(id: i64, from: i64) -> Rewrite {
        Rewrite { version: 1, id, from, layout: layout(), encoding: ENCODING, all: false }
    }

    #[test]
    fn an_unfinished_rewrite_is_gone_on_with_or_covered_by_what_takes_its_place() {
        let unfinished = || Some(rewrite(1, 20));
        assert_eq!(open(None, rewrite(2, 30)), Ok(Opening::Begin(rewrite(2, 30))));
        assert_eq!(open(unfinished(), rewrite(2, 30)), Ok(Opening::GoOn(rewrite(1, 20))), "from where it began");
        let wider = Rewrite { all: true, ..rewrite(2, 0) };
        assert_eq!(open(unfinished(), rewrite(2, 0)), Ok(Opening::Replace(Box::new(rewrite(1, 20)), wider)));
        let forced = Rewrite { all: true, ..rewrite(2, 30) };
        let from_there = Rewrite { all: true, ..rewrite(2, 20) };
        assert_eq!(open(unfinished(), forced), Ok(Opening::Replace(Box::new(rewrite(1, 20)), from_there)));
        let other = |from| Rewrite { encoding: Encoding { bloom_filter: true, ..ENCODING }, ..rewrite(2, from) };
        assert!(open(unfinished(), other(30)).is_err_and(|message| message.contains("--to 20")));
        let covering = Rewrite { all: true, ..other(20) };
        assert_eq!(open(unfinished(), other(20)), Ok(Opening::Replace(Box::new(rewrite(1, 20)), covering)));
    }
}
