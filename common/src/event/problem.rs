//! Reasons why a piece of a file, or a record of the log, is not an event.

use std::borrow::Cow;
use std::fmt;

use super::rule::Field;
use super::time::TimestampError;
use crate::json::{ScanError, ScanErrorKind};

/// Longest event_id. The largest event with its key and headers stays below Kafka's default limit of a message
/// (1,048,588 bytes).
pub const MAX_ID_BYTES: usize = 16 * 1024;

/// The name of a field in messages: its own (`event_id`), or the configured JSON pointer.
pub type FieldName = Cow<'static, str>;

/// The reason why a piece of a file is not an event. The code is stable: it appears in DLQ headers, metrics and
/// `rejected`. The message is a sentence that names the field, and the setting if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventProblem {
    NotUtf8,
    /// Not JSON; holds the parser's message.
    NotJson(String),
    /// JSON, but not an object.
    NotAnObject,
    MissingField {
        /// The field whose setting holds the pointer.
        field: Field,
        name: FieldName,
    },
    NotAString(FieldName),
    /// A timestamp that is a number, although text is configured.
    NumberForTime(FieldName),
    /// Present, but neither a string nor another permitted kind.
    WrongKind {
        field: FieldName,
        wanted: &'static str,
    },
    EmptyField(FieldName),
    DuplicateField(FieldName),
    /// `event_id` is also the record's key, which must fit into a message together with the event.
    IdTooLong(FieldName),
    BadTimestamp {
        field: FieldName,
        /// The message of a [`super::TimestampError`].
        message: String,
    },
    /// A lone surrogate in a field that must be text.
    LoneSurrogate(FieldName),
    /// A lone surrogate within `data`, if the configuration rejects it.
    LoneSurrogateInData(FieldName),
    /// The value is cut off by the end of the file or by the next event.
    Truncated,
    /// An array, or a wrapper around events, lacks its end: the values in it are whole, and more may be missing.
    NotClosed,
    /// More bytes than the event limit.
    TooLarge {
        limit_bytes: usize,
    },
    /// Arrays and objects nested more deeply than the limit.
    TooDeep {
        limit: usize,
    },
    /// An object without an array of events at this pointer.
    NoRecords(String),
}

impl EventProblem {
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotUtf8 => "not_utf8",
            Self::NotJson(_) => "not_json",
            Self::NotAnObject => "not_an_object",
            Self::MissingField { .. } => "missing_field",
            Self::NotAString(_) | Self::NumberForTime(_) | Self::WrongKind { .. } => "not_a_string",
            Self::EmptyField(_) => "empty_field",
            Self::DuplicateField(_) => "duplicate_field",
            Self::IdTooLong(_) => "id_too_long",
            Self::BadTimestamp { .. } => "bad_timestamp",
            Self::LoneSurrogate(_) | Self::LoneSurrogateInData(_) => "lone_surrogate",
            Self::Truncated | Self::NotClosed => "truncated",
            Self::TooLarge { .. } => "too_large",
            Self::TooDeep { .. } => "too_deep",
            Self::NoRecords(_) => "no_records",
        }
    }

    /// The problem that a scan's error represents. `limit` is the nesting limit, `name` returns a slot's field.
    pub(super) fn of_scan(error: &ScanError, limit: usize, name: impl FnOnce(usize) -> FieldName) -> Self {
        match error.kind {
            ScanErrorKind::Eof => Self::Truncated,
            ScanErrorKind::Syntax(_) => Self::NotJson(error.to_string()),
            ScanErrorKind::TooDeep => Self::TooDeep { limit },
            ScanErrorKind::Duplicate { slot, .. } => Self::DuplicateField(name(slot)),
        }
    }
}

impl fmt::Display for EventProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8 => formatter.write_str("the event is not UTF-8"),
            Self::NotJson(message) => write!(formatter, "the event is not JSON: {message}"),
            Self::NotAnObject => formatter.write_str("the value is not a JSON object, as every event is"),
            Self::MissingField { field, name } => write!(
                formatter,
                "the event has no field '{name}'; format.preset and format.{} say where to look",
                field.name()
            ),
            Self::NotAString(field) => write!(formatter, "field '{field}' is not a string"),
            Self::NumberForTime(field) => write!(formatter, "field '{field}' {}", TimestampError::Number),
            Self::WrongKind { field, wanted } => write!(formatter, "field '{field}' is not {wanted}"),
            Self::EmptyField(field) => write!(formatter, "field '{field}' is empty"),
            Self::DuplicateField(field) => write!(formatter, "field '{field}' is in the event twice"),
            Self::IdTooLong(field) => write!(formatter, "field '{field}' has more than {MAX_ID_BYTES} bytes"),
            Self::BadTimestamp { field, message } => write!(formatter, "field '{field}' {message}"),
            Self::LoneSurrogate(field) => {
                write!(formatter, "field '{field}' holds half of a surrogate pair, which is no text")
            }
            Self::LoneSurrogateInData(field) => write!(
                formatter,
                "field '{field}' holds half of a surrogate pair, which query engines refuse; format.lone_surrogates = \"replace\" \
                 would keep the event"
            ),
            Self::Truncated => formatter.write_str("the event is cut off before its end"),
            Self::NotClosed => formatter.write_str(
                "the array around the events has no closing bracket here: events that should follow are missing from the file",
            ),
            Self::TooLarge { limit_bytes } => {
                write!(formatter, "the event has more than {limit_bytes} bytes (format.max_event_bytes)")
            }
            Self::TooDeep { limit } => {
                write!(formatter, "the event nests more than {limit} arrays and objects (format.max_depth)")
            }
            Self::NoRecords(pointer) => write!(formatter, "the object has no array at '{pointer}' (format.records)"),
        }
    }
}
