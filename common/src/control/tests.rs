use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Instant;

use super::*;
use crate::telemetry::{Registry, Status};

fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn threads_named_control() -> usize {
    let names = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    names.filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name == "control\n")).count()
}

/// One test, because it counts the threads of the process.
#[test]
fn probes_are_answered_while_every_worker_is_busy_and_the_thread_ends_with_its_owner() {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (shutdown, health) = (Shutdown::new(), Health::default());
    let http = Http::bind("127.0.0.1:0").unwrap();
    let address = http.address().unwrap();
    let pages = Pages::new(health.clone(), Registry::new(), Status::new("1", health.clone()));
    let control = {
        let _entered = runtime.enter();
        Control::start(&shutdown, &health, Some((http, pages))).unwrap()
    };
    let mut held = Vec::new();
    for _ in 0..2 {
        let (release, released) = mpsc::channel::<()>();
        let (begun, begins) = mpsc::channel();
        runtime.spawn(async move {
            begun.send(()).unwrap();
            // Blocks a worker, as a decompression bomb would.
            let _ = released.recv();
        });
        begins.recv().unwrap();
        held.push(release);
    }
    let asked = Instant::now();
    assert!(get(address, "/livez").ends_with("ok\n"));
    assert!(get(address, "/readyz").ends_with("ready\n"));
    assert!(get(address, "/status").starts_with("HTTP/1.1 200"));
    assert!(asked.elapsed().as_secs() < 5, "{:?}", asked.elapsed());
    shutdown.trigger();
    while !get(address, "/readyz").ends_with("process: shutting down\n") {
        assert!(asked.elapsed().as_secs() < 60, "the end was not reported");
    }
    if cfg!(target_os = "linux") {
        assert_eq!(threads_named_control(), 1);
    }
    drop(held);
    drop(control);
    assert!(TcpStream::connect(address).is_err(), "the port is still open");
    assert_eq!(threads_named_control(), 0);
}
