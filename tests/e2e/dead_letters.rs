//! Dead letters from an operator's view: listed, corrected, replayed, written.

use std::fs;
use std::path::Path;

use crate::harness::{Ed, rows, services, unique};

fn event(id: &str) -> String {
    format!(
        "{{\"event_id\":\"{id}\",\"timestamp\":\"2021-01-14T10:15:30\",\"domain\":\"d\",\"event_type\":\"t\",\"data\":{{}}}}\n"
    )
}

fn land(root: &Path) {
    fs::create_dir_all(root.join("landing/pending")).unwrap();
    let text: String = (0..30).map(|number| event(&format!("e{number}"))).collect();
    fs::write(root.join("landing/pending/a.json"), format!("{text}not json\n")).unwrap();
    fs::write(root.join("landing/pending/b.json"), format!("\"{}\"\n", "x".repeat(3_000))).unwrap();
}

fn run(root: &Path, timestamps: &str) -> serde_json::Value {
    Ed::new(&["run", "--once", "--landing", "landing", "--trusted", "trusted"])
        .set(&format!("format.timestamp_format={timestamps}"))
        .set("dlq.max_bytes=1KiB")
        .in_dir(root)
        .report()
}

fn dlq(root: &Path, args: &[&str]) -> String {
    let output = Ed::new(&["dlq"]).args(args).args(&["--trusted", "trusted"]).in_dir(root).output();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn letters_of_a_wrong_time_format_are_listed_replayed_and_written_as_rows() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    land(root);
    let report = run(root, "epoch_ms");
    assert_eq!((report["events"]["published"].as_u64(), report["events"]["rejected"].as_u64()), (Some(0), Some(32)));

    let listed = dlq(root, &["list"]);
    for part in [
        "bad_timestamp          30  a.json:0\n",
        "91 bytes: {\"event_id\":\"e0\"",
        "first 1,024 of 3,002 bytes",
        "… and 10 more",
        "\n32 dead letters\n",
    ] {
        assert!(listed.contains(part), "{part:?} is missing in\n{listed}");
    }
    let only = dlq(root, &["list", "--reason", "not_json", "--limit", "0"]);
    assert!(only.contains("\n1 dead letter of this reason; of others: 30 bad_timestamp, 1 not_an_object\n"), "{only}");
    assert!(!only.contains("bad_timestamp  ") && only.matches("not_json").count() > 1, "{only}");

    let would = dlq(root, &["replay", "--dry-run"]);
    assert!(would.starts_with("nothing was written") && would.contains(" 30\n"), "{would}");
    let replay = ["replay", "--output", "json", "--set", "format.timestamp_format=rfc3339"];
    let replayed: serde_json::Value = serde_json::from_str(&dlq(root, &replay)).unwrap();
    let expected =
        serde_json::json!({"letters": 32, "events": 30, "still_bad": {"not_json": 1}, "cut": 1, "dry_run": false});
    assert_eq!(replayed, expected);
    let again: serde_json::Value = serde_json::from_str(&dlq(root, &replay)).unwrap();
    assert_eq!(again["events"], 0, "never twice: {again}");

    let open = dlq(root, &["list", "--output", "json"]);
    let open: Vec<serde_json::Value> = open.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(open.last().unwrap()["dead_letters"], 2);
    let cut = open.iter().find(|letter| letter["source"] == "b.json").unwrap();
    assert_eq!(
        (cut["cut"].as_bool(), cut["kept_bytes"].as_u64(), cut["replays"].as_u64()),
        (Some(true), Some(1_024), Some(2))
    );
    assert!(cut["open"] == true && cut["identity"].as_str().unwrap().starts_with("b.json|"), "{cut}");
    let all = dlq(root, &["list", "--all", "--output", "json"]);
    assert_eq!(all.lines().filter(|line| line.contains("\"open\":false")).count(), 34, "{all}");

    let report = run(root, "rfc3339");
    assert_eq!(report["written"]["rows"].as_u64(), Some(30), "{report}");
    assert!(rows(&root.join("trusted")).iter().all(|row| row.source == "a.json"));
}

#[test]
fn letters_are_replayed_over_kafka_too() {
    let (services, prefix) = (services(), unique("replay"));
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    land(root);
    let topic = format!("log.events_topic={prefix}");
    let ed = |args: &[&str]| Ed::new(args).args(&["--brokers", &services.kafka]).set(&topic).in_dir(root);
    let report = ed(&["ingest", "--once", "--landing", "landing"]).set("format.timestamp_format=epoch_ms").report();
    assert_eq!(report["events"]["rejected"].as_u64(), Some(32), "{report}");
    let replayed = ed(&["dlq", "replay"]).report();
    assert_eq!((replayed["letters"].as_u64(), replayed["events"].as_u64()), (Some(32), Some(30)), "{replayed}");
    let again = ed(&["dlq", "replay"]).report();
    assert_eq!((again["letters"].as_u64(), again["events"].as_u64()), (Some(2), Some(0)), "{again}");
    let group = format!("kafka.group={prefix}");
    let report = ed(&["distribute", "--once", "--trusted", "trusted"]).set(&group).report();
    assert_eq!(report["written"]["rows"].as_u64(), Some(30), "{report}");
    // Ingestors still read the ledger after a replay has recorded its progress there.
    let report = ed(&["ingest", "--once", "--landing", "landing"]).report();
    assert_eq!(report["events"]["published"].as_u64(), Some(0), "{report}");
}
