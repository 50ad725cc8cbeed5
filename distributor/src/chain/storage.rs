//! Where the chain's objects are and how they are read and put.
//!
//! Below `_batches/<topic>/<partition>/`:
//! `origin.json`, `cuts/<n>.json`, `keys/<n>.run`, `done/<n>.json`, and of old batches `summaries/<n>.json`, where n = 2⁶³-1 - `from`, zero-padded: listings go
//! upwards only, so the last cut, and the cut that holds an offset, are one listing request each.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use common::config::MAX_ROWS_PER_BATCH;
use common::store::{ListOptions, Metadata, PutCondition, PutOutcome, Store, StoreError, StoreErrorKind, read_all};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::summary::Summary;
use super::{Completion, Cut, Origin, json};
use crate::window::KEY_RUN_ENTRY_BYTES;

const CUTS_PER_PAGE: usize = 64;
pub(super) const READS_AT_ONCE: usize = 16;
/// Of a key run, written or read: more than that of the most records that a batch may be allowed.
pub(super) const KEY_RUN_LIMIT_BYTES: u64 = 2_100_000_000;
const _: () = assert!(
    MAX_ROWS_PER_BATCH * KEY_RUN_ENTRY_BYTES as u64 <= KEY_RUN_LIMIT_BYTES / 21 * 20,
    "keys could not be read again"
);

#[derive(Debug)]
pub(crate) enum ChainError {
    Store(StoreError),
    /// An object of the chain cannot be understood.
    Damaged {
        key: String,
        message: String,
    },
    /// It is not put, for it could not be read again.
    Unwritable {
        key: String,
        message: String,
    },
}

impl fmt::Display for ChainError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(formatter),
            Self::Damaged { key, message } => write!(formatter, "'{key}' cannot be understood: {message}"),
            Self::Unwritable { key, message } => {
                write!(
                    formatter,
                    "'{key}' is not written, for it could not be read again: {message}. Fewer files in a batch make it smaller: lower \
                     flush.max_files, or give a rewrite settings that make fewer"
                )
            }
        }
    }
}

impl From<StoreError> for ChainError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Outcome of putting a write-once document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PutDocument<T> {
    /// It is there, put by us now or (with equal content) before.
    Ours,
    /// Another one stands there.
    Theirs(T),
}

/// The chain of one partition.
#[derive(Clone)]
pub(crate) struct ChainStore {
    pub(super) store: Arc<dyn Store>,
    pub(super) prefix: String,
    /// The summary that was read last, for the look-ups that follow one another.
    summary: Arc<Mutex<Option<Arc<Summary>>>>,
}

/// What to do about an object that is in a folder of the chain and not of it.
pub(super) const FOREIGN: &str = "no distributor put it there and none needs it: move it out of '_batches', and what \
                                  stopped goes on at its next start";

fn without_folders(cut: Cut) -> Cut {
    Cut { folders: None, ..cut }
}

pub(super) fn inverted(from: i64) -> String {
    format!("{:019}", i64::MAX - from)
}

/// Where the batch begins that an object of the chain is named after.
pub(super) fn begin_of(key: &str, prefix: &str, suffix: &str) -> Result<i64, ChainError> {
    let number = key.strip_prefix(prefix).and_then(|name| name.strip_suffix(suffix));
    let number = number.filter(|digits| digits.len() == 19).and_then(|digits| digits.parse::<i64>().ok());
    number.map(|inverted| i64::MAX - inverted).ok_or_else(|| ChainError::Damaged {
        key: key.to_owned(),
        message: format!("this is not the name of an object of the chain; {FOREIGN}"),
    })
}

impl ChainStore {
    pub(crate) fn new(store: Arc<dyn Store>, topic: &str, partition: i32) -> Self {
        Self { store, prefix: format!("_batches/{topic}/{partition}/"), summary: Arc::default() }
    }

    /// Topic and partition, as they stand in the names.
    pub(super) fn place(&self) -> (&str, &str) {
        let mut segments = self.prefix.split('/').skip(1);
        (segments.next().unwrap_or_default(), segments.next().unwrap_or_default())
    }

    pub(super) fn known_summary(&self) -> Option<Arc<Summary>> {
        self.summary.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn remember(&self, summary: Arc<Summary>) {
        *self.summary.lock().unwrap_or_else(PoisonError::into_inner) = Some(summary);
    }

    /// Frees the memory of the summary that was read last.
    pub(crate) fn forget_summary(&self) {
        *self.summary.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn origin_key(&self) -> String {
        format!("{}origin.json", self.prefix)
    }

    pub(crate) fn cut_key(&self, from: i64) -> String {
        format!("{}cuts/{}.json", self.prefix, inverted(from))
    }

    pub(crate) fn completion_key(&self, from: i64) -> String {
        format!("{}done/{}.json", self.prefix, inverted(from))
    }

    pub(crate) fn key_run_key(&self, from: i64) -> String {
        format!("{}keys/{}.run", self.prefix, inverted(from))
    }

    pub(super) async fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, ChainError> {
        match read_all(&*self.store, key, json::LIMIT_BYTES).await {
            Ok(Some((_, body))) => json::decode(key, &body).map(Some),
            Ok(None) => Ok(None),
            Err(error) if error.kind == StoreErrorKind::TooLarge => {
                let message = format!("{error}; it is none of ours: bring the right one back from a backup");
                Err(ChainError::Damaged { key: key.to_owned(), message })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a document could be put: before what it lists is.
    ///
    /// # Errors
    /// It is too large to be read again.
    pub(crate) fn check<T: Serialize + DeserializeOwned>(&self, key: &str, document: &T) -> Result<(), ChainError> {
        json::encode(key, document).map(drop)
    }

    pub(super) async fn put<T: Serialize + DeserializeOwned + PartialEq>(
        &self,
        key: &str,
        document: &T,
    ) -> Result<PutDocument<T>, ChainError> {
        let body = json::encode(key, document)?;
        match self.store.put(key, Bytes::from(body), PutCondition::IfAbsent, &Metadata::new()).await? {
            PutOutcome::Written(_) => Ok(PutDocument::Ours),
            PutOutcome::AlreadyExists | PutOutcome::VersionMismatch => match self.read(key).await? {
                Some(theirs) if theirs == *document => Ok(PutDocument::Ours),
                Some(theirs) => Ok(PutDocument::Theirs(theirs)),
                None => {
                    Err(ChainError::Damaged { key: key.to_owned(), message: "it was there and is gone".to_owned() })
                }
            },
        }
    }

    pub(crate) async fn origin(&self) -> Result<Option<Origin>, ChainError> {
        self.read(&self.origin_key()).await
    }

    pub(crate) async fn put_origin(&self, origin: &Origin) -> Result<PutDocument<Origin>, ChainError> {
        self.put(&self.origin_key(), origin).await
    }

    pub(crate) async fn put_cut(&self, cut: &Cut) -> Result<PutDocument<Cut>, ChainError> {
        let put = self.put(&self.cut_key(cut.from), cut).await?;
        if put != PutDocument::Ours {
            return Ok(put);
        }
        // A worker that slept since before the batch was compacted: the key was free again. Looked at after the put, so
        // that no compaction can come in between, and before any file.
        let summary = self.summary_at_or_before(cut.from).await?.filter(|summary| summary.holds(cut.from));
        let Some(theirs) = summary.and_then(|summary| summary.at_or_before(cut.from).cloned()) else { return Ok(put) };
        self.store.delete(&self.cut_key(cut.from), None).await?;
        Ok(PutDocument::Theirs(theirs))
    }

    pub(crate) async fn completion(&self, from: i64) -> Result<Option<Completion>, ChainError> {
        if let Some(summary) = self.known_summary().filter(|summary| summary.holds(from)) {
            return Ok(summary.beginning(from).and_then(|held| held.completion.clone()));
        }
        match self.read(&self.completion_key(from)).await? {
            Some(completion) => Ok(Some(completion)),
            None => Ok(self.summarised(from).await?.and_then(|held| held.completion)),
        }
    }

    pub(crate) async fn put_completion(&self, completion: &Completion) -> Result<PutDocument<Completion>, ChainError> {
        self.put(&self.completion_key(completion.from), completion).await
    }

    /// The newest cut, which no summary holds.
    pub(crate) async fn last_cut(&self) -> Result<Option<Cut>, ChainError> {
        if let Some(from) = self.first_single(None).await? {
            return self.cut_from(from).await;
        }
        match self.summary_at_or_before(i64::MAX - 1).await? {
            None => Ok(None),
            Some(summary) => Err(ChainError::Damaged {
                key: self.cut_key(summary.to),
                message: "all cuts after the last summary are missing; bring them back from a backup, or make them again with \
                          'verify --rebuild-chain'"
                    .to_owned(),
            }),
        }
    }

    /// The begin of the newest cut that stands by itself and begins at or before `offset`.
    async fn first_single(&self, offset: Option<i64>) -> Result<Option<i64>, ChainError> {
        let prefix = format!("{}cuts/", self.prefix);
        // Everything strictly after the key that `offset + 1` would have.
        let start_after = offset.map(|offset| self.cut_key(offset.saturating_add(1)));
        let options = ListOptions { prefix: prefix.clone(), start_after, limit: Some(1), delimiter: false };
        let page = self.store.list(&options).await?;
        page.objects.first().map(|object| begin_of(&object.key, &prefix, ".json")).transpose()
    }

    /// The cut with the highest `from` that is at most `offset`.
    pub(crate) async fn cut_at_or_before(&self, offset: i64) -> Result<Option<Cut>, ChainError> {
        let single = match self.first_single(Some(offset)).await? {
            Some(from) => self.cut_from(from).await?,
            None => None,
        };
        // One that holds the offset is the answer. Otherwise a newer one may be in a summary, and the single ones after it
        // not deleted yet; or the chain ends before the offset.
        if single.as_ref().is_some_and(|cut| cut.to > offset) {
            return Ok(single);
        }
        let summary = self.summary_at_or_before(offset).await?;
        let held = summary.and_then(|summary| summary.at_or_before(offset).cloned());
        Ok(single.into_iter().chain(held).max_by_key(|cut| cut.from))
    }

    /// A page of cuts before the one that begins at `from`, newest first. Without the folders of their files, which take
    /// memory and which nobody asks for here.
    pub(crate) async fn cuts_before(&self, from: i64) -> Result<Vec<Cut>, ChainError> {
        let prefix = format!("{}cuts/", self.prefix);
        let start_after = Some(self.cut_key(from));
        let options = ListOptions { prefix: prefix.clone(), start_after, limit: Some(CUTS_PER_PAGE), delimiter: false };
        let page = self.store.list(&options).await?;
        let keys = page.objects.iter().map(|object| begin_of(&object.key, &prefix, ".json"));
        let begins = keys.collect::<Result<Vec<_>, _>>()?;
        let reads = stream::iter(begins).map(async |begin| {
            let cut = self.cut_from(begin).await?;
            let gone =
                || ChainError::Damaged { key: self.cut_key(begin), message: "it was listed and is gone".to_owned() };
            cut.map(without_folders).ok_or_else(gone)
        });
        let mut cuts: Vec<Cut> = reads.buffered(READS_AT_ONCE).try_collect().await?;
        let mut at = from;
        let joined = cuts.iter().take_while(|cut| cut.to == std::mem::replace(&mut at, cut.from)).count();
        if joined == CUTS_PER_PAGE {
            return Ok(cuts);
        }
        // Where the single ones end or have a hole, a summary goes on.
        let at = joined.checked_sub(1).and_then(|last| cuts.get(last)).map_or(from, |cut| cut.from);
        if let Some(summary) = self.summary_at_or_before(at.saturating_sub(1)).await?.filter(|summary| summary.to >= at)
        {
            cuts.truncate(joined);
            cuts.extend(summary.before(at).cloned().map(without_folders));
        }
        Ok(cuts)
    }

    /// Where cuts begin that begin before `from` (`None`: all), newest first: a page of them, empty at the end.
    ///
    /// # Errors
    /// The store's, or an object below `cuts/` that is none.
    pub(crate) async fn cuts_begin_before(&self, from: Option<i64>) -> Result<Vec<i64>, ChainError> {
        let prefix = format!("{}cuts/", self.prefix);
        let start_after = from.map(|from| self.cut_key(from));
        let options = ListOptions { prefix: prefix.clone(), start_after, limit: None, delimiter: false };
        let page = self.store.list(&options).await?;
        let begins = page.objects.iter().map(|object| begin_of(&object.key, &prefix, ".json"));
        let mut begins = begins.collect::<Result<Vec<i64>, _>>()?;
        // Only now: what a compaction deleted before the listing is in a summary that this sees.
        let Some(newest) = self.summary_at_or_before(i64::MAX - 1).await? else { return Ok(begins) };
        begins.retain(|begin| *begin >= newest.to);
        if !begins.is_empty() {
            return Ok(begins);
        }
        let holder = match from {
            Some(from) if from <= newest.from => self.summary_at_or_before(from.saturating_sub(1)).await?,
            _ => Some(newest),
        };
        let before = from.unwrap_or(i64::MAX);
        Ok(holder.map_or_else(Vec::new, |summary| summary.before(before).map(|cut| cut.from).collect()))
    }

    /// Whether a key run is there.
    pub(crate) async fn has_key_run(&self, key: &str) -> Result<bool, ChainError> {
        Ok(self.store.head(key).await?.is_some())
    }

    /// The cut that begins at `from`.
    pub(crate) async fn cut_from(&self, from: i64) -> Result<Option<Cut>, ChainError> {
        if let Some(summary) = self.known_summary().filter(|summary| summary.holds(from)) {
            return Ok(summary.beginning(from).map(|held| held.cut.clone()));
        }
        match self.single(from).await? {
            Some(cut) => Ok(Some(cut)),
            None => Ok(self.summarised(from).await?.map(|held| held.cut)),
        }
    }

    /// The cut that begins at `from` and stands by itself.
    pub(super) async fn single(&self, from: i64) -> Result<Option<Cut>, ChainError> {
        self.read(&self.cut_key(from)).await
    }

    /// Whether a batch is not complete though there is a cut after it, which no worker leaves behind.
    pub(crate) async fn is_open_in_between(&self, cut: &Cut) -> Result<bool, ChainError> {
        // In this order: the completion is put before the next cut.
        let has_next = self.cut_from(cut.to).await?.is_some();
        Ok(has_next && self.completion(cut.from).await?.is_none())
    }

    /// The cut after this one; `None` where the chain ends.
    ///
    /// # Errors
    /// The store's, or later ones are there and this one is not: going on in the middle would write what follows again.
    pub(crate) async fn next_cut(&self, cut: &Cut) -> Result<Option<Cut>, ChainError> {
        if let Some(next) = self.cut_from(cut.to).await? {
            return Ok(Some(next));
        }
        if self.last_cut().await?.is_none_or(|last| last.from <= cut.from) {
            return Ok(None);
        }
        // Put since the first look, unless it was lost.
        let next = self.cut_from(cut.to).await?;
        next.map(Some).ok_or_else(|| ChainError::Damaged {
            key: self.cut_key(cut.to),
            message: "it is missing, though later ones are there; bring it back from a backup, or make it again with 'verify --rebuild-chain'".to_owned(),
        })
    }

    /// Puts a key run if it is not there; equal by construction for the same batch, so an existing one stays.
    pub(crate) async fn put_key_run(&self, key: &str, run: Vec<u8>) -> Result<(), ChainError> {
        if run.len() as u64 > KEY_RUN_LIMIT_BYTES {
            let message = format!("it has {} bytes, more than {KEY_RUN_LIMIT_BYTES}; lower flush.max_rows", run.len());
            return Err(ChainError::Unwritable { key: key.to_owned(), message });
        }
        self.store.put(key, Bytes::from(run), PutCondition::IfAbsent, &Metadata::new()).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use common::store::LocalStore;

    use super::*;
    use crate::batch::testing::cut;

    #[tokio::test]
    async fn cuts_are_found_by_the_offset_they_hold() -> Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let chain = ChainStore::new(Arc::new(LocalStore::new(directory.path().to_owned())), "events", 3);
        let failed = |error: ChainError| error.to_string();
        assert_eq!(chain.last_cut().await.map_err(failed)?, None);
        for (from, to) in [(0, 7), (7, 10), (10, 100_000)] {
            assert_eq!(chain.put_cut(&cut(from, to)).await.map_err(failed)?, PutDocument::Ours);
        }
        for (offset, from) in [(0, 0), (6, 0), (7, 7), (9, 7), (10, 10), (99_999, 10), (500_000, 10)] {
            let found = chain.cut_at_or_before(offset).await.map_err(failed)?;
            assert_eq!(found.map(|cut| cut.from), Some(from), "offset {offset}");
        }
        assert_eq!(chain.last_cut().await.map_err(failed)?.map(|cut| cut.from), Some(10));
        assert_eq!(chain.put_cut(&cut(7, 10)).await.map_err(failed)?, PutDocument::Ours, "our own, put again");
        assert_eq!(
            chain.put_cut(&cut(7, 9)).await.map_err(failed)?,
            PutDocument::Theirs(cut(7, 10)),
            "the first one stays"
        );
        Ok(())
    }

    #[tokio::test]
    async fn a_foreign_object_in_the_chain_is_named_with_what_to_do() {
        for (folder, name) in [("cuts", "notes.txt"), ("revisions", "notes.txt")] {
            let directory = tempfile::tempdir().unwrap();
            let store: Arc<dyn Store> = Arc::new(LocalStore::new(directory.path().to_owned()));
            let key = format!("_batches/events/3/{folder}/{name}");
            store.put(&key, Bytes::from_static(b"x"), PutCondition::None, &Metadata::new()).await.unwrap();
            let chain = ChainStore::new(store, "events", 3);
            let error = match folder {
                "cuts" => chain.last_cut().await.err(),
                _ => chain.revisions(0, 10).await.err(),
            };
            let message = error.map(|error| error.to_string()).unwrap_or_default();
            assert!(message.contains(&key) && message.contains("move it out of '_batches'"), "{message}");
        }
    }
}
