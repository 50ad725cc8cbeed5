//! Time is linear for every input: counted in bytes scanned.

use super::model::SCANS;
use super::*;

fn looked_at(format: &EventFormat, limits: Limits, file: &[u8], piece: usize) -> u64 {
    let mut framer = Framer::new(limits, 0, FramingState::default());
    for piece in file.chunks(piece.max(1)) {
        framer.push(piece);
        while framer.next(format).is_some() {}
    }
    framer.finish();
    while framer.next(format).is_some() {}
    framer.bytes_looked_at()
}

/// An event with every required field, of which one is invalid: only reading the fields shows it.
fn almost(data: &str) -> String {
    format!(r#"{{"event_id":"","timestamp":"2021-01-14T10:15:30","domain":"d","event_type":"t","data":{data}"#)
}

fn hostile() -> Vec<String> {
    let [a, cut] = [event("a"), event("cut")[..60].to_owned()];
    let mut parts: Vec<String> = [
        "{}",
        "[",
        "{",
        "}",
        "]",
        "[{",
        "{\"a\":",
        "{\"a\":[",
        "{\"a\":{},",
        "{\"a\":[{},",
        "\"{\"",
        "\"",
        "\\",
        "\\\"",
        "\0",
        ",",
        ",,",
        "\r",
        "\n",
        "\r\n",
        "\u{1e}",
        "\u{feff}",
        "x",
        "x\n",
        "{\n",
        "{\"a\":\n",
        "{\"a\":[\n",
        "\"{\"a\":\"",
        "{\"{",
        "{\"a\":\"{",
        "1",
        "-",
        "{\"a\":1",
        "[]",
        "[[]",
        "{\"a\":[1,",
        "\"{\\\"a\\\":[",
        "{\"a\":\"\\",
        "{\"a\":{\"a\":1}",
        "{\"Records\":[",
        "{\"Records\":[{",
        "{\"Records\":[{}],",
        "],\"x\":[",
        "{\"Records\":0,\"Records\":[",
        "{\"Records\":{\"Records\":",
        "{\"a\":1,\"Records\":[{}]}",
        "]}",
        "],\"x\":",
        "\u{fc}",
        "{\"\u{fc}\":",
    ]
    .map(str::to_owned)
    .to_vec();
    parts.extend([
        a.clone(),
        cut.clone(),
        format!("{{\"a\":[{a},"),
        format!("{{\"a\":[\n{a},\n"),
        format!("\"{{\"a\":[{a},"),
        format!("{{{a}"),
        format!("{cut}{a}"),
        almost("["),
        almost("{\"a\":"),
        almost(""),
        almost("1}"),
        format!("{{\"Records\":[{a},"),
        format!("{{\"Records\":[{a}],\"x\":[{a}],"),
        format!("],\"x\":[{a}"),
        format!("{{\"x\":{{\"Records\":[{cut},"),
    ]);
    parts
}

fn small(max_event_bytes: usize) -> Limits {
    Limits { max_event_bytes, bad_head_bytes: 64 }
}

#[test]
fn repeated_parts_of_every_kind_take_linear_time() {
    for wrapped in [false, true] {
        let format = if wrapped { records::wrapped_at("/Records") } else { EventFormat::default() };
        for part in hostile() {
            for (begin, end) in
                [("", ""), ("[", ""), ("{\"Records\":[", "]}"), ("{\"a\":\"", "\"}"), (&almost("["), "]}")]
            {
                let file = format!("{begin}{}{end}", part.repeat(12_000 / part.len() + 1));
                for (limits, piece) in [
                    (small(1_000_000), usize::MAX),
                    (small(1_000_000), 700),
                    (small(3_000), 333),
                    (small(3_000), usize::MAX),
                ] {
                    let looked_at = looked_at(&format, limits, file.as_bytes(), piece);
                    let most = SCANS * (file.len() as u64 + 100);
                    assert!(
                        looked_at <= most,
                        "{} scans a byte at {begin}({part})*{end} in pieces of {piece}, {limits:?}",
                        looked_at / file.len() as u64
                    );
                }
            }
        }
    }
}

#[test]
fn nested_values_that_are_almost_events_take_linear_time() {
    let format = EventFormat::default();
    for filler in [0, 500] {
        let filler = "x".repeat(filler);
        let open = almost(&format!("{{\"f\":\"{filler}\",\"d\":")).repeat(60);
        let file = format!("{{ {open}1{}", "}}".repeat(60)).repeat(4);
        for piece in [usize::MAX, 100] {
            let looked_at = looked_at(&format, small(1_000_000), file.as_bytes(), piece);
            assert!(looked_at <= SCANS * file.len() as u64, "{} scans a byte", looked_at / file.len() as u64);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_mixture_takes_linear_time(
        mixture in prop::collection::vec((prop::sample::select(hostile()), 1_usize..60), 1..12),
        repeats in 1_usize..20,
        wrapped in any::<bool>(),
        max_event_bytes in prop::sample::select(vec![200_usize, 3_000, 1_000_000]),
        piece in prop::sample::select(vec![1_usize, 17, 333, 5_000, usize::MAX]),
    ) {
        let format = if wrapped { records::wrapped_at("/Records") } else { EventFormat::default() };
        let file: String = mixture.iter().map(|(part, times)| part.repeat(*times)).collect();
        let file = file.repeat(repeats);
        let file = &file.as_bytes()[..file.len().min(60_000)];
        let looked_at = looked_at(&format, small(max_event_bytes), file, piece);
        prop_assert!(looked_at <= SCANS * (file.len() as u64 + 100), "{} scans a byte", looked_at / file.len() as u64);
    }
}
