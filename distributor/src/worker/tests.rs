//! The worker with several lanes, over the embedded log and a store that hangs on demand.

mod stuck;
mod unreadable;

use std::sync::atomic::{AtomicBool, Ordering};

use common::config::TypeAges;
use common::log::{Log, RecordBatch};
use common::store::{Store, StoreErrorKind};
use tokio::sync::Notify;

use super::*;
use crate::batch::testing::event;
use crate::testing::Zone;
use crate::testing::interposed::{Fate, delayed, interposed};

const PATIENCE: Duration = Duration::from_secs(60);

/// Puts of keys that contain a text wait until they are released.
struct Hanging {
    is_open: AtomicBool,
    opened: Notify,
    /// A put is waiting.
    hangs: AtomicBool,
}

impl Hanging {
    fn on(inner: Arc<dyn Store>, hangs_on: &'static str) -> (Arc<dyn Store>, Arc<Self>) {
        let (is_open, hangs) = (AtomicBool::new(false), AtomicBool::new(false));
        let hanging = Arc::new(Self { is_open, opened: Notify::new(), hangs });
        let gate = hanging.clone();
        let store = delayed(inner, move |operation, key| {
            let (gate, waits) = (gate.clone(), operation == "put" && key.contains(hangs_on));
            Box::pin(async move {
                if waits {
                    gate.pass().await;
                }
                Fate::Pass
            })
        });
        (store, hanging)
    }

    async fn pass(&self) {
        let opened = self.opened.notified();
        if !self.is_open.load(Ordering::SeqCst) {
            self.hangs.store(true, Ordering::SeqCst);
            opened.await;
        }
    }

    fn open_up(&self) {
        self.is_open.store(true, Ordering::SeqCst);
        self.opened.notify_waiters();
    }
}

async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_whose_store_hangs_holds_up_no_other() {
    let zone = Zone::filled(2).await;
    let (store, hanging) = Hanging::on(zone.store(), "/events-0-");
    let distributor = Distributor { store, ..zone.distributor() };
    let (end, shutdown) = (EndOfInput::now(), Shutdown::new());
    let watching = async {
        wait_until("the other partition is written", || zone.committed(1) == 3).await;
        assert!(hanging.hangs.load(Ordering::SeqCst) && zone.committed(0) == 0);
        hanging.open_up();
    };
    let (report, ()) = tokio::join!(distributor.run(&end, &shutdown), watching);
    let report = report.unwrap();
    assert_eq!((report.rows, report.duplicates), (100, 10));
    assert_eq!((zone.committed(0), zone.committed(1)), (3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_cannot_go_on_keep_no_other_from_its_end_and_are_all_named() {
    let zone = Zone::filled(4).await;
    let store = interposed(zone.store(), |operation, key| match operation {
        "put" if key.contains("_commits/events/1/") || key.contains("_commits/events/2/") => {
            Fate::Fail(StoreErrorKind::Unsupported)
        }
        _ => Fate::Pass,
    });
    let distributor = Distributor { store, ..zone.distributor() };
    let (end, shutdown) = (EndOfInput::now(), Shutdown::new());
    let ended = tokio::time::timeout(PATIENCE, distributor.run(&end, &shutdown)).await.expect("it ends");
    let error = ended.unwrap_err().to_string();
    for (partition, is_named) in [(0, false), (1, true), (2, true), (3, false)] {
        assert_eq!(error.contains(&format!("partition {partition}: ")), is_named, "{error}");
        assert_eq!(zone.committed(partition), if is_named { 0 } else { 3 });
    }
    assert_eq!(distributor.metrics.report().rows, 100, "the report lacks completed rows");
    zone.distribute().await;
    assert_eq!((zone.committed(1), zone.committed(2)), (3, 3), "nothing was lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_parks_and_reports_a_partition_that_is_refused_and_retries_it() {
    let zone = Zone::filled(2).await;
    let is_broken = Arc::new(AtomicBool::new(true));
    let broken = is_broken.clone();
    let store = interposed(zone.store(), move |operation, key| {
        let is_refused = operation == "put" && key.contains("_commits/events/1/") && broken.load(Ordering::SeqCst);
        if is_refused { Fate::Fail(StoreErrorKind::Unsupported) } else { Fate::Pass }
    });
    let mut distributor = Distributor { store, ..zone.distributor() };
    distributor.settings.once = false;
    distributor.settings.max_age = Duration::from_millis(100);
    let (end, shutdown) = (EndOfInput::later(), Shutdown::new());
    let (health, metrics) = (distributor.health.clone(), distributor.metrics.clone());
    let watching = async {
        let reported = || health.problems().values().any(|reason| reason.contains("partition 1: "));
        let seen = || metrics.report().rows + metrics.report().duplicates;
        wait_until("the other is written and this one is reported", || seen() == 55 && reported()).await;
        zone.append(1).await;
        wait_until("the other goes on", || seen() == 110).await;
        assert_eq!(zone.committed(1), 0);
        is_broken.store(false, Ordering::SeqCst);
        // The problem is corrected.
        wait_until("it works again", || seen() == 165 && health.problems().is_empty()).await;
        shutdown.trigger();
    };
    let (ended, ()) = tokio::join!(distributor.run(&end, &shutdown), watching);
    ended.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_waits_for_no_store() {
    let zone = Zone::filled(2).await;
    let (store, hanging) = Hanging::on(zone.store(), "/events-");
    let distributor = Distributor { store, ..zone.distributor() };
    let (end, shutdown) = (EndOfInput::later(), Shutdown::new());
    let stopping = async {
        wait_until("a put hangs", || hanging.hangs.load(Ordering::SeqCst)).await;
        shutdown.trigger();
    };
    let both = async { tokio::join!(distributor.run(&end, &shutdown), stopping) };
    let (report, ()) = tokio::time::timeout(PATIENCE, both).await.expect("it ends");
    report.unwrap();
    // The next worker finishes the batches that were begun.
    zone.distribute().await;
    assert_eq!((zone.committed(0), zone.committed(1)), (3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_holds_an_urgent_type_is_written_at_its_age_and_no_other_is() {
    let zone = Zone::filled(2).await;
    let mut alert = RecordBatch::new();
    let value = event("a", "2021-01-14T10:15:30", "alerts", "fire", "1");
    alert.push(b"key", Some(value.as_bytes()), |_| {}).unwrap();
    let mut writer = zone.log.writer("w").await.unwrap();
    writer.begin().await.unwrap();
    writer.append("events", 1, &alert).await.unwrap();
    writer.commit().await.unwrap();
    let mut distributor = zone.distributor();
    let settings = &mut distributor.settings;
    (settings.max_age, settings.max_rows) = (Duration::from_secs(86_400), 1_000_000);
    settings.ages = TypeAges::parse("d-t2=1ms,alerts-*=1ms").unwrap();
    let (end, shutdown, metrics) = (EndOfInput::later(), Shutdown::new(), distributor.metrics.clone());
    let watching = async {
        wait_until("the batch with the alert is written", || metrics.report().rows > 0).await;
        assert_eq!((zone.committed(0), zone.committed(1)), (0, 1), "the other one may become a day old");
        shutdown.trigger();
    };
    let (report, ()) = tokio::join!(distributor.run(&end, &shutdown), watching);
    let report = report.unwrap();
    assert_eq!((report.rows, report.duplicates), (51, 5), "all that came before the alert is in it");
}

/// However little memory there is, batches are written and reading continues.
#[tokio::test(flavor = "multi_thread")]
async fn no_memory_at_all_makes_small_batches_and_no_deadlock() {
    let zone = Zone::filled(3).await;
    let mut distributor = zone.distributor();
    distributor.settings.max_memory = 1;
    let report = distributor.run(&EndOfInput::now(), &Shutdown::new()).await.unwrap();
    assert_eq!((report.rows, report.duplicates), (150, 15));
}

fn watermark(zone: &Zone) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(zone.trusted("_watermark/events.json")).unwrap()).unwrap()
}

#[tokio::test]
async fn the_watermark_says_up_to_when_the_tables_are_complete() {
    let zone = Zone::new().await;
    let head = zone.state().await.head;
    let first = watermark(&zone);
    assert_eq!(
        first["complete_before_ms"].as_i64(),
        head.clock_ms,
        "the last record's log time: the look was not a minute later"
    );
    assert_eq!(first["partitions"]["0"]["offset"], head.end);
    zone.append(1).await;
    assert_eq!(watermark(&zone), first, "unwritten records moved it");
    zone.distribute().await;
    let second = watermark(&zone);
    assert_eq!(second["partitions"]["0"]["offset"], head.end * 2);
    assert!(second["complete_before_ms"].as_i64() >= first["complete_before_ms"].as_i64());
}

#[tokio::test]
async fn an_idle_partition_moves_the_watermark_by_the_clock() {
    let zone = Zone::filled(2).await;
    let now_ms = common::clock::Clock::now_ms(&common::clock::SystemClock);
    let clock = Arc::new(common::clock::ManualClock::at(now_ms + 3_600_000));
    let distributor = Distributor { clock, ..zone.distributor() };
    distributor.run(&EndOfInput::now(), &Shutdown::new()).await.unwrap();
    assert_eq!(watermark(&zone)["complete_before_ms"], now_ms + 3_600_000 - 60_000);
}

#[tokio::test]
async fn each_phase_of_a_batch_is_timed_once() {
    let zone = Zone::filled(1).await;
    let registry = common::telemetry::Registry::new();
    let metrics = Arc::new(crate::Metrics::new(&registry).unwrap());
    let distributor = Distributor { metrics, ..zone.distributor() };
    distributor.run(&EndOfInput::now(), &Shutdown::new()).await.unwrap();
    let mut text = Vec::new();
    prometheus::Encoder::encode(&prometheus::TextEncoder::new(), &registry.gather(), &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    for phase in ["encode", "intent", "files", "commit"] {
        let line = format!("ed_distribute_batch_phase_seconds_count{{phase=\"{phase}\"}} {}", zone.committed(0));
        assert!(text.lines().any(|found| found == line), "{line}");
    }
}

#[tokio::test]
async fn without_disk_space_batches_are_written_early_and_nothing_is_lost() {
    let zone = Zone::filled(1).await;
    let mut distributor = zone.distributor();
    distributor.settings.scratch = crate::Scratch::new("/no/such/folder");
    distributor.settings.max_memory = 1;
    distributor.settings.max_rows = u64::MAX;
    let end = EndOfInput::later();
    let shutdown = Shutdown::new();
    let (report, ()) = tokio::join!(distributor.run(&end, &shutdown), async {
        // Only memory requires it before the end is announced.
        wait_until("a batch is written", || zone.committed(0) > 0).await;
        end.announce();
    });
    let report = report.unwrap();
    assert_eq!((report.rows, report.duplicates), (50, 5));
}
