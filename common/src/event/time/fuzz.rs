//! The input is a time, or a line with a pattern and then a time.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "an oracle reports a failure by a panic")]

use std::sync::LazyLock;

use jiff::fmt::strtime::{self, BrokenDownTime};
use jiff::tz::Offset;

use super::*;
use crate::event::TimestampFormat;

const ZONE: &str = "Europe/Berlin";
static BERLIN: LazyLock<TimeRule> = LazyLock::new(|| TimeRule::named(ZONE).unwrap());
/// With units per second.
const EPOCHS: [(TimestampFormat, i128); 4] = [
    (TimestampFormat::EpochS, 1),
    (TimestampFormat::EpochMs, 1_000),
    (TimestampFormat::EpochUs, 1_000_000),
    (TimestampFormat::EpochNs, 1_000_000_000),
];

/// A time that jiff also reads is the same moment, and a valid RFC 3339 time is read. A moment survives formatting and
/// parsing. The fast and the thorough reading agree. A number is exact in its unit. A time read by a pattern survives
/// formatting and parsing by that pattern.
pub fn timestamp(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match text.split_once('\n') {
        Some((pattern, text)) => by_pattern(pattern, text),
        None => {
            written(text);
            EPOCHS.iter().for_each(|(format, per_second)| counted(text, format, *per_second));
        }
    }
}

fn written(text: &str) {
    let ours = TimeRule::utc().parse(text);
    if let Some(moment) = rfc3339::read(text.as_bytes()) {
        assert_eq!(variants::read(text), Ok((moment, None)), "fast and thorough");
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        let theirs = timestamp.as_nanosecond().div_euclid(1_000);
        assert!(!is_rfc_3339(text) || ours.is_ok(), "{ours:?}");
        assert!(ours.is_err() || ours.map(i128::from) == Ok(theirs), "{ours:?}, not {theirs}");
    }
    let Ok((moment, zone)) = variants::read(text) else {
        assert!(ours.is_err());
        return;
    };
    let local = BERLIN.parse(text);
    if moment.offset_seconds.is_some() || zone.is_some() {
        assert_eq!(local, ours);
    } else if let Ok(civil) = text.parse::<DateTime>() {
        let theirs = civil.in_tz(ZONE).ok().map(|zoned| zoned.timestamp().as_nanosecond().div_euclid(1_000));
        assert_eq!(local.ok().map(i128::from), theirs);
    }
    [ours, local].into_iter().flatten().for_each(printed);
}

/// A moment survives formatting and parsing.
fn printed(micros: i64) {
    let Ok(timestamp) = Timestamp::from_microsecond(micros) else { return };
    let date = timestamp.to_zoned(TimeZone::UTC).date();
    let Civil { year, month, day } = civil_from_micros(micros);
    assert_eq!(
        (year, u32::from(month), u32::from(day)),
        (date.year().into(), date.month().unsigned_abs().into(), date.day().unsigned_abs().into())
    );
    let text = timestamp.to_string();
    if !text.starts_with('-') {
        assert_eq!(TimeRule::utc().parse(&text), Ok(micros), "{text}");
    }
}

/// RFC 3339 in the narrow sense: `T`, seconds, an offset of less than a day.
fn is_rfc_3339(text: &str) -> bool {
    let shape: String = text.chars().map(|char| if char.is_ascii_digit() { '0' } else { char }).collect();
    let Some(rest) = shape.strip_prefix("0000-00-00T00:00:00") else { return false };
    let rest = match rest.strip_prefix(".0") {
        Some(fraction) => fraction.trim_start_matches('0'),
        None => rest,
    };
    rest == "Z" || (matches!(rest, "+00:00" | "-00:00") && &text[text.len() - 5..text.len() - 3] < "24")
}

/// A number of up to 20 digits and 12 decimals is exact, rounded towards the past.
fn counted(text: &str, format: &TimestampFormat, per_second: i128) {
    let ours = parse_epoch(text, format);
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_digits =
        |text: &str, most| (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(whole, 20) || !is_digits(fraction, 12) || (digits.contains('.') && per_second != 1) {
        assert!(ours.is_err() || whole.len() > 20 || fraction.len() > 12, "{ours:?}");
        return;
    }
    let trillionths: i128 = format!("{whole}{fraction:0<12}").parse().unwrap();
    let signed = if text.starts_with('-') { -trillionths } else { trillionths };
    let expected = signed.div_euclid(1_000_000 * per_second);
    assert_eq!(ours.ok(), i64::try_from(expected).ok());
}

fn by_pattern(pattern: &str, text: &str) {
    let Ok(parsed) = TimePattern::parse(pattern) else { return };
    assert_eq!(TimestampFormat::parse(&parsed.to_string()), Ok(TimestampFormat::Pattern(parsed.clone())));
    let Ok(micros) = parsed.read(text, &TimeRule::utc()) else { return };
    let fields = BrokenDownTime::parse(pattern, text).expect("it was read");
    let zone = match (fields.iana_time_zone(), fields.offset()) {
        (Some(zone), _) => zone_named(zone).expect("it was read"),
        (None, offset) => offset.unwrap_or(Offset::UTC).to_time_zone(),
    };
    let Ok(zoned) = Timestamp::from_microsecond(micros).map(|timestamp| timestamp.to_zoned(zone)) else { return };
    // Two digits stand for these years.
    if !(1970..=2068).contains(&zoned.year()) {
        return;
    }
    let Ok(printed) = strtime::format(pattern, &zoned) else { return };
    assert_eq!(parsed.read(&printed, &TimeRule::utc()), Ok(micros), "{printed}");
}
