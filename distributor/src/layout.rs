//! The layout: everything that decides which rows stand in which file. It stands whole in every cut, and a batch is
//! always written under its cut's layout, whoever writes it. The encoding (codec, library versions) decides bytes only
//! and is not part of it.

use common::event::{EventFormat, TimeRule};
use serde::{Deserialize, Serialize};

/// Raised by hand whenever rows would move for the same input. The golden test fails until it is.
pub const LAYOUT_VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    pub version: u32,
    /// How fields are found in an event.
    pub preset: String,
    /// Zone of timestamps that carry none.
    pub timezone: String,
    /// Deduplication window in log time, milliseconds.
    pub window_ms: i64,
    /// Event types one batch may hold.
    pub max_types: u32,
    pub min_year: i64,
    pub max_year: i64,
    pub max_rows_per_file: u64,
}

impl Layout {
    /// The rules for reading events under this layout.
    ///
    /// # Errors
    /// The layout is of a version, preset or time zone this build does not have: the message names what is needed.
    pub fn event_format(&self) -> Result<EventFormat, String> {
        if self.version != LAYOUT_VERSION {
            return Err(format!("its layout has version {}, this build writes {LAYOUT_VERSION}", self.version));
        }
        if self.preset != "seed" {
            return Err(format!("its layout has the event preset '{}', which this build does not know", self.preset));
        }
        Ok(EventFormat { time: TimeRule::named(&self.timezone)? })
    }
}
