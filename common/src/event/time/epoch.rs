//! Times written as a number of seconds, or fractions of a second, since the Unix epoch.

use super::TimestampError;
use crate::event::rule::TimestampFormat;

/// Units in a second, and the number of fraction digits permitted.
fn unit(format: &TimestampFormat) -> Option<(i128, TimestampError)> {
    match format {
        TimestampFormat::Rfc3339 | TimestampFormat::Pattern(_) => None,
        TimestampFormat::EpochS => Some((1, TimestampError::Epoch("seconds"))),
        TimestampFormat::EpochMs => Some((1_000, TimestampError::Epoch("milliseconds"))),
        TimestampFormat::EpochUs => Some((1_000_000, TimestampError::Epoch("microseconds"))),
        TimestampFormat::EpochNs => Some((1_000_000_000, TimestampError::Epoch("nanoseconds"))),
    }
}

/// Microseconds since the Unix epoch, rounded towards the past. Seconds may have a fraction; exponents are not
/// accepted.
///
/// # Errors
/// The text is not such a number, or its microseconds do not fit into 64 bits.
pub(in crate::event) fn parse_epoch(text: &str, format: &TimestampFormat) -> Result<i64, TimestampError> {
    let Some((per_second, wrong)) = unit(format) else { return Err(TimestampError::Form) };
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = match digits.split_once('.') {
        Some((whole, fraction)) if *format == TimestampFormat::EpochS && !fraction.is_empty() => (whole, fraction),
        Some(_) => return Err(wrong),
        None => (digits, ""),
    };
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) {
        return Err(wrong);
    }
    // 38 digits fit. More that do not overflow are leading zeros.
    let whole: i128 = whole.parse().map_err(|_| TimestampError::Range)?;
    let scaled = whole.checked_mul(1_000_000).ok_or(TimestampError::Range)?;
    let magnitude = scaled.checked_add(fraction_micros(fraction)).ok_or(TimestampError::Range)?;
    // Truncation makes a negative time earlier too.
    let beyond = negative && fraction.bytes().skip(6).any(|digit| digit != b'0');
    let signed = if negative { -magnitude - i128::from(beyond) } else { magnitude };
    i64::try_from(signed.div_euclid(per_second)).map_err(|_| TimestampError::Range)
}

/// The first six digits of a fraction.
fn fraction_micros(fraction: &str) -> i128 {
    fraction
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(6)
        .fold(0, |micros, digit| micros * 10 + i128::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::TimestampFormat::{EpochMs, EpochNs, EpochS, EpochUs};
    use super::*;

    #[test]
    fn numbers_are_cut_to_the_microsecond_before() {
        let cases = [
            ("1610619330", EpochS, 1_610_619_330_000_000),
            ("1610619330.5", EpochS, 1_610_619_330_500_000),
            ("1610619330.1234569", EpochS, 1_610_619_330_123_456),
            ("-0.5", EpochS, -500_000),
            ("-0.0000001", EpochS, -1),
            ("-1.0000000", EpochS, -1_000_000),
            ("1610619330123", EpochMs, 1_610_619_330_123_000),
            ("-1", EpochMs, -1_000),
            ("1610619330123456", EpochUs, 1_610_619_330_123_456),
            ("1610619330123456789", EpochNs, 1_610_619_330_123_456),
            ("-1", EpochNs, -1),
            ("-1000", EpochNs, -1),
            ("0", EpochNs, 0),
            ("007", EpochUs, 7),
            ("9223372036854775807", EpochUs, i64::MAX),
            ("-9223372036854775808", EpochUs, i64::MIN),
        ];
        for (text, format, micros) in cases {
            assert_eq!(parse_epoch(text, &format), Ok(micros), "{text} {format:?}");
        }
    }

    #[test]
    fn text_that_is_not_a_number_of_that_unit_is_refused() {
        for text in ["", "-", "1.", ".5", "1e3", "+1", " 1", "1 ", "0x1", "1.5", "--1", "１"] {
            assert_eq!(parse_epoch(text, &EpochMs), Err(TimestampError::Epoch("milliseconds")), "{text:?}");
        }
        for (text, format) in [
            ("9223372036854775808", EpochUs),
            ("9223372036854775", EpochS),
            ("99999999999999999999999999999999999999999999", EpochNs),
            ("170141183460469231731687303715884105727", EpochNs),
        ] {
            assert_eq!(parse_epoch(text, &format), Err(TimestampError::Range), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_unit_gives_the_same_instant(micros in any::<i64>()) {
            prop_assert_eq!(parse_epoch(&micros.to_string(), &EpochUs), Ok(micros));
            prop_assert_eq!(parse_epoch(&(i128::from(micros) * 1000 + 999).to_string(), &EpochNs), Ok(micros));
            let (sign, magnitude) = (if micros < 0 { "-" } else { "" }, micros.unsigned_abs());
            let seconds = format!("{sign}{}.{:06}", magnitude / 1_000_000, magnitude % 1_000_000);
            prop_assert_eq!(parse_epoch(&seconds, &EpochS), Ok(micros));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-0-9.e]{0,50}") {
            for format in [EpochS, EpochMs, EpochUs, EpochNs] {
                let _ = parse_epoch(&text, &format);
            }
        }
    }
}
