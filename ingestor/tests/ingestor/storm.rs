//! Random crashes and rivals: every event of every file once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::backoff::splitmix64;
use common::shutdown::Shutdown;

use crate::faults::Faulty;
use crate::harness::{Zone, lines, run, tree};

/// Two ingestors that are both assigned everything (the embedded log's groups do not share), each over a store that
/// sometimes fails, killed at random moments and restarted, while files keep landing.
async fn storm(seed: u64) {
    let zone = Zone::new().await;
    let mut random = seed;
    let mut next = |below: u64| {
        random = splitmix64(random);
        random % below
    };
    let mut expected = 0;
    for round in 0..6 {
        for number in 0..next(8) + 1 {
            let count = usize::try_from(next(3_000)).unwrap() + 1;
            zone.land(&format!("{round}/{number}.json"), lines(&format!("{round}-{number}"), count));
            expected += count;
        }
        let rivals: Vec<_> = (0..2)
            .map(|rival| {
                let store = Faulty::new(zone.local_store(), seed ^ (round * 2 + rival));
                store.failures_per_mille.store(20, Ordering::Relaxed);
                let mut ingestor = zone.ingestor_over(Arc::new(store));
                ingestor.settings.once = false;
                tokio::spawn(async move { ingestor.run(&Shutdown::new()).await })
            })
            .collect();
        for rival in rivals {
            tokio::time::sleep(Duration::from_millis(next(120))).await;
            rival.abort();
            let _ = rival.await;
        }
    }
    run(&zone.ingestor()).await.unwrap();
    let events = zone.events().await;
    assert_eq!(events.len(), expected, "seed {seed}: every event");
    let twice: Vec<_> = events.iter().filter(|(_, times)| **times > 1).take(3).collect();
    assert!(twice.is_empty(), "seed {seed}: more than once: {twice:?}");
    assert!(tree(&zone.landing().join("pending")).is_empty(), "seed {seed}: archived = committed");
    let ledger = zone.ledger().await;
    let counted: u64 = ledger.values().flatten().map(|entry| entry["events"].as_u64().unwrap()).sum();
    assert_eq!(counted, expected as u64, "seed {seed}: the ledger agrees");
    assert!(ledger.values().flatten().all(|entry| entry["state"] == "done"), "seed {seed}: {ledger:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rivals_and_crashes_lose_and_repeat_nothing() {
    for seed in 0..12 {
        storm(seed).await;
    }
}
