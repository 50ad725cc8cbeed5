//! Files with too many bad events: kept out whole, or stopped where they are, reported, and tried again when asked.

use common::config::Quarantine;

use crate::harness::{Zone, event, lines, run, tree};

fn rubbish(count: usize) -> String {
    "not json\n".repeat(count)
}

#[tokio::test]
async fn a_file_of_rubbish_is_quarantined_whole_and_told_every_time() {
    let zone = Zone::new().await;
    zone.land("bad.json", format!("{}{}", lines("x", 10), rubbish(100)));
    zone.land("good.json", format!("{}{}", lines("y", 100), rubbish(10)));
    for round in 0..2 {
        let report = zone.ingest().await;
        assert_eq!(report.files.quarantined, 1, "round {round}");
    }
    assert!(zone.values().await.iter().all(|value| value.contains("y-")), "nothing of it was published");
    assert_eq!(zone.dead_letters().await.len(), 10, "nor of its bad events");
    assert_eq!(tree(&zone.landing().join("pending")), ["bad.json"], "it stays in place");
    let ledger = zone.ledger().await;
    let entry = &ledger["bad.json"][0];
    assert_eq!((entry["state"].as_str(), entry["byte"].as_u64()), (Some("quarantined"), Some(0)));
    assert!(entry["reason"].as_str().unwrap().contains("quarantine.max_error_ratio"), "{entry}");
}

#[tokio::test]
async fn few_bad_events_are_no_reason() {
    let zone = Zone::new().await;
    zone.land("few.json", rubbish(50));
    let report = zone.ingest().await;
    assert_eq!((report.files.ingested, report.files.quarantined, report.events.rejected), (1, 0, 50));
}

#[tokio::test]
async fn quarantined_files_are_tried_again_when_asked_under_the_settings_of_then() {
    let zone = Zone::new().await;
    zone.land("bad.json", format!("{}{}", lines("x", 10), rubbish(100)));
    zone.ingest().await;
    let mut again = zone.ingestor();
    again.settings.retry_quarantined = true;
    let report = run(&again).await.unwrap();
    assert_eq!((report.files.ingested, report.files.quarantined), (0, 1), "still too bad");
    let mut again = zone.ingestor();
    again.settings.retry_quarantined = true;
    again.settings.quarantine.max_error_ratio = 1.0;
    let report = run(&again).await.unwrap();
    assert_eq!((report.files.ingested, report.events.published, report.events.rejected), (1, 10, 100));
    assert!(tree(&zone.landing().join("pending")).is_empty());
}

#[tokio::test]
async fn a_long_file_that_turns_bad_stops_there_and_goes_on_from_there() {
    let zone = Zone::new().await;
    let good = lines("x", 120_000);
    // Dead letters carry more than the rubbish itself, so this is several batches too.
    zone.land("long.json", format!("{good}{}{}", rubbish(200_000), event("last")));
    let report = zone.ingest().await;
    assert_eq!((report.files.ingested, report.files.quarantined), (0, 1));
    let ledger = zone.ledger().await;
    let entry = &ledger["long.json"][0];
    assert_eq!(entry["state"].as_str(), Some("partial"), "{entry}");
    let (byte, published) = (entry["byte"].as_u64().unwrap(), zone.events().await);
    assert!(byte > 0);
    assert_eq!(entry["events"].as_u64(), Some(published.len() as u64), "the entry counts what is committed");
    let letters = zone.dead_letters().await;
    assert_eq!(entry["rejected"].as_u64(), Some(letters.len() as u64));
    assert!(published.keys().chain(&letters).all(|(_, offset)| *offset < byte), "nothing behind its byte is published");

    let mut again = zone.ingestor();
    again.settings.retry_quarantined = true;
    again.settings.quarantine.max_error_ratio = 1.0;
    run(&again).await.unwrap();
    let events = zone.events().await;
    assert_eq!(events.len(), 120_001);
    assert!(events.values().all(|times| *times == 1), "never twice");
    assert_eq!(zone.dead_letters().await.len(), 200_000);
}

#[tokio::test]
async fn the_number_of_errors_can_be_limited_too() {
    let zone = Zone::new().await;
    zone.land("x.json", format!("{}{}", lines("x", 1_000), rubbish(3)));
    let mut strict = zone.ingestor();
    strict.settings.quarantine = Quarantine { max_errors: Some(2), ..strict.settings.quarantine };
    let report = run(&strict).await.unwrap();
    assert_eq!((report.files.quarantined, report.events.published), (1, 0));
}

#[tokio::test]
async fn dead_letters_that_keep_only_the_first_bytes_are_counted_over_all_batches_of_a_file() {
    let zone = Zone::new().await;
    // The letters of the tests keep 100 bytes.
    let (short, exact, long) = ("x".repeat(10), "y".repeat(100), "z".repeat(101));
    let bad = format!("{short}\n{exact}\n{long}\n");
    zone.land("mixed.json", format!("{bad}{}{bad}", lines("good", 60_000)));
    zone.land("short.json", format!("{short}\n{}", lines("good", 3)));
    let report = zone.ingest().await;
    assert_eq!((report.files.ingested, report.events.rejected), (2, 7));
    let ledger = zone.ledger().await;
    assert_eq!(ledger["mixed.json"][0]["cut"].as_u64(), Some(2), "{:?}", ledger["mixed.json"]);
    assert_eq!(ledger["short.json"][0].get("cut"), None, "none was cut");
}
