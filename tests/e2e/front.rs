//! Attacks from outside: names that control a terminal, and connections that are held open.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use crate::harness::{Ed, Process, files, generate, wait_until};

const NAME: &str = "a\u{1b}[2J\nerror: b\u{202e}gnp\u{9b}.json";

fn ingested(root: &Path) -> [Ed; 3] {
    let command = |args: &[&str]| Ed::new(args).in_dir(root).args(&["--trusted", "trusted"]);
    [
        command(&["run", "--once", "--landing", "landing"]).args(&["--log", "debug"]),
        command(&["dlq", "list"]),
        command(&["verify"]),
    ]
}

/// Contains no control character, and none that reverses or hides text; line breaks only where a line of the program
/// ends.
fn is_harmless(printed: &[u8]) -> bool {
    let printed = String::from_utf8_lossy(printed);
    !printed.contains(['\u{1b}', '\u{202e}', '\u{9b}', '\r'])
        && !printed.lines().any(|line| line.starts_with("error: b"))
}

#[test]
fn control_characters_in_a_file_name_reach_no_terminal() {
    for format in [["--log-format", "text", "--output", "text"], ["--log-format", "json", "--output", "json"]] {
        let root = tempfile::tempdir().unwrap();
        let pending = root.path().join("landing/pending");
        fs::create_dir_all(&pending).unwrap();
        fs::write(pending.join(NAME), "rubbish \u{1b}[31m\u{202e}\n".repeat(200)).unwrap();
        fs::write(pending.join(format!("2{NAME}")), "{\"rubbish\": \"\u{202e}\"}\n").unwrap();
        let mut named = 0;
        for command in ingested(root.path()) {
            let output = command.args(&format).output();
            for printed in [&output.stdout, &output.stderr] {
                assert!(is_harmless(printed), "{format:?}: {}", String::from_utf8_lossy(printed).escape_debug());
                named += String::from_utf8_lossy(printed)
                    .matches(if format[1] == "json" { "\\u202e" } else { "\\u{202e}" })
                    .count();
            }
        }
        assert!(named > 0, "{format:?}: the files are not mentioned at all");
    }
}

#[test]
fn the_last_line_of_stderr_is_json_when_logs_are() {
    let last = |args: &[&str]| -> (Option<i32>, serde_json::Value) {
        let output = Ed::new(args).output();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let lines: Vec<serde_json::Value> = stderr
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect();
        (output.status.code(), lines.last().cloned().unwrap_or_default())
    };
    let missing = ["run", "--once", "--landing", "/no/such/folder", "--trusted", "t", "--log-format", "json"];
    let settings = ["run", "--set", "flush.max_agee=1s", "--set", "trusted.compression=lzo", "--log-format=json"];
    let flags = ["run", "--nonsense", "--log-format", "json"];
    for (args, part) in [(&missing[..], "/no/such/folder"), (&settings, "trusted.compression"), (&flags, "--nonsense")]
    {
        let (code, line) = last(args);
        assert_eq!((code, line["level"].as_str()), (Some(2), Some("ERROR")), "{line}");
        assert!(line["message"].as_str().unwrap().contains(part), "{line}");
        assert!(line["timestamp"].is_string() && line["target"] == "event_distributor", "{line}");
    }
}

fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn sockets(process: &Process) -> usize {
    let open = fs::read_dir(format!("/proc/{}/fd", process.id())).into_iter().flatten().flatten();
    open.filter(|entry| fs::metadata(entry.path()).is_ok_and(|facts| facts.file_type().is_socket())).count()
}

#[test]
fn half_sent_requests_stop_neither_probes_nor_roles() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let pending = root.join("landing/pending");
    fs::create_dir_all(&pending).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let mut process = Ed::new(&["run", "--landing", "landing", "--trusted", "trusted"])
        .set(&format!("http.listen={address}"))
        .set("landing.min_age=100ms")
        .set("landing.poll_interval=50ms")
        .set("flush.max_age=200ms")
        .in_dir(root)
        .start(&root.join("log"));
    wait_until("it is ready", || get(&address, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")));
    let mut held = Vec::new();
    for _ in 0..500 {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-a: ").unwrap();
        held.push(stream);
    }
    assert!(sockets(&process) < 100, "{} sockets are open", sockets(&process));
    assert!(get(&address, "/livez").unwrap().ends_with("ok\n"));
    generate(&pending, 300, "ndjson", 1);
    wait_until("what comes meanwhile is written", || !files(&root.join("trusted/events"), ".parquet").is_empty());
    assert!(get(&address, "/readyz").unwrap().starts_with("HTTP/1.1 200"));
    // A supervisor passes on the signal that a terminal sent to the whole group: both are one request.
    process.signal("INT");
    process.signal("TERM");
    assert_eq!(process.wait_for_exit(), Some(0));
}
