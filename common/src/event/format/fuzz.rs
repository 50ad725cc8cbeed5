//! The input is the text of one event.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "an oracle reports a failure by a panic")]

use std::sync::LazyLock;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::*;
use crate::event::{ColumnRule, ColumnType, ColumnValue, Columns, Found};

/// The default format first.
static FORMATS: LazyLock<Vec<EventFormat>> = LazyLock::new(|| {
    let mut formats = vec![EventFormat::default()];
    let mut add = |rules: EventRules| formats.push(EventFormat::new(&rules, TimeRule::utc(), None).unwrap());
    PRESETS[1..].iter().for_each(|preset| add(preset.rules()));
    for format in ["epoch_s", "epoch_ns", "%Y-%m-%d %H:%M:%S"] {
        add(EventRules { timestamp_format: TimestampFormat::parse(format).unwrap(), ..PRESETS[0].rules() });
    }
    add(EventRules { lone_surrogates: LoneSurrogates::Reject, max_depth: 3, ..PRESETS[0].rules() });
    let event_id = "template:{/domain}-{/data/id}{{}}".to_owned();
    add(EventRules { event_id, domain: "const:d".to_owned(), ..PRESETS[0].rules() });
    formats
});
/// Reads an event of any format once it is rewritten in the default one.
static PLAIN: LazyLock<EventFormat> = LazyLock::new(|| {
    let (lone_surrogates, max_depth) = (LoneSurrogates::Keep, MAX_DEPTH);
    EventFormat::new(&EventRules { lone_surrogates, max_depth, ..PRESETS[0].rules() }, TimeRule::utc(), None).unwrap()
});
const TYPES: [&str; 6] = ["int", "double", "decimal(9,2)", "boolean", "string", "timestamp"];
static COLUMNS: LazyLock<Columns> = LazyLock::new(|| {
    let rule = |kind: &str| ColumnRule {
        name: format!("c{}", kind.len()),
        pointer: "/v".to_owned(),
        column_type: kind.to_owned(),
        events: "*".to_owned(),
    };
    let mut rules = TYPES.map(rule);
    rules.iter_mut().zip('a'..).for_each(|(rule, letter)| rule.name.push(letter));
    Columns::new(&rules, TimeRule::utc()).unwrap()
});

/// In the default format an event is accepted, with its fields, as by an independent parser. In every format the fields are
/// valid and give the same event when they are rewritten. Columns have the exact values of `data`.
pub fn event(input: &[u8]) {
    for (number, format) in FORMATS.iter().enumerate() {
        let read = parse_event(input, format);
        let spread = [b" \n".as_slice(), input, b"\r\t"].concat();
        assert_eq!(parse_event(&spread, format).ok(), read.clone().ok(), "with blanks around");
        if let Ok(event) = &read {
            fields(input, event);
            rewritten(event);
            if number == 0 {
                columns(&event.data);
            }
        }
        if number == 0 {
            independently(input, &read);
        }
    }
}

fn fields(input: &[u8], event: &Event<'_>) {
    let Event { event_id, domain, event_type, data, .. } = event;
    assert!(!event_id.is_empty() && event_id.len() <= MAX_ID_BYTES && !domain.is_empty() && !event_type.is_empty());
    assert_eq!(scan(data.as_bytes(), &FieldPaths::default(), MAX_DEPTH, &mut Spans::default()), Ok(data.len()));
    assert!(data.len() <= input.len());
    if !event.has_replacements() {
        assert!(memchr::memmem::find(input, data.as_bytes()).is_some(), "data is not as it was written");
    }
}

fn rewritten(event: &Event<'_>) {
    let Some(time) = Timestamp::from_microsecond(event.timestamp_us).ok().map(|time| time.to_string()) else { return };
    if time.starts_with('-') {
        return;
    }
    let [event_id, domain, event_type, time] = [&event.event_id, &event.domain, &event.event_type, &time.into()]
        .map(|text: &Cow<'_, str>| serde_json::to_string(text).unwrap());
    let data = &event.data;
    let text = format!(
        r#"{{"data":{data},"event_type":{event_type},"domain":{domain},"timestamp":{time},"event_id":{event_id}}}"#
    );
    assert_eq!(parse_event(text.as_bytes(), &PLAIN).as_ref(), Ok(event), "{text}");
}

#[derive(Deserialize)]
struct Independent<'a> {
    #[serde(borrow)]
    event_id: &'a RawValue,
    #[serde(borrow)]
    timestamp: &'a RawValue,
    #[serde(borrow)]
    domain: &'a RawValue,
    #[serde(borrow)]
    event_type: &'a RawValue,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl<'a> Independent<'a> {
    fn event(&self) -> Option<Event<'a>> {
        let text = |raw: &RawValue| serde_json::from_str::<String>(raw.get()).ok().filter(|text| !text.is_empty());
        Some(Event {
            event_id: text(self.event_id).filter(|id| id.len() <= MAX_ID_BYTES)?.into(),
            timestamp_us: TimeRule::utc().parse(&text(self.timestamp)?).ok()?,
            domain: text(self.domain)?.into(),
            event_type: text(self.event_type)?.into(),
            data: replace_lone_surrogates(self.data.get()),
        })
    }
}

fn independently(input: &[u8], read: &Result<Event<'_>, EventProblem>) {
    let Ok(text) = std::str::from_utf8(input) else {
        assert!(read.is_err(), "it is not UTF-8");
        return;
    };
    match serde_json::from_str::<Independent<'_>>(text) {
        Ok(_) if matches!(read, Err(EventProblem::TooDeep { .. })) => {}
        // That parser also takes an array of the fields.
        Ok(_) if !text.trim_start().starts_with('{') => assert!(read.is_err()),
        Ok(independent) => assert_eq!(read.as_ref().ok(), independent.event().as_ref(), "{read:?}"),
        // That parser refuses keys with half of a surrogate pair.
        Err(_) if text.to_ascii_lowercase().contains("\\ud") => {}
        Err(error) => assert!(read.is_err(), "{error}"),
    }
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    v: Option<&'a RawValue>,
}

fn columns(data: &str) {
    let value = match serde_json::from_str::<Data<'_>>(data) {
        Ok(Data { v }) if data.starts_with('{') => v.map(RawValue::get),
        Ok(_) => None,
        Err(_) if data.starts_with('{') => return,
        Err(_) => None,
    };
    let mut found = Vec::new();
    COLUMNS.read(data, &[true; TYPES.len()], |_, value| found.push(value));
    assert_eq!(found.len(), TYPES.len());
    for (found, column_type) in found.into_iter().zip(COLUMNS.types()) {
        match value {
            None => assert_eq!(found, Found::Nothing, "{column_type:?}"),
            Some(value) => column(value, column_type, &found),
        }
    }
}

fn column(value: &str, column_type: ColumnType, found: &Found<'_>) {
    let text = serde_json::from_str::<String>(value).ok();
    let expected = match column_type {
        ColumnType::Boolean => serde_json::from_str(value).ok().map(ColumnValue::Boolean),
        ColumnType::String if value.starts_with('"') => text.map(|text| ColumnValue::String(text.into())),
        ColumnType::String => Some(ColumnValue::String(value.into())),
        ColumnType::Timestamp => text.and_then(|text| TimeRule::utc().parse(&text).ok()).map(ColumnValue::Timestamp),
        ColumnType::Int => exact(value, text, 0).and_then(|whole| i64::try_from(whole).ok()).map(ColumnValue::Int),
        ColumnType::Decimal { precision, scale } => {
            let fits = |whole: &i128| whole.unsigned_abs() < 10_u128.pow(u32::from(precision));
            exact(value, text, i64::from(scale)).filter(fits).map(ColumnValue::Decimal)
        }
        ColumnType::Double => {
            let value = number(value, text).and_then(|number| number.parse().ok());
            value.filter(|value: &f64| value.is_finite()).map(ColumnValue::Double)
        }
    };
    match (found, expected) {
        (Found::Value(value), expected) => assert_eq!(Some(value), expected.as_ref(), "{column_type:?}"),
        (Found::Nothing, _) => unreachable!("there is a value: {value}"),
        // Numbers with many zeros may have more digits than are counted.
        (Found::Unfit, Some(ColumnValue::Int(_) | ColumnValue::Decimal(_))) => {
            assert!(value.bytes().filter(u8::is_ascii_digit).count() > 38, "{column_type:?} of {value}");
        }
        (Found::Unfit, expected) => assert_eq!(expected, None, "{column_type:?} of {value}"),
    }
}

/// The text of a number, or of one in a string.
fn number(value: &str, text: Option<String>) -> Option<String> {
    let number = text.unwrap_or_else(|| value.to_owned());
    let begins = number.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    let is_number = begins && number.trim() == number && serde_json::from_str::<IgnoredAny>(&number).is_ok();
    (is_number && number.len() <= 400).then_some(number)
}

/// A number times ten to the power of `scale`, if that is an integer: its significant digits, shifted.
fn exact(value: &str, text: Option<String>, scale: i64) -> Option<i128> {
    let number = number(value, text)?;
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((&number, "0"));
    let point = mantissa.find('.').map_or(0, |point| mantissa.len() - point - 1);
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let digits = digits.trim_start_matches('0');
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return exponent.parse::<i64>().is_ok().then_some(0);
    }
    let zeros = i64::try_from(digits.len() - significant.len()).ok()?;
    let moved = exponent.parse::<i64>().ok()?.checked_add(scale)?.checked_add(zeros)?;
    let moved = moved.checked_sub(i64::try_from(point).ok()?)?;
    let whole = significant.parse::<i128>().ok()?.checked_mul(10_i128.checked_pow(u32::try_from(moved).ok()?)?)?;
    Some(if mantissa.starts_with('-') { -whole } else { whole })
}
