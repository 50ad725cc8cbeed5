//! Routes files to the owned ledger partitions, and tracks which are in progress.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::store::{ObjectMeta, Version};
use moka::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::identity::{IdentityHash, PENDING};
use crate::uncovered::Uncovered;

/// The number of whole listings during which a settled file is skipped before its partition's ledger is asked again.
/// The ledger is authoritative: an entry may be removed at any time.
const SETTLED_SWEEPS: u64 = 10;
const SETTLED_ENTRIES: u64 = 100_000;

/// Counts the whole listings of this process: the clock that decides whether a file is missing. The system clock would
/// not do, because it can jump while a listing is old.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sweep(u64);

impl Sweep {
    /// A file that existed in this complete listing has been seen since the returned one.
    pub(crate) fn seen_since(self) -> Self {
        Self(self.0.saturating_sub(SETTLED_SWEEPS))
    }

    /// Entries of this listing existed in `complete`, or in the one before.
    pub(crate) fn is_recent(self, complete: Self) -> bool {
        self.0.saturating_add(1) >= complete.0
    }

    #[cfg(test)]
    pub(crate) fn number(number: u64) -> Self {
        Self(number)
    }
}

/// A listed file version in its smallest form: its path and identity derive from its key and version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    key: Box<str>,
    version: Box<str>,
    pub size_bytes: u64,
    modified_ms: i64,
}

impl Listed {
    pub(crate) fn of(object: &ObjectMeta) -> Self {
        let ObjectMeta { key, version, size_bytes, modified_ms } = object;
        let (size_bytes, modified_ms) = (*size_bytes, *modified_ms);
        Self { key: key.as_str().into(), version: version.0.as_str().into(), size_bytes, modified_ms }
    }

    /// Relative to `pending/`.
    pub(crate) fn path(&self) -> &str {
        self.key.strip_prefix(PENDING).unwrap_or(&self.key)
    }

    pub(crate) fn version(&self) -> Version {
        Version(self.version.to_string())
    }

    pub(crate) fn object(&self) -> ObjectMeta {
        let (size_bytes, modified_ms) = (self.size_bytes, self.modified_ms);
        ObjectMeta { key: self.key.to_string(), version: self.version(), size_bytes, modified_ms }
    }
}

/// A file version that was found.
pub(crate) struct Candidate {
    pub listed: Listed,
    /// The last whole listing that began before it was found.
    pub sweep: Sweep,
    /// Limits the number of waiting files; released when the file is read.
    pub place: OwnedSemaphorePermit,
}

/// A message to a lane.
pub(crate) enum Found {
    File(Candidate),
    /// A whole listing is complete, except for the places that it could not list. All its files were sent before.
    Swept(Sweep, Arc<Uncovered>),
}

/// Files of one lane that were found and are not processed yet.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Mutex<HashMap<IdentityHash, (u64, i64)>>);

/// Number, bytes and the oldest modification time of files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    pub files: u64,
    pub bytes: u64,
    pub oldest_ms: Option<i64>,
}

impl Backlog {
    pub(crate) fn add(&mut self, size_bytes: u64, modified_ms: i64) {
        self.files += 1;
        self.bytes += size_bytes;
        self.oldest_ms = Some(self.oldest_ms.map_or(modified_ms, |oldest| oldest.min(modified_ms)));
    }

    pub(crate) fn add_all(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.oldest_ms = self.oldest_ms.into_iter().chain(other.oldest_ms).min();
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, HashMap<IdentityHash, (u64, i64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False if it was already present.
    fn insert(&self, identity: &str, object: &ObjectMeta) -> bool {
        self.lock().insert(IdentityHash::of(identity), (object.size_bytes, object.modified_ms)).is_none()
    }

    pub(crate) fn remove(&self, identity: &str) {
        self.lock().remove(&IdentityHash::of(identity));
    }

    pub(crate) fn contains(&self, identity: &str) -> bool {
        self.lock().contains_key(&IdentityHash::of(identity))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn add_to(&self, backlog: &mut Backlog) {
        self.lock().values().for_each(|(size, modified)| backlog.add(*size, *modified));
    }
}

/// The route to one lane.
#[derive(Clone)]
pub(crate) struct Route {
    pub sender: mpsc::UnboundedSender<Found>,
    pub waiting: Arc<Waiting>,
}

/// The result of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offered {
    Taken,
    /// In progress already, or settled.
    Known,
    /// Another ingestor owns its ledger partition, or currently none does.
    NotOurs,
}

/// Shared by discovery, lanes and the role.
pub(crate) struct Routes {
    lanes: Mutex<BTreeMap<i32, Route>>,
    settled: Cache<IdentityHash, Sweep>,
    sweeps: AtomicU64,
}

impl Routes {
    pub(crate) fn new() -> Self {
        Self { lanes: Mutex::default(), settled: Cache::new(SETTLED_ENTRIES), sweeps: AtomicU64::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Route>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn open(&self, partition: i32, route: Route) {
        // Another owner may have settled files meanwhile, or removed their entries.
        self.settled.invalidate_all();
        self.lock().insert(partition, route);
    }

    pub(crate) fn close(&self, partition: i32) {
        self.lock().remove(&partition);
    }

    pub(crate) fn owns(&self, partition: i32) -> bool {
        self.lock().contains_key(&partition)
    }

    pub(crate) fn begin_sweep(&self) -> Sweep {
        Sweep(self.sweeps.fetch_add(1, Ordering::AcqRel) + 1)
    }

    pub(crate) fn sweep(&self) -> Sweep {
        Sweep(self.sweeps.load(Ordering::Acquire))
    }

    /// Records that this file version, which was seen in that listing, needs no work.
    pub(crate) fn settle(&self, identity: &str, seen: Sweep) {
        self.settled.insert(IdentityHash::of(identity), seen);
    }

    fn is_settled(&self, identity: &str) -> bool {
        self.settled.get(&IdentityHash::of(identity)).is_some_and(|seen| seen > self.sweep().seen_since())
    }

    /// Whether this file version has to be sent, and where; it then counts as in progress.
    pub(crate) fn wants(&self, partition: i32, identity: &str, object: &ObjectMeta) -> Result<Route, Offered> {
        let route = self.lock().get(&partition).cloned().ok_or(Offered::NotOurs)?;
        if self.is_settled(identity) || !route.waiting.insert(identity, object) {
            return Err(Offered::Known);
        }
        Ok(route)
    }

    pub(crate) fn swept(&self, sweep: Sweep, uncovered: Uncovered) {
        let uncovered = Arc::new(uncovered);
        for route in self.lock().values() {
            // A lane that has ended needs no message.
            let _ = route.sender.send(Found::Swept(sweep, uncovered.clone()));
        }
    }

    pub(crate) fn backlog(&self) -> Backlog {
        let mut backlog = Backlog::default();
        self.lock().values().for_each(|route| route.waiting.add_to(&mut backlog));
        backlog
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_file_has_the_properties_of_the_listing() {
        let object = ObjectMeta {
            key: "pending/a/x.json".to_owned(),
            size_bytes: 7,
            version: Version("7-1-2".to_owned()),
            modified_ms: 3,
        };
        let listed = Listed::of(&object);
        assert_eq!((listed.path(), listed.object()), ("a/x.json", object));
    }
}
