//! The two roles over real Kafka and a real S3 server.

use std::fs;
use std::path::PathBuf;

use common::log::{Log, RecordBatch};

use crate::harness::{
    Ed, Services, assert_tables_are_as_committed, contents, entries_of, files, generate, prompt_kafka, services,
    unique, unique_keys, wait_until,
};

/// A topic, a group and a pair of buckets for one test.
pub struct Zone {
    pub services: Services,
    pub topic: String,
    pub landing: (String, PathBuf),
    pub trusted: (String, PathBuf),
}

impl Zone {
    pub fn new(services: &Services, name: &str) -> Self {
        let bucket = |kind: &str| {
            let bucket = unique(&format!("{name}-{kind}"));
            let path = services.bucket(&bucket);
            (format!("s3://{bucket}/zone"), path.join("zone"))
        };
        Self { topic: unique(name), landing: bucket("landing"), trusted: bucket("trusted"), services: services.clone() }
    }

    /// Generates sample files in the landing zone below `pending/<folder>`; returns the number of unique events.
    pub fn land(&self, folder: &str, events: u64, format: &str, seed: u64) -> u64 {
        let dir = tempfile::tempdir().unwrap();
        let unique = generate(dir.path(), events, format, seed);
        self.land_files(dir.path(), folder);
        unique
    }

    pub fn land_files(&self, from: &std::path::Path, folder: &str) {
        let bucket = self.landing.0.strip_prefix("s3://").and_then(|rest| rest.strip_suffix("/zone")).unwrap();
        self.services.upload(from, bucket, &format!("zone/pending/{folder}"));
    }

    pub fn ingest(&self) -> Ed {
        let topic = format!("log.events_topic={}", self.topic);
        Ed::new(&["ingest", "--brokers", &self.services.kafka, "--landing", &self.landing.0])
            .set(&topic)
            .s3(&self.services)
    }

    pub fn distribute(&self) -> Ed {
        let (topic, group) = (format!("log.events_topic={}", self.topic), format!("kafka.group={}", self.topic));
        Ed::new(&["distribute", "--brokers", &self.services.kafka, "--trusted", &self.trusted.0])
            .set(&topic)
            .set(&group)
            .s3(&self.services)
    }

    /// A command that works with log and tables.
    fn maintain(&self, command: &str) -> Ed {
        let (topic, group) = (format!("log.events_topic={}", self.topic), format!("kafka.group={}", self.topic));
        Ed::new(&[command, "--brokers", &self.services.kafka, "--trusted", &self.trusted.0])
            .set(&topic)
            .set(&group)
            .set("table.retain=0s")
            .s3(&self.services)
    }

    pub fn verify(&self) -> Ed {
        self.maintain("verify")
    }

    pub fn replay(&self, to: &str) -> Ed {
        self.maintain("replay").args(&["--to", to])
    }

    pub fn rewrite(&self) -> Ed {
        self.maintain("rewrite")
    }

    pub fn compact(&self) -> Ed {
        self.maintain("compact")
    }

    pub fn abandon(&self) -> Ed {
        self.maintain("abandon")
    }

    /// Checks commit logs and files with the harness, and runs the deep audit.
    pub fn assert_sound(&self) -> serde_json::Value {
        assert_tables_are_as_committed(&self.trusted.1);
        self.verify().args(&["--deep"]).report()
    }
}

#[test]
fn files_in_s3_become_tables_in_s3_over_kafka_and_engines_read_them() {
    let zone = Zone::new(&services(), "whole");
    let mut unique = 0;
    for (seed, format) in [(1, "ndjson"), (2, "concatenated"), (3, "array"), (4, "pretty")] {
        unique += zone.land(format, 2_500, format, seed);
    }
    let bad = tempfile::tempdir().unwrap();
    fs::write(bad.path().join("bad one+%2F.json"), "{\"event_id\":1}\n").unwrap();
    zone.land_files(bad.path(), "ä");
    let report = zone.ingest().args(&["--once"]).report();
    assert_eq!(
        report,
        serde_json::json!({
            "files": {"ingested": 5, "skipped": 0, "quarantined": 0}, "events": {"published": 10_000, "rejected": 1}
        })
    );
    assert!(files(&zone.landing.1.join("pending"), "json").is_empty(), "archived");
    assert_eq!(files(&zone.landing.1.join("processed"), "json").len(), 5);

    let report = zone.distribute().args(&["--once"]).report();
    assert_eq!(report["written"]["rows"].as_u64(), Some(unique), "{report}");
    assert_eq!(unique_keys(&zone.trusted.1).len() as u64, unique);
    zone.assert_sound();

    engines_read(&zone, unique);

    // Nothing is new, so nothing happens.
    let again = zone.distribute().args(&["--once"]).report();
    assert_eq!(again["written"]["files"].as_u64(), Some(0), "{again}");
}

/// Reads the tables with DuckDB and pyarrow, and checks Spark's requirements on a folder.
fn engines_read(zone: &Zone, rows: u64) {
    let check = concat!(env!("CARGO_MANIFEST_DIR"), "/readers/check.py");
    let mut command = std::process::Command::new(&zone.services.python);
    let output = command.arg(check).arg(&zone.trusted.1).arg(rows.to_string()).output().unwrap();
    let printed = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{}", printed.concat());
}

#[test]
fn missing_files_are_restored_byte_for_byte_after_an_offset_reset() {
    let zone = Zone::new(&services(), "replay");
    zone.land("files", 6_000, "ndjson", 5);
    zone.ingest().args(&["--once"]).report();
    zone.distribute().set("flush.max_rows=500").args(&["--once"]).report();
    let before = contents(&zone.trusted.1);
    let victims: Vec<_> = files(&zone.trusted.1.join("events"), ".parquet").into_iter().step_by(3).collect();
    assert!(victims.len() > 20);
    for victim in &victims {
        fs::remove_file(victim).unwrap();
    }
    let missing = zone.verify().args(&["--output", "json"]).output();
    assert_eq!(missing.status.code(), Some(1));
    let audit: serde_json::Value = serde_json::from_slice(&missing.stdout).unwrap();
    let findings = audit["findings"].as_array().unwrap();
    assert!(findings.len() == victims.len() && findings.iter().all(|found| found["kind"] == "file-missing"), "{audit}");
    reset_offsets(&zone, "earliest");
    // Other settings than those of the batches' intents: the batches keep theirs.
    let report =
        zone.distribute().set("flush.max_rows=700").set("trusted.max_rows_per_file=9000").args(&["--once"]).report();
    assert_eq!(report["written"]["rows"].as_u64(), Some(0), "no new batch: {report}");
    let after = contents(&zone.trusted.1);
    assert!(before == after, "the trusted zone is what it was, byte for byte");
    zone.assert_sound();
}

#[test]
fn replay_sets_offsets_back_once_no_distributor_is_left() {
    let zone = Zone::new(&services(), "again");
    zone.land("files", 2_000, "ndjson", 16);
    zone.ingest().args(&["--once"]).report();
    let logs = tempfile::tempdir().unwrap();
    let mut distributor =
        zone.distribute().set("flush.max_rows=200").set("flush.max_age=1s").start(&logs.path().join("log"));
    let listed = || zone.verify().args(&["--output", "json"]).output();
    let rows = || {
        let audit: serde_json::Value = serde_json::from_slice(&listed().stdout).unwrap_or_default();
        let partitions = audit["partitions"].as_array().cloned().unwrap_or_default();
        let count = |name: &str| partitions.iter().filter_map(|partition| partition[name].as_u64()).sum::<u64>();
        count("rows") + count("duplicates")
    };
    wait_until("everything is written", || rows() == 2_000);
    // Without the watermark, which moves on.
    let zone_contents = || {
        let mut contents = contents(&zone.trusted.1);
        contents.retain(|path, _| !path.starts_with("_watermark"));
        contents
    };
    let before = zone_contents();
    let replay = |dry_run: bool| {
        let flags: &[&str] = if dry_run { &["--dry-run"] } else { &[] };
        zone.replay("earliest").args(flags)
    };
    let refused = replay(false).output();
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(1) && message.contains("has members: stop every distributor first"),
        "{message}"
    );
    distributor.signal("TERM");
    assert_eq!(distributor.wait_for_exit(), Some(0));
    for victim in files(&zone.trusted.1.join("events"), ".parquet").iter().step_by(2) {
        fs::remove_file(victim).unwrap();
    }
    let planned = replay(true).report();
    let sum = |report: &serde_json::Value, name: &str| {
        report["partitions"].as_array().unwrap().iter().map(|plan| plan[name].as_u64().unwrap()).sum::<u64>()
    };
    assert!(sum(&planned, "missing") > 10 && sum(&planned, "missing") == sum(&planned, "restorable"), "{planned}");
    replay(false).report();
    // With `report` missing files are only reported.
    let log = logs.path().join("report");
    zone.distribute().set("replay.missing=report").args(&["--once"]).start(&log).wait_for_exit();
    assert!(fs::read_to_string(&log).unwrap().contains("replay.missing is 'report'"));
    assert!(zone_contents().len() < before.len());
    replay(false).report();
    zone.distribute().args(&["--once"]).report();
    assert!(before == zone_contents(), "the trusted zone is what it was, byte for byte");
    zone.assert_sound();
}

#[test]
fn offsets_set_forward_and_lost_records_are_skipped_and_recorded() {
    let zone = Zone::new(&services(), "forward");
    let ingest = |folder: &str, events: u64, seed: u64| {
        zone.land(folder, events, "ndjson", seed);
        zone.ingest().set("log.partitions=1").args(&["--once"]).report();
    };
    let distribute = || zone.distribute().args(&["--once"]).report()["written"]["rows"].as_u64().unwrap();
    ingest("first", 2_000, 11);
    let first = distribute();
    assert!(first > 1_900);
    // Only the end marker of the last transaction follows, which takes an offset of its own.
    reset_offsets(&zone, "latest");
    assert_eq!(distribute(), 0);
    ingest("skipped", 1_000, 12);
    reset_offsets(&zone, "latest");
    ingest("second", 500, 13);
    let second = distribute();
    assert!((400..=500).contains(&second), "{second}");
    ingest("lost", 1_000, 14);
    delete_records(&zone, -1);
    ingest("third", 500, 15);
    let third = distribute();
    assert!((400..=500).contains(&third), "{third}");
    assert_eq!(unique_keys(&zone.trusted.1).len() as u64, first + second + third, "skipped events became rows");
    let audit = zone.assert_sound();
    let audited = &audit["partitions"][0];
    let passed_over = |kind: &str| audited[kind].as_u64().unwrap();
    assert!((1_001..1_020).contains(&passed_over("skipped_offsets")), "{audit}");
    assert!((1_000..1_020).contains(&passed_over("lost_offsets")), "{audit}");
    assert_eq!(passed_over("recounted_batches"), 1, "of three batches the log still holds one: {audit}");
    let ops = entries_of(&zone.trusted.1, &zone.topic).into_iter().flat_map(|path| {
        let entry: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        entry["ops"].as_array().unwrap().clone()
    });
    let kinds: Vec<String> = ops
        .filter(|op| op["op"] == "commit" || op["op"] == "pass")
        .map(|op| op["reason"].as_str().unwrap_or("batch").to_owned())
        .collect();
    assert_eq!(kinds, ["batch", "skipped", "skipped", "batch", "lost", "batch"]);
}

/// Simulates a distributor that died while it put its files, and did not return until retention had deleted the first
/// half of its batch.
#[test]
fn a_batch_that_lost_its_head_to_retention_is_refused_until_it_is_abandoned() {
    let zone = Zone::new(&services(), "beheaded");
    zone.land("first", 2_000, "ndjson", 31);
    zone.ingest().set("log.partitions=1").args(&["--once"]).report();
    // What is taken back here it would name.
    zone.distribute().set("table.format=none").args(&["--once"]).report();
    let all = unique_keys(&zone.trusted.1).len() as u64;
    let entries = entries_of(&zone.trusted.1, &zone.topic);
    assert_eq!(entries.len(), 2, "header with intent, and commit");
    fs::remove_file(&entries[1]).unwrap();
    // A checkpoint that was put in time would hold it.
    let commits = entries[1].parent().unwrap().parent().unwrap();
    for folder in ["checkpoints", "segments"].map(|name| commits.join(name)).iter().filter(|folder| folder.exists()) {
        fs::remove_dir_all(folder).unwrap();
    }
    let root = commits.join("root.json");
    if root.exists() {
        fs::remove_file(root).unwrap();
    }
    let put: Vec<_> =
        ["events", "rejected"].iter().flat_map(|table| files(&zone.trusted.1.join(table), ".parquet")).collect();
    assert!(put.len() > 6, "{put:?}");
    put.iter().step_by(2).for_each(|path| fs::remove_file(path).unwrap());
    delete_records(&zone, 1_000);
    let refused = zone.distribute().args(&["--once"]).output();
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && message.contains("'abandon' closes it"), "{message}");
    let planned = zone.abandon().args(&["--dry-run"]).report();
    let partition = &planned["partitions"][0];
    assert_eq!((partition["from"].as_i64(), partition["resume_at"].as_i64()), (Some(0), Some(1_000)), "{planned}");
    assert_eq!(partition["visible_files"].as_array().unwrap().len(), put.len() / 2, "{planned}");
    assert_eq!(zone.abandon().report()["partitions"], planned["partitions"]);
    assert!(unique_keys(&zone.trusted.1).is_empty(), "nothing of it stays visible");
    assert_eq!(zone.abandon().report()["partitions"], serde_json::json!([]), "nothing is left to abandon");
    // Its owner died before it committed the offset.
    reset_offsets(&zone, "earliest");
    let report = zone.distribute().args(&["--once"]).report();
    let rows = unique_keys(&zone.trusted.1).len() as u64;
    let audit = zone.assert_sound();
    let partition = &audit["partitions"][0];
    assert_eq!(
        (&partition["abandoned_batches"], &partition["abandoned_offsets"]),
        (&1.into(), &1_000.into()),
        "{audit}"
    );
    assert!(rows < all && all - rows <= 1_000, "{rows} of {all} rows are there");
    assert_eq!(report["written"]["rows"].as_u64().unwrap(), rows);
    engines_read(&zone, rows);
    zone.land("second", 500, "ndjson", 32);
    zone.ingest().set("log.partitions=1").args(&["--once"]).report();
    assert!(zone.distribute().args(&["--once"]).report()["written"]["rows"].as_u64().unwrap() > 400, "it goes on");
    zone.assert_sound();
}

/// Deletes the records of partition 0 before `offset`, with Kafka's own tool; -1: all.
fn delete_records(zone: &Zone, offset: i64) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("offsets.json");
    let partition = serde_json::json!({"topic": zone.topic, "partition": 0, "offset": offset});
    fs::write(&file, serde_json::json!({"version": 1, "partitions": [partition]}).to_string()).unwrap();
    zone.services
        .kafka_tool("org.apache.kafka.tools.DeleteRecordsCommand", &["--offset-json-file", file.to_str().unwrap()]);
}

/// With Kafka's own tool.
fn reset_offsets(zone: &Zone, to: &str) {
    let (topic, to) = (&zone.topic, format!("--to-{to}"));
    let printed = zone.services.kafka_tool(
        "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
        &["--group", topic, "--topic", topic, "--reset-offsets", &to, "--execute"],
    );
    assert!(!printed.contains("Error"), "{printed}");
}

#[test]
fn two_distributors_share_the_partitions_and_each_event_is_written_once() {
    let zone = Zone::new(&services(), "share");
    let unique = zone.land("files", 20_000, "ndjson", 6);
    zone.ingest().args(&["--once"]).report();
    let logs = tempfile::tempdir().unwrap();
    let mut workers: Vec<_> = (0..2)
        .map(|number| {
            zone.distribute()
                .set("flush.max_rows=1000")
                .args(&["--once"])
                .start(&logs.path().join(format!("{number}.log")))
        })
        .collect();
    for worker in &mut workers {
        assert_eq!(worker.wait_for_exit(), Some(0));
    }
    assert_eq!(unique_keys(&zone.trusted.1).len() as u64, unique);
    zone.assert_sound();
}

/// Records behind an open transaction of any producer cannot be read yet; that is not the end of the topic.
#[test]
fn once_waits_for_open_transactions_before_it_ends() {
    let zone = Zone::new(&services(), "open");
    let unique = zone.land("files", 2_000, "ndjson", 3);
    // Creates the topic.
    std::fs::create_dir_all(zone.landing.1.join("pending")).unwrap();
    zone.ingest().args(&["--once"]).report();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let kafka = prompt_kafka(&zone.services.kafka, &[]);
    let mut slow = runtime.block_on(async {
        let mut slow = kafka.writer(&format!("{}-slow", zone.topic)).await.unwrap();
        slow.begin().await.unwrap();
        for partition in 0..4 {
            let mut batch = RecordBatch::new();
            batch.push(b"slow", Some(b"not an event"), |headers| headers.put("source", b"slow")).unwrap();
            slow.append(&zone.topic, partition, &batch).await.unwrap();
        }
        slow
    });
    let before = runtime.block_on(kafka.bounds(&zone.topic)).unwrap();
    crate::harness::wait_until("the open transaction is on the log", || {
        runtime.block_on(kafka.bounds(&zone.topic)).unwrap().iter().all(|(partition, bounds)| {
            let settled = runtime.block_on(kafka.settled_end(&zone.topic, *partition)).unwrap();
            settled < bounds.latest && before.contains_key(partition)
        })
    });
    let further = zone.land("more", 2_000, "ndjson", 4);
    zone.ingest().args(&["--once"]).report();
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut process = zone.distribute().args(&["--once"]).start(log.path());
    let log_lines = || std::fs::read_to_string(log.path()).unwrap_or_default();
    crate::harness::wait_until("it waits, or has ended", || {
        log_lines().contains("transaction that is open") || process.has_ended()
    });
    runtime.block_on(slow.commit()).unwrap();
    assert_eq!(process.wait_for_exit(), Some(0), "{}", log_lines());
    assert_eq!(unique_keys(&zone.trusted.1).len() as u64, unique + further);
}
