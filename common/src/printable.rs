//! Makes foreign text safe to print: file names, event fields, messages of stores and brokers.
//!
//! A terminal obeys control characters, a log collector splits at line breaks, and characters that reverse or hide text
//! deceive a reader (CVE-2021-42574). This program prints none of them: each is shown as `\u{hex}`. The output
//! identifies the text unambiguously: a backslash before `u{` is shown as `\u{5c}`, and nothing else changes.

use std::borrow::Cow;
use std::fmt::{self, Display, Write};

use serde::Serialize;

/// Displays a text on one line.
#[derive(Debug, Clone, Copy)]
pub struct Printable<T>(pub T);

impl<T: Display> Display for Printable<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Pads to the width of the displayed text.
        formatter.pad(&escape(&self.0.to_string()))
    }
}

/// Whether a terminal obeys the character, or a reader cannot see it.
fn is_hidden(char: char) -> bool {
    char.is_control()
        || matches!(char,
            // Soft hyphen, Arabic letter mark, Mongolian vowel separator.
            '\u{ad}' | '\u{61c}' | '\u{180e}'
            // Zero width, marks of direction; line and paragraph separators, embeddings and overrides of direction.
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            // Word joiner, invisible operators, isolates, deprecated format characters.
            | '\u{2060}'..='\u{206f}'
            // Byte order mark, interlinear annotations, tags.
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The text on one line, with hidden characters escaped.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) && !text.contains("\\u{") {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for (index, char) in text.char_indices() {
        if is_hidden(char) || text[index..].starts_with("\\u{") {
            // Writing to a String cannot fail.
            let _ = write!(shown, "\\u{{{:x}}}", u32::from(char));
        } else {
            shown.push(char);
        }
    }
    Cow::Owned(shown)
}

/// Appends one line to a text for people. Line breaks within `words` are escaped.
pub fn push_line(text: &mut String, words: impl Display) {
    text.push_str(&escape(&words.to_string()));
    text.push('\n');
}

/// A text of several lines, each with hidden characters escaped.
pub fn lines(text: &str) -> String {
    text.split('\n').map(escape).collect::<Vec<_>>().join("\n")
}

/// A message of several lines, of which only the first begins at the margin. No line break in a foreign name can
/// produce a line that looks like one of the program's own.
pub fn message(text: &str) -> String {
    let mut lines = text.split('\n');
    let mut shown = escape(lines.next().unwrap_or_default()).into_owned();
    for line in lines {
        shown.push_str(if line.starts_with("  ") || line.is_empty() { "\n" } else { "\n  " });
        shown.push_str(&escape(line));
    }
    shown
}

/// A value as JSON on one line; hidden characters use JSON's own escapes.
///
/// # Errors
/// The value cannot be serialized as JSON.
pub fn json<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<String> {
    Ok(json_text(&serde_json::to_string(value)?).into_owned())
}

/// JSON text with hidden characters escaped. Whitespace between values stays.
pub fn json_text(json: &str) -> Cow<'_, str> {
    // Outside strings JSON is ASCII, and inside them it has no unescaped C0 characters.
    let hidden = |char: char| is_hidden(char) && char >= ' ';
    if !json.contains(hidden) {
        return Cow::Borrowed(json);
    }
    let mut shown = String::with_capacity(json.len() + 16);
    for char in json.chars() {
        if hidden(char) {
            for unit in char.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(char);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The only text that is displayed like this.
    fn read(shown: &str) -> String {
        let mut text = String::new();
        let mut rest = shown;
        while let Some(at) = rest.find("\\u{") {
            text.push_str(&rest[..at]);
            let (code, after) = rest[at + 3..].split_once('}').expect("an escape that ends");
            text.push(char::from_u32(u32::from_str_radix(code, 16).expect("hex")).expect("a character"));
            rest = after;
        }
        text + rest
    }

    /// Text with many hidden characters and look-alikes of escapes.
    fn hostile() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            any::<char>().prop_map(String::from),
            prop::char::range('\0', '\u{a0}').prop_map(String::from),
            prop::char::range('\u{2000}', '\u{2070}').prop_map(String::from),
            prop::char::range('\u{e0000}', '\u{e0080}').prop_map(String::from),
            prop::sample::select(vec![
                "\\", "\\\\", "\\u{", "u{", "{", "}", "\\u{1b}", "\u{1b}", "5c", "\r\n", "\u{feff}"
            ])
            .prop_map(str::to_owned),
        ];
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    #[test]
    fn control_and_hidden_characters_are_escaped() {
        for (text, shown) in [
            ("plain – ünïcode 日本 \u{1f600}", "plain – ünïcode 日本 \u{1f600}"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("a\r\nerror: none", "a\\u{d}\\u{a}error: none"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}"),
            ("invoice\u{202e}nosj.exe", "invoice\\u{202e}nosj.exe"),
            ("C:\\users\\new", "C:\\users\\new"),
            ("\\u{1b}", "\\u{5c}u{1b}"),
        ] {
            assert_eq!(escape(text), shown);
            assert_eq!(Printable(text).to_string(), shown);
        }
        assert_eq!(format!("{:>8}|", Printable("\u{1b}")), "  \\u{1b}|");
    }

    #[test]
    fn a_line_break_in_a_name_cannot_fake_a_line() {
        let reported = message("2 problems:\n  - x: 'a\nerror: b'\n\n- \u{1b}");
        assert_eq!(reported, "2 problems:\n  - x: 'a\n  error: b'\n\n  - \\u{1b}");
        let mut text = String::new();
        push_line(&mut text, format_args!("missing: {}", "a\nsound"));
        assert_eq!(text, "missing: a\\u{a}sound\n");
        assert_eq!(lines("a = 1\nb = '\u{85}'\n"), "a = 1\nb = '\\u{85}'\n");
    }

    proptest! {
        #[test]
        fn nothing_hidden_is_printed_and_the_output_is_unambiguous(text in hostile()) {
            let shown = escape(&text).into_owned();
            prop_assert!(!shown.contains(is_hidden), "{shown:?}");
            prop_assert_eq!(read(&shown), text);
        }

        #[test]
        fn escaped_json_has_the_same_value(text in hostile()) {
            let shown = json(&text).unwrap();
            prop_assert!(!shown.contains(is_hidden), "{shown:?}");
            prop_assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
        }

        #[test]
        fn only_the_first_line_of_a_message_begins_at_the_margin(text in hostile()) {
            let shown = message(&text);
            prop_assert!(!shown.contains(|char| is_hidden(char) && char != '\n'));
            prop_assert!(shown.split('\n').skip(1).all(|line| line.is_empty() || line.starts_with("  ")));
        }
    }
}
