//! How a run with `once` reacts to its group's decisions.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use common::log::{
    Bounds, EmbeddedLog, Log, LogReader, LogWriter, Membership, ReadEvent, Result, TopicInfo, TopicSpec,
};
use ingestor::IngestError;
use tokio::sync::Semaphore;

use crate::faults::Faulty;
use crate::harness::{Zone, lines, run, wait_until};

const LEDGER_PARTITIONS: [i32; 3] = [0, 1, 2];

/// The embedded log with a scripted group.
struct Scripted {
    log: Arc<EmbeddedLog>,
    events: Arc<Mutex<VecDeque<ReadEvent>>>,
}

impl Scripted {
    fn script(&self, events: impl IntoIterator<Item = ReadEvent>) {
        self.events.lock().unwrap().extend(events);
    }
}

struct ToldReader(Arc<Mutex<VecDeque<ReadEvent>>>);

#[async_trait]
impl LogReader for ToldReader {
    async fn poll(&mut self, max_wait: Duration) -> Result<ReadEvent> {
        if let Some(event) = self.0.lock().unwrap().pop_front() {
            return Ok(event);
        }
        tokio::time::sleep(max_wait.min(Duration::from_millis(5))).await;
        Ok(ReadEvent::Idle)
    }
    async fn start(&mut self, _: i32, _: i64) -> Result<()> {
        Ok(())
    }
    fn pause(&mut self, _: i32) {}
    fn resume(&mut self, _: i32) {}
    async fn commit(&mut self, _: &BTreeMap<i32, i64>) -> Result<()> {
        Ok(())
    }
    async fn close(self: Box<Self>) {}
}

#[async_trait]
impl Log for Scripted {
    async fn identity(&self) -> Result<String> {
        self.log.identity().await
    }
    async fn ensure_topic(&self, spec: &TopicSpec) -> Result<TopicInfo> {
        self.log.ensure_topic(spec).await
    }
    async fn verify_topic(&self, spec: &TopicSpec) -> Result<Option<TopicInfo>> {
        self.log.verify_topic(spec).await
    }
    async fn bounds(&self, topic: &str) -> Result<BTreeMap<i32, Bounds>> {
        self.log.bounds(topic).await
    }
    async fn settled_end(&self, topic: &str, partition: i32) -> Result<i64> {
        self.log.settled_end(topic, partition).await
    }
    async fn offset_for_time(&self, topic: &str, partition: i32, time_ms: i64) -> Result<Option<i64>> {
        self.log.offset_for_time(topic, partition, time_ms).await
    }
    async fn committed(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>> {
        self.log.committed(group, topic).await
    }
    async fn set_committed(&self, group: &str, topic: &str, offsets: &BTreeMap<i32, i64>) -> Result<()> {
        self.log.set_committed(group, topic, offsets).await
    }
    async fn reader(&self, topic: &str, membership: &Membership) -> Result<Box<dyn LogReader>> {
        match membership {
            Membership::Group { .. } => Ok(Box::new(ToldReader(self.events.clone()))),
            Membership::Direct { .. } => self.log.reader(topic, membership).await,
        }
    }
    async fn writer(&self, id: &str) -> Result<Box<dyn LogWriter>> {
        self.log.writer(id).await
    }
    async fn trim(&self, topic: &str, partition: i32, below_offset: i64, before_ms: i64) -> Result<()> {
        self.log.trim(topic, partition, below_offset, before_ms).await
    }
}

/// A rebalance late in a long run briefly revokes all partitions; the run must not give up.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_revoked_briefly_late_in_a_run_do_not_end_it() {
    let zone = Zone::new().await;
    zone.land("slow.json", lines("slow", 10));
    let store = Arc::new(Faulty::new(zone.local_store(), 1));
    let gate = Arc::new(Semaphore::new(0));
    store.gates.lock().unwrap().insert("pending/slow.json".to_owned(), gate.clone());
    let group = Arc::new(Scripted { log: zone.log.clone(), events: Arc::default() });
    group.script([ReadEvent::Assigned(LEDGER_PARTITIONS.to_vec())]);
    let mut ingestor = zone.ingestor_over(store.clone());
    ingestor.log = group.clone();
    ingestor.settings.patience = Duration::from_secs(1);
    let patience = ingestor.settings.patience;
    let began = std::time::Instant::now();
    let running = tokio::spawn(async move { run(&ingestor).await });
    wait_until("the run is older than its patience", || began.elapsed() > patience).await;
    group.script([
        ReadEvent::Revoked(LEDGER_PARTITIONS.to_vec()),
        ReadEvent::Idle,
        ReadEvent::Assigned(LEDGER_PARTITIONS.to_vec()),
    ]);
    gate.add_permits(1_000);
    running.await.unwrap().unwrap();
    assert_eq!(zone.events().await.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_never_given_a_partition_says_so() {
    let zone = Zone::new().await;
    zone.land("waiting.json", lines("waiting", 10));
    let mut ingestor = zone.ingestor();
    ingestor.log = Arc::new(Scripted { log: zone.log.clone(), events: Arc::default() });
    ingestor.settings.patience = Duration::from_millis(50);
    let error = run(&ingestor).await.unwrap_err();
    assert!(matches!(error, IngestError::NothingAssigned), "{error}");
    assert!(zone.pending("waiting.json").exists(), "nothing is lost");
}

#[tokio::test]
async fn a_ledger_partition_that_cannot_be_worked_on_keeps_no_other_from_its_end_and_is_named() {
    use common::log::RecordBatch;
    let zone = Zone::new().await;
    zone.ingest().await;
    let mut damaged = RecordBatch::new();
    damaged.push(b"x|1", Some(b"no entry"), |_| {}).unwrap();
    let mut writer = zone.log.writer("somebody").await.unwrap();
    writer.begin().await.unwrap();
    writer.append("events.ledger", 1, &damaged).await.unwrap();
    writer.commit().await.unwrap();
    for number in 0..30 {
        zone.land(&format!("{number}.json"), lines(&number.to_string(), 1));
    }
    for round in 0..2 {
        let ingestor = zone.ingestor();
        let IngestError::Incomplete(problems) = run(&ingestor).await.unwrap_err() else { panic!("it is no lane's") };
        let message = problems.to_string();
        assert!(problems.total == 1 && message.contains("ledger partition 1 cannot be worked on"), "{message}");
        let left = crate::harness::tree(&zone.landing().join("pending")).len() as u64;
        let done = ingestor.metrics.report().files.ingested;
        assert!(left > 0 && left < 30, "{left} are left");
        assert_eq!(done, if round == 0 { 30 - left } else { 0 });
    }
}
