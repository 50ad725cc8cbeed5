//! The Parquet files that stand in the store, to hold against what the commit logs list. Kept are fingerprints of the keys, some 32 bytes a file; the few that nothing
//! accounts for are listed again for their names.

use std::collections::{BTreeMap, HashMap};

use commitlog_storage::TABLES;
use common::store::{ObjectMeta, PassedOver, PassedOverKind, Store, StoreError, SurveyOptions, SurveyPage};
use xxhash_rust::xxh3::xxh3_128;

use super::{Finding, FindingKind};

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
    /// Committed files that are in it.
    files: u64,
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
                format!("{} committed files there were not checked", unlisted.files)
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
    let name = table;
    let options = SurveyOptions { prefix: name.to_owned(), limit: Some(1), ..SurveyOptions::default() };
    let mut first = store.survey(&options).await?.passed_over;
    first.retain(|entry| entry.name == name);
    Ok(first)
}

/// Everything that can be listed.
async fn survey(store: &dyn Store, mut visit: impl FnMut(SurveyPage)) -> Result<(), StoreError> {
    for table in TABLES {
        let mut options = SurveyOptions { prefix: format!("{table}/"), ..SurveyOptions::default() };
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
