//! Events in wrapper objects.

use common::event::{PRESETS, TimeRule};
use common::json::Pointer;

use super::*;

pub(super) fn wrapped_at(pointer: &str) -> EventFormat {
    EventFormat::new(&PRESETS[0].rules(), TimeRule::utc(), Some(&Pointer::parse(pointer).unwrap())).unwrap()
}

fn frame_records(file: &str) -> Vec<Piece> {
    let format = wrapped_at("/Records");
    let whole = frame_as(&format, file.as_bytes(), &[usize::MAX]);
    for piece in [1, 5, 64, 1_000] {
        assert_eq!(frame_as(&format, file.as_bytes(), &[piece]), whole, "in pieces of {piece}: {file}");
    }
    resume_everywhere(&format, file.as_bytes());
    whole
}

fn found(file: &str) -> (String, Vec<&'static str>) {
    let pieces = frame_records(file);
    (ids(&pieces).concat(), codes(&pieces))
}

#[test]
fn events_are_read_from_wrappers_of_every_layout() {
    let [a, b, c] = ["a", "b", "c"].map(event);
    for file in [
        format!(r#"{{"Records":[{a},{b},{c}]}}"#),
        format!(r#"{{"v":{{"x":[1]}},"Records":[{a},{b}],"after":{{"y":[{{}}]}}}} {{"Records":[{c}]}}"#),
        format!("{{\"Records\":[{a}]}}\n{{\"Records\":[]}}\n{{\"Records\":[{b},{c}]}}\n"),
        format!("{{\"Records\":[{a}]}}{{\"Records\":[{b}],\"x\":\"}}\"}}{{\"Records\":[{c}]}}"),
        format!("[{{\"Records\":[{a},{b}]}},\n{{\"Records\":[{c}]}}]"),
        format!("{{\n  \"Records\": [\n    {a},\n    {b}\n  ],\n  \"next\":\n{{}}\n}}\n{{ \"Records\" :[{c}]}}"),
        format!("\u{feff}{{\"\\u0052ecords\":[{}{}{}]}}", pretty("a"), pretty("b"), pretty("c")),
    ] {
        assert_eq!(found(&file), ("abc".to_owned(), vec![]), "{file}");
    }
    let nested = wrapped_at("/a/b");
    let file = format!(r#"{{"x":0,"a":{{"b":[{a},{b}],"c":1}},"b":[1]}}{{"a":{{"b":[{c}]}}}}"#);
    let pieces = frame_as(&nested, file.as_bytes(), &[9]);
    assert_eq!((ids(&pieces).concat(), codes(&pieces)), ("abc".to_owned(), vec![]));
    resume_everywhere(&nested, file.as_bytes());
}

#[test]
fn a_wrapper_without_the_array_is_one_bad_piece() {
    let a = event("a");
    for wrapper in [r#"{"records":[]}"#, "{}", r#"{"Records":null}"#, r#"{"Records":{"Records":[]}}"#] {
        let file = format!("{wrapper}\n{{\"Records\":[{a}]}}");
        let pieces = frame_records(&file);
        assert_eq!(pieces[0], Piece::Bad(0, wrapper.len() as u64, "no_records"), "{wrapper}");
        assert_eq!(ids(&pieces), ["a"]);
    }
    assert_eq!(found("17\n[1]").1, ["not_an_object", "not_an_object"]);
    assert_eq!(
        found(&format!("{a}\n{{\"Records\":[{}]}}", event("b"))),
        ("ab".to_owned(), vec![]),
        "an event by itself"
    );
}

#[test]
fn a_wrapper_that_is_cut_off_is_reported_once() {
    let (a, b) = (event("a"), event("b"));
    for file in [
        format!(r#"{{"Records":[{a},{b}"#),
        format!(r#"{{"Records":[{a},{b},"#),
        format!(r#"{{"Records":[{a},{b}]"#),
        format!(r#"{{"Records":[{a},{b}],"x":{{"#),
        format!(r#"[{{"Records":[{a},{b}],"x":"}}"#),
    ] {
        assert_eq!(found(&file), ("ab".to_owned(), vec!["truncated"]), "{file}");
    }
    assert_eq!(found(r#"{"Rec"#).1, ["truncated"]);
}

#[test]
fn a_broken_line_of_wrappers_destroys_only_itself() {
    let [a, b, c] = ["a", "b", "c"].map(event);
    for (line, ids, codes) in [
        (format!(r#"{{"Records":[{a}, nonsense, {{"event_id":}}]}}"#), "abc", vec!["not_json", "not_json"]),
        (format!(r#"{{"Records":[{a}"#), "abc", vec!["truncated"]),
        (format!(r#"{{"Records":[{a},{}"#, &b[..30]), "abc", vec!["not_json", "truncated"]),
        (format!(r#"{{"Records":[{a}],"x":"#), "abc", vec![]),
        (format!(r#"{{"Records":[{a}],"x":1"#), "abc", vec!["not_json"]),
        (format!(r#"{{"Records":[{a}],"x":"open"#), "abc", vec!["not_json"]),
        (format!(r#"{{"Records":[{a}],"x":1 2}}"#), "abc", vec!["not_json"]),
        (format!(r#"{{"Records":[{a}]]}}"#), "abc", vec!["not_json", "not_json"]),
        (r#"{"Rec"#.to_owned(), "bc", vec!["not_json"]),
        (r#"{"v":1 2,"Records":[]}"#.to_owned(), "bc", vec!["not_json"]),
    ] {
        // The element after a missing value is read as that value; the next line shows the error.
        let swallowed = line.ends_with(r#""x":"#);
        let file = format!("{line}\n{{\"Records\":[{b}]}}\n{{\"Records\":[{c}]}}\n");
        let (found_ids, found_codes) = found(&file);
        if swallowed {
            assert_eq!((found_ids.as_str(), found_codes), ("ac", vec!["not_json"]), "{file}");
        } else {
            assert_eq!((found_ids.as_str(), found_codes), (ids, codes), "{file}");
        }
    }
}

#[test]
fn a_second_array_of_events_is_not_skipped_silently() {
    let (a, b) = (event("a"), event("b"));
    assert_eq!(found(&format!(r#"{{"Records":[{a}],"Records":[{b}]}}"#)), ("ab".to_owned(), vec!["duplicate_field"]));
    assert_eq!(found(&format!(r#"{{"Records":0,"Records":[{a}]}}"#)), (String::new(), vec!["duplicate_field"]));
}

#[test]
fn only_the_head_of_a_wrapper_must_be_small() {
    let (a, b) = (event("a"), event("b"));
    let long = "x".repeat(9_000);
    let events = vec![a.as_str(); 100].join(",");
    let tail = frame_records(&format!(r#"{{"Records":[{events}],"x":"{long}"}}{{"Records":[{b}]}}"#));
    assert_eq!((ids(&tail).len(), codes(&tail)), (101, vec![]));
    let wrapper = format!(r#"{{"x":"{long}","Records":[{a}]}}"#);
    let head = frame_records(&format!("{wrapper}\n{{\"Records\":[{b}]}}"));
    assert_eq!(head[0], Piece::Bad(0, wrapper.len() as u64 - a.len() as u64 - 2, "too_large"));
    assert_eq!((ids(&head), codes(&head)), (vec!["a", "b"], vec!["too_large", "not_json"]), "its events are found");
}

#[test]
fn a_state_within_a_wrapper_records_its_open_braces() {
    let format = wrapped_at("/a/b");
    let mut framer = Framer::new(LIMITS, 0, FramingState::default());
    framer.push(format!(r#"  {{"a":{{"b":[{}"#, event("a")).as_bytes());
    assert!(framer.next(&format).is_some());
    let (_, state) = framer.checkpoint().unwrap();
    let saved = serde_json::to_string(&FramingState { column: 0, ..state }).unwrap();
    assert_eq!(saved, r#"{"in_array":false,"after_value":true,"column":0,"wrapper":{"braces":2,"column":2}}"#);
    // Under other settings it is still closed as it began.
    let mut resumed = Framer::new(LIMITS, 0, state);
    resumed.push(format!("]}}, \"c\":[] }}\n{}", event("b")).as_bytes());
    resumed.finish();
    assert!(matches!(resumed.next(&EventFormat::default()), Some(Framed::Event { .. })));
}

proptest! {
    #[test]
    fn pieces_and_checkpoints_do_not_matter(
        file in prop::collection::vec(prop_oneof![
            3 => "[a-z]{1,3}".prop_map(|id| event(&id)),
            1 => "[a-z]{1,3}".prop_map(|id| pretty(&id)),
            1 => filler(),
            2 => Just("{\"Records\":[".to_owned()), 1 => Just("{\n \"v\":1, \"Records\" : [".to_owned()),
            2 => Just("]}".to_owned()), 1 => Just("],\"x\":{}}\n".to_owned()), 1 => Just("],\"x\":".to_owned()),
            1 => Just("\n{\"Records\":[".to_owned()), 1 => (1_usize..200).prop_map(nested),
            1 => Just("[".to_owned()), 1 => Just("]".to_owned()), 2 => Just(",".to_owned()),
            1 => "[\\[\\]{}\",:a0\\\\\n ]{0,12}",
            1 => "[a-z]{30,90}".prop_map(|text| text.repeat(60)),
        ], 0..14).prop_map(|parts| parts.concat()),
        pieces in prop::collection::vec(1_usize..60, 1..6),
    ) {
        let format = wrapped_at("/Records");
        let whole = frame_as(&format, file.as_bytes(), &[usize::MAX]);
        prop_assert_eq!(frame_as(&format, file.as_bytes(), &pieces), whole);
        resume_everywhere(&format, file.as_bytes());
    }

    #[test]
    fn all_events_of_all_wrappers_are_found(
        wrappers in prop::collection::vec((prop::collection::vec("[a-z]{1,4}", 0..5), filler(), any::<bool>()), 0..6),
        in_array in any::<bool>(),
    ) {
        let mut texts = Vec::new();
        for (ids, blank, tail) in &wrappers {
            let events: Vec<_> = ids.iter().map(|id| event(id)).collect();
            let tail = if *tail { r#", "Next": {"Records": [0, "]"]}"# } else { "" };
            texts.push(format!("{{{blank}\"Records\":[{}]{tail}}}{blank}", events.join(blank)).replace('\u{feff}', " "));
        }
        let file = if in_array { format!("[{}]", texts.join(",")) } else { texts.concat() };
        let found = frame_as(&wrapped_at("/Records"), file.as_bytes(), &[11]);
        let expected: Vec<&str> = wrappers.iter().flat_map(|(ids, _, _)| ids.iter().map(String::as_str)).collect();
        prop_assert_eq!((ids(&found), codes(&found)), (expected, vec![]), "{}", file);
    }

    #[test]
    fn any_bytes_are_framed_without_overlap_or_panic(
        file in prop::collection::vec(prop_oneof![4 => prop::sample::select(b"{}[]\",:\\ \nRecords".to_vec()), 1 => any::<u8>()], 0..300),
        in_wrapper in any::<bool>(),
        piece in 1_usize..50,
    ) {
        let head: &[u8] = if in_wrapper { b"{\"Records\":[" } else { b"" };
        let file = [head, &file].concat();
        let mut next = 0;
        for found in frame_as(&wrapped_at("/Records"), &file, &[piece]) {
            if let Piece::Bad(offset, length, _) = found {
                prop_assert!(offset >= next);
                next = offset + length;
            }
        }
        prop_assert!(next <= file.len() as u64);
    }
}
