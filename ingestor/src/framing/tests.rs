mod damage;
mod records;
mod rule;
mod time;

use proptest::prelude::*;

use super::model::{self, Piece};
use super::*;

const LIMITS: Limits = Limits { max_event_bytes: 4_000, bad_head_bytes: 64 };

fn frame_as(format: &EventFormat, file: &[u8], pieces: &[usize]) -> Vec<Piece> {
    model::frame(format, LIMITS, file, pieces).0
}

fn frame_in_pieces(file: &[u8], pieces: &[usize]) -> Vec<Piece> {
    frame_as(&EventFormat::default(), file, pieces)
}

/// Resumes from the checkpoint after each piece with a new framer: that must give the rest.
fn resume_everywhere(format: &EventFormat, file: &[u8]) {
    model::resume_everywhere(format, LIMITS, file, &frame_as(format, file, &[usize::MAX]));
}

fn frame(file: &str) -> Vec<Piece> {
    frame_in_pieces(file.as_bytes(), &[usize::MAX])
}

fn event(id: &str) -> String {
    format!(
        r#"{{"event_id":"{id}","timestamp":"2021-01-14T10:15:30","domain":"d","event_type":"t","data":{{"a":[1,{{}}],"s":"}}{{\"]["}}}}"#
    )
}

fn pretty(id: &str) -> String {
    event(id).replace("\",\"", "\",\n  \"").replacen('{', "{\n  ", 1) + "\n"
}

fn ids(pieces: &[Piece]) -> Vec<&str> {
    pieces.iter().filter_map(|piece| if let Piece::Event(_, id) = piece { Some(id.as_str()) } else { None }).collect()
}

fn codes(pieces: &[Piece]) -> Vec<&'static str> {
    pieces.iter().filter_map(|piece| if let Piece::Bad(_, _, code) = piece { Some(*code) } else { None }).collect()
}

#[test]
fn every_layout_is_detected_and_may_be_mixed() {
    let [a, b, c] = ["a", "b", "c"].map(event);
    let files = [
        format!("{a}\n{b}\n{c}\n"),
        format!("{a}\r\n{b}\r\n\r\n{c}   \n\n"),
        format!("{a}{b}{c}"),
        format!("\u{feff}{a}\n\u{feff}{b} {c}"),
        format!("[{a},{b},{c}]"),
        format!("[\n  {a},\n  {b}\n]\n{c}"),
        format!("[{a}][{b}]\n[]\n[ {c} ]"),
        format!("{}{}{}", pretty("a"), pretty("b"), pretty("c")),
        format!("{a},{b},\n{c}"),
        format!("{a}[{}]{}", pretty("b"), pretty("c")),
    ];
    for file in files {
        let pieces = frame(&file);
        assert_eq!((ids(&pieces), codes(&pieces)), (vec!["a", "b", "c"], vec![]), "{file}");
    }
    for empty in ["", "\n \r\n", "\u{feff}", "[]", "[ ]\n[]"] {
        assert_eq!(frame(empty), [], "{empty:?}");
    }
}

#[test]
fn offsets_are_those_of_the_file() {
    let (a, b) = (event("a"), event("b"));
    let pieces = frame(&format!(" {a}\n[{b}]"));
    assert_eq!(pieces, [Piece::Event(1, "a".into()), Piece::Event(a.len() as u64 + 3, "b".into())]);
}

#[test]
fn a_broken_line_destroys_only_itself() {
    let (a, b) = (event("a"), event("b"));
    let broken = [
        (r#"{"event_id": }"#, "not_json"),
        (r#"{"event_id": "x", "data": {"a": 1}"#, "truncated"),
        (r#"{"event_id": "unterminated"#, "truncated"),
        (r#"{"event_id": "x" "data": [1, 2}"#, "not_json"),
        (r#"{"event_id": 5}"#, "not_a_string"),
        ("{}", "missing_field"),
        ("[[1, 2]]", "not_an_object"),
        ("nonsense", "not_json"),
        ("17", "not_an_object"),
        ("\"text { with brackets\"", "not_an_object"),
        ("}", "not_json"),
    ];
    for (line, code) in broken {
        let pieces = frame(&format!("{a}\n{line}\n{b}\n"));
        assert_eq!(ids(&pieces), ["a", "b"], "{line}");
        assert_eq!(codes(&pieces).len(), 1, "{line}: {pieces:?}");
        // The last bytes of a cut-off line decide between "truncated" and "not JSON"; both are correct.
        assert!(
            codes(&pieces)[0] == code || (code == "truncated" && codes(&pieces)[0] == "not_json"),
            "{line}: {pieces:?}"
        );
    }
}

#[test]
fn a_broken_element_destroys_only_itself() {
    let (a, b) = (event("a"), event("b"));
    for broken in [r#"{"event_id": }"#, "7", "\"x\"", "[1,[2]]", "null", "{\"data\":\"]\"}"] {
        let pieces = frame(&format!("[{a},{broken},{b}]"));
        assert_eq!((ids(&pieces), codes(&pieces).len()), (vec!["a", "b"], 1), "{broken}: {pieces:?}");
    }
    let pieces = frame(&format!(
        "{}{{\n  \"event_id\": 1 2,\n  \"data\": {{\n    \"x\": 1\n  }}\n}}\n{}",
        pretty("a"),
        pretty("b")
    ));
    assert_eq!((ids(&pieces), codes(&pieces)), (vec!["a", "b"], vec!["not_json"]));
}

#[test]
fn a_file_cut_off_is_detected() {
    let (a, b) = (event("a"), event("b"));
    let pieces = frame(&format!("{a}\n{}", &b[..b.len() - 5]));
    assert_eq!((ids(&pieces), codes(&pieces)), (vec!["a"], vec!["truncated"]));
    let pieces = frame(&format!("[{a},{b},"));
    assert_eq!((ids(&pieces), codes(&pieces)), (vec!["a", "b"], vec!["truncated"]));
}

/// No byte is left for the letter, so its message has to show the fault.
#[test]
fn an_array_that_is_never_closed_is_named_at_its_end_after_its_events() {
    for (format, file) in [
        (EventFormat::default(), format!("[{},{},\n", event("a"), event("b"))),
        (records::wrapped_at("/Records"), format!("{{\"Records\":[{},{}\n", event("a"), event("b"))),
    ] {
        let mut framer = Framer::new(LIMITS, 0, FramingState::default());
        framer.push(file.as_bytes());
        framer.finish();
        let (mut events, mut problems) = (0, Vec::new());
        while let Some(framed) = framer.next(&format) {
            match framed {
                Framed::Event { .. } => events += 1,
                Framed::Bad { offset, problem, .. } => problems.push((offset, problem.to_string())),
            }
        }
        assert_eq!((events, problems.len(), problems[0].0), (2, 1, file.len() as u64), "{file}");
        assert!(problems[0].1.contains("the array around the events has no closing bracket"), "{problems:?}");
    }
}

#[test]
fn a_value_that_is_too_large_is_skipped_with_its_whole_length() {
    let (a, b) = (event("a"), event("b"));
    let large = format!(r#"{{"event_id":"x","data":"{}"}}"#, "}".repeat(9_000));
    for pieces in [vec![usize::MAX], vec![1_000], vec![7]] {
        for file in [format!("{a}\n{large}\n{b}"), format!("[{a},{large},{b}]")] {
            let found = frame_in_pieces(file.as_bytes(), &pieces);
            let expected =
                Piece::Bad(a.len() as u64 + 1 + u64::from(file.starts_with('[')), large.len() as u64, "too_large");
            assert_eq!((ids(&found), &found[1]), (vec!["a", "b"], &expected));
        }
    }
}

#[test]
fn it_resumes_from_a_checkpoint() {
    let file = format!("[{},{}]\n{}", event("a"), event("b"), event("c"));
    resume_everywhere(&EventFormat::default(), file.as_bytes());
}

#[test]
fn states_that_version_0_1_0_wrote_are_read() {
    let state: FramingState = serde_json::from_str(r#"{"in_array":true,"after_value":true,"column":7}"#).unwrap();
    assert_eq!(state, FramingState { in_array: true, after_value: true, column: 7, wrapper: None });
    assert_eq!(
        serde_json::to_string(&FramingState::default()).unwrap(),
        r#"{"in_array":false,"after_value":false,"column":0}"#
    );
}

fn nested(depth: usize) -> String {
    let data = format!("{}{}", "[".repeat(depth - 1), "]".repeat(depth - 1));
    format!(r#"{{"event_id":"n","timestamp":"2021-01-14T10:15:30","domain":"d","event_type":"t","data":{data}}}"#)
}

#[test]
fn a_value_nested_too_deeply_destroys_only_itself() {
    let (a, b) = (event("a"), event("b"));
    for (depth, expected) in
        [(128, None), (129, Some("too_deep")), (1_000, Some("too_deep")), (3_000, Some("too_large"))]
    {
        let deep = nested(depth);
        for file in [format!("{a}\n{deep}\n{b}"), format!("[{a},{deep},{b}]"), format!("{a}{deep}{b}")] {
            for piece in [usize::MAX, 100, 1] {
                let found = frame_in_pieces(file.as_bytes(), &[piece]);
                assert_eq!(codes(&found), expected.into_iter().collect::<Vec<_>>(), "{depth}");
                assert!(ids(&found).starts_with(&["a"]) && ids(&found).ends_with(&["b"]));
                if let Piece::Bad(_, length, _) = found[1] {
                    assert_eq!(length, deep.len() as u64);
                }
            }
        }
    }
}

#[test]
fn the_end_of_a_value_that_is_too_large_does_not_depend_on_pieces() {
    // Its lines begin like values of their own, so that its brackets and its lines indicate different ends.
    let large = format!("{{\"event_id\":\"x\",\"data\":[\n{}0]}}", "{\"k\":1},\n".repeat(700));
    let file = format!("{}\n{large}\n{}\n", event("a"), event("b"));
    let whole = frame(&file);
    assert_eq!(ids(&whole), ["a", "b"]);
    for piece in [1, 13, 1_000, 4_500] {
        assert_eq!(frame_in_pieces(file.as_bytes(), &[piece]), whole);
    }
}

#[test]
fn a_large_event_in_small_pieces_is_not_scanned_again_for_each() {
    const BYTES: usize = 900_000;
    let limits = Limits { max_event_bytes: 1_000_000, bad_head_bytes: 64 };
    let format = EventFormat::default();
    for (fill, bad) in [("1,", false), ("\"x\" 1", true)] {
        let text = nested(2).replacen("[]", &format!("[{}1]", fill.repeat(BYTES / fill.len())), 1);
        let mut framer = Framer::new(limits, 0, FramingState::default());
        let mut found = Vec::new();
        for piece in text.as_bytes().chunks(16).map(Some).chain([None]) {
            match piece {
                Some(piece) => framer.push(piece),
                None => framer.finish(),
            }
            while let Some(framed) = framer.next(&format) {
                found.push(matches!(framed, Framed::Bad { .. }));
            }
        }
        assert_eq!(found, [bad]);
        assert!(framer.bytes_looked_at() < 12 * BYTES as u64, "{} bytes", framer.bytes_looked_at());
    }
}

/// Separators and noise of every kind, and whether an event may follow directly.
fn filler() -> impl Strategy<Value = String> {
    prop_oneof![Just("\n".to_owned()), Just(String::new()), Just(" \r\n\t".to_owned()), Just("\u{feff}".to_owned()),]
}

proptest! {
    #[test]
    fn pieces_do_not_matter(
        file in prop::collection::vec(prop_oneof![
            3 => "[a-z]{1,3}".prop_map(|id| event(&id)),
            1 => "[a-z]{1,3}".prop_map(|id| pretty(&id)),
            2 => filler(),
            1 => (1_usize..200).prop_map(nested),
            1 => Just("[".to_owned()), 1 => Just("]".to_owned()), 1 => Just(",".to_owned()),
            1 => "[\\[\\]{}\",:a0\\\\\n ]{0,12}",
        ], 0..12).prop_map(|parts| parts.concat()),
        pieces in prop::collection::vec(1_usize..60, 1..6),
    ) {
        prop_assert_eq!(frame_in_pieces(file.as_bytes(), &pieces), frame(&file));
        resume_everywhere(&EventFormat::default(), file.as_bytes());
    }

    #[test]
    fn any_bytes_are_framed_in_order_without_overlap_or_panic(file in prop::collection::vec(any::<u8>(), 0..300), piece in 1_usize..50) {
        let mut next = 0;
        for found in frame_in_pieces(&file, &[piece]) {
            if let Piece::Bad(offset, length, _) = found {
                prop_assert!(offset >= next);
                next = offset + length;
            }
        }
        prop_assert!(next <= file.len() as u64);
    }

    #[test]
    fn events_between_separators_are_all_found(
        parts in prop::collection::vec(("[a-z]{1,6}", filler(), any::<bool>()), 0..20),
        in_array in any::<bool>(),
    ) {
        let mut file = String::new();
        for (index, (id, blank, spread)) in parts.iter().enumerate() {
            if index > 0 && in_array { file.push(','); }
            file.push_str(&if *spread { pretty(id) } else { event(id) });
            file.push_str(blank);
        }
        if in_array { file = format!("[{file}]"); }
        let found = frame(&file);
        let expected: Vec<&str> = parts.iter().map(|(id, _, _)| id.as_str()).collect();
        prop_assert_eq!(ids(&found), expected);
        prop_assert_eq!(codes(&found).len(), 0);
    }
}
