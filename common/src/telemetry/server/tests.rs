use std::sync::atomic::Ordering;

use proptest::prelude::*;
use tokio::sync::oneshot;

use super::*;
use crate::telemetry::status::Section;
use crate::telemetry::{Health, Registry, Status};

/// Larger than all buffers of a connection in the system.
const HUGE: usize = 24 << 20;

struct Running {
    address: SocketAddr,
    open: Arc<AtomicUsize>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), HttpError>>,
}

fn serve(limits: Limits) -> Running {
    let health = Health::default();
    let status = Status::new("1", health.clone());
    status.register("huge", || Section::new().facts("huge", vec![("text", "x".repeat(HUGE).into())]));
    let http = Http { limits, ..Http::bind("127.0.0.1:0").unwrap() };
    let (address, open) = (http.address().unwrap(), http.open.clone());
    let (stop, stopped) = oneshot::channel();
    let mut pages = Pages::new(health, Registry::new(), status);
    // On a busy machine the huge page takes seconds.
    pages.render_time = Duration::from_secs(600);
    let serving = tokio::spawn(http.serve(pages, async { drop(stopped.await) }));
    Running { address, open, stop, serving }
}

/// Generous time-outs that never end a connection in a test.
fn patient(connections: usize) -> Limits {
    Limits { connections, head: Duration::from_secs(600), whole: Duration::from_secs(600) }
}

impl Running {
    fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A connection that sends these bytes and no more.
    async fn hold(&self, sent: &[u8]) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(sent).await.unwrap();
        stream
    }

    async fn get(&self, path: &str) -> String {
        exchange(self.hold(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await).await
    }

    async fn wait_until_open(&self, what: &str, wanted: impl Fn(usize) -> bool) {
        for _ in 0..6_000 {
            if wanted(self.open()) {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
        panic!("waited in vain until {what}; {} are open", self.open());
    }
}

/// Everything up to the end; empty for a connection that was reset.
async fn exchange(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_probe_is_answered_beside_hundreds_of_half_sent_requests_and_few_stay_open() {
    let server = serve(patient(16));
    let mut held = Vec::new();
    for _ in 0..300 {
        held.push(server.hold(b"GET / HTTP/1.1\r\nHost: x\r\nX-a: ").await);
        assert!(server.open() <= 16, "{} are open", server.open());
    }
    for _ in 0..20 {
        assert!(server.get("/livez").await.ends_with("ok\n"));
    }
    assert!(server.open() <= 16);
    let mut ended = 0;
    for stream in &mut held {
        let mut byte = [0];
        // Ready only if the server closed it.
        ended += usize::from(timeout(Duration::from_millis(1), stream.read(&mut byte)).await.is_ok());
    }
    assert!(ended >= 300 - 16, "{ended} were closed");
}

#[tokio::test]
async fn a_probe_is_answered_beside_connections_that_never_read_a_long_answer() {
    let server = serve(patient(4));
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(server.hold(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n").await);
    }
    assert!(server.get("/livez").await.ends_with("ok\n"));
    assert!(server.open() <= 4);
}

#[tokio::test]
async fn a_half_sent_request_ends_by_itself() {
    let server = serve(Limits { head: Duration::from_millis(50), ..patient(16) });
    let stream = server.hold(b"GET / HTTP/1.1\r\n").await;
    assert_eq!(exchange(stream).await, "");
    server.wait_until_open("none is open", |open| open == 0).await;
}

#[tokio::test]
async fn a_request_that_comes_byte_by_byte_ends_as_if_nothing_came() {
    let server = serve(Limits { head: Duration::from_millis(100), ..patient(16) });
    let mut stream = server.hold(b"GET / HTTP/1.1\r\nX-a: ").await;
    server.wait_until_open("it is open", |open| open == 1).await;
    // A byte long before each time-out; the writes fail once the server has closed.
    while stream.write_all(b"a").await.is_ok() {
        sleep(Duration::from_millis(5)).await;
    }
    server.wait_until_open("none is open", |open| open == 0).await;
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_given_up() {
    let server = serve(Limits { whole: Duration::from_secs(2), ..patient(16) });
    let _held = server.hold(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n").await;
    server.wait_until_open("it is open", |open| open == 1).await;
    server.wait_until_open("none is open", |open| open == 0).await;
}

#[tokio::test]
async fn a_long_answer_arrives_whole() {
    let server = serve(patient(4));
    let answer = server.get("/status").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.len() > HUGE, "{} bytes", answer.len());
    assert!(answer.ends_with("}\n"));
}

#[tokio::test]
async fn only_http_1_is_answered_and_odd_requests_are_refused() {
    let server = serve(patient(16));
    for (request, expected) in [
        ("GET /livez HTTP/1.0\r\n\r\n".to_owned(), "HTTP/1.0 200"),
        ("HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "HTTP/1.1 200"),
        ("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "HTTP/1.1 404"),
        ("POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nbody".to_owned(), "HTTP/1.1 405"),
        (format!("GET /livez HTTP/1.1\r\nX-a: {}\r\n\r\n", "a".repeat(MAX_HEAD_BYTES)), "HTTP/1.1 431"),
        (format!("GET /livez HTTP/1.1\r\n{}\r\n", "X-a: b\r\n".repeat(MAX_HEADERS + 1)), "HTTP/1.1 431"),
        ("rubbish\r\n\r\n".to_owned(), "HTTP/1.1 400"),
    ] {
        let answer = exchange(server.hold(request.as_bytes()).await).await;
        assert!(answer.starts_with(expected), "{request:.40}: {answer}");
        assert!(
            !expected.ends_with("200")
                || answer.to_lowercase().contains("connection: close")
                || expected.contains("1.0")
        );
    }
    let answer = exchange(server.hold(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await).await;
    assert!(!answer.contains("200"), "{answer}");
    let head = exchange(server.hold(b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n").await).await;
    assert!(head.contains("content-length: 3") && head.ends_with("\r\n\r\n"), "{head}");
}

/// A client that keeps sending while it is answered still gets its answer.
#[tokio::test]
async fn an_answer_survives_further_bytes_of_the_client() {
    let server = serve(patient(16));
    for _ in 0..50 {
        let mut stream = server.hold(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n").await;
        stream.write_all(&[b'x'; 60_000]).await.unwrap();
        assert!(exchange(stream).await.starts_with("HTTP/1.1 405"));
    }
}

#[tokio::test]
async fn the_end_waits_for_an_answer_under_way_and_for_nothing_else() {
    let server = serve(patient(16));
    let half = server.hold(b"GET / HTTP/1.1\r\n").await;
    let answered = server.hold(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await;
    server.wait_until_open("both are open", |open| open == 2).await;
    server.stop.send(()).unwrap();
    timeout(Duration::from_secs(60), server.serving).await.unwrap().unwrap().unwrap();
    assert_eq!(server.open.load(Ordering::Relaxed), 0);
    assert!(exchange(answered).await.ends_with("ok\n"));
    assert_eq!(exchange(half).await, "");
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[test]
fn connections_take_at_most_an_eighth_of_the_descriptors() {
    let connections = |descriptors| Limits::within(descriptors).connections;
    assert_eq!([None, Some(65_536), Some(1_024), Some(512)].map(connections), [64; 4]);
    assert_eq!([Some(256), Some(64), Some(7), Some(0)].map(connections), [32, 8, 1, 1]);
}

/// Without descriptors in the server's process, so from another one.
#[test]
fn the_port_answers_when_no_descriptor_is_left() {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::process::{Command, Stdio};
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "telemetry::server::tests::a_server_without_descriptors_in_its_own_process"])
        .args(["--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    let address: SocketAddr =
        lines.find_map(|line| line.strip_prefix("address ").map(|text| text.parse().unwrap())).unwrap();
    let connect = || {
        let stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    };
    let probe = || {
        let (mut stream, mut answer) = (connect(), String::new());
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    for _ in 0..20 {
        assert!(probe().ends_with("ok\n"));
    }
    let mut held = Vec::new();
    for _ in 0..6 {
        let mut stream = connect();
        stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        held.push(stream);
    }
    for _ in 0..20 {
        assert!(probe().ends_with("ok\n"), "beside half-sent requests");
    }
    drop(child.stdin.take());
    let rest: Vec<String> = lines.collect();
    assert!(child.wait().unwrap().success(), "{rest:?}");
}

#[tokio::test]
#[ignore = "run by the test above, because it uses up the descriptors of its process"]
async fn a_server_without_descriptors_in_its_own_process() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = Rlimit { current: Some(48), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).unwrap();
    let server = serve(patient(4));
    assert!(server.get("/livez").await.ends_with("ok\n"));
    let mut taken = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        taken.push(file);
    }
    // The test runner has begun a line.
    std::io::Write::write_all(&mut std::io::stdout(), format!("\naddress {}\n", server.address).as_bytes()).unwrap();
    let ended = tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin()));
    assert_eq!(ended.await.unwrap().unwrap(), "");
    assert!(taken.len() > 10);
}

#[test]
fn room_is_made_by_the_peer_that_has_the_most_connections() {
    let peer = |text: &str| Peer::of(text.parse().unwrap());
    let of = |peers: &[&str]| victim(&peers.iter().map(|text| peer(text)));
    assert_eq!(of(&[]), None);
    assert_eq!(of(&["10.0.0.1", "10.0.0.2"]), Some(0), "as many: the one that was first");
    assert_eq!(of(&["10.0.0.1", "10.0.0.2", "10.0.0.2"]), Some(1));
    assert_eq!(of(&["10.0.0.1", "2001:db8::1", "2001:db8::ffff"]), Some(1), "one network of IPv6 is one peer");
    assert_eq!(peer("::ffff:10.0.0.1"), peer("10.0.0.1"));
}

proptest! {
    #[test]
    fn a_peer_with_one_connection_never_makes_room_for_one_with_more(others in prop::collection::vec(2_u8..6, 2..64), at in any::<prop::sample::Index>()) {
        let mut peers: Vec<Peer> = others.iter().map(|last| Peer::V4([10, 0, 0, *last])).collect();
        peers.push(Peer::V4([10, 0, 0, 2]));
        let at = at.index(peers.len());
        let probe = Peer::V4([10, 0, 0, 1]);
        peers.insert(at, probe);
        let most = peers.iter().map(|peer| peers.iter().filter(|other| *other == peer).count()).max().unwrap();
        let loser = peers[victim(&peers.iter().copied()).unwrap()];
        prop_assert_eq!(peers.iter().filter(|peer| **peer == loser).count(), most);
        prop_assert!(most == 1 || loser != probe);
    }
}
