//! The status page of a running process.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use crate::harness::{Ed, generate, wait_until};

/// The body of an answer with status 200.
fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}

fn status(address: &str) -> serde_json::Value {
    get(address, "/status").and_then(|body| serde_json::from_str(&body).ok()).unwrap_or_default()
}

#[test]
fn the_status_page_shows_both_roles_and_the_files_in_quarantine() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let pending = root.join("landing/pending");
    generate(&pending, 500, "ndjson", 1);
    // A name that is markup unless the page escapes it.
    fs::write(pending.join("<script>alert(1)<.json"), "rubbish\n".repeat(200)).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let _process = Ed::new(&["run", "--landing", "landing", "--trusted", "trusted"])
        .set(&format!("http.listen={address}"))
        .set("landing.min_age=100ms")
        .set("landing.poll_interval=50ms")
        .set("flush.max_age=200ms")
        .in_dir(root)
        .start(&root.join("log"));
    wait_until("the file is quarantined and the other's rows are written", || {
        let status = status(&address);
        status["ingestor"]["files"]["in_quarantine"] == 1
            && status["ingestor"]["files"]["ingested"] == 1
            && status["distributor"]["written"]["files"].as_u64().is_some_and(|files| files > 0)
    });
    let status = status(&address);
    assert_eq!(status["process"]["ready"], true, "{status}");
    let file = &status["ingestor"]["quarantined_files"][0];
    assert_eq!(
        (file["file"].as_str(), file["from_byte"].as_u64()),
        (Some("<script>alert(1)<.json"), Some(0)),
        "{status}"
    );
    assert!(file["reason"].as_str().unwrap().contains("200 of 200 events are bad"), "{file}");
    assert!(file["since"].as_str().unwrap().ends_with('Z'), "{file}");
    assert_eq!(status["ingestor"]["ledger"]["owned_numbers"], serde_json::json!([0]));
    assert_eq!(status["ingestor"]["since_start"]["events_published"], 500);
    assert!(status["ingestor"]["last_minute"]["events_per_second"].as_f64().unwrap() > 0.0);
    let page = get(&address, "/").unwrap();
    for part in ["&lt;script&gt;alert(1)&lt;.json", "Ready</span>", "http-equiv=refresh", "<h2>distributor</h2>"] {
        assert!(page.contains(part), "{part:?} is missing in\n{page}");
    }
    assert!(!page.contains("<script"), "{page}");
}
