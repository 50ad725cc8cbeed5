//! `--once` with one failure: everything else is done, and every failure is reported. On folders, with the embedded
//! log.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Output;

use crate::harness::{Ed, files, rows};

fn event(id: &str) -> String {
    format!(
        r#"{{"event_id":"{id}","timestamp":"2021-01-14T10:15:30","domain":"account","event_type":"opened","data":1}}"#
    )
}

fn land(root: &Path, name: &str, text: &str) {
    let path = root.join("landing/pending").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn run(root: &Path) -> Ed {
    Ed::new(&["run", "--once", "--landing", "landing", "--trusted", "trusted"]).in_dir(root)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The JSON report of a run that failed.
fn failed_report(ed: Ed) -> (serde_json::Value, String) {
    let output = ed.args(&["--output", "json", "--log", "error"]).output();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    let report = serde_json::from_str(stdout.lines().last().unwrap_or_default());
    (report.unwrap_or_else(|error| panic!("{error} in {stdout:?}\n{message}")), message)
}

fn ids(root: &Path) -> Vec<String> {
    rows(&root.join("trusted")).into_iter().map(|row| row.event_id).collect()
}

/// Makes a user without rights, whose access can be refused, own everything below and run the process.
fn give_to_nobody(root: &Path) {
    let status = std::process::Command::new("chown").args(["-R", "65534:65534"]).arg(root).status().unwrap();
    assert!(status.success());
}

fn lock(path: &Path) {
    let status = std::process::Command::new("chown").arg("0:0").arg(path).status().unwrap();
    assert!(status.success());
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn files_that_cannot_be_read_are_all_named_and_every_other_one_becomes_rows() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    for name in ["a", "b", "c", "d"] {
        land(root, name, &event(name));
    }
    fs::create_dir(root.join("trusted")).unwrap();
    give_to_nobody(root);
    for name in ["b", "d"] {
        lock(&root.join("landing/pending").join(name));
    }
    // Repeatedly: one bad file never keeps other rows from being written.
    for round in 0..3 {
        let (report, message) = failed_report(run(root).without_rights());
        assert_eq!(report["problems_total"].as_u64(), Some(2), "{report}");
        let named: Vec<_> = report["problems"].as_array().unwrap().iter().map(|problem| &problem["file"]).collect();
        assert_eq!(named, ["pending/b", "pending/d"], "{report}");
        assert_eq!(report["problems"][0]["problem"], "cannot be read");
        assert_eq!(report["written"]["rows"].as_u64(), Some(if round == 0 { 2 } else { 0 }), "{report}");
        for part in
            ["error: ", "2 problems", "pending/b cannot be read", "pending/d cannot be read", "Permission denied"]
        {
            assert!(message.contains(part), "{part:?} is missing in {message}");
        }
        assert_eq!(ids(root), ["a", "c"]);
    }
    give_to_nobody(root);
    let report = run(root).without_rights().report();
    assert_eq!((report.get("problems"), report["written"]["rows"].as_u64()), (None, Some(2)), "{report}");
}

#[test]
fn files_that_cannot_be_archived_become_rows_and_leave_releases_them() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    for name in ["a", "b"] {
        land(root, name, &event(name));
    }
    fs::create_dir(root.join("trusted")).unwrap();
    give_to_nobody(root);
    // As on a read-only mount: nothing can be moved, and no folder created.
    for folder in ["landing", "landing/pending"] {
        let path = root.join(folder);
        let status = std::process::Command::new("chown").arg("0:0").arg(&path).status().unwrap();
        assert!(status.success());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let checked =
        Ed::new(&["check", "--landing", "landing", "--trusted", "trusted"]).in_dir(root).without_rights().output();
    let printed = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(printed.contains("pending/ cannot be written to") && printed.contains("landing.archive"), "{printed}");
    assert!(!printed.contains("nothing was found"), "{printed}");
    for round in 0..2 {
        let (report, message) = failed_report(run(root).without_rights());
        assert_eq!(report["problems_total"].as_u64(), Some(2), "{report}");
        assert_eq!(report["written"]["rows"].as_u64(), Some(if round == 0 { 2 } else { 0 }), "{report}");
        assert!(message.contains("cannot be archived") && message.contains("landing.archive = \"leave\""), "{message}");
    }
    let report = run(root).without_rights().set("landing.archive=leave").report();
    assert_eq!(
        (report["files"]["skipped"].as_u64(), report["written"]["rows"].as_u64()),
        (Some(2), Some(0)),
        "{report}"
    );
    assert_eq!(ids(root), ["a", "b"]);
    let checked = Ed::new(&["check", "--landing", "landing", "--trusted", "trusted", "--set", "landing.archive=leave"]);
    let printed = String::from_utf8_lossy(&checked.in_dir(root).without_rights().output().stdout).into_owned();
    assert!(!printed.contains("cannot be written to"), "{printed}");
}

#[test]
fn check_finds_out_that_processed_cannot_be_used_and_leaves_nothing_behind() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    land(root, "a", &event("a"));
    let check = || {
        let checked = Ed::new(&["check", "--landing", "landing", "--trusted", "trusted"]).in_dir(root).output();
        (checked.status.code(), String::from_utf8_lossy(&checked.stdout).into_owned())
    };
    let (code, printed) = check();
    assert!(code == Some(0) && !printed.contains("cannot be written to"), "{printed}");
    assert_eq!(fs::read_dir(root.join("landing")).unwrap().count(), 1, "nothing is made");
    assert_eq!(fs::read_dir(root.join("landing/pending")).unwrap().count(), 1);
    fs::write(root.join("landing/processed"), "in the way").unwrap();
    let (code, printed) = check();
    assert!(code == Some(0) && printed.contains("warning: landing zone: processed/ cannot be written to"), "{printed}");
}

#[test]
fn a_wrong_marker_is_named_and_what_the_log_holds_becomes_rows() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    land(root, "a", &event("a"));
    // The first run publishes but cannot write: a file is where the tables' folder should be.
    fs::create_dir_all(root.join("trusted")).unwrap();
    fs::write(root.join("trusted/events"), "in the way").unwrap();
    let (report, message) = failed_report(run(root).set("patience=1s"));
    assert_eq!(report["files"]["ingested"].as_u64(), Some(1), "the report of the other role is missing: {report}");
    assert!(message.contains("trusted zone"), "{message}");
    fs::remove_file(root.join("trusted/events")).unwrap();
    land(root, "b", &event("b"));
    fs::write(root.join("landing/landing.toml"), "archive = \"burn\"").unwrap();
    let (report, message) = failed_report(run(root));
    assert_eq!(report["written"]["rows"].as_u64(), Some(1), "{report}");
    assert!(message.contains("landing.toml") && message.contains("burn"), "{message}");
    assert_eq!(report["errors"].as_array().map(Vec::len), Some(1), "{report}");
    assert_eq!(ids(root), ["a"]);
    fs::remove_file(root.join("landing/landing.toml")).unwrap();
    assert_eq!(run(root).report()["written"]["rows"].as_u64(), Some(1));
}

#[test]
fn names_that_clash_or_are_too_long_for_their_day_are_archived() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let long = "n".repeat(255);
    for round in ["1", "2"] {
        land(root, &long, &event(&format!("long-{round}")));
        assert_eq!(run(root).report()["files"]["ingested"].as_u64(), Some(1));
    }
    land(root, "x", &event("x"));
    assert_eq!(run(root).report()["files"]["ingested"].as_u64(), Some(1));
    land(root, "x/y", &event("y"));
    assert_eq!(run(root).report()["files"]["ingested"].as_u64(), Some(1));
    assert_eq!(files(&root.join("landing/processed"), "").len(), 4);
    assert_eq!(ids(root).len(), 4);
}

#[test]
fn a_dangling_link_in_place_of_processed_stops_no_row() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    land(root, "a", &event("a"));
    symlink("/nowhere/at/all", root.join("landing/processed")).unwrap();
    let (report, message) = failed_report(run(root));
    assert_eq!(report["written"]["rows"].as_u64(), Some(1), "{report}");
    assert!(message.contains("pending/a cannot be archived") && message.contains("processed"), "{message}");
}

#[test]
fn a_file_that_is_still_being_written_is_read_whole_and_its_events_are_rows_once() {
    use std::io::Write as _;
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let (l1, l2, l3) = (event("l1"), event("l2"), event("l3"));
    land(root, "live.json", &format!("{l1}\n{}", &l2[..40]));
    // Too young for the first run, and unchanged for long by its clock: the writer only pauses.
    let path = root.join("landing/pending/live.json");
    let mut file = fs::File::options().append(true).open(&path).unwrap();
    file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(60)).unwrap();
    let report = run(root).set("landing.min_age=2s").report();
    assert_eq!(report["events"], serde_json::json!({"published": 1, "rejected": 1}), "{report}");
    write!(file, "{}\n{l3}\n", &l2[40..]).unwrap();
    let output = run(root).set("landing.min_age=100ms").output();
    let message = stderr(&output);
    assert!(output.status.success() && message.contains("written to after it was read"), "{message}");
    assert_eq!(ids(root), ["l1", "l2", "l3"]);
    let verified = Ed::new(&["verify", "--deep", "--trusted", "trusted"]).in_dir(root).output();
    assert!(verified.status.success(), "{}", stderr(&verified));
    let report = run(root).report();
    assert_eq!(
        (report["files"]["ingested"].as_u64(), report["written"]["rows"].as_u64()),
        (Some(0), Some(0)),
        "{report}"
    );
}

#[test]
fn a_file_whose_dead_letters_were_cut_is_not_deleted() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    land(root, "cut", &format!("{}\n\"{}\"\n", event("a"), "x".repeat(100_000)));
    land(root, "good", &event("b"));
    for round in 0..2 {
        let report = run(root).set("landing.archive=delete").report();
        assert_eq!(report["files"]["kept"].as_u64(), Some(1), "{report}");
        assert_eq!(report["files"]["ingested"].as_u64(), Some(if round == 0 { 2 } else { 0 }), "{report}");
        assert_eq!(files(&root.join("landing"), ""), [root.join("landing/pending/cut")]);
    }
}

#[test]
fn a_log_that_cannot_be_written_to_is_named_with_what_to_do() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    land(root, "a", &event("a"));
    fs::create_dir(root.join("trusted")).unwrap();
    give_to_nobody(root);
    run(root).without_rights().report();
    let log = files(&root.join("trusted"), "log.redb").remove(0);
    let status = std::process::Command::new("chown").arg("0:0").arg(&log).status().unwrap();
    assert!(status.success());
    for (mode, action) in [(0o444, "for writing"), (0o600, "open log.redb")] {
        fs::set_permissions(&log, fs::Permissions::from_mode(mode)).unwrap();
        land(root, "b", &event("b"));
        give_to_nobody(&root.join("landing"));
        let output = run(root).without_rights().output();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{message}");
        for part in ["embedded log in trusted/_log", "log.redb", action, "Permission denied", "must be able to"] {
            assert!(message.contains(part), "mode {mode:o}: {part:?} is missing in {message}");
        }
    }
    give_to_nobody(root);
    run(root).without_rights().report();
    assert_eq!(ids(root), ["a", "b"], "nothing was lost");
}
