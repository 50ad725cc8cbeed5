//! Errors in a timestamp.

use std::fmt;

/// Each message continues after the name of the field: "field 'timestamp' names a day that does not exist".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampError {
    /// None of the accepted forms.
    Form,
    /// A day without a time of day.
    NoTime,
    /// Digits only: most likely an epoch number.
    Number,
    NoSuchDay,
    NoSuchTime,
    /// An offset from UTC of a day or more.
    NoSuchOffset,
    /// A zone name that is not an offset.
    ZoneName,
    /// A zone in brackets that the IANA database does not have.
    UnknownZone,
    /// An offset that differs from the offset of the zone in brackets at that time.
    ZoneConflict,
    /// The microseconds do not fit into 64 bits.
    Range,
    /// Not a number of this unit.
    Epoch(&'static str),
    /// The text does not match the configured pattern.
    Pattern,
    /// The text matches the pattern, but the day or time does not exist.
    NoSuchMoment,
}

impl fmt::Display for TimestampError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Form => "is not a time such as 2021-01-14T10:15:30Z; format.timestamp_format can name another form",
            Self::NoTime => {
                "names a day without a time of day; format.timestamp_format = \"%Y-%m-%d\" reads days as midnight"
            }
            Self::Number => {
                "is a number; format.timestamp_format must say its unit (epoch_s, epoch_ms, epoch_us, epoch_ns) or pattern"
            }
            Self::NoSuchDay => "names a day that does not exist",
            Self::NoSuchTime => "names a time of day that does not exist",
            Self::NoSuchOffset => "has an offset from UTC that does not exist",
            Self::ZoneName => "ends in a zone name; only UTC, GMT, Z and offsets such as +01:00 are read",
            Self::UnknownZone => "names a zone that is not in the IANA database",
            Self::ZoneConflict => "has an offset that its zone does not have at that time",
            Self::Range => "is too far from 1970",
            Self::Epoch(unit) => {
                return write!(formatter, "is not a number of {unit} since 1970, as format.timestamp_format says");
            }
            Self::Pattern => "does not fit the pattern of format.timestamp_format",
            Self::NoSuchMoment => "fits format.timestamp_format, but names a day or time that does not exist",
        })
    }
}

impl std::error::Error for TimestampError {}
