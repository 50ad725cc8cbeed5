//! A store that fails for one of two partitions, for as long as it takes: it is paused, the other goes on, and it can be
//! taken away and be given back meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::shutdown::Shutdown;
use common::store::StoreErrorKind;
use tokio::time::Instant;

use super::chance::{Chance, Fate, Life, MONTH_MS};
use super::log::{LogOf, MemoryLog};
use super::model::Event;
use super::store::{MemoryStore, Script, StoreOf};
use super::{on_virtual_time, reckoning, roles};
use crate::EndOfInput;

const PATIENCE: Duration = Duration::from_secs(600);
const STUCK: i32 = 0;
const OTHER: i32 = 1;

struct Zone {
    store: Arc<MemoryStore>,
    log: Arc<MemoryLog>,
    appended: AtomicU64,
}

impl Zone {
    fn new() -> Self {
        let chance = Arc::new(Chance::new(0));
        chance.calm();
        let store = Arc::new(MemoryStore::new(chance.clone(), None));
        Self { store, log: Arc::new(MemoryLog::new(chance, 2, false, None)), appended: AtomicU64::new(0) }
    }

    /// The same number of records to both partitions: many times as many as a lane has on its way.
    fn append(&self) {
        for partition in [STUCK, OTHER] {
            for _ in 0..400 {
                let number = self.appended.fetch_add(1, Ordering::SeqCst);
                let event = Event {
                    event_id: format!("e{number}"),
                    timestamp: "2021-01-14T10:15:30".into(),
                    domain: "d".into(),
                    event_type: "t".into(),
                    data: number,
                };
                self.log.append(partition, 0, MONTH_MS, &serde_json::to_string(&event).unwrap());
            }
        }
    }

    fn is_complete(&self, partition: i32) -> bool {
        self.log.committed(partition) == Some(self.log.bounds(partition).latest)
    }
}

async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn a_stuck_partition_changes_hands() {
    let zone = Zone::new();
    let fails = Arc::new(AtomicBool::new(true));
    let script: Script = {
        let fails = fails.clone();
        Arc::new(move |operation, key| {
            let is_hit = operation == "put" && key.contains(&format!("_commits/events/{STUCK}/log/"));
            (is_hit && fails.load(Ordering::SeqCst)).then_some((Fate::Fails, StoreErrorKind::Transient))
        })
    };
    let life = Arc::new(Life::new("a".to_owned()));
    let store = StoreOf { memory: zone.store.clone(), life: life.clone(), script: Some(script), is_resting: false };
    let log = LogOf { memory: zone.log.clone(), life, member: 0 };
    let distributor = roles::distributor(store, log, roles::settings(false));
    let metrics = distributor.metrics.clone();
    let paused = |count| {
        let metrics = metrics.clone();
        move || metrics.paused_partitions() == count
    };
    zone.append();
    let end = EndOfInput::later();
    let announced = end.clone();
    let role = tokio::task::spawn_local(async move { distributor.run(&announced, &Shutdown::new()).await });
    wait_until("the stuck one is paused", paused(1)).await;
    wait_until("the other one is complete", || zone.is_complete(OTHER)).await;
    assert_eq!(zone.log.committed(STUCK), None);

    // To a member that never comes.
    zone.log.rebalance(STUCK, 1);
    wait_until("it is given up", paused(0)).await;
    zone.append();
    wait_until("the other one goes on", || zone.is_complete(OTHER)).await;

    zone.log.rebalance(STUCK, 0);
    wait_until("the stuck one is read again, and paused", paused(1)).await;
    zone.append();
    wait_until("the other one goes on beside it", || zone.is_complete(OTHER)).await;
    assert_eq!(zone.log.committed(STUCK), None);

    fails.store(false, Ordering::SeqCst);
    wait_until("the stuck one catches up", || zone.is_complete(STUCK)).await;
    wait_until("nothing is paused", paused(0)).await;
    end.announce();
    let report = tokio::time::timeout(PATIENCE, role).await.expect("it ends").unwrap().unwrap();
    assert_eq!((report.rows, report.duplicates), (2 * 3 * 400, 0));
    reckoning::compare(&zone.store, &zone.log, &[]).unwrap();
    reckoning::audit(&zone.store, &zone.log).await.unwrap();
}

#[test]
fn a_partition_can_be_given_up_and_taken_over_while_it_is_stuck_and_paused() {
    on_virtual_time(a_stuck_partition_changes_hands());
}
