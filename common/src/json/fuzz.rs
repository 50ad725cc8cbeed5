//! The input is JSON text, or nearly.

#![allow(clippy::unwrap_used, reason = "an oracle reports a failure by a panic")]

use serde::de::IgnoredAny;

use super::*;
use crate::printable::json_text;

/// The independent parser has a limit of 128.
const DEPTH: usize = 120;
/// Among them: one on the way to another, indices, escapes, the whole value.
const POINTERS: [&str; 8] = ["/a", "/a/b", "/event_id", "/Records/0", "/0", "/~0~1", "/\u{e9}", ""];

/// JSON is accepted, and its values are found, as by an independent parser.
pub fn json(input: &[u8]) {
    let mut spans = Spans::default();
    let end = scan(input, &FieldPaths::default(), MAX_DEPTH, &mut spans);
    let is_whole = end.is_ok_and(|end| skip_blanks(input, end) == input.len());
    let is_deep = matches!(end, Err(ScanError { kind: ScanErrorKind::TooDeep, .. }));
    if !is_deep {
        assert_eq!(is_whole, serde_json::from_slice::<IgnoredAny>(input).is_ok(), "{end:?}");
    }
    if let Ok(end) = end {
        beginnings(&input[..end]);
    }
    let Ok(text) = std::str::from_utf8(input) else { return };
    strings(text);
    if is_whole {
        surrogates(text, spans.has_surrogates());
        values(text);
    }
}

/// The beginning of an array or object is incomplete, not wrong.
fn beginnings(value: &[u8]) {
    if !value.trim_ascii_start().starts_with(b"{") && !value.trim_ascii_start().starts_with(b"[") {
        return;
    }
    let cut = value.len() / 2;
    for cut in [cut, cut + 1, value.len() - 1].into_iter().filter(|cut| *cut < value.len()) {
        let expected = Err(ScanError { at: cut, kind: ScanErrorKind::Eof });
        assert_eq!(scan(&value[..cut], &FieldPaths::default(), MAX_DEPTH, &mut Spans::default()), expected);
    }
}

/// A string has the text that the independent parser reads.
fn strings(text: &str) {
    let quoted = format!("\"{text}\"");
    let mut spans = Spans::default();
    let is_string = scan(quoted.as_bytes(), &FieldPaths::default(), 1, &mut spans) == Ok(quoted.len());
    let theirs = serde_json::from_str::<String>(&quoted);
    assert!(theirs.is_err() || is_string, "{theirs:?}");
    if is_string {
        assert_eq!(unescape(text).as_deref(), theirs.as_deref().ok());
        if let Ok(theirs) = theirs {
            assert!(key_means(text.as_bytes(), &theirs));
        }
    }
}

fn surrogates(text: &str, has_surrogates: bool) {
    let replaced = replace_lone_surrogates(text);
    assert_eq!(replaced.len(), text.len());
    assert_eq!(replace_lone_surrogates(&replaced), replaced);
    assert_eq!(has_lone_surrogate(text), replaced != text);
    assert!(has_surrogates || replaced == text, "the scan missed it");
    if scan(text.as_bytes(), &FieldPaths::default(), DEPTH, &mut Spans::default()).is_ok() {
        let whole = serde_json::from_str::<serde_json::Value>(&replaced);
        // The independent parser also refuses numbers that do not fit.
        assert!(
            whole.as_ref().err().is_none_or(|error| error.to_string().contains("number out of range")),
            "{whole:?}"
        );
        let shown = json_text(&replaced);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).ok(), whole.ok());
    }
}

/// The values at pointers, unless a key occurs twice.
fn values(text: &str) {
    let (mut paths, mut spans) = (FieldPaths::default(), Spans::default());
    let pointers = POINTERS.map(|pointer| (pointer, paths.add(&Pointer::parse(pointer).unwrap()).unwrap()));
    let Ok(whole) = serde_json::from_str::<serde_json::Value>(text) else { return };
    if scan(text.as_bytes(), &paths, DEPTH, &mut spans).is_err() {
        return;
    }
    for (pointer, slot) in pointers {
        let found = spans.get(slot).map(|Span { start, end, .. }| &text[start..end]);
        let found = found.map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap());
        assert_eq!(found.as_ref(), whole.pointer(pointer), "{pointer}");
    }
    let mut records = FieldPaths::default();
    records.add_through_objects(&Pointer::parse("/a/Records").unwrap()).unwrap();
    let opened = find_array(text.as_bytes(), &records, DEPTH);
    if let Ok(Opened::Array { after }) = opened {
        assert_eq!(text.as_bytes()[after - 1], b'[');
    }
    let is_there = whole.get("a").and_then(|a| a.get("Records")).is_some_and(serde_json::Value::is_array);
    // Of several members with one key the independent parser keeps the last; this one stops at the first.
    let is_clear = scan(text.as_bytes(), &records, DEPTH, &mut spans).is_ok();
    assert!(!is_clear || is_there == matches!(opened, Ok(Opened::Array { .. })), "{opened:?}");
}
