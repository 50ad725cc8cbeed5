//! Trusted zones with entries that no distributor wrote or that cannot be read, and what `check` finds out by trying.
//! With the embedded log.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output};

use crate::harness::{Ed, files, generate};

fn command(root: &Path, args: &[&str]) -> Ed {
    Ed::new(args).in_dir(root).args(&["--trusted", "trusted"])
}

fn check(root: &Path) -> Ed {
    command(root, &["check", "--landing", "landing"])
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A folder with tables of several types that belongs to the user without rights.
fn zone() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    generate(&root.path().join("landing/pending"), 1_000, "ndjson", 1);
    command(root.path(), &["run", "--once", "--landing", "landing"]).report();
    let status = Command::new("chown").args(["-R", "65534:65534"]).arg(root.path()).status().unwrap();
    assert!(status.success());
    root
}

#[test]
fn links_and_pipes_among_the_tables_make_an_audit_fail_and_are_named() {
    let root = zone();
    let root = root.path();
    let types = root.join("trusted/events");
    let file = files(&types, ".parquet")[0].clone();
    for deep in [&[][..], &["--deep"]] {
        let output = command(root, &["verify"]).args(deep).output();
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    }
    symlink(&file, types.join("copy.parquet")).unwrap();
    symlink(
        fs::read_dir(&types).unwrap().flatten().find(|entry| entry.path().is_dir()).unwrap().path(),
        types.join("domain_event_type=x"),
    )
    .unwrap();
    let status = Command::new("mkfifo").arg(types.join("pipe.parquet")).status().unwrap();
    assert!(status.success());
    for deep in [&[][..], &["--deep"]] {
        let output = command(root, &["verify"]).args(deep).output();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for part in [
            "file-unknown: events/copy.parquet: a symbolic link",
            "file-unknown: events/domain_event_type=x: a symbolic link",
            "file-unknown: events/pipe.parquet: a device, FIFO or socket",
            "3 findings in trusted",
        ] {
            assert!(said.contains(part), "{part:?} is missing in {said}");
        }
        assert!(!said.contains("sound"), "{said}");
    }
}

#[test]
fn a_folder_of_the_tables_without_permission_is_a_finding_and_the_rest_is_audited() {
    let root = zone();
    let root = root.path();
    let mut types: Vec<_> =
        fs::read_dir(root.join("trusted/events")).unwrap().map(|entry| entry.unwrap().path()).collect();
    types.retain(|path| !path.ends_with("_delta_log"));
    assert!(types.len() > 2);
    let (locked, other) = (&types[0], &types[1]);
    let name = format!("events/{}/", locked.file_name().unwrap().to_str().unwrap());
    // Owned by the user, but without any permission.
    fs::set_permissions(locked, fs::Permissions::from_mode(0o000)).unwrap();
    let missing = files(other, ".parquet")[0].clone();
    fs::remove_file(&missing).unwrap();
    for deep in [&[][..], &["--deep"]] {
        let output = command(root, &["verify"]).args(deep).without_rights().output();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("unreadable: {name}: it cannot be listed")), "{said}");
        assert!(said.contains("committed files there were not checked"), "{said}");
        assert!(said.contains("file-missing: ") && said.contains("2 findings in trusted"), "{said}");
    }
    let output = check(root).without_rights().output();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains(&format!("warning: trusted zone: {name}: Permission denied")), "{said}");
    assert!(said.contains(&format!("tables of {} event types", types.len())), "{said}");
    let strict = check(root).args(&["--strict"]).without_rights().output();
    assert_eq!(strict.status.code(), Some(1));
    fs::set_permissions(locked, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Every entry, also hidden ones.
fn tree(root: &Path) -> String {
    let found = Command::new("find").arg(root).args(["-printf", "%p %s\\n"]).output().unwrap();
    let mut lines: Vec<&str> = std::str::from_utf8(&found.stdout).unwrap().lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

fn finds(root: &Path, code: i32, parts: &[&str]) {
    let before = tree(root);
    let output = check(root).without_rights().output();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for part in parts {
        assert!(said.contains(part), "{part:?} is missing in {said}");
    }
    assert!(!said.contains("would hurt"), "{said}");
    assert!(before == tree(root), "nothing stays behind: {said}");
}

#[test]
fn check_finds_a_log_that_cannot_be_written_to() {
    let root = zone();
    let root = root.path();
    let log = root.join("trusted/_log");
    fs::set_permissions(log.join("log.redb"), fs::Permissions::from_mode(0o400)).unwrap();
    finds(root, 2, &["error: log.data_dir: trusted/_log/log.redb cannot be written to", "Permission denied"]);
    fs::remove_dir_all(&log).unwrap();
    fs::write(&log, "").unwrap();
    finds(root, 2, &["error: log.data_dir: trusted/_log is a file, not a folder"]);
    fs::remove_file(&log).unwrap();
    symlink("nowhere", &log).unwrap();
    finds(root, 2, &["error: log.data_dir: trusted/_log cannot be a folder"]);
}

#[test]
fn check_finds_a_target_of_today_that_is_no_folder() {
    let root = zone();
    let root = root.path();
    let processed = root.join("landing/processed");
    let [today] = &fs::read_dir(&processed).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()[..] else {
        panic!("one day is expected")
    };
    fs::remove_dir_all(today).unwrap();
    for is_link in [false, true] {
        if is_link {
            fs::remove_file(today).unwrap();
            symlink("nowhere", today).unwrap();
        } else {
            fs::write(today, "").unwrap();
        }
        let name = today.file_name().unwrap().to_str().unwrap();
        finds(
            root,
            0,
            &["warning: landing zone: processed/ cannot be written to", &format!("{name} is there and is no folder")],
        );
    }
}

/// A file without blocks is larger than any disk of this machine.
#[test]
fn check_warns_where_pending_files_do_not_fit_into_processed_on_another_disk() {
    let root = zone();
    let root = root.path();
    let huge = fs::File::create(root.join("landing/pending/huge.json")).unwrap();
    huge.set_len(1 << 42).unwrap();
    let output = check(root).output();
    assert!(!said(&output).contains("is on another disk"), "a move on one disk takes no room: {}", said(&output));
    let disk = tempfile::tempdir_in("/dev/shm").unwrap();
    fs::remove_dir_all(root.join("landing/processed")).unwrap();
    symlink(disk.path(), root.join("landing/processed")).unwrap();
    let output = check(root).output();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        said.contains("warning: landing zone: processed/ is on another disk") && said.contains("4.00 TiB"),
        "{said}"
    );
}
