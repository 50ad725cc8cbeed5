//! Errors in a timestamp.

/// Each message continues after the name of the field: "field 'timestamp' names a day that does not exist".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// None of the accepted forms.
    #[error("is not a time such as 2021-01-14T10:15:30Z; format.timestamp_format can name another form")]
    Form,
    /// A day without a time of day.
    #[error("names a day without a time of day; format.timestamp_format = \"%Y-%m-%d\" reads days as midnight")]
    NoTime,
    /// Digits only: most likely an epoch number.
    #[error(
        "is a number; format.timestamp_format must say its unit (epoch_s, epoch_ms, epoch_us, epoch_ns) or pattern"
    )]
    Number,
    #[error("names a day that does not exist")]
    NoSuchDay,
    #[error("names a time of day that does not exist")]
    NoSuchTime,
    /// An offset from UTC of a day or more.
    #[error("has an offset from UTC that does not exist")]
    NoSuchOffset,
    /// A zone name that is not an offset.
    #[error("ends in a zone name; only UTC, GMT, Z and offsets such as +01:00 are read")]
    ZoneName,
    /// A zone in brackets that the IANA database does not have.
    #[error("names a zone that is not in the IANA database")]
    UnknownZone,
    /// An offset that differs from the offset of the zone in brackets at that time.
    #[error("has an offset that its zone does not have at that time")]
    ZoneConflict,
    /// The microseconds do not fit into 64 bits.
    #[error("is too far from 1970")]
    Range,
    /// Not a number of this unit.
    #[error("is not a number of {0} since 1970, as format.timestamp_format says")]
    Epoch(&'static str),
    /// The text does not match the configured pattern.
    #[error("does not fit the pattern of format.timestamp_format")]
    Pattern,
    /// The text matches the pattern, but the day or time does not exist.
    #[error("fits format.timestamp_format, but names a day or time that does not exist")]
    NoSuchMoment,
}
