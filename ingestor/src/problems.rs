//! What stands in the way of files: for `--once`, which must not end as if all were done, and for the status page.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::store::StoreError;

use crate::identity::IdentityHash;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unreadable,
    Unarchived,
}

impl Kind {
    fn told(self) -> &'static str {
        match self {
            Self::Unreadable => "cannot be read",
            Self::Unarchived => "cannot be archived",
        }
    }
}

/// By file version, until it is solved.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    open: Mutex<HashMap<IdentityHash, (Kind, StoreError)>>,
    replaced: AtomicU64,
}

/// Problems that are told at most; more are only counted by metrics.
const MOST: usize = 10_000;

impl Problems {
    fn lock(&self) -> MutexGuard<'_, HashMap<IdentityHash, (Kind, StoreError)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, identity: &str, kind: Kind, error: StoreError) {
        let mut open = self.lock();
        let hash = IdentityHash::of(identity);
        if open.len() < MOST || open.contains_key(&hash) {
            open.insert(hash, (kind, error));
        }
    }

    pub(crate) fn unreadable(&self, identity: &str, error: StoreError) {
        self.note(identity, Kind::Unreadable, error);
    }

    pub(crate) fn unarchived(&self, identity: &str, error: StoreError) {
        self.note(identity, Kind::Unarchived, error);
    }

    pub(crate) fn solved(&self, identity: &str) {
        self.lock().remove(&IdentityHash::of(identity));
    }

    /// A file changed or vanished under us.
    pub(crate) fn replaced(&self) {
        self.replaced.fetch_add(1, Ordering::Relaxed);
    }

    /// How many files ever did.
    pub(crate) fn replaced_files(&self) -> u64 {
        self.replaced.load(Ordering::Relaxed)
    }

    /// What a further look may find solved: forgotten before it, and noted again by it if it is not.
    pub(crate) fn forget(&self) {
        self.lock().clear();
    }

    /// The one to be told first: what cannot be read, before what cannot be moved away.
    pub(crate) fn worst(&self) -> Option<StoreError> {
        let open = self.lock();
        let of = |kind| open.values().find(|(other, _)| *other == kind).map(|(_, error)| error.clone());
        of(Kind::Unreadable).or_else(|| of(Kind::Unarchived))
    }

    /// At most `limit` of them, in the order of their keys: what is the matter, and the error.
    pub(crate) fn first(&self, limit: usize) -> Vec<(&'static str, StoreError)> {
        let open = self.lock();
        let mut all: Vec<&(Kind, StoreError)> = open.values().collect();
        all.sort_unstable_by(|(_, left), (_, right)| left.key.cmp(&right.key));
        all.into_iter().take(limit).map(|(kind, error)| (kind.told(), error.clone())).collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }
}
