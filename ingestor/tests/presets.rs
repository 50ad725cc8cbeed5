//! Every preset reads the example of its format.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a failed test says so like this")]

use std::path::Path;

use common::event::{EventFormat, PRESETS, Preset, TimeRule};
use common::json::Pointer;
use ingestor::{Framed, Framer, FramingState, Limits};

/// event_id, timestamp in seconds, domain, event_type, and how `data` begins and ends.
type Expected = (&'static str, f64, &'static str, &'static str, &'static str, &'static str);

fn format(preset: &Preset) -> EventFormat {
    let records = preset.records.map(|text| Pointer::parse(text).unwrap());
    EventFormat::new(&preset.rules(), TimeRule::utc(), records.as_ref()).unwrap()
}

fn check(name: &str, file: &str, expected: &[Expected]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/presets").join(file);
    let text = std::fs::read(&path).unwrap();
    let format = format(Preset::named(name).unwrap());
    for piece in [text.len(), 10] {
        let mut framer =
            Framer::new(Limits { max_event_bytes: 100_000, bad_head_bytes: 100 }, 0, FramingState::default());
        let mut expected = expected.iter();
        for piece in text.chunks(piece).map(Some).chain([None]) {
            match piece {
                Some(piece) => framer.push(piece),
                None => framer.finish(),
            }
            while let Some(framed) = framer.next(&format) {
                let Framed::Event { bytes, event, .. } = framed else { panic!("{file}: {framed:?}") };
                let (id, seconds, domain, kind, begin, end) = expected.next().expect("an event too many");
                #[allow(clippy::cast_possible_truncation, reason = "microseconds of this century")]
                let micros = (seconds * 1e6).round() as i64;
                assert_eq!(
                    (&*event.event_id, event.timestamp_us, &*event.domain, &*event.event_type),
                    (*id, micros, *domain, *kind)
                );
                assert!(event.data.starts_with(begin) && event.data.ends_with(end), "{}", event.data);
                let whole = format.rules().data.is_empty();
                assert_eq!(event.data.as_bytes() == bytes, whole, "{file}: the whole record is its very bytes");
            }
        }
        assert_eq!(expected.count(), 0, "{file}: an event is missing");
    }
}

/// 2026-03-02T08:15:30Z.
const AT: f64 = 1_772_439_330.0;

#[test]
fn seed() {
    check(
        "seed",
        "seed.jsonl",
        &[
            ("5f0d4c1e-9f0c-4d63-9a51-2f6f1a7c0a01", AT + 0.25, "account", "status-change", r#"{"id":945322"#, "}"),
            ("5f0d4c1e-9f0c-4d63-9a51-2f6f1a7c0a02", AT + 1.0, "card", "creation", r#"{"id":17,"#, "}"),
        ],
    );
}

#[test]
fn cloudtrail() {
    let begin = r#"{"eventVersion":"1.11""#;
    let end = r#""eventCategory":"Management"}"#;
    check(
        "cloudtrail",
        "cloudtrail.json",
        &[
            ("0e4b8c6e-3f3a-4b5c-8a0e-000000000001", AT, "s3.amazonaws.com", "PutBucketTagging", begin, end),
            ("0e4b8c6e-3f3a-4b5c-8a0e-000000000002", AT + 32.0, "sts.amazonaws.com", "AssumeRole", begin, end),
        ],
    );
}

#[test]
fn cloudevents() {
    check(
        "cloudevents",
        "cloudevents.json",
        &[
            ("/shop/orders#1001", AT + 0.123_456, "/shop/orders", "com.example.order.placed", "{\n", "3 }\n  }"),
            ("/shop/payments#1001", AT + 1.0, "/shop/payments", "com.example.payment.captured", "{\n", "}\n  }"),
        ],
    );
}

#[test]
fn eventbridge() {
    let notice = "EC2 Instance State-change Notification";
    check(
        "eventbridge",
        "eventbridge.jsonl",
        &[
            ("7d1f0c52-0000-4000-8000-000000000001", AT, "com.example.shop", "Order Placed", r#"{"orderId""#, "41.90}"),
            ("7d1f0c52-0000-4000-8000-000000000002", AT + 12.0, "aws.ec2", notice, r#"{"instance-id""#, "}"),
        ],
    );
}

#[test]
fn gharchive() {
    check(
        "gharchive",
        "gharchive.jsonl",
        &[
            ("90000000001", AT, "github", "PushEvent", r#"{"id":"90000000001""#, "}"),
            ("90000000002", AT + 1.0, "github", "WatchEvent", r#"{"id":"90000000002""#, "}"),
        ],
    );
}

#[test]
fn segment() {
    check(
        "segment",
        "segment.jsonl",
        &[
            ("ajs-example-0001", AT + 0.92, "segment", "track", r#"{"anonymousId""#, "\"version\":2}"),
            ("ajs-example-0002", AT + 31.4, "segment", "identify", r#"{"anonymousId""#, "\"version\":2}"),
        ],
    );
}

#[test]
fn every_preset_has_an_example() {
    for preset in &PRESETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/presets");
        let found = ["json", "jsonl"].iter().any(|ending| folder.join(format!("{}.{ending}", preset.name)).exists());
        assert!(found, "{}", preset.name);
    }
}
