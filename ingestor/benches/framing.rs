//! Framing and validation alone, from memory, on one core: `cargo bench -p ingestor --bench framing`.
//!
//! Sample events as `event-distributor generate` makes them, newline-delimited, in pieces of 1 MiB. The baseline is the
//! approach of version 0.1.0: serde_json into a borrowed struct. Each runs many times in short rounds, and the fastest
//! round is reported: other load on the machine slows rounds down and speeds none up.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and may stop at what cannot be"
)]

use std::fmt::Write as _;
use std::time::Instant;

use common::backoff::splitmix64;
use common::event::{EventFormat, TimeRule};
use ingestor::{Framed, Framer, FramingState, Limits};
use serde::Deserialize;
use serde_json::value::RawValue;

const EVENTS: usize = 40_000;
const ROUNDS: usize = 200;
const PIECE: usize = 1 << 20;

const DOMAINS: [&str; 4] = ["account", "card", "transfer", "customer"];
const ACTIONS: [&str; 3] = ["status-change", "creation", "closure"];
const STATUSES: [&str; 4] = ["ACTIVE", "SUSPENDED", "PENDING", "CLOSED"];
const REASONS: [&str; 4] = [
    "Requested by the customer in writing, identity checked at the branch",
    "Automatic review of items that have been dormant for a year",
    "Corrected after a complaint, see the note of the back office",
    "Natus cupiditate fugiat repellendus commodi perspiciatis earum",
];

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = splitmix64(self.0);
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }
}

fn sample(events: usize) -> Vec<u8> {
    let mut random = Random(1);
    let mut text = String::new();
    for _ in 0..events {
        let (high, low) = (random.next(), random.next());
        let (day, second) = (14 + random.below(3), random.below(86_400));
        let (domain, action) = (random.pick(&DOMAINS), random.pick(&ACTIONS));
        let id = random.below(1_000_000);
        let (old, new, reason) = (random.pick(&STATUSES), random.pick(&STATUSES), random.pick(&REASONS));
        writeln!(
            text,
            r#"{{"event_id": "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}", "timestamp": "2021-01-{day:02}T{:02}:{:02}:{:02}", "domain": "{domain}", "event_type": "{action}", "data": {{"id": {id}, "old_status": "{old}", "new_status": "{new}", "reason": "{reason}"}}}}"#,
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            (low >> 48) & 0x3fff | 0x8000,
            low & 0xffff_ffff_ffff,
            second / 3600,
            second / 60 % 60,
            second % 60,
        )
        .unwrap();
    }
    text.into_bytes()
}

/// The number of events, and a sum over their fields that proves that they were read.
type Read = (u64, u64);

fn framed(file: &[u8]) -> Read {
    let format = EventFormat::default();
    let mut framer =
        Framer::new(Limits { max_event_bytes: 1_000_000, bad_head_bytes: 65_536 }, 0, FramingState::default());
    let mut read = (0, 0);
    for piece in file.chunks(PIECE).map(Some).chain([None]) {
        match piece {
            Some(piece) => framer.push(piece),
            None => framer.finish(),
        }
        while let Some(framed) = framer.next(&format) {
            let Framed::Event { event, .. } = framed else { panic!("not an event: {framed:?}") };
            let texts = event.event_id.len() + event.domain.len() + event.event_type.len() + event.data.len();
            count(&mut read, event.timestamp_us, texts);
        }
    }
    read
}

fn count(read: &mut Read, timestamp_us: i64, texts: usize) {
    read.0 += 1;
    read.1 = read.1.wrapping_add(timestamp_us.unsigned_abs() ^ texts as u64);
}

#[derive(Deserialize)]
struct Borrowed<'a> {
    event_id: &'a str,
    timestamp: &'a str,
    domain: &'a str,
    event_type: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Does less than version 0.1.0: the whole file at once, no copies, no offsets, no limits.
fn with_serde_json(file: &[u8]) -> Read {
    let time = TimeRule::utc();
    let mut read = (0, 0);
    let mut events = serde_json::Deserializer::from_slice(file).into_iter::<Borrowed<'_>>();
    let mut begin = 0;
    while let Some(event) = events.next() {
        let Borrowed { event_id, timestamp, domain, event_type, data } = event.unwrap();
        simdutf8::basic::from_utf8(&file[begin..events.byte_offset()]).unwrap();
        begin = events.byte_offset();
        let texts = event_id.len() + domain.len() + event_type.len() + data.get().len();
        count(&mut read, time.parse(timestamp).unwrap(), texts);
    }
    read
}

fn measure(name: &str, file: &[u8], run: fn(&[u8]) -> Read) -> u64 {
    let mut fastest = f64::MAX;
    let mut read = (0, 0);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        read = std::hint::black_box(run(std::hint::black_box(file)));
        fastest = fastest.min(begun.elapsed().as_secs_f64());
    }
    assert_eq!(read.0, EVENTS as u64);
    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    let (bytes, events) = (file.len() as f64, EVENTS as f64);
    println!("{name:<12} {:>6.0} MB/s {:>6.0} ns/event", bytes / fastest / 1e6, fastest * 1e9 / events);
    read.1
}

/// Parts whose repetition takes quadratic time in a careless framer.
const HOSTILE: [(&str, &str); 6] = [
    ("empty objects", "{}"),
    ("opened arrays", "["),
    ("opened objects", "{\"a\":"),
    ("opened in strings", "\"{\""),
    (
        "events in arrays",
        "{\"a\":[{\"event_id\":\"e\",\"timestamp\":\"2021-01-14T10:15:30\",\"domain\":\"d\",\"event_type\":\"t\",\"data\":1},",
    ),
    ("commas", ","),
];

/// Nanoseconds a byte for one megabyte and for eight of each: equal if the time is linear.
fn hostile() {
    let limits = Limits { max_event_bytes: 1_000_000, bad_head_bytes: 65_536 };
    let format = EventFormat::default();
    for (name, part) in HOSTILE {
        let nanos = [1_usize, 8].map(|megabytes| {
            let file = part.repeat(megabytes * 1_000_000 / part.len());
            let begun = Instant::now();
            let mut framer = Framer::new(limits, 0, FramingState::default());
            let mut pieces = 0_u64;
            for piece in file.as_bytes().chunks(PIECE).map(Some).chain([None]) {
                match piece {
                    Some(piece) => framer.push(piece),
                    None => framer.finish(),
                }
                while framer.next(&format).is_some() {
                    pieces += 1;
                }
            }
            std::hint::black_box(pieces);
            #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
            let bytes = file.len() as f64;
            begun.elapsed().as_secs_f64() * 1e9 / bytes
        });
        println!("{name:<18} {:>8.1} ns/byte of 1 MB {:>8.1} ns/byte of 8 MB", nanos[0], nanos[1]);
    }
}

fn main() {
    if std::env::args().any(|argument| argument == "hostile") {
        return hostile();
    }
    let file = sample(EVENTS);
    println!("{EVENTS} events of {} bytes, the fastest of {ROUNDS} rounds", file.len() / EVENTS);
    let left = measure("serde_json", &file, with_serde_json);
    let right = measure("framer", &file, framed);
    assert_eq!(left, right, "both read the same");
}
