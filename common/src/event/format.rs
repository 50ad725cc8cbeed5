//! Reads the five fields of an event from its JSON text, by rules.
//!
//! `data` keeps the bytes of the file: numbers of any size, key order and spacing survive. Only escapes of lone
//! surrogates are replaced, if the rules say so.

#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;

use std::borrow::Cow;

use super::presets::PRESETS;
use super::problem::{EventProblem, FieldName, MAX_ID_BYTES};
use super::rule::{EventRules, Field, FieldRule, LoneSurrogates, RuleError, TemplatePart, TimestampFormat};
use super::time::{TimeRule, TimestampError, parse_epoch};
use crate::json::{
    FieldPaths, MAX_DEPTH, Opened, Pointer, ScanError, ScanErrorKind, Span, Spans, find_array, has_lone_surrogate,
    replace_lone_surrogates, scan, skip_blanks, unescape,
};

/// A valid event. Borrows from its text wherever the text has no escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    pub event_id: Cow<'a, str>,
    /// Microseconds since the Unix epoch, UTC.
    pub timestamp_us: i64,
    pub domain: Cow<'a, str>,
    pub event_type: Cow<'a, str>,
    /// JSON text exactly as written, except for replaced lone surrogates.
    pub data: Cow<'a, str>,
}

impl Event<'_> {
    /// Whether lone surrogates in `data` were replaced.
    pub fn has_replacements(&self) -> bool {
        matches!(self.data, Cow::Owned(_))
    }
}

/// How events are read: the values that their fields come from, the form of times, the nesting limit, and the place of
/// events in wrapper objects.
#[derive(Debug, Clone)]
pub struct EventFormat {
    rules: EventRules,
    time: TimeRule,
    paths: FieldPaths,
    event_id: Source,
    timestamp: Source,
    domain: Source,
    event_type: Source,
    data: Place,
    /// The field name of each slot of `paths`.
    names: Vec<FieldName>,
    records: Option<Records>,
}

/// The place of the array of events in a wrapper object.
#[derive(Debug, Clone)]
struct Records {
    pointer: Pointer,
    paths: FieldPaths,
}

/// A rule with its pointers resolved to slots.
#[derive(Debug, Clone)]
enum Source {
    Value(Place),
    Constant(String),
    Template(Vec<Part>),
}

#[derive(Debug, Clone)]
enum Part {
    Literal(String),
    Value(Place),
}

#[derive(Debug, Clone)]
struct Place {
    slot: usize,
    /// The field that the rule belongs to.
    field: Field,
    name: FieldName,
}

impl Default for EventFormat {
    /// The first preset; times without a zone are in UTC.
    fn default() -> Self {
        // The presets are valid, as a test checks; a format without fields covers the impossible case.
        Self::new(&PRESETS[0].rules(), TimeRule::utc(), None).unwrap_or_else(|_| Self::nothing())
    }
}

impl EventFormat {
    /// `records`: the place of the array of events in wrapper objects; `None` if events are not wrapped.
    ///
    /// # Errors
    /// A rule that cannot be applied.
    pub fn new(rules: &EventRules, time: TimeRule, records: Option<&Pointer>) -> Result<Self, RuleError> {
        if !(1..=MAX_DEPTH).contains(&rules.max_depth) {
            return Err(RuleError { key: "max_depth", message: format!("must be from 1 to {MAX_DEPTH}") });
        }
        let mut format = Self { rules: rules.clone(), time, ..Self::nothing() };
        format.event_id = format.source(Field::EventId)?;
        format.timestamp = format.source(Field::Timestamp)?;
        format.domain = format.source(Field::Domain)?;
        format.event_type = format.source(Field::EventType)?;
        if let Source::Value(place) = format.source(Field::Data)? {
            format.data = place;
        }
        format.records = records.map(Records::new).transpose()?;
        Ok(format)
    }

    /// A format that finds no field in any text.
    fn nothing() -> Self {
        let nowhere = Place { slot: usize::MAX, field: Field::EventId, name: Cow::Borrowed("event_id") };
        Self {
            rules: PRESETS[0].rules(),
            time: TimeRule::utc(),
            paths: FieldPaths::default(),
            event_id: Source::Value(nowhere.clone()),
            timestamp: Source::Value(nowhere.clone()),
            domain: Source::Value(nowhere.clone()),
            event_type: Source::Value(nowhere.clone()),
            data: nowhere,
            names: Vec::new(),
            records: None,
        }
    }

    fn source(&mut self, field: Field) -> Result<Source, RuleError> {
        let wrong = |message| RuleError { key: field.name(), message };
        Ok(match field.rule(self.rules.get(field)).map_err(wrong)? {
            FieldRule::Pointer(pointer) => Source::Value(self.place(field, &pointer)?),
            FieldRule::Constant(text) => Source::Constant(text),
            FieldRule::Template(parts) => Source::Template(
                parts
                    .into_iter()
                    .map(|part| {
                        Ok(match part {
                            TemplatePart::Literal(text) => Part::Literal(text),
                            TemplatePart::Value(pointer) => Part::Value(self.place(field, &pointer)?),
                        })
                    })
                    .collect::<Result<_, _>>()?,
            ),
        })
    }

    fn place(&mut self, field: Field, pointer: &Pointer) -> Result<Place, RuleError> {
        let slot = self.paths.add(pointer).map_err(|message| RuleError { key: field.name(), message })?;
        let name = field.label(pointer);
        if slot == self.names.len() {
            self.names.push(name.clone());
        }
        Ok(Place { slot, field, name })
    }

    /// The same format for events that are not wrapped.
    pub fn without_records(&self) -> Self {
        Self { records: None, ..self.clone() }
    }

    /// The rules as text, as recorded in a layout.
    pub fn rules(&self) -> &EventRules {
        &self.rules
    }

    pub fn time(&self) -> &TimeRule {
        &self.time
    }

    /// The place of the array of events in a wrapper object; `None` if events are not wrapped.
    pub fn records(&self) -> Option<&Pointer> {
        self.records.as_ref().map(|records| &records.pointer)
    }

    pub fn max_depth(&self) -> usize {
        self.rules.max_depth
    }

    /// Scans the event that `bytes` begin with, records the spans of its fields' values, and returns the index of the
    /// byte after it. Does not check the encoding.
    ///
    /// # Errors
    /// No JSON value begins there, or it is nested too deeply or has a wanted key twice.
    #[inline]
    pub fn scan(&self, bytes: &[u8], spans: &mut Spans) -> Result<usize, ScanError> {
        scan(bytes, &self.paths, self.rules.max_depth, spans)
    }

    /// Scans the head of a wrapper object up to its array of events. [`Opened::None`] without a records pointer.
    ///
    /// # Errors
    /// As [`EventFormat::scan`].
    pub fn scan_to_records(&self, bytes: &[u8]) -> Result<Opened, ScanError> {
        match &self.records {
            Some(records) => find_array(bytes, &records.paths, self.rules.max_depth),
            None => self.scan(bytes, &mut Spans::default()).map(|end| Opened::None { end }),
        }
    }

    /// Reads the event in `bytes` from the spans of its scan.
    ///
    /// # Errors
    /// The first error: the encoding, then the fields in the documented order.
    #[inline]
    pub fn read<'a>(&self, bytes: &'a [u8], spans: &Spans) -> Result<Event<'a>, EventProblem> {
        // The scan does not check the encoding.
        let text = simdutf8::basic::from_utf8(bytes).map_err(|_| EventProblem::NotUtf8)?;
        let values = Values { text, spans };
        let event_id = values.text_of(&self.event_id)?;
        if event_id.len() > MAX_ID_BYTES {
            return Err(EventProblem::IdTooLong(self.event_id.name(Field::EventId)));
        }
        let timestamp_us = self.micros(&values)?;
        let domain = values.text_of(&self.domain)?;
        let event_type = values.text_of(&self.event_type)?;
        let data = values.raw(&self.data).map_err(|defect| defect.of(&self.data))?.0;
        let data = if spans.has_surrogates() { self.data_with_surrogates(data)? } else { Cow::Borrowed(data) };
        Ok(Event { event_id, timestamp_us, domain, event_type, data })
    }

    #[inline]
    fn micros(&self, values: &Values<'_, '_>) -> Result<i64, EventProblem> {
        let micros = match &self.rules.timestamp_format {
            TimestampFormat::Rfc3339 => self.time.parse(&self.text_of_time(values)?),
            TimestampFormat::Pattern(pattern) => {
                let text = self.scalar_of_time(values, "a string or a number")?;
                pattern.read(&text, &self.time)
            }
            epoch => parse_epoch(&self.scalar_of_time(values, "a number or a string of digits")?, epoch),
        };
        micros.map_err(|error| self.bad_timestamp(error))
    }

    #[inline]
    fn text_of_time<'a>(&self, values: &Values<'a, '_>) -> Result<Cow<'a, str>, EventProblem> {
        match &self.timestamp {
            Source::Value(place) => values.string(place).map_err(|defect| match defect {
                Defect::NotAString if values.is_number(place) => EventProblem::NumberForTime(place.name.clone()),
                defect => defect.of(place),
            }),
            other => values.text_of(other),
        }
    }

    /// As `scalar`, but numbers keep their text.
    fn scalar_of_time<'a>(&self, values: &Values<'a, '_>, wanted: &'static str) -> Result<Cow<'a, str>, EventProblem> {
        match &self.timestamp {
            Source::Value(place) => values.scalar(place, wanted),
            other => values.text_of(other),
        }
    }

    #[cold]
    fn bad_timestamp(&self, error: TimestampError) -> EventProblem {
        let message = match (error, &self.rules.timestamp_format) {
            (TimestampError::Pattern, TimestampFormat::Pattern(pattern)) => {
                format!("does not fit format.timestamp_format = \"{pattern}\"")
            }
            (error, _) => error.to_string(),
        };
        EventProblem::BadTimestamp { field: self.timestamp.name(Field::Timestamp), message }
    }

    /// `data` of an event that contains surrogates, paired or lone.
    #[cold]
    fn data_with_surrogates<'a>(&self, data: &'a str) -> Result<Cow<'a, str>, EventProblem> {
        match self.rules.lone_surrogates {
            LoneSurrogates::Replace => Ok(replace_lone_surrogates(data)),
            LoneSurrogates::Reject if has_lone_surrogate(data) => {
                Err(EventProblem::LoneSurrogateInData(self.data.name.clone()))
            }
            LoneSurrogates::Reject | LoneSurrogates::Keep => Ok(Cow::Borrowed(data)),
        }
    }

    /// Returns the reason why `bytes` are not an event.
    pub fn explain(&self, bytes: &[u8]) -> EventProblem {
        if simdutf8::basic::from_utf8(bytes).is_err() {
            return EventProblem::NotUtf8;
        }
        match self.scan(bytes, &mut Spans::default()) {
            Err(error) => self.problem(&error),
            Ok(end) => match skip_blanks(bytes, end) {
                end if end < bytes.len() => EventProblem::NotJson(format!("more than one value, at byte {end}")),
                _ => EventProblem::NotAnObject,
            },
        }
    }

    /// The problem that an error of [`EventFormat::scan`] represents.
    pub fn problem(&self, error: &ScanError) -> EventProblem {
        let name = |slot: usize| self.names.get(slot).cloned().unwrap_or(Cow::Borrowed("data"));
        EventProblem::of_scan(error, self.rules.max_depth, name)
    }

    /// The problem that an error of [`EventFormat::scan_to_records`] represents.
    pub fn wrapper_problem(&self, error: &ScanError) -> EventProblem {
        let pointer = self.records().map(Pointer::to_string).unwrap_or_default();
        EventProblem::of_scan(error, self.rules.max_depth, |_| Cow::Owned(pointer))
    }
}

impl Records {
    fn new(pointer: &Pointer) -> Result<Self, RuleError> {
        let wrong = |message| RuleError { key: "records", message };
        if pointer.is_whole() {
            let hint = "arrays at the top are read without it; it must be a JSON pointer such as /Records";
            return Err(wrong(hint.to_owned()));
        }
        let mut paths = FieldPaths::default();
        paths.add_through_objects(pointer).map_err(wrong)?;
        Ok(Self { pointer: pointer.clone(), paths })
    }
}

impl Source {
    /// The name of the field in messages.
    fn name(&self, field: Field) -> FieldName {
        match self {
            Self::Value(place) => place.name.clone(),
            Self::Constant(_) | Self::Template(_) => Cow::Borrowed(field.name()),
        }
    }
}

/// The values that a scan found in an event's text.
struct Values<'a, 'b> {
    text: &'a str,
    spans: &'b Spans,
}

/// The reason why a value is invalid. Small, because every field that is read returns it.
enum Defect {
    Missing,
    NotAString,
    WrongKind(&'static str),
    Empty,
    HalfAPair,
}

impl Defect {
    #[cold]
    fn of(self, place: &Place) -> EventProblem {
        let field = place.name.clone();
        match self {
            Self::Missing => EventProblem::MissingField { field: place.field, name: field },
            Self::NotAString => EventProblem::NotAString(field),
            Self::WrongKind(wanted) => EventProblem::WrongKind { field, wanted },
            Self::Empty => EventProblem::EmptyField(field),
            Self::HalfAPair => EventProblem::LoneSurrogate(field),
        }
    }
}

impl<'a> Values<'a, '_> {
    /// The text of a value, and whether it is a string with escapes.
    #[inline(always)]
    fn raw(&self, place: &Place) -> Result<(&'a str, bool), Defect> {
        let Span { start, end, escaped } = self.spans.get(place.slot).ok_or(Defect::Missing)?;
        self.text.get(start..end).map(|raw| (raw, escaped)).ok_or(Defect::Missing)
    }

    #[inline(always)]
    fn text_of(&self, source: &Source) -> Result<Cow<'a, str>, EventProblem> {
        match source {
            Source::Value(place) => self.string(place).map_err(|defect| defect.of(place)),
            Source::Constant(text) => Ok(Cow::Owned(text.clone())),
            Source::Template(parts) => self.filled(parts).map(Cow::Owned),
        }
    }

    fn filled(&self, parts: &[Part]) -> Result<String, EventProblem> {
        let mut text = String::new();
        for part in parts {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Value(place) => text.push_str(&self.scalar(place, "a string, a number, true or false")?),
            }
        }
        Ok(text)
    }

    /// A non-empty string. `null` counts as missing, as most producers mean it.
    #[inline(always)]
    fn string(&self, place: &Place) -> Result<Cow<'a, str>, Defect> {
        let (raw, escaped) = self.raw(place)?;
        match raw.as_bytes() {
            [b'"', b'"'] => Err(Defect::Empty),
            [b'"', ..] if escaped => unescaped(raw),
            [b'"', .., b'"'] => Ok(Cow::Borrowed(raw.get(1..raw.len() - 1).unwrap_or_default())),
            b"null" => Err(Defect::Missing),
            _ => Err(Defect::NotAString),
        }
    }

    fn is_number(&self, place: &Place) -> bool {
        self.raw(place).is_ok_and(|(raw, _)| raw.starts_with(|first: char| first == '-' || first.is_ascii_digit()))
    }

    /// A non-empty string, or the text of a number or boolean.
    fn scalar(&self, place: &Place, wanted: &'static str) -> Result<Cow<'a, str>, EventProblem> {
        match self.string(place) {
            Err(Defect::NotAString) => match self.raw(place) {
                Ok((raw, _)) if !raw.starts_with(['{', '[']) => Ok(Cow::Borrowed(raw)),
                _ => Err(Defect::WrongKind(wanted)),
            },
            text => text,
        }
        .map_err(|defect| defect.of(place))
    }
}

/// The text of a string with escapes.
fn unescaped(raw: &str) -> Result<Cow<'_, str>, Defect> {
    let inner = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.and_then(unescape).ok_or(Defect::HalfAPair)
}

/// Parses one event from exactly its bytes; whitespace around it is allowed.
///
/// # Errors
/// The reason why it is not an event, as precisely as possible.
pub fn parse_event<'a>(bytes: &'a [u8], format: &EventFormat) -> Result<Event<'a>, EventProblem> {
    let is_object = bytes.get(skip_blanks(bytes, 0)) == Some(&b'{');
    let mut spans = Spans::default();
    match format.scan(bytes, &mut spans) {
        Ok(end) if is_object && skip_blanks(bytes, end) == bytes.len() => format.read(bytes, &spans),
        Err(ScanError { kind: ScanErrorKind::Duplicate { end, .. }, .. }) if skip_blanks(bytes, end) < bytes.len() => {
            Err(EventProblem::NotJson(format!("more than one value, at byte {}", skip_blanks(bytes, end))))
        }
        _ => Err(format.explain(bytes)),
    }
}

#[cfg(test)]
mod tests;
