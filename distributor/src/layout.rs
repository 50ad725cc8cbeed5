//! The layout: everything that decides which rows stand in which file. It stands whole in every cut, and a batch is
//! always written under its cut's layout, whoever writes it. The encoding (codec, library versions) decides bytes only
//! and is not part of it; what of it is configured stands beside it in the cut.

use common::event::{ColumnRule, Columns, EventFormat, EventRules, TimeRule};
use serde::{Deserialize, Serialize};

use crate::reader::EventReader;

/// Raised by hand whenever rows would move for the same input. The golden test fails until it is.
///
/// It is still 1: a layout of version 0.1.0 is known by having no `rules`, and is read as it was then, to the wording
/// of its rejections.
pub const LAYOUT_VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    pub version: u32,
    /// Name of the preset that the rules began with, for people; without rules it decides.
    pub preset: String,
    /// How fields are found in an event. `None` in layouts that were written by version 0.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<EventRules>,
    /// Zone of timestamps that carry none.
    pub timezone: String,
    /// Deduplication window in log time, milliseconds.
    pub window_ms: i64,
    /// Event types one batch may hold.
    pub max_types: u32,
    pub min_year: i64,
    pub max_year: i64,
    pub max_rows_per_file: u64,
    /// Columns of their own for values inside `data`. All files of `events` have them, whatever their type, so that all
    /// have one schema.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<ColumnRule>,
}

impl Layout {
    /// What reads the values of the layout's columns.
    ///
    /// # Errors
    /// A column that this build does not know.
    pub(crate) fn columns(&self) -> Result<Columns, String> {
        let time = TimeRule::named(&self.timezone)?;
        Columns::new(&self.columns, time).map_err(|(index, key, message)| {
            format!("its layout has an unknown column, columns[{index}].{key}: {message}")
        })
    }

    /// Whether records have the same keys under both: the same ones are events, with the same ids and times.
    pub(crate) fn reads_like(&self, other: &Self) -> bool {
        let Self { version, preset, rules, timezone, .. } = self;
        // The preset's name decides only without rules.
        let is_same_preset = rules.is_some() || *preset == other.preset;
        (version, rules, timezone) == (&other.version, &other.rules, &other.timezone) && is_same_preset
    }

    /// What reads events under this layout.
    ///
    /// # Errors
    /// The layout is of a version, or has rules or a time zone, that this build does not have: the message names what is
    /// needed.
    pub(crate) fn reader(&self) -> Result<EventReader, String> {
        if self.version != LAYOUT_VERSION {
            return Err(format!("its layout has version {}, this build writes {LAYOUT_VERSION}", self.version));
        }
        let time = TimeRule::named(&self.timezone)?;
        match &self.rules {
            Some(rules) => {
                let format = EventFormat::new(rules, time, None);
                format.map(EventReader::by_rules).map_err(|error| format!("its layout has rules unknown here: {error}"))
            }
            None if self.preset == "seed" => Ok(EventReader::of_0_1_0(time)),
            None => Err(format!("its layout has the event preset '{}', which this build does not know", self.preset)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_0_1_0: &str = r#"{"version":1,"preset":"seed","timezone":"Europe/Berlin","window_ms":86400000,"max_types":1000,"min_year":1970,"max_year":2100,"max_rows_per_file":1000000}"#;
    const EVENT: &str =
        r#"{"event_id":"a","timestamp":"2021-07-14T12:00:00","domain":"d","event_type":"t","data":[[1]]}"#;

    fn read(layout: &str) -> Result<i64, String> {
        let layout: Layout = serde_json::from_str(layout).map_err(|error| error.to_string())?;
        let event = layout.reader()?.read(EVENT.as_bytes()).map(|event| event.timestamp_us);
        event.map_err(|problem| problem.to_string())
    }

    #[test]
    fn layouts_of_version_0_1_0_are_read_and_written_as_they_were() -> Result<(), serde_json::Error> {
        let layout: Layout = serde_json::from_str(OF_0_1_0)?;
        assert_eq!(serde_json::to_string(&layout)?, OF_0_1_0, "it stands in every footer");
        assert_eq!(read(OF_0_1_0), Ok(1_626_256_800_000_000));
        Ok(())
    }

    #[test]
    fn a_batch_is_read_under_the_rules_of_its_cut() {
        let rules = r#""rules":{"event_id":"/domain","timestamp":"/timestamp","domain":"/domain","event_type":"const:x","data":"","timestamp_format":"rfc3339","max_depth":3},"timezone""#;
        let with_rules = OF_0_1_0.replace("\"timezone\"", rules);
        assert_eq!(read(&with_rules), Ok(1_626_256_800_000_000));
        let shallow = with_rules.replace("\"max_depth\":3", "\"max_depth\":2");
        assert_eq!(read(&shallow), Err("has more than 2 arrays and objects within each other".to_owned()));
    }

    #[test]
    fn a_layout_that_this_build_cannot_read_is_refused_with_what_it_needs() {
        for (from, to, part) in [
            ("\"version\":1", "\"version\":2", "version 2, this build writes 1"),
            ("seed", "other", "event preset 'other'"),
            ("Europe/Berlin", "Mars/Olympus", "'Mars/Olympus' is not an IANA time zone"),
            ("\"min_year\"", "\"min_month\"", "unknown field"),
        ] {
            let error = read(&OF_0_1_0.replace(from, to)).err().unwrap_or_default();
            assert!(error.contains(part), "{error}");
        }
    }
}
