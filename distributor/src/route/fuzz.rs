//! The input is a domain and, after the first line break, an event type.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "an oracle reports a failure by a panic")]

use std::borrow::Cow;

use common::event::{Event, civil_from_micros};

use super::{MAX_SEGMENT_BYTES, Rejection, type_of};
use crate::layout::{LAYOUT_VERSION, Layout};

/// The folder of an event has five names without special meaning to a store or an engine. Query engines read the type back
/// from it. An event is rejected exactly if a name is too long or its year is out of range.
pub fn folder(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (domain, event_type) = text.split_once('\n').unwrap_or((text, "t"));
    if domain.is_empty() || event_type.is_empty() {
        return;
    }
    let number = xxhash_rust::xxh3::xxh3_64(input);
    let timestamp_us = i64::try_from(number % 200_000_000_000_000_000).unwrap() - 100_000_000_000_000_000;
    let event = Event {
        event_id: Cow::Borrowed("e"),
        timestamp_us,
        domain: Cow::Borrowed(domain),
        event_type: Cow::Borrowed(event_type),
        data: Cow::Borrowed("{}"),
    };
    let date = civil_from_micros(timestamp_us);
    let escaped = escaped(domain).len() + escaped(event_type).len() + "domain_event_type=-".len();
    match super::folder(&event, &layout()) {
        Ok(path) => {
            assert!(escaped <= MAX_SEGMENT_BYTES, "{path}");
            check(&path, &format!("{domain}-{event_type}"));
            let days = format!("/year={:04}/month={:02}/day={:02}", date.year, date.month, date.day);
            assert!(path.ends_with(&days), "{path}");
        }
        Err(Rejection::TypeTooLong) => assert!(escaped > MAX_SEGMENT_BYTES),
        Err(rejection) => {
            assert_eq!(rejection, Rejection::YearOutOfRange);
            assert!(!(layout().min_year..=layout().max_year).contains(&date.year));
        }
    }
}

fn check(path: &str, value: &str) {
    let segments: Vec<_> = path.split('/').collect();
    assert_eq!(segments.len(), 5, "{path}");
    for segment in segments {
        assert!(!matches!(segment, "" | "." | "..") && segment.len() <= MAX_SEGMENT_BYTES, "{path}");
        assert!(!segment.bytes().any(|byte| byte < 0x20 || byte == 0x7f || byte == b'\\'), "{path:?}");
    }
    let escaped = type_of(path).expect("a folder of events");
    assert!(!escaped.contains(['=', ':', '"', '#', '\'', '*', '?', '{', '[', ']', '^']), "{path}");
    assert_eq!(unescaped(escaped), value);
}

/// As Hive reads it (`FileUtils.unescapePathName`).
fn unescaped(escaped: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = escaped.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let code = after.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => bytes.push(*first),
        }
    }
    String::from_utf8(bytes).expect("text")
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    super::escape_into(&mut escaped, text);
    escaped
}

fn layout() -> Layout {
    Layout {
        version: LAYOUT_VERSION,
        preset: "seed".to_owned(),
        rules: common::event::PRESETS[0].rules(),
        timezone: "UTC".to_owned(),
        window_ms: 0,
        max_types: 1,
        min_year: 1970,
        max_year: 2100,
        max_rows_per_file: 1,
        columns: Vec::new(),
    }
}
