//! Dead letters are published later, once, even if the replay is interrupted.

use std::collections::BTreeMap;
use std::time::Duration;

use common::backoff::splitmix64;
use common::event::{EventFormat, PRESETS, TimeRule, TimestampFormat};
use common::json::Pointer;
use common::log::{Log, LogErrorKind, Retention, TopicSpec, read_to_end};
use ingestor::{DeadLetter, Limits, ReplayProgress, ReplayReport, ReplaySettings, replay};

use crate::harness::{Zone, event, lines, run};

const PATIENCE: Duration = Duration::from_secs(60);
const LIMITS: Limits = Limits { max_event_bytes: 100_000, bad_head_bytes: 1_000 };

fn settings() -> ReplaySettings {
    ReplaySettings {
        events_topic: "events".to_owned(),
        dlq_topic: "events.dlq".to_owned(),
        ledger_topic: "events.ledger".to_owned(),
        format: EventFormat::default(),
        limits: LIMITS,
        reason: None,
        dry_run: false,
    }
}

/// A format under which every RFC 3339 timestamp is invalid.
fn epoch_format() -> EventFormat {
    let mut rules = PRESETS[0].rules();
    rules.timestamp_format = TimestampFormat::EpochMs;
    EventFormat::new(&rules, TimeRule::utc(), None).unwrap()
}

fn format_with_records(pointer: &str) -> EventFormat {
    EventFormat::new(&PRESETS[0].rules(), TimeRule::utc(), Some(&Pointer::parse(pointer).unwrap())).unwrap()
}

/// Ingests the landed files under a format that does not fit them.
async fn ingest_with(zone: &Zone, format: EventFormat, limits: Limits) {
    let mut ingestor = zone.ingestor();
    ingestor.settings.format = format;
    ingestor.settings.limits = limits;
    ingestor.settings.quarantine.max_error_ratio = 1.0;
    run(&ingestor).await.unwrap();
}

async fn replay_all(zone: &Zone) -> ReplayReport {
    replay(&*zone.log, &settings()).await.unwrap()
}

/// Open letters by file and byte: reason and number of replays.
async fn open_letters(zone: &Zone) -> BTreeMap<(String, u64), Vec<(String, u32)>> {
    let progress = ReplayProgress::read(&*zone.log, "events.ledger").await.unwrap();
    let mut letters: BTreeMap<_, Vec<_>> = BTreeMap::new();
    read_to_end(&*zone.log, "events.dlq", 0, PATIENCE, |chunk| {
        for (record, offset) in chunk.records.iter().zip(&chunk.offsets) {
            let letter = DeadLetter::of(&record);
            if progress.is_open(0, *offset, &letter.reason) {
                let place = (letter.source.into_owned(), letter.byte_offset);
                letters.entry(place).or_default().push((letter.reason.into_owned(), letter.replays));
            }
        }
        Ok(())
    })
    .await
    .unwrap();
    letters
}

fn reasons(letters: &BTreeMap<(String, u64), Vec<(String, u32)>>) -> Vec<(&str, u32)> {
    letters.values().flatten().map(|(reason, replays)| (reason.as_str(), *replays)).collect()
}

#[tokio::test]
async fn letters_become_events_once_when_the_time_format_is_mended() {
    let zone = Zone::new().await;
    zone.land("a.json", lines("x", 50));
    ingest_with(&zone, epoch_format(), LIMITS).await;
    assert_eq!((zone.values().await.len(), open_letters(&zone).await.len()), (0, 50));
    let expected: BTreeMap<(String, u64), u32> =
        zone.dead_letters().await.into_iter().map(|place| (place, 1)).collect();

    let dry = replay(&*zone.log, &ReplaySettings { dry_run: true, ..settings() }).await.unwrap();
    assert_eq!((dry.events, zone.values().await.len()), (50, 0), "a dry run writes nothing");
    let report = replay_all(&zone).await;
    assert_eq!(report, ReplayReport { letters: 50, events: 50, ..ReplayReport::default() });
    assert_eq!(zone.events().await, expected, "each once, with its file and byte");
    assert!(open_letters(&zone).await.is_empty());
    assert_eq!(replay_all(&zone).await, ReplayReport::default(), "a second replay has nothing to do");
    assert_eq!(zone.events().await, expected);

    zone.land("b.json", lines("y", 3));
    ingest_with(&zone, epoch_format(), LIMITS).await;
    assert_eq!(replay_all(&zone).await.events, 3, "letters that came later are open");
}

#[tokio::test]
async fn letters_that_are_still_bad_stay_open_and_count_their_replays() {
    let zone = Zone::new().await;
    let text = format!("{}\nnot json\n{}\n", event("a"), event("b"));
    let bad_at = text.find("not json").unwrap() as u64;
    zone.land("a.json", text);
    ingest_with(&zone, epoch_format(), LIMITS).await;
    for round in 1..4 {
        let report = replay_all(&zone).await;
        assert_eq!(report.still_bad, [("not_json".to_owned(), 1)].into());
        let open = open_letters(&zone).await;
        assert_eq!(open, [(("a.json".to_owned(), bad_at), vec![("not_json".to_owned(), round)])].into());
    }
    assert_eq!(zone.values().await.len(), 2);
}

#[tokio::test]
async fn letters_that_were_cut_are_reported_and_kept_and_never_published_in_part() {
    let zone = Zone::new().await;
    // A whole value that is not an event; the part of it that is kept, which is not whole, contains one.
    zone.land("a.json", format!("{{\"payload\": {}, \"more\": [{}]}}", event("a"), "7, ".repeat(100) + "7"));
    ingest_with(&zone, EventFormat::default(), Limits { bad_head_bytes: 200, ..LIMITS }).await;
    let place = ("a.json".to_owned(), 0);
    assert_eq!(open_letters(&zone).await[&place], [("missing_field".to_owned(), 0)]);
    for round in 1..3 {
        let report = replay_all(&zone).await;
        assert_eq!(report, ReplayReport { letters: 1, cut: 1, ..ReplayReport::default() });
        assert_eq!(open_letters(&zone).await, [(place.clone(), vec![("missing_field".to_owned(), round)])].into());
    }
    assert!(zone.values().await.is_empty());
}

#[tokio::test]
async fn a_replay_of_one_reason_leaves_the_others_untouched() {
    let zone = Zone::new().await;
    zone.land("a.json", format!("rubbish\n{}\n{{\"x\":1}}\n{}\n", event("a"), event("b")));
    ingest_with(&zone, epoch_format(), LIMITS).await;
    let letters = zone.dead_letters().await.len();
    let of = |reason: &str| ReplaySettings { reason: Some(reason.to_owned()), ..settings() };
    let only = of(&open_letters(&zone).await[&("a.json".to_owned(), 8)][0].0);
    assert_eq!(replay(&*zone.log, &of("not_utf8")).await.unwrap(), ReplayReport::default());
    let report = replay(&*zone.log, &only).await.unwrap();
    assert_eq!((report.letters, report.events), (2, 2));
    assert_eq!(zone.dead_letters().await.len(), letters, "no letter was written");
    assert_eq!(reasons(&open_letters(&zone).await), [("not_json", 0), ("missing_field", 0)]);
    assert_eq!(replay(&*zone.log, &only).await.unwrap(), ReplayReport::default(), "none is left of it");
    let report = replay_all(&zone).await;
    assert_eq!((report.letters, report.events), (2, 0), "the others, and not again what was replayed");
    assert_eq!(zone.values().await.len(), 2);
}

#[tokio::test]
async fn wrappers_that_were_not_known_as_such_are_opened_and_elements_read_as_events() {
    let zone = Zone::new().await;
    zone.land("wrapped.json", format!(r#"{{"Records": [{}, {}, 7]}}"#, event("a"), event("b")));
    ingest_with(&zone, format_with_records("/records"), LIMITS).await;
    assert_eq!(reasons(&open_letters(&zone).await), [("no_records", 0)]);
    let report = replay(&*zone.log, &ReplaySettings { format: format_with_records("/Records"), ..settings() }).await;
    let report = report.unwrap();
    assert_eq!((report.events, report.still_bad), (2, [("not_an_object".to_owned(), 1)].into()));
    let places: Vec<u64> = zone.events().await.into_keys().map(|(_, byte)| byte).collect();
    assert_eq!(places, [13, 13 + event("a").len() as u64 + 2], "their bytes in the file");

    // An element of a wrapper that was bad by itself is not a wrapper.
    zone.land("element.json", format!(r#"{{"Records": [{}]}}"#, event("c")));
    let mut rules = PRESETS[0].rules();
    rules.timestamp_format = TimestampFormat::EpochMs;
    let pointer = Pointer::parse("/Records").unwrap();
    ingest_with(&zone, EventFormat::new(&rules, TimeRule::utc(), Some(&pointer)).unwrap(), LIMITS).await;
    let report = replay(&*zone.log, &ReplaySettings { format: format_with_records("/Records"), ..settings() }).await;
    assert_eq!(report.unwrap().events, 1);
}

#[tokio::test]
async fn a_file_that_ended_inside_an_array_stays_reported() {
    let zone = Zone::new().await;
    zone.land("a.json", format!("[{}", event("a")));
    ingest_with(&zone, EventFormat::default(), LIMITS).await;
    let report = replay_all(&zone).await;
    assert_eq!((report.letters, report.still_bad), (1, [("truncated".to_owned(), 1)].into()));
    assert_eq!(reasons(&open_letters(&zone).await), [("truncated", 1)]);
}

#[tokio::test]
async fn another_number_of_partitions_than_the_ledger_recorded_is_refused() {
    let zone = Zone::new().await;
    zone.land("a.json", lines("x", 1));
    ingest_with(&zone, epoch_format(), LIMITS).await;
    let other = TopicSpec { name: "other".to_owned(), partitions: 5, retention: Retention::Delete };
    zone.log.ensure_topic(&other).await.unwrap();
    let refused = replay(&*zone.log, &ReplaySettings { events_topic: "other".to_owned(), ..settings() }).await;
    assert_eq!(refused.err().map(|error| error.kind), Some(LogErrorKind::Misconfigured));
    let missing = replay(&*zone.log, &ReplaySettings { events_topic: "none".to_owned(), ..settings() }).await;
    assert!(missing.is_err() && zone.log.bounds("none").await.is_err(), "no topic is made");
}

/// Replays are killed at random moments and restarted, sometimes two at a time, while more letters arrive.
async fn storm(seed: u64) {
    let zone = Zone::new().await;
    let mut random = seed;
    let mut next = |below: u64| {
        random = splitmix64(random);
        random % below
    };
    // More than two transactions.
    let piece = |number: usize| {
        if number.is_multiple_of(10) { "rubbish\n".to_owned() } else { event(&format!("x-{number}")) + "\n" }
    };
    let mut good = 0;
    let mut bad = 0;
    for round in 0..3 {
        let count = 9_000;
        zone.land(&format!("{round}.json"), (0..count).map(piece).collect::<String>());
        ingest_with(&zone, epoch_format(), LIMITS).await;
        good += count * 9 / 10;
        bad += count / 10;
        for _ in 0..4 {
            let rivals: Vec<_> = (0..=next(2))
                .map(|_| {
                    let log = zone.log.clone();
                    tokio::spawn(async move { replay(&*log, &settings()).await })
                })
                .collect();
            for rival in rivals {
                tokio::time::sleep(Duration::from_millis(next(300))).await;
                rival.abort();
                let _ = rival.await;
            }
        }
    }
    replay_all(&zone).await;
    let events = zone.events().await;
    assert_eq!(events.len(), good, "seed {seed}: none is lost");
    assert!(events.values().all(|times| *times == 1), "seed {seed}: none twice");
    let open = open_letters(&zone).await;
    assert_eq!(open.len(), bad, "seed {seed}: bad letters stay open");
    assert!(open.values().all(|letters| letters.len() == 1), "seed {seed}: once each");
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_that_die_anywhere_and_rivals_publish_each_event_once() {
    for seed in 0..4 {
        storm(seed).await;
    }
}
