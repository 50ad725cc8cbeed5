//! Additional columns for values inside `data`: the rules as text, and how they read values.
//!
//! The value that a rule reads is part of a table's layout. It must never change for a rule that a layout contains.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::TimeRule;
use crate::glob;
use crate::json::{FieldPaths, MAX_DEPTH, Pointer, Span, Spans, scan, skip_blanks, unescape};

/// More columns than any known table has. Every 16 columns cost one scan of `data`.
pub const MAX_COLUMNS: usize = 64;
const MAX_NAME_BYTES: usize = 100;
/// The number of decimal digits that every engine reads.
const MAX_PRECISION: u8 = 38;
/// Longer numbers are not parsed.
const MAX_NUMBER_BYTES: usize = 400;

/// A column as configured and as recorded in a layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnRule {
    pub name: String,
    /// JSON pointer within `data`.
    pub pointer: String,
    /// In the form that [`ColumnType::parse`] reads.
    #[serde(rename = "type")]
    pub column_type: String,
    /// Patterns of `domain-event_type`, separated by commas. The column is null in rows of other types.
    pub events: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// 64 bits, signed.
    Int,
    Double,
    Decimal {
        precision: u8,
        scale: i8,
    },
    Boolean,
    String,
    /// Microseconds, UTC.
    Timestamp,
}

impl ColumnType {
    /// # Errors
    /// The text names no type; the message lists the valid ones.
    pub fn parse(text: &str) -> Result<Self, String> {
        let decimal = || {
            let inner = text.strip_prefix("decimal(")?.strip_suffix(')')?;
            let (precision, scale) = inner.split_once(',').unwrap_or((inner, "0"));
            let (precision, scale) = (precision.trim().parse::<u8>().ok()?, scale.trim().parse::<i8>().ok()?);
            let is_sound =
                (1..=MAX_PRECISION).contains(&precision) && u8::try_from(scale).is_ok_and(|scale| scale <= precision);
            is_sound.then_some(Self::Decimal { precision, scale })
        };
        match text {
            "int" => Ok(Self::Int),
            "double" => Ok(Self::Double),
            "boolean" => Ok(Self::Boolean),
            "string" => Ok(Self::String),
            "timestamp" => Ok(Self::Timestamp),
            _ => decimal().ok_or_else(|| {
                format!(
                    "'{text}' is not one of: int, double, boolean, string, timestamp, decimal(p,s) with up to {MAX_PRECISION} digits"
                )
            }),
        }
    }
}

/// The value of a column in one row.
#[derive(Debug, Clone, PartialEq)]
pub enum ColumnValue<'a> {
    Int(i64),
    Double(f64),
    /// The number times 10 to the power of the type's scale.
    Decimal(i128),
    Boolean(bool),
    String(Cow<'a, str>),
    Timestamp(i64),
}

/// The result of reading an event for a column.
#[derive(Debug, Clone, PartialEq)]
pub enum Found<'a> {
    Value(ColumnValue<'a>),
    /// The value is absent or null.
    Nothing,
    /// The value does not fit the column's type.
    Unfit,
}

#[derive(Debug, Clone)]
struct Column {
    column_type: ColumnType,
    pass: usize,
    slot: usize,
    events: Vec<String>,
}

/// The columns of a layout, prepared for reading.
#[derive(Debug, Clone)]
pub struct Columns {
    columns: Vec<Column>,
    /// One scan for each: a scan holds a limited number of pointers.
    passes: Vec<FieldPaths>,
    time: TimeRule,
}

impl Columns {
    /// # Errors
    /// The index of the first invalid rule, its key, and the reason.
    pub fn new(rules: &[ColumnRule], time: TimeRule) -> Result<Self, (usize, &'static str, String)> {
        if let Some(fault) = Self::faults(rules).into_iter().next() {
            return Err(fault);
        }
        let mut columns = Vec::new();
        let mut passes: Vec<FieldPaths> = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let wrong = |key| move |message| (index, key, message);
            let column_type = ColumnType::parse(&rule.column_type).map_err(wrong("type"))?;
            let pointer = Pointer::parse(&rule.pointer).map_err(wrong("pointer"))?;
            let slot = passes.last_mut().and_then(|paths| paths.add(&pointer).ok());
            let slot = match slot {
                Some(slot) => slot,
                None => {
                    let mut paths = FieldPaths::default();
                    let slot = paths.add(&pointer).map_err(wrong("pointer"))?;
                    passes.push(paths);
                    slot
                }
            };
            let events = rule.events.split(',').map(|pattern| pattern.trim().to_owned()).collect();
            columns.push(Column { column_type, pass: passes.len() - 1, slot, events });
        }
        Ok(Self { columns, passes, time })
    }

    /// All errors in `rules`, in their order: the index of the rule, its key, and the reason.
    #[must_use]
    pub fn faults(rules: &[ColumnRule]) -> Vec<(usize, &'static str, String)> {
        let mut faults = Vec::new();
        let mut first_of_name = HashMap::new();
        for (index, rule) in rules.iter().enumerate() {
            let pointer = Pointer::parse(&rule.pointer).and_then(|pointer| FieldPaths::default().add(&pointer));
            // Engines compare column names without regard to case.
            let first = *first_of_name.entry(rule.name.to_ascii_lowercase()).or_insert(index);
            let name = match check_name(&rule.name) {
                Ok(()) if first < index => Err(format!("'{}' is there twice: columns.{first} has it too", rule.name)),
                checked => checked,
            };
            let checked = [
                ("name", name.err()),
                ("pointer", pointer.err()),
                ("type", ColumnType::parse(&rule.column_type).err()),
                ("events", check_events(&rule.events).err()),
            ];
            faults.extend(checked.into_iter().filter_map(|(key, message)| Some((index, key, message?))));
        }
        if rules.len() > MAX_COLUMNS {
            faults.push((MAX_COLUMNS, "name", format!("there are {} columns; at most {MAX_COLUMNS}", rules.len())));
        }
        faults
    }

    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    pub fn types(&self) -> impl Iterator<Item = ColumnType> {
        self.columns.iter().map(|column| column.column_type)
    }

    /// Which columns apply to events of a type, given its name as in folder names.
    pub fn of_type(&self, domain_event_type: &str) -> Vec<bool> {
        let fits = |column: &Column| column.events.iter().any(|pattern| glob::fits(pattern, domain_event_type));
        self.columns.iter().map(fits).collect()
    }

    /// Passes the value in `data` of each column to `take`, in order. Columns not in `wanted` receive nothing.
    pub fn read<'a>(&self, data: &'a str, wanted: &[bool], mut take: impl FnMut(usize, Found<'a>)) {
        let mut spans = Spans::default();
        let mut passed = None;
        // A wanted key that occurs twice makes all columns ambiguous, whatever scan it belongs to. No other error can
        // occur: the event was parsed before.
        let mut is_clear = self.passes.len() == 1
            || self.passes.iter().all(|paths| scan(data.as_bytes(), paths, MAX_DEPTH, &mut spans).is_ok());
        for (index, column) in self.columns.iter().enumerate() {
            if !wanted.get(index).copied().unwrap_or_default() {
                take(index, Found::Nothing);
                continue;
            }
            if passed != Some(column.pass) {
                passed = Some(column.pass);
                let paths = self.passes.get(column.pass);
                is_clear &= paths.is_some_and(|paths| scan(data.as_bytes(), paths, MAX_DEPTH, &mut spans).is_ok());
            }
            let found = match spans.get(column.slot) {
                _ if !is_clear => Found::Unfit,
                None => Found::Nothing,
                Some(Span { start, end, escaped }) => match data.get(start..end) {
                    None | Some("null") => Found::Nothing,
                    Some(raw) => self.value(column.column_type, raw, escaped).map_or(Found::Unfit, Found::Value),
                },
            };
            take(index, found);
        }
    }

    fn value<'a>(&self, column_type: ColumnType, raw: &'a str, escaped: bool) -> Option<ColumnValue<'a>> {
        match column_type {
            ColumnType::Boolean => match raw {
                "true" => Some(ColumnValue::Boolean(true)),
                "false" => Some(ColumnValue::Boolean(false)),
                _ => None,
            },
            ColumnType::String => match text(raw, escaped) {
                None if raw.starts_with('"') => None,
                None => Some(ColumnValue::String(Cow::Borrowed(raw))),
                Some(text) => Some(ColumnValue::String(text)),
            },
            ColumnType::Timestamp => {
                let text = text(raw, escaped)?;
                self.time.parse(&text).ok().map(ColumnValue::Timestamp)
            }
            ColumnType::Int => scaled(&number(raw, escaped)?, 0)?.try_into().ok().map(ColumnValue::Int),
            ColumnType::Double => {
                let value: f64 = number(raw, escaped)?.parse().ok()?;
                value.is_finite().then_some(ColumnValue::Double(value))
            }
            ColumnType::Decimal { precision, scale } => {
                let value = scaled(&number(raw, escaped)?, u32::try_from(scale).ok()?)?;
                (value.unsigned_abs() < 10_u128.pow(u32::from(precision))).then_some(ColumnValue::Decimal(value))
            }
        }
    }
}

/// Names of built-in columns and of partition columns.
const TAKEN: [&str; 9] =
    ["event_id", "timestamp", "domain", "event_type", "data", "domain_event_type", "year", "month", "day"];

fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(is_plain) {
        return Err(format!("'{name}' is not up to {MAX_NAME_BYTES} of a-z, 0-9 and _"));
    }
    if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        return Err(format!("'{name}' must begin with a letter: names that begin with _ are reserved"));
    }
    if TAKEN.contains(&name) {
        return Err(format!("'{name}' is a column of every table"));
    }
    Ok(())
}

fn check_events(patterns: &str) -> Result<(), String> {
    if patterns.split(',').any(|pattern| pattern.trim().is_empty()) {
        let message = "must be patterns of domain-event_type, separated by commas, such as orders-*,*-failed";
        return Err(message.to_owned());
    }
    Ok(())
}

/// The text of a JSON string; `None` for any other value and for a lone surrogate.
fn text(raw: &str, escaped: bool) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if escaped { unescape(inner) } else { Some(Cow::Borrowed(inner)) }
}

/// The text of a JSON number, or of a string that holds one: producers quote numbers that must not be rounded.
fn number(raw: &str, escaped: bool) -> Option<Cow<'_, str>> {
    let text = if raw.starts_with('"') { text(raw, escaped)? } else { Cow::Borrowed(raw) };
    if text.len() > MAX_NUMBER_BYTES || !text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return None;
    }
    // A number by JSON's grammar, with nothing after it.
    let end = scan(text.as_bytes(), &FieldPaths::default(), 1, &mut Spans::default()).ok()?;
    (skip_blanks(text.as_bytes(), end) == text.len() && end == text.len()).then_some(text)
}

/// A JSON number times 10 to the power of `scale`, if that is a whole number of up to 38 digits. Never rounds.
fn scaled(number: &str, scale: u32) -> Option<i128> {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let exponent: i64 = exponent.parse().ok()?;
    let (sign, digits) = mantissa.strip_prefix('-').map_or((1, mantissa), |digits| (-1, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    let mut value: i128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        value = value.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    let mut shift = exponent.checked_add(i64::from(scale))?.checked_sub(i64::try_from(fraction.len()).ok()?)?;
    while shift > 0 && value != 0 {
        value = value.checked_mul(10)?;
        shift -= 1;
    }
    while shift < 0 && value != 0 {
        if value % 10 != 0 {
            return None;
        }
        value /= 10;
        shift += 1;
    }
    Some(sign * value)
}

#[cfg(test)]
mod tests;
