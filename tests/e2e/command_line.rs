//! The contract with scripts: exit codes, output, configuration, health.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::harness::{Ed, contents, files, generate, services, wait_until};
use crate::kafka_s3::Zone;

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

fn check(args: &[&str]) -> (Option<i32>, String) {
    let output = Ed::new(&["check"]).args(args).output();
    (output.status.code(), text(&output.stdout))
}

fn json(printed: &str) -> serde_json::Value {
    serde_json::from_str(printed.lines().last().unwrap_or_default())
        .unwrap_or_else(|error| panic!("{error} in {printed:?}"))
}

#[test]
fn check_warns_of_small_files_with_figures_and_a_remedy() {
    let many = ["--offline", "--types", "1000", "--partitions", "12", "--trusted", "t"];
    let (code, printed) = check(&many);
    assert_eq!(code, Some(0), "a warning failed the command: {printed}");
    for part in
        ["34,560,000 Parquet files a day", "more than 50,000", "12 partitions x 2,880 batches", "flush.max_age = "]
    {
        assert!(printed.contains(part), "{part:?} is missing in {printed}");
    }
    assert_eq!(check(&[&many[..], &["--strict"]].concat()).0, Some(1));
    let (code, printed) = check(&[&many[..], &["--strict", "--set", "flush.warn_files_per_day=40000000"]].concat());
    assert!(code == Some(0) && printed.contains("the configuration is sound; nothing else was checked"), "{printed}");
    let busy = ["--offline", "--types", "12", "--brokers", "k:1", "--events-per-second", "100000", "--output", "json"];
    let (_, printed) = check(&busy);
    let report = json(&printed);
    assert_eq!(report["forecast"]["closed_by"], "memory", "{report}");
    assert!(
        report["warnings"][0]["message"].as_str().unwrap().contains("flush.max_memory closes batches after 9."),
        "{report}"
    );
    assert!(report["forecast"]["file_bytes"].as_f64().unwrap() > 3_300.0, "{report}");
}

#[test]
fn check_reports_every_error_at_once_and_exits_with_2() {
    let wrong = ["--set", "flush.max_age=0s", "--set", "trusted.compression=lzo", "--output", "json"];
    let (code, printed) = check(&wrong);
    assert_eq!((code, json(&printed)["errors"].as_array().map(Vec::len)), (Some(2), Some(2)), "{printed}");
    let (code, printed) = check(&["--landing", "land", "--set", "landing.sqs_queue_url=https://host/queue"]);
    assert!(code == Some(2) && printed.contains("error: configuration: landing.sqs_queue_url (--set)"), "{printed}");
    let unusable = ["--landing", "/no/such/folder", "--trusted", "/dev/null"];
    let (code, printed) = check(&unusable);
    assert_eq!(code, Some(2));
    for part in ["error: landing zone", "error: trusted zone"] {
        assert!(printed.contains(part), "{part:?} is missing in {printed}");
    }
}

#[test]
fn check_inspects_the_tables_and_the_embedded_log_and_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (landing, trusted) = (root.path().join("landing"), root.path().join("trusted"));
    generate(&landing.join("pending"), 500, "ndjson", 1);
    let zones = ["--landing", landing.to_str().unwrap(), "--trusted", trusted.to_str().unwrap()];
    let (code, printed) = check(&zones);
    assert!(code == Some(0) && printed.contains("there is no embedded log yet"), "{printed}");
    assert!(!trusted.exists(), "it is not made by looking");
    Ed::new(&["run", "--once"]).args(&zones).set("log.partitions=3").report();
    let before = contents(root.path());
    let (code, printed) = check(&[&zones[..], &["--output", "json"]].concat());
    let report = json(&printed);
    assert_eq!(
        (code, report["forecast"]["partitions"].as_u64(), report["forecast"]["types"].as_u64()),
        (Some(0), Some(3), Some(12))
    );
    assert!(before == contents(root.path()), "nothing is changed by looking");
}

#[test]
fn check_finds_a_topic_that_roles_refuse_and_creates_none() {
    let services = services();
    let zone = Zone::new(&services, "check");
    let looked = || {
        Ed::new(&["check", "--brokers", &services.kafka, "--landing", &zone.landing.0, "--trusted", &zone.trusted.0])
            .set(&format!("log.events_topic={}", zone.topic))
            .s3(&services)
            .output()
    };
    let topic = |args: &[&str]| services.kafka_tool("org.apache.kafka.tools.TopicCommand", args);
    let output = looked();
    let printed = text(&output.stdout);
    assert!(output.status.code() == Some(0) && printed.contains("does not exist yet"), "{printed}");
    assert!(!topic(&["--list"]).contains(&zone.topic), "no topic was made");
    assert!(contents(&zone.trusted.1).is_empty(), "nothing stays behind");
    topic(&["--create", "--topic", &zone.topic, "--partitions", "7"]);
    let output = looked();
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{printed}");
    assert!(printed.contains("message.timestamp.type=CreateTime must be LogAppendTime"), "{printed}");
    services.kafka_tool(
        "kafka.admin.ConfigCommand",
        &["--alter", "--topic", &zone.topic, "--add-config", "message.timestamp.type=LogAppendTime"],
    );
    let output = looked();
    let printed = text(&output.stdout);
    assert!(output.status.code() == Some(0) && printed.contains("with 7 partitions"), "{printed}");
    services.kafka_tool(
        "kafka.admin.ConfigCommand",
        &["--alter", "--topic", &zone.topic, "--add-config", "max.message.bytes=200000000"],
    );
    let output = looked();
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{printed}");
    assert!(printed.contains("kafka.client.receive.message.max.bytes to at least 200000512"), "{printed}");
}

/// A log that cannot be reached may be in order, so this is a warning.
#[test]
fn check_warns_of_a_log_that_it_cannot_reach() {
    let unreachable = ["--brokers", "127.0.0.1:1", "--strict", "--set", "flush.warn_files_per_day=1000000"];
    let (code, printed) = check(&unreachable);
    assert!(code == Some(1) && printed.contains("could not be checked"), "{printed}");
    assert_eq!(check(&[&unreachable[..], &["--offline"]].concat()).0, Some(0));
}
