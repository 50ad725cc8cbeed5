//! A trusted zone that lost its commit log, and got an older one back.

use std::fs;
use std::path::Path;

use crate::harness::{contents, files, services};
use crate::kafka_s3::Zone;

fn copy(from: &Path, to: &Path) {
    for path in files(from, "") {
        let target = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(path, target).unwrap();
    }
}

#[test]
fn an_older_commit_log_is_gone_on_with_once_the_offsets_are_set_to_its_end() {
    let zone = Zone::new(&services(), "lost");
    let distribute = || zone.distribute().set("flush.max_rows=200").args(&["--once"]);
    zone.land("first", 2_000, "ndjson", 21);
    zone.ingest().args(&["--once"]).report();
    distribute().report();
    let (commits, backup) = (zone.trusted.1.join("_commits"), tempfile::tempdir().unwrap());
    copy(&commits, backup.path());
    zone.land("second", 2_000, "ndjson", 22);
    zone.ingest().args(&["--once"]).report();
    distribute().report();
    let tables = contents(&zone.trusted.1.join("events"));
    fs::remove_dir_all(&commits).unwrap();
    let refused = distribute().output();
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && message.contains("Bring _commits back from a backup"), "{message}");
    assert!(files(&commits, "").is_empty(), "nothing was put");

    let bucket = zone.trusted.0.strip_prefix("s3://").and_then(|rest| rest.strip_suffix("/zone")).unwrap();
    zone.services.upload(backup.path(), bucket, "zone/_commits");
    let audit = zone.verify().args(&["--output", "json"]).output();
    let audit: serde_json::Value = serde_json::from_slice(&audit.stdout).unwrap();
    let findings = audit["findings"].as_array().unwrap();
    let count = |kind: &str| findings.iter().filter(|finding| finding["kind"] == kind).count();
    let later = tables.len() - findings.len();
    assert!(count("offset-beyond-end") > 0 && count("file-unknown") > 0 && later > 0, "{audit}");
    let set = zone.replay("end").report();
    assert!(set["partitions"].as_array().unwrap().iter().all(|plan| plan["batches"] == 0), "{set}");
    // Batches of the same records have the same files.
    let report = distribute().report();
    assert!(report["written"]["rows"].as_u64().unwrap() > 1_900, "{report}");
    assert!(contents(&zone.trusted.1.join("events")) == tables, "the files are what they were");
    zone.assert_sound();
    // Nothing is forgotten of what was written before and after the backup.
    for (folder, seed) in [("again", 21), ("once-more", 22)] {
        zone.land(folder, 2_000, "ndjson", seed);
    }
    zone.ingest().args(&["--once"]).report();
    let report = distribute().report();
    assert_eq!(report["written"]["rows"], 0, "{report}");
    zone.assert_sound();
}
