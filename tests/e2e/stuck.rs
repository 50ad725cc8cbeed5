//! A store that does not answer requests of one partition.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::{services, unique_keys, wait_until};
use crate::kafka_s3::Zone;
use crate::topic::Topics;

/// Forwards data between a client and the S3 server, but holds requests whose first line contains a text until they are
/// released.
struct Proxy {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    server: String,
    kept: String,
    keeps: AtomicBool,
    hits: AtomicUsize,
    has_ended: AtomicBool,
}

impl Proxy {
    fn before(server: &str, kept: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            server: server.strip_prefix("http://").unwrap().to_owned(),
            kept,
            keeps: AtomicBool::new(true),
            hits: AtomicUsize::new(0),
            has_ended: AtomicBool::new(false),
        });
        let serving = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if serving.has_ended.load(Ordering::SeqCst) {
                    return;
                }
                let (client, server) = (client.unwrap(), TcpStream::connect(&serving.server).unwrap());
                let (answers, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let asking = serving.clone();
                std::thread::spawn(move || pass_on(client, server, |bytes| asking.keep(bytes)));
                std::thread::spawn(move || pass_on(answers, to_client, |_| {}));
            }
        });
        Self { address, shared }
    }

    fn release(&self) {
        self.shared.keeps.store(false, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.release();
        self.shared.has_ended.store(true, Ordering::SeqCst);
        // Accepted last.
        let _ = TcpStream::connect(&self.address);
    }
}

impl Shared {
    fn keep(&self, bytes: &[u8]) {
        // A client begins a request only after the previous answer, so each read begins with a request's first line.
        let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
        if String::from_utf8_lossy(line).contains(&self.kept) && self.keeps.load(Ordering::SeqCst) {
            self.hits.fetch_add(1, Ordering::SeqCst);
            while self.keeps.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, look: impl Fn(&[u8])) {
    let mut buffer = vec![0; 64 * 1_024];
    // A peer that has disconnected needs no more data.
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        look(&buffer[..length]);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

#[test]
fn a_store_that_hangs_for_one_partition_holds_up_no_other_over_kafka() {
    let zone = Zone::new(&services(), "stuck");
    let expected = zone.land("files", 100_000, "ndjson", 51);
    zone.ingest().args(&["--once"]).report();
    let kept = format!("/_commits/{}/0/log/", zone.topic);
    let proxy = Proxy::before(&zone.services.s3, kept);
    let logs = tempfile::tempdir().unwrap();
    let mut distribute = zone
        .distribute()
        .env("AWS_ENDPOINT_URL", &format!("http://{}", proxy.address))
        .set("flush.max_rows=2000")
        .set("flush.max_age=1s")
        .start(&logs.path().join("log"));
    let topics = Topics::new(&zone.services, &zone.topic);
    let of_others: BTreeSet<Vec<u8>> =
        topics.keys().into_iter().filter(|(partition, _)| *partition != 0).map(|(_, key)| key).collect();
    let of_others = of_others.len() as u64;
    assert!(of_others > expected / 2 && of_others < expected);
    // All except those of the stuck partition, in batches by rows and the last ones by age.
    wait_until("the others are written", || written(&zone) == (0, of_others));
    assert!(proxy.shared.hits.load(Ordering::SeqCst) > 0, "its intent is kept");
    proxy.release();
    wait_until("everything is written", || written(&zone) == (expected - of_others, of_others));
    distribute.signal("TERM");
    assert_eq!(distribute.wait_for_exit(), Some(0));
    let report = zone.distribute().args(&["--once"]).report();
    assert_eq!(report["written"]["rows"].as_u64(), Some(0), "{report}");
    assert_eq!(unique_keys(&zone.trusted.1).len() as u64, expected);
    zone.assert_sound();
}

/// Rows of the stuck partition, and of all others.
fn written(zone: &Zone) -> (u64, u64) {
    let audit = zone.verify().args(&["--output", "json"]).output();
    let audit: serde_json::Value = serde_json::from_slice(&audit.stdout).unwrap_or_default();
    let partitions = audit["partitions"].as_array().cloned().unwrap_or_default();
    let rows = |is_stuck: bool| {
        let those = partitions.iter().filter(|partition| (partition["partition"] == 0) == is_stuck);
        those.filter_map(|partition| partition["rows"].as_u64()).sum()
    };
    (rows(true), rows(false))
}
