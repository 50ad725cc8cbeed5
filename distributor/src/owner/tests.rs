//! What an owner does with files, over the embedded log and a local store.

mod encodings;
mod limits;
mod uploads;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use common::log::Log;
use common::shutdown::Shutdown;
use common::store::StoreErrorKind;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::lane::Order;
use crate::testing::Zone;
use crate::testing::interposed::{Fate, interposed};
use crate::uploads::UploadRoom;
use crate::window::Budget;
use crate::{Distributor, EndOfInput, Scratch};

type Content = Vec<(PathBuf, Vec<u8>)>;

impl Zone {
    fn event_files(&self) -> Content {
        self.files("events", ".parquet").into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    async fn distribute_with(&self, change: impl FnOnce(&mut crate::Settings)) {
        let mut distributor = self.distributor();
        change(&mut distributor.settings);
        distributor.run(&EndOfInput::now(), &Shutdown::new()).await.unwrap();
    }

    async fn shared(&self) -> Shared {
        let Distributor { settings, metrics, .. } = self.distributor();
        let scratch = Scratch::new(self.folder.path());
        let context = Context {
            store: self.store(),
            topic: "events".into(),
            group: "g".into(),
            log_id: self.log.identity().await.unwrap(),
            layout: settings.layout,
            encoding: settings.encoding,
            max_rows: u64::MAX,
            max_bytes: u64::MAX,
            max_files: usize::MAX,
            budget: Budget::new(u64::MAX, scratch.clone()),
            scratch,
            max_age: Duration::from_secs(3600),
            ages: settings.ages,
            uploads: UploadRoom::default(),
            missing: MissingFiles::Restore,
            companions: Vec::new(),
            metrics,
        };
        Shared {
            context: Arc::new(context),
            log: self.log.clone(),
            plain_store: self.store(),
            targets: watch::channel(None).1,
            reports: mpsc::unbounded_channel().0,
            room: Arc::default(),
        }
    }
}

fn host() -> Host {
    Host::system()
}

/// Its footer is as it was, and so is its size.
#[tokio::test]
async fn a_file_of_a_batch_under_way_that_was_altered_is_not_taken_for_it() {
    let zone = Zone::new().await;
    let expected = zone.event_files();
    zone.uncommit();
    let (path, body) = expected.last().unwrap();
    let mut altered = body.clone();
    altered[40] ^= 1;
    fs::write(path, &altered).unwrap();
    let refused = zone.distributor().run(&EndOfInput::now(), &Shutdown::new()).await.unwrap_err().to_string();
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(refused.contains(name) && refused.contains("rows") && refused.contains("move it away"), "{refused}");
    fs::remove_file(path).unwrap();
    zone.distribute().await;
    assert_eq!(zone.event_files(), expected);
    zone.assert_sound().await;
}

#[tokio::test]
async fn a_lane_that_ends_silently_wakes_a_worker_that_waits_for_room() {
    let zone = Zone::new().await;
    let shared = zone.shared().await;
    let mut lane = start(&shared, &host(), 0, 1);
    while lane.has_room(1) {
        lane.order(Order::EndReached { announced: false }).unwrap();
    }
    // As a panic does.
    lane.abort();
    tokio::time::timeout(Duration::from_secs(20), shared.room.notified()).await.expect("a notification");
    assert!(lane.hand_over().is_err());
}

#[tokio::test]
async fn a_checkpoint_that_cannot_be_put_is_counted_and_put_later() {
    let zone = Zone::new().await;
    zone.without_checkpoints();
    let denied = interposed(zone.store(), |call, key| match call {
        "put" if key.contains("/checkpoints/") => Fate::Fail(StoreErrorKind::Denied),
        _ => Fate::Pass,
    });
    let allowed = zone.shared().await;
    let metrics = allowed.context.metrics.clone();
    let refused = Shared { plain_store: denied, ..allowed.clone() };
    let mut collection = Collection::default();
    collection.batch_done(&refused, &host(), 0);
    collection.ended().await;
    assert_eq!(metrics.collection_failures(), 1);
    assert!(!zone.trusted("_commits/events/0/root.json").exists());
    collection.batch_done(&allowed, &host(), 0);
    assert!(collection.is_idle(), "rarely: not after each batch");
    collection.batch_done(&allowed, &host(), 0);
    collection.ended().await;
    assert_eq!(metrics.collection_failures(), 1);
    assert!(zone.trusted("_commits/events/0/root.json").exists());
    zone.assert_sound().await;
}

/// Also while more records are on their way to the partition.
#[tokio::test(flavor = "multi_thread")]
async fn the_reason_why_a_partition_is_refused_is_told() {
    let zone = Zone::new().await;
    let foreign = zone.files("events", "-20-0.parquet")[0].clone();
    for _ in 0..20 {
        zone.append(1).await;
    }
    zone.uncommit();
    let mut others = zone.files("events", "-40-0.parquet");
    fs::copy(&foreign, others.remove(0)).unwrap();
    for _ in 0..10 {
        let error = zone.distributor().run(&EndOfInput::now(), &Shutdown::new()).await.unwrap_err().to_string();
        assert!(error.contains("its footer names another batch; move it away"), "{error}");
    }
}

#[tokio::test]
async fn tables_without_a_commit_log_are_refused_also_for_a_group_without_offsets() {
    let zone = Zone::new().await;
    fs::remove_dir_all(zone.trusted("_commits")).unwrap();
    let before = zone.event_files();
    for group in ["g", "new"] {
        let mut distributor = zone.distributor();
        distributor.settings.group = group.into();
        let error = distributor.run(&EndOfInput::now(), &Shutdown::new()).await.unwrap_err().to_string();
        assert!(error.contains("such as events/") && error.contains("Bring _commits back from a backup"), "{error}");
    }
    assert!(zone.event_files() == before && !zone.trusted("_commits/events").exists());
    // Those of another topic are of no concern.
    let mut distributor = zone.distributor();
    distributor.settings.topic = "others".into();
    distributor.run(&EndOfInput::now(), &Shutdown::new()).await.unwrap();
}
