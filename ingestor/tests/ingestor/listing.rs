//! Entries that cannot be listed, and entries that are not files of events.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::clock::ManualClock;
use common::config::Archive;
use common::shutdown::Shutdown;
use common::store::StoreErrorKind;
use common::telemetry::Registry;
use ingestor::{Ingestor, Metrics};
use tokio::sync::Semaphore;

use crate::faults::{Faulty, Pages};
use crate::harness::{Zone, event, metric, run, wait_until};

#[tokio::test]
async fn a_folder_that_cannot_be_listed_is_a_problem_and_every_other_file_is_ingested() {
    let zone = Zone::new().await;
    for path in ["a.json", "lost+found/x.json", "z/b.json"] {
        zone.land(path, event(path));
    }
    let store = Arc::new(Faulty::new(zone.local_store(), 0));
    *store.unlistable.lock().unwrap() = vec!["pending/lost+found/".to_owned()];
    let ingestor = zone.ingestor_over(store.clone());
    let error = run(&ingestor).await.unwrap_err().to_string();
    assert!(error.contains("pending/lost+found/") && error.contains("permission denied"), "{error}");
    assert_eq!(ingestor.metrics.report().files.ingested, 2);
    store.unlistable.lock().unwrap().clear();
    assert_eq!(run(&zone.ingestor_over(store)).await.unwrap().files.ingested, 1, "once it can be listed");
}

#[tokio::test]
async fn an_object_listed_without_all_properties_is_a_problem_of_its_own() {
    let zone = Zone::new().await;
    for path in ["a.json", "b.json", "c.json"] {
        zone.land(path, event(path));
    }
    let mut store = Faulty::new(zone.local_store(), 0);
    store.is_s3 = true;
    *store.unlistable.lock().unwrap() = vec!["pending/b.json".to_owned()];
    let ingestor = zone.ingestor_over(Arc::new(store));
    let error = run(&ingestor).await.unwrap_err().to_string();
    assert!(error.contains("pending/b.json"), "{error}");
    assert_eq!(ingestor.metrics.report().files.ingested, 2);
}

#[tokio::test]
async fn a_running_ingestor_shows_what_cannot_be_listed_until_it_can_be() {
    let zone = Zone::new().await;
    zone.land("a/x.json", event("x"));
    let store = Arc::new(Faulty::new(zone.local_store(), 0));
    *store.unlistable.lock().unwrap() = vec!["pending/a/".to_owned()];
    let registry = Registry::new();
    let mut ingestor = zone.ingestor_over(store.clone());
    ingestor.settings.once = false;
    ingestor.metrics = Arc::new(Metrics::new(&registry).unwrap());
    let (metrics, health, shutdown) = (ingestor.metrics.clone(), ingestor.health.clone(), Shutdown::new());
    let task = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { ingestor.run(&shutdown).await }
    });
    wait_until("it is counted", || metric(&registry, "ed_ingest_unlisted") == 1.0).await;
    wait_until("it is a problem", || metric(&registry, "ed_ingest_problem_files") == 1.0).await;
    let status = format!("{:?}", metrics.status());
    assert!(status.contains("pending/a/") && status.contains("cannot be listed"), "{status}");
    assert!(health.problems().is_empty(), "the rest is well: {:?}", health.problems());
    store.unlistable.lock().unwrap().clear();
    wait_until("it is ingested", || metrics.report().files.ingested == 1).await;
    wait_until("it is solved", || metric(&registry, "ed_ingest_problem_files") == 0.0).await;
    shutdown.trigger();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn files_where_no_listing_could_look_are_not_forgotten() {
    let mut zone = Zone::new().await;
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    zone.clock = clock.clone();
    let leave = |mut ingestor: Ingestor| {
        ingestor.settings.archive = Some(Archive::Leave);
        ingestor
    };
    for path in ["hidden/x.json", "gone.json"] {
        zone.land(path, event(path));
    }
    run(&leave(zone.ingestor())).await.unwrap();
    std::fs::remove_file(zone.pending("gone.json")).unwrap();
    clock.advance(86_500_000);
    let store = Arc::new(Faulty::new(zone.local_store(), 0));
    *store.unlistable.lock().unwrap() = vec!["pending/hidden/".to_owned()];
    let registry = Registry::new();
    let mut running = leave(zone.ingestor_over(store.clone()));
    running.settings.once = false;
    running.metrics = Arc::new(Metrics::new(&registry).unwrap());
    let (metrics, shutdown) = (running.metrics.clone(), Shutdown::new());
    let task = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { running.run(&shutdown).await }
    });
    wait_until("the missing one is forgotten", || metric(&registry, "ed_ingest_ledger_entries") == 1.0).await;
    let so_far = metric(&registry, "ed_ingest_sweeps_total");
    wait_until("it has listed often", || metric(&registry, "ed_ingest_sweeps_total") > so_far + 25.0).await;
    store.unlistable.lock().unwrap().clear();
    wait_until("the other one is known", || metrics.report().files.skipped == 1).await;
    assert_eq!(metrics.report().files.ingested, 0, "it is not ingested twice");
    shutdown.trigger();
    task.await.unwrap().unwrap();
    assert_eq!(zone.ledger().await.into_keys().collect::<Vec<_>>(), ["hidden/x.json"]);
}

#[tokio::test]
async fn entries_that_are_not_files_of_events_are_skipped_and_counted_by_reason() {
    let zone = Zone::new().await;
    zone.land("good.json", event("good"));
    zone.land("_temporary/0/_temporary/attempt_1/part-0.json", event("uncommitted"));
    zone.land("x/_logs/y.json", event("log"));
    zone.land("x/_SUCCESS", "");
    symlink(zone.pending("good.json"), zone.pending("link.json")).unwrap();
    symlink("nowhere", zone.pending("dangling.json")).unwrap();
    symlink("nowhere", zone.pending("_link.json")).unwrap();
    let _socket = UnixListener::bind(zone.pending("socket.json")).unwrap();
    let registry = Registry::new();
    let mut ingestor = zone.ingestor();
    ingestor.metrics = Arc::new(Metrics::new(&registry).unwrap());
    let report = run(&ingestor).await.unwrap();
    assert_eq!((report.files.ingested, report.events.published), (1, 1));
    let passed_over = report.files.passed_over;
    assert_eq!((passed_over.ignored_name, passed_over.symbolic_link, passed_over.special_file), (4, 2, 1));
    assert_eq!(metric(&registry, "ed_ingest_passed_over_files"), 7.0);
    let again = run(&zone.ingestor()).await.unwrap();
    assert_eq!(again.files.passed_over, passed_over, "each whole listing counts from zero");
}

#[tokio::test]
async fn hints_of_ignored_names_are_ignored_like_the_names() {
    let zone = Zone::new().await;
    zone.land("_temporary/part-0.json", event("uncommitted"));
    let registry = Registry::new();
    let mut ingestor = zone.ingestor();
    ingestor.settings.once = false;
    ingestor.hints = vec![ingestor::HintSource::Folder(zone.landing())];
    ingestor.metrics = Arc::new(Metrics::new(&registry).unwrap());
    let (metrics, shutdown) = (ingestor.metrics.clone(), Shutdown::new());
    let task = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { ingestor.run(&shutdown).await }
    });
    wait_until("a hint of it came", || {
        zone.land("_temporary/part-1.json", event("uncommitted"));
        metric(&registry, "ed_ingest_hints_total") >= 1.0
    })
    .await;
    zone.land("good.json", event("good"));
    wait_until("the good one is ingested", || metrics.report().files.ingested == 1).await;
    shutdown.trigger();
    task.await.unwrap().unwrap();
    assert_eq!(zone.values().await.len(), 1);
}

#[tokio::test]
async fn links_at_pending_and_processed_change_nothing() {
    let zone = Zone::new().await;
    std::fs::remove_dir(zone.landing().join("pending")).unwrap();
    for name in ["pending", "processed"] {
        std::fs::create_dir_all(zone.root.path().join("disk").join(name)).unwrap();
        symlink(zone.root.path().join("disk").join(name), zone.landing().join(name)).unwrap();
    }
    zone.land("a/x.json", event("x"));
    assert_eq!(zone.ingest().await.files.ingested, 1);
    assert!(crate::harness::tree(&zone.root.path().join("disk/pending")).is_empty());
    assert_eq!(crate::harness::tree(&zone.root.path().join("disk/processed")).len(), 1);
    assert_eq!(zone.ingest().await.files.ingested, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_landing_zone_that_could_not_be_listed_is_ready_again_once_it_can_be() {
    let zone = Zone::new().await;
    zone.land("x.json", event("x"));
    let store = Arc::new(Faulty::new(zone.local_store(), 0));
    let mut ingestor = zone.ingestor_over(store.clone());
    ingestor.settings.once = false;
    let (metrics, health, shutdown) = (ingestor.metrics.clone(), ingestor.health.clone(), Shutdown::new());
    let running = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { ingestor.run(&shutdown).await }
    });
    wait_until("it works", || metrics.report().files.ingested == 1 && health.problems().is_empty()).await;
    *store.unsurveyable.lock().unwrap() = Some((Pages::All, StoreErrorKind::Transient));
    wait_until("it is not ready", || !health.problems().is_empty()).await;
    let reason = health.problems().get("ingestor: landing zone").cloned().unwrap_or_default();
    assert!(reason.contains("the listing broke off"), "{:?}", health.problems());
    store.unsurveyable.lock().unwrap().take();
    wait_until("it is ready again", || health.problems().is_empty()).await;
    shutdown.trigger();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_listing_that_breaks_off_keeps_no_file_that_it_found_from_being_ingested() {
    for min_age in [Duration::ZERO, Duration::from_millis(300)] {
        let zone = Zone::new().await;
        for path in ["a.json", "b.json", "c.json", "z/d.json"] {
            zone.land(path, event(path));
        }
        let store = Arc::new(Faulty::new(zone.local_store(), 0));
        store.page_entries.store(2, Ordering::Relaxed);
        *store.unsurveyable.lock().unwrap() = Some((Pages::Later, StoreErrorKind::Denied));
        *store.unlistable.lock().unwrap() = vec!["pending/lost+found/".to_owned()];
        let mut ingestor = zone.ingestor_over(store.clone());
        ingestor.settings.discovery.min_age = min_age;
        let error = run(&ingestor).await.unwrap_err().to_string();
        for part in ["2 problems", "pending/ cannot be listed: the listing broke off", "pending/lost+found/"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert_eq!(ingestor.metrics.report().files.ingested, 2, "{min_age:?}");
        store.unsurveyable.lock().unwrap().take();
        store.unlistable.lock().unwrap().clear();
        assert_eq!(run(&zone.ingestor_over(store)).await.unwrap().files.ingested, 2, "once it can be listed");
    }
}

/// The young ones too, which are waited for.
#[tokio::test(flavor = "multi_thread")]
async fn files_are_counted_as_pending_while_the_first_listing_goes_on() {
    for min_age in [Duration::ZERO, Duration::from_secs(3_600)] {
        let zone = Zone::new().await;
        let store = Arc::new(Faulty::new(zone.local_store(), 0));
        for number in 0..40 {
            zone.land(&format!("{number}.json"), event(&number.to_string()));
            let never_read = Arc::new(Semaphore::new(0));
            store.gates.lock().unwrap().insert(format!("pending/{number}.json"), never_read);
        }
        store.page_entries.store(10, Ordering::Relaxed);
        *store.survey_gate.lock().unwrap() = Some(Arc::new(Semaphore::new(3)));
        let registry = Registry::new();
        let mut ingestor = zone.ingestor_over(store);
        ingestor.settings.once = false;
        ingestor.settings.discovery.min_age = min_age;
        ingestor.metrics = Arc::new(Metrics::new(&registry).unwrap());
        let shutdown = Shutdown::new();
        let running = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { ingestor.run(&shutdown).await }
        });
        wait_until("three pages are counted", || metric(&registry, "ed_ingest_pending_files") >= 30.0).await;
        assert!(metric(&registry, "ed_ingest_pending_bytes") > 30.0, "{min_age:?}");
        assert_eq!(metric(&registry, "ed_ingest_sweeps_total"), 0.0, "the listing goes on");
        shutdown.trigger();
        running.await.unwrap().unwrap();
    }
}
