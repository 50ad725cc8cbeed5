//! Brokers and stores that fail and recover.

use crate::harness::{Ed, Services, files, unique_keys, wait_until};
use crate::kafka_s3::Zone;
use crate::topic::Topics;

#[test]
fn an_unreachable_service_is_named_and_once_gives_up_after_its_patience() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("pending")).unwrap();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nowhere = format!("127.0.0.1:{port}");
    let output = Ed::new(&["ingest", "--once", "--brokers", &nowhere, "--set", "patience=1s", "--landing"])
        .args(&[root.path().to_str().unwrap()])
        .output();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.lines().last().unwrap_or_default().contains(&nowhere), "{message}");

    let s3 = |endpoint: &str| {
        Ed::new(&["distribute", "--once", "--brokers", &nowhere, "--trusted", "s3://bucket/x", "--set", "patience=1s"])
            .env("AWS_ENDPOINT_URL", endpoint)
            .env("AWS_ACCESS_KEY_ID", "x")
            .env("AWS_SECRET_ACCESS_KEY", "y")
            .output()
    };
    let output = s3(&format!("http://{nowhere}"));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.lines().last().unwrap_or_default().contains("trusted zone"), "{message}");
}

#[test]
fn an_interrupted_once_run_is_not_complete() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("pending")).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let log = root.path().join("log");
    let mut process = Ed::new(&["ingest", "--once", "--brokers", &format!("127.0.0.1:{port}"), "--landing"])
        .args(&[root.path().to_str().unwrap()])
        .start(&log);
    let output = || std::fs::read_to_string(&log).unwrap_or_default();
    wait_until("it has tried", || output().contains("trying again"));
    process.signal("TERM");
    assert_eq!(process.wait_for_exit(), Some(1), "{}", output());
    assert!(output().contains("interrupted"), "{}", output());
}

#[test]
fn services_killed_while_the_roles_work_lose_and_repeat_nothing() {
    let run_dir = tempfile::tempdir().unwrap();
    let own = Services::own(run_dir.path());
    let services = own.services.clone();
    let zone = Zone::new(&services, "outage");
    let pending = zone.landing.1.join("pending");
    let mut unique = zone.land("first", 20_000, "ndjson", 1);
    let logs = tempfile::tempdir().unwrap();
    let mut ingest = zone.ingest().set("landing.poll_interval=200ms").start(&logs.path().join("ingest.log"));
    let mut distribute =
        zone.distribute().set("flush.max_rows=1000").set("flush.max_age=1s").start(&logs.path().join("distribute.log"));
    let written = || files(&zone.trusted.1.join("events"), ".parquet").len();
    wait_until("something is written", || written() > 0);
    for (service, seed) in [("kafka", 2), ("s3", 3), ("kafka", 4)] {
        // Enough to be in progress when the service is killed.
        unique += zone.land(&format!("before-{seed}"), 10_000, "ndjson", seed);
        services.kill(service);
        let log = std::fs::read_to_string(logs.path().join("ingest.log")).unwrap_or_default().len();
        wait_until("the outage is noticed", || {
            std::fs::read_to_string(logs.path().join("ingest.log")).unwrap_or_default()[log..].contains("trying again")
        });
        assert!(!ingest.has_ended() && !distribute.has_ended(), "a role gave up: {}", logs.path().display());
        services.start(service);
    }
    wait_until("everything is archived", || files(&pending, "json").is_empty());
    for process in [&mut ingest, &mut distribute] {
        process.signal("TERM");
        assert_eq!(process.wait_for_exit(), Some(0));
    }
    // Waits for transactions that an outage left open.
    Topics::new(&services, &zone.topic).assert_each_event_once(50_000);
    zone.distribute().args(&["--once"]).report();
    assert_eq!(unique_keys(&zone.trusted.1).len() as u64, unique);
    zone.assert_sound();
}
