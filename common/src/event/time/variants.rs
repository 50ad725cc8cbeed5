//! Unambiguous forms of a time that databases, languages and ISO 8601 use besides RFC 3339.
//!
//! | part | forms |
//! |---|---|
//! | date | `2021-01-14`, `2021/01/14`, `20210114` |
//! | between | `T`, `t`, a space |
//! | time of day | `10:15:30`, `10:15`, `101530`, `1015`; `24:00` is the midnight that ends the day |
//! | fraction of a second | `.5`, `,5`, any number of digits |
//! | offset, also after a space | `Z`, `UTC`, `GMT`, `+01`, `+0100`, `+01:00`, `+01:00:00`, the minus sign U+2212; `+0000 UTC` as Go prints |
//! | zone in brackets (RFC 9557) | `[Europe/Berlin]`, which must have the offset, if there is one |

use super::calendar::days_in_month;
use super::{Moment, TimestampError};

/// Returns the time, and the zone in brackets after it.
///
/// # Errors
/// The error in the text.
pub(super) fn read(text: &str) -> Result<(Moment, Option<&str>), TimestampError> {
    if is_number(text) {
        return Err(TimestampError::Number);
    }
    let (rest, zone) = split_zone(text)?;
    let mut rest = Rest(rest.as_bytes());
    let (year, month, day) = rest.date().ok_or(TimestampError::Form)?;
    if rest.0.is_empty() {
        return Err(TimestampError::NoTime);
    }
    if !rest.take_any(b"Tt ") {
        return Err(TimestampError::Form);
    }
    let Time { hour, minute, second, micros, is_whole } = rest.time().ok_or(TimestampError::Form)?;
    let offset_seconds = rest.offset()?;
    let year = i32::try_from(year).map_err(|_| TimestampError::Form)?;
    if !(1..=12).contains(&month) || day == 0 || day > days_in_month(year, month) {
        return Err(TimestampError::NoSuchDay);
    }
    let is_midnight = minute == 0 && second == 0 && is_whole;
    if hour > 24 || (hour == 24 && !is_midnight) || minute > 59 || second > 60 {
        return Err(TimestampError::NoSuchTime);
    }
    let second_of_day = hour * 3600 + minute * 60 + second.min(59);
    Ok((Moment { year, month, day, second_of_day, micros, offset_seconds }, zone))
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    // Eight digits may be a date; the message then treats them as one.
    let is_date = digits.len() == text.len() && digits.len() == 8 && digits.starts_with(['1', '2']);
    !is_date
        && digits.starts_with(|first: char| first.is_ascii_digit())
        && digits.replacen('.', "", 1).bytes().all(|byte| byte.is_ascii_digit())
}

fn split_zone(text: &str) -> Result<(&str, Option<&str>), TimestampError> {
    let Some(inner) = text.strip_suffix(']') else { return Ok((text, None)) };
    let (rest, zone) = inner.split_once('[').ok_or(TimestampError::Form)?;
    Ok((rest, Some(zone.strip_prefix('!').unwrap_or(zone))))
}

struct Time {
    hour: u32,
    minute: u32,
    second: u32,
    micros: u32,
    /// All digits of the fraction are zero.
    is_whole: bool,
}

/// The bytes not yet read. Undefined after a `None`.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take(&mut self, text: &[u8]) -> bool {
        match self.0.strip_prefix(text) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn take_any(&mut self, bytes: &[u8]) -> bool {
        self.0.first().is_some_and(|first| bytes.contains(first) && self.take(&[*first]))
    }

    fn take_word(&mut self, word: &[u8]) -> bool {
        match self.0.split_at_checked(word.len()) {
            Some((head, rest)) if head.eq_ignore_ascii_case(word) => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn has_digit(&self) -> bool {
        self.0.first().is_some_and(u8::is_ascii_digit)
    }

    fn digit(&mut self) -> Option<u32> {
        let (first, rest) = self.0.split_first().filter(|(first, _)| first.is_ascii_digit())?;
        self.0 = rest;
        Some(u32::from(first - b'0'))
    }

    fn two_digits(&mut self) -> Option<u32> {
        Some(self.digit()? * 10 + self.digit()?)
    }

    fn date(&mut self) -> Option<(u32, u32, u32)> {
        let year = self.two_digits()? * 100 + self.two_digits()?;
        let separator: &[u8] = match self.0.first()? {
            b'-' => b"-",
            b'/' => b"/",
            _ => b"",
        };
        let month = if self.take(separator) { self.two_digits()? } else { return None };
        let day = if self.take(separator) { self.two_digits()? } else { return None };
        Some((year, month, day))
    }

    fn time(&mut self) -> Option<Time> {
        let hour = self.two_digits()?;
        let separator: &[u8] = if self.0.first() == Some(&b':') { b":" } else { b"" };
        self.take(separator);
        let mut time = Time { hour, minute: self.two_digits()?, second: 0, micros: 0, is_whole: true };
        let has_seconds = if separator.is_empty() { self.has_digit() } else { self.take(separator) };
        if has_seconds {
            time.second = self.two_digits()?;
            if self.take_any(b".,") {
                (time.micros, time.is_whole) = self.fraction()?;
            }
        }
        Some(time)
    }

    /// Microseconds, and whether all digits are zeros.
    fn fraction(&mut self) -> Option<(u32, bool)> {
        let mut micros = self.digit()? * 100_000;
        let mut is_whole = micros == 0;
        let mut unit = 10_000;
        while let Some(digit) = self.digit() {
            micros += digit * unit;
            unit /= 10;
            is_whole &= digit == 0;
        }
        Some((micros, is_whole))
    }

    /// Seconds east of UTC; `None` if nothing follows.
    fn offset(&mut self) -> Result<Option<i32>, TimestampError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        self.take(b" ");
        let seconds = if self.take_word(b"UTC") || self.take_word(b"GMT") || self.take_word(b"Z") {
            0
        } else {
            self.numeric_offset()?
        };
        if self.0.is_empty() { Ok(Some(seconds)) } else { Err(TimestampError::Form) }
    }

    fn numeric_offset(&mut self) -> Result<i32, TimestampError> {
        use TimestampError::{Form, NoSuchOffset, ZoneName};
        let sign = if self.take(b"+") {
            1
        } else if self.take(b"-") || self.take("\u{2212}".as_bytes()) {
            -1
        } else if self.0.first().is_some_and(u8::is_ascii_alphabetic) {
            return Err(ZoneName);
        } else {
            return Err(Form);
        };
        let hours = self.two_digits().ok_or(Form)?;
        let [mut minutes, mut seconds] = [0; 2];
        let separator: &[u8] = if self.0.first() == Some(&b':') { b":" } else { b"" };
        for part in [&mut minutes, &mut seconds] {
            let follows = if separator.is_empty() { self.has_digit() } else { self.take(separator) };
            if !follows {
                break;
            }
            *part = self.two_digits().ok_or(Form)?;
        }
        if hours > 23 || minutes > 59 || seconds > 59 {
            return Err(NoSuchOffset);
        }
        let offset = i32::try_from(hours * 3600 + minutes * 60 + seconds).map_err(|_| Form)?;
        if offset == 0 {
            // Go prints the offset and `UTC`.
            let _ = self.take_word(b" UTC");
        }
        Ok(sign * offset)
    }
}
