//! Times by a configured pattern of strptime directives, as jiff reads them.

use std::fmt;

use jiff::civil::{DateTime, date};
use jiff::fmt::strtime::{self, BrokenDownTime};
use jiff::tz::Offset;

use super::{Moment, TimeRule, TimestampError};

/// Every layout contains the pattern, so its length is limited.
const MAX_BYTES: usize = 200;
const SAMPLE_OFFSET_SECONDS: i32 = 5 * 3600 + 45 * 60;
const EXAMPLE: &str = "%Y/%m/%d %H:%M:%S %z";

/// A pattern that determines a day and a time of day (or midnight) unambiguously.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimePattern(String);

impl fmt::Display for TimePattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TimePattern {
    /// Whether a text is intended as a pattern.
    pub(crate) fn is_meant(text: &str) -> bool {
        text.contains('%')
    }

    /// # Errors
    /// A directive does not exist or cannot be parsed, or the pattern does not determine the day and time. The message
    /// names the error.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: String| format!("'{text}': {why}; an example is {EXAMPLE}");
        if text.len() > MAX_BYTES {
            return Err(wrong(format!("has more than {MAX_BYTES} bytes")));
        }
        let pattern = Self(text.to_owned());
        pattern.check().map_err(wrong)?;
        Ok(pattern)
    }

    fn check(&self) -> Result<(), String> {
        if directives(&self.0).any(|directive| directive == 's') {
            return Err("%s reads numbers without their fraction; epoch_s reads them whole".to_owned());
        }
        self.check_with(date(2021, 11, 14).at(22, 17, 38, 123_456_789))?;
        // An unpadded number with one digit would take the digits of the number after it.
        self.check_with(date(2022, 1, 2).at(3, 4, 5, 6_007_008))
            .map_err(|_| "numbers in it run into each other; separate them, or keep their leading zeros".to_owned())
    }

    /// Formats a time and parses it back. No component of the time has its default value, and no two are equal.
    fn check_with(&self, sample: DateTime) -> Result<(), String> {
        let offset = Offset::from_seconds(SAMPLE_OFFSET_SECONDS).unwrap_or(Offset::UTC);
        let zoned = offset.to_timestamp(sample).map_err(|error| error.to_string())?.to_zoned(offset.to_time_zone());
        let printed = strtime::format(&self.0, &zoned).map_err(|error| error.to_string())?;
        let fields = BrokenDownTime::parse(&self.0, &printed).map_err(|error| error.to_string())?;
        let read = fields.to_datetime().map_err(|error| error.to_string())?;
        if read.date() != sample.date() {
            return Err("it does not say which day is meant".to_owned());
        }
        let has = |part: Option<i8>, read_part: i8, truth: i8| part.is_none() || read_part == truth;
        let is_clear = has(fields.hour(), read.hour(), sample.hour())
            && has(fields.minute(), read.minute(), sample.minute())
            && has(fields.second(), read.second(), sample.second());
        if !is_clear {
            return Err("it does not say which time of day is meant; with %I there must be %p".to_owned());
        }
        if fields.offset().is_some_and(|read| read != offset) {
            return Err("it does not say which offset is meant".to_owned());
        }
        Ok(())
    }

    /// Microseconds since the Unix epoch; a time without an offset is in the zone of `rule`.
    ///
    /// # Errors
    /// The text does not match the pattern, or names a day or time that does not exist.
    pub(in crate::event) fn read(&self, text: &str, rule: &TimeRule) -> Result<i64, TimestampError> {
        let fields = BrokenDownTime::parse(&self.0, text).map_err(|_| TimestampError::Pattern)?;
        let civil = fields.to_datetime().map_err(|_| TimestampError::NoSuchMoment)?;
        let moment = moment(civil, fields.offset()).ok_or(TimestampError::Range)?;
        match fields.iana_time_zone() {
            Some(zone) => moment.micros_in_named(zone),
            None => rule.micros_of(&moment),
        }
    }
}

/// The letters of its directives.
fn directives(pattern: &str) -> impl Iterator<Item = char> {
    let mut characters = pattern.chars();
    std::iter::from_fn(move || {
        characters.find(|character| *character == '%')?;
        characters.find(|character| character.is_ascii_alphabetic() || *character == '%')
    })
}

fn moment(civil: DateTime, offset: Option<Offset>) -> Option<Moment> {
    let part = |number: i8| u32::try_from(number).ok();
    Some(Moment {
        year: i32::from(civil.year()),
        month: part(civil.month())?,
        day: part(civil.day())?,
        second_of_day: part(civil.hour())? * 3600 + part(civil.minute())? * 60 + part(civil.second())?,
        micros: u32::try_from(civil.subsec_nanosecond()).ok()? / 1000,
        offset_seconds: offset.map(Offset::seconds),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pattern: &str, text: &str) -> Result<i64, String> {
        let pattern = TimePattern::parse(pattern)?;
        pattern.read(text, &TimeRule::utc()).map_err(|error| error.to_string())
    }

    fn utc(text: &str) -> Result<i64, String> {
        TimeRule::utc().parse(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_pattern_reads_what_it_describes() {
        for (pattern, text, same) in [
            ("%Y/%m/%d %H:%M:%S %z", "2012/03/10 22:36:55 -0800", "2012-03-11T06:36:55Z"),
            ("%d/%b/%Y:%H:%M:%S %z", "14/Jan/2021:10:15:30 +0000", "2021-01-14T10:15:30Z"),
            ("%a, %d %b %Y %T %z", "Thu, 14 Jan 2021 10:15:30 +0100", "2021-01-14T09:15:30Z"),
            ("%Y-%m-%dT%H:%M:%S%.f%:z", "2021-01-14T10:15:30.1234569-05:30", "2021-01-14T15:45:30.123456Z"),
            ("%d.%m.%Y %H:%M", "14.01.2021 10:15", "2021-01-14T10:15:00Z"),
            ("%m/%d/%Y %I:%M:%S %p", "01/14/2021 10:15:30 PM", "2021-01-14T22:15:30Z"),
            ("%Y%m%d%H%M%S", "20210114101530", "2021-01-14T10:15:30Z"),
            ("%Y-%m-%d", "2021-01-14", "2021-01-14T00:00:00Z"),
            ("%Y-%j %R", "2021-014 10:15", "2021-01-14T10:15:00Z"),
            ("%G-W%V-%u %R", "2021-W02-4 10:15", "2021-01-14T10:15:00Z"),
            ("%F %T %Q", "2021-07-14 10:15:30 Europe/Berlin", "2021-07-14T08:15:30Z"),
            ("%Y-%m-%d %H:%M:%S", "1969-12-31 23:59:59", "1969-12-31T23:59:59Z"),
            ("100%% %Y-%m-%d", "100% 2021-01-14", "2021-01-14T00:00:00Z"),
        ] {
            assert_eq!(read(pattern, text), utc(same), "{pattern}: {text}");
        }
    }

    #[test]
    fn a_time_without_an_offset_is_in_the_configured_zone() -> Result<(), String> {
        let berlin = TimeRule::named("Europe/Berlin")?;
        let pattern = TimePattern::parse("%d.%m.%Y %H:%M")?;
        assert_eq!(pattern.read("14.07.2021 12:00", &berlin).ok(), utc("2021-07-14T10:00:00Z").ok());
        let with_offset = TimePattern::parse("%d.%m.%Y %H:%M %z")?;
        assert_eq!(with_offset.read("14.07.2021 12:00 +0000", &berlin).ok(), utc("2021-07-14T12:00:00Z").ok());
        Ok(())
    }

    #[test]
    fn a_pattern_that_leaves_a_day_or_time_open_is_refused_with_the_reason() {
        for (pattern, part) in [
            ("%Y-%m-%d %K", "%K"),
            ("%Y-%m-%d %Z", "%Z"),
            ("%c", "%c"),
            ("%Y-%m-%d %", "%"),
            ("%H:%M:%S", "year"),
            ("%m-%d %H:%M", "year"),
            ("%Y-%m %H:%M", "day"),
            ("%Y-%m-%d %I:%M", "%p"),
            ("%Y-%m-%d %M", "hour"),
            ("%s", "epoch_s"),
            ("%Y-%m-%d %s", "epoch_s"),
            ("%Y-%-j%R", "run into each other"),
            ("%-m%-d %Y", "run into each other"),
            ("%-d%m%Y", "run into each other"),
            ("%F %-H%M", "run into each other"),
            (&"%Y".repeat(101), "200 bytes"),
        ] {
            let error = TimePattern::parse(pattern).err().unwrap_or_default();
            assert!(error.contains(part) && error.ends_with("; an example is %Y/%m/%d %H:%M:%S %z"), "{error}");
        }
    }

    #[test]
    fn a_mismatch_and_a_day_that_does_not_exist_are_different_errors() {
        let pattern = "%a %Y/%m/%d";
        let fits = |text| read(pattern, text).err().unwrap_or_default();
        assert_eq!(fits("Thu 2021-01-14"), "does not fit the pattern of format.timestamp_format");
        assert_eq!(fits("Thu 2021/01/14 10:15"), "does not fit the pattern of format.timestamp_format");
        let no_such = "fits format.timestamp_format, but names a day or time that does not exist";
        assert_eq!(fits("Mon 2021/02/29"), no_such);
        assert_eq!(fits("Fri 2021/01/14"), no_such, "it was a Thursday");
    }

    proptest! {
        #[test]
        fn text_formatted_by_a_pattern_is_read_back(
            seconds in -2_000_000_000_i64..4_000_000_000,
            nanos in 0_i32..1_000_000_000,
            minutes in -14 * 60..14 * 60,
            pattern in prop::sample::select(vec![
                "%Y/%m/%d %H:%M:%S%.f %z",
                "%a, %d %b %Y %T.%f %:z",
                "%d.%m.%Y %I:%M:%S%.f %p %z",
                "%Y%m%d%H%M%S%f%z",
                "%A %-d %B %Y %k:%M:%S%.9f %::z",
                "%Y-%j %T%.f%z",
                "%G-W%V-%u %T%.f%z",
            ]),
        ) {
            let stamp = jiff::Timestamp::new(seconds, nanos).unwrap();
            let zoned = stamp.to_zoned(Offset::from_seconds(minutes * 60).unwrap().to_time_zone());
            let printed = strtime::format(pattern, &zoned).unwrap();
            let micros = seconds * 1_000_000 + i64::from(nanos / 1000);
            prop_assert_eq!(read(pattern, &printed), Ok(micros), "{}", printed);
        }

        #[test]
        fn no_pattern_and_no_text_makes_it_panic(
            parts in prop::collection::vec("%[-_0^#]?[0-9]{0,3}:{0,3}[A-Za-z%.+]|[-/: T]", 0..8),
            text in "[-+0-9:/ TZa-z.%]{0,40}",
        ) {
            let pattern = parts.concat();
            if let Ok(pattern) = TimePattern::parse(&pattern) {
                let _ = pattern.read(&text, &TimeRule::utc());
            }
            let _ = TimePattern(pattern).read(&text, &TimeRule::utc());
        }
    }
}
