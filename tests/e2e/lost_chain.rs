//! A trusted zone in S3 that lost its chain, restored while a real cluster runs.

use std::fs;

use crate::harness::{contents, services, wait_until};
use crate::kafka_s3::Zone;

fn partitions(report: &serde_json::Value, name: &str) -> u64 {
    let partitions = report["rebuild"]["partitions"].as_array().unwrap();
    partitions.iter().map(|partition| partition[name].as_u64().unwrap()).sum()
}

#[test]
fn a_deleted_chain_is_restored_once_no_distributor_runs_and_is_continued() {
    let zone = Zone::new(&services(), "lost");
    zone.land("first", 2_000, "ndjson", 21);
    zone.ingest().args(&["--once"]).report();
    let logs = tempfile::tempdir().unwrap();
    let mut distributor =
        zone.distribute().set("flush.max_rows=200").set("flush.max_age=1s").start(&logs.path().join("log"));
    let rows = || {
        let listed = zone.verify().args(&["--output", "json"]).output();
        let audit: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap_or_default();
        let partitions = audit["partitions"].as_array().cloned().unwrap_or_default();
        let count = |name: &str| partitions.iter().filter_map(|partition| partition[name].as_u64()).sum::<u64>();
        count("rows") + count("duplicates")
    };
    wait_until("everything is written", || rows() == 2_000);
    let tables = contents(&zone.trusted.1.join("events"));
    fs::remove_dir_all(zone.trusted.1.join("_batches")).unwrap();
    let rebuild = |flags: &[&str]| zone.verify().args(&["--rebuild-chain"]).args(flags);
    let refused = rebuild(&[]).output();
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(1) && message.contains("has members: stop every distributor first"),
        "{message}"
    );
    assert!(!zone.trusted.1.join("_batches").exists(), "nothing was put");
    distributor.signal("TERM");
    distributor.wait_for_exit();
    // A distributor that starts now reports what to do.
    let log = logs.path().join("without");
    assert_eq!(zone.distribute().args(&["--once"]).start(&log).wait_for_exit(), Some(1));
    assert!(fs::read_to_string(&log).unwrap().contains("verify --rebuild-chain"));
    let planned = rebuild(&["--dry-run"]).report();
    assert!(partitions(&planned, "cuts") >= 10 && partitions(&planned, "origins") > 0, "{planned}");
    assert!(!zone.trusted.1.join("_batches").join("events").exists(), "nothing was put");
    assert!(rebuild(&[]).output().status.success());
    zone.assert_sound();
    // The same events once more, and others: only the others are new.
    zone.land("again", 2_000, "ndjson", 21);
    zone.ingest().args(&["--once"]).report();
    let report = zone.distribute().args(&["--once"]).report();
    assert_eq!(report["written"]["rows"], 0, "{report}");
    assert!(contents(&zone.trusted.1.join("events")) == tables, "the files are what they were");
    zone.assert_sound();
    // A rewritten chain can be restored too.
    zone.replay("earliest").args(&["--rewrite"]).set("trusted.compression=snappy").report();
    let tables = contents(&zone.trusted.1.join("events"));
    fs::remove_dir_all(zone.trusted.1.join("_batches")).unwrap();
    // An audit follows the restoration.
    let output = rebuild(&["--output", "json"]).output();
    let put = String::from_utf8_lossy(&output.stdout).into_owned();
    let put: serde_json::Value = serde_json::from_str(put.lines().next().unwrap_or_default()).unwrap();
    assert!(partitions(&put, "revisions") >= 10 && partitions(&put, "cuts") >= 10, "{put}");
    zone.land("once-more", 2_000, "ndjson", 21);
    zone.ingest().args(&["--once"]).report();
    let report = zone.distribute().args(&["--once"]).report();
    assert_eq!(report["written"]["rows"], 0, "{report}");
    assert!(contents(&zone.trusted.1.join("events")) == tables, "the files are what they were");
    let audit = zone.assert_sound();
    let revised = audit["partitions"].as_array().unwrap().iter().filter(|partition| partition["revised_batches"] != 0);
    assert!(revised.count() > 0, "{audit}");
}
