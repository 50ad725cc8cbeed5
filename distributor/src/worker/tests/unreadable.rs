//! Records of one partition that cannot be read, and the others beside it.

use super::*;
use crate::testing::watched_log::{Watcher, watched};

/// Records that one append adds to a partition, fifty of which are no duplicates the first time.
const APPENDED: i64 = 55;
/// In the second batch of 20 rows.
const DAMAGED_FROM: i64 = 30;

/// Partition 1 cannot be read from an offset on.
struct Damaged(AtomicBool);

impl Watcher for Damaged {
    fn unreadable_from(&self, partition: i32) -> Option<i64> {
        (partition == 1 && self.0.load(Ordering::SeqCst)).then_some(DAMAGED_FROM)
    }
}

async fn damaged(partitions: u32) -> (Zone, Arc<Damaged>, Distributor) {
    let (zone, damage) = (Zone::filled(partitions).await, Arc::new(Damaged(AtomicBool::new(true))));
    let distributor = Distributor { log: watched(zone.log.clone(), damage.clone()), ..zone.distributor() };
    (zone, damage, distributor)
}

async fn committed(zone: &Zone, partition: i32) -> Option<i64> {
    zone.log.committed("g", "events").await.unwrap().get(&partition).copied()
}

async fn is_committed(zone: &Zone, partition: i32, offset: i64) {
    let deadline = Instant::now() + PATIENCE;
    while committed(zone, partition).await != Some(offset) {
        assert!(Instant::now() < deadline, "{partition} is not committed at {offset}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_cannot_be_read_is_parked_behind_what_can_and_holds_up_no_other() {
    let (zone, damage, mut distributor) = damaged(3).await;
    distributor.settings.once = false;
    distributor.settings.max_age = Duration::from_millis(200);
    let (end, shutdown) = (EndOfInput::later(), Shutdown::new());
    let (health, metrics) = (distributor.health.clone(), distributor.metrics.clone());
    let watching = async {
        let reported = || health.problems().values().any(|reason| reason.contains("damaged 1 at offset 30"));
        wait_until("it is reported", reported).await;
        // Long before its age and its size.
        is_committed(&zone, 1, DAMAGED_FROM).await;
        for partition in [0, 2] {
            is_committed(&zone, partition, APPENDED).await;
        }
        zone.append(3).await;
        for partition in [0, 2] {
            is_committed(&zone, partition, 2 * APPENDED).await;
        }
        wait_until("it is counted", || metrics.parked_partitions() == 1 && metrics.log_errors("corrupt") > 1).await;
        assert_eq!(committed(&zone, 1).await, Some(DAMAGED_FROM), "a retry finds nothing more to write");
        assert!(reported(), "a retry does not make it ready");
        damage.0.store(false, Ordering::SeqCst);
        is_committed(&zone, 1, 2 * APPENDED).await;
        wait_until("it works again", || health.problems().is_empty() && metrics.parked_partitions() == 0).await;
        shutdown.trigger();
    };
    let (report, ()) = tokio::join!(distributor.run(&end, &shutdown), watching);
    let (report, read) = (report.unwrap(), u64::try_from(3 * 2 * APPENDED).unwrap());
    assert_eq!((report.rows, report.duplicates), (150, read - 150), "each event once");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_once_the_others_are_finished_and_the_unreadable_one_is_named() {
    let (zone, damage, distributor) = damaged(3).await;
    let (end, shutdown) = (EndOfInput::now(), Shutdown::new());
    let ended = distributor.run(&end, &shutdown);
    let ended = tokio::time::timeout(distributor.settings.patience, ended).await.expect("it does not try in vain");
    let error = ended.unwrap_err().to_string();
    assert!(error.contains("partition 1: ") && error.contains("offset 30"), "{error}");
    assert!(!error.contains("partition 0: ") && !error.contains("partition 2: "), "{error}");
    for (partition, offset) in [(0, APPENDED), (1, DAMAGED_FROM), (2, APPENDED)] {
        assert_eq!(committed(&zone, partition).await, Some(offset));
    }
    damage.0.store(false, Ordering::SeqCst);
    zone.distribute().await;
    assert_eq!(committed(&zone, 1).await, Some(APPENDED), "nothing was lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_only_partition_cannot_be_read_waits_for_it() {
    let zone = Zone::filled(2).await;
    let damage = Arc::new(Damaged(AtomicBool::new(true)));
    let mut distributor = Distributor { log: watched(zone.log.clone(), damage.clone()), ..zone.distributor() };
    distributor.settings.once = false;
    distributor.settings.max_age = Duration::from_millis(200);
    // All of them: the other one has failed for another reason.
    distributor.store = interposed(zone.store(), |operation, key| match operation {
        "put" if key.contains("_commits/events/0/") => Fate::Fail(StoreErrorKind::Unsupported),
        _ => Fate::Pass,
    });
    let (end, shutdown) = (EndOfInput::later(), Shutdown::new());
    let health = distributor.health.clone();
    let watching = async {
        let reported = || health.problems().values().any(|reason| reason.contains("damaged 1 at offset 30"));
        wait_until("it is reported", reported).await;
        damage.0.store(false, Ordering::SeqCst);
        is_committed(&zone, 1, APPENDED).await;
        shutdown.trigger();
    };
    let (report, ()) = tokio::join!(distributor.run(&end, &shutdown), watching);
    report.unwrap();
}
