//! Compares the scout with scans from each place.

use common::event::{PRESETS, TimeRule};
use common::json::{Opened, Pointer, ScanErrorKind};
use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { max_event_bytes: 60, bad_head_bytes: 0 };

fn formats() -> Vec<EventFormat> {
    let rules = |depth: usize, id: &str, data: &str| {
        let mut rules = PRESETS[0].rules();
        rules.max_depth = depth;
        for field in [Field::EventId, Field::Domain, Field::EventType, Field::Timestamp] {
            rules.set(field, id.to_owned());
        }
        rules.set(Field::Data, data.to_owned());
        rules.timestamp_format = common::event::TimestampFormat::EpochS;
        rules
    };
    let records = |text| Pointer::parse(text).ok();
    [
        (rules(4, "/a", "/a"), None),
        (rules(3, "/a", ""), records("/b")),
        (rules(5, "/a/b", ""), records("/a/b")),
        (rules(5, "template:{/a/0/b}", "/b"), records("/a/a/a")),
    ]
    .into_iter()
    .map(|(rules, records)| EventFormat::new(&rules, TimeRule::utc(), records.as_ref()).unwrap())
    .collect()
}

/// The places of whole values, events, and heads, by a scan from each `{`.
fn scanned(text: &[u8], format: &EventFormat) -> [Vec<u64>; 3] {
    let mut found = [Vec::new(), Vec::new(), Vec::new()];
    for at in (0..text.len()).filter(|at| text[*at] == b'{') {
        let window = &text[at..text.len().min(at + LIMITS.max_event_bytes)];
        let mut spans = Spans::default();
        let scanned = format.scan(window, &mut spans);
        let is_event = scanned.is_ok_and(|end| format.read(&window[..end], &spans).is_ok());
        let is_value = match scanned {
            Ok(_) => true,
            Err(error) => matches!(error.kind, ScanErrorKind::Duplicate { .. }),
        };
        let is_head = matches!(format.scan_to_records(window), Ok(Opened::Array { .. }));
        for (places, is_one) in found.iter_mut().zip([is_value, is_event, is_head && format.records().is_some()]) {
            places.extend(is_one.then_some(at as u64));
        }
    }
    found
}

fn scouted(text: &[u8], format: &EventFormat, from: u64, steps: &[usize]) -> [Vec<u64>; 3] {
    let mut scout = Scout::new(from, &LIMITS, format);
    let view = View { bytes: text, base: 0 };
    let mut steps = steps.iter().cycle();
    while scout.frontier() < view.end() {
        let to = scout.frontier() + *steps.next().unwrap() as u64;
        scout.scan(view, to.min(view.end()), format);
    }
    scout.finish();
    let Verdicts { values, events, heads } = &scout.verdicts;
    [values, events, heads].map(|places| (from..view.end()).filter(|place| places.has(*place)).collect())
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    let tokens = [
        "{",
        "{",
        "{",
        "}",
        "}",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "\"a\":",
        "\"b\":",
        "{\"a\":",
        "\"a\":{\"b\":",
        "\"a\":\"1\"",
        "\"\\u0061\":",
        "1",
        "-1.5e3",
        "01",
        "tru",
        "null",
        "\"1\"",
        "\"x\"",
        "\\",
        "\\\"",
        "\\u00",
        "\n",
        "\r",
        " ",
        "\u{fc}",
        "\0",
        "{\"a\":1}",
        "{\"a\":{\"b\":1}}",
        "{\"b\":[",
        "{\"a\":[{\"b\":1}],\"b\":2}",
        "{\"a\":{\"b\":[",
        "\"{\"",
        "{\"x\":{",
        "\"b\":[{}]",
    ];
    let token = prop_oneof![
        30 => prop::sample::select(tokens.to_vec()).prop_map(|token| token.as_bytes().to_vec()),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
        1 => Just(vec![b'1'; 30]),
    ];
    prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn its_verdicts_equal_those_of_a_scan_from_each_place(
        text in text(),
        format in 0..4_usize,
        from in 0_usize..60,
        steps in prop::collection::vec(1_usize..40, 1..4),
    ) {
        let format = &formats()[format];
        let from = from.min(text.len()) as u64;
        let expected = scanned(&text, format).map(|places| places.into_iter().filter(|place| *place >= from).collect::<Vec<_>>());
        prop_assert_eq!(scouted(&text, format, from, &steps), expected);
    }
}

#[test]
fn open_values_are_not_decided() {
    let format = EventFormat::default();
    let text = br#" {"a":[{"b":1},{"c":"{"#;
    let view = View { bytes: text, base: 0 };
    let mut scout = Scout::new(0, &LIMITS, &format);
    while scout.frontier() < view.end() {
        scout.scan(view, view.end(), &format);
    }
    assert_eq!((scout.decided(), scout.is_value(7), scout.is_value(15)), (1, true, false));
    scout.retire(2);
    assert_eq!(scout.decided(), 15);
    scout.retire(16);
    assert_eq!(scout.decided(), 21, "the brace in the string");
    scout.finish();
    assert_eq!(scout.decided(), view.end());
}
