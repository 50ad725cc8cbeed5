//! The definition of an event, and how one is parsed from JSON text.

mod column;
mod format;
mod murmur2;
mod presets;
mod problem;
mod rule;
mod time;

pub use column::{ColumnRule, ColumnType, ColumnValue, Columns, Found, MAX_COLUMNS};
#[cfg(feature = "fuzz")]
pub(crate) use format::fuzz::event;
pub use format::{Event, EventFormat, parse_event};
pub use murmur2::{murmur2, partition_for_key};
pub use presets::{PRESETS, Preset};
pub use problem::{EventProblem, FieldName, MAX_ID_BYTES};
pub use rule::{EventRules, Field, FieldRule, LoneSurrogates, RuleError, TemplatePart, TimestampFormat};
#[cfg(feature = "fuzz")]
pub(crate) use time::fuzz::timestamp;
pub use time::{Civil, TimePattern, TimeRule, TimestampError, civil_from_micros, rfc3339_from_micros};

/// Header of a record on `events` and `events.dlq`: the landing file, relative to `pending/`.
pub const HEADER_SOURCE: &str = "source";
/// Header: the byte at which the event begins in the (uncompressed) file, decimal digits.
pub const HEADER_BYTE_OFFSET: &str = "byte_offset";
/// Header of a DLQ record: the reason code of [`EventProblem::code`].
pub const HEADER_REASON: &str = "reason";
/// Header of a DLQ record: the reason as a sentence.
pub const HEADER_DETAIL: &str = "detail";
/// Header of a DLQ record: length of the whole bad region in bytes; the value may hold only its beginning.
pub const HEADER_LENGTH: &str = "length";
/// Header of a DLQ record: identity of the file version that contained it.
pub const HEADER_IDENTITY: &str = "identity";
/// Header of a DLQ record: how often it was replayed without success, decimal digits; absent if never.
pub const HEADER_REPLAYS: &str = "replays";
