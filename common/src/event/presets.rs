//! Rules for widely used formats.

use super::rule::{EventRules, LoneSurrogates, TimestampFormat};

/// The nesting limit unless configured.
const DEFAULT_MAX_DEPTH: usize = 128;

/// A named set of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    pub name: &'static str,
    fields: [&'static str; 5],
    /// JSON pointer of the array that holds the events, if they are wrapped.
    pub records: Option<&'static str>,
}

const WHOLE: &str = "";

/// The first is the default.
pub const PRESETS: [Preset; 6] = [
    Preset { name: "seed", fields: ["/event_id", "/timestamp", "/domain", "/event_type", "/data"], records: None },
    // Log files of AWS CloudTrail: one object with an array.
    Preset {
        name: "cloudtrail",
        fields: ["/eventID", "/eventTime", "/eventSource", "/eventName", WHOLE],
        records: Some("/Records"),
    },
    // CloudEvents 1.0 in JSON: `id` is unique within `source` only.
    Preset {
        name: "cloudevents",
        fields: ["template:{/source}#{/id}", "/time", "/source", "/type", WHOLE],
        records: None,
    },
    // Events of Amazon EventBridge.
    Preset { name: "eventbridge", fields: ["/id", "/time", "/source", "/detail-type", "/detail"], records: None },
    // GH Archive: the public timeline of GitHub, one event a line.
    Preset { name: "gharchive", fields: ["/id", "/created_at", "const:github", "/type", WHOLE], records: None },
    // Messages of the Segment spec, as its storage destinations write them.
    Preset { name: "segment", fields: ["/messageId", "/timestamp", "const:segment", "/type", WHOLE], records: None },
];

impl Preset {
    pub fn named(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.name == name)
    }

    pub fn rules(&self) -> EventRules {
        let [event_id, timestamp, domain, event_type, data] = self.fields.map(str::to_owned);
        EventRules {
            event_id,
            timestamp,
            domain,
            event_type,
            data,
            timestamp_format: TimestampFormat::Rfc3339,
            lone_surrogates: LoneSurrogates::Replace,
            max_depth: DEFAULT_MAX_DEPTH,
        }
    }
}
