//! `replay --rewrite`: rewrites tables that were written under other settings.

use std::path::Path;

use crate::harness::{Ed, files, generate, services, unique_keys, wait_until};
use crate::kafka_s3::Zone;

fn ed(root: &Path, args: &[&str]) -> Ed {
    Ed::new(args).args(&["--trusted", "trusted"]).in_dir(root)
}

fn sum(report: &serde_json::Value, field: &str) -> u64 {
    report["partitions"].as_array().unwrap().iter().map(|partition| partition[field].as_u64().unwrap()).sum()
}

#[test]
fn tables_are_rewritten_under_other_settings_and_audited() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let unique = generate(&root.join("landing/pending"), 5_000, "ndjson", 1);
    ed(root, &["run", "--once", "--landing", "landing"]).set("flush.max_rows=1000").report();
    let keys = unique_keys(&root.join("trusted"));
    assert_eq!(keys.len() as u64, unique);
    let before = files(&root.join("trusted/events"), ".parquet");
    let rewrite = |args: &[&str]| {
        let all: Vec<&str> = ["replay", "--rewrite"].iter().chain(args).copied().collect();
        ed(root, &all).set("trusted.max_types=500").set("trusted.compression=snappy")
    };
    let planned = rewrite(&["--dry-run"]).report();
    assert_eq!(files(&root.join("trusted/events"), ".parquet"), before, "a dry run changes nothing");
    let message = String::from_utf8(rewrite(&["--dry-run"]).output().stdout).unwrap();
    assert!(
        message.contains("differs: max_types: ")
            && message.contains(" -> 500")
            && message.contains("files are to have snappy"),
        "{message}"
    );
    let done = rewrite(&[]).report();
    assert_eq!(sum(&done, "rewritten"), sum(&planned, "rewritten"));
    assert_eq!((sum(&done, "files_removed"), sum(&done, "rows_made")), (before.len() as u64, unique), "{done}");
    assert_eq!(unique_keys(&root.join("trusted")), keys);
    let after = files(&root.join("trusted/events"), ".parquet");
    assert_eq!(after.len() as u64, sum(&done, "files_made"));
    assert!(after.iter().all(|path| !before.contains(path)), "all files are new ones");
    let audit = ed(root, &["verify", "--deep"]).report();
    assert_eq!(sum(&audit, "revised_batches"), sum(&audit, "batches"), "{audit}");
    assert_eq!(sum(&rewrite(&[]).report(), "rewritten"), 0, "a second one finds nothing to do");
    // A plain replay restores its deleted files.
    std::fs::remove_file(&after[0]).unwrap();
    ed(root, &["replay", "--to", "earliest"]).report();
    ed(root, &["run", "--once", "--landing", "landing"]).report();
    assert_eq!(files(&root.join("trusted/events"), ".parquet"), after);
    ed(root, &["verify", "--deep"]).report();
    let wrong = ed(root, &["replay", "--to", "earliest", "--force"]).output();
    assert_eq!(wrong.status.code(), Some(2), "--force says nothing without --rewrite");
}

#[test]
fn a_rewrite_over_kafka_and_s3_waits_for_members_to_leave_and_survives_kills() {
    let zone = Zone::new(&services(), "rewrite");
    let unique = zone.land("files", 6_000, "ndjson", 23);
    zone.ingest().args(&["--once"]).report();
    let logs = tempfile::tempdir().unwrap();
    let mut distributor =
        zone.distribute().set("flush.max_rows=100").set("flush.max_age=1s").start(&logs.path().join("log"));
    wait_until("everything is written", || {
        let listed = zone.verify().args(&["--output", "json"]).output();
        let audit: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap_or_default();
        audit["partitions"].is_array() && sum(&audit, "rows") + sum(&audit, "duplicates") == 6_000
    });
    let before = files(&zone.trusted.1, "");
    let rewrite = || zone.replay("earliest").args(&["--rewrite"]).set("trusted.compression=snappy");
    let refused = rewrite().output();
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(1) && message.contains("has members: stop every distributor first"),
        "{message}"
    );
    assert_eq!(files(&zone.trusted.1, ""), before, "nothing was changed");
    distributor.signal("TERM");
    assert_eq!(distributor.wait_for_exit(), Some(0));
    let keys = unique_keys(&zone.trusted.1);
    assert_eq!(keys.len() as u64, unique);

    let batches = zone.trusted.1.join("_batches");
    let revisions = || {
        let documents = files(&batches, ".json");
        documents.iter().filter(|path| path.parent().is_some_and(|folder| folder.ends_with("revisions"))).count()
    };
    let mut killed = rewrite().start(&logs.path().join("killed"));
    wait_until("a batch is rewritten", || revisions() > 0 || killed.has_ended());
    killed.kill();
    assert!(!files(&batches, "rewrite.json").is_empty(), "it was at work: {}", revisions());
    let refused = zone.distribute().args(&["--once"]).output();
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && message.contains("replay --rewrite"), "{message}");
    let audit = zone.verify().args(&["--deep"]).report();
    let partitions = audit["partitions"].as_array().unwrap();
    assert!(
        partitions.iter().any(|partition| !partition["rewrite"].is_null()),
        "it is reported, and not an error: {audit}"
    );

    let done = rewrite().report();
    assert!(sum(&done, "rewritten") > 0 && sum(&done, "not_in_log") == 0, "{done}");
    assert_eq!(unique_keys(&zone.trusted.1), keys);
    assert!(files(&batches, "rewrite.json").is_empty() && revisions() > 50, "{}", revisions());
    let audit = zone.assert_sound();
    assert_eq!(sum(&audit, "revised_batches"), sum(&audit, "batches"), "{audit}");
    assert_eq!(sum(&rewrite().report(), "rewritten"), 0, "nothing is left to do");
    let report = zone.distribute().args(&["--once"]).report();
    assert_eq!(report["written"]["files"].as_u64(), Some(0), "{report}");
}
