//! Compares the framer with the model of its rule.

use super::super::model::model;
use super::*;

/// Parts of files, whole and broken, in every order.
fn part() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[a-z]{1,3}".prop_map(|id| event(&id)),
        1 => "[a-z]{1,3}".prop_map(|id| pretty(&id)),
        3 => ("[a-z]{1,3}", 1_usize..140).prop_map(|(id, end)| event(&id).chars().take(end).collect()),
        1 => ("[a-z]{1,3}", 1_usize..140).prop_map(|(id, end)| pretty(&id).chars().take(end).collect()),
        2 => ("[a-z]{1,3}", 1_usize..140).prop_map(|(id, begin)| event(&id).chars().skip(begin).collect()),
        1 => "[a-z]{1,3}".prop_map(|id| event(&id).replace("[1,", &format!("[{},", event("nested")))),
        1 => "[a-z]{1,3}".prop_map(|id| event(&id).replace("\"domain\":\"d\"", "\"domain\":\"\"")),
        1 => (1_usize..200).prop_map(nested),
        2 => prop::sample::select(vec![
            "[", "]", ",", ":", "{", "}", "\"", "\\", "\n", "\r", "\r\n", "\u{1e}", "\u{feff}", " ", "\0", "]}", "{\"a\":", "{\"a\":[",
            "{\"a\":[1,", "{}", "[]", "}}", "],\"x\":{}}\n", "],\"x\":", "{\"Records\":[", "\n{\"Records\":[", "{\n \"v\":1, \"Records\" : [",
            "{\"Records\":0,", "{\"Records\":{\"Records\":[", "1", "nul", "1e", "-",
        ]).prop_map(str::to_owned),
        2 => "[\\[\\]{}\",:a0\\\\\n ]{0,12}",
        1 => "[a-z]{30,90}".prop_map(|text| text.repeat(60)),
    ]
    .prop_map(String::into_bytes)
    .prop_flat_map(|text| {
        let length = text.len();
        prop_oneof![
            9 => Just(text.clone()),
            1 => (0..=length, any::<u8>()).prop_map(move |(at, byte)| {
                let mut damaged = text.clone();
                damaged.insert(at, byte);
                damaged
            }),
        ]
    })
}

pub(super) fn file() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(part(), 0..14).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_framer_does_what_the_rule_says(
        file in file(),
        wrapped in any::<bool>(),
        pieces in prop::collection::vec(1_usize..300, 1..6),
    ) {
        let format = if wrapped { records::wrapped_at("/Records") } else { EventFormat::default() };
        let expected = model(&format, LIMITS, &file);
        prop_assert_eq!(&frame_as(&format, &file, &[usize::MAX]), &expected);
        prop_assert_eq!(&frame_as(&format, &file, &pieces), &expected);
        resume_everywhere(&format, &file);
    }
}
