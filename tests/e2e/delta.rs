//! Delta tables over the files, read by programs that have nothing in common with this one.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::harness::{Ed, files, generate, services, unique_keys, wait_until};
use crate::kafka_s3::Zone;

/// `mode` is `count` or `watch`.
fn reader(mode: &str, table: &Path, argument: &str) -> Child {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/readers/delta.py");
    Command::new(services().delta_python)
        .args([script, mode, table.to_str().unwrap(), argument])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What it printed; panics if it found something wrong.
fn ended(reader: Child) -> String {
    let output = reader.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn ed(root: &Path, args: &[&str]) -> Ed {
    Ed::new(args).args(&["--trusted", "trusted"]).set("table.retain=0s").in_dir(root)
}

/// Folder names with escapes, and types that need them once more in the table's log.
const ODD: [&str; 4] = ["a/b", "\u{e9} x", "50%", "p+q=r&s?#:'"];

fn odd_events(pending: &Path, copies: usize) -> u64 {
    let mut text = String::new();
    for (number, kind) in ODD.iter().cycle().take(copies).enumerate() {
        let event = serde_json::json!({
            "event_id": format!("odd-{number}"), "timestamp": "2021-03-14T10:15:30", "domain": "d", "event_type": kind, "data": number,
        });
        text.push_str(&event.to_string());
        text.push('\n');
    }
    fs::write(pending.join("odd.ndjson"), text).unwrap();
    copies as u64
}

fn versions(table: &Path) -> usize {
    fs::read_dir(table.join("_delta_log")).map_or(0, Iterator::count)
}

/// While batches are written and merged, and the process is killed, no count of any reader goes back, and no row is there twice.
#[test]
fn readers_of_the_table_see_no_row_twice_and_none_vanish_beside_a_writer_that_merges_and_dies() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let (table, stop) = (root.join("trusted/events"), root.join("stop"));
    let pending = root.join("landing/pending");
    let mut expected = generate(&pending.join("first"), 2_000, "ndjson", 81) + odd_events(&pending, 40);
    let start = || {
        Ed::new(&["run", "--landing", "landing", "--trusted", "trusted"])
            .set("flush.max_rows=200")
            .set("flush.max_age=100ms")
            .set("landing.min_age=0s")
            .set("landing.poll_interval=100ms")
            .set("table.every=50ms")
            // Longer than any query of the test.
            .set("table.retain=5s")
            .set("compact.every=500ms")
            .set("compact.rest=0s")
            .in_dir(root)
            .start(&root.join("log"))
    };
    let mut run = start();
    wait_until("the table begins", || versions(&table) > 2);
    let watching = reader("watch", &table, stop.to_str().unwrap());
    for round in 0..6_u32 {
        expected += generate(&pending.join(format!("round-{round}")), 500, "ndjson", 82 + u64::from(round));
        let goal = versions(&table) + 2;
        wait_until("the table goes on", || versions(&table) >= goal);
        wait_until("files are merged", || {
            let staged = files(&table.join("_staged"), ".parquet").len();
            staged > 0 || round % 2 == 0
        });
        run.kill();
        run = start();
    }
    let is_complete = |expected: u64| reader("count", &table, &expected.to_string()).wait().unwrap().success();
    wait_until("everything is written", || is_complete(expected));
    fs::write(&stop, "").unwrap();
    let looks = ended(watching);
    run.signal("TERM");
    assert_eq!(run.wait_for_exit(), Some(0));
    ed(root, &["run", "--once", "--landing", "landing"]).report();
    ed(root, &["compact"]).set("compact.rest=0s").report();
    println!("{looks}{}", ended(reader("count", &table, &expected.to_string())));
    let audit = ed(root, &["verify", "--deep"]).report();
    assert_eq!(audit["findings"], Value::Array(Vec::new()), "{audit}");
    assert!(files(&table, ".parquet").len() < 200, "they are merged");
}

/// More than a hundred commits, the first of which are gone: readers, and the program, go by the checkpoint.
#[test]
fn a_table_is_read_from_its_checkpoint_and_rebuilt_when_it_is_lost() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let table = root.join("trusted/events");
    let log = table.join("_delta_log");
    let mut expected = 0;
    for round in 0..105_u64 {
        fs::create_dir_all(root.join("landing/pending")).unwrap();
        expected += generate(&root.join(format!("landing/pending/{round}")), 20, "ndjson", 200 + round);
        ed(root, &["run", "--once", "--landing", "landing"]).set("landing.min_age=0s").report();
    }
    assert!(log.join("_last_checkpoint").exists() && log.join(format!("{:020}.checkpoint.parquet", 100)).exists());
    for version in 0..100 {
        fs::remove_file(log.join(format!("{version:020}.json"))).unwrap();
    }
    let expected = unique_keys(&root.join("trusted")).len().max(usize::from(expected == 0)) as u64;
    ended(reader("count", &table, &expected.to_string()));
    fs::remove_file(log.join(format!("{:020}.checkpoint.parquet", 100))).unwrap();
    fs::remove_file(log.join("_last_checkpoint")).unwrap();
    let refused = ed(root, &["run", "--once", "--landing", "landing"]).output();
    let message = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && message.contains("'table rebuild'"), "{message}");
    let rebuilt = ed(root, &["table", "rebuild"]).report();
    assert_eq!(rebuilt["tables"]["events/"]["version"], 1, "{rebuilt}");
    ended(reader("count", &table, &expected.to_string()));
    ed(root, &["run", "--once", "--landing", "landing"]).report();
    ed(root, &["verify"]).report();
}

/// With several distributors, and in S3.
#[test]
fn distributors_that_share_partitions_publish_one_table_in_s3() {
    let zone = Zone::new(&services(), "delta");
    let unique = zone.land("files", 4_000, "ndjson", 91);
    zone.ingest().args(&["--once"]).report();
    let logs = tempfile::tempdir().unwrap();
    let start = |name: &str| {
        zone.distribute()
            .set("flush.max_rows=300")
            .set("flush.max_age=200ms")
            .set("table.every=200ms")
            .start(&logs.path().join(name))
    };
    let mut distributors = [start("one"), start("two")];
    wait_until("everything is written", || unique_keys(&zone.trusted.1).len() as u64 == unique);
    let table = zone.trusted.1.join("events");
    wait_until("everything is published", || {
        let mut reader = reader("count", &table, &unique.to_string());
        reader.wait().unwrap().success()
    });
    for distributor in &mut distributors {
        distributor.signal("TERM");
        assert_eq!(distributor.wait_for_exit(), Some(0));
    }
    let compact = || zone.compact().args(&["--offline"]).set("compact.rest=0s").output();
    wait_until("the group has no members, and files are merged", || compact().status.success());
    ended(reader("count", &table, &unique.to_string()));
    zone.assert_sound();
}
