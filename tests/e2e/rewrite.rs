//! `rewrite`: writes tables again that were written under other settings.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::{
    Ed, assert_tables_are_as_committed, entries, files, generate, services, unique, unique_keys, wait_until,
};
use crate::kafka_s3::Zone;

fn ed(root: &Path, args: &[&str]) -> Ed {
    Ed::new(args).args(&["--trusted", "trusted"]).in_dir(root)
}

pub fn sum(report: &serde_json::Value, field: &str) -> u64 {
    report["partitions"].as_array().unwrap().iter().map(|partition| partition[field].as_u64().unwrap()).sum()
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
        let all: Vec<&str> = ["rewrite"].iter().chain(args).copied().collect();
        ed(root, &all).set("table.retain=0s").set("trusted.max_types=500").set("trusted.compression=snappy")
    };
    let planned = rewrite(&["--dry-run"]).report();
    assert_eq!(files(&root.join("trusted/events"), ".parquet"), before, "a dry run changes nothing");
    let message = String::from_utf8(rewrite(&["--dry-run"]).output().stdout).unwrap();
    assert!(
        message.contains("differs: max_types: ")
            && message.contains(" -> 500")
            && message.contains("files are to have snappy"),
        "{message}"
    );
    let done = rewrite(&[]).report();
    assert_eq!(sum(&done, "rewritten"), sum(&planned, "rewritten"));
    assert_eq!((sum(&done, "files_removed"), sum(&done, "rows_made")), (before.len() as u64, unique), "{done}");
    assert_eq!(unique_keys(&root.join("trusted")), keys);
    let after = files(&root.join("trusted/events"), ".parquet");
    assert_eq!(after.len() as u64, sum(&done, "files_made"));
    assert!(after.iter().all(|path| !before.contains(path)), "all files are new ones");
    let audit = ed(root, &["verify", "--deep"]).report();
    assert_eq!(sum(&audit, "rewritten_files"), sum(&audit, "files"), "{audit}");
    assert_eq!(sum(&rewrite(&[]).report(), "rewritten"), 0, "a second one finds nothing to do");
    // Only a rewrite makes a file of a rewrite again: that one alone.
    std::fs::remove_file(&after[0]).unwrap();
    assert_eq!(ed(root, &["verify"]).output().status.code(), Some(1));
    let planned = ed(root, &["replay", "--to", "earliest", "--dry-run"]).report();
    assert_eq!((sum(&planned, "missing"), sum(&planned, "of_rewrites")), (1, 1), "{planned}");
    let done = rewrite(&[]).report();
    assert_eq!((sum(&done, "restored_files"), sum(&done, "rewritten"), sum(&done, "files_made")), (1, 0, 1), "{done}");
    assert_eq!(unique_keys(&root.join("trusted")), keys);
    ed(root, &["verify", "--deep"]).report();
    assert_tables_are_as_committed(&root.join("trusted"));
}

#[test]
fn settings_that_would_make_other_duplicates_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    generate(&root.join("landing/pending"), 100, "ndjson", 1);
    ed(root, &["run", "--once", "--landing", "landing"]).report();
    let refused = ed(root, &["rewrite", "--offline"]).set("dedup.window=1h").output();
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && message.contains("other events would be its duplicates"), "{message}");
}

#[test]
fn an_offline_rewrite_over_kafka_and_s3_waits_for_members_to_leave_and_survives_kills() {
    let zone = Zone::new(&services(), "rewrite");
    let unique = zone.land("files", 6_000, "ndjson", 23);
    zone.ingest().args(&["--once"]).report();
    let logs = tempfile::tempdir().unwrap();
    let mut distributor =
        zone.distribute().set("flush.max_rows=100").set("flush.max_age=1s").start(&logs.path().join("log"));
    wait_until("everything is written", || {
        let listed = zone.verify().args(&["--output", "json"]).output();
        let audit: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap_or_default();
        audit["partitions"].is_array() && sum(&audit, "rows") + sum(&audit, "duplicates") == 6_000
    });
    let before = files(&zone.trusted.1, "");
    let rewrite = || zone.rewrite().args(&["--offline"]).set("trusted.compression=snappy");
    let refused = rewrite().output();
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(1) && message.contains("has members: stop every distributor first"),
        "{message}"
    );
    assert_eq!(files(&zone.trusted.1, ""), before, "nothing was changed");
    distributor.signal("TERM");
    assert_eq!(distributor.wait_for_exit(), Some(0));
    let keys = unique_keys(&zone.trusted.1);
    assert_eq!(keys.len() as u64, unique);

    let mut killed = 0;
    for further in [1, 1, 2] {
        let goal = entries(&zone.trusted.1) + further;
        let mut process = rewrite().start(&logs.path().join("killed"));
        wait_until("it goes on", || entries(&zone.trusted.1) >= goal || process.has_ended());
        killed += u32::from(!process.has_ended());
        process.kill();
        let audit = zone.verify().args(&["--deep"]).report();
        assert_eq!(audit["findings"], serde_json::json!([]), "an interrupted rewrite is no fault: {audit}");
    }
    assert!(killed >= 2, "only {killed} runs were killed");
    let audit = zone.verify().report();
    assert!(sum(&audit, "open_replaces") > 0, "it is reported: {audit}");
    // Distributors go on meanwhile.
    let further = zone.land("further", 500, "ndjson", 24);
    zone.ingest().args(&["--once"]).report();
    let report = zone.distribute().set("trusted.compression=snappy").args(&["--once"]).report();
    assert_eq!(report["written"]["rows"].as_u64(), Some(further), "{report}");

    let done = rewrite().report();
    assert!(sum(&done, "rewritten") > 0 && sum(&done, "not_in_log") == 0, "{done}");
    assert_eq!(unique_keys(&zone.trusted.1).len() as u64, unique + further);
    let audit = zone.assert_sound();
    assert!(sum(&audit, "rewritten_files") > 50 && sum(&audit, "open_replaces") == 0, "{audit}");
    assert_eq!(sum(&rewrite().report(), "rewritten"), 0, "nothing is left to do");
    let report = zone.distribute().args(&["--once"]).report();
    assert_eq!(report["written"]["files"].as_u64(), Some(0), "{report}");
}

/// Over Kafka and a folder, whose locks tell a rewrite from the puts of distributors.
#[test]
fn a_rewrite_goes_on_beside_distributors_and_no_row_is_ever_visible_twice() {
    let root = tempfile::tempdir().unwrap();
    let (root, services, topic) = (root.path(), services(), unique("beside"));
    let ed = |command: &[&str]| {
        let (topic, group) = (format!("log.events_topic={topic}"), format!("kafka.group={topic}"));
        Ed::new(command).args(&["--brokers", &services.kafka]).set(&topic).set(&group).in_dir(root)
    };
    let land = |folder: &str, events: u64, seed: u64| {
        generate(&root.join("landing/pending").join(folder), events, "ndjson", seed)
    };
    let ingest = || ed(&["ingest", "--once", "--landing", "landing"]).report();
    let mut expected = land("first", 6_000, 41);
    ingest();
    let trusted = root.join("trusted");
    let start = |name: &str| {
        ed(&["distribute", "--trusted", "trusted"])
            .set("flush.max_rows=200")
            .set("flush.max_age=200ms")
            .start(&root.join(name))
    };
    let mut distributors = [start("a"), start("b")];
    let written = || {
        if !trusted.exists() {
            return 0;
        }
        let output = ed(&["verify", "--trusted", "trusted", "--output", "json"]).output();
        let audit: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(audit["findings"], serde_json::json!([]), "sound at every moment: {audit}{said}");
        sum(&audit, "rows")
    };
    wait_until("the first events are written", || written() == expected);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // A reader of the plain folder: each offset of a partition stands in one file.
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                assert_no_offset_twice(&trusted);
            }
        });
        for (round, compression) in ["snappy", "zstd", "snappy"].into_iter().enumerate() {
            expected += land(&format!("round-{round}"), 1_000, 42 + round as u64);
            ingest();
            let set = format!("trusted.compression={compression}");
            let report = ed(&["rewrite", "--trusted", "trusted"]).set("table.retain=0s").set(&set).report();
            assert!(sum(&report, "rewritten") > 0, "{report}");
        }
        wait_until("everything is written", || written() == expected);
        done.store(true, Ordering::SeqCst);
    });
    for distributor in &mut distributors {
        distributor.signal("TERM");
        assert_eq!(distributor.wait_for_exit(), Some(0));
    }
    assert_eq!(unique_keys(&trusted).len() as u64, expected);
    ed(&["verify", "--deep", "--trusted", "trusted"]).report();
    assert_tables_are_as_committed(&trusted);
}

/// Reads all files that are there, as an engine does, which may vanish meanwhile.
pub fn assert_no_offset_twice(trusted: &Path) {
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Int32Type, Int64Type};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    // A listing takes a while: what is opened at once is what stood there at one moment.
    let opened: Vec<_> = files(&trusted.join("events"), ".parquet")
        .into_iter()
        .filter_map(|path| Some((std::fs::File::open(&path).ok()?, path)))
        .collect();
    let mut seen = std::collections::BTreeMap::new();
    for (file, path) in opened {
        for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let partitions = batch.column_by_name("_partition").unwrap().as_primitive::<Int32Type>();
            let offsets = batch.column_by_name("_offset").unwrap().as_primitive::<Int64Type>();
            for row in 0..batch.num_rows() {
                let other = seen.insert((partitions.value(row), offsets.value(row)), path.clone());
                assert_eq!(
                    other,
                    None,
                    "{}/{} is in {}, too",
                    partitions.value(row),
                    offsets.value(row),
                    path.display()
                );
            }
        }
    }
}
