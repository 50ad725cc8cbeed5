//! The Parquet files that stand in the store, to hold against what the chain lists.
//!
//! They are listed before the chain is read: a cut is put before any file of it, so that no file listed can be ahead of
//! the chain, whoever works meanwhile. Kept are fingerprints of the keys, some 32 bytes a file; the few that nothing
//! accounts for are listed again for their names.

use std::collections::{BTreeMap, HashMap};

use common::store::{
    ListOptions, ObjectMeta, PassedOver, PassedOverKind, Store, StoreError, SurveyOptions, SurveyPage,
};
use xxhash_rust::xxh3::xxh3_128;

use super::{Finding, FindingKind};

/// The folders of the two tables.
pub(super) const TABLES: [&str; 2] = ["events/", "rejected/"];

struct Seen {
    size_bytes: u64,
    accounted_for: bool,
}

#[derive(Default)]
pub(super) struct Present {
    files: HashMap<u128, Seen>,
    /// Folders, whose names end in `/`, and files that could not be listed.
    unlisted: BTreeMap<String, Unlisted>,
    /// Entries that engines read and that are not objects of the store.
    odd: Vec<PassedOver>,
}

/// A branch of the tables that could not be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unlisted {
    error: String,
    /// Files of complete batches that are in it.
    files: u64,
}

/// The parts of a data file's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileName {
    pub topic: String,
    pub partition: i32,
    pub from: i64,
    /// 0 as the batch was cut.
    pub revision: u32,
    /// Of a damaged batch: the round of salvage, 0 as the batch was cut.
    pub salvage: u32,
    pub sequence: u32,
}

impl FileName {
    /// `None` for a name that no distributor gives.
    pub(super) fn parse(key: &str) -> Option<Self> {
        let stem = key.rsplit('/').next()?.strip_suffix(".parquet")?;
        let (stem, sequence) = stem.rsplit_once('-')?;
        let sequence: u32 = sequence.parse().ok()?;
        // `-r<revision>` stands before the sequence in files of a batch that was made again, `-s<round>` in those of one
        // that was salvaged.
        let numbered = |stem: &'_ str, letter: &str| {
            let (stem, number) = stem.rsplit_once(letter)?;
            Some((stem.len(), number.parse::<u32>().ok()?))
        };
        let (end, revision) = numbered(stem, "-r").unwrap_or((stem.len(), 0));
        let (end, salvage) = numbered(stem, "-s").unwrap_or((end, 0));
        let stem = stem.get(..end)?;
        let mut parts = stem.rsplitn(3, '-');
        let from = parts.next()?.parse().ok()?;
        let partition = parts.next()?.parse().ok()?;
        let topic = parts.next()?.to_owned();
        Some(Self { topic, partition, from, revision, salvage, sequence })
    }
}

/// Everything an engine would read: names that begin with `.` or `_` are passed over.
fn is_data(key: &str) -> bool {
    !key.split('/').any(|segment| segment.starts_with(['.', '_']))
}

impl Present {
    /// # Errors
    /// The store's, or a table's own folder cannot be listed.
    pub(super) async fn list(store: &dyn Store) -> Result<Self, StoreError> {
        let mut present = Self::default();
        for table in TABLES {
            present.odd.extend(instead_of(store, table).await?);
        }
        survey(store, |page| {
            for object in page.objects.into_iter().filter(|object| is_data(&object.key)) {
                let seen = Seen { size_bytes: object.size_bytes, accounted_for: false };
                present.files.insert(xxh3_128(object.key.as_bytes()), seen);
            }
            for error in page.unlisted.into_iter().filter(|error| is_data(&error.key)) {
                present.unlisted.insert(error.key, Unlisted { error: error.message, files: 0 });
            }
            present.odd.extend(page.passed_over.into_iter().filter(|entry| is_data(&entry.name)));
        })
        .await?;
        Ok(present)
    }

    /// The size of a file, which is now accounted for.
    pub(super) fn account_for(&mut self, key: &str) -> Option<u64> {
        let seen = self.files.get_mut(&xxh3_128(key.as_bytes()))?;
        seen.accounted_for = true;
        Some(seen.size_bytes)
    }

    /// Whether the file is in a branch that could not be listed.
    pub(super) fn is_hidden(&self, key: &str) -> bool {
        self.unlisted_around(key).is_some()
    }

    /// As [`Present::is_hidden`], and counts the file there.
    pub(super) fn count_hidden(&mut self, key: &str) -> bool {
        let branch = self.unlisted_around(key).map(str::to_owned);
        let Some(branch) = branch.and_then(|branch| self.unlisted.get_mut(&branch)) else { return false };
        branch.files += 1;
        true
    }

    fn unlisted_around<'k>(&self, key: &'k str) -> Option<&'k str> {
        if self.unlisted.is_empty() {
            return None;
        }
        let folders = key.match_indices('/').map(|(slash, _)| &key[..=slash]);
        folders.chain([key]).find(|branch| self.unlisted.contains_key(*branch))
    }

    /// Branches that could not be listed, and entries that are not objects but that engines read.
    pub(super) fn findings(&self) -> impl Iterator<Item = Finding> + '_ {
        let unlisted = self.unlisted.iter().map(|(branch, unlisted)| {
            let what = if unlisted.files == 0 {
                "what it holds is unknown".to_owned()
            } else {
                format!("{} files of complete batches there were not checked", unlisted.files)
            };
            Finding {
                kind: FindingKind::Unreadable,
                place: branch.clone(),
                message: format!("it cannot be listed, {what}: {}", unlisted.error),
            }
        });
        let odd = self.odd.iter().map(|entry| Finding {
            kind: FindingKind::FileUnknown,
            place: entry.name.clone(),
            message: what_readers_meet(entry.kind).to_owned(),
        });
        unlisted.chain(odd)
    }

    /// The files that nothing accounted for and that are still there.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn left(&self, store: &dyn Store) -> Result<Vec<ObjectMeta>, StoreError> {
        let mut left = Vec::new();
        if self.files.values().all(|seen| seen.accounted_for) {
            return Ok(left);
        }
        survey(store, |page| {
            left.extend(page.objects.into_iter().filter(|object| {
                is_data(&object.key)
                    && self.files.get(&xxh3_128(object.key.as_bytes())).is_some_and(|seen| !seen.accounted_for)
            }));
        })
        .await?;
        Ok(left)
    }
}

/// What an engine makes of an entry that is not an object.
fn what_readers_meet(kind: PassedOverKind) -> &'static str {
    match kind {
        PassedOverKind::SymbolicLink => {
            "a symbolic link: engines follow it and may read rows twice, or rows of elsewhere; remove it"
        }
        PassedOverKind::SpecialFile => "a device, FIFO or socket: a query that opens it may never end; remove it",
        PassedOverKind::NoText => {
            "the name is not UTF-8, so no distributor wrote it, but engines read it; move it away"
        }
    }
}

/// The entry that has the name of a table's folder and is none: a link hides the whole table from the store.
async fn instead_of(store: &dyn Store, table: &str) -> Result<Vec<PassedOver>, StoreError> {
    let name = table.trim_end_matches('/');
    let options = SurveyOptions { prefix: name.to_owned(), limit: Some(1), ..SurveyOptions::default() };
    let mut first = store.survey(&options).await?.passed_over;
    first.retain(|entry| entry.name == name);
    Ok(first)
}

/// The data files of one topic by partition, some 150 bytes a file.
pub(super) struct Names(BTreeMap<i32, Vec<(String, u64)>>);

pub(super) struct NamedFile {
    pub name: FileName,
    pub path: String,
    pub size_bytes: u64,
}

impl Names {
    /// # Errors
    /// The store's: a part of a listing is no listing.
    pub(super) async fn list(store: &dyn Store, topic: &str) -> Result<Self, StoreError> {
        let mut names: BTreeMap<i32, Vec<_>> = BTreeMap::new();
        each(store, |object| {
            if let Some(name) = FileName::parse(&object.key).filter(|name| name.topic == topic) {
                names.entry(name.partition).or_default().push((object.key, object.size_bytes));
            }
        })
        .await?;
        Ok(Self(names))
    }

    pub(super) fn partitions(&self) -> impl Iterator<Item = i32> {
        self.0.keys().copied()
    }

    pub(super) fn of(&self, partition: i32) -> impl Iterator<Item = NamedFile> {
        let files = self.0.get(&partition).into_iter().flatten();
        files.filter_map(|(path, size_bytes)| {
            let name = FileName::parse(path)?;
            Some(NamedFile { name, path: path.clone(), size_bytes: *size_bytes })
        })
    }
}

/// Partitions that have anything of a chain.
pub(super) async fn chains(store: &dyn Store, topic: &str) -> Result<Vec<i32>, StoreError> {
    let prefix = format!("_batches/{topic}/");
    let mut partitions = Vec::new();
    let mut start_after = None;
    loop {
        let options = ListOptions { prefix: prefix.clone(), start_after, delimiter: true, limit: None };
        let page = store.list(&options).await?;
        partitions.extend(
            page.prefixes.iter().filter_map(|folder| folder[prefix.len()..].trim_end_matches('/').parse::<i32>().ok()),
        );
        let last = page.prefixes.iter().max().max(page.objects.iter().map(|object| &object.key).max()).cloned();
        if !page.more || last.is_none() {
            break;
        }
        start_after = last;
    }
    partitions.sort_unstable();
    Ok(partitions)
}

/// Everything that can be listed.
async fn survey(store: &dyn Store, mut visit: impl FnMut(SurveyPage)) -> Result<(), StoreError> {
    for table in TABLES {
        let mut options = SurveyOptions { prefix: table.to_owned(), ..SurveyOptions::default() };
        loop {
            let mut page = store.survey(&options).await?;
            options.start_after = page.next.take();
            visit(page);
            if options.start_after.is_none() {
                break;
            }
        }
    }
    Ok(())
}

/// Every data file; fails if one cannot be listed.
async fn each(store: &dyn Store, mut visit: impl FnMut(ObjectMeta)) -> Result<(), StoreError> {
    for table in TABLES {
        let mut start_after = None;
        loop {
            let options = ListOptions { prefix: table.to_owned(), start_after, limit: None, delimiter: false };
            let page = store.list(&options).await?;
            start_after = page.objects.last().map(|object| object.key.clone());
            page.objects.into_iter().filter(|object| is_data(&object.key)).for_each(&mut visit);
            if !page.more || start_after.is_none() {
                break;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_their_end_for_topics_may_hold_hyphens() {
        let name = |key| FileName::parse(key).map(|name| (name.topic, name.partition, name.from));
        assert_eq!(name("events/a=b/my-topic-3-120-7.parquet"), Some(("my-topic".to_owned(), 3, 120)));
        assert_eq!(name("events/a=b/my-topic-3-120-r12-7.parquet"), Some(("my-topic".to_owned(), 3, 120)));
        assert_eq!(name("events/a=b/my-r1-s2-3-120-s12-7.parquet"), Some(("my-r1-s2".to_owned(), 3, 120)));
        for foreign in ["events/part-0.parquet", "events/x.csv", "events/t-1-2-x.parquet", "t--1-2.parquet"] {
            assert_eq!(name(foreign), None, "{foreign}");
        }
    }
}
