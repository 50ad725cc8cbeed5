//! Strings (RFC 8259, section 7): where one ends, and its meaning.

use std::borrow::Cow;

use super::ScanError;

const EACH: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// Non-zero if one of eight bytes is a quotation mark, a backslash or a control character; the lowest bit set is the
/// high bit of the first such byte.
///
/// With one bit of each byte flipped, the quotation mark (0x22) is directly above the control characters, so one
/// comparison finds both. The subtractions borrow from the byte above only where a byte matches, so only bits above the
/// first match can be wrong (Mycroft's test for a zero byte).
#[inline(always)]
fn special(bytes: [u8; 8]) -> u64 {
    let word = u64::from_le_bytes(bytes);
    let quote_or_control = (word ^ (EACH * 0x02)).wrapping_sub(EACH * 0x21);
    let backslash = (word ^ (EACH * 0x5c)).wrapping_sub(EACH);
    (quote_or_control | backslash) & !word & HIGH_BITS
}

/// Returns the first byte from `at` that is not plain text, or the end of the bytes.
///
/// Checks sixteen bytes before the first branch: most keys and many values end within them, and a branch that always
/// goes the same way costs nothing.
#[inline(always)]
fn skip_plain(bytes: &[u8], mut at: usize) -> usize {
    let (chunks, _) = bytes.get(at..).unwrap_or_default().as_chunks::<16>();
    for [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7] in chunks {
        let first = special([*a0, *a1, *a2, *a3, *a4, *a5, *a6, *a7]);
        let second = special([*b0, *b1, *b2, *b3, *b4, *b5, *b6, *b7]);
        if first | second != 0 {
            let index = if first != 0 { first.trailing_zeros() } else { second.trailing_zeros() + 64 };
            return at + (index / 8) as usize;
        }
        at += 16;
    }
    while let Some(byte) = bytes.get(at) {
        if matches!(byte, b'"' | b'\\' | 0..=0x1f) {
            break;
        }
        at += 1;
    }
    at
}

/// A string's closing quotation mark, and whether there are escapes before it.
#[derive(Clone, Copy)]
pub(super) struct StringEnd {
    pub quote: usize,
    pub escaped: bool,
}

/// Returns the end of the string whose first character is at `at`. Sets `surrogates` if there are escapes of surrogates
/// before it, paired or lone.
#[inline(always)]
pub(super) fn end_of_string(bytes: &[u8], at: usize, surrogates: &mut bool) -> Result<StringEnd, ScanError> {
    let quote = skip_plain(bytes, at);
    if bytes.get(quote) == Some(&b'"') {
        return Ok(StringEnd { quote, escaped: false });
    }
    end_of_odd_string(bytes, quote, surrogates)
}

/// As [`end_of_string`], from the first character that is not plain.
fn end_of_odd_string(bytes: &[u8], mut at: usize, surrogates: &mut bool) -> Result<StringEnd, ScanError> {
    loop {
        at = skip_plain(bytes, at);
        match bytes.get(at) {
            Some(b'"') => return Ok(StringEnd { quote: at, escaped: true }),
            Some(b'\\') => {
                let end = end_of_escape(bytes, at)?;
                *surrogates |= is_surrogate(bytes.get(at..end).unwrap_or_default());
                at = end;
            }
            Some(_) => return Err(ScanError::syntax(at, "a control character in a string")),
            None => return Err(ScanError::eof(bytes)),
        }
    }
}

/// Returns the byte after the escape that begins at `at` with a backslash.
fn end_of_escape(bytes: &[u8], at: usize) -> Result<usize, ScanError> {
    match bytes.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => {
            let digits = (at + 2)..(at + 6);
            match digits.clone().find(|at| !bytes.get(*at).is_some_and(u8::is_ascii_hexdigit)) {
                Some(at) => Err(ScanError::at(bytes, at, "a hexadecimal digit is missing after \\u")),
                None => Ok(digits.end),
            }
        }
        _ => Err(ScanError::at(bytes, at + 1, "an escape that JSON has not")),
    }
}

/// Whether an escape is of a surrogate: `\ud800` to `\udfff`.
#[inline]
fn is_surrogate(escape: &[u8]) -> bool {
    matches!(escape, [b'\\', b'u', b'd' | b'D', b'8'..=b'9' | b'a'..=b'f' | b'A'..=b'F', ..])
}

/// The text of a string, given the bytes between its quotation marks: valid for the scanner, and UTF-8. `None` if it
/// contains a lone surrogate, which no text can represent.
pub fn unescape(inner: &str) -> Option<Cow<'_, str>> {
    let Some(first) = inner.find('\\') else { return Some(Cow::Borrowed(inner)) };
    let mut text = String::with_capacity(inner.len());
    text.push_str(&inner[..first]);
    let mut characters = inner[first..].chars();
    while let Some(character) = characters.next() {
        text.push(if character == '\\' { unescape_one(&mut characters)? } else { character });
    }
    Some(Cow::Owned(text))
}

fn unescape_one(characters: &mut std::str::Chars<'_>) -> Option<char> {
    Some(match characters.next()? {
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => unescape_unit(characters)?,
        other => other,
    })
}

/// The character of `\u` and one or two times four digits (RFC 8259: UTF-16 code units).
fn unescape_unit(characters: &mut std::str::Chars<'_>) -> Option<char> {
    let first = code_unit(characters)?;
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(first);
    }
    if characters.next()? != '\\' || characters.next()? != 'u' {
        return None;
    }
    let second = code_unit(characters)?;
    let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
    char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + low)
}

fn code_unit(characters: &mut std::str::Chars<'_>) -> Option<u32> {
    (0..4).try_fold(0, |unit, _| Some(unit * 16 + characters.next()?.to_digit(16)?))
}

/// Whether a key written as `raw`, possibly with escapes, means `key`.
pub fn key_means(raw: &[u8], key: &str) -> bool {
    std::str::from_utf8(raw).is_ok_and(|raw| unescape(raw).is_some_and(|text| text == key))
}
