//! Messages of the commands beside the roles in common situations: they fit the command and the state.

use std::path::Path;

use crate::harness::{Ed, files, generate, wait_until};

/// Exit code, and the output of both streams.
fn said(root: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = Ed::new(args).args(&["--log", "error"]).in_dir(root).output();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

/// Checks that a command's output contains `parts`, does not contain `never`, and has the exit code.
fn expect(root: &Path, args: &[&str], code: i32, parts: &[&str], never: &[&str]) {
    let (ended, output) = said(root, args);
    assert_eq!(ended, Some(code), "{args:?}: {output}");
    for part in parts {
        assert!(output.contains(part), "{args:?}: {part:?} is missing in {output}");
    }
    for part in never {
        assert!(!output.contains(part), "{args:?}: {part:?} is in {output}");
    }
}

#[test]
fn an_empty_zone_is_not_called_sound_nor_missing() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    expect(root, &["check"], 0, &["give --landing and --trusted", "nothing else was checked"], &["would hurt"]);
    expect(root, &["verify", "--trusted", "t"], 2, &["trusted.url: t does not exist"], &[]);
    std::fs::write(root.join("file"), "").unwrap();
    expect(root, &["verify", "--trusted", "file"], 2, &["trusted.url: file is not a folder"], &[]);
    expect(root, &["dlq", "list"], 2, &["give --brokers, --trusted or --data-dir"], &[]);
    std::fs::create_dir_all(root.join("land")).unwrap();
    std::fs::create_dir_all(root.join("t")).unwrap();
    let zones = ["check", "--landing", "land", "--trusted", "t"];
    expect(root, &zones, 0, &["no files wait in its pending/", "t has no tables yet"], &["0 event types"]);
    expect(root, &["verify", "--trusted", "t"], 0, &["nothing to audit: t has no batches"], &["sound", "--brokers"]);
    expect(root, &["verify", "--deep", "--trusted", "t"], 0, &["nothing to audit"], &["sound", "every row"]);
    let no_log = ["needs the log: there is no embedded log in t/_log; name the log with --brokers"];
    expect(root, &["repair", "--trusted", "t"], 0, &["nothing to remove"], &[]);
    expect(root, &["abandon", "--trusted", "t"], 2, &no_log, &[]);
    expect(root, &["replay", "--to", "earliest", "--trusted", "t"], 2, &no_log, &[]);
    expect(root, &["rewrite", "--trusted", "t"], 2, &no_log, &[]);
    expect(root, &["dlq", "list", "--data-dir", "d"], 2, &["there is no embedded log in d"], &[]);
    assert!(!root.join("d").exists() && std::fs::read_dir(root.join("t")).unwrap().count() == 0, "nothing was made");
}

#[test]
fn after_a_run_the_commands_describe_the_tables() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    generate(&root.join("land/pending"), 500, "ndjson", 1);
    Ed::new(&["run", "--once", "--landing", "land", "--trusted", "t"]).in_dir(root).report();
    let with = |args: &[&'static str]| [args, &["--trusted", "t"]].concat();
    expect(root, &with(&["check"]), 0, &["t has tables of 12 event types"], &[]);
    expect(root, &with(&["verify"]), 0, &["sound: nothing missing"], &["not compared"]);
    let elsewhere = with(&["verify", "--data-dir", "elsewhere"]);
    let by_itself = ["not compared with the log: there is no embedded log in elsewhere", "sound by itself"];
    expect(root, &elsewhere, 0, &by_itself, &["nothing missing"]);
    let other = with(&["verify", "--set", "log.events_topic=other"]);
    expect(root, &other, 1, &["no batches of topic 'other', but of: events"], &["sound"]);
    expect(root, &["verify", "--trusted", "t/events"], 1, &["other things, such as domain_event_type="], &["sound"]);
    let other = with(&["dlq", "list", "--set", "log.events_topic=other"]);
    expect(root, &other, 1, &["no ingestor has worked with log.events_topic = 'other' here"], &[]);
    expect(root, &with(&["repair"]), 0, &["nothing to remove"], &[]);
    expect(root, &with(&["abandon"]), 0, &["nothing to abandon"], &[]);
    expect(root, &with(&["dlq", "list"]), 0, &["no dead letters"], &["0 dead"]);
    expect(root, &with(&["dlq", "replay"]), 0, &["no dead letters are open: nothing to replay"], &[]);
    let dry = with(&["replay", "--to", "earliest", "--dry-run"]);
    expect(root, &dry, 0, &["nothing was set; no file is missing"], &["0 files"]);
    expect(root, &with(&["replay", "--to", "earliest"]), 0, &["no file is missing"], &["makes 0 files"]);
    expect(root, &with(&["replay", "--to", "999"]), 1, &["offset 999 is not written yet"], &["Kafka"]);
    expect(root, &with(&["rewrite"]), 0, &["every batch is as the settings say"], &["every other"]);
    for file in files(&root.join("t/events"), ".parquet").iter().take(1) {
        std::fs::remove_file(file).unwrap();
    }
    expect(root, &with(&["verify"]), 1, &["file-missing", "error: 1 finding in t"], &["1 findings", "sound"]);
    expect(root, &dry, 0, &["1 file would be restored"], &["1 files"]);
}

#[test]
fn beside_a_role_at_work_they_say_to_stop_it_and_advise_no_other_log() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    generate(&root.join("land/pending"), 50, "ndjson", 1);
    let zones = ["--landing", "land", "--trusted", "t"];
    let mut role = Ed::new(&["run", "--set", "flush.max_age=50ms"]).args(&zones).in_dir(root).start(&root.join("log"));
    wait_until("it has written", || {
        assert!(!role.has_ended(), "{}", std::fs::read_to_string(root.join("log")).unwrap_or_default());
        !files(&root.join("t/events"), ".parquet").is_empty()
    });
    let by_itself = ["has the embedded log open; stop it to compare", "sound by itself"];
    expect(root, &["verify", "--trusted", "t"], 0, &by_itself, &["error"]);
    for command in [&["replay", "--to", "earliest"][..], &["dlq", "list"]] {
        let args = [command, &["--trusted", "t"]].concat();
        expect(root, &args, 1, &["stop the other process first", "is in use by another process"], &["--data-dir"]);
    }
    let busy = ["another process has the embedded log, such as `run`"];
    expect(root, &["check", "--landing", "land", "--trusted", "t"], 0, &busy, &["warning"]);
}

#[test]
fn anything_a_role_could_not_use_is_an_error_of_check() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    std::fs::create_dir_all(root.join("land/pending")).unwrap();
    std::fs::create_dir_all(root.join("broken")).unwrap();
    std::fs::write(root.join("broken/log.redb"), "no log").unwrap();
    std::fs::write(root.join("file"), "").unwrap();
    let zones = ["check", "--landing", "land", "--trusted", "t"];
    expect(
        root,
        &[&zones[..], &["--data-dir", "broken"]].concat(),
        2,
        &["error: log: ", "embedded log in broken"],
        &[],
    );
    expect(
        root,
        &[&zones[..], &["--data-dir", "file/log"]].concat(),
        2,
        &["error: log.data_dir: file/log cannot be a folder"],
        &[],
    );
    for scratch in ["scratch.dir=none", "scratch.dir=file"] {
        let said = ["error: scratch.dir", "is not a folder"];
        expect(root, &[&zones[..], &["--set", scratch]].concat(), 2, &said, &[]);
        let run = ["run", "--once", "--landing", "land", "--trusted", "t", "--set", scratch];
        expect(root, &run, 2, &["scratch.dir", "is not a folder"], &[]);
    }
    assert!(!root.join("t").exists(), "nothing is made before that is noticed");
}
