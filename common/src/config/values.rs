//! Parsers of single values. Each error says what a correct value is.

use std::time::Duration;

/// Ten years of 365.25 days, as humantime counts them. Sums of a time and a few such durations cannot overflow.
pub(super) const MAX_DURATION: Duration = Duration::from_secs(10 * YEAR_SECONDS);
const YEAR_SECONDS: u64 = 31_557_600;

/// A duration such as `30s`, `24h` or `7d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|_| format!("'{text}' is not a duration such as 30s, 5m, 24h or 7d"))?;
    if duration > MAX_DURATION {
        return Err(format!("'{text}' is longer than {}", show_duration(MAX_DURATION)));
    }
    Ok(duration)
}

/// A duration in the largest unit that fits, as written in a file.
pub(super) fn show_duration(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    if millis > 0 {
        return format!("{}ms", duration.as_millis());
    }
    let units = [("y", YEAR_SECONDS), ("d", 86_400), ("h", 3_600), ("m", 60)];
    let fitting = units.into_iter().find(|(_, unit)| seconds > 0 && seconds.is_multiple_of(*unit));
    fitting.map_or_else(|| format!("{seconds}s"), |(name, unit)| format!("{}{name}", seconds / unit))
}

/// A size in the largest unit that fits, as written in a file.
pub(super) fn show_bytes(bytes: u64) -> String {
    let units = [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("KB", 1_000)];
    let fitting = units.into_iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
    fitting.map_or_else(|| bytes.to_string(), |(name, unit)| format!("{}{name}", bytes / unit))
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
        "TB" | "T" => 1_000_000_000_000,
        "TiB" => 1 << 40,
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

pub(super) fn prefixes(text: &str) -> Result<Vec<String>, String> {
    let prefixes: Vec<String> = text.split(',').map(|prefix| prefix.trim().to_owned()).collect();
    if prefixes.iter().any(String::is_empty) {
        return Err(format!("'{text}' has an empty beginning, which every name has"));
    }
    if prefixes.iter().any(|prefix| prefix.contains('/')) {
        return Err(format!("'{text}' has a '/': give the beginning of a file's or folder's name"));
    }
    Ok(prefixes)
}

pub(super) fn queue_url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let (host, path) = rest.and_then(|rest| rest.split_once('/')).unwrap_or_default();
    if host.is_empty() || path.is_empty() || host.contains('@') || text.contains(char::is_whitespace) {
        return Err(format!(
            "'{text}' is not the URL of a queue (https://sqs.<region>.amazonaws.com/<account>/<name>)"
        ));
    }
    Ok(text.to_owned())
}

/// An address to listen on.
pub(super) fn listen_address(text: &str) -> Result<String, String> {
    if text.parse::<std::net::SocketAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    let port = text.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).unwrap_or(8080);
    let hint = match text.rsplit_once(':').map_or("", |(host, _)| host) {
        "localhost" => format!("127.0.0.1:{port}"),
        _ => format!("0.0.0.0:{port}"),
    };
    Err(format!("'{text}' is not an IP address with a port; did you mean {hint}?"))
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

/// The topic of events, from which the names of the others derive.
pub(super) fn events_topic(text: &str) -> Result<String, String> {
    if text.starts_with("__") {
        return Err(format!("'{text}' begins with __, as the topics that Kafka keeps for itself"));
    }
    topic_name(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_and_sizes_are_shown_in_the_largest_unit_that_fits() {
        let millis = |millis| show_duration(Duration::from_millis(millis));
        let reported = [millis(0), millis(1), millis(1_500), millis(90_000), millis(120_000), millis(86_400_000)];
        assert_eq!(reported, ["0s", "1ms", "1500ms", "90s", "2m", "1d"]);
        assert_eq!(show_duration(MAX_DURATION), "10y");
        let reported = [0, 1, 1_000, 1_500, 8_000_000, 64_000_000_000, 1_000_000_000_000].map(show_bytes);
        assert_eq!(reported, ["0", "1", "1KB", "1500", "8MB", "64GB", "1TB"]);
    }

    #[test]
    fn sizes_have_decimal_and_binary_units() {
        for (text, expected) in
            [("7", 7), ("1 KB", 1_000), ("1KiB", 1_024), ("2TB", 2_000_000_000_000), ("1TiB", 1 << 40)]
        {
            assert_eq!(bytes(text), Ok(expected));
        }
        for bad in ["", "MB", "-1MB", "1.5GB", "1mb", "1 M B", "18446744073709551616", "18446744073709551615KB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_to_listen_on_has_a_port() {
        for (text, meant) in [
            ("8080", "0.0.0.0:8080"),
            (":9090", "0.0.0.0:9090"),
            ("localhost:9090", "127.0.0.1:9090"),
            ("0.0.0.0", "0.0.0.0:8080"),
            ("http://x", "0.0.0.0:8080"),
        ] {
            let reported = listen_address(text).err().unwrap_or_default();
            assert!(reported.contains(&format!("did you mean {meant}?")), "{reported}");
        }
        assert!(listen_address("[::]:8080").is_ok() && listen_address("127.0.0.1:0").is_ok());
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(millis in 0_u64..=315_576_000_000, size in any::<u64>()) {
            let duration_of_it = Duration::from_millis(millis);
            prop_assert_eq!(duration(&show_duration(duration_of_it)), Ok(duration_of_it));
            prop_assert_eq!(bytes(&show_bytes(size)), Ok(size));
        }

        #[test]
        fn no_text_is_a_reason_to_panic(text in any::<String>()) {
            let _ = (duration(&text), bytes(&text), listen_address(&text), queue_url(&text), events_topic(&text));
        }
    }
}
