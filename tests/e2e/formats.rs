//! Events in files of other programs, from the file to a query.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::{Ed, rows, services};

fn event(id: &str, timestamp: &str, data: &str) -> String {
    format!(
        "{{\"event_id\":\"{id}\",\"timestamp\":\"{timestamp}\",\"domain\":\"d\",\"event_type\":\"t\",\"data\":{data}}}\n"
    )
}

fn land(root: &Path, events: &[String]) {
    fs::create_dir_all(root.join("landing/pending")).unwrap();
    fs::write(root.join("landing/pending/a.json"), events.concat()).unwrap();
}

fn run(root: &Path, settings: &[&str]) -> serde_json::Value {
    let ed = Ed::new(&["run", "--once", "--landing", "landing", "--trusted", "trusted"]).in_dir(root);
    settings.iter().fold(ed, |ed, setting| ed.set(setting)).report()
}

fn dlq(root: &Path, args: &[&str]) -> String {
    let output = Ed::new(&["dlq"]).args(args).args(&["--trusted", "trusted"]).in_dir(root).output();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn times_and_strings_that_other_programs_write_become_rows_that_every_query_reads() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let times = [
        "2021-01-14 10:15:30+00",
        "2021-01-14 10:15:30 UTC",
        "2021-01-14 10:15:30 +0000",
        "2021/01/14 02:15:30 -0800",
        "2021-01-14T10:15:30,000",
        "20210114T101530Z",
        "2021-01-14T11:15:30+01:00[Europe/Berlin]",
    ];
    let data =
        [r#"{"x":"cut \ud83d"}"#, r#"{"\uDE00":{"x":"\ud83d\ude00"},"x":"\\ud83d"}"#, r#"{"x":"a\u0000b","n":1e999}"#];
    let events: Vec<_> =
        (0..).zip(times).map(|(id, time)| event(&format!("e{id}"), time, data[id % data.len()])).collect();
    land(root, &events);
    let report = run(root, &[]);
    assert_eq!(report["events"], serde_json::json!({"published": 7, "rejected": 0}), "{report}");
    assert_eq!(
        (report["written"]["rows"].as_u64(), report["written"]["replaced_surrogates"].as_u64()),
        (Some(7), Some(5))
    );
    let rows = rows(&root.join("trusted"));
    assert!(rows.iter().all(|row| row.timestamp_us == 1_610_619_330_000_000), "{rows:?}");
    assert_eq!(rows[0].data, data[0].replace("ud83d", "ufffd"));
    assert_eq!(rows[1].data, data[1].replace("uDE00", "ufffd"));
    assert_eq!(rows[2].data, data[2]);

    let check = concat!(env!("CARGO_MANIFEST_DIR"), "/readers/check.py");
    let output = Command::new(services().python).arg(check).arg(root.join("trusted")).arg("7").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let deep = Ed::new(&["verify", "--deep", "--trusted", "trusted"]).in_dir(root).output();
    assert!(deep.status.success(), "rows differ from those of the log's records");
}

#[test]
fn a_pattern_reads_times_that_the_default_refuses_with_the_setting_in_the_message() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    land(root, &[event("a", "14.07.2021 12:15", "1"), event("b", "2021-07-14", "1"), event("c", "1626257700", "1")]);
    assert_eq!(run(root, &[])["events"]["rejected"].as_u64(), Some(3));
    let listed = dlq(root, &["list"]);
    for sentence in [
        "field 'timestamp' is not a time such as 2021-01-14T10:15:30Z; format.timestamp_format can name another form",
        "field 'timestamp' names a day without a time of day; format.timestamp_format = \"%Y-%m-%d\" reads days as midnight",
        "field 'timestamp' is a number; format.timestamp_format must say its unit",
    ] {
        assert!(listed.contains(sentence), "{sentence:?} is missing in\n{listed}");
    }
    let pattern = "format.timestamp_format=%d.%m.%Y %H:%M";
    let zone = "format.timezone=Europe/Berlin";
    let replayed = dlq(root, &["replay", "--output", "json", "--set", pattern, "--set", zone]);
    assert!(replayed.contains("\"events\":1"), "{replayed}");
    let report = run(root, &[pattern, zone]);
    assert_eq!(report["written"]["rows"].as_u64(), Some(1), "{report}");
    assert_eq!(rows(&root.join("trusted"))[0].timestamp_us, 1_626_257_700_000_000);

    let refused = Ed::new(&["run", "--once", "--landing", "landing", "--trusted", "trusted"])
        .set("format.timestamp_format=%H:%M %Z")
        .in_dir(root)
        .output();
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{message}");
    assert!(message.contains("format.timestamp_format") && message.contains("%Z"), "{message}");
}

#[test]
fn events_with_lone_surrogates_are_dead_letters_as_long_as_the_setting_says_so() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let time = "2021-01-14T10:15:30Z";
    land(root, &[event("a", time, r#""\ud83d""#), event("b", time, r#""\ud83d\ude00""#), event("\\ud83d", time, "1")]);
    let report = run(root, &["format.lone_surrogates=reject"]);
    assert_eq!(report["events"], serde_json::json!({"published": 1, "rejected": 2}), "{report}");
    assert!(report["written"].get("replaced_surrogates").is_none(), "{report}");
    let listed = dlq(root, &["list", "--reason", "lone_surrogate"]);
    for sentence in [
        "field 'data' holds half of a surrogate pair, which query engines refuse; format.lone_surrogates",
        "field 'event_id' holds half of a surrogate pair, which is no text",
    ] {
        assert!(listed.contains(sentence), "{sentence:?} is missing in\n{listed}");
    }
    let replayed = dlq(root, &["replay", "--output", "json"]);
    assert!(replayed.contains("\"events\":1") && replayed.contains("\"lone_surrogate\":1"), "{replayed}");
    assert_eq!(run(root, &[])["written"]["replaced_surrogates"].as_u64(), Some(1));
    let data: Vec<_> = rows(&root.join("trusted")).into_iter().map(|row| (row.event_id, row.data)).collect();
    let expected =
        [("a", r#""\ufffd""#), ("b", r#""\ud83d\ude00""#)].map(|(id, data)| (id.to_owned(), data.to_owned()));
    assert_eq!(data, expected);
}
