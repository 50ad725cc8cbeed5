//! The Parquet files that stand in the store, to hold against what the chain lists.
//!
//! They are listed before the chain is read: a cut is put before any file of it, so that no file listed can be ahead of
//! the chain, whoever works meanwhile. Kept are fingerprints of the keys, some 32 bytes a file; the few that nothing
//! accounts for are listed again for their names.

use std::collections::{BTreeMap, HashMap};

use common::store::{ListOptions, ObjectMeta, Store, StoreError};
use xxhash_rust::xxh3::xxh3_128;

/// The folders of the two tables.
pub(super) const TABLES: [&str; 2] = ["events/", "rejected/"];

struct Seen {
    size_bytes: u64,
    accounted_for: bool,
}

#[derive(Default)]
pub(super) struct Present(HashMap<u128, Seen>);

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
    /// The store's: a part of a listing is no listing.
    pub(super) async fn list(store: &dyn Store) -> Result<Self, StoreError> {
        let mut present = Self::default();
        each(store, |object| {
            let seen = Seen { size_bytes: object.size_bytes, accounted_for: false };
            present.0.insert(xxh3_128(object.key.as_bytes()), seen);
        })
        .await?;
        Ok(present)
    }

    /// The size of a file, which is now accounted for.
    pub(super) fn account_for(&mut self, key: &str) -> Option<u64> {
        let seen = self.0.get_mut(&xxh3_128(key.as_bytes()))?;
        seen.accounted_for = true;
        Some(seen.size_bytes)
    }

    /// The files that nothing accounted for and that are still there.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn left(&self, store: &dyn Store) -> Result<Vec<ObjectMeta>, StoreError> {
        let mut left = Vec::new();
        if self.0.values().all(|seen| seen.accounted_for) {
            return Ok(left);
        }
        each(store, |object| {
            if self.0.get(&xxh3_128(object.key.as_bytes())).is_some_and(|seen| !seen.accounted_for) {
                left.push(object);
            }
        })
        .await?;
        Ok(left)
    }
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
