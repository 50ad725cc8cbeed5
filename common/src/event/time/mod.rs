//! Times of events: converts text and numbers to microseconds since the Unix epoch (UTC), and those to a date.
//!
//! | module | reads |
//! |---|---|
//! | `rfc3339` | the form of nearly every event, fast |
//! | `variants` | other unambiguous forms |
//! | `pattern` | a configured pattern |
//! | `epoch` | numbers |
//!
//! A time without an offset is read in the configured zone. Fractions are truncated to microseconds, the finest unit
//! that every query engine reads. A leap second (`:60`) is read as `:59`, because Unix time cannot represent it. A date
//! without a time of day is refused: only its producer knows whether it means midnight.

mod calendar;
mod epoch;
mod error;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod pattern;
mod rfc3339;
mod variants;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{TimeZone, TimeZoneDatabase};

pub use calendar::{Civil, civil_from_micros, rfc3339_from_micros};
pub(super) use epoch::parse_epoch;
pub use error::TimestampError;
pub use pattern::TimePattern;

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: u32 = 86_400;

/// How timestamps without a zone are read. Part of the layout, because it decides rows.
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
        let zone = zone_named(name)
            .ok_or_else(|| format!("'{name}' is not an IANA time zone (such as 'UTC' or 'Europe/Berlin')"))?;
        Ok(Self { name: name.to_owned(), zone: Some(zone) })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Microseconds since the Unix epoch.
    ///
    /// # Errors
    /// The text has none of the accepted forms, or names a day or time that does not exist.
    pub fn parse(&self, text: &str) -> Result<i64, TimestampError> {
        match rfc3339::read(text.as_bytes()) {
            Some(moment) => self.micros_of(&moment),
            None => self.parse_variant(text),
        }
    }

    #[cold]
    fn parse_variant(&self, text: &str) -> Result<i64, TimestampError> {
        let (moment, zone) = variants::read(text)?;
        match zone {
            Some(zone) => moment.micros_in_named(zone),
            None => self.micros_of(&moment),
        }
    }

    #[inline]
    fn micros_of(&self, moment: &Moment) -> Result<i64, TimestampError> {
        match (moment.offset_seconds, &self.zone) {
            (Some(offset_seconds), _) => Ok(moment.micros_at(offset_seconds)),
            (None, None) => Ok(moment.micros_at(0)),
            (None, Some(zone)) => moment.micros_in(zone),
        }
    }
}

/// From the compiled-in database, so that every machine gives the same result.
fn zone_named(name: &str) -> Option<TimeZone> {
    TimeZoneDatabase::bundled().get(name).ok()
}

/// A day and time of day as written, and the offset from UTC if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moment {
    year: i32,
    month: u32,
    day: u32,
    /// Up to 86,400, the midnight that ends the day.
    second_of_day: u32,
    micros: u32,
    offset_seconds: Option<i32>,
}

impl Moment {
    #[inline]
    fn micros_at(&self, offset_seconds: i32) -> i64 {
        let days = calendar::days_from_civil(self.year, self.month, self.day);
        let seconds = days * i64::from(SECONDS_PER_DAY) + i64::from(self.second_of_day) - i64::from(offset_seconds);
        seconds * MICROS_PER_SECOND + i64::from(self.micros)
    }

    /// Reads a wall-clock time that occurs twice as its first occurrence. Shifts one that is skipped past the gap (RFC
    /// 5545's rule, jiff's "compatible").
    fn micros_in(&self, zone: &TimeZone) -> Result<i64, TimestampError> {
        let civil = self.civil().ok_or(TimestampError::Range)?;
        let timestamp = zone.to_ambiguous_timestamp(civil).compatible().map_err(|_| TimestampError::Range)?;
        Ok(timestamp.as_microsecond())
    }

    /// `None` past the year 9999.
    fn civil(&self) -> Option<DateTime> {
        let narrow = |number: u32| i8::try_from(number).ok();
        let (ends_day, second) =
            if self.second_of_day == SECONDS_PER_DAY { (true, 0) } else { (false, self.second_of_day) };
        let civil = DateTime::new(
            i16::try_from(self.year).ok()?,
            narrow(self.month)?,
            narrow(self.day)?,
            narrow(second / 3600)?,
            narrow(second / 60 % 60)?,
            narrow(second % 60)?,
            i32::try_from(self.micros * 1000).ok()?,
        )
        .ok()?;
        if ends_day { civil.tomorrow().ok() } else { Some(civil) }
    }

    /// Reads the time in the zone in brackets. An offset beside it must be that zone's.
    fn micros_in_named(&self, zone: &str) -> Result<i64, TimestampError> {
        let zone = zone_named(zone).ok_or(TimestampError::UnknownZone)?;
        let Some(offset_seconds) = self.offset_seconds else { return self.micros_in(&zone) };
        let micros = self.micros_at(offset_seconds);
        let timestamp = Timestamp::from_microsecond(micros).map_err(|_| TimestampError::Range)?;
        let is_its = zone.to_offset(timestamp).seconds() == offset_seconds;
        if is_its { Ok(micros) } else { Err(TimestampError::ZoneConflict) }
    }
}

#[cfg(test)]
mod tests;
