//! Files on their way from local disk to the store.

use std::sync::atomic::{AtomicUsize, Ordering};

use common::store::LocalStore;
use futures_util::FutureExt;

use super::*;
use crate::batch::testing::layout;
use crate::batch::{FinishedFile, Place, Series, Spool};
use crate::testing::interposed::delayed;
use crate::uploads::MULTIPART_FROM_BYTES;

const FILES: u32 = 40;
/// Put whole, one by one within the room of a partition.
const FILE_BYTES: usize = MULTIPART_FROM_BYTES / 2 + 1;

/// The most files that are put at the same time.
async fn most_at_once(on_disk: bool) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(Scratch::new(folder.path()).file().unwrap());
    let file = |sequence: u32| {
        let mut spool = Spool::default();
        spool.push(&vec![1; FILE_BYTES]);
        if on_disk {
            spool.spill(&disk).unwrap();
        }
        FinishedFile {
            folder: "events/f".into(),
            sequence,
            rows: 1,
            offsets: 0..1,
            times_us: None,
            body: spool.finish(),
        }
    };
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = most.clone();
    let store = delayed(Arc::new(LocalStore::new(folder.path().join("trusted"))), move |operation, _| {
        let (now, most) = (now.clone(), seen.clone());
        async move {
            if operation == "put" {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
                now.fetch_sub(1, Ordering::SeqCst);
            }
            Fate::Pass
        }
        .boxed()
    });
    let layout = layout();
    let place = Place { topic: "events", partition: 0, from: 0, to: 10, series: Series::Batch, layout: &layout };
    let files: Vec<FinishedFile> = (0..FILES).map(file).collect();
    let deadline = Instant::now() + Duration::from_secs(60);
    let put = files::put_all(
        &*store,
        place,
        files.iter().collect(),
        (&UploadRoom::default(), &Scratch::new(folder.path())),
        deadline,
    )
    .await
    .unwrap();
    assert_eq!(put.len(), FILES as usize);
    most.load(Ordering::SeqCst)
}

#[tokio::test]
async fn files_on_disk_are_put_within_their_room_however_many_there_are() {
    assert_eq!(most_at_once(true).await, 2, "one in the partition's room, one in that of the process");
    assert!(most_at_once(false).await > 2, "files in memory take no more of it");
}
