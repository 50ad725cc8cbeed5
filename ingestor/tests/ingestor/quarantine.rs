//! Files with too many bad events: quarantined whole, or from some byte on, reported, and retried on request.

use std::io::Write as _;

use common::config::Quarantine;
use ingestor::Settings;
use ingestor::content::ExpansionLimits;

use crate::harness::{Zone, event, lines, run, tree};

fn rubbish(count: usize) -> String {
    "not json\n".repeat(count)
}

#[tokio::test]
async fn a_file_of_noise_is_quarantined_whole_and_reported_every_time() {
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
async fn quarantined_files_are_retried_on_request_under_the_current_settings() {
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
    // Dead letters are larger than the noise itself, so this is several batches too.
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
    // The letters of this test keep 100 bytes.
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

fn gzip(body: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body.as_ref()).unwrap();
    encoder.finish().unwrap()
}

/// Ingests a file under a limit that quarantines it, and again under one that does not: nothing is lost or repeated.
async fn goes_on_when_the_limit_is_raised(
    name: &str,
    file: Vec<u8>,
    count: usize,
    state: &str,
    reason: &str,
    limit: impl Fn(&mut Settings),
) {
    let zone = Zone::new().await;
    zone.land(name, file);
    let mut limited = zone.ingestor();
    limit(&mut limited.settings);
    assert_eq!(run(&limited).await.unwrap().files.quarantined, 1, "{name}");
    let ledger = zone.ledger().await;
    let entry = &ledger[name][0];
    assert_eq!(entry["state"].as_str(), Some(state), "{entry}");
    let stated = entry["reason"].as_str().unwrap();
    assert!(stated.contains(reason) && stated.contains("--retry-quarantined"), "{stated}");
    let (byte, published) = (entry["byte"].as_u64().unwrap(), zone.events().await);
    assert_eq!(entry["events"].as_u64(), Some(published.len() as u64), "the entry counts what is committed");
    assert!(published.keys().all(|(_, offset)| *offset < byte), "nothing behind its byte is published");
    // Another request without a change has no effect.
    limited.settings.retry_quarantined = true;
    limited.metrics = zone.ingestor().metrics;
    run(&limited).await.unwrap();
    assert_eq!(zone.events().await.len(), published.len());

    let mut again = zone.ingestor();
    again.settings.retry_quarantined = true;
    assert_eq!(run(&again).await.unwrap().files.ingested, 1);
    let events = zone.events().await;
    assert_eq!(events.len(), count);
    assert!(events.values().all(|times| *times == 1), "never twice");
    assert!(tree(&zone.landing().join("pending")).is_empty());
}

#[tokio::test]
async fn a_file_that_grows_past_a_limit_is_quarantined_and_goes_on_when_it_is_raised() {
    let (small, large) = (gzip(lines("x", 1_000)), gzip(lines("x", 100_000)));
    let twice = gzip(&large);
    let ratio = |settings: &mut Settings| {
        settings.expansion = ExpansionLimits { max_ratio: 2, ratio_from_bytes: 50_000, ..settings.expansion };
    };
    let size = |settings: &mut Settings| settings.expansion.max_bytes = 9_000_000;
    goes_on_when_the_limit_is_raised("small.gz", small, 1_000, "quarantined", "landing.max_expansion_ratio = 2", ratio)
        .await;
    let reason = "landing.max_expanded_bytes = 9000000";
    goes_on_when_the_limit_is_raised("large.gz", large, 100_000, "partial", reason, size).await;
    goes_on_when_the_limit_is_raised("twice.gz", twice, 100_000, "partial", reason, size).await;
}

#[tokio::test]
async fn published_bytes_of_a_file_are_limited_over_all_attempts() {
    let reason = "landing.max_published_bytes = ";
    let most = |bytes| move |settings: &mut Settings| settings.max_published_bytes = bytes;
    let (small, large) = (lines("x", 100).into_bytes(), lines("x", 100_000).into_bytes());
    goes_on_when_the_limit_is_raised("small.json", small, 100, "quarantined", reason, most(5_000)).await;
    goes_on_when_the_limit_is_raised("large.json", large.clone(), 100_000, "partial", reason, most(12_000_000)).await;
    goes_on_when_the_limit_is_raised("large.gz", gzip(&large), 100_000, "partial", reason, most(12_000_000)).await;

    // Dead letters count as well.
    let zone = Zone::new().await;
    zone.land("bad.json", rubbish(1_000));
    let mut limited = zone.ingestor();
    limited.settings.quarantine.max_error_ratio = 1.0;
    limited.settings.max_published_bytes = 50_000;
    assert_eq!(run(&limited).await.unwrap().files.quarantined, 1);
    assert!(zone.dead_letters().await.is_empty(), "the file fits one batch, so it is kept out whole");
}

#[tokio::test]
async fn unsupported_formats_are_quarantined_whole_with_what_to_do_about_them() {
    let zone = Zone::new().await;
    let utf_16: Vec<u8> = event("x").encode_utf16().flat_map(u16::to_le_bytes).collect();
    zone.land("x.zip", [b"PK\x03\x04".as_slice(), &[7; 3_000]].concat());
    zone.land("y.json", utf_16);
    zone.land("good.json", event("good"));
    let report = zone.ingest().await;
    assert_eq!((report.files.quarantined, report.files.ingested, report.events.rejected), (2, 1, 0));
    assert_eq!(tree(&zone.landing().join("pending")), ["x.zip", "y.json"], "they stay in place");
    let ledger = zone.ledger().await;
    for (name, reason) in [("x.zip", "zip archive"), ("y.json", "UTF-16")] {
        assert!(ledger[name][0]["reason"].as_str().unwrap().contains(reason), "{:?}", ledger[name]);
    }
}

#[tokio::test]
async fn gzip_within_gzip_and_padded_gzip_give_their_events() {
    let zone = Zone::new().await;
    zone.land("twice.gz", gzip(gzip(lines("twice", 6_000))));
    zone.land("padded.gz", [gzip(lines("padded", 10)), vec![0; 10_240]].concat());
    let report = zone.ingest().await;
    assert_eq!((report.files.ingested, report.events.published, report.events.rejected), (2, 6_010, 0));
}
