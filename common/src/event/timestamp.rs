//! Event timestamps: text to microseconds since the Unix epoch, and back to a civil date.
//!
//! Accepted: RFC 3339 (`2021-01-14T10:15:30.123456789+02:00`), with `T`, `t` or a space between date and time,
//! with or without a fraction of 1 to 9 digits, with `Z`, `+hh:mm`, `+hhmm` or no zone at all. A time without a
//! zone is read in the configured one. Fractions are cut to microseconds (never rounded), because that is the
//! finest unit every query engine reads. A leap second (`:60`) is read as `:59`, since Unix time has no place for it.

use std::fmt;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// How timestamps without a zone are read. Part of the layout: it decides rows.
#[derive(Debug, Clone)]
pub struct TimeRule {
    name: String,
    zone: Option<TimeZone>,
}

impl Default for TimeRule {
    fn default() -> Self {
        Self::utc()
    }
}

impl TimeRule {
    pub fn utc() -> Self {
        Self { name: "UTC".to_owned(), zone: None }
    }

    /// A zone of the compiled-in IANA database, such as `Europe/Berlin`.
    ///
    /// # Errors
    /// The name is not in the database.
    pub fn named(name: &str) -> Result<Self, String> {
        if name.eq_ignore_ascii_case("UTC") {
            return Ok(Self::utc());
        }
        let zone = jiff::tz::TimeZoneDatabase::bundled()
            .get(name)
            .map_err(|_| format!("'{name}' is not an IANA time zone (such as 'UTC' or 'Europe/Berlin')"))?;
        Ok(Self { name: name.to_owned(), zone: Some(zone) })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Microseconds since the Unix epoch.
    ///
    /// # Errors
    /// The text is not of the accepted forms, or names a day or time that does not exist.
    pub fn parse(&self, text: &str) -> Result<i64, TimestampError> {
        let parts = Parts::read(text.as_bytes())?;
        match (parts.zone_offset_seconds, &self.zone) {
            (Some(offset_seconds), _) => Ok(parts.utc_micros() - i64::from(offset_seconds) * 1_000_000),
            (None, None) => Ok(parts.utc_micros()),
            (None, Some(zone)) => parts.micros_in(zone),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampError {
    Form,
    Range,
    /// Not a number of this unit.
    Epoch(&'static str),
}

impl fmt::Display for TimestampError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => formatter.write_str("not an RFC 3339 time such as 2021-01-14T10:15:30Z"),
            Self::Range => formatter.write_str("names a day or time that does not exist"),
            Self::Epoch(unit) => write!(formatter, "not a number of {unit} since 1970 written in digits"),
        }
    }
}

impl std::error::Error for TimestampError {}

struct Parts {
    year: i32,
    month: u32,
    day: u32,
    second_of_day: u32,
    micros: u32,
    zone_offset_seconds: Option<i32>,
}

impl Parts {
    fn read(text: &[u8]) -> Result<Self, TimestampError> {
        use TimestampError::{Form, Range};
        if text.len() < 19 {
            return Err(Form);
        }
        let (head, rest) = text.split_at(19);
        if head[4] != b'-'
            || head[7] != b'-'
            || head[13] != b':'
            || head[16] != b':'
            || !matches!(head[10], b'T' | b't' | b' ')
        {
            return Err(Form);
        }
        let year = digits(&head[0..4])?;
        let (month, day) = (digits(&head[5..7])?, digits(&head[8..10])?);
        let (hour, minute, second) = (digits(&head[11..13])?, digits(&head[14..16])?, digits(&head[17..19])?);
        let year = i32::try_from(year).map_err(|_| Form)?;
        if !(1..=12).contains(&month)
            || day == 0
            || day > days_in_month(year, month)
            || hour > 23
            || minute > 59
            || second > 60
        {
            return Err(Range);
        }
        let (micros, zone) = read_fraction(rest)?;
        Ok(Self {
            year,
            month,
            day,
            second_of_day: hour * 3600 + minute * 60 + second.min(59),
            micros,
            zone_offset_seconds: read_zone(zone)?,
        })
    }

    fn utc_micros(&self) -> i64 {
        let days = days_from_civil(self.year, self.month, self.day);
        (days * 86_400 + i64::from(self.second_of_day)) * 1_000_000 + i64::from(self.micros)
    }

    /// A wall-clock time that occurs twice is read as its first occurrence, one that is skipped as shifted past the
    /// gap (RFC 5545's rule, jiff's "compatible").
    fn micros_in(&self, zone: &TimeZone) -> Result<i64, TimestampError> {
        let range = |_| TimestampError::Range;
        let narrow = |number: u32| i8::try_from(number).map_err(range);
        let civil = DateTime::new(
            i16::try_from(self.year).map_err(range)?,
            narrow(self.month)?,
            narrow(self.day)?,
            narrow(self.second_of_day / 3600)?,
            narrow(self.second_of_day / 60 % 60)?,
            narrow(self.second_of_day % 60)?,
            i32::try_from(self.micros * 1000).map_err(range)?,
        )
        .map_err(|_| TimestampError::Range)?;
        let timestamp = zone.to_ambiguous_timestamp(civil).compatible().map_err(|_| TimestampError::Range)?;
        Ok(timestamp.as_microsecond())
    }
}

fn digits(text: &[u8]) -> Result<u32, TimestampError> {
    text.iter().try_fold(0, |number, byte| match byte {
        b'0'..=b'9' => Ok(number * 10 + u32::from(byte - b'0')),
        _ => Err(TimestampError::Form),
    })
}

fn read_fraction(rest: &[u8]) -> Result<(u32, &[u8]), TimestampError> {
    let Some(fraction) = rest.strip_prefix(b".") else {
        return Ok((0, rest));
    };
    let length = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if length == 0 || length > 9 {
        return Err(TimestampError::Form);
    }
    let kept = length.min(6);
    let mut micros = digits(&fraction[..kept])?;
    for _ in kept..6 {
        micros *= 10;
    }
    Ok((micros, &fraction[length..]))
}

fn read_zone(zone: &[u8]) -> Result<Option<i32>, TimestampError> {
    use TimestampError::{Form, Range};
    let (sign, hours, minutes) = match zone {
        b"" => return Ok(None),
        b"Z" | b"z" => return Ok(Some(0)),
        [sign @ (b'+' | b'-'), hours @ .., b':', m1, m2] if hours.len() == 2 => {
            (sign, digits(hours)?, digits(&[*m1, *m2])?)
        }
        [sign @ (b'+' | b'-'), h1, h2, m1, m2] => (sign, digits(&[*h1, *h2])?, digits(&[*m1, *m2])?),
        _ => return Err(Form),
    };
    if hours > 23 || minutes > 59 {
        return Err(Range);
    }
    let seconds = i32::try_from(hours * 3600 + minutes * 60).map_err(|_| Range)?;
    Ok(Some(if *sign == b'-' { -seconds } else { seconds }))
}

fn is_leap(year: i32) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a proleptic Gregorian date (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days_from_civil(year: i32, month: u32, day: u32) -> i64 {
    let year = i64::from(year) - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = i64::from((month + 9) % 12);
    let day_of_year = (153 * shifted_month + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// A date in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Civil {
    pub year: i64,
    pub month: u8,
    pub day: u8,
}

/// The UTC date that `micros` (microseconds since the Unix epoch) falls on; the inverse of the same paper.
pub fn civil_from_micros(micros: i64) -> Civil {
    let days = micros.div_euclid(86_400_000_000) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    // Both are within 1..=31 by construction.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1..=31 by construction")]
    Civil { year, month: month as u8, day: day as u8 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn utc(text: &str) -> Result<i64, TimestampError> {
        TimeRule::utc().parse(text)
    }

    #[test]
    fn every_accepted_form_of_one_instant_is_the_same_microsecond() {
        let expected = Ok(1_610_619_330_123_456);
        for text in [
            "2021-01-14T10:15:30.123456Z",
            "2021-01-14t10:15:30.123456z",
            "2021-01-14 10:15:30.123456",
            "2021-01-14T10:15:30.123456999",
            "2021-01-14T12:15:30.123456+02:00",
            "2021-01-14T12:15:30.123456+0200",
            "2021-01-14T04:45:30.1234567-05:30",
        ] {
            assert_eq!(utc(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2021-01-14",
            "2021-01-14T10:15",
            "2021-1-14T10:15:30",
            "2021-01-14T10:15:30.",
            "2021-01-14T10:15:30.1234567890",
            "2021-01-14T10:15:30+2",
            "2021-01-14T10:15:30 Z",
            "20210114T101530Z",
            "2021-01-14T10:15:30Zjunk",
            "２021-01-14T10:15:30",
        ] {
            assert_eq!(utc(text), Err(TimestampError::Form), "{text:?}");
        }
        for text in [
            "2021-02-29T00:00:00",
            "2021-13-01T00:00:00",
            "2021-00-01T00:00:00",
            "2021-01-14T24:00:00",
            "2021-01-14T10:15:30+24:00",
        ] {
            assert_eq!(utc(text), Err(TimestampError::Range), "{text:?}");
        }
    }

    #[test]
    fn a_naive_time_is_read_in_the_configured_zone() -> Result<(), String> {
        let berlin = TimeRule::named("Europe/Berlin")?;
        assert_eq!(berlin.parse("2021-07-14T12:00:00"), utc("2021-07-14T10:00:00Z"));
        assert_eq!(berlin.parse("2021-01-14T12:00:00"), utc("2021-01-14T11:00:00Z"));
        assert_eq!(berlin.parse("2021-07-14T12:00:00Z"), utc("2021-07-14T12:00:00Z"));
        // Skipped and repeated hours have one defined reading.
        assert_eq!(berlin.parse("2021-03-28T02:30:00"), utc("2021-03-28T01:30:00Z"));
        assert_eq!(berlin.parse("2021-10-31T02:30:00"), utc("2021-10-31T00:30:00Z"));
        assert!(TimeRule::named("Mars/Olympus").is_err());
        Ok(())
    }

    proptest! {
        #[test]
        fn dates_agree_with_an_independent_calendar(micros in -62_000_000_000_000_000_i64..253_000_000_000_000_000) {
            let stamp = jiff::Timestamp::from_microsecond(micros).map_err(|error| TestCaseError::fail(error.to_string()))?;
            let civil = stamp.to_zoned(TimeZone::UTC).date();
            let ours = civil_from_micros(micros);
            prop_assert_eq!((ours.year, i64::from(ours.month), i64::from(ours.day)), (i64::from(civil.year()), i64::from(civil.month()), i64::from(civil.day())));
            if civil.year() >= 1 {
                prop_assert_eq!(utc(&format!("{stamp:.6}")), Ok(micros));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            let _ = utc(&text);
        }
    }
}
