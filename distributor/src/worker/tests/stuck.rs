//! One partition whose store does not answer, and the others beside it.

use std::sync::Mutex;

use common::log::ReadEvent;

use super::*;
use crate::testing::watched_log::{Watcher, watched};

/// The number of chunks read from each partition.
#[derive(Default)]
struct Chunks(Mutex<BTreeMap<i32, usize>>);

impl Chunks {
    fn of(&self, partition: i32) -> usize {
        self.0.lock().unwrap().get(&partition).copied().unwrap_or_default()
    }
}

impl Watcher for Chunks {
    fn was_read(&self, event: &ReadEvent) {
        if let ReadEvent::Chunk(chunk) = event {
            *self.0.lock().unwrap().entry(chunk.partition).or_default() += 1;
        }
    }
}

/// A distributor of three partitions, and its store, which hangs.
struct Stuck {
    zone: Zone,
    hanging: Arc<Hanging>,
    chunks: Arc<Chunks>,
    distributor: Distributor,
}

/// Records that one append adds to a partition, fifty of which are no duplicates the first time.
const APPENDED: i64 = 55;

impl Stuck {
    async fn on(hangs_on: &'static str) -> Self {
        let zone = Zone::filled(3).await;
        let ((store, hanging), chunks) = (Hanging::on(zone.store(), hangs_on), Arc::new(Chunks::default()));
        let log = watched(zone.log.clone(), chunks.clone());
        let distributor = Distributor { store, log, ..zone.distributor() };
        Self { zone, hanging, chunks, distributor }
    }

    async fn hangs(&self) {
        wait_until("a put hangs", || self.hanging.hangs.load(Ordering::SeqCst)).await;
    }

    async fn is_committed(&self, partition: i32, offset: i64) {
        let deadline = Instant::now() + PATIENCE;
        while self.zone.log.committed("g", "events").await.unwrap().get(&partition) != Some(&offset) {
            let committed = self.zone.log.committed("g", "events").await.unwrap();
            assert!(Instant::now() < deadline, "{partition} is not committed at {offset}: {committed:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_stuck_for_ever_is_read_no_further_and_the_others_go_on() {
    let mut stuck = Stuck::on("_commits/events/0/log/").await;
    stuck.distributor.settings.max_age = Duration::from_millis(300);
    let (end, shutdown) = (EndOfInput::later(), Shutdown::new());
    let watching = async {
        stuck.hangs().await;
        for _ in 0..40 {
            stuck.zone.append(2).await;
        }
        stuck.is_committed(1, 41 * APPENDED).await;
        // By age, because it has no end of input and no further rows.
        stuck.is_committed(2, APPENDED).await;
        assert_eq!(stuck.zone.committed(0), 0);
        // One being processed by the lane, the others waiting.
        assert!(stuck.chunks.of(0) <= crate::lane::ORDERS_IN_FLIGHT + 1, "{} chunks are held", stuck.chunks.of(0));
        assert_eq!(stuck.distributor.metrics.paused_partitions(), 1);
        stuck.hanging.open_up();
        stuck.is_committed(0, 41 * APPENDED).await;
        end.announce();
    };
    let (report, ()) = tokio::join!(stuck.distributor.run(&end, &shutdown), watching);
    let report = report.unwrap();
    let read = u64::try_from((41 + 41 + 1) * APPENDED).unwrap();
    assert_eq!((report.rows, report.duplicates), (150, read - 150), "each event once");
    assert!(stuck.chunks.of(0) > 40, "all the rest was read afterwards");
    assert_eq!(stuck.distributor.metrics.paused_partitions(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_waits_for_no_partition_that_is_stuck_and_paused() {
    let stuck = Stuck::on("_commits/events/0/").await;
    let (end, shutdown) = (EndOfInput::later(), Shutdown::new());
    let watching = async {
        stuck.hangs().await;
        for _ in 0..10 {
            stuck.zone.append(1).await;
        }
        wait_until("it is paused", || stuck.distributor.metrics.paused_partitions() == 1).await;
        shutdown.trigger();
    };
    let both = async { tokio::join!(stuck.distributor.run(&end, &shutdown), watching) };
    let (report, ()) = tokio::time::timeout(PATIENCE, both).await.expect("it ends");
    report.unwrap();
    assert_eq!(stuck.zone.committed(0), 0);
}

/// Unique rows of some 2 KB each.
async fn append_large(zone: &Zone, partition: i32, rows: std::ops::Range<usize>) {
    let mut records = RecordBatch::new();
    for number in rows {
        let data = format!("\"{number:0>2000}\"");
        let value = event(&format!("l{number}"), "2021-01-14T10:15:30", "d", "large", &data);
        records.push(b"key", Some(value.as_bytes()), |_| {}).unwrap();
    }
    let mut writer = zone.log.writer("w").await.unwrap();
    writer.begin().await.unwrap();
    writer.append("events", partition, &records).await.unwrap();
    writer.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_others_do_with_the_memory_that_a_stuck_partition_leaves() {
    const ROWS: usize = 1_500;
    let mut stuck = Stuck::on("_commits/events/0/log/").await;
    // Three quarters of it belong to the stuck partition, which cannot free them.
    let settings = &mut stuck.distributor.settings;
    (settings.max_memory, settings.max_rows) = (4_200_000, ROWS as u64);
    let (end, shutdown) = (EndOfInput::later(), Shutdown::new());
    let large = 4 * ROWS;
    append_large(&stuck.zone, 0, 0..ROWS).await;
    let watching = async {
        stuck.hangs().await;
        for from in (0..large).step_by(500) {
            append_large(&stuck.zone, 1, from..from + 500).await;
        }
        let batches = APPENDED + i64::try_from(large).unwrap();
        let written = batches - batches % i64::try_from(ROWS).unwrap();
        wait_until("three batches and more of the other", || stuck.zone.committed(1) >= 4).await;
        stuck.is_committed(1, written).await;
        assert_eq!(stuck.zone.committed(0), 0);
        stuck.hanging.open_up();
        end.announce();
    };
    let (report, ()) = tokio::join!(stuck.distributor.run(&end, &shutdown), watching);
    let report = report.unwrap();
    assert_eq!((report.rows, report.duplicates), (150 + 5 * ROWS as u64, 15));
}
