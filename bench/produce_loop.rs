//! Measures the cost of putting an NDJSON file on a Kafka topic. Compares the minimal loop over librdkafka with the log
//! seam's own writer, on the same file and broker, in alternating rounds of one run.
//!
//! ```sh
//! cargo run --release -p common --example produce_loop -- --brokers 127.0.0.1:9092 --file events.json
//! ```
//!
//! | variant | what it does |
//! |---|---|
//! | `bare` | `send` for each line: key, value, partition by murmur2; the key is found by a plain search |
//! | `headers` | the same with the two headers of the program's records |
//! | `writer` | builds `RecordBatch`es and passes them to `KafkaLog::writer`, building the next ones meanwhile |
//!
//! All are transactional (acks=all, lz4), with a transaction every `--transaction-bytes` of lines. Each round of each
//! variant is a process of its own with a topic of its own, so that memory and CPU are attributed correctly: CPU
//! seconds are those of all its threads; with `--broker-pid` the broker's are printed too. Ratios are of medians,
//! relative to `headers`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a measuring program")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::process::Command;
use std::time::{Duration, Instant};

use common::event::{HEADER_BYTE_OFFSET, HEADER_SOURCE, partition_for_key};
use common::log::{KafkaLog, KafkaSettings, Log, LogWriter, RecordBatch};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rustix::time::{ClockId, clock_gettime};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As long as typical paths in a landing zone with a few folders.
const SOURCE: &str = "2026/11/24/orders-service/part-00042-7b0c9a1e5d3f.json";
const ROOM_FOR_ONE_MORE_BYTES: usize = 4096;
const WAIT: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Options {
    brokers: String,
    file: String,
    ways: Vec<String>,
    rounds: usize,
    partitions: i32,
    transaction_bytes: usize,
    /// The minimum size of a batch passed to the writer, except for its partition's last in the transaction.
    batch_bytes: usize,
    /// Writers that are owned and stay idle beside the busy one.
    idle_writers: usize,
    broker_pid: Option<u32>,
    topic_settings: Vec<(String, String)>,
    client: BTreeMap<String, String>,
    /// Set in the process of one round.
    topic: Option<String>,
}

impl Options {
    fn parse(arguments: &[String]) -> Self {
        let mut options = Self {
            brokers: String::new(),
            file: String::new(),
            ways: ["bare", "headers", "writer"].map(str::to_owned).to_vec(),
            rounds: 5,
            partitions: 4,
            transaction_bytes: 12 << 20,
            batch_bytes: 512 << 10,
            idle_writers: 0,
            broker_pid: None,
            topic_settings: vec![("message.timestamp.type".to_owned(), "LogAppendTime".to_owned())],
            client: BTreeMap::new(),
            topic: None,
        };
        for pair in arguments.chunks(2) {
            let [name, value] = pair else { panic!("{} needs a value", pair[0]) };
            let setting = || value.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())).unwrap();
            match name.as_str() {
                "--brokers" => options.brokers.clone_from(value),
                "--file" => options.file.clone_from(value),
                "--ways" => options.ways = value.split(',').map(str::to_owned).collect(),
                "--rounds" => options.rounds = value.parse().unwrap(),
                "--partitions" => options.partitions = value.parse().unwrap(),
                "--transaction-bytes" => options.transaction_bytes = value.parse().unwrap(),
                "--batch-bytes" => options.batch_bytes = value.parse().unwrap(),
                "--idle-writers" => options.idle_writers = value.parse().unwrap(),
                "--broker-pid" => options.broker_pid = Some(value.parse().unwrap()),
                "--topic-setting" => options.topic_settings.push(setting()),
                "--client" => options.client.extend([setting()]),
                "--topic" => options.topic = Some(value.clone()),
                other => panic!("unknown option {other}"),
            }
        }
        options
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let options = Options::parse(&arguments);
    if let Some(topic) = &options.topic {
        measure(&options, topic);
    } else {
        compare(&options, &arguments);
    }
}

/// The measurements of one round.
#[derive(Debug, Clone, Default)]
struct Figures {
    events_per_s: f64,
    cpu_s_per_million: f64,
    broker_cpu_s_per_million: f64,
    peak_rss_mb: f64,
    threads: f64,
    /// From the last record passed on to the answer of the commit.
    commit_ms: f64,
}

impl Figures {
    const NAMES: [&'static str; 6] =
        ["events/s", "CPU s / M", "broker CPU s / M", "peak RSS MB", "threads", "ms / commit"];

    fn numbers(&self) -> [f64; 6] {
        [
            self.events_per_s,
            self.cpu_s_per_million,
            self.broker_cpu_s_per_million,
            self.peak_rss_mb,
            self.threads,
            self.commit_ms,
        ]
    }
}

/// Runs rounds of all variants in turn, each in a process of its own; prints each, and the medians.
fn compare(options: &Options, arguments: &[String]) {
    println!("{:50} {}", "way", Figures::NAMES.map(|name| format!("{name:>17}")).join(""));
    let mut all: BTreeMap<&str, Vec<Figures>> = BTreeMap::new();
    for round in 0..options.rounds {
        for (number, way) in options.ways.iter().enumerate() {
            let topic = format!("produce-loop-{}-{round}-{number}", std::process::id());
            let figures = run_round(options, arguments, way, &topic);
            println!("{way:50} {}", figures.numbers().map(|number| format!("{number:>17.2}")).join(""));
            all.entry(way).or_default().push(figures);
        }
    }
    println!("\nmedians of {} rounds", options.rounds);
    let medians: BTreeMap<&str, [f64; 6]> = all.iter().map(|(way, figures)| (*way, medians(figures))).collect();
    for (way, numbers) in &medians {
        println!("{way:50} {}", numbers.map(|number| format!("{number:>17.2}")).join(""));
    }
    if let Some(reference) = medians.get("headers") {
        for (way, numbers) in &medians {
            let (cpu, speed) = (numbers[1] / reference[1], numbers[0] / reference[0]);
            println!("{way:50} CPU {cpu:.2} x, events/s {speed:.2} x of headers");
        }
    }
}

fn medians(figures: &[Figures]) -> [f64; 6] {
    std::array::from_fn(|index| {
        let mut numbers: Vec<f64> = figures.iter().map(|figures| figures.numbers()[index]).collect();
        numbers.sort_by(f64::total_cmp);
        numbers[numbers.len() / 2]
    })
}

fn run_round(options: &Options, arguments: &[String], way: &str, topic: &str) -> Figures {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(create_topic(options, topic));
    let broker_before = options.broker_pid.map(process_cpu_seconds);
    // `writer:linger.ms=0;batch.size=65536` is a variant with client settings of its own.
    let (way, settings) = way.split_once(':').unwrap_or((way, ""));
    let own_settings =
        settings.split(';').filter(|pair| !pair.is_empty()).flat_map(|pair| match pair.strip_prefix("batch-bytes=") {
            Some(v) => ["--batch-bytes", v],
            None => ["--client", pair],
        });
    let output = Command::new(std::env::current_exe().unwrap())
        .args(arguments)
        .args(["--ways", way, "--topic", topic])
        .args(own_settings)
        .output()
        .unwrap();
    let broker_after = options.broker_pid.map(process_cpu_seconds);
    assert!(output.status.success(), "{way}: {}", String::from_utf8_lossy(&output.stderr));
    let numbers: Vec<f64> =
        String::from_utf8_lossy(&output.stdout).split_whitespace().map(|number| number.parse().unwrap()).collect();
    let [events, seconds, cpu, rss, threads, commit_ms] = numbers[..] else { panic!("{way} printed {numbers:?}") };
    runtime.block_on(delete_topic(options, topic));
    let broker_cpu = broker_before.zip(broker_after).map_or(0.0, |(before, after)| after - before);
    Figures {
        events_per_s: events / seconds,
        cpu_s_per_million: cpu / events * 1e6,
        broker_cpu_s_per_million: broker_cpu / events * 1e6,
        peak_rss_mb: rss,
        threads,
        commit_ms,
    }
}

fn admin(options: &Options) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", &options.brokers).create().unwrap()
}

async fn create_topic(options: &Options, name: &str) {
    let mut topic = NewTopic::new(name, options.partitions, TopicReplication::Fixed(1));
    for (key, value) in &options.topic_settings {
        topic = topic.set(key, value);
    }
    admin(options).create_topics([&topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
}

async fn delete_topic(options: &Options, name: &str) {
    admin(options).delete_topics(&[name], &AdminOptions::new()).await.unwrap();
}

/// User and system time of another process, from its `stat`: 100 ticks a second.
fn process_cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

fn own_status(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
}

/// Runs one round; prints `events seconds cpu-seconds peak-rss-mb threads ms-per-commit`.
fn measure(options: &Options, topic: &str) {
    let cpu = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
    };
    let mut begun = (Instant::now(), cpu());
    let mut start_clock = || begun = (Instant::now(), cpu());
    let mut commits = Commits::default();
    let events = match options.ways[0].as_str() {
        "bare" => produce_bare(options, topic, false, &mut start_clock, &mut commits),
        "headers" => produce_bare(options, topic, true, &mut start_clock, &mut commits),
        "writer" => produce_by_writer(options, topic, &mut start_clock, &mut commits),
        other => panic!("unknown way {other}"),
    };
    let (seconds, cpu) = (begun.0.elapsed().as_secs_f64(), (cpu() - begun.1).as_secs_f64());
    let commit_ms = commits.spent.as_secs_f64() * 1000.0 / f64::from(commits.count.max(1));
    println!("{events} {seconds} {cpu} {} {} {commit_ms}", own_status("VmHWM") / 1024.0, commits.threads);
}

#[derive(Default)]
struct Commits {
    count: u32,
    spent: Duration,
    /// Of the process, after the last commit.
    threads: f64,
}

impl Commits {
    fn add(&mut self, spent: Duration) {
        self.count += 1;
        self.spent += spent;
        self.threads = own_status("Threads");
    }
}

/// The file in pieces of whole lines, each about as large as a transaction.
struct Pieces {
    file: File,
    size_bytes: usize,
    begin: u64,
    rest: Vec<u8>,
}

impl Pieces {
    fn open(options: &Options) -> Self {
        let file = File::open(&options.file).unwrap();
        Self { file, size_bytes: options.transaction_bytes, begin: 0, rest: Vec::new() }
    }

    /// Fills `piece` with whole lines and returns the offset of the first byte; `None` at the end.
    fn next(&mut self, piece: &mut Vec<u8>) -> Option<u64> {
        piece.clear();
        piece.append(&mut self.rest);
        let room = self.size_bytes.saturating_sub(piece.len()) as u64;
        (&mut self.file).take(room).read_to_end(piece).unwrap();
        let end = memchr::memrchr(b'\n', piece)? + 1;
        self.rest.extend_from_slice(&piece[end..]);
        piece.truncate(end);
        let begin = self.begin;
        self.begin += end as u64;
        Some(begin)
    }
}

/// Lines with the offset of their first byte.
fn lines(piece: &[u8], begin: u64) -> impl Iterator<Item = (u64, &[u8])> {
    let mut start = 0;
    memchr::memchr_iter(b'\n', piece).map(move |end| {
        let line = (begin + start as u64, &piece[start..end]);
        start = end + 1;
        line
    })
}

struct Keys(memchr::memmem::Finder<'static>);

impl Keys {
    fn new() -> Self {
        Self(memchr::memmem::Finder::new(b"\"event_id\":"))
    }

    /// The value of `event_id`, assuming that it has no escapes.
    fn of<'a>(&self, line: &'a [u8]) -> &'a [u8] {
        let rest = &line[self.0.find(line).unwrap() + self.0.needle().len()..];
        let start = memchr::memchr(b'"', rest).unwrap() + 1;
        &rest[start..start + memchr::memchr(b'"', &rest[start..]).unwrap()]
    }
}

fn decimal(number: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut rest = number;
    let mut start = buffer.len();
    loop {
        start -= 1;
        buffer[start] = b'0' + u8::try_from(rest % 10).unwrap();
        rest /= 10;
        if rest == 0 {
            return &buffer[start..];
        }
    }
}

fn producer(options: &Options, topic: &str) -> BaseProducer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &options.brokers)
        .set("transactional.id", topic)
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("linger.ms", "100")
        .set("batch.size", "1000000")
        .set("queue.buffering.max.kbytes", "8192")
        .set("delivery.report.only.error", "true");
    for (key, value) in &options.client {
        config.set(key, value);
    }
    config.create().unwrap()
}

fn produce_bare(
    options: &Options,
    topic: &str,
    headers: bool,
    start_clock: &mut dyn FnMut(),
    commits: &mut Commits,
) -> u64 {
    let producer = producer(options, topic);
    producer.init_transactions(WAIT).unwrap();
    let (mut pieces, mut piece, keys) = (Pieces::open(options), Vec::new(), Keys::new());
    let mut events = 0;
    start_clock();
    while let Some(begin) = pieces.next(&mut piece) {
        producer.begin_transaction().unwrap();
        for (offset, line) in lines(&piece, begin) {
            let key = keys.of(line);
            let partition = partition_for_key(key, options.partitions.unsigned_abs());
            let mut record = BaseRecord::to(topic).partition(partition.cast_signed()).key(key).payload(line);
            if headers {
                record = record.headers(two_headers(offset));
            }
            while let Err((error, back)) = producer.send(record) {
                assert!(matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)), "{error}");
                serve(&producer);
                record = back;
            }
            events += 1;
        }
        let appended = Instant::now();
        // A flush of the binding polls for 100 ms at a time, and reports of success are off.
        while producer.in_flight_count() > 0 {
            let _still_in_flight = producer.flush(Duration::ZERO);
            serve(&producer);
        }
        producer.commit_transaction(WAIT).unwrap();
        commits.add(appended.elapsed());
    }
    events
}

/// Waits a moment. (The binding spins for the last millisecond of a poll.)
fn serve(producer: &BaseProducer) {
    producer.poll(Duration::ZERO);
    std::thread::sleep(Duration::from_micros(500));
}

fn two_headers(offset: u64) -> OwnedHeaders {
    OwnedHeaders::new_with_capacity(2)
        .insert(Header { key: HEADER_SOURCE, value: Some(SOURCE) })
        .insert(Header { key: HEADER_BYTE_OFFSET, value: Some(decimal(offset, &mut [0; 20])) })
}

fn produce_by_writer(options: &Options, topic: &str, start_clock: &mut dyn FnMut(), commits: &mut Commits) -> u64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let settings = KafkaSettings { brokers: options.brokers.clone(), client: options.client.clone() };
    let log = KafkaLog::new(settings).unwrap();
    runtime.block_on(async {
        let mut idle = Vec::new();
        for number in 0..options.idle_writers {
            idle.push(log.writer(&format!("{topic}-idle-{number}")).await.unwrap());
        }
        let mut writer = log.writer(topic).await.unwrap();
        let (full, mut transactions) = tokio::sync::mpsc::channel(1);
        // Memory of batches is reused: allocating it again costs page faults.
        let (emptied, empty) = std::sync::mpsc::channel();
        start_clock();
        let build = options.clone();
        let building = tokio::task::spawn_blocking(move || build_transactions(&build, &empty, &full));
        while let Some(transaction) = transactions.recv().await {
            publish(&mut *writer, topic, &transaction, commits).await;
            for (_, batch) in transaction {
                // The builder may have ended.
                let _ = emptied.send(batch);
            }
        }
        let events = building.await.unwrap();
        drop(idle);
        events
    })
}

/// Batches with their partitions, in the order in which they are appended.
type Transaction = Vec<(i32, RecordBatch)>;

fn build_transactions(
    options: &Options,
    empty: &std::sync::mpsc::Receiver<RecordBatch>,
    full: &tokio::sync::mpsc::Sender<Transaction>,
) -> u64 {
    let (mut pieces, mut piece, keys) = (Pieces::open(options), Vec::new(), Keys::new());
    let new_batch = || {
        let mut batch = empty
            .try_recv()
            .unwrap_or_else(|_| RecordBatch::with_capacity(options.batch_bytes + ROOM_FOR_ONE_MORE_BYTES));
        batch.clear();
        batch
    };
    let mut events = 0;
    let mut open: Vec<RecordBatch> = (0..options.partitions).map(|_| new_batch()).collect();
    while let Some(begin) = pieces.next(&mut piece) {
        let mut transaction = Vec::new();
        for (offset, line) in lines(&piece, begin) {
            let key = keys.of(line);
            let partition = partition_for_key(key, options.partitions.unsigned_abs());
            let headers = |headers: &mut common::log::HeaderWriter<'_>| {
                headers.put(HEADER_SOURCE, SOURCE.as_bytes());
                headers.put(HEADER_BYTE_OFFSET, decimal(offset, &mut [0; 20]));
            };
            let batch = &mut open[partition as usize];
            batch.push(key, Some(line), headers).unwrap();
            if batch.size_bytes() >= options.batch_bytes {
                transaction.push((partition.cast_signed(), std::mem::replace(batch, new_batch())));
            }
            events += 1;
        }
        for (partition, batch) in (0..).zip(&mut open) {
            transaction.push((partition, std::mem::replace(batch, new_batch())));
        }
        full.blocking_send(transaction).unwrap();
    }
    events
}

async fn publish(writer: &mut dyn LogWriter, topic: &str, transaction: &Transaction, commits: &mut Commits) {
    writer.begin().await.unwrap();
    for (partition, batch) in transaction {
        writer.append(topic, *partition, batch).await.unwrap();
    }
    let appended = Instant::now();
    writer.commit().await.unwrap();
    commits.add(appended.elapsed());
}
