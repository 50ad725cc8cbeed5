//! `replay --rewrite`: tables that were written under other settings, made again.

use std::path::Path;

use crate::harness::{Ed, files, generate, unique_keys};

fn ed(root: &Path, args: &[&str]) -> Ed {
    Ed::new(args).args(&["--trusted", "trusted"]).in_dir(root)
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
    let told = String::from_utf8(rewrite(&["--dry-run"]).output().stdout).unwrap();
    assert!(
        told.contains("differs: max_types: ") && told.contains(" -> 500") && told.contains("files are to have snappy"),
        "{told}"
    );
    let done = rewrite(&[]).report();
    let sum = |report: &serde_json::Value, field: &str| -> u64 {
        report["partitions"].as_array().unwrap().iter().map(|partition| partition[field].as_u64().unwrap()).sum()
    };
    assert_eq!(sum(&done, "rewritten"), sum(&planned, "rewritten"));
    assert_eq!((sum(&done, "files_removed"), sum(&done, "rows_made")), (before.len() as u64, unique), "{done}");
    assert_eq!(unique_keys(&root.join("trusted")), keys);
    let after = files(&root.join("trusted/events"), ".parquet");
    assert_eq!(after.len() as u64, sum(&done, "files_made"));
    assert!(after.iter().all(|path| !before.contains(path)), "all files are new ones");
    let audit = ed(root, &["verify", "--deep"]).report();
    assert_eq!(sum(&audit, "revised_batches"), sum(&audit, "batches"), "{audit}");
    assert_eq!(sum(&rewrite(&[]).report(), "rewritten"), 0, "a second one finds nothing to do");
    // What is deleted of it comes back by a plain replay.
    std::fs::remove_file(&after[0]).unwrap();
    ed(root, &["replay", "--to", "earliest"]).report();
    ed(root, &["run", "--once", "--landing", "landing"]).report();
    assert_eq!(files(&root.join("trusted/events"), ".parquet"), after);
    ed(root, &["verify", "--deep"]).report();
    let wrong = ed(root, &["replay", "--to", "earliest", "--force"]).output();
    assert_eq!(wrong.status.code(), Some(2), "--force says nothing without --rewrite");
}
