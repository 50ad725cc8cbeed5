//! Reading the five fields of an event from its JSON text, and saying what is wrong with one that has not got them.
//!
//! `data` is kept as the bytes that stood in the file: numbers of any size, key order and spacing survive.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Visitor};
use serde_json::value::RawValue;

use super::timestamp::TimeRule;

/// Longest event_id. An event of the largest size, its key and its headers together stay below Kafka's default limit of
/// a message (1,048,588 bytes).
const MAX_ID_BYTES: usize = 16 * 1024;

/// How events are read: which preset, and how a time without zone is taken.
#[derive(Debug, Clone, Default)]
pub struct EventFormat {
    pub time: TimeRule,
}

/// A valid event, borrowing from its text wherever the text has no escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    pub event_id: Cow<'a, str>,
    /// Microseconds since the Unix epoch, UTC.
    pub timestamp_us: i64,
    pub domain: Cow<'a, str>,
    pub event_type: Cow<'a, str>,
    /// JSON text exactly as written.
    pub data: &'a str,
}

/// The fields as serde sees them, before they are checked. One of these can be read straight from a stream of objects.
#[derive(Deserialize)]
pub struct RawEvent<'a> {
    #[serde(borrow)]
    event_id: Option<Text<'a>>,
    #[serde(borrow)]
    timestamp: Option<Text<'a>>,
    #[serde(borrow)]
    domain: Option<Text<'a>>,
    #[serde(borrow)]
    event_type: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
}

/// `null` is a value of `data` like any other; only an absent field is missing.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// A string that borrows when it can: serde does this for `Cow<str>`, but not inside an `Option`.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// Why a piece of a file is not an event. The code is stable: it stands in DLQ headers, metrics and `rejected`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventProblem {
    NotUtf8,
    /// Not JSON; the parser's words.
    NotJson(String),
    /// JSON, but not an object.
    NotAnObject,
    MissingField(&'static str),
    NotAString(&'static str),
    EmptyField(&'static str),
    DuplicateField(String),
    /// `event_id` is also the record's key, which must fit into a message beside the event.
    IdTooLong,
    BadTimestamp(String),
    /// The file ends inside the value.
    Truncated,
    /// More bytes than one event may have.
    TooLarge {
        limit_bytes: usize,
    },
}

impl EventProblem {
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotUtf8 => "not_utf8",
            Self::NotJson(_) => "not_json",
            Self::NotAnObject => "not_an_object",
            Self::MissingField(_) => "missing_field",
            Self::NotAString(_) => "not_a_string",
            Self::EmptyField(_) => "empty_field",
            Self::DuplicateField(_) => "duplicate_field",
            Self::IdTooLong => "id_too_long",
            Self::BadTimestamp(_) => "bad_timestamp",
            Self::Truncated => "truncated",
            Self::TooLarge { .. } => "too_large",
        }
    }
}

impl fmt::Display for EventProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8 => formatter.write_str("is not UTF-8"),
            Self::NotJson(message) => write!(formatter, "is not JSON: {message}"),
            Self::NotAnObject => formatter.write_str("is not a JSON object"),
            Self::MissingField(field) => write!(formatter, "has no field '{field}'"),
            Self::NotAString(field) => write!(formatter, "field '{field}' is not a string"),
            Self::EmptyField(field) => write!(formatter, "field '{field}' is empty"),
            Self::DuplicateField(field) => write!(formatter, "has the field '{field}' twice"),
            Self::IdTooLong => write!(formatter, "field 'event_id' has more than {MAX_ID_BYTES} bytes"),
            Self::BadTimestamp(message) => write!(formatter, "field 'timestamp' is {message}"),
            Self::Truncated => formatter.write_str("the file ends inside it"),
            Self::TooLarge { limit_bytes } => write!(formatter, "has more than {limit_bytes} bytes"),
        }
    }
}

impl<'a> RawEvent<'a> {
    /// Checks the fields.
    ///
    /// # Errors
    /// The first thing that is wrong, in the order the fields are documented.
    pub fn check(self, format: &EventFormat) -> Result<Event<'a>, EventProblem> {
        let event_id = non_empty("event_id", self.event_id)?;
        if event_id.len() > MAX_ID_BYTES {
            return Err(EventProblem::IdTooLong);
        }
        let timestamp = non_empty("timestamp", self.timestamp)?;
        let timestamp_us =
            format.time.parse(&timestamp).map_err(|error| EventProblem::BadTimestamp(error.to_string()))?;
        let domain = non_empty("domain", self.domain)?;
        let event_type = non_empty("event_type", self.event_type)?;
        let data = self.data.ok_or(EventProblem::MissingField("data"))?.get();
        Ok(Event { event_id, timestamp_us, domain, event_type, data })
    }
}

fn non_empty<'a>(name: &'static str, field: Option<Text<'a>>) -> Result<Cow<'a, str>, EventProblem> {
    match field {
        None => Err(EventProblem::MissingField(name)),
        Some(Text(text)) if text.is_empty() => Err(EventProblem::EmptyField(name)),
        Some(Text(text)) => Ok(text),
    }
}

/// Reads one event from exactly its bytes.
///
/// # Errors
/// What is wrong with it, as precisely as can be told.
pub fn parse_event<'a>(bytes: &'a [u8], format: &EventFormat) -> Result<Event<'a>, EventProblem> {
    let text = simdutf8_check(bytes)?;
    match serde_json::from_str::<RawEvent<'a>>(text) {
        // serde reads a struct from an array too, field by field in order; an event is an object.
        Ok(raw) if text.trim_start().starts_with('{') => raw.check(format),
        Ok(_) => Err(EventProblem::NotAnObject),
        Err(error) => Err(diagnose(text, &error)),
    }
}

fn simdutf8_check(bytes: &[u8]) -> Result<&str, EventProblem> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| EventProblem::NotUtf8)
}

/// As [`diagnose`], for text that may not be UTF-8.
pub fn diagnose_bytes(bytes: &[u8], error: &serde_json::Error) -> EventProblem {
    simdutf8_check(bytes).map_or(EventProblem::NotUtf8, |text| diagnose(text, error))
}

/// Says why `text`, which failed to parse as a [`RawEvent`] with `error`, is no event. Slow: only for bad events.
pub fn diagnose(text: &str, error: &serde_json::Error) -> EventProblem {
    match serde_json::from_str::<&RawValue>(text) {
        Err(syntax) if syntax.is_eof() => return EventProblem::Truncated,
        Err(syntax) => return EventProblem::NotJson(syntax.to_string()),
        Ok(_) => {}
    }
    let Ok(object) = serde_json::from_str::<BTreeMap<String, &RawValue>>(text) else {
        return EventProblem::NotAnObject;
    };
    for field in ["event_id", "timestamp", "domain", "event_type"] {
        match object.get(field).map(|value| value.get()) {
            None | Some("null") => return EventProblem::MissingField(field),
            Some(value) if !value.starts_with('"') => return EventProblem::NotAString(field),
            Some(_) => {}
        }
    }
    let message = error.to_string();
    if let Some(field) = message.strip_prefix("duplicate field `").and_then(|rest| rest.split('`').next()) {
        return EventProblem::DuplicateField(field.to_owned());
    }
    EventProblem::NotJson(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Event<'_>, EventProblem> {
        parse_event(text.as_bytes(), &EventFormat::default())
    }

    #[test]
    fn data_keeps_its_very_bytes() {
        for data in [
            r#"{"n": 12345678901234567890123456789.000100e-5 , "b":[1,  2]}"#,
            "null",
            r#""\ud800""#,
            "[ ]",
            "-0.0",
            "true",
        ] {
            let text = format!(
                r#"{{"data":{data},"event_id":"a","timestamp":"2021-01-14T10:15:30","domain":"d","event_type":"t"}}"#
            );
            assert_eq!(parse(&text).map(|event| event.data.to_owned()), Ok(data.to_owned()));
        }
    }

    #[test]
    fn escapes_in_fields_are_resolved() {
        let event = r#"{"event_id":"a\u0062\n","timestamp":"2021-01-14T10:15:30","domain":"d","event_type":"t","data":1,"more":{}}"#;
        assert_eq!(parse(event).map(|event| event.event_id.into_owned()), Ok("ab\n".to_owned()));
    }

    #[test]
    fn each_defect_has_its_own_reason() {
        let base = r#""timestamp":"2021-01-14T10:15:30","domain":"d","event_type":"t","data":1"#;
        let cases = [
            (format!("{{{base}}}"), "missing_field"),
            (format!(r#"{{"event_id":null,{base}}}"#), "missing_field"),
            (format!(r#"{{"event_id":7,{base}}}"#), "not_a_string"),
            (format!(r#"{{"event_id":"",{base}}}"#), "empty_field"),
            (format!(r#"{{"event_id":"{}",{base}}}"#, "x".repeat(MAX_ID_BYTES + 1)), "id_too_long"),
            (format!(r#"{{"event_id":"a","event_id":"b",{base}}}"#), "duplicate_field"),
            (
                r#"{"event_id":"a","timestamp":"yesterday","domain":"d","event_type":"t","data":1}"#.to_owned(),
                "bad_timestamp",
            ),
            (
                r#"{"event_id":"a","timestamp":"2021-01-14T10:15:30","domain":"d","event_type":"t"}"#.to_owned(),
                "missing_field",
            ),
            (format!(r#"{{"event_id":"a",{base}"#), "truncated"),
            (format!(r#"{{"event_id":"a" {base}}}"#), "not_json"),
            (r#"["a","2021-01-14T10:15:30","d","t",1]"#.to_owned(), "not_an_object"),
            ("17".to_owned(), "not_an_object"),
        ];
        for (text, code) in cases {
            assert_eq!(parse(&text).map_err(|problem| problem.code()).err(), Some(code), "{text}");
        }
        let not_utf8 = [b"{\"event_id\":\"\xff\",".as_slice(), base.as_bytes(), b"}"].concat();
        assert_eq!(parse_event(&not_utf8, &EventFormat::default()).err(), Some(EventProblem::NotUtf8));
    }
}
