//! Overlapping places, and texts that cannot be meant as a place, are refused before anything is done.

use std::path::Path;

use crate::harness::{Ed, contents, generate};

/// Exit code, and the output of both streams.
fn said(root: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = Ed::new(args).in_dir(root).env("AWS_REGION", "us-east-1").output();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

/// Every command that takes places, with its other arguments.
const COMMANDS: [&[&str]; 8] = [
    &["run", "--once"],
    &["ingest", "--once", "--brokers", "127.0.0.1:1"],
    &["distribute", "--once", "--brokers", "127.0.0.1:1"],
    &["check"],
    &["verify"],
    &["replay", "--to", "earliest"],
    &["dlq", "list"],
    &["dlq", "replay"],
];

#[test]
fn places_inside_each_other_are_refused_by_every_command_and_nothing_is_made() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    generate(&root.join("land/pending"), 100, "ndjson", 1);
    std::os::unix::fs::symlink("land", root.join("link")).unwrap();
    let before = contents(&root.join("land"));
    for (landing, trusted, data_dir, part) in [
        ("land", "land/pending/trusted", "log", "trusted.url ('land/pending/trusted') lies inside pending/"),
        ("land", "link/x/../pending/t", "log", "lies inside pending/ of landing.url ('land')"),
        ("./land", "trusted", "land/processed/log", "log.data_dir ('land/processed/log') lies inside processed/"),
        ("land", "land/", "log", "is the same place as landing.url"),
        ("s3://lake/zone", "s3://lake/zone/pending", "log", "lies inside pending/ of landing.url ('s3://lake/zone')"),
    ] {
        let settings = [
            format!("landing.url={landing}"),
            format!("trusted.url={trusted}"),
            format!("log.data_dir={data_dir}"),
            "landing.archive=delete".to_owned(),
        ];
        let settings: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        for command in COMMANDS {
            let (code, output) = said(root, &[command, &settings].concat());
            assert!(
                code == Some(2) && output.contains(part),
                "{command:?} with {trusted}, {data_dir}: {code:?} {output}"
            );
        }
    }
    assert!(
        contents(&root.join("land")) == before && std::fs::read_dir(root).unwrap().count() == 2,
        "nothing was made or moved"
    );
}

#[test]
fn no_folder_is_made_of_a_text_that_means_something_else() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    generate(&root.join("land/pending"), 10, "ndjson", 1);
    for (trusted, meant) in [
        ("~/trusted", "only a shell replaces"),
        ("s3:/lake/x", "did you mean 's3://lake/x'?"),
        ("s3:lake", "did you mean 's3://lake'?"),
        ("file://trusted", "did you mean '/trusted' or './trusted'?"),
        ("https://lake.s3.amazonaws.com", "did you mean 's3://lake'?"),
        ("C:\\trusted", "a path of Windows"),
        (" trusted", "did you mean 'trusted'?"),
        ("s3//lake/x", "did you mean 's3://lake/x'?"),
        ("lake.s3.eu-west-1.amazonaws.com/x", "did you mean 's3://lake/x'?"),
        ("host:/trusted", "a folder of another machine"),
        ("{env}/trusted", "a variable that nothing replaces"),
        ("gs://lake", "the scheme 'gs'"),
    ] {
        for command in [&["run", "--once", "--landing", "land"][..], &["check"], &["verify"]] {
            let (code, output) = said(root, &[command, &["--trusted", trusted]].concat());
            assert!(code == Some(2) && output.contains(meant), "{command:?} with {trusted}: {code:?} {output}");
        }
        let (code, output) =
            said(root, &["run", "--once", "--landing", "land", "--trusted", "t", "--data-dir", trusted]);
        assert!(code == Some(2) && output.contains("log.data_dir (--data-dir)"), "{trusted}: {code:?} {output}");
    }
    assert_eq!(std::fs::read_dir(root).unwrap().count(), 1, "something besides the landing zone was created");
    let (code, output) =
        said(root, &["run", "--once", "--landing", "land", "--trusted", &format!("file://{}/t", root.display())]);
    assert!(code == Some(0) && root.join("t/events").is_dir(), "{output}");
    let (code, output) = said(root, &["run", "--once", "--landing", "land", "--trusted", "./{env}:/t"]);
    assert!(code == Some(0) && root.join("{env}:/t/_log").is_dir(), "a folder that is really called so: {output}");
}

#[test]
fn a_place_where_no_folder_can_be_is_wrong_usage() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    generate(&root.join("land/pending"), 10, "ndjson", 1);
    std::fs::write(root.join("file"), "").unwrap();
    std::os::unix::fs::symlink("nowhere", root.join("dangling")).unwrap();
    let run = ["run", "--once", "--landing", "land"];
    for (args, key) in [
        (["--trusted", "file", "--data-dir", "log"], "trusted.url: file is a file, not a folder"),
        (["--trusted", "file/x", "--data-dir", "log"], "trusted.url: file/x cannot be a folder"),
        (["--trusted", "dangling", "--data-dir", "log"], "trusted.url: dangling cannot be a folder"),
        (["--trusted", "t", "--data-dir", "file"], "log.data_dir: file is a file, not a folder"),
    ] {
        let (code, output) = said(root, &[&run[..], &args].concat());
        assert!(code == Some(2) && output.contains(key), "{args:?}: {code:?} {output}");
        let (code, output) = said(root, &[&["check", "--landing", "land"], &args[..]].concat());
        assert_eq!(code, Some(2), "{args:?}: {output}");
    }
    let (code, output) = said(root, &["verify", "--trusted", "land", "--data-dir", "file"]);
    assert!(code == Some(2) && output.contains("log.data_dir: file is a file"), "{code:?} {output}");
    assert_eq!(std::fs::read_dir(root).unwrap().count(), 3, "something was made");
}

#[test]
fn a_control_character_in_a_place_is_named_readably() {
    let root = tempfile::tempdir().unwrap();
    generate(&root.path().join("land/pending"), 10, "ndjson", 1);
    for command in [&["run", "--once", "--landing", "land"][..], &["check"], &["verify"]] {
        let (code, output) = said(root.path(), &[command, &["--trusted", "t\u{1b}[2J"]].concat());
        assert!(code == Some(2) && output.contains("control character U+001B"), "{command:?}: {output}");
        assert!(!output.contains("u{5c}") && !output.contains('\u{1b}'), "{command:?}: {output}");
    }
}

#[test]
fn run_refuses_brokers_and_names_the_commands_for_them() {
    let root = tempfile::tempdir().unwrap();
    generate(&root.path().join("land/pending"), 10, "ndjson", 1);
    let args = ["run", "--once", "--landing", "land", "--trusted", "t", "--set", "kafka.brokers=127.0.0.1:1"];
    let (code, output) = said(root.path(), &args);
    assert!(code == Some(2) && output.contains("start 'ingest' and 'distribute'"), "{code:?} {output}");
    assert!(!root.path().join("t").exists(), "nothing was made");
}

#[test]
fn naming_the_folder_of_the_files_suggests_the_one_that_contains_it() {
    let root = tempfile::tempdir().unwrap();
    generate(&root.path().join("land/pending"), 10, "ndjson", 1);
    for command in [&["run", "--once", "--trusted", "t"][..], &["check", "--trusted", "t"]] {
        let (code, output) = said(root.path(), &[command, &["--landing", "land/pending"]].concat());
        assert!(code == Some(2) && output.contains("did you mean 'land'?"), "{command:?}: {code:?} {output}");
    }
    assert!(!root.path().join("t").exists());
    let land = root.path().join("land");
    for file in crate::harness::files(&land.join("pending"), "") {
        std::fs::rename(&file, land.join(file.file_name().unwrap())).unwrap();
    }
    let (code, output) = said(root.path(), &["check", "--trusted", "t", "--landing", "land"]);
    assert!(code == Some(0) && output.contains("is not in pending/, where files are read"), "{output}");
}
