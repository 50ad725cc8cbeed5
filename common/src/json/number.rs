//! Numbers and literals (RFC 8259, sections 3 and 6).

use super::ScanError;

const NUMBER: &str = "a digit is missing in a number";

#[inline(always)]
fn skip_digits(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b'0'..=b'9') = bytes.get(at) {
        at += 1;
    }
    at
}

/// At least one digit.
#[inline(always)]
fn some_digits(bytes: &[u8], at: usize) -> Result<usize, ScanError> {
    let end = skip_digits(bytes, at);
    if end == at { Err(ScanError::at(bytes, at, NUMBER)) } else { Ok(end) }
}

/// The end of the number that begins at `at` with a digit or a minus sign.
#[inline]
pub(super) fn end_of_number(bytes: &[u8], at: usize) -> Result<usize, ScanError> {
    let first = if bytes.get(at) == Some(&b'-') { at + 1 } else { at };
    let mut at = match bytes.get(first) {
        // A zero cannot be followed by digits: they are not part of the number.
        Some(b'0') => first + 1,
        _ => some_digits(bytes, first)?,
    };
    if bytes.get(at) == Some(&b'.') {
        at = some_digits(bytes, at + 1)?;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        at = some_digits(bytes, at + 1 + sign)?;
    }
    Ok(at)
}

/// The end of `true`, `false` or `null`, whichever begins at `at`.
#[inline]
pub(super) fn end_of_literal(bytes: &[u8], at: usize, literal: &'static [u8]) -> Result<usize, ScanError> {
    let end = at + literal.len();
    if bytes.get(at..end) == Some(literal) {
        return Ok(end);
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let same = rest.iter().zip(literal).take_while(|(left, right)| left == right).count();
    Err(ScanError::at(bytes, at + same, "a word that is none of true, false and null"))
}
