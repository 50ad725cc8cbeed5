//! kill -9 at many points, then the same command again: every event once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::log::{KafkaLog, KafkaSettings, Log, read_to_end};

use crate::harness::{Ed, assert_tables_are_as_committed, entries, files, generate, services, unique_keys, wait_until};
use crate::kafka_s3::Zone;

/// Starts a process and kills it when `reached` is true; false if it ended by itself before.
fn kill_when(start: impl Fn() -> crate::harness::Process, what: &str, mut reached: impl FnMut() -> bool) -> bool {
    let mut process = start();
    let mut ended = false;
    wait_until(what, || {
        ended = process.has_ended();
        ended || reached()
    });
    process.kill();
    !ended
}

#[test]
fn run_killed_at_many_points_writes_every_event_once() {
    let root = tempfile::tempdir().unwrap();
    let (landing, trusted, log) = (root.path().join("landing"), root.path().join("trusted"), root.path().join("log"));
    let mut unique = 0;
    for seed in 0..6 {
        unique += generate(&landing.join("pending").join(seed.to_string()), 4_000, "ndjson", seed);
    }
    let command = || {
        let (landing, trusted) = (landing.to_str().unwrap(), trusted.to_str().unwrap());
        Ed::new(&["run", "--once", "--landing", landing, "--trusted", trusted]).set("flush.max_rows=300")
    };
    let mut killed = 0;
    // While the log is being created, after the first commit, then repeatedly a little later: between intents and files,
    // between files and commits, while archiving.
    let mut at_first = true;
    for further in [0, 1, 1, 1, 2, 2, 3, 3, 4, 5] {
        let goal = entries(&trusted) + further;
        let reached = || entries(&trusted) >= goal && (!at_first || trusted.join("_log/lock").exists());
        killed += u32::from(kill_when(|| command().start(&log), "the next point is reached", reached));
        at_first = false;
    }
    let output = std::fs::read_to_string(&log).unwrap_or_default();
    assert!(killed >= 5, "only {killed} runs were killed in the middle\n{output}");
    command().report();
    assert_eq!(unique_keys(&trusted).len() as u64, unique);
    assert_tables_are_as_committed(&trusted);
    Ed::new(&["verify", "--trusted", trusted.to_str().unwrap(), "--deep"]).report();
    assert!(files(&landing.join("pending"), "").is_empty());
    assert_eq!(files(&landing.join("processed"), ".ndjson").len(), 6, "every file is archived, none twice");
}

#[test]
fn ingest_killed_at_many_points_publishes_every_event_once() {
    let zone = Zone::new(&services(), "kill-ingest");
    let pending = zone.landing.1.join("pending");
    // One file of several transactions, and many small ones.
    let mut expected = 300_000;
    zone.land("large", expected, "ndjson", 1);
    let small = tempfile::tempdir().unwrap();
    for seed in 2..30 {
        generate(&small.path().join(seed.to_string()), 200, "array", seed);
        expected += 200;
    }
    zone.land_files(small.path(), "small");
    let log = tempfile::NamedTempFile::new().unwrap();
    let kafka =
        KafkaLog::new(KafkaSettings { brokers: zone.services.kafka.clone(), ..KafkaSettings::default() }).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let published = || {
        runtime
            .block_on(kafka.bounds(&zone.topic))
            .map_or(0, |bounds| bounds.values().map(|bounds| bounds.latest).sum::<i64>())
    };
    let mut killed = 0;
    for further in [1, 1, 1, 1, 1] {
        let goal = published() + further;
        killed += u32::from(kill_when(
            || zone.ingest().args(&["--once"]).start(log.path()),
            "enough is published",
            || published() >= goal,
        ));
    }
    assert!(killed >= 3, "only {killed} runs were killed in the middle");
    zone.ingest().args(&["--once"]).report();
    let mut seen: BTreeMap<(String, String), u32> = BTreeMap::new();
    runtime.block_on(async {
        for partition in kafka.bounds(&zone.topic).await.unwrap().into_keys() {
            read_to_end(&kafka, &zone.topic, partition, Duration::from_secs(30), |chunk| {
                for record in chunk.records.iter() {
                    let place = (
                        record.headers.text("source").unwrap().to_owned(),
                        record.headers.text("byte_offset").unwrap().to_owned(),
                    );
                    *seen.entry(place).or_default() += 1;
                }
                Ok(())
            })
            .await
            .unwrap();
        }
    });
    let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).take(3).collect();
    assert!(twice.is_empty(), "published more than once: {twice:?}");
    assert_eq!(seen.len() as u64, expected, "each event of each file is on the topic");
    assert!(files(&pending, "json").is_empty(), "archived = committed");
}

#[test]
fn distribute_killed_at_many_points_writes_every_event_once() {
    let zone = Zone::new(&services(), "kill-distribute");
    let unique = zone.land("files", 30_000, "ndjson", 9);
    zone.ingest().args(&["--once"]).report();
    let log = tempfile::NamedTempFile::new().unwrap();
    // A static member rejoins at once; otherwise the group waits for the session time-out of the killed one.
    let command = || zone.distribute().set("flush.max_rows=500").set("kafka.instance_id=one").args(&["--once"]);
    let mut killed = 0;
    let mut seen = BTreeSet::new();
    for further in [1, 1, 1, 2, 2, 3, 3, 4] {
        let goal = entries(&zone.trusted.1) + further;
        killed += u32::from(kill_when(
            || command().start(log.path()),
            "the next entry is put",
            || entries(&zone.trusted.1) >= goal,
        ));
        seen.insert(entries(&zone.trusted.1));
    }
    assert!(killed >= 5 && seen.len() >= 5, "killed {killed} times, at {seen:?} entries");
    command().report();
    assert_eq!(unique_keys(&zone.trusted.1).len() as u64, unique);
    zone.assert_sound();
}
