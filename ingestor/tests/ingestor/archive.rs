//! What becomes of files after the commit.

use std::sync::Arc;

use common::config::Archive;

use crate::faults::Faulty;
use crate::harness::{Zone, event, run, tree};

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
