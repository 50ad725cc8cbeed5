//! How files are found.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::clock::ManualClock;
use common::config::Archive;
use common::shutdown::Shutdown;
use common::telemetry::Registry;
use ingestor::Metrics;

use crate::faults::Faulty;
use crate::harness::{Zone, event, lines, metric, run, tree, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn a_running_ingestor_takes_new_files_and_ends_in_order() {
    let zone = Zone::new().await;
    let mut ingestor = zone.ingestor();
    ingestor.settings.once = false;
    let (metrics, shutdown) = (ingestor.metrics.clone(), Shutdown::new());
    let running = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { ingestor.run(&shutdown).await }
    });
    for round in 1..=3 {
        zone.land(&format!("{round}.json"), event(&round.to_string()));
        wait_until("it is ingested", || metrics.report().files.ingested == round).await;
    }
    wait_until("all are archived", || tree(&zone.landing().join("pending")).is_empty()).await;
    shutdown.trigger();
    assert_eq!(running.await.unwrap().unwrap().files.ingested, 3);
    let ledger = zone.ledger().await;
    assert!(
        ledger.values().flatten().all(|entry| entry["archived"] == true),
        "the archive steps are recorded: {ledger:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_read_only_when_it_has_been_unchanged_for_the_minimum_age_by_our_clock() {
    let mut zone = Zone::new().await;
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    zone.clock = clock.clone();
    zone.land("x.json", lines("x", 1));
    let store = Arc::new(Faulty::new(zone.local_store(), 0));
    let mut ingestor = zone.ingestor_over(store.clone());
    ingestor.settings.once = false;
    ingestor.settings.discovery.min_age = Duration::from_secs(3_600);
    let (metrics, shutdown) = (ingestor.metrics.clone(), Shutdown::new());
    let running = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { ingestor.run(&shutdown).await }
    });
    let listed = |more: u64| store.lists.load(Ordering::Relaxed) + more;
    let seen = listed(3);
    wait_until("it was listed several times", || listed(0) >= seen).await;
    assert_eq!(metrics.report().files.ingested, 0, "it is too young");
    clock.advance(3_000_000);
    std::fs::write(zone.pending("x.json"), lines("x", 2)).unwrap();
    let seen = listed(3);
    wait_until("the change was seen", || listed(0) >= seen).await;
    clock.advance(3_000_000);
    let seen = listed(3);
    wait_until("it was listed again", || listed(0) >= seen).await;
    assert_eq!(metrics.report().files.ingested, 0, "its age counts from the change");
    clock.advance(700_000);
    wait_until("it is ingested", || metrics.report().files.ingested == 1).await;
    shutdown.trigger();
    assert_eq!(running.await.unwrap().unwrap().events.published, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_fails_is_tried_again_and_never_taken_for_an_empty_zone() {
    let zone = Zone::new().await;
    zone.land("x.json", event("x"));
    let moved = zone.root.path().join("away");
    std::fs::rename(zone.landing(), &moved).unwrap();
    let mut ingestor = zone.ingestor();
    ingestor.settings.once = false;
    let (metrics, health, shutdown) = (ingestor.metrics.clone(), ingestor.health.clone(), Shutdown::new());
    let running = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { ingestor.run(&shutdown).await }
    });
    wait_until("it says what is missing", || health.problems().values().any(|reason| reason.contains("landing"))).await;
    std::fs::rename(&moved, zone.landing()).unwrap();
    wait_until("it goes on by itself", || metrics.report().files.ingested == 1).await;
    wait_until("it is well again", || health.problems().is_empty()).await;
    shutdown.trigger();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn missing_files_are_forgotten_after_the_retention_and_not_before() {
    let mut zone = Zone::new().await;
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    zone.clock = clock.clone();
    zone.land("moved.json", event("moved"));
    zone.ingest().await;
    zone.land("left.json", event("left"));
    let leave = |zone: &Zone| {
        let mut ingestor = zone.ingestor();
        ingestor.settings.archive = Some(Archive::Leave);
        ingestor
    };
    run(&leave(&zone)).await.unwrap();
    clock.advance(86_300_000);
    run(&leave(&zone)).await.unwrap();
    assert_eq!(zone.ledger().await.len(), 2, "not before");
    clock.advance(200_000);
    // Entries read from the ledger count as seen then, so this takes a few listings.
    let registry = Registry::new();
    let mut running = leave(&zone);
    running.metrics = Arc::new(Metrics::new(&registry).unwrap());
    running.settings.once = false;
    let shutdown = Shutdown::new();
    let task = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { running.run(&shutdown).await }
    });
    wait_until("it has listed often", || metric(&registry, "ed_ingest_sweeps_total") > 25.0).await;
    wait_until("it has forgotten", || metric(&registry, "ed_ingest_ledger_entries") == 1.0).await;
    shutdown.trigger();
    task.await.unwrap().unwrap();
    let remaining: Vec<String> = zone.ledger().await.into_keys().collect();
    assert_eq!(remaining, ["left.json"], "what is still there is still known");
    assert_eq!(run(&leave(&zone)).await.unwrap().files.skipped, 1);
}

/// A lane learns of the end in two ways, by the signal and by the end of the found files. Whichever comes first,
/// waiting files must not delay it.
#[tokio::test(flavor = "multi_thread")]
async fn an_ingestor_with_files_waiting_ends_at_shutdown() {
    let zone = Zone::new().await;
    for number in 0..200 {
        zone.land(&format!("{number}.json"), event(&number.to_string()));
    }
    let store = Arc::new(Faulty::new(zone.local_store(), 0));
    for number in 0..200 {
        // None is ever read to its end.
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        store.gates.lock().unwrap().insert(format!("pending/{number}.json"), gate);
    }
    for _ in 0..10 {
        let mut ingestor = zone.ingestor_over(store.clone());
        ingestor.settings.once = false;
        ingestor.settings.parallel_files = 1;
        let registry = Registry::new();
        ingestor.metrics = Arc::new(Metrics::new(&registry).unwrap());
        let shutdown = Shutdown::new();
        let opened = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counter = opened.clone();
        *store.opened.lock().unwrap() = Some(Box::new(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        }));
        let running = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { ingestor.run(&shutdown).await }
        });
        wait_until("each lane has one of many open", || {
            opened.load(Ordering::Relaxed) >= 3 && metric(&registry, "ed_ingest_pending_files") >= 200.0
        })
        .await;
        shutdown.trigger();
        tokio::time::timeout(Duration::from_secs(20), running).await.expect("it ends").unwrap().unwrap();
    }
}
