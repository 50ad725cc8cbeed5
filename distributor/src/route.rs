//! Maps a record to its folder: a pure function of the record and the layout.

#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;

use std::fmt::Write;

use common::event::{Event, EventFormat, EventProblem, civil_from_micros, parse_event};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::layout::Layout;

/// Longest `name=value` segment of a path, in bytes: below every store's limit for one segment.
const MAX_SEGMENT_BYTES: usize = 200;

/// Enough for most event_ids with their timestamps.
const SHORT_KEY_BYTES: usize = 128;

/// 128-bit fingerprint of the deduplication key: event_id and the timestamp as stored (microseconds).
///
/// The timestamp has a fixed width, so different pairs never hash the same bytes. Two of n keys collide with
/// probability n²/2¹²⁹: below 10⁻¹⁸ for ten billion.
pub(crate) fn fingerprint(event_id: &str, timestamp_us: i64) -> u128 {
    let (id, time) = (event_id.as_bytes(), timestamp_us.to_le_bytes());
    // Hashes a short key in one piece, as nearly all are: the same hash, without streaming state.
    let mut both = [0; SHORT_KEY_BYTES];
    if let Some((place, rest)) = both.split_at_mut_checked(id.len())
        && let Some(rest) = rest.first_chunk_mut()
    {
        place.copy_from_slice(id);
        *rest = time;
        return xxh3_128(&both[..id.len() + time.len()]);
    }
    let mut hash = Xxh3::new();
    hash.update(id);
    hash.update(&time);
    hash.digest128()
}

/// The reason why a record is not a row of `events`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// The record's value is not an event.
    NotAnEvent(EventProblem),
    /// The record has no value.
    NullValue,
    YearOutOfRange,
    TypeTooLong,
    TooManyTypes,
}

impl Rejection {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::NotAnEvent(problem) => problem.code(),
            Self::NullValue => "null_value",
            Self::YearOutOfRange => "year_out_of_range",
            Self::TypeTooLong => "type_too_long",
            Self::TooManyTypes => "too_many_types",
        }
    }

    pub(crate) fn detail(&self, layout: &Layout) -> String {
        match self {
            Self::NotAnEvent(problem) => problem.to_string(),
            Self::NullValue => "the record has no value".to_owned(),
            Self::YearOutOfRange => format!(
                "the year is not within {} to {} (trusted.min_year, trusted.max_year)",
                layout.min_year, layout.max_year
            ),
            Self::TypeTooLong => {
                format!("domain and event_type make a path segment of more than {MAX_SEGMENT_BYTES} bytes")
            }
            Self::TooManyTypes => {
                format!("the batch holds {} event types already (trusted.max_types)", layout.max_types)
            }
        }
    }
}

/// Parses a record's value as an event.
pub(crate) fn read_event<'a>(value: Option<&'a [u8]>, format: &EventFormat) -> Result<Event<'a>, Rejection> {
    parse_event(value.ok_or(Rejection::NullValue)?, format).map_err(Rejection::NotAnEvent)
}

/// The folder of an event below the trusted zone: `events/domain_event_type=…/year=…/month=…/day=…`.
pub(crate) fn folder(event: &Event<'_>, layout: &Layout) -> Result<String, Rejection> {
    let date = civil_from_micros(event.timestamp_us);
    if date.year < layout.min_year || date.year > layout.max_year {
        return Err(Rejection::YearOutOfRange);
    }
    let mut path = String::with_capacity(96);
    path.push_str("events/domain_event_type=");
    let segment = "events/".len();
    escape_into(&mut path, &event.domain);
    path.push('-');
    escape_into(&mut path, &event.event_type);
    if path.len() - segment > MAX_SEGMENT_BYTES {
        return Err(Rejection::TypeTooLong);
    }
    // Writing to a String cannot fail.
    let _ = write!(path, "/year={:04}/month={:02}/day={:02}", date.year, date.month, date.day);
    Ok(path)
}

/// The type in an event's folder, `domain-event_type` with escapes; `None` for the folder of rejected rows.
pub(crate) fn type_of(folder: &str) -> Option<&str> {
    folder.strip_prefix("events/domain_event_type=")?.split('/').next()
}

/// The folder of rejected rows: by the UTC date of the record's log-append time.
pub(crate) fn rejected_folder(log_time_ms: i64) -> String {
    let date = civil_from_micros(log_time_ms.saturating_mul(1000));
    format!("rejected/year={:04}/month={:02}/day={:02}", date.year, date.month, date.day)
}

/// Escapes the characters that Hive escapes in partition values (`FileUtils.escapePathName`), so that every engine
/// reads the value back.
fn escape_into(path: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\0'..='\u{1f}'
            | '\u{7f}'
            | '"'
            | '#'
            | '%'
            | '\''
            | '*'
            | '/'
            | ':'
            | '='
            | '?'
            | '\\'
            | '{'
            | '['
            | ']'
            | '^' => {
                let _ = write!(path, "%{:02X}", u32::from(character));
            }
            _ => path.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::*;

    fn layout() -> Layout {
        crate::batch::testing::layout()
    }

    fn event<'a>(domain: &'a str, event_type: &'a str, timestamp_us: i64) -> Event<'a> {
        Event {
            event_id: Cow::Borrowed("e"),
            timestamp_us,
            domain: Cow::Borrowed(domain),
            event_type: Cow::Borrowed(event_type),
            data: Cow::Borrowed("{}"),
        }
    }

    #[test]
    fn folders_are_hive_partitions_of_the_utc_date() {
        let at = 1_610_619_330_000_000;
        let folder_of = |domain, event_type| folder(&event(domain, event_type, at), &layout());
        assert_eq!(
            folder_of("account", "status-change"),
            Ok("events/domain_event_type=account-status-change/year=2021/month=01/day=14".into())
        );
        assert_eq!(
            folder_of("../..", "a/b=c%"),
            Ok("events/domain_event_type=..%2F..-a%2Fb%3Dc%25/year=2021/month=01/day=14".into())
        );
        let of_a_slash = folder_of("a/b", "t-1").unwrap_or_default();
        assert_eq!((type_of(&of_a_slash), type_of(&rejected_folder(0))), (Some("a%2Fb-t-1"), None));
        assert_eq!(folder_of(&"d".repeat(200), "t"), Err(Rejection::TypeTooLong));
        assert_eq!(folder(&event("d", "t", -62_000_000_000_000_000), &layout()), Err(Rejection::YearOutOfRange));
        assert_eq!(rejected_folder(1_610_619_330_000), "rejected/year=2021/month=01/day=14");
    }

    #[test]
    fn the_key_is_the_pair() {
        assert_eq!(fingerprint("a", 1), fingerprint("a", 1));
        assert_ne!(fingerprint("a", 1), fingerprint("a", 2));
        assert_ne!(fingerprint("a", 1), fingerprint("b", 1));
        // Key runs in the store contain it, whatever the length.
        for id in (0..=300).map(|length| "x".repeat(length)) {
            let pair = [id.as_bytes(), &(-5_i64).to_le_bytes()].concat();
            assert_eq!(fingerprint(&id, -5), xxh3_128(&pair), "{}", id.len());
        }
    }

    proptest! {
        #[test]
        fn no_event_leaves_its_place(domain in ".{1,80}", event_type in ".{1,80}") {
            if let Ok(path) = folder(&event(&domain, &event_type, 0), &layout()) {
                let segments: Vec<_> = path.split('/').collect();
                prop_assert_eq!(segments.len(), 5, "{}", path);
                prop_assert!(segments.iter().all(|segment| !segment.is_empty() && *segment != "." && *segment != ".." && segment.len() <= 200));
                let lowest_control = path.chars().filter(|c| c.is_control()).min();
                prop_assert!(lowest_control.is_none_or(|c| c > '\u{7f}'), "{:?}", path);
            }
        }
    }
}
