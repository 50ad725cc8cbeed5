//! The JSON that is accepted as an event, judged with a public suite: <https://github.com/nst/JSONTestSuite>.
//!
//! `y_` must be accepted, `n_` must be refused, `i_` may be either.

#![allow(clippy::unwrap_used, reason = "a failed test says so like this")]

use std::time::{Duration, Instant};

use common::event::{EventFormat, LoneSurrogates, PRESETS, TimeRule};
use common::json::{FieldPaths, MAX_DEPTH, Spans, scan};
use ingestor::{Framed, Framer, FramingState, Limits};

const CASES: &str = include_str!("data/json-test-suite/cases.tsv");
/// For one text through one framer, in an unoptimized build on a busy machine.
const TIME_BOUND: Duration = Duration::from_secs(10);

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        (rest, _) = match (first, after) {
            (b'\\', [b'\\', after @ ..]) => (after, bytes.push(b'\\')),
            (b'\\', [b'x', a, b, after @ ..]) => {
                let digits = [*a, *b];
                let digits = std::str::from_utf8(&digits).unwrap();
                (after, bytes.push(u8::from_str_radix(digits, 16).unwrap()))
            }
            _ => (after, bytes.push(*first)),
        };
    }
    bytes
}

fn suite() -> Vec<(String, Vec<u8>)> {
    let mut cases: Vec<_> = CASES
        .lines()
        .map(|line| line.split_once('\t').unwrap())
        .map(|(name, text)| (name.to_owned(), unescape(text)))
        .collect();
    cases.push(("n_structure_100000_opening_arrays".to_owned(), b"[".repeat(100_000)));
    cases.push(("n_structure_open_array_object".to_owned(), [b"[{\"\":".repeat(50_000), b"\n".to_vec()].concat()));
    assert_eq!(cases.len(), 318);
    cases
}

fn event(id: &str, data: &[u8]) -> Vec<u8> {
    let head =
        format!(r#"{{"event_id":"{id}","timestamp":"2021-01-14T10:15:30","domain":"d","event_type":"t","data":"#);
    [head.as_bytes(), data, b"}\n"].concat()
}

/// The data of the events found, by id, and the reasons of the bad pieces.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    events: Vec<(String, Vec<u8>)>,
    reasons: Vec<&'static str>,
}

/// Lone surrogates, which are among the suite's `i_`, are kept.
fn format() -> EventFormat {
    let mut rules = PRESETS[0].rules();
    rules.lone_surrogates = LoneSurrogates::Keep;
    EventFormat::new(&rules, TimeRule::utc(), None).unwrap()
}

fn frame(file: &[u8], piece: usize) -> Outcome {
    let begun = Instant::now();
    let format = format();
    let mut framer = Framer::new(Limits { max_event_bytes: 1_000_000, bad_head_bytes: 64 }, 0, FramingState::default());
    let mut outcome = Outcome::default();
    for piece in file.chunks(piece).map(Some).chain([None]) {
        match piece {
            Some(piece) => framer.push(piece),
            None => framer.finish(),
        }
        while let Some(framed) = framer.next(&format) {
            match framed {
                Framed::Event { event, .. } => {
                    outcome.events.push((event.event_id.into_owned(), event.data.as_bytes().to_vec()));
                }
                Framed::Bad { problem, .. } => outcome.reasons.push(problem.code()),
            }
        }
    }
    assert!(begun.elapsed() < TIME_BOUND, "took {:?}", begun.elapsed());
    outcome
}

fn frame_in_all_pieces(file: &[u8]) -> Outcome {
    let whole = frame(file, usize::MAX);
    for piece in [1, 7, 1_000] {
        assert_eq!(frame(file, piece), whole, "in pieces of {piece}");
    }
    whole
}

/// Whitespace around a value is not part of it.
fn trimmed(data: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| b" \t\r\n".contains(byte);
    let start = data.iter().position(|byte| !is_blank(byte)).unwrap_or(data.len());
    let end = data.iter().rposition(|byte| !is_blank(byte)).map_or(start, |last| last + 1);
    &data[start..end]
}

#[test]
fn valid_json_is_kept_byte_for_byte_and_invalid_json_destroys_only_itself() {
    for (name, data) in suite() {
        let file = [event("before", b"1"), event("case", &data), event("after", b"2")].concat();
        let outcome = frame_in_all_pieces(&file);
        let ids: Vec<_> = outcome.events.iter().map(|(id, _)| id.as_str()).collect();
        let kept = outcome.events.iter().find(|(id, _)| id == "case").map(|(_, data)| data.as_slice());
        assert!(ids.starts_with(&["before"]) && ids.ends_with(&["after"]), "{name}: {outcome:?}");
        match name.as_bytes()[0] {
            b'y' => assert_eq!((kept, outcome.reasons.len()), (Some(trimmed(&data)), 0), "{name}"),
            // `{}}` closes the event itself: the text before the last brace is an event.
            b'n' => assert!(kept != Some(trimmed(&data)) && !outcome.reasons.is_empty(), "{name}: {outcome:?}"),
            _ => match kept {
                Some(kept) => assert_eq!((kept, outcome.reasons.len()), (trimmed(&data), 0), "{name}"),
                None => assert!(!outcome.reasons.is_empty(), "{name}"),
            },
        }
    }
}

#[test]
fn the_scanner_agrees_with_the_suite() {
    for (name, text) in suite() {
        let scanned = scan(&text, &FieldPaths::default(), MAX_DEPTH, &mut Spans::default());
        // The scanner's callers check that the text is UTF-8, and the bytes after the value.
        let whole = scanned.is_ok_and(|end| trimmed(&text[end..]).is_empty()) && std::str::from_utf8(&text).is_ok();
        match name.as_bytes()[0] {
            b'y' => assert!(whole, "{name}: {scanned:?}"),
            b'n' => assert!(!whole, "{name}: {scanned:?}"),
            _ => {}
        }
    }
}

#[test]
fn nesting_of_any_depth_is_refused_in_bounded_time() {
    for data in [
        [b"[".repeat(100_000), b"]".repeat(100_000)].concat(),
        [b"{\"a\":".repeat(100_000), b"1".to_vec(), b"}".repeat(100_000)].concat(),
        b"[".repeat(100_000),
    ] {
        let file = [event("before", b"1"), event("deep", &data), event("after", b"2")].concat();
        let outcome = frame_in_all_pieces(&file);
        let ids: Vec<_> = outcome.events.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!((ids, outcome.reasons), (vec!["before", "after"], vec!["too_deep"]));
    }
}
