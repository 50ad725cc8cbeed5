//! `run`: both roles over the embedded log, on folders.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::harness::{Ed, contents, files, generate, rows, unique_keys};

fn event(id: &str, data: &str) -> String {
    format!(
        r#"{{"event_id":"{id}","timestamp":"2021-01-14T10:15:30","domain":"account","event_type":"opened","data":{data}}}"#
    )
}

fn run(root: &Path) -> serde_json::Value {
    Ed::new(&["run", "--once", "--landing", "landing", "--trusted", "trusted"]).in_dir(root).report()
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join("landing/pending").join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn files_of_every_shape_become_rows_exactly_once_and_noise_is_separated() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let mut unique = 0;
    for (seed, format) in [(1, "ndjson"), (2, "concatenated"), (3, "array"), (4, "pretty")] {
        unique += generate(&root.join(format!("landing/pending/{format}")), 3_000, format, seed);
    }
    let data = r#"{"n": 123456789012345678901234567890.10, "u": "ü\u00fc\ud83d\ude00", "a": [ 1,{} ]}"#;
    let mixed = format!(
        "\u{feff}{}\r\n[{},\n {}]{}\n\n",
        event("m1", data),
        event("m2", "null"),
        event("m3", "[]"),
        event("m1", data)
    );
    write(root, "mixed/ä b%2F.json", &mixed);
    write(
        root,
        "bad/lines.ndjson",
        &format!("{}\nnot json\n{{\"event_id\": \"x\"}}\n{}\n{{\"cut\": ", event("b1", "1"), event("b2", "2")),
    );
    write(root, "empty.json", "");
    write(root, "blank.json", " \n\r\n");

    let report = run(root);
    assert_eq!(report["files"], serde_json::json!({"ingested": 8, "skipped": 0, "quarantined": 0}), "{report}");
    assert_eq!(report["events"], serde_json::json!({"published": 12_006, "rejected": 3}), "{report}");
    let expected = unique + 5;
    assert_eq!(
        (report["written"]["rows"].as_u64(), report["written"]["duplicates"].as_u64()),
        (Some(expected), Some(12_006 - expected)),
        "{report}"
    );

    let keys = unique_keys(&root.join("trusted"));
    assert_eq!(keys.len() as u64, expected);
    let rows = rows(&root.join("trusted"));
    let m1 = rows.iter().find(|row| row.event_id == "m1").unwrap();
    assert_eq!((m1.data.as_str(), m1.source.as_str()), (data, "mixed/ä b%2F.json"), "data is kept byte for byte");
    assert!(files(&root.join("landing/pending"), "").is_empty());
    assert_eq!(files(&root.join("landing/processed"), "").len(), 8);

    let listed = Ed::new(&["dlq", "list", "--trusted", "trusted", "--output", "json"]).in_dir(root).output();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let letters: Vec<serde_json::Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        letters[3],
        serde_json::json!({"dead_letters": 3, "reasons": {"missing_field": 1, "not_json": 1, "truncated": 1}})
    );
    assert_eq!(
        (letters[0]["source"].as_str(), letters[0]["raw"].as_str()),
        (Some("bad/lines.ndjson"), Some("not json"))
    );
    assert_eq!(letters[0]["byte_offset"].as_u64(), Some(event("b1", "1").len() as u64 + 1), "its byte offset");
}

/// Content and modification time of every file.
fn state(folder: &Path) -> Vec<(std::path::PathBuf, std::time::SystemTime, Vec<u8>)> {
    let of = |path: std::path::PathBuf| {
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let content = fs::read(&path).unwrap();
        (path, modified, content)
    };
    files(folder, "").into_iter().map(of).collect()
}

#[test]
fn a_second_run_adds_nothing_and_changes_no_file() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let unique = generate(&root.join("landing/pending"), 2_000, "ndjson", 1);
    // The files stay, so that the second run lists them again.
    fs::write(root.join("landing/landing.toml"), "archive = \"leave\"\n").unwrap();
    let first = run(root);
    assert_eq!(first["written"]["rows"].as_u64(), Some(unique));
    let before = state(&root.join("trusted"));
    let second = run(root);
    assert_eq!(second["files"], serde_json::json!({"ingested": 0, "skipped": 1, "quarantined": 0}));
    assert_eq!(second["written"]["rows"].as_u64(), Some(0));
    assert!(before == state(&root.join("trusted")), "a run with nothing to do changes no file, not even its log");
    let before = contents(&root.join("trusted/events"));
    // Touched or copied back, it still has the same content.
    let path = files(&root.join("landing/pending"), ".ndjson").remove(0);
    let text = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, text).unwrap();
    let third = run(root);
    assert_eq!(third["events"]["published"].as_u64(), Some(0), "{third}");
    assert_eq!(third["files"], serde_json::json!({"ingested": 0, "skipped": 1, "quarantined": 0}), "{third}");
    let after = contents(&root.join("trusted/events"));
    assert!(before == after, "files of the trusted zone changed");
}

#[test]
fn a_later_file_of_the_same_day_adds_to_the_earlier_rows_and_duplicates_across_runs_are_dropped() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    write(root, "a/x.json", &format!("{}{}", event("one", "1"), event("one", "1")));
    assert_eq!(run(root)["written"]["rows"].as_u64(), Some(1));
    write(root, "b/x.json", &format!("{}{}", event("one", "1"), event("two", "2")));
    let report = run(root);
    assert_eq!(
        (report["written"]["rows"].as_u64(), report["written"]["duplicates"].as_u64()),
        (Some(1), Some(1)),
        "{report}"
    );
    let ids: BTreeSet<_> = rows(&root.join("trusted")).into_iter().map(|row| row.event_id).collect();
    assert_eq!(ids, BTreeSet::from(["one".to_owned(), "two".to_owned()]));
    let processed = files(&root.join("landing/processed"), "");
    let names: Vec<_> = processed.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    assert!(names.len() == 2 && names[0].ends_with("/a/x.json") && names[1].ends_with("/b/x.json"), "{names:?}");
    // The same name on the same day again: both survive.
    write(root, "a/x.json", &event("three", "3"));
    assert_eq!(run(root)["written"]["rows"].as_u64(), Some(1));
    assert_eq!(files(&root.join("landing/processed"), ".json").len(), 3);
}

#[test]
fn a_file_that_keeps_growing_does_not_keep_once_from_ending() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let unique = generate(&root.join("landing/pending"), 60_000, "ndjson", 1);
    let path = files(&root.join("landing/pending"), ".ndjson").remove(0);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use std::io::Write;
            let mut file = fs::File::options().append(true).open(&path).unwrap();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                file.write_all(b"\n").unwrap();
            }
        });
        let output = Ed::new(&["run", "--once", "--landing", "landing", "--trusted", "trusted"])
            .set("landing.poll_interval=10ms")
            .in_dir(root)
            .output();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("keeps changing"), "{message}");
    });
    assert_eq!(run(root)["files"]["ingested"].as_u64(), Some(1), "once it is whole it is read");
    assert_eq!(unique_keys(&root.join("trusted")).len() as u64, unique);
}

#[test]
fn a_deleted_folder_of_tables_is_detected_and_a_data_dir_is_used_by_one_process() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    write(root, "x.json", &event("one", "1"));
    let with_data_dir = || {
        Ed::new(&["run", "--once", "--landing", "landing", "--trusted", "trusted", "--data-dir", "data"]).in_dir(root)
    };
    assert_eq!(with_data_dir().report()["written"]["rows"].as_u64(), Some(1));
    fs::remove_dir_all(root.join("trusted")).unwrap();
    let refused = with_data_dir().output();
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{message}");
    assert!(message.contains("Bring _commits back from a backup"), "{message}");
    assert!(!root.join("trusted/events").exists(), "nothing is written after a refusal");
}
