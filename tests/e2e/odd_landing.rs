//! Landing folders with entries that cannot be listed or are not files of events: everything else becomes rows. With
//! the embedded log.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::harness::{Ed, binary, rows};

fn event(id: &str) -> String {
    format!(r#"{{"event_id":"{id}","timestamp":"2021-01-14T10:15:30","domain":"d","event_type":"t","data":1}}"#)
}

/// A folder that anybody may enter, with one good file.
fn zone() -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let pending = root.path().join("landing/pending");
    fs::create_dir_all(&pending).unwrap();
    fs::create_dir(root.path().join("trusted")).unwrap();
    fs::write(pending.join("good.json"), event("good")).unwrap();
    (root, pending)
}

fn command(root: &Path, name: &str) -> Ed {
    let ed = Ed::new(&[name, "--landing", "landing", "--trusted", "trusted"]).in_dir(root);
    ed.set("landing.min_age=0s")
}

fn once(root: &Path) -> Ed {
    command(root, "run").args(&["--once"])
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn ids(root: &Path) -> Vec<String> {
    rows(&root.join("trusted")).into_iter().map(|row| row.event_id).collect()
}

#[test]
fn a_folder_without_permission_is_named_and_every_other_file_becomes_rows() {
    let (root, pending) = zone();
    let root = root.path();
    let status = Command::new("chown").args(["-R", "65534:65534"]).arg(root).status().unwrap();
    assert!(status.success());
    // Owned by root, as at the top of every ext4 file system.
    fs::create_dir(pending.join("lost+found")).unwrap();
    fs::set_permissions(pending.join("lost+found"), fs::Permissions::from_mode(0o700)).unwrap();
    let checked = said(&command(root, "check").without_rights().output());
    assert!(checked.contains("files wait in its pending/"), "{checked}");
    assert!(checked.contains("pending/lost+found/ cannot be listed") && !checked.contains("would hurt"), "{checked}");
    for round in 0..2 {
        let output = once(root).without_rights().output();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("pending/lost+found/") && said.contains("Permission denied"), "round {round}: {said}");
    }
    assert_eq!(fs::read_dir(&pending).unwrap().count(), 1, "the good one is archived");
    fs::remove_dir(pending.join("lost+found")).unwrap();
    once(root).without_rights().report();
    assert_eq!(ids(root), ["good"]);
}

/// Levels of one letter each, created and removed step by step: recursion would run out of descriptors.
fn deep(pending: &Path, levels: usize) {
    let script = "import os, sys\nfd = os.open(sys.argv[1], os.O_RDONLY)\nfor _ in range(int(sys.argv[2])):\n os.mkdir('a', dir_fd=fd)\n inner = os.open('a', os.O_RDONLY, dir_fd=fd)\n os.close(fd)\n fd = inner\n";
    let status = Command::new("python3").args(["-c", script]).arg(pending).arg(levels.to_string()).status().unwrap();
    assert!(status.success());
}

fn remove_deep(pending: &Path) {
    let (level, next) = (pending.join("a"), pending.join("next"));
    while level.exists() {
        let _ = fs::rename(level.join("a"), &next);
        fs::remove_dir(&level).unwrap();
        let _ = fs::rename(&next, &level);
    }
}

#[test]
fn a_tree_deeper_than_keys_and_descriptors_affects_only_itself() {
    let (root, pending) = zone();
    let root = root.path();
    // A tree that may be listed, with more levels than the process has descriptors.
    let deepest: PathBuf = std::iter::repeat_n("d", 400).collect();
    fs::create_dir_all(pending.join(&deepest)).unwrap();
    fs::write(pending.join(&deepest).join("deep.json"), event("deep")).unwrap();
    deep(&pending, 2_500);
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 200; exec \"$0\" \"$@\""]).arg(binary());
    shell.args(["run", "--once", "--landing", "landing", "--trusted", "trusted", "--set", "landing.min_age=0s"]);
    let output = shell.current_dir(root).output().unwrap();
    let said = said(&output);
    remove_deep(&pending);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("longer than 1024 bytes"), "{said}");
    assert!(!pending.join("good.json").exists(), "it is archived: {said}");
    once(root).report();
    assert_eq!(ids(root), ["deep", "good"]);
}

#[test]
fn links_and_special_files_are_logged_once_each_and_counted_and_never_read() {
    let (root, pending) = zone();
    let root = root.path();
    fs::write(root.join("elsewhere.json"), event("elsewhere")).unwrap();
    symlink(root.join("elsewhere.json"), pending.join("link.json")).unwrap();
    let status = Command::new("mkfifo").arg(pending.join("fifo.json")).status().unwrap();
    assert!(status.success());
    let output = once(root).output();
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    for name in ["link.json", "fifo.json"] {
        assert_eq!(text.matches(name).count(), 1, "{name}: {text}");
    }
    assert!(text.contains("1 symbolic link, 1 device, FIFO or socket"), "{text}");
    let again = said(&once(root).output());
    assert!(
        again.contains("only skipped entries: 1 symbolic link") && !again.contains("Nothing is pending"),
        "{again}"
    );
    assert_eq!(once(root).report()["files"]["passed_over"]["symbolic_link"].as_u64(), Some(1));
    let checked = said(&command(root, "check").output());
    assert!(checked.contains("1 symbolic link") && !checked.contains("would hurt"), "{checked}");
    assert_eq!(ids(root), ["good"]);
}

#[test]
fn pending_and_processed_may_be_links_to_another_disk_and_a_dangling_one_is_refused() {
    let (root, pending) = zone();
    let root = root.path();
    fs::rename(&pending, root.join("disk")).unwrap();
    fs::create_dir(root.join("other")).unwrap();
    symlink("../disk", &pending).unwrap();
    symlink("../other", root.join("landing/processed")).unwrap();
    assert_eq!(once(root).report()["files"]["ingested"].as_u64(), Some(1));
    assert_eq!(ids(root), ["good"]);
    assert_eq!(fs::read_dir(root.join("disk")).unwrap().count(), 0, "it was moved through both links");
    fs::remove_dir(root.join("disk")).unwrap();
    for name in ["run", "check"] {
        let ed = command(root, name);
        let output = if name == "run" { ed.args(&["--once"]).output() } else { ed.output() };
        let said = said(&output);
        assert!(!output.status.success() && said.contains("symbolic link to something that is not there"), "{said}");
    }
}

#[test]
fn uncommitted_output_of_spark_is_ignored_unless_configured_otherwise() {
    let (root, pending) = zone();
    let root = root.path();
    let attempt = pending.join("table/_temporary/0/_temporary/attempt_0");
    fs::create_dir_all(&attempt).unwrap();
    fs::write(attempt.join("part-0.json"), event("uncommitted")).unwrap();
    fs::write(pending.join("table/_SUCCESS"), "").unwrap();
    let report = once(root).report();
    assert_eq!(report["files"]["passed_over"]["ignored_name"].as_u64(), Some(2), "{report}");
    assert_eq!(ids(root), ["good"]);
    once(root).set("landing.ignore_prefixes=").report();
    assert_eq!(ids(root), ["good", "uncommitted"]);
}
