//! Files that are still being written, with an ingestor that ends when everything is done.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use common::config::Archive;
use ingestor::Ingestor;

use crate::faults::Faulty;
use crate::harness::{Zone, event, lines, run, tree, wait_until};

const HOUR: Duration = Duration::from_secs(3_600);

fn with_min_age(mut ingestor: Ingestor, min_age: Duration) -> Ingestor {
    ingestor.settings.discovery.min_age = min_age;
    ingestor
}

fn set_age(path: &Path, age: Duration) {
    let file = File::options().append(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

#[tokio::test]
async fn a_file_that_is_old_enough_by_its_modification_time_is_not_waited_for() {
    let zone = Zone::new().await;
    zone.land("x.json", event("x"));
    set_age(&zone.pending("x.json"), 2 * HOUR);
    let begun = Instant::now();
    assert_eq!(run(&with_min_age(zone.ingestor(), HOUR)).await.unwrap().files.ingested, 1);
    assert!(begun.elapsed() < Duration::from_secs(20), "it took {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_young_file_is_waited_for_once_and_read_if_it_is_unchanged() {
    let zone = Zone::new().await;
    for (name, age) in [("now.json", Duration::ZERO), ("soon.json", Duration::from_millis(200))] {
        zone.land(name, event(name));
        set_age(&zone.pending(name), age);
    }
    let begun = Instant::now();
    let report = run(&with_min_age(zone.ingestor(), Duration::from_millis(400))).await.unwrap();
    assert_eq!(report.files.ingested, 2);
    assert!(begun.elapsed() >= Duration::from_millis(350), "it was taken after {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_modification_time_in_the_future_keeps_no_file_for_longer_than_the_minimum_age() {
    let zone = Zone::new().await;
    zone.land("x.json", event("x"));
    let file = File::options().append(true).open(zone.pending("x.json")).unwrap();
    file.set_modified(SystemTime::now() + 24 * HOUR).unwrap();
    assert_eq!(run(&with_min_age(zone.ingestor(), Duration::from_millis(100))).await.unwrap().files.ingested, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_while_it_is_waited_for_is_skipped_reported_and_read_whole_later() {
    let zone = Zone::new().await;
    zone.land("done.json", event("done"));
    set_age(&zone.pending("done.json"), HOUR);
    zone.land("live.json", lines("live", 1));
    let (path, stop) = (zone.pending("live.json"), Arc::new(AtomicBool::new(false)));
    let stopped = stop.clone();
    let writing = std::thread::spawn(move || {
        let mut file = File::options().append(true).open(path).unwrap();
        while !stopped.load(Ordering::Relaxed) {
            file.write_all(b"\n").unwrap();
        }
    });
    let ingestor = with_min_age(zone.ingestor(), Duration::from_millis(300));
    let error = run(&ingestor).await.unwrap_err().to_string();
    stop.store(true, Ordering::Relaxed);
    writing.join().unwrap();
    assert!(error.contains("pending/live.json keeps changing") && error.contains("landing.min_age"), "{error}");
    assert!(!error.contains("done.json"), "{error}");
    assert_eq!(ingestor.metrics.report().files.ingested, 1, "the other one is done");
    assert_eq!(tree(&zone.landing().join("pending")), ["live.json"]);
    assert_eq!(zone.ingest().await.events.published, 1);
}

#[tokio::test]
async fn a_young_file_that_cannot_be_looked_up_again_is_reported() {
    let zone = Zone::new().await;
    for name in ["good.json", "lost.json"] {
        zone.land(name, event(name));
    }
    let store = Arc::new(Faulty::new(zone.local_store(), 0));
    *store.hidden.lock().unwrap() = vec!["pending/lost.json".to_owned()];
    let ingestor = with_min_age(zone.ingestor_over(store.clone()), Duration::from_millis(300));
    let error = run(&ingestor).await.unwrap_err().to_string();
    assert!(error.contains("pending/lost.json cannot be read: look-up denied"), "{error}");
    assert!(!error.contains("good.json"), "{error}");
    assert_eq!(ingestor.metrics.report().files.ingested, 1, "the other one is done");
    store.hidden.lock().unwrap().clear();
    assert_eq!(run(&zone.ingestor_over(store)).await.unwrap().files.ingested, 1);
}

/// Appends to a file that it opened before the move.
struct Writer(File);

impl Writer {
    fn open(path: &Path) -> Self {
        Self(File::options().append(true).open(path).unwrap())
    }

    fn write(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).unwrap();
    }
}

fn published(values: &[String], id: &str) -> usize {
    values.iter().filter(|value| value.contains(&format!("\"{id}\""))).count()
}

#[tokio::test]
async fn writes_after_the_move_are_found_by_the_next_run_and_become_events() {
    let zone = Zone::new().await;
    zone.land("live.json", event("l1") + "\n" + &event("l2")[..40]);
    let mut writer = Writer::open(&zone.pending("live.json"));
    let report = zone.ingest().await;
    assert_eq!((report.events.published, report.events.rejected), (1, 1), "the half line is a dead letter");
    writer.write(&(event("l2")[40..].to_owned() + "\n" + &event("l3") + "\n"));
    let report = zone.ingest().await;
    assert_eq!((report.files.ingested, report.events.published, report.events.rejected), (1, 3, 0));
    let values = zone.values().await;
    // The distributor drops the repetition of events already published.
    assert_eq!((published(&values, "l1"), published(&values, "l2"), published(&values, "l3")), (2, 1, 1));
    assert!(tree(&zone.landing().join("pending")).is_empty());
    let report = zone.ingest().await;
    assert_eq!((report.files.ingested, report.files.skipped), (0, 0), "it is not found again and again");
    assert_eq!(tree(&zone.landing().join("processed")).len(), 1);
}

#[tokio::test]
async fn writes_after_the_move_are_ingested_though_a_new_file_has_the_name() {
    let zone = Zone::new().await;
    zone.land("live.json", event("l1") + "\n");
    let mut writer = Writer::open(&zone.pending("live.json"));
    zone.ingest().await;
    writer.write(&(event("l2") + "\n"));
    zone.land("live.json", event("new") + "\n");
    zone.ingest().await;
    let values = zone.values().await;
    assert_eq!((published(&values, "l2"), published(&values, "new")), (1, 1));
    assert!(tree(&zone.landing().join("pending")).is_empty());
    assert_eq!(tree(&zone.landing().join("processed")).len(), 2);
    assert_eq!(zone.ingest().await.files.ingested, 0);
}

#[tokio::test]
async fn a_moved_file_that_was_only_touched_or_replaced_is_not_ingested_again() {
    let zone = Zone::new().await;
    zone.land("touched.json", event("touched"));
    zone.land("replaced.json", event("replaced"));
    zone.land("removed.json", event("removed"));
    zone.ingest().await;
    let processed = zone.landing().join("processed");
    for path in tree(&processed) {
        let path = processed.join(path);
        match path.file_name().unwrap().to_str().unwrap() {
            "touched.json" => set_age(&path, HOUR),
            "replaced.json" => {
                std::fs::write(path.with_extension("new"), event("other")).unwrap();
                std::fs::rename(path.with_extension("new"), &path).unwrap();
            }
            _ => std::fs::remove_file(&path).unwrap(),
        }
    }
    let report = zone.ingest().await;
    assert_eq!((report.files.ingested, report.events.published), (0, 0));
    assert_eq!(tree(&processed).len(), 2);
    assert!(tree(&zone.landing().join("pending")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_ingestor_ingests_writes_after_the_move() {
    let zone = Zone::new().await;
    zone.land("live.json", event("l1") + "\n");
    let mut writer = Writer::open(&zone.pending("live.json"));
    zone.ingest().await;
    writer.write(&(event("l2") + "\n"));
    let mut ingestor = zone.ingestor();
    ingestor.settings.once = false;
    let (metrics, shutdown) = (ingestor.metrics.clone(), common::shutdown::Shutdown::new());
    let running = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { ingestor.run(&shutdown).await }
    });
    wait_until("the file is read again", || metrics.report().events.published == 2).await;
    shutdown.trigger();
    running.await.unwrap().unwrap();
}

/// A file that grew between reading and moving is not moved, and is read again by the same run.
#[tokio::test]
async fn a_file_that_grows_before_it_is_archived_is_read_again_by_the_same_run() {
    for mode in [Archive::Move, Archive::Delete] {
        let zone = Zone::new().await;
        zone.land("x.json", event("a") + "\n");
        let store = Faulty::new(zone.local_store(), 0);
        let (path, is_done) = (zone.pending("x.json"), AtomicBool::new(false));
        // Small files are read when they are opened, so this runs directly afterwards.
        *store.opened.lock().unwrap() = Some(Box::new(move |key| {
            if key == "pending/x.json" && !is_done.swap(true, Ordering::SeqCst) {
                Writer::open(&path).write(&(event("b") + "\n"));
            }
        }));
        let mut ingestor = zone.ingestor_over(Arc::new(store));
        ingestor.settings.archive = Some(mode);
        let report = run(&ingestor).await.unwrap();
        assert_eq!(report.files.ingested, 2, "{mode:?}");
        let values = zone.values().await;
        assert_eq!((published(&values, "a"), published(&values, "b")), (2, 1), "{mode:?}");
        assert!(tree(&zone.landing().join("pending")).is_empty(), "{mode:?}");
    }
}
