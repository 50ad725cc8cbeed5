//! The layout: everything that decides the rows of each file. Every cut contains the whole layout, and a batch is
//! always written under its cut's layout, by any worker. The encoding (codec, library versions) affects only bytes and
//! is not part of it; its configured part is stored beside it in the cut.

use common::event::{ColumnRule, Columns, EventFormat, EventRules, TimeRule};
use serde::{Deserialize, Serialize};

/// Must be raised whenever the same input would give other rows, including another text of a rejection. The golden test
/// fails until it is.
pub const LAYOUT_VERSION: u32 = 2;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    pub version: u32,
    /// The preset that the rules are based on, for people.
    pub preset: String,
    /// How an event's fields are found and read.
    pub rules: EventRules,
    /// Zone of timestamps that carry none.
    pub timezone: String,
    /// Deduplication window in log time, milliseconds.
    pub window_ms: i64,
    /// Event types one batch may hold.
    pub max_types: u32,
    pub min_year: i64,
    pub max_year: i64,
    pub max_rows_per_file: u64,
    /// Promoted columns for values inside `data`. All files of `events` have them, whatever their type, so that all
    /// have one schema.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<ColumnRule>,
}

impl Layout {
    /// The readers of the layout's columns.
    ///
    /// # Errors
    /// A column that this build does not support.
    pub(crate) fn columns(&self) -> Result<Columns, String> {
        let time = TimeRule::named(&self.timezone)?;
        Columns::new(&self.columns, time).map_err(|(index, key, message)| {
            format!("its layout has an unknown column, columns[{index}].{key}: {message}")
        })
    }

    /// Whether records have the same keys under both: the same ones are events, with the same ids and times.
    pub(crate) fn reads_like(&self, other: &Self) -> bool {
        let Self { version, rules, timezone, .. } = self;
        (version, timezone) == (&other.version, &other.timezone) && rules.has_keys_of(&other.rules)
    }

    /// The reader of events under this layout.
    ///
    /// # Errors
    /// The layout has a version, rules or a time zone that this build does not support: the message names what is
    /// needed.
    pub(crate) fn reader(&self) -> Result<EventFormat, String> {
        if self.version != LAYOUT_VERSION {
            return Err(format!("its layout has version {}, this build writes {LAYOUT_VERSION}", self.version));
        }
        let time = TimeRule::named(&self.timezone)?;
        EventFormat::new(&self.rules, time, None).map_err(|error| format!("its layout has rules unknown here: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use common::event::parse_event;

    use super::*;

    const LAYOUT: &str = r#"{"version":2,"preset":"seed","rules":{"event_id":"/event_id","timestamp":"/timestamp","domain":"/domain","event_type":"const:x","data":"","timestamp_format":"rfc3339","lone_surrogates":"replace","max_depth":3},"timezone":"Europe/Berlin","window_ms":86400000,"max_types":1000,"min_year":1970,"max_year":2100,"max_rows_per_file":1000000}"#;
    const EVENT: &str = r#"{"event_id":"a","timestamp":"2021-07-14T12:00:00","domain":"d","data":[["\ud83d"]]}"#;

    fn read(layout: &str, event: &str) -> Result<(i64, String), String> {
        let layout: Layout = serde_json::from_str(layout).map_err(|error| error.to_string())?;
        let event = parse_event(event.as_bytes(), &layout.reader()?).map_err(|problem| problem.to_string())?;
        Ok((event.timestamp_us, event.data.into_owned()))
    }

    #[test]
    fn a_layout_is_written_as_it_was_read() -> Result<(), serde_json::Error> {
        let layout: Layout = serde_json::from_str(LAYOUT)?;
        assert_eq!(serde_json::to_string(&layout)?, LAYOUT, "every footer contains it");
        Ok(())
    }

    #[test]
    fn a_batch_is_read_under_the_rules_of_its_cut() {
        let read_by = |from: &str, to: &str| read(&LAYOUT.replace(from, to), EVENT);
        let at = 1_626_256_800_000_000;
        assert_eq!(read_by("", ""), Ok((at, EVENT.replace("ud83d", "ufffd"))));
        assert_eq!(read_by("replace", "keep"), Ok((at, EVENT.to_owned())));
        assert!(read_by("replace", "reject").is_err_and(|message| message.contains("half of a surrogate pair")));
        let shallow = read_by("\"max_depth\":3", "\"max_depth\":2");
        assert!(shallow.is_err_and(|message| message.contains("more than 2 arrays and objects")));
        let slashes = LAYOUT.replace("rfc3339", "%d/%m/%Y %H:%M");
        let event = EVENT.replace("2021-07-14T12:00:00", "14/07/2021 12:00");
        assert_eq!(read(&slashes, &event).map(|(time, _)| time), Ok(at), "in the zone of the layout");
    }

    #[test]
    fn layouts_that_differ_only_in_rows_have_the_same_keys() -> Result<(), serde_json::Error> {
        let layout = |from: &str, to: &str| serde_json::from_str::<Layout>(&LAYOUT.replace(from, to));
        let before = layout("", "")?;
        assert!(before.reads_like(&layout("replace", "keep")?) && before.reads_like(&layout("1000,", "7,")?));
        for (from, to) in [("replace", "reject"), ("Berlin", "Paris"), ("rfc3339", "epoch_s"), ("/domain", "/d")] {
            assert!(!before.reads_like(&layout(from, to)?), "{from} -> {to}");
        }
        Ok(())
    }

    #[test]
    fn a_layout_that_this_build_cannot_read_is_refused_with_what_it_needs() {
        for (from, to, part) in [
            ("\"version\":2", "\"version\":3", "version 3, this build writes 2"),
            ("Europe/Berlin", "Mars/Olympus", "'Mars/Olympus' is not an IANA time zone"),
            ("rfc3339", "%Y-%m-%d %K", "%K"),
            ("/domain", "domain", "its layout has rules unknown here: domain: 'domain' is neither"),
            ("\"min_year\"", "\"min_month\"", "unknown field"),
        ] {
            let error = read(&LAYOUT.replace(from, to), EVENT).err().unwrap_or_default();
            assert!(error.contains(part), "{error}");
        }
    }
}
