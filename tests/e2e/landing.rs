//! Archive modes on a real bucket, and how new objects are found.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::harness::{Ed, contents, files, services, wait_until};
use crate::kafka_s3::Zone;
use crate::topic::Topics;

fn event(id: &str) -> String {
    format!(r#"{{"event_id":"{id}","timestamp":"2021-01-14T10:15:30","domain":"d","event_type":"t","data":{{}}}}"#)
}

fn land(zone: &Zone, names: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    for name in names {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, event(name)).unwrap();
    }
    zone.land_files(dir.path(), "x");
}

/// Runs Python with the S3 and SQS clients of the tests' environment; returns its output.
fn python(zone: &Zone, script: &str, args: &[&str]) -> String {
    let output = Command::new(&zone.services.aws_python)
        .args(["-c", script])
        .args(args)
        .envs(zone.services.s3_environment())
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn bucket(zone: &Zone) -> String {
    zone.landing.0.strip_prefix("s3://").unwrap().split('/').next().unwrap().to_owned()
}

#[test]
fn each_archive_mode_does_what_it_says_on_s3_and_a_second_run_finds_nothing_to_do() {
    for mode in ["move", "tag", "leave", "delete"] {
        let zone = Zone::new(&services(), mode);
        let names = ["a.json", "b c+%2F.json", "ü/a.json"];
        land(&zone, &names);
        let ingest = || zone.ingest().set(&format!("landing.archive={mode}")).args(&["--once"]).report();
        assert_eq!(ingest()["files"]["ingested"].as_u64(), Some(3), "{mode}");
        let (pending, processed) = (zone.landing.1.join("pending"), zone.landing.1.join("processed"));
        let stays = matches!(mode, "tag" | "leave");
        assert_eq!(files(&pending, "json").len(), if stays { 3 } else { 0 }, "{mode}");
        assert_eq!(files(&processed, "json").len(), if mode == "move" { 3 } else { 0 }, "{mode}");
        if mode == "tag" {
            let tags = python(
                &zone,
                "import boto3,sys; print(boto3.client('s3').get_object_tagging(Bucket=sys.argv[1], Key=sys.argv[2])['TagSet'])",
                &[&bucket(&zone), "zone/pending/x/b c+%2F.json"],
            );
            assert!(tags.contains("event-distributor") && tags.contains("ingested"), "{tags}");
        }
        let again = ingest();
        assert_eq!(
            again["files"],
            serde_json::json!({"ingested": 0, "skipped": if stays { 3 } else { 0 }, "quarantined": 0})
        );
        let (ledger, _) = Topics::new(&zone.services, &zone.topic).ledger();
        assert!(ledger.values().all(|entry| entry["mode"] == mode && (mode == "leave") != (entry["archived"] == true)));
    }
}

#[test]
fn an_object_that_is_replaced_by_other_content_is_another_file_and_the_same_content_is_not() {
    let zone = Zone::new(&services(), "replace");
    land(&zone, &["a.json"]);
    let ingest = || zone.ingest().args(&["--once"]).report()["files"].clone();
    assert_eq!(ingest()["ingested"].as_u64(), Some(1));
    land(&zone, &["a.json"]);
    assert_eq!(ingest(), serde_json::json!({"ingested": 0, "skipped": 1, "quarantined": 0}), "the same ETag");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.json"), event("other")).unwrap();
    zone.land_files(dir.path(), "x");
    assert_eq!(ingest()["ingested"].as_u64(), Some(1));
    let processed = contents(&zone.landing.1.join("processed"));
    let kept: BTreeMap<_, _> = processed.into_iter().map(|(path, body)| (body, path)).collect();
    assert_eq!(kept.len(), 2, "neither overwrote the other: {:?}", kept.values());
}

/// The server of the tests stores buckets as folders, and has no ETag of a file put there directly.
#[test]
fn an_object_without_an_etag_is_named_and_every_other_one_is_ingested() {
    let zone = Zone::new(&services(), "no-etag");
    land(&zone, &["a.json", "z.json"]);
    std::fs::write(zone.landing.1.join("pending/x/by-hand.json"), event("by-hand")).unwrap();
    let output = zone.ingest().args(&["--once"]).output();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("pending/x/by-hand.json") && said.contains("no ETag"), "{said}");
    assert_eq!(files(&zone.landing.1.join("processed"), "json").len(), 2, "the others are archived");
    Topics::new(&zone.services, &zone.topic).assert_each_event_once(2);
}

/// The next listing is an hour later, so only the hint can have reported the file.
#[test]
fn an_event_notification_makes_a_running_ingestor_read_at_once() {
    let zone = Zone::new(&services(), "notified");
    let environment =
        |ed: Ed| ed.env("AWS_ENDPOINT_URL_SQS", &zone.services.sqs).env("AWS_ENDPOINT_URL_S3", &zone.services.s3);
    let queue = python(
        &zone,
        "import boto3,sys; print(boto3.client('sqs', endpoint_url=sys.argv[1]).create_queue(QueueName=sys.argv[2])['QueueUrl'])",
        &[&zone.services.sqs, &zone.topic],
    );
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let log = tempfile::NamedTempFile::new().unwrap();
    let ingest = zone
        .ingest()
        .set("landing.poll_interval=1h")
        .set(&format!("landing.sqs_queue_url={queue}"))
        .set(&format!("http.listen={port}"));
    let mut process = environment(ingest).start(log.path());
    wait_until("it has listed", || metric(&port.to_string(), "ed_ingest_sweeps_total{kind=\"whole\"}") >= 1);
    let output = || std::fs::read_to_string(log.path()).unwrap_or_default();
    wait_until("it owns everything", || output().matches("owning a ledger partition").count() >= 8);
    land(&zone, &["a b.json"]);
    python(
        &zone,
        "import boto3,json,sys\nrecord = {'eventName': 'ObjectCreated:Put', 's3': {'bucket': {'name': sys.argv[3]}, 'object': {'key': 'zone/pending/x/a+b.json'}}}\nboto3.client('sqs', endpoint_url=sys.argv[1]).send_message(QueueUrl=sys.argv[2], MessageBody=json.dumps({'Records': [record]}))",
        &[&zone.services.sqs, &queue, &bucket(&zone)],
    );
    wait_until("it is archived", || !files(&zone.landing.1.join("processed"), "json").is_empty());
    process.signal("TERM");
    assert_eq!(process.wait_for_exit(), Some(0));
    Topics::new(&zone.services, &zone.topic).assert_each_event_once(1);
}

/// The value of a counter as served; 0 while it is absent.
fn metric(address: &str, line: &str) -> u64 {
    use std::io::{Read, Write};
    let Ok(mut stream) = std::net::TcpStream::connect(address) else { return 0 };
    let mut text = String::new();
    let asked = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    if asked.is_err() || stream.read_to_string(&mut text).is_err() {
        return 0;
    }
    text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok()).unwrap_or(0)
}

#[test]
fn events_of_every_preset_become_rows() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/presets");
    for preset in ["seed", "cloudtrail", "cloudevents", "eventbridge", "gharchive", "segment"] {
        let root = tempfile::tempdir().unwrap();
        let (landing, trusted) = (root.path().join("landing"), root.path().join("trusted"));
        std::fs::create_dir_all(landing.join("pending")).unwrap();
        let example = files(&examples, "").into_iter().find(|path| path.file_stem().is_some_and(|stem| stem == preset));
        let example = example.unwrap_or_else(|| panic!("no example of {preset}"));
        let plain = std::fs::read(&example).unwrap();
        std::fs::write(landing.join("pending/plain.json"), &plain).unwrap();
        let report = Ed::new(&["run", "--once", "--landing", landing.to_str().unwrap()])
            .args(&["--trusted", trusted.to_str().unwrap()])
            .set(&format!("format.preset={preset}"))
            .report();
        let events = report["events"]["published"].as_u64().unwrap();
        assert!(events >= 2 && report["events"]["rejected"] == 0, "{preset}: {report}");
        assert_eq!(report["written"]["rows"].as_u64(), Some(events), "{preset}: {report}");
    }
}

/// A key of 1,024 bytes leaves no room for the day, and this server stores objects as files: an object cannot be a
/// folder.
#[test]
fn objects_whose_keys_are_as_long_as_can_be_or_clash_are_moved() {
    let zone = Zone::new(&services(), "names");
    let folder = ["f".repeat(200), "g".repeat(200), "h".repeat(200)].join("/");
    // Land below `zone/pending/x/`.
    let of_length = |length: usize| {
        let rest = length - "zone/pending/x/".len() - folder.len() - 1;
        let (middle, last) = (rest - 150, 149);
        format!("{folder}/{}/{}", "m".repeat(middle.min(255)), "n".repeat(last + middle.saturating_sub(255)))
    };
    let long: Vec<String> = [1_006, 1_015, 1_024].map(of_length).to_vec();
    let ingest = || zone.ingest().args(&["--once"]).report()["files"]["ingested"].clone();
    let rounds: [Vec<&str>; 4] = [
        long.iter().map(String::as_str).chain(["clash"]).collect(),
        vec!["clash/inner.json"],
        vec!["clash/inner.json/more.json"],
        vec!["clash"],
    ];
    let mut expected = Vec::new();
    for (number, names) in rounds.iter().enumerate() {
        land_as(&zone, names, number);
        expected.extend(names.iter().map(|name| event(&format!("{number} {name}"))));
        assert_eq!(ingest(), names.len(), "round {number}");
        assert!(files(&zone.landing.1.join("pending"), "").is_empty(), "round {number}");
    }
    let processed = contents(&zone.landing.1.join("processed"));
    let mut kept: Vec<String> = processed.into_values().map(|body| String::from_utf8(body).unwrap()).collect();
    kept.sort();
    expected.sort();
    assert_eq!(kept, expected);
}

/// As [`land`], with content that differs by round.
fn land_as(zone: &Zone, names: &[&str], round: usize) {
    let dir = tempfile::tempdir().unwrap();
    for name in names {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, event(&format!("{round} {name}"))).unwrap();
    }
    zone.land_files(dir.path(), "x");
}
