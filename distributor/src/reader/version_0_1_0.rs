//! The reader of version 0.1.0, as it was: a batch whose cut that version made must get the same rows when it is made
//! again, the wording of its rejections included. It goes when no such cut can be open or walked to any more.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use common::event::{Event, EventProblem, MAX_ID_BYTES, TimeRule, TimestampError};
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};
use serde_json::value::RawValue;

/// The fields as serde sees them, before they are checked.
#[derive(Deserialize)]
struct RawEvent<'a> {
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

impl<'a> RawEvent<'a> {
    /// Checks the fields.
    ///
    /// # Errors
    /// The first thing that is wrong, in the order the fields are documented.
    fn check(self, time: &TimeRule) -> Result<Event<'a>, EventProblem> {
        let event_id = non_empty("event_id", self.event_id)?;
        if event_id.len() > MAX_ID_BYTES {
            return Err(EventProblem::IdTooLong("event_id".into()));
        }
        let timestamp = non_empty("timestamp", self.timestamp)?;
        let timestamp_us = time.parse(&timestamp).map_err(bad_timestamp)?;
        let domain = non_empty("domain", self.domain)?;
        let event_type = non_empty("event_type", self.event_type)?;
        let data = self.data.ok_or(EventProblem::MissingField("data".into()))?.get();
        Ok(Event { event_id, timestamp_us, domain, event_type, data })
    }
}

fn bad_timestamp(error: TimestampError) -> EventProblem {
    EventProblem::BadTimestamp { field: "timestamp".into(), message: error.to_string() }
}

fn non_empty<'a>(name: &'static str, field: Option<Text<'a>>) -> Result<Cow<'a, str>, EventProblem> {
    match field {
        None => Err(EventProblem::MissingField(name.into())),
        Some(Text(text)) if text.is_empty() => Err(EventProblem::EmptyField(name.into())),
        Some(Text(text)) => Ok(text),
    }
}

/// Reads one event from exactly its bytes.
///
/// # Errors
/// What is wrong with it, as precisely as can be told.
pub(super) fn parse_event<'a>(bytes: &'a [u8], time: &TimeRule) -> Result<Event<'a>, EventProblem> {
    let text = utf8(bytes)?;
    match serde_json::from_str::<RawEvent<'a>>(text) {
        // serde reads a struct from an array too, field by field in order; an event is an object.
        Ok(raw) if text.trim_start().starts_with('{') => raw.check(time),
        Ok(_) => Err(EventProblem::NotAnObject),
        Err(error) => Err(diagnose(text, &error)),
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, EventProblem> {
    std::str::from_utf8(bytes).map_err(|_| EventProblem::NotUtf8)
}

/// Says why `text`, which failed to parse as a [`RawEvent`] with `error`, is no event. Slow: only for bad events.
fn diagnose(text: &str, error: &serde_json::Error) -> EventProblem {
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
            None | Some("null") => return EventProblem::MissingField(field.into()),
            Some(value) if !value.starts_with('"') => return EventProblem::NotAString(field.into()),
            Some(_) => {}
        }
    }
    let message = error.to_string();
    if let Some(field) = message.strip_prefix("duplicate field `").and_then(|rest| rest.split('`').next()) {
        return EventProblem::DuplicateField(field.to_owned().into());
    }
    EventProblem::NotJson(message)
}

#[cfg(test)]
mod tests {
    use common::event::{EventFormat, parse_event as parse_by_rules};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rejections_are_worded_as_they_were() {
        let base = r#""timestamp":"2021-01-14T10:15:30","domain":"d","event_type":"t","data":1"#;
        let cases = [
            (format!("{{{base}}}"), "has no field 'event_id'"),
            (format!(r#"{{"event_id":7,{base}}}"#), "field 'event_id' is not a string"),
            (format!(r#"{{"event_id":"",{base}}}"#), "field 'event_id' is empty"),
            (format!(r#"{{"event_id":"a","event_id":"b",{base}}}"#), "has the field 'event_id' twice"),
            (
                r#"{"event_id":"a","timestamp":"yesterday","domain":"d","event_type":"t","data":1}"#.to_owned(),
                "field 'timestamp' is not an RFC 3339 time such as 2021-01-14T10:15:30Z",
            ),
            (format!(r#"{{"event_id":"a",{base}"#), "the file ends inside it"),
            (format!(r#"{{"event_id":"a" {base}}}"#), "is not JSON: expected `,` or `}` at line 1 column 17"),
            ("[]".to_owned(), "is not a JSON object"),
        ];
        for (text, message) in cases {
            let problem = parse_event(text.as_bytes(), &TimeRule::utc()).err();
            assert_eq!(problem.map(|problem| problem.to_string()), Some(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn any_depth_is_read_as_it_was() {
        let data = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
        let text = format!(
            r#"{{"event_id":"a","timestamp":"2021-01-14T10:15:30","domain":"d","event_type":"t","data":{data}}}"#
        );
        assert_eq!(parse_event(text.as_bytes(), &TimeRule::utc()).map(|event| event.data.len()), Ok(100_000));
    }

    proptest! {
        #[test]
        fn it_and_the_rules_of_the_first_preset_read_the_same_events(
            fields in prop::collection::vec(prop_oneof![
                4 => prop::sample::select(vec![
                    r#""event_id":"a""#, r#""timestamp":"2021-01-14 10:15:30.5""#, r#""domain":"d\u00e9""#,
                    r#""event_type":"t""#, r#""data":{"x":[1,2e3]}"#,
                ]).prop_map(str::to_owned),
                1 => prop::sample::select(vec![
                    r#""event_id":null"#, r#""domain":7"#, r#""event_type":"""#, r#""more":{"data":1}"#, r#""data":null"#,
                ]).prop_map(str::to_owned),
                1 => "[\"a-z:{}, 0]{0,6}",
            ], 4..8).prop_shuffle(),
        ) {
            let text = format!("{{{}}}", fields.join(","));
            let (then, now) = (
                parse_event(text.as_bytes(), &TimeRule::utc()),
                parse_by_rules(text.as_bytes(), &EventFormat::default()),
            );
            prop_assert_eq!(then.ok(), now.ok(), "{}", text);
        }
    }
}
