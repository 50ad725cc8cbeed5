//! Record batches that the Kafka client cannot take. They stop only their partition.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use common::log::conformance::{self, unreadable_records_stop_only_their_partition};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::harness::{Ed, prompt_kafka, services, unique, wait_until};
use crate::kafka_s3::Zone;

/// A reader's limit, which a zstd batch exceeds once it is decompressed.
const LIMITS: [(&str, &str); 2] = [("receive.message.max.bytes", "1100000"), ("fetch.max.bytes", "1000000")];

/// Puts a record of 3 MB on partition 0, as a batch of a few hundred bytes.
fn put_unreadable(brokers: &str, topic: &str) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("compression.type", "zstd")
        .set("message.max.bytes", "10000000")
        .create()
        .unwrap();
    let value = vec![b'a'; 3_000_000];
    let record = BaseRecord::<str, [u8]>::to(topic).partition(0).key("large").payload(&value);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(Duration::from_secs(60)).unwrap();
}

#[test]
fn a_batch_that_the_kafka_client_cannot_take_stops_only_its_partition() {
    let (brokers, name) = (services().kafka, unique("unreadable"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let log = prompt_kafka(&brokers, &LIMITS);
        let unreadable = conformance::write_before(&log, &name).await;
        put_unreadable(&brokers, &name);
        let place = conformance::write_after(&log, &name, unreadable).await;
        unreadable_records_stop_only_their_partition(&log, &name, place).await;
    });
}

fn limited(mut distribute: Ed) -> Ed {
    for (setting, value) in LIMITS {
        distribute = distribute.set(&format!("kafka.client.{setting}={value}"));
    }
    distribute
}

fn get(address: &str, path: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(address) else { return String::new() };
    let mut answer = String::new();
    let asked = stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
    // The port may not be served yet.
    let _ = asked.and_then(|()| stream.read_to_string(&mut answer));
    answer
}

/// Rows by partition.
fn written(zone: &Zone) -> Vec<u64> {
    let audit = zone.verify().args(&["--output", "json"]).output();
    let audit: serde_json::Value = serde_json::from_slice(&audit.stdout).unwrap_or_default();
    let partitions = audit["partitions"].as_array().cloned().unwrap_or_default();
    partitions.iter().filter_map(|partition| partition["rows"].as_u64()).collect()
}

#[test]
fn a_distributor_parks_only_the_partition_that_it_cannot_read() {
    let zone = Zone::new(&services(), "parked");
    let first = zone.land("first", 4_000, "ndjson", 61);
    zone.ingest().args(&["--once"]).report();
    put_unreadable(&zone.services.kafka, &zone.topic);
    let second = zone.land("second", 4_000, "ndjson", 62);
    zone.ingest().args(&["--once"]).report();

    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let logs = tempfile::tempdir().unwrap();
    let mut service = limited(zone.distribute())
        .set(&format!("http.listen={address}"))
        .set("flush.max_age=500ms")
        .start(&logs.path().join("log"));
    let named = format!("{}/0 at offset ", zone.topic);
    wait_until("it is reported", || {
        let ready = get(&address, "/readyz");
        ready.contains(" 503 ") && ready.contains(&named) && ready.contains("--reset-offsets")
    });
    wait_until("it is counted", || {
        let metrics = get(&address, "/metrics");
        metrics.contains("ed_distribute_parked_partitions 1\n")
            && metrics.contains("ed_distribute_log_errors_total{kind=\"corrupt\"}")
    });
    // What came before it, and everything of the others.
    let mut parked_rows = 0;
    wait_until("the others are written", || {
        let rows = written(&zone);
        parked_rows = rows.first().copied().unwrap_or_default();
        let others: u64 = rows.iter().skip(1).sum();
        rows.len() == 4 && parked_rows > 0 && others + 2 * parked_rows > (first + second) * 9 / 10
    });
    service.signal("TERM");
    assert_eq!(service.wait_for_exit(), Some(0));

    let once = limited(zone.distribute()).args(&["--once", "--output", "json"]).output();
    let (report, message) = (String::from_utf8_lossy(&once.stdout), String::from_utf8_lossy(&once.stderr));
    assert_eq!(once.status.code(), Some(1), "{message}");
    assert!(message.contains(&named), "{message}");
    let report: serde_json::Value = serde_json::from_str(report.lines().last().unwrap_or_default()).unwrap();
    assert!(report["errors"].to_string().contains(&named), "{report}");
    let audit = limited(zone.verify()).output();
    assert_eq!(audit.status.code(), Some(0), "what is written is sound: {}", String::from_utf8_lossy(&audit.stderr));

    // With a higher limit nothing is lost.
    let report = zone.distribute().args(&["--once"]).report();
    assert_eq!(report["written"]["rejected"].as_u64(), Some(1), "the large record is no event: {report}");
    assert_eq!(written(&zone).iter().sum::<u64>(), first + second);
    zone.assert_sound();
    let audit = limited(zone.verify()).args(&["--deep"]).output();
    let message = String::from_utf8_lossy(&audit.stderr);
    assert!(audit.status.code() == Some(1) && message.contains(&named), "{message}");
}
