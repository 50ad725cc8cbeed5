use proptest::prelude::*;
use serde::de::IgnoredAny;

use super::*;

/// The end of the value, or the error.
fn end(bytes: &[u8]) -> Result<usize, ScanError> {
    scan(bytes, &FieldPaths::default(), MAX_DEPTH, &mut Spans::default())
}

/// The texts of the values at some pointers, in their order.
fn values<'a>(text: &'a str, pointers: &[&str]) -> Result<Vec<Option<&'a str>>, ScanError> {
    let mut paths = FieldPaths::default();
    let slots: Vec<_> = pointers.iter().map(|text| paths.add(&Pointer::parse(text).unwrap()).unwrap()).collect();
    let mut spans = Spans::default();
    scan(text.as_bytes(), &paths, 128, &mut spans)?;
    Ok(slots.iter().map(|slot| spans.get(*slot).map(|span| &text[span.start..span.end])).collect())
}

#[test]
fn all_of_rfc_8259_is_accepted_to_its_last_byte() {
    for text in [
        "0",
        "-0",
        "-0.0e-0",
        "123.456E+789",
        "true",
        "false",
        "null",
        r#""""#,
        r#""\"\\\/\b\f\n\r\t\u00e9\uD83d\uDE00""#,
        r#""\ud800 alone, \uDC00 too""#,
        "\"long enough for the fast path ä 😀 \u{7f} and an end\"",
        "[]",
        "[ ]",
        "{}",
        "{ \n\r\t}",
        r#"[1,[2,{"a":[]}],"x"]"#,
        r#"{"a":{"a":1,"a":2},"":0}"#,
    ] {
        assert_eq!(end(text.as_bytes()), Ok(text.len()), "{text}");
        let padded = format!(" \n{text} ,");
        assert_eq!(end(padded.as_bytes()), Ok(text.len() + 2), "{text}");
    }
}

#[test]
fn everything_else_is_refused_where_it_goes_wrong() {
    for (text, at) in [
        ("01", 1),
        ("-", 1),
        ("-a", 1),
        ("1.", 2),
        ("1.e5", 2),
        ("1e", 2),
        ("1e+", 3),
        (".5", 0),
        ("+1", 0),
        ("tru", 3),
        ("truth", 3),
        ("nul ", 3),
        ("NaN", 0),
        ("\"\u{1f}\"", 1),
        ("\"a long plain string, then\nbroken\"", 26),
        (r#""\x""#, 2),
        (r#""\u12g4""#, 5),
        (r#""\u12"#, 5),
        (r#""open"#, 5),
        (r#""\"#, 2),
        ("[1,]", 3),
        ("[,1]", 1),
        ("[1 2]", 3),
        ("[1}", 2),
        (r#"{"a":1,}"#, 7),
        (r#"{"a" 1}"#, 5),
        (r#"{"a":}"#, 5),
        (r#"{"a":1 "b":2}"#, 7),
        (r#"{"a":1]"#, 6),
        ("{1:2}", 1),
        ("{", 1),
        ("", 0),
        ("  ", 2),
        ("\u{a0}1", 0),
        ("'a'", 0),
    ] {
        let found = end(text.as_bytes());
        // A leading zero ends the number; the caller judges the bytes after it.
        let expected = if text == "01" { found.ok() } else { found.err().map(|error| error.at) };
        assert_eq!(expected, Some(at), "{text}");
        let is_eof = matches!(found, Err(ScanError { kind: ScanErrorKind::Eof, .. }));
        assert_eq!(is_eof, at == text.len(), "{text}: {found:?}");
    }
}

#[test]
fn depth_is_limited_exactly_and_costs_no_stack() {
    let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
    for limit in [1, 2, 63, 64, 65, 128, 1023, 1024] {
        let scan = |depth| scan(&nested(depth), &FieldPaths::default(), limit, &mut Spans::default());
        assert_eq!(scan(limit), Ok(limit * 2));
        assert_eq!(scan(limit + 1), Err(ScanError { at: limit, kind: ScanErrorKind::TooDeep }));
    }
    assert!(matches!(end(&vec![b'['; 1_000_000]), Err(ScanError { kind: ScanErrorKind::TooDeep, .. })));
    let mixed = r#"{"a":[{"b":[[{"c":{}}]]}]}"#.to_owned();
    assert_eq!(end(mixed.as_bytes()), Ok(mixed.len()));
    let wrong = mixed.replace("}}]]", "}]]]");
    assert_eq!(end(wrong.as_bytes()).err().map(|error| error.at), Some(20));
}

#[test]
fn values_are_found_by_pointer() {
    let text = r#" {"a": {"b": [10, {"c": "x"}, []], "b~/": -1.5 }, "d" : null, "0": true, "": 7}"#;
    let pointers =
        ["", "/a/b/1/c", "/a/b/0", "/a/b", "/a/b~0~1", "/d", "/0", "/", "/a/b/2", "/a/x", "/a/b/3", "/a/b/00"];
    let whole = text.trim();
    assert_eq!(
        values(text, &pointers),
        Ok(vec![
            Some(whole),
            Some("\"x\""),
            Some("10"),
            Some(r#"[10, {"c": "x"}, []]"#),
            Some("-1.5"),
            Some("null"),
            Some("true"),
            Some("7"),
            Some("[]"),
            None,
            None,
            None,
        ])
    );
    assert_eq!(values("[1,[2]]", &["/1/0", "/0", "/-"]), Ok(vec![Some("2"), Some("1"), None]));
    assert_eq!(values("17", &["", "/a"]), Ok(vec![Some("17"), None]));
    assert_eq!(values(r#"{"a":5}"#, &["/a/b"]), Ok(vec![None]));
    assert_eq!(values(r#"{"x":{"a":5}}"#, &["/a"]), Ok(vec![None]), "only at its own depth");
}

#[test]
fn a_key_matches_however_it_is_written() {
    for key in [r"event_id", r"\u0065vent_id", r"event\u005fid", r"\u0065\u0076\u0065\u006E\u0074\u005F\u0069\u0064"] {
        assert_eq!(values(&format!(r#"{{"{key}":1}}"#), &["/event_id"]), Ok(vec![Some("1")]), "{key}");
    }
    assert_eq!(values(r#"{"\ud83d\ude00":1,"\ud83d":2}"#, &["/😀"]), Ok(vec![Some("1")]));
    assert_eq!(values(r#"{"event_idx":1,"event_i":2}"#, &["/event_id"]), Ok(vec![None]));
    assert_eq!(values(r#"{"12345678a":1,"12345678b":2}"#, &["/12345678b"]), Ok(vec![Some("2")]));
    assert_eq!(values(r#"{"a":1}"#, &["/a"]), Ok(vec![Some("1")]), "also at the very end of the bytes");
}

#[test]
fn only_a_wanted_key_that_occurs_twice_is_an_error() {
    let duplicate = |text: &str, pointers: &[&str]| match values(text, pointers) {
        Err(ScanError { at, kind: ScanErrorKind::Duplicate { slot, end } }) => {
            assert_eq!(end, text.len());
            Some((slot, at))
        }
        Ok(_) => None,
        Err(error) => panic!("{text}: {error}"),
    };
    assert_eq!(duplicate(r#"{"a":1,"a":2}"#, &["/b", "/a"]), Some((1, 7)));
    assert_eq!(duplicate(r#"{"a":1,"\u0061":{"b":3}}"#, &["/a/b"]), Some((0, 7)));
    assert_eq!(duplicate(r#"{"a":{"b":1,"b":2},"a":3}"#, &["/a/b"]), Some((0, 12)));
    assert_eq!(duplicate(r#"{"a":[{"b":1},{"b":2}]}"#, &["/a/0/b", "/a/1/b"]), None);
    assert_eq!(duplicate(r#"{"x":1,"x":2,"y":{"a":1,"a":1},"a":0}"#, &["/a"]), None);
    assert!(matches!(values(r#"{"a":1,"a":2"#, &["/a"]), Err(ScanError { kind: ScanErrorKind::Eof, .. })));
}

#[test]
fn an_array_is_found_without_reading_past_its_bracket() {
    let find = |text: &str, pointer: &str| {
        let mut paths = FieldPaths::default();
        paths.add_through_objects(&Pointer::parse(pointer).unwrap()).unwrap();
        find_array(text.as_bytes(), &paths, 128)
    };
    assert_eq!(find(r#"{"v":1,"Records":[rubbish"#, "/Records"), Ok(Opened::Array { after: 18 }));
    assert_eq!(find(r#"{"a":{"x":[1],"b":[ ]}}"#, "/a/b"), Ok(Opened::Array { after: 19 }));
    assert_eq!(find(r#"{"Records":{"Records":[]}} "#, "/Records"), Ok(Opened::None { end: 26 }));
    assert_eq!(find(r#"{"0":[{"1":[5]}]}"#, "/0/0"), Ok(Opened::None { end: 17 }), "only through objects");
    assert!(find(r#"{"Records":"#, "/Records").is_err());
    assert!(matches!(
        find(r#"{"Records":1,"Records":[]}"#, "/Records"),
        Err(ScanError { kind: ScanErrorKind::Duplicate { end: 26, .. }, .. })
    ));
}

#[test]
fn pointers_are_those_of_rfc_6901() {
    let segments = |text: &str| Pointer::parse(text).map(|pointer| pointer.segments().to_vec());
    assert_eq!(segments(""), Ok(vec![]));
    assert_eq!(segments("/"), Ok(vec![String::new()]));
    assert_eq!(segments("/a~1b/m~0n/~01"), Ok(vec!["a/b".to_owned(), "m~n".to_owned(), "~1".to_owned()]));
    for wrong in ["a", "#/a", "/a~", "/a~2", &"/a".repeat(17)] {
        assert!(segments(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn only_so_many_values_can_be_wanted() {
    let mut paths = FieldPaths::default();
    for index in 0..MAX_SLOTS {
        let pointer = Pointer::parse(&format!("/a/{index}")).unwrap();
        assert_eq!((paths.add(&pointer), paths.add(&pointer)), (Ok(index), Ok(index)));
    }
    assert!(paths.add(&Pointer::parse("/b").unwrap()).is_err());
    let mut paths = FieldPaths::default();
    let long = |first: char| Pointer::parse(&format!("/{first}{}", "/x".repeat(15))).unwrap();
    assert!(['a', 'b', 'c'].map(long).iter().all(|pointer| paths.add(pointer).is_ok()));
    assert!(paths.add(&long('d')).is_err());
}

#[test]
fn strings_mean_what_they_say() {
    assert_eq!(unescape(r"a\u0062\n\/\ud83d\ude00ä").as_deref(), Some("ab\n/😀ä"));
    for half in [r"\ud800", r"\udc00", r"\ud800x", r"\ud800\n", r"\ud800\ud800"] {
        assert_eq!(unescape(half), None, "{half}");
    }
}

/// JSON of every kind, with whitespace.
fn json() -> impl Strategy<Value = String> {
    let blank = prop::sample::select(vec!["", " ", "\n", "\t\r "]);
    let string = prop_oneof![
        "[a-z ]{0,20}".prop_map(|text| format!("\"{text}\"")),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap_or_default()),
        prop::sample::select(vec![r#""\ud800""#, r#""\u00e9\"\\\/""#, "\"\"", "\"a\"", "\"b\""])
            .prop_map(str::to_owned),
    ];
    let leaf = prop_oneof![
        2 => string.clone(),
        1 => prop::sample::select(vec!["true", "false", "null", "0", "-0.5e-7", "12e+3"]).prop_map(str::to_owned),
        1 => any::<i64>().prop_map(|number| number.to_string()),
        1 => any::<f64>().prop_map(|number| format!("{number:e}")).prop_filter("no number", |text| !text.contains(['N', 'i'])),
    ];
    (leaf, blank.clone()).prop_map(|(leaf, blank)| format!("{blank}{leaf}{blank}")).prop_recursive(
        6,
        64,
        6,
        move |inner| {
            let member = (string.clone(), inner.clone()).prop_map(|(key, value)| format!("{key}:{value}"));
            prop_oneof![
                prop::collection::vec(inner, 0..6).prop_map(|values| format!("[{}]", values.join(","))),
                prop::collection::vec(member, 0..6).prop_map(|members| format!("{{{}}}", members.join(","))),
            ]
        },
    )
}

/// JSON with a few bytes changed, inserted or cut off.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![prop::sample::select(b"{}[]\",:\\u0e-+. \n\x1ftfn".to_vec()), any::<u8>()];
    let edit = (any::<prop::sample::Index>(), byte, 0..3_u8);
    (json(), prop::collection::vec(edit, 0..4)).prop_map(|(text, edits)| {
        let mut bytes = text.into_bytes();
        for (index, byte, kind) in edits {
            let at = index.index(bytes.len() + 1);
            match kind {
                0 => bytes.insert(at, byte),
                1 if at < bytes.len() => bytes[at] = byte,
                _ => bytes.truncate(at),
            }
        }
        bytes
    })
}

/// The end of the first value, if it is valid, according to serde_json.
fn reference(bytes: &[u8]) -> Option<usize> {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<IgnoredAny>();
    values.next()?.ok().map(|_| values.byte_offset())
}

fn judge(bytes: &[u8]) -> Result<(), TestCaseError> {
    let ours = end(bytes);
    let whole = ours.is_ok_and(|end| skip_blanks(bytes, end) == bytes.len());
    prop_assert_eq!(whole, serde_json::from_slice::<IgnoredAny>(bytes).is_ok(), "{:?}", String::from_utf8_lossy(bytes));
    // The stream refuses a number or word with text after it, which the scanner's caller judges.
    if bytes.get(skip_blanks(bytes, 0)).is_none_or(|byte| b"{[\"".contains(byte)) {
        prop_assert_eq!(ours.ok(), reference(bytes), "{:?}", String::from_utf8_lossy(bytes));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn json_is_judged_as_an_independent_parser_judges_it(text in json()) {
        judge(text.as_bytes())?;
        prop_assert!(end(text.as_bytes()).is_ok());
    }

    #[test]
    fn the_beginning_of_a_valid_value_is_never_called_wrong(text in json(), cut in any::<prop::sample::Index>()) {
        let text = format!("[{text}]");
        let cut = cut.index(text.len());
        prop_assert_eq!(end(&text.as_bytes()[..cut]), Err(ScanError { at: cut, kind: ScanErrorKind::Eof }));
    }

    #[test]
    fn almost_json_is_judged_as_an_independent_parser_judges_it(bytes in mutated()) {
        judge(&bytes)?;
    }

    #[test]
    fn any_bytes_are_judged_as_an_independent_parser_judges_them(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        judge(&bytes)?;
    }

    #[test]
    fn almost_tokens_are_judged_as_an_independent_parser_judges_them(text in "[\\[{\"]?[-+0-9.eEtrufalsn\\\\\"\\]} ,:]{0,12}") {
        judge(text.as_bytes())?;
    }

    #[test]
    fn pointers_find_what_an_independent_parser_finds(text in json(), keys in prop::collection::vec(prop::sample::select(vec!["a", "b", "0", "1", "", "é\"\\/"]), 0..4)) {
        let pointer: String = keys.iter().map(|key| format!("/{}", key.replace('~', "~0").replace('/', "~1"))).collect();
        // The independent parser keeps the last of several members under one key.
        if let (Ok(found), Ok(value)) = (values(&text, &[&pointer]), serde_json::from_str::<serde_json::Value>(&text)) {
            let ours = found[0].map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap());
            prop_assert_eq!(ours.as_ref(), value.pointer(&pointer), "{} {}", text, pointer);
        }
    }

    #[test]
    fn strings_mean_what_an_independent_parser_says(inner in "(\\\\[\"\\\\/bfnrt]|\\\\u[0-9a-fA-F]{4}|\\\\u[dD][89a-fA-F][0-9a-f]{2}|[a-zé😀]){0,8}") {
        let theirs = serde_json::from_str::<String>(&format!("\"{inner}\"")).ok();
        prop_assert_eq!(unescape(&inner).map(std::borrow::Cow::into_owned), theirs);
    }
}
