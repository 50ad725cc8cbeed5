//! Escapes of lone surrogates in JSON text.
//!
//! A JSON string is a sequence of UTF-16 code units if it is written with `\u` escapes. RFC 8259, section 8.2, permits
//! a lone half of a surrogate pair (`"\ud83d"`: JavaScript cuts strings so). No UTF-8 text has such a character.
//! Parsers that check for it (yyjson, and with it DuckDB) refuse the whole value, so one such value fails a query over
//! many.

use std::borrow::Cow;

/// The replacement of a lone surrogate: U+FFFD, in as many bytes.
const REPLACEMENT: &str = "\\ufffd";

/// The positions of lone surrogates' escapes, in order.
struct LoneSurrogates<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Iterator for LoneSurrogates<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        loop {
            let at = self.at + memchr::memchr(b'\\', self.bytes.get(self.at..)?)?;
            match code_unit(self.bytes, at) {
                Some(0xd800..=0xdbff) if matches!(code_unit(self.bytes, at + 6), Some(0xdc00..=0xdfff)) => {
                    self.at = at + 12;
                }
                Some(0xd800..=0xdfff) => {
                    self.at = at + 6;
                    return Some(at);
                }
                Some(_) => self.at = at + 6,
                // Skips an escaped backslash too.
                None => self.at = at + 2,
            }
        }
    }
}

/// The code unit of the `\u` escape at `at`, if there is one.
fn code_unit(bytes: &[u8], at: usize) -> Option<u32> {
    let [b'\\', b'u', digits @ ..] = bytes.get(at..at + 6)? else { return None };
    digits.iter().try_fold(0, |unit, digit| Some(unit * 16 + char::from(*digit).to_digit(16)?))
}

fn lone_surrogates(json: &str) -> LoneSurrogates<'_> {
    LoneSurrogates { bytes: json.as_bytes(), at: 0 }
}

/// Whether a string or key in `json`, which is valid JSON text, contains a lone surrogate.
pub fn has_lone_surrogate(json: &str) -> bool {
    lone_surrogates(json).next().is_some()
}

/// Replaces the escape of each lone surrogate by `\ufffd`. The length and everything else stay unchanged. `json` is
/// valid JSON text. Borrowed if nothing is replaced.
pub fn replace_lone_surrogates(json: &str) -> Cow<'_, str> {
    let mut text = String::new();
    let mut done = 0;
    for at in lone_surrogates(json) {
        text.reserve_exact(if done == 0 { json.len() } else { 0 });
        text.push_str(&json[done..at]);
        text.push_str(REPLACEMENT);
        done = at + REPLACEMENT.len();
    }
    if done == 0 {
        return Cow::Borrowed(json);
    }
    text.push_str(&json[done..]);
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json::{FieldPaths, MAX_DEPTH, Spans, scan};

    #[test]
    fn lone_halves_are_replaced_and_everything_else_is_unchanged() {
        for (text, expected) in [
            (r#""\ud83d""#, r#""\ufffd""#),
            (r#""\uDE00""#, r#""\ufffd""#),
            (r#""\uD83D\uDE00""#, r#""\uD83D\uDE00""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""\ud83d\ude00\ude00""#, r#""\ud83d\ude00\ufffd""#),
            (r#""\ude00\ud83d""#, r#""\ufffd\ufffd""#),
            (r#""\ud83d\n\ude00""#, r#""\ufffd\n\ufffd""#),
            (r#""\ud83dx\ude00""#, r#""\ufffdx\ufffd""#),
            (r#""\ud83d\u0041""#, r#""\ufffd\u0041""#),
            (r#""\\ud83d""#, r#""\\ud83d""#),
            (r#""\\\ud83d""#, r#""\\\ufffd""#),
            (r#""\\\\ud83d""#, r#""\\\\ud83d""#),
            (r#""\ud7ff\ue000\u0000""#, r#""\ud7ff\ue000\u0000""#),
            (r#"{"\udBfF":["\uDc00","ü"], "b" : 1.50}"#, r#"{"\ufffd":["\ufffd","ü"], "b" : 1.50}"#),
            (r#"{"a":"ud83d"}"#, r#"{"a":"ud83d"}"#),
            ("17", "17"),
        ] {
            assert_eq!(replace_lone_surrogates(text), expected, "{text}");
            assert_eq!(has_lone_surrogate(text), text != expected, "{text}");
            assert_eq!(matches!(replace_lone_surrogates(text), Cow::Borrowed(_)), text == expected, "{text}");
        }
    }

    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            "\\\\u[dD][89abAB][0-9a-fA-F]{2}",
            "\\\\u[dD][c-fC-F][0-9a-fA-F]{2}",
            "\\\\u[0-9a-fA-F]{4}",
            Just("\\\\".to_owned()),
            "\\\\[\"/bfnrt]",
            "[a-z0-9ü😀 ]{0,3}",
        ]
    }

    proptest! {
        /// serde_json refuses lone surrogates wherever it decodes a string.
        #[test]
        fn exactly_the_unreadable_escapes_are_replaced(pieces in prop::collection::vec(piece(), 0..12), is_key in any::<bool>()) {
            let string = format!("\"{}\"", pieces.concat());
            let text = if is_key { format!("{{{string}:1}}") } else { format!("[{string}]") };
            let replaced = replace_lone_surrogates(&text);
            prop_assert_eq!(replaced.len(), text.len());
            prop_assert!(serde_json::from_str::<serde_json::Value>(&replaced).is_ok(), "{}", replaced);
            let is_sound = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            prop_assert_eq!(has_lone_surrogate(&text), !is_sound, "{}", text);
            prop_assert_eq!(replaced == text, is_sound);
            prop_assert_eq!(&*replace_lone_surrogates(&replaced), &*replaced);
            let mut spans = Spans::default();
            prop_assert_eq!(scan(text.as_bytes(), &FieldPaths::default(), MAX_DEPTH, &mut spans).ok(), Some(text.len()));
            prop_assert!(spans.has_surrogates() || is_sound, "the scan has seen it");
        }

        #[test]
        fn no_text_makes_it_panic(text in "[\\\\udcDC8f😀ü]{0,40}") {
            prop_assert_eq!(replace_lone_surrogates(&text).len(), text.len());
        }
    }
}
