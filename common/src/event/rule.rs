//! Field rules: the source of each of an event's five fields, written as text.
//!
//! | text | the field is |
//! |---|---|
//! | `/a/b` | the value at that JSON pointer (RFC 6901) |
//! | `const:text` | this text, in every event |
//! | `template:{/source}#{/id}` | this text with the values at the pointers in braces put in; `{{` and `}}` are braces |
//! | the empty text | for `data` only: the whole record, byte for byte |

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::problem::FieldName;
use super::time::TimePattern;
use crate::json::Pointer;

/// One of the five fields that every event has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    EventId,
    Timestamp,
    Domain,
    EventType,
    Data,
}

impl Field {
    pub const ALL: [Self; 5] = [Self::EventId, Self::Timestamp, Self::Domain, Self::EventType, Self::Data];

    pub fn name(self) -> &'static str {
        match self {
            Self::EventId => "event_id",
            Self::Timestamp => "timestamp",
            Self::Domain => "domain",
            Self::EventType => "event_type",
            Self::Data => "data",
        }
    }

    /// Reads a rule for this field.
    ///
    /// # Errors
    /// The rule is invalid, or this field cannot have it; the message says what is permitted.
    pub fn rule(self, text: &str) -> Result<FieldRule, String> {
        let rule = FieldRule::parse(text)?;
        let whole = matches!(&rule, FieldRule::Pointer(pointer) if pointer.is_whole());
        match (self, &rule) {
            (Self::Data, FieldRule::Pointer(_)) => {}
            (Self::Data, _) => {
                return Err(format!(
                    "'{text}': data is kept byte for byte, so its rule is a JSON pointer such as /data"
                ));
            }
            _ if whole => return Err("the empty pointer is the whole record, which is no text".to_owned()),
            (Self::EventId | Self::Timestamp, _) if rule.pointers().next().is_none() => {
                return Err(format!("'{text}' is the same for every event; it must hold at least one JSON pointer"));
            }
            _ => {}
        }
        Ok(rule)
    }

    /// The name of the value at `pointer` in messages; without the slash if it is the field's own name.
    pub(super) fn label(self, pointer: &Pointer) -> FieldName {
        match pointer.as_str().strip_prefix('/') {
            Some(key) if key == self.name() => Cow::Borrowed(self.name()),
            _ if pointer.is_whole() => Cow::Borrowed(self.name()),
            _ => Cow::Owned(pointer.as_str().to_owned()),
        }
    }
}

/// The source of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldRule {
    Pointer(Pointer),
    Constant(String),
    Template(Vec<TemplatePart>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplatePart {
    Literal(String),
    Value(Pointer),
}

impl FieldRule {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(constant) = text.strip_prefix("const:") {
            return match constant {
                "" => Err("'const:' has no text behind it".to_owned()),
                text => Ok(Self::Constant(text.to_owned())),
            };
        }
        if let Some(template) = text.strip_prefix("template:") {
            return parse_template(template).map(Self::Template);
        }
        Pointer::parse(text).map(Self::Pointer).map_err(|error| {
            if text.starts_with('/') {
                return error;
            }
            format!("'{text}' is neither a JSON pointer (/a/b) nor const:text nor template:{{/a}}-{{/b}}")
        })
    }

    /// The pointers in it, in order.
    pub fn pointers(&self) -> impl Iterator<Item = &Pointer> {
        let (one, parts) = match self {
            Self::Pointer(pointer) => (Some(pointer), [].as_slice()),
            Self::Constant(_) => (None, [].as_slice()),
            Self::Template(parts) => (None, parts.as_slice()),
        };
        one.into_iter().chain(parts.iter().filter_map(|part| match part {
            TemplatePart::Literal(_) => None,
            TemplatePart::Value(pointer) => Some(pointer),
        }))
    }
}

fn parse_template(template: &str) -> Result<Vec<TemplatePart>, String> {
    let wrong = |what: &str| format!("'template:{template}': {what}; an example is template:{{/source}}#{{/id}}");
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        literal.push_str(&rest[..at]);
        let (brace, after) = (&rest[at..=at], &rest[at + 1..]);
        if let Some(after) = after.strip_prefix(brace) {
            literal.push_str(brace);
            rest = after;
            continue;
        }
        let end = after.find('}').filter(|_| brace == "{").ok_or_else(|| wrong("a brace has no partner"))?;
        let pointer = Pointer::parse(&after[..end]).map_err(|error| wrong(&error))?;
        if pointer.is_whole() {
            return Err(wrong("'{}' would be the whole record, which is no text"));
        }
        if !literal.is_empty() {
            parts.push(TemplatePart::Literal(std::mem::take(&mut literal)));
        }
        parts.push(TemplatePart::Value(pointer));
        rest = &after[end + 1..];
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(TemplatePart::Literal(literal));
    }
    if parts.is_empty() { Err(wrong("it is empty")) } else { Ok(parts) }
}

/// The form of timestamps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TimestampFormat {
    /// RFC 3339, and the other forms that [`super::TimeRule::parse`] reads.
    #[default]
    Rfc3339,
    EpochS,
    EpochMs,
    EpochUs,
    EpochNs,
    Pattern(TimePattern),
}

impl TimestampFormat {
    /// The named formats. All others are patterns.
    const NAMED: [(&'static str, Self); 5] = [
        ("rfc3339", Self::Rfc3339),
        ("epoch_s", Self::EpochS),
        ("epoch_ms", Self::EpochMs),
        ("epoch_us", Self::EpochUs),
        ("epoch_ns", Self::EpochNs),
    ];

    /// # Errors
    /// The text is neither a name nor a valid pattern; the message says what is permitted.
    pub fn parse(text: &str) -> Result<Self, String> {
        if TimePattern::is_meant(text) {
            return TimePattern::parse(text).map(Self::Pattern);
        }
        let named = Self::NAMED.into_iter().find(|(name, _)| *name == text).map(|(_, format)| format);
        named.ok_or_else(|| {
            let names = Self::NAMED.map(|(name, _)| name).join(", ");
            format!("'{text}' is not one of: {names}; nor a pattern such as %Y/%m/%d %H:%M:%S %z")
        })
    }
}

impl fmt::Display for TimestampFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pattern(pattern) => pattern.fmt(formatter),
            format => {
                formatter.write_str(Self::NAMED.iter().find(|(_, named)| named == format).map_or("", |(name, _)| name))
            }
        }
    }
}

impl TryFrom<String> for TimestampFormat {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<TimestampFormat> for String {
    fn from(format: TimestampFormat) -> Self {
        format.to_string()
    }
}

/// What happens to `data` with a lone surrogate, which is valid JSON but not valid text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoneSurrogates {
    /// Each escape becomes `\ufffd` in the row; the record on the log stays unchanged.
    #[default]
    Replace,
    /// The record is not an event.
    Reject,
    /// `data` stays unchanged.
    Keep,
}

impl LoneSurrogates {
    pub(crate) const CHOICES: [(&'static str, Self); 3] =
        [("replace", Self::Replace), ("reject", Self::Reject), ("keep", Self::Keep)];
}

/// Everything that decides how a record is read as an event, except the zone of times without one. Every layout
/// contains it, so its names and meanings never change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventRules {
    pub event_id: String,
    pub timestamp: String,
    pub domain: String,
    pub event_type: String,
    pub data: String,
    pub timestamp_format: TimestampFormat,
    pub lone_surrogates: LoneSurrogates,
    /// Deepest nesting of arrays and objects.
    pub max_depth: usize,
}

impl EventRules {
    /// Whether both read the same records as events, with the same ids and times.
    pub fn has_keys_of(&self, other: &Self) -> bool {
        let keys = |rules: &Self| {
            let lone_surrogates = match rules.lone_surrogates {
                LoneSurrogates::Reject => LoneSurrogates::Reject,
                LoneSurrogates::Replace | LoneSurrogates::Keep => LoneSurrogates::Keep,
            };
            Self { lone_surrogates, ..rules.clone() }
        };
        keys(self) == keys(other)
    }

    pub fn get(&self, field: Field) -> &str {
        match field {
            Field::EventId => &self.event_id,
            Field::Timestamp => &self.timestamp,
            Field::Domain => &self.domain,
            Field::EventType => &self.event_type,
            Field::Data => &self.data,
        }
    }

    pub fn set(&mut self, field: Field, text: String) {
        match field {
            Field::EventId => self.event_id = text,
            Field::Timestamp => self.timestamp = text,
            Field::Domain => self.domain = text,
            Field::EventType => self.event_type = text,
            Field::Data => self.data = text,
        }
    }
}

/// An error in the rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct RuleError {
    /// The name of the rule in the configuration's section `format`.
    pub key: &'static str,
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_a_pointer_a_constant_or_a_template() -> Result<(), String> {
        assert_eq!(Field::Domain.rule("const:git:hub")?, FieldRule::Constant("git:hub".to_owned()));
        assert_eq!(Field::Data.rule("")?, FieldRule::Pointer(Pointer::default()));
        let FieldRule::Template(parts) = Field::EventId.rule("template:a{{{/b~1c}}}{/d}")? else {
            return Err("not a template".to_owned());
        };
        let shown: Vec<_> = parts
            .iter()
            .map(|part| match part {
                TemplatePart::Literal(text) => text.clone(),
                TemplatePart::Value(pointer) => pointer.segments().concat(),
            })
            .collect();
        assert_eq!(shown, ["a{", "b/c", "}", "d"]);
        Ok(())
    }

    #[test]
    fn an_invalid_rule_is_refused_with_what_would_be_right() {
        let cases = [
            (Field::EventId, "eventID", "nor template:"),
            (Field::EventId, "/a~2", "written ~0"),
            (Field::EventId, "const:x", "at least one JSON pointer"),
            (Field::EventId, "template:x", "at least one JSON pointer"),
            (Field::EventId, "", "whole record"),
            (Field::Timestamp, "const:2021-01-14T10:15:30Z", "at least one JSON pointer"),
            (Field::Domain, "template:{/a", "no partner"),
            (Field::Domain, "template:a}", "no partner"),
            (Field::Domain, "template:{}", "whole record"),
            (Field::Domain, "template:", "empty"),
            (Field::Domain, "const:", "no text"),
            (Field::Data, "const:1", "byte for byte"),
            (Field::Data, "template:{/a}", "byte for byte"),
            (Field::Data, "/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17", "more than 16"),
        ];
        for (field, text, part) in cases {
            let error = field.rule(text).err().unwrap_or_default();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn rules_that_differ_in_rows_only_have_the_same_keys() {
        let rules = |lone_surrogates| EventRules { lone_surrogates, ..crate::event::PRESETS[0].rules() };
        let [replace, reject, keep] = LoneSurrogates::CHOICES.map(|(_, choice)| rules(choice));
        assert!(replace.has_keys_of(&keep) && replace.has_keys_of(&replace));
        assert!(!replace.has_keys_of(&reject), "its records are no events");
        assert!(!replace.has_keys_of(&EventRules { max_depth: 3, ..replace.clone() }));
    }
}
