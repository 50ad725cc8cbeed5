//! Damage destroys only the damaged value, whatever the layout of the file.

use super::*;

const DAMAGED: usize = 61;

/// A file of these texts, in some layout.
type Layout = fn(&[String]) -> String;

const PLAIN: [(&str, Layout); 8] = [
    ("a line each", |texts| texts.join("\n")),
    ("lines that end with CR LF", |texts| texts.join("\r\n")),
    ("lines that end with CR", |texts| texts.join("\r")),
    ("concatenated", |texts| texts.concat()),
    ("an array on one line", |texts| format!("[{}]", texts.join(","))),
    ("an array over many lines", |texts| format!("[\n  {}\n]\n", texts.join(",\n  "))),
    ("RFC 7464", |texts| texts.iter().map(|text| format!("\u{1e}{text}\n")).collect()),
    ("RFC 7464 without line ends", |texts| texts.iter().map(|text| format!("\u{1e}{text}")).collect()),
];

const WRAPPED: [(&str, Layout); 5] = [
    ("a wrapper on one line", |texts| format!("{{\"v\":1,\"Records\":[{}],\"next\":{{}}}}", texts.join(","))),
    ("a wrapper over many lines", |texts| format!("{{\n  \"Records\": [\n    {}\n  ]\n}}\n", texts.join(",\n    "))),
    ("a wrapper for each two", |texts| two_each(texts, "")),
    ("a wrapper for each two on lines", |texts| two_each(texts, "\n")),
    ("an array of wrappers", |texts| format!("[{}]", two_each(texts, ","))),
];

fn two_each(texts: &[String], separator: &str) -> String {
    let wrappers: Vec<_> = texts.chunks(2).map(|texts| format!("{{\"Records\":[{}]}}", texts.join(","))).collect();
    wrappers.join(separator)
}

fn found_in(format: &EventFormat, file: &str) -> Vec<Piece> {
    let found = frame_as(format, file.as_bytes(), &[usize::MAX]);
    assert_eq!(frame_as(format, file.as_bytes(), &[7, 64]), found, "{file}");
    found
}

fn bytes_of(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|piece| if let Piece::Bad(_, length, _) = piece { *length } else { 0 }).sum()
}

#[test]
fn an_event_that_is_cut_anywhere_destroys_only_itself() {
    let names: Vec<String> = (0..6).map(|index| format!("e{index}")).collect();
    let expected: Vec<_> = names.iter().enumerate().filter(|(index, _)| *index != 2).map(|(_, name)| &**name).collect();
    for (layouts, wrapped) in [(PLAIN.as_slice(), false), (WRAPPED.as_slice(), true)] {
        let format = if wrapped { records::wrapped_at("/Records") } else { EventFormat::default() };
        for (layout, file_of) in layouts {
            for write in [event, |id: &str| pretty(id).trim_end().to_owned()] {
                let whole = write("e2");
                for end in 1..whole.len() {
                    let mut texts: Vec<_> = names.iter().map(|name| write(name)).collect();
                    whole[..end].clone_into(&mut texts[2]);
                    let file = file_of(&texts);
                    let found = found_in(&format, &file);
                    assert_eq!(ids(&found), expected, "{layout}: {file}");
                    assert!(bytes_of(&found) <= (end + DAMAGED) as u64, "{layout}: {file} {found:?}");
                }
            }
        }
    }
}

#[test]
fn one_event_cut_in_the_middle_is_one_dead_letter_up_to_the_next_event() {
    let texts: Vec<String> = (0..2_000).map(|index| event(&format!("e{index}"))).collect();
    for (layout, file_of) in PLAIN {
        let mut texts = texts.clone();
        texts[1].truncate(50);
        let found = found_in(&EventFormat::default(), &file_of(&texts));
        assert_eq!((ids(&found).len(), codes(&found).len()), (1_999, 1), "{layout}");
        assert!((50..60).contains(&bytes_of(&found)), "{layout}: {}", bytes_of(&found));
    }
}

#[test]
fn events_in_the_data_of_a_whole_event_are_not_read() {
    let inner = event("inner");
    let outer = event("outer").replace("[1,", &format!("[{inner},"));
    let cut = &event("cut")[..60];
    for file in [
        outer.clone(),
        format!("{cut}{outer}{}", event("x")),
        format!("[{cut},{outer},{}]", event("x")),
        format!("[{cut},\"{{\",{outer},{}]", event("x")),
        format!("{cut}\r{outer}\r{}", event("x")),
        format!("\"{{\"a\":[{outer},{cut}{}", event("x")),
    ] {
        let found = found_in(&EventFormat::default(), &file);
        assert!(ids(&found).starts_with(&["outer"]) && !ids(&found).contains(&"inner"), "{file}: {found:?}");
    }
}

#[test]
fn a_whole_value_that_is_not_an_event_is_one_piece_outside_wrappers() {
    let inner = event("inner");
    let value = format!("{{\"payload\":{inner}}}");
    for file in [format!("{value}\n{}", event("a")), format!("[{value},{}]", event("a"))] {
        let found = found_in(&EventFormat::default(), &file);
        assert_eq!((ids(&found), codes(&found)), (vec!["a"], vec!["missing_field"]), "{file}");
        assert_eq!(bytes_of(&found), value.len() as u64);
    }
}

#[test]
fn an_element_completed_by_the_end_of_its_wrapper_does_not_hide_the_others() {
    let [a, b, c, d] = ["a", "b", "c", "d"].map(event);
    for file in [
        format!("{{\"Records\":[{a},{{\"tags\":[1,{b},{c}]}}{{\"Records\":[{d}]}}"),
        format!("{{\"Records\":[{a},{{\"tags\":[1,{b},{c}]}}\n{{\"Records\":[{d}]}}"),
        format!("{{\"Records\":[{a},{{\"Records\":[{b},{c}]}}{{\"Records\":[{d}]}}"),
        format!("{{\"Records\":[{a}{{\"Records\":[{b},{c}]}}{{\"Records\":[{d}]}}"),
    ] {
        let found = found_in(&records::wrapped_at("/Records"), &file);
        assert_eq!(ids(&found), ["a", "b", "c", "d"], "{file}: {found:?}");
    }
}

#[test]
fn a_wrapper_whose_head_or_tail_is_broken_keeps_its_events() {
    let [a, b, c] = ["a", "b", "c"].map(event);
    for file in [
        format!("{{\"v\":1 2,\"Records\":[{a},{b}]}}{{\"Records\":[{c}]}}"),
        format!("ords\":[{a},{b}]}}\n{{\"Records\":[{c}]}}"),
        format!("{{\"Records\":[{a},]oops,{b}]}}{{\"Records\":[{c}]}}"),
        format!("{{\"Records\":[{a}],{b},{c}]}}"),
        format!("{{\"Records\":[{a},]}},{b},{c}]}}"),
        format!("{{\"Records\":[{a},],\",{b},{c}],\"next\":{{}}}}"),
    ] {
        let found = found_in(&records::wrapped_at("/Records"), &file);
        assert_eq!(ids(&found), ["a", "b", "c"], "{file}: {found:?}");
    }
}

#[test]
fn a_record_separator_starts_afresh() {
    let [a, b, c] = ["a", "b", "c"].map(event);
    for (file, expected) in [
        (format!("\u{1e}{a}\n\u{1e}{b}\n\u{1e}{c}\n"), vec![]),
        (format!("\u{1e}\u{1e}{a}\u{1e}\n[{b}]\u{1e}{c}"), vec![]),
        (format!("\u{1e}{a}\u{1e}\"open\u{1e}{b}\u{1e}[[\u{1e}{c}"), vec!["not_json", "not_json", "truncated"]),
        (format!("\u{1e}[{a},{b}\u{1e}{c}"), vec!["truncated"]),
        (format!("\u{1e}{a}\u{1e}{{}}\u{1e}{{\"a\":[\"{{\u{1e}{b}\u{1e}{c}"), vec!["missing_field", "truncated"]),
    ] {
        let found = found_in(&EventFormat::default(), &file);
        assert_eq!((ids(&found), codes(&found)), (vec!["a", "b", "c"], expected), "{file:?}");
    }
    let wrapped = format!("\u{1e}{{\"Records\":[{a}\u{1e}{{\"Records\":[{b}],\"x\":\u{1e}{{\"Records\":[{c}]}}");
    let found = found_in(&records::wrapped_at("/Records"), &wrapped);
    assert_eq!((ids(&found), codes(&found)), (vec!["a", "b", "c"], vec!["truncated", "not_json"]));
}

#[test]
fn a_carriage_return_alone_ends_a_line() {
    let (a, b) = (event("a"), event("b"));
    for broken in ["nonsense", "{\"event_id\": \"unterminated", "{\"a\": [1, {\"b\": 2]", "\"text {"] {
        let found = found_in(&EventFormat::default(), &format!("{a}\r{broken}\r{b}\r"));
        assert_eq!((ids(&found), codes(&found).len()), (vec!["a", "b"], 1), "{broken}");
        assert!(bytes_of(&found) <= broken.len() as u64 + 1, "{broken}");
    }
}

#[test]
fn events_within_and_after_a_value_that_is_too_large_are_found() {
    let many: Vec<_> = (0..200).map(|index| event(&format!("e{index}"))).collect();
    let expected: Vec<_> = (0..200).map(|index| format!("e{index}")).collect();
    let long = "x".repeat(LIMITS.max_event_bytes * 3);
    for file in [
        // Cut off within an array, so that the rest of the file seems to be in it.
        format!("[{{\"event_id\":\"x\",\"data\":[1,{}]", many.join(",")),
        format!("{{\"Records\":[{}]}}", many.join(",")),
        format!("{{\"event_id\":\"{long}{}", many.concat()),
        format!("{{\"event_id\":\"x\",\"data\":\"{long}\"}}{}", many.concat()),
        format!("[{{\"a\":\"{long}\",{{,{}]", many.join(",")),
    ] {
        let found = found_in(&EventFormat::default(), &file);
        assert_eq!(ids(&found), expected, "{}", &file[..60]);
        resume_everywhere(&EventFormat::default(), file.as_bytes());
    }
}

#[test]
fn a_candidate_that_stays_open_for_long_gives_way_in_bounded_memory() {
    let limits = Limits { max_event_bytes: 10_000, bad_head_bytes: 64 };
    let format = EventFormat::default();
    for part in ["{\"a\":[\"xxxxxxxxxx\",", "{\"a\":\"xxxxxxxxxxxxxxxxxxx\\\"", "[\"x\",{\"", "x{\"a\":[{},"] {
        let mut framer = Framer::new(limits, 0, FramingState::default());
        let (mut largest, mut bad) = (0, 0);
        for piece in part.repeat(2_000_000 / part.len()).as_bytes().chunks(1_000) {
            framer.push(piece);
            largest = largest.max(framer.buffer.len());
            while framer.next(&format).is_some() {
                bad += 1;
            }
        }
        framer.finish();
        while framer.next(&format).is_some() {
            bad += 1;
        }
        assert!(bad > 0 && largest <= 2 * limits.max_event_bytes * 9 / 8 + 1_000, "{part}: {largest}");
    }
}

/// Text between two valid events: the beginning of one, or noise.
fn damage() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => (1..event("cut").len()).prop_map(|end| event("cut")[..end].to_owned()),
        1 => (1..pretty("cut").trim_end().len()).prop_map(|end| pretty("cut")[..end].to_owned()),
        // Brackets that close an object could complete a cut-off value together with the bytes after it.
        2 => "[\\[\\]{\",a0\\\\\n\r ]{1,12}",
        1 => Just("\0\0\u{feff}".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_valid_event_is_found_whatever_is_damaged_between(
        damages in prop::collection::vec(prop::collection::vec(damage(), 0..3), 1..8),
        spread in any::<bool>(),
    ) {
        let mut texts = Vec::new();
        let mut expected = Vec::new();
        for (index, damages) in damages.iter().enumerate() {
            texts.extend(damages.iter().map(|damage| damage.as_str().to_owned()));
            expected.push(format!("e{index}"));
            let id = format!("e{index}");
            texts.push(if spread { pretty(&id).trim_end().to_owned() } else { event(&id) });
        }
        for (layouts, wrapped) in [(PLAIN.as_slice(), false), (WRAPPED.as_slice(), true)] {
            let format = if wrapped { records::wrapped_at("/Records") } else { EventFormat::default() };
            for (layout, file_of) in layouts {
                let file = file_of(&texts);
                let found = frame_as(&format, file.as_bytes(), &[97]);
                prop_assert_eq!(ids(&found), expected.clone(), "{}: {}", layout, file);
            }
        }
    }
}
