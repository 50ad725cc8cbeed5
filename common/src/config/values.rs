//! Parsers of single values. Each error says what would be right.

use std::time::Duration;

/// A duration such as `30s`, `24h` or `7d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| format!("'{text}' is not a duration such as 30s, 5m, 24h or 7d"))
}

/// A size such as `128MB` (10^6), `64MiB` (2^20) or plain bytes.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit: u64 = match text[digits.len()..].trim() {
        "" | "B" => 1,
        "KB" | "kB" | "k" => 1_000,
        "MB" | "M" => 1_000_000,
        "GB" | "G" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(format!("'{text}' is not a size such as 64MiB, 128MB or 1000000")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("'{text}' is not a size such as 64MiB, 128MB or 1000000"))?;
    number.checked_mul(unit).ok_or_else(|| format!("'{text}' is too large"))
}

/// A whole number within `range`.
pub(super) fn whole(text: &str, range: std::ops::RangeInclusive<i64>) -> Result<i64, String> {
    let wrong = || format!("'{text}' is not a whole number from {} to {}", range.start(), range.end());
    let number: i64 = text.parse().map_err(|_| wrong())?;
    if range.contains(&number) { Ok(number) } else { Err(wrong()) }
}

pub(super) fn flag(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("'{text}' is neither true nor false"))
}

/// A share from 0 to 1.
pub(super) fn ratio(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|ratio| (0.0..=1.0).contains(ratio))
        .ok_or_else(|| format!("'{text}' is not a number from 0 to 1"))
}

/// Name endings, divided by commas.
pub(super) fn suffixes(text: &str) -> Result<Vec<String>, String> {
    let suffixes: Vec<String> = text.split(',').map(|suffix| suffix.trim().to_owned()).collect();
    if suffixes.iter().any(String::is_empty) {
        return Err(format!("'{text}' has an empty ending, which every name has"));
    }
    Ok(suffixes)
}

pub(super) fn queue_url(text: &str) -> Result<String, String> {
    if text.starts_with("https://") || text.starts_with("http://") {
        return Ok(text.to_owned());
    }
    Err(format!("'{text}' is not the URL of a queue (https://sqs.<region>.amazonaws.com/<account>/<name>)"))
}

/// One of the names in `choices`.
pub(super) fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        format!("'{text}' is not one of: {}", names.join(", "))
    })
}

/// A Kafka topic or group name.
pub(super) fn topic_name(text: &str) -> Result<String, String> {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    // `.ledger` is appended, and names also become path segments.
    if text.is_empty() || text.len() > 200 || !text.chars().all(valid) || text.starts_with('.') {
        return Err(format!("'{text}' is not a topic name (letters, digits, '.', '_', '-', at most 200)"));
    }
    Ok(text.to_owned())
}
