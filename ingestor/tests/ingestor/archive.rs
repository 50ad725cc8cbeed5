//! The archive step after the commit.

use std::sync::Arc;

use common::clock::ManualClock;
use common::config::Archive;
use ingestor::IngestError;

use crate::faults::Faulty;
use crate::harness::{Zone, event, lines, run, tree};

#[tokio::test]
async fn each_mode_does_what_it_says_once_and_is_recorded() {
    for (mode, name) in [(Archive::Move, "move"), (Archive::Leave, "leave"), (Archive::Delete, "delete")] {
        let zone = Zone::new().await;
        zone.land("a/x.json", event("x"));
        let mut ingestor = zone.ingestor();
        ingestor.settings.archive = Some(mode);
        assert_eq!(run(&ingestor).await.unwrap().files.ingested, 1);
        let (pending, processed) = (tree(&zone.landing().join("pending")), tree(&zone.landing().join("processed")));
        match mode {
            Archive::Leave => assert_eq!((pending.len(), processed.len()), (1, 0)),
            Archive::Delete => assert_eq!((pending.len(), processed.len()), (0, 0)),
            _ => assert_eq!((pending.len(), processed.len()), (0, 1)),
        }
        let entry = zone.ledger().await["a/x.json"][0].clone();
        assert_eq!(entry["mode"].as_str(), Some(name), "{entry}");
        assert_eq!(entry["archived"].as_bool(), (mode != Archive::Leave).then_some(true), "{entry}");
        let mut again = zone.ingestor();
        again.settings.archive = Some(mode);
        let report = run(&again).await.unwrap();
        assert_eq!((report.files.ingested, report.files.skipped), (0, u64::from(mode == Archive::Leave)));
    }
}

#[tokio::test]
async fn tagged_objects_stay_and_are_tagged_once() {
    let zone = Zone::new().await;
    zone.land("x.json", event("x"));
    let tagging = |zone: &Zone| {
        let mut store = Faulty::new(zone.local_store(), 0);
        store.is_s3 = true;
        let store = Arc::new(store);
        let mut ingestor = zone.ingestor_over(store.clone());
        ingestor.settings.archive = Some(Archive::Tag);
        (store, ingestor)
    };
    let (store, ingestor) = tagging(&zone);
    run(&ingestor).await.unwrap();
    let tags = store.tags.lock().unwrap()["pending/x.json"].clone();
    assert_eq!(tags.get(ingestor::TAG.0).map(String::as_str), Some(ingestor::TAG.1));
    let (store, ingestor) = tagging(&zone);
    assert_eq!(run(&ingestor).await.unwrap().files.skipped, 1);
    assert!(store.tags.lock().unwrap().is_empty(), "the ledger knows that it is tagged");
}

#[tokio::test]
async fn a_mode_that_the_store_cannot_do_is_refused_before_anything_is_read() {
    let zone = Zone::new().await;
    zone.land("x.json", event("x"));
    let mut ingestor = zone.ingestor();
    ingestor.settings.archive = Some(Archive::Tag);
    let error = run(&ingestor).await.err().unwrap().to_string();
    assert!(error.contains("tag") && error.contains("S3"), "{error}");
    assert!(zone.values().await.is_empty());
}

#[tokio::test]
async fn files_that_were_left_move_when_the_mode_changes() {
    let zone = Zone::new().await;
    zone.land("x.json", event("x"));
    let mut leaving = zone.ingestor();
    leaving.settings.archive = Some(Archive::Leave);
    run(&leaving).await.unwrap();
    let mut moving = zone.ingestor();
    moving.settings.archive = Some(Archive::Move);
    let report = run(&moving).await.unwrap();
    assert_eq!((report.files.ingested, report.files.skipped), (0, 1));
    assert_eq!(tree(&zone.landing().join("processed")).len(), 1);
}

#[tokio::test]
async fn a_taken_target_is_not_overwritten() {
    let zone = Zone::new().await;
    zone.land("x.json", event("first"));
    zone.ingest().await;
    zone.land("x.json", event("second"));
    zone.ingest().await;
    let processed = zone.landing().join("processed");
    let mut contents: Vec<String> =
        tree(&processed).iter().map(|path| std::fs::read_to_string(processed.join(path)).unwrap()).collect();
    contents.sort();
    assert_eq!(contents, [event("first"), event("second")]);
}

#[tokio::test]
async fn an_archive_step_whose_answer_was_lost_is_finished_and_the_run_says_so() {
    let zone = Zone::new().await;
    for number in 0..20 {
        zone.land(&format!("{number}.json"), event(&number.to_string()));
    }
    let store = Arc::new(Faulty::new(zone.local_store(), 3));
    store.failures_per_mille.store(100, std::sync::atomic::Ordering::Relaxed);
    run(&zone.ingestor_over(store)).await.unwrap();
    assert_eq!(zone.events().await.len(), 20);
    assert!(zone.events().await.values().all(|times| *times == 1));
    assert!(tree(&zone.landing().join("pending")).is_empty());
    assert_eq!(tree(&zone.landing().join("processed")).len(), 20);
}

fn archiving(zone: &Zone, mode: Archive) -> ingestor::Ingestor {
    let mut ingestor = zone.ingestor();
    ingestor.settings.archive = Some(mode);
    ingestor
}

#[tokio::test]
async fn a_step_that_can_never_be_done_is_released_by_leave_and_nothing_is_ingested_twice() {
    let zone = Zone::new().await;
    for name in ["a.json", "b.json"] {
        zone.land(name, event(name));
    }
    std::fs::write(zone.landing().join("processed"), "in the way").unwrap();
    for _ in 0..2 {
        let error = run(&archiving(&zone, Archive::Move)).await.unwrap_err().to_string();
        for part in ["2 problems", "pending/a.json cannot be archived", "pending/b.json", "landing.archive = \"leave\""]
        {
            assert!(error.contains(part), "{part:?} is missing in {error}");
        }
    }
    let report = run(&archiving(&zone, Archive::Leave)).await.unwrap();
    assert_eq!((report.files.ingested, report.files.skipped), (0, 2));
    assert_eq!(zone.events().await.into_values().collect::<Vec<_>>(), [1, 1]);
    let entry = zone.ledger().await["a.json"][0].clone();
    assert_eq!(
        (entry["mode"].as_str(), entry.get("archive"), entry["state"].as_str()),
        (Some("leave"), None, Some("done"))
    );
    std::fs::remove_file(zone.landing().join("processed")).unwrap();
    let report = run(&archiving(&zone, Archive::Move)).await.unwrap();
    assert_eq!((report.files.skipped, tree(&zone.landing().join("processed")).len()), (2, 2), "it may be moved later");
}

#[tokio::test]
async fn a_pending_step_follows_the_current_mode() {
    let zone = Zone::new().await;
    zone.land("a.json", event("a"));
    std::fs::write(zone.landing().join("processed"), "in the way").unwrap();
    run(&archiving(&zone, Archive::Move)).await.unwrap_err();
    assert_eq!(run(&archiving(&zone, Archive::Delete)).await.unwrap().files.skipped, 1);
    assert!(tree(&zone.landing().join("pending")).is_empty());
    let entry = zone.ledger().await["a.json"][0].clone();
    assert_eq!((entry["mode"].as_str(), entry["archived"].as_bool()), (Some("delete"), Some(true)));
}

#[tokio::test]
async fn one_file_that_cannot_be_archived_keeps_no_other_from_being_archived() {
    let zone = Zone::new().await;
    for name in ["a/x.json", "b/x.json", "c/x.json"] {
        zone.land(name, event(name));
    }
    let store = Faulty::new(zone.local_store(), 0);
    store.immovable.lock().unwrap().push("pending/b/x.json".to_owned());
    let ingestor = zone.ingestor_over(Arc::new(store));
    let begun = std::time::Instant::now();
    let error = run(&ingestor).await.unwrap_err();
    assert!(begun.elapsed() < ingestor.settings.patience, "what does not pass is not waited for");
    let IngestError::Incomplete(problems) = error else { panic!("{error}") };
    assert_eq!((problems.total, problems.listed[0].file.as_str()), (1, "pending/b/x.json"));
    assert_eq!(ingestor.metrics.report().files.ingested, 3);
    assert_eq!(tree(&zone.landing().join("pending")), ["b/x.json"]);
}

/// Dead letters keep 100 bytes here.
fn cut_letter() -> String {
    format!("no event {}\n", "x".repeat(200))
}

#[tokio::test]
async fn a_file_that_is_the_only_copy_is_never_deleted() {
    let zone = Zone::new().await;
    let whole_letter = "no event\n";
    zone.land("cut.json", lines("cut", 20) + &cut_letter());
    zone.land("nothing.json", whole_letter);
    zone.land("whole.json", lines("whole", 3) + whole_letter);
    zone.land("good.json", lines("good", 3));
    zone.land("empty.json", "");
    for round in 0..3 {
        let report = run(&archiving(&zone, Archive::Delete)).await.unwrap();
        assert_eq!(report.files.kept, 2, "round {round}");
        assert_eq!(report.files.ingested, if round == 0 { 5 } else { 0 });
        assert_eq!(tree(&zone.landing().join("pending")), ["cut.json", "nothing.json"]);
    }
    // Copies of them have the same content, and must stay too.
    for name in ["cut.json", "nothing.json"] {
        zone.land(name, std::fs::read(zone.pending(name)).unwrap());
    }
    let report = run(&archiving(&zone, Archive::Delete)).await.unwrap();
    assert_eq!((report.files.ingested, report.files.kept), (0, 2));
    assert_eq!(tree(&zone.landing().join("pending")), ["cut.json", "nothing.json"]);
    // A move does not lose them.
    let report = run(&archiving(&zone, Archive::Move)).await.unwrap();
    assert_eq!((report.files.skipped, report.files.kept), (2, 0));
    assert_eq!(tree(&zone.landing().join("processed")).len(), 2);
    // Put back from there, they stay.
    let processed = zone.landing().join("processed");
    for path in tree(&processed) {
        std::fs::rename(processed.join(&path), zone.pending(path.rsplit('/').next().unwrap())).unwrap();
    }
    run(&archiving(&zone, Archive::Delete)).await.unwrap();
    assert_eq!(tree(&zone.landing().join("pending")), ["cut.json", "nothing.json"]);
}

#[tokio::test]
async fn an_object_that_is_the_only_copy_gets_no_tag_for_lifecycle_rules() {
    let zone = Zone::new().await;
    zone.land("cut.json", lines("cut", 20) + &cut_letter());
    zone.land("good.json", lines("good", 3));
    let mut store = Faulty::new(zone.local_store(), 0);
    store.is_s3 = true;
    let store = Arc::new(store);
    let mut ingestor = zone.ingestor_over(store.clone());
    ingestor.settings.archive = Some(Archive::Tag);
    assert_eq!(run(&ingestor).await.unwrap().files.kept, 1);
    assert_eq!(store.tags.lock().unwrap().keys().collect::<Vec<_>>(), ["pending/good.json"]);
}

#[tokio::test]
async fn a_file_in_the_place_of_the_day_is_named_and_moves_go_on_once_it_is_gone() {
    let mut zone = Zone::new().await;
    zone.clock = Arc::new(ManualClock::at(1_610_619_330_000));
    let day = zone.landing().join("processed/date=2021-01-14");
    std::fs::create_dir_all(day.parent().unwrap()).unwrap();
    std::fs::write(&day, "foreign").unwrap();
    for path in ["x.json", "a/y.json"] {
        zone.land(path, event(path));
    }
    let error = run(&zone.ingestor()).await.unwrap_err().to_string();
    for part in
        ["pending/x.json cannot be archived", "pending/a/y.json cannot be archived", "date=2021-01-14", "move it away"]
    {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(zone.values().await.len(), 2);
    assert_eq!(std::fs::read_to_string(&day).unwrap(), "foreign");
    std::fs::remove_file(&day).unwrap();
    let report = zone.ingest().await;
    assert_eq!((report.files.ingested, report.files.skipped), (0, 2));
    assert_eq!(tree(&day), ["a/y.json", "x.json"]);
}

#[tokio::test]
async fn a_processed_folder_that_cannot_be_used_is_a_clear_problem_and_events_are_published_all_the_same() {
    for (make, what) in [
        ((|path| std::fs::write(path, "").unwrap()) as fn(&std::path::Path), "a file"),
        (|path| std::os::unix::fs::symlink("nowhere", path).unwrap(), "a link to nowhere"),
    ] {
        let zone = Zone::new().await;
        make(&zone.landing().join("processed"));
        zone.land("x.json", event("x"));
        let error = run(&zone.ingestor()).await.unwrap_err().to_string();
        assert!(error.contains("pending/x.json cannot be archived") && error.contains("processed"), "{what}: {error}");
        assert_eq!(zone.values().await, [event("x")], "{what}");
        assert!(zone.pending("x.json").exists(), "{what}");
    }
}
