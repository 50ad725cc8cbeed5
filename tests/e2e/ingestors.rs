//! Several ingestors on one landing zone: they share it, take over from each other, and publish nothing twice.

use std::path::Path;

use crate::harness::{Ed, Process, files, services, wait_until};
use crate::kafka_s3::Zone;
use crate::topic::Topics;

/// A member of the group that leaves it soon after it is killed or stopped.
fn member(zone: &Zone) -> Ed {
    zone.ingest().set("kafka.client.session.timeout.ms=6000").set("landing.poll_interval=100ms")
}

fn read_log(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

fn owns(log: &Path) -> usize {
    read_log(log).matches("owning a ledger partition").count()
}

/// Creates many small files and two of several transactions; returns the number of events.
fn land(zone: &Zone, name: &str, seed: u64) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    crate::harness::generate(&dir.path().join("large-1"), 60_000, "ndjson", seed);
    crate::harness::generate(&dir.path().join("large-2"), 60_000, "array", seed + 1);
    for number in 0..40 {
        crate::harness::generate(&dir.path().join(format!("small-{number}")), 50, "ndjson", seed + 2 + number);
    }
    zone.land_files(dir.path(), name);
    122_000
}

#[test]
fn several_ingestors_share_the_work_and_take_over_from_one_that_is_killed() {
    let zone = Zone::new(&services(), "share");
    let topics = Topics::new(&zone.services, &zone.topic);
    let pending = zone.landing.1.join("pending");
    let logs = tempfile::tempdir().unwrap();
    let log = |name: &str| logs.path().join(name);
    let mut first = member(&zone).start(&log("first"));
    wait_until("the first owns all partitions", || owns(&log("first")) >= 8);
    let _second = member(&zone).start(&log("second"));
    wait_until("the second owns its share", || owns(&log("second")) >= 4);
    let mut expected = land(&zone, "a", 1);
    wait_until("both have read files", || {
        read_log(&log("first")).contains("file read") && read_log(&log("second")).contains("file read")
    });
    first.kill();
    expected += land(&zone, "b", 100);
    wait_until("the second does the rest", || files(&pending, "json").is_empty());
    topics.assert_each_event_once(expected);
    let (ledger, _) = topics.ledger();
    assert_eq!(ledger.len(), 84);
    assert!(ledger.values().all(|entry| entry["state"] == "done"), "{ledger:?}");
    let counted: u64 = ledger.values().map(|entry| entry["events"].as_u64().unwrap()).sum();
    assert_eq!(counted, expected, "the ledger agrees");
}

#[test]
fn an_ingestor_that_resumes_after_it_was_replaced_does_no_harm() {
    let zone = Zone::new(&services(), "zombie");
    let topics = Topics::new(&zone.services, &zone.topic);
    let pending = zone.landing.1.join("pending");
    let logs = tempfile::tempdir().unwrap();
    let log = |name: &str| logs.path().join(name);
    let mut expected = land(&zone, "a", 1);
    let mut zombie: Process = member(&zone).start(&log("zombie"));
    let before = topics.end();
    wait_until("it is in the middle", || topics.end() > before);
    zombie.signal("STOP");
    let mut heir = member(&zone).start(&log("heir"));
    wait_until("the other takes over", || owns(&log("heir")) >= 8);
    wait_until("and does the rest", || files(&pending, "json").is_empty());
    // A file with a name that the zombie was about to move, and content that it has never read.
    expected += land(&zone, "a", 100);
    zombie.signal("CONT");
    wait_until("the new files are done, by whomever", || files(&pending, "json").is_empty());
    wait_until("the zombie has learnt of its state", || {
        read_log(&log("zombie")).contains("revoked") || read_log(&log("zombie")).contains("trying again")
    });
    for process in [&mut zombie, &mut heir] {
        process.signal("TERM");
        assert_eq!(process.wait_for_exit(), Some(0));
    }
    topics.assert_each_event_once_by_version(expected);
}

#[test]
fn a_compacted_ledger_has_the_same_state() {
    let zone = Zone::new(&services(), "compact");
    let topics = Topics::new(&zone.services, &zone.topic);
    let leave = || zone.ingest().set("landing.archive=leave").set("ledger.partitions=1").args(&["--once"]);
    // A file of several transactions has several entries, of which compaction keeps one.
    zone.land("large", 200_000, "ndjson", 1);
    let mut expected = 200_000;
    leave().report();
    let (before, records) = topics.ledger();
    zone.services.kafka_tool(
        "kafka.admin.ConfigCommand",
        &[
            "--alter",
            "--entity-type",
            "topics",
            "--entity-name",
            &format!("{}.ledger", zone.topic),
            "--add-config",
            "segment.ms=100,min.cleanable.dirty.ratio=0.001,max.compaction.lag.ms=100,delete.retention.ms=100",
        ],
    );
    let mut small = 0;
    wait_until("the ledger is compacted", || {
        // A new segment begins only with a new record.
        expected += zone.land(&format!("small-{small}"), 1, "ndjson", 50 + small);
        small += 1;
        leave().report();
        let (ledger, now) = topics.ledger();
        now < records + usize::try_from(small).unwrap() && before.keys().all(|identity| ledger.contains_key(identity))
    });
    let report = leave().report();
    assert_eq!(report["files"]["ingested"].as_u64(), Some(0), "{report}");
    assert_eq!(report["files"]["skipped"].as_u64(), Some(topics.ledger().0.len() as u64), "{report}");
    topics.assert_each_event_once(expected);
}
