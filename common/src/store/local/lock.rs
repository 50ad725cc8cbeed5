//! Locks by `flock`: the kernel releases them when their process ends, however it ends.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::failure::{Failure, Outcome, while_trying};
use super::tree::{Place, Root};
use super::write::in_the_way;
use crate::store::{LockKind, StoreErrorKind};

/// The locks that this store holds.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<Vec<Weak<OwnedFd>>>);

impl Held {
    fn locks(&self) -> MutexGuard<'_, Vec<Weak<OwnedFd>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call that keeps these until it ends keeps the locks: a caller that gives up does not end its call.
    pub(super) fn now(&self) -> Vec<Arc<OwnedFd>> {
        self.locks().iter().filter_map(Weak::upgrade).collect()
    }

    pub(super) fn add(&self, lock: OwnedFd) -> Arc<OwnedFd> {
        let lock = Arc::new(lock);
        let mut locks = self.locks();
        locks.retain(|held| held.strong_count() > 0);
        locks.push(Arc::downgrade(&lock));
        lock
    }
}

/// None: others hold it.
pub(super) fn try_lock(root: &Root, place: &Place, kind: LockKind) -> Outcome<Option<OwnedFd>> {
    let folder = root.make_folder(place)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&folder, place.name.as_str(), flags, Mode::from_raw_mode(0o666)).map_err(
        |error| match error {
            Errno::LOOP | Errno::ISDIR | Errno::NXIO => in_the_way(),
            error => while_trying("open the lock")(error),
        },
    )?;
    let operation = match kind {
        LockKind::Shared => FlockOperation::NonBlockingLockShared,
        LockKind::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    match rustix::fs::flock(&file, operation) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error @ (Errno::NOTSUP | Errno::NOLCK | Errno::NOSYS | Errno::INVAL)) => {
            let message = format!("this file system has no locks: {}", std::io::Error::from(error));
            Err(Failure::new(StoreErrorKind::Unsupported, message))
        }
        Err(error) => Err(Failure::io("cannot lock", error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A caller that gives up does not end its call: what began under a lock ends under it.
    #[test]
    fn a_call_that_is_under_way_keeps_the_lock_that_it_began_under() {
        let folder = tempfile::tempdir().unwrap();
        let (root, held) = (Root::new(folder.path().to_owned(), true), Held::default());
        let place = Place::parse("lock", "p/fence").unwrap();
        let is_free = || try_lock(&root, &place, LockKind::Exclusive).unwrap().is_some();
        let lock = held.add(try_lock(&root, &place, LockKind::Shared).unwrap().unwrap());
        let of_a_call = held.now();
        drop(lock);
        assert!(!is_free(), "the call is under way");
        drop(of_a_call);
        assert!(is_free() && held.now().is_empty());
    }
}
