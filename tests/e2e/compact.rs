//! `compact`: merges small files into few large ones.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::{Ed, assert_tables_are_as_committed, entries, files, generate, services, unique_keys, wait_until};
use crate::kafka_s3::Zone;
use crate::rewrite::{assert_no_offset_twice, sum};

fn ed(root: &Path, args: &[&str]) -> Ed {
    Ed::new(args).args(&["--trusted", "trusted"]).set("table.retain=0s").in_dir(root)
}

fn folders(trusted: &Path) -> (BTreeSet<PathBuf>, usize) {
    let all = files(&trusted.join("events"), ".parquet");
    (all.iter().map(|path| path.parent().unwrap().to_owned()).collect(), all.len())
}

/// Beside `run`, which has the embedded log, and killed again and again.
#[test]
fn small_files_are_merged_beside_a_living_run_and_no_row_is_ever_visible_twice() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let trusted = root.join("trusted");
    let land =
        |name: &str, events: u64, seed: u64| generate(&root.join("landing/pending").join(name), events, "ndjson", seed);
    let mut expected = land("first", 3_000, 51);
    let mut run = Ed::new(&["run", "--landing", "landing", "--trusted", "trusted"])
        .set("flush.max_rows=100")
        .set("flush.max_age=200ms")
        .set("landing.min_age=0s")
        .set("landing.poll_interval=200ms")
        .in_dir(root)
        .start(&root.join("log"));
    let rows = || if trusted.exists() { unique_keys(&trusted).len() as u64 } else { 0 };
    wait_until("the first events are written", || rows() == expected);
    let compact = || ed(root, &["compact"]).set("compact.rest=0s");
    let planned = compact().args(&["--dry-run"]).report();
    assert!(sum(&planned, "files_before") > 300 && sum(&planned, "files_after") < 60, "{planned}");
    let done = AtomicBool::new(false);
    let mut killed = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                assert_no_offset_twice(&trusted);
            }
        });
        for round in 0..8_u32 {
            expected += land(&format!("round-{round}"), 500, 52 + u64::from(round));
            let goal = entries(&trusted) + 1 + [0, 1, 2, 3][round as usize % 4];
            let mut process = compact().start(&root.join("killed"));
            wait_until("it goes on", || entries(&trusted) >= goal || process.has_ended());
            killed += u32::from(!process.has_ended());
            process.kill();
        }
        wait_until("everything is written", || {
            compact().report();
            rows() == expected
        });
        done.store(true, Ordering::SeqCst);
    });
    assert!(killed >= 2, "only {killed} runs were killed");
    run.signal("TERM");
    assert_eq!(run.wait_for_exit(), Some(0));
    compact().report();
    let (folders, files) = folders(&trusted);
    // A few small files beside a large one are no reason to write that again.
    assert!(files <= folders.len() * 8, "{files} files in {} folders", folders.len());
    assert_eq!(rows(), expected);
    let audit = ed(root, &["verify", "--deep"]).report();
    assert_eq!((sum(&audit, "open_replaces"), sum(&audit, "rows")), (0, expected), "{audit}");
    assert_tables_are_as_committed(&trusted);
    let idle = compact().report();
    assert_eq!(sum(&idle, "files_made"), 0, "{idle}");
}

#[test]
fn tables_in_s3_are_compacted_offline_and_an_altered_file_stays() {
    let zone = Zone::new(&services(), "compact");
    let unique = zone.land("files", 3_000, "ndjson", 61);
    zone.ingest().args(&["--once"]).report();
    let refused = zone.compact().args(&["--offline"]).set("compact.rest=0s").output();
    assert_eq!(refused.status.code(), Some(0), "nothing is written yet");
    zone.distribute().args(&["--once"]).set("flush.max_rows=100").report();
    let compact = || zone.compact().args(&["--offline"]).set("compact.rest=0s");
    let (_, before) = folders(&zone.trusted.1);
    let altered = files(&zone.trusted.1.join("events"), ".parquet").remove(3);
    let mut body = std::fs::read(&altered).unwrap();
    body[30] ^= 1;
    std::fs::write(&altered, &body).unwrap();
    let output = compact().args(&["--output", "json"]).output();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "what could not be merged is an error: {report}");
    let skipped: Vec<&serde_json::Value> =
        report["partitions"].as_array().unwrap().iter().flat_map(|part| part["skipped"].as_array().unwrap()).collect();
    assert!(skipped.len() == 1 && altered.ends_with(skipped[0].as_str().unwrap()), "{report}");
    assert_eq!(std::fs::read(&altered).unwrap(), body);
    let (_, after) = folders(&zone.trusted.1);
    assert!(after * 4 < before, "{before} -> {after}");
    body[30] ^= 1;
    std::fs::write(&altered, &body).unwrap();
    compact().report();
    assert_eq!(unique_keys(&zone.trusted.1).len() as u64, unique);
    zone.assert_sound();
}
