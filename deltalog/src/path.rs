//! How paths of files are written in actions: as RFC 2396 URIs, exactly as `new java.net.URI(null, null, path, null,
//! null).toString()` writes them.
//!
//! Readers decode every valid spelling. Spark's VACUUM however compares these texts with names that Java has encoded, and deletes
//! files that have another spelling.

use std::fmt::Write;

/// Encodes the path of a file, relative to the table's root.
pub fn encode_path(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for character in path.chars() {
        if is_raw(character) {
            encoded.push(character);
            continue;
        }
        for byte in character.encode_utf8(&mut [0; 4]).bytes() {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Java's "unreserved", "punct" and `/`, and its "other": whatever is not ASCII, not a space and not a control character.
fn is_raw(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_alphanumeric() || "-_.!~*'():@&=+$,;/".contains(character);
    }
    !character.is_whitespace() && !character.is_control()
}

/// Decodes the path of an action. `None`: a `%` without two hexadecimal digits, or bytes that are not UTF-8.
pub fn decode_path(encoded: &str) -> Option<String> {
    let (mut bytes, mut decoded) = (encoded.bytes(), Vec::with_capacity(encoded.len()));
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let (high, low) = (hex_digit(bytes.next()?)?, hex_digit(bytes.next()?)?);
            decoded.push(high << 4 | low);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The right column was printed by Java.
    #[test]
    fn paths_are_written_as_java_writes_them() {
        for (path, expected) in [
            ("domain_event_type=a-b/year=2021/t-0-0-1.parquet", "domain_event_type=a-b/year=2021/t-0-0-1.parquet"),
            ("domain_event_type=a%2Fb-x", "domain_event_type=a%252Fb-x"),
            ("x y", "x%20y"),
            ("\u{e9} x", "\u{e9}%20x"),
            ("a\u{a0}b\u{2028}c\u{85}d", "a%C2%A0b%E2%80%A8c%C2%85d"),
            ("p+q=r&s?#-z", "p+q=r&s%3F%23-z"),
            ("'\"[]{}|\\^`<>", "'%22%5B%5D%7B%7D%7C%5C%5E%60%3C%3E"),
            ("-_.!~*'():@&=+$,;", "-_.!~*'():@&=+$,;"),
        ] {
            assert_eq!(encode_path(path), expected);
        }
    }

    #[test]
    fn what_is_not_an_encoding_is_refused() {
        for text in ["%", "%2", "%zz", "a%+1b", "%ff"] {
            assert_eq!(decode_path(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_path_can_be_read_back(path in any::<String>()) {
            prop_assert_eq!(decode_path(&encode_path(&path)), Some(path));
        }
    }
}
