//! Batches that were made again under other settings: their revisions, and the rewrite that makes them.
//!
//! Below `_batches/<topic>/<partition>/`: `revisions/<n>-<r>.json` (n as for cuts, r = 1, 2, … with six digits),
//! `revision-keys/<n>-<r>-<rewrite>.run`, and, while a rewrite is not finished, `rewrite.json` and
//! `staged/<rewrite>/<path of a file>`. The protocol stands in [`crate::rewrite`].

use std::collections::BTreeMap;

use bytes::Bytes;
use common::store::{
    DeleteOutcome, ListOptions, Metadata, ObjectMeta, PutCondition, PutOutcome, StoreError, StoreErrorKind, Version,
    read_all,
};
use serde::{Deserialize, Serialize};

use super::json;
use super::storage::{FOREIGN, KEY_RUN_LIMIT_BYTES, inverted};
use super::{ChainError, ChainStore, Completion, Cut, PutDocument};
use crate::batch::Encoding;
use crate::layout::Layout;
use crate::window::most_bytes;

/// Says that a batch was made again, under which layout, and which files that replaces. Written once, when every file
/// it lists is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Revision {
    pub version: u32,
    pub revision: u32,
    /// The rewrite that made it; 0 if the document was lost and made again, which no rewrite is called.
    pub rewrite: i64,
    pub layout: Layout,
    /// As it was made: made again in the same way, a file has the bytes that are listed.
    pub encoding: Encoding,
    /// Offset of the oldest batch whose keys mattered.
    pub window_from: i64,
    /// Key of the object that holds the batch's keys.
    pub key_run: String,
    pub completion: Completion,
    /// The files of what stood before: removed before any of the new ones is visible.
    #[serde(deserialize_with = "json::list::<_, _, { json::LISTED }>")]
    pub removals: Vec<String>,
}

/// A rewrite of a partition that is under way, or was interrupted. While it stands, no distributor takes the partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rewrite {
    pub version: u32,
    /// When it was begun, Unix milliseconds; names it.
    pub id: i64,
    /// Begin of the first batch it looks at. It goes on to the chain's end.
    pub from: i64,
    pub layout: Layout,
    pub encoding: Encoding,
    /// Batches that stand as wanted are made again too.
    pub all: bool,
}

/// A complete batch as it stands now.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    /// The cut, with the layout, the encoding and the number of the newest revision.
    pub cut: Cut,
    pub completion: Completion,
    pub key_run: String,
    /// The rewrite that made it, if one did.
    pub rewrite: Option<i64>,
}

impl Standing {
    pub(crate) fn revised(cut: &Cut, revision: Revision) -> Self {
        let Revision { revision, rewrite, layout, encoding, key_run, completion, .. } = revision;
        let cut = Cut { revision, layout, encoding: Some(encoding), folders: None, ..cut.clone() };
        Self { cut, completion, key_run, rewrite: Some(rewrite) }
    }

    /// A batch that was never made again.
    pub(crate) fn as_cut(chain: &ChainStore, cut: &Cut, completion: Completion) -> Self {
        Self { cut: cut.clone(), completion, key_run: chain.key_run_key(cut.from), rewrite: None }
    }
}

/// Number of the newest revision by where the batch begins.
pub(crate) type Revisions = BTreeMap<i64, u32>;

impl ChainStore {
    pub(crate) fn revision_key(&self, from: i64, revision: u32) -> String {
        format!("{}revisions/{}-{revision:06}.json", self.prefix, inverted(from))
    }

    pub(crate) fn revised_key_run_key(&self, from: i64, revision: u32, rewrite: i64) -> String {
        format!("{}revision-keys/{}-{revision:06}-{rewrite}.run", self.prefix, inverted(from))
    }

    pub(crate) fn rewrite_key(&self) -> String {
        format!("{}rewrite.json", self.prefix)
    }

    /// Where the files of a rewrite wait until those they replace are gone. Engines pass over it.
    pub(crate) fn staged_prefix(&self, rewrite: i64) -> String {
        format!("{}staged/{rewrite}/", self.prefix)
    }

    /// The newest revisions of batches that begin at `from` up to and including `to`: one listing request for each
    /// thousand revisions, and one if there are none.
    ///
    /// # Errors
    /// The store's, or an object below `revisions/` that is none.
    pub(crate) async fn revisions(&self, from: i64, to: i64) -> Result<Revisions, ChainError> {
        let prefix = format!("{}revisions/", self.prefix);
        let mut start_after = Some(format!("{prefix}{}", inverted(to)));
        let mut newest = Revisions::new();
        loop {
            let options = ListOptions { prefix: prefix.clone(), start_after, limit: None, delimiter: false };
            let page = self.store.list(&options).await?;
            for object in &page.objects {
                let (begin, revision) = parse(&prefix, &object.key).ok_or_else(|| ChainError::Damaged {
                    key: object.key.clone(),
                    message: format!("this is not a revision's name; {FOREIGN}"),
                })?;
                if begin < from {
                    return Ok(newest);
                }
                let highest = newest.entry(begin).or_insert(revision);
                *highest = revision.max(*highest);
            }
            start_after = page.objects.last().map(|object| object.key.clone());
            if !page.more || start_after.is_none() {
                return Ok(newest);
            }
        }
    }

    /// A revision that was listed; `None` for a batch without one.
    ///
    /// # Errors
    /// The store's, or it cannot be understood or is that of another place.
    pub(crate) async fn revision(&self, from: i64, revision: Option<u32>) -> Result<Option<Revision>, ChainError> {
        let Some(number) = revision else { return Ok(None) };
        let key = self.revision_key(from, number);
        let damaged = |message: &str| ChainError::Damaged { key: key.clone(), message: message.to_owned() };
        let revision: Revision = self.read(&key).await?.ok_or_else(|| damaged("it was listed and is gone"))?;
        if (revision.completion.from, revision.revision) != (from, number) {
            return Err(damaged("it is the revision of another place"));
        }
        Ok(Some(revision))
    }

    pub(crate) async fn put_revision(&self, revision: &Revision) -> Result<PutDocument<Revision>, ChainError> {
        self.put(&self.revision_key(revision.completion.from, revision.revision), revision).await
    }

    /// The batch as it stands; `None` if it is not complete. `newest` is its newest revision, if it has one.
    pub(crate) async fn standing(&self, cut: &Cut, newest: Option<u32>) -> Result<Option<Standing>, ChainError> {
        if let Some(revision) = self.revision(cut.from, newest).await? {
            return Ok(Some(Standing::revised(cut, revision)));
        }
        let completion = self.completion(cut.from).await?;
        Ok(completion.map(|completion| Standing::as_cut(self, cut, completion)))
    }

    /// Key and content of the key run that holds for the batch `from..to`; `newest` as for [`Self::standing`].
    ///
    /// # Errors
    /// The store's, or it has more keys than the batch has offsets: it is none of ours, and is not read.
    pub(crate) async fn standing_key_run(
        &self,
        (from, to): (i64, i64),
        newest: Option<u32>,
    ) -> Result<(String, Option<Bytes>), ChainError> {
        let revision = self.revision(from, newest).await?;
        let key = revision.map_or_else(|| self.key_run_key(from), |revision| revision.key_run);
        let body = self.read_key_run(&key, most_bytes(to.saturating_sub(from).unsigned_abs())).await?;
        Ok((key, body))
    }

    /// A key run, as it was put.
    pub(crate) async fn key_run(&self, key: &str) -> Result<Option<Bytes>, ChainError> {
        self.read_key_run(key, KEY_RUN_LIMIT_BYTES).await
    }

    async fn read_key_run(&self, key: &str, limit_bytes: u64) -> Result<Option<Bytes>, ChainError> {
        match read_all(&*self.store, key, limit_bytes.min(KEY_RUN_LIMIT_BYTES)).await {
            Ok(found) => Ok(found.map(|(_, body)| body)),
            Err(error) if error.kind == StoreErrorKind::TooLarge => {
                let message =
                    format!("{error}: its batch cannot have so many keys; bring the right one back from a backup");
                Err(ChainError::Damaged { key: key.to_owned(), message })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Keys of the objects that hold keys of batches made again, of whichever revision and rewrite, by where the batch
    /// begins. None but the newest revision's need hold for a batch.
    ///
    /// # Errors
    /// The store's, or an object below `revision-keys/` that is none.
    pub(crate) async fn revised_key_runs(&self) -> Result<BTreeMap<i64, Vec<String>>, ChainError> {
        let prefix = format!("{}revision-keys/", self.prefix);
        let mut runs: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        let mut start_after = None;
        loop {
            let options = ListOptions { prefix: prefix.clone(), start_after, limit: None, delimiter: false };
            let page = self.store.list(&options).await?;
            start_after = page.objects.last().map(|object| object.key.clone());
            for ObjectMeta { key, .. } in page.objects {
                let number = key.strip_prefix(&prefix).and_then(|name| name.split_once('-')).map(|(number, _)| number);
                let number = number.filter(|digits| digits.len() == 19).and_then(|digits| digits.parse::<i64>().ok());
                let Some(number) = number else {
                    let message = format!("this is not a key run's name; {FOREIGN}");
                    return Err(ChainError::Damaged { key, message });
                };
                runs.entry(i64::MAX - number).or_default().push(key);
            }
            if !page.more || start_after.is_none() {
                return Ok(runs);
            }
        }
    }

    /// The rewrite that is not finished, if there is one.
    pub(crate) async fn rewrite(&self) -> Result<Option<Rewrite>, ChainError> {
        self.read(&self.rewrite_key()).await
    }

    pub(crate) async fn put_rewrite(&self, rewrite: &Rewrite) -> Result<PutDocument<Rewrite>, ChainError> {
        self.put(&self.rewrite_key(), rewrite).await
    }

    /// Puts `rewrite` in the place of `unfinished`. False when that is not there any more.
    pub(crate) async fn replace_rewrite(&self, unfinished: &Rewrite, rewrite: &Rewrite) -> Result<bool, ChainError> {
        let Some(version) = self.version_of(unfinished).await? else { return Ok(false) };
        let key = self.rewrite_key();
        let body = json::encode(&key, rewrite)?;
        let put = self.store.put(&key, Bytes::from(body), PutCondition::IfVersion(version), &Metadata::new()).await?;
        // Ours, if an answer was lost.
        Ok(matches!(put, PutOutcome::Written(_)) || self.rewrite().await?.as_ref() == Some(rewrite))
    }

    /// Says that a rewrite is finished, unless another one has taken its place.
    pub(crate) async fn end_rewrite(&self, rewrite: &Rewrite) -> Result<(), ChainError> {
        let Some(version) = self.version_of(rewrite).await? else { return Ok(()) };
        match self.store.delete(&self.rewrite_key(), Some(&version)).await? {
            DeleteOutcome::Deleted | DeleteOutcome::VersionMismatch => Ok(()),
        }
    }

    async fn version_of(&self, rewrite: &Rewrite) -> Result<Option<Version>, ChainError> {
        let meta = self.store.head(&self.rewrite_key()).await?;
        // Read after the head: an older version with this content cannot come back.
        let stands = self.rewrite().await?.is_some_and(|standing| standing.id == rewrite.id);
        Ok(meta.filter(|_| stands).map(|meta| meta.version))
    }

    /// Files that wait to be made visible, of whichever rewrite: a page of them.
    pub(crate) async fn staged(&self) -> Result<Vec<ObjectMeta>, StoreError> {
        let prefix = format!("{}staged/", self.prefix);
        let page = self.store.list(&ListOptions { prefix, ..ListOptions::default() }).await?;
        Ok(page.objects)
    }
}

fn parse(prefix: &str, key: &str) -> Option<(i64, u32)> {
    let (number, revision) = key.strip_prefix(prefix)?.strip_suffix(".json")?.split_once('-')?;
    let number: i64 = Some(number).filter(|digits| digits.len() == 19)?.parse().ok()?;
    Some((i64::MAX - number, Some(revision).filter(|digits| digits.len() == 6)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use common::store::LocalStore;

    use super::*;
    use crate::batch::Counts;
    use crate::batch::testing::{ENCODING, cut, layout};

    fn revision(from: i64, revision: u32) -> Revision {
        let completion = Completion {
            version: 1,
            from,
            to: from + 10,
            files: Vec::new(),
            counts: Counts::default(),
            damage: None,
            first_append_ms: 0,
            last_append_ms: 0,
        };
        let key_run = format!("run-{revision}");
        Revision {
            version: 1,
            revision,
            rewrite: 5,
            layout: layout(),
            encoding: ENCODING,
            window_from: 0,
            key_run,
            completion,
            removals: vec![],
        }
    }

    #[tokio::test]
    async fn the_newest_revision_of_each_batch_is_found_and_stands_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let chain = ChainStore::new(Arc::new(LocalStore::new(directory.path().to_owned())), "events", 3);
        assert!(chain.revisions(0, i64::MAX).await.unwrap().is_empty());
        for (from, number) in [(10, 1), (20, 1), (20, 2), (30, 1), (20, 12)] {
            chain.put_revision(&revision(from, number)).await.unwrap();
        }
        assert_eq!(chain.revisions(0, i64::MAX).await.unwrap(), Revisions::from([(10, 1), (20, 12), (30, 1)]));
        assert_eq!(chain.revisions(11, 30).await.unwrap(), Revisions::from([(20, 12), (30, 1)]));
        assert_eq!(chain.revisions(20, 20).await.unwrap(), Revisions::from([(20, 12)]));
        let standing = chain.standing(&cut(20, 30), Some(12)).await.unwrap().unwrap();
        assert_eq!((standing.cut.revision, standing.key_run.as_str()), (12, "run-12"));
        assert!(chain.standing(&cut(40, 50), None).await.unwrap().is_none(), "neither complete nor revised");
        assert!(chain.standing(&cut(40, 50), Some(1)).await.is_err(), "listed, and gone");
    }

    #[tokio::test]
    async fn a_rewrite_is_replaced_and_ended_only_by_who_knows_it() {
        let directory = tempfile::tempdir().unwrap();
        let chain = ChainStore::new(Arc::new(LocalStore::new(directory.path().to_owned())), "events", 3);
        let rewrite = |id| Rewrite { version: 1, id, from: 0, layout: layout(), encoding: ENCODING, all: false };
        assert_eq!(chain.put_rewrite(&rewrite(1)).await.unwrap(), PutDocument::Ours);
        assert_eq!(chain.put_rewrite(&rewrite(2)).await.unwrap(), PutDocument::Theirs(rewrite(1)));
        assert!(!chain.replace_rewrite(&rewrite(7), &rewrite(8)).await.unwrap());
        assert!(chain.replace_rewrite(&rewrite(1), &rewrite(2)).await.unwrap());
        chain.end_rewrite(&rewrite(1)).await.unwrap();
        assert_eq!(chain.rewrite().await.unwrap(), Some(rewrite(2)), "another one's end is not its end");
        chain.end_rewrite(&rewrite(2)).await.unwrap();
        assert_eq!(chain.rewrite().await.unwrap(), None);
    }
}
