//! The memory of files on their way from local disk to the store.
//!
//! A file that waits on disk is read into memory to be put, whole or in parts. Files of a batch are put several at a
//! time, by each partition, so their number alone bounds nothing. Each partition has room of its own, so that a store
//! that hangs for one delays no other; beyond it they share the room of the process.

use std::sync::Arc;

use common::store::PART_BYTES;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Larger files are put in parts, so that a failure repeats only a part, and one on local disk is read in parts. In
/// tests the limit is low.
pub(crate) const MULTIPART_FROM_BYTES: usize = if cfg!(test) { 16 * 1024 } else { 16 * 1024 * 1024 };

/// Fits the largest file that is put whole.
const OF_A_PARTITION_BYTES: usize = MULTIPART_FROM_BYTES;
const OF_THE_PROCESS_BYTES: usize = MULTIPART_FROM_BYTES;

/// The room that all partitions of a process share. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct UploadRoom(Arc<Semaphore>);

impl Default for UploadRoom {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(OF_THE_PROCESS_BYTES)))
    }
}

/// The room of one partition.
pub(crate) struct Uploads {
    own: Arc<Semaphore>,
    shared: UploadRoom,
}

/// Held while a file is put.
pub(crate) struct Held(#[expect(dead_code, reason = "frees the room when it is dropped")] OwnedSemaphorePermit);

impl Uploads {
    pub(crate) fn new(shared: &UploadRoom) -> Self {
        Self { own: Arc::new(Semaphore::new(OF_A_PARTITION_BYTES)), shared: shared.clone() }
    }

    /// Waits for the room of a file of `disk_bytes` on disk; `None` if it needs none.
    pub(crate) async fn room_for(&self, disk_bytes: usize) -> Option<Held> {
        // Of a file that is put in parts, one part at a time is in memory.
        let in_memory = if disk_bytes > MULTIPART_FROM_BYTES { disk_bytes.min(PART_BYTES) } else { disk_bytes };
        let bytes = u32::try_from(in_memory.min(OF_A_PARTITION_BYTES)).unwrap_or(u32::MAX);
        if bytes == 0 {
            return None;
        }
        let at_once = [&self.own, &self.shared.0].into_iter();
        if let Some(permit) = at_once.filter_map(|room| room.clone().try_acquire_many_owned(bytes).ok()).next() {
            return Some(Held(permit));
        }
        // The semaphore is never closed.
        self.own.clone().acquire_many_owned(bytes).await.ok().map(Held)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_partition_has_room_of_its_own_whatever_others_hold() {
        let shared = UploadRoom::default();
        let hanging = Uploads::new(&shared);
        let whole = OF_A_PARTITION_BYTES;
        let held = [hanging.room_for(whole).await, hanging.room_for(whole).await];
        assert!(hanging.room_for(1).now_or_never().is_none(), "its own room and the shared one are full");
        assert!(hanging.room_for(0).now_or_never().is_some(), "a file in memory needs none");
        let other = Uploads::new(&shared);
        let first = other.room_for(whole / 2).now_or_never().expect("room of its own");
        let second = other.room_for(whole / 2).now_or_never().expect("room of its own");
        let third = other.room_for(1);
        tokio::pin!(third);
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        assert!(third.now_or_never().is_some(), "it waits for its own room");
        drop((held, second));
        assert!(hanging.room_for(whole).now_or_never().is_some());
        assert_eq!(shared.0.available_permits(), OF_THE_PROCESS_BYTES);
    }

    #[tokio::test]
    async fn a_file_larger_than_the_room_is_put_in_parts_and_waits_for_one() {
        let uploads = Uploads::new(&UploadRoom::default());
        let held = uploads.room_for(usize::MAX).now_or_never().expect("there is room for a part");
        assert_eq!(uploads.own.available_permits(), OF_A_PARTITION_BYTES.saturating_sub(PART_BYTES));
        drop(held);
    }
}
