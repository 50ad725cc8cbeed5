//! `ddl`: statements that make the tables known to engines.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{Ed, generate, services};
use crate::kafka_s3::Zone;

fn reader(args: &[&str], input: &[u8]) -> String {
    reader_by(&services().python, args, input)
}

fn reader_by(python: &Path, args: &[&str], input: &[u8]) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/readers/ddl.py");
    let mut process = Command::new(python)
        .arg(script)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    process.stdin.take().unwrap().write_all(input).unwrap();
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

const COLUMNS: &str = "[[columns]]\nname = \"amount\"\npointer = \"/order/amount\"\ntype = \"decimal(18,2)\"\n\n\
                       [[columns]]\nname = \"rank_of_id\"\npointer = \"/it's/paid\"\ntype = \"timestamp\"\n";

#[test]
fn statements_for_duckdb_show_every_row_and_the_last_one_of_each_id() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    std::fs::write(root.join("columns.toml"), COLUMNS).unwrap();
    let expected = generate(&root.join("landing/pending/events"), 2_000, "ndjson", 71);
    // A pattern would read the other one, too.
    for trusted in ["it's [t]*", "it's txx"] {
        let run = ["run", "--once", "--landing", "landing", "--trusted", trusted, "--config", "columns.toml"];
        Ed::new(&run).set("landing.archive=leave").in_dir(root).report();
    }
    let statements = Ed::new(&["ddl", "--engine", "duckdb", "--trusted", "it's [t]*", "--config", "columns.toml"]);
    let output = statements.args(&["--output", "json"]).in_dir(root).output();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = reader(&["duckdb", "events", &expected.to_string()], &output.stdout);
    assert!(shown.contains("\"rank_of_id\"") && shown.contains("\"_offset\""), "{shown}");
    let statements = ["ddl", "--engine", "duckdb", "--format", "delta", "--trusted", "it's [t]*", "--output", "json"];
    let output = Ed::new(&statements).in_dir(root).output();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let python = services().delta_python;
    let shown = reader_by(&python, &["duckdb", "events", &expected.to_string()], &output.stdout);
    assert!(shown.contains("\"rank_of_id\"") && shown.contains("\"_offset\""), "{shown}");
}

/// Of engines that cannot be had here the grammar says whether their statements are ones.
#[test]
fn statements_for_other_engines_fit_their_grammar_and_name_what_is_there() {
    let zone = Zone::new(&services(), "ddl");
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    std::fs::write(root.join("columns.toml"), COLUMNS).unwrap();
    let ddl_of = |format: &str, engine: &str, trusted: &str| {
        let args = ["ddl", "--engine", engine, "--trusted", trusted, "--config", "columns.toml", "--output", "json"];
        Ed::new(&args).args(&["--format", format]).s3(&services()).in_dir(root).output()
    };
    let ddl = |engine: &str, trusted: &str| ddl_of("files", engine, trusted);
    for engine in ["athena", "bigquery", "clickhouse", "duckdb", "snowflake", "spark", "trino"] {
        let output = ddl_of("delta", engine, &zone.trusted.0);
        assert!(output.status.success(), "{engine}: {}", String::from_utf8_lossy(&output.stderr));
        reader(&["parse", engine], &output.stdout);
    }
    let glue: serde_json::Value = serde_json::from_slice(&ddl_of("delta", "glue", &zone.trusted.0).stdout).unwrap();
    let table: serde_json::Value = serde_json::from_str(glue["statements"][0]["sql"].as_str().unwrap()).unwrap();
    assert_eq!(table["StorageDescriptor"]["Columns"].as_array().unwrap().len(), 15, "{table}");
    let check = |named: &[&str]| {
        for engine in ["athena", "bigquery", "clickhouse", "duckdb", "snowflake", "spark", "trino"] {
            let output = ddl(engine, &zone.trusted.0);
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{engine}: {}", String::from_utf8_lossy(&output.stderr));
            reader(&["parse", engine], &output.stdout);
            if ["athena", "trino"].contains(&engine) {
                assert!(named.iter().all(|named| text.contains(named)), "{engine}: {named:?} in {text}");
            }
        }
        let glue: serde_json::Value = serde_json::from_slice(&ddl("glue", &zone.trusted.0).stdout).unwrap();
        let table: serde_json::Value = serde_json::from_str(glue["statements"][0]["sql"].as_str().unwrap()).unwrap();
        assert_eq!(table["StorageDescriptor"]["Columns"].as_array().unwrap().len(), 11, "{table}");
        assert!(named.iter().all(|named| table["Parameters"].to_string().contains(named)), "{named:?} in {table}");
    };
    check(&["injected"]);
    let files = tempfile::tempdir().unwrap();
    for (kind, year) in [("a-b", 2019), ("it's-%2F", 2021)] {
        let folder = files.path().join(format!("domain_event_type={kind}/year={year}/month=01/day=14"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("events-0-0-0.parquet"), "x").unwrap();
    }
    let bucket = zone.trusted.0.strip_prefix("s3://").and_then(|rest| rest.strip_suffix("/zone")).unwrap();
    services().upload(files.path(), bucket, "zone/events");
    check(&["enum", "a-b", "%2F", "2019"]);
    for name in ["", "x` AS SELECT 1; --", "a-b", "x\\"] {
        let refused = Ed::new(&["ddl", "--engine", "clickhouse", "--trusted", "trusted", "--name", name]).in_dir(root);
        assert_eq!(refused.output().status.code(), Some(2), "{name}");
    }
    assert_eq!(ddl("spark", "tru*ted").status.code(), Some(2), "it would be a pattern");
    for engine in ["athena", "bigquery", "glue", "snowflake", "trino"] {
        assert_eq!(ddl(engine, "trusted").status.code(), Some(2), "{engine} reads no folder of this machine");
    }
}
