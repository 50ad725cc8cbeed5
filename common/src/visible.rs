//! Foreign text for terminals and log lines.

/// Names, fields and settings come from others. What would steer a terminal or break a line, or cannot be seen, is escaped:
/// control characters, ESC, marks of writing direction. Quotes and backslashes are not, for the sake of JSON.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '"' | '\'' | '\\' => visible.push(char),
            char => visible.extend(char.escape_debug()),
        }
    }
    visible
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_steers_a_terminal_is_escaped_and_nothing_else() {
        let foreign = "a\u{1b}[2J\n\u{9b}\u{202e}\u{200b}b";
        assert_eq!(visible(foreign), "a\\u{1b}[2J\\n\\u{9b}\\u{202e}\\u{200b}b");
        let plain = "{\"a\": 'é ü 日本 \\n'}";
        assert_eq!(visible(plain), plain);
    }

    proptest! {
        #[test]
        fn no_control_character_is_left(text in any::<String>()) {
            prop_assert!(!visible(&text).contains(char::is_control));
        }
    }
}
