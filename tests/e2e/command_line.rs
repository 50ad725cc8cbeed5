//! The contract that scripts rely on: exit codes, output, configuration, health.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::harness::{Ed, files, generate, wait_until};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn wrong_usage_and_configuration_exit_with_2_and_name_every_error() {
    assert_eq!(Ed::new(&["run", "--nonsense"]).output().status.code(), Some(2));
    let output = Ed::new(&[
        "run",
        "--set",
        "flush.max_agee=1s",
        "--set",
        "trusted.compression=lzo",
        "--set",
        "dedup.window=soon",
    ])
    .output();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    for part in ["3 errors", "did you mean flush.max_age?", "trusted.compression", "dedup.window"] {
        assert!(message.contains(part), "{part:?} is missing in {message}");
    }
    let output = Ed::new(&["run", "--once", "--trusted", "t"]).output();
    assert!(output.status.code() == Some(2) && text(&output.stderr).contains("--landing"), "{}", text(&output.stderr));
    let output = Ed::new(&["run", "--once", "--landing", "/no/such/folder", "--trusted", "t"]).output();
    assert!(
        output.status.code() == Some(2) && text(&output.stderr).contains("/no/such/folder"),
        "{}",
        text(&output.stderr)
    );
    let output = Ed::new(&["ingest", "--brokers", "x:1", "--landing", ".", "--set", "kafka.client.acks=1"]).output();
    assert!(
        output.status.code() == Some(2) && text(&output.stderr).contains("kafka.client.acks"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn the_effective_configuration_is_printed_with_secrets_masked() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ed.toml");
    std::fs::write(&file, "[flush]\nmax_age = \"7s\"\n[kafka.client]\n\"sasl.password\" = \"hush\"\n").unwrap();
    let output =
        Ed::new(&["config", "print", "--config", file.to_str().unwrap()]).env("ED__DEDUP__WINDOW", "3h").output();
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    assert!(
        printed.contains("max_age = \"7s\"") && printed.contains("window = \"3h\"") && !printed.contains("hush"),
        "{printed}"
    );
}

#[test]
fn a_running_role_serves_health_and_metrics_and_ends_with_0_on_sigterm() {
    let root = tempfile::tempdir().unwrap();
    let unique = generate(&root.path().join("landing/pending"), 500, "ndjson", 1);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let listen = format!("http.listen={address}");
    let mut process = Ed::new(&["run", "--landing", "landing", "--trusted", "trusted"])
        .set(&listen)
        .set("landing.min_age=100ms")
        .set("landing.poll_interval=50ms")
        .set("flush.max_age=200ms")
        .in_dir(root.path())
        .start(&root.path().join("log"));
    let get = |path: &str| -> Option<String> {
        let mut stream = TcpStream::connect(&address).ok()?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    };
    let log = root.path().join("log");
    let alive = |process: &mut crate::harness::Process| {
        assert!(!process.has_ended(), "it ended: {}", std::fs::read_to_string(&log).unwrap_or_default());
    };
    wait_until("it is ready", || {
        alive(&mut process);
        get("/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    });
    assert!(get("/livez").unwrap().starts_with("HTTP/1.1 200"));
    wait_until("all rows are written", || {
        alive(&mut process);
        get("/metrics").is_some_and(|answer| answer.contains(&format!("\ned_distribute_rows_total {unique}\n")))
    });
    let metrics = get("/metrics").unwrap();
    for name in [
        "ed_ingest_events_total 500",
        "ed_ingest_files_total 1",
        "ed_distribute_window_entries",
        "ed_distribute_batch_seconds_count",
    ] {
        assert!(metrics.contains(name), "{name:?} is missing in {metrics}");
    }
    assert!(!files(&root.path().join("trusted/events"), ".parquet").is_empty(), "a batch is flushed by age alone");
    process.signal("TERM");
    assert_eq!(process.wait_for_exit(), Some(0));
}
