//! The section `format`: how events are read.

use super::Format;
use super::check::Checker;
use super::tree::WHOLE_RECORD;
use super::values::choice;
use crate::event::{EventFormat, Field, LoneSurrogates, PRESETS, Preset, TimeRule, TimestampFormat};
use crate::json::{MAX_DEPTH, Pointer};

/// The value of `format.records` for events without a wrapper object, whatever the preset says.
const NO_RECORDS: &str = "none";

impl Checker<'_> {
    pub(super) fn format(&mut self) -> Format {
        let presets: Vec<_> = PRESETS.iter().map(|preset| (preset.name, preset)).collect();
        let preset = self.required("format.preset", &PRESETS[0], |text| choice(text, &presets));
        let time = self.required("format.timezone", TimeRule::utc(), TimeRule::named);
        // Kafka's default limit of a record batch is 1,048,588 bytes, including headers and framing.
        let max_event_bytes = self.size("format.max_event_bytes", 1_000..=1_000_000);
        Format {
            preset: preset.name,
            events: self.events(preset, time),
            max_event_bytes: usize::try_from(max_event_bytes).unwrap_or(usize::MAX),
        }
    }

    fn events(&mut self, preset: &Preset, time: TimeRule) -> EventFormat {
        let mut rules = preset.rules();
        for field in Field::ALL {
            let text = self.optional(key(field), |text| {
                let text = if field == Field::Data && text == WHOLE_RECORD { "" } else { text };
                field.rule(text).map(|_| text.to_owned())
            });
            if let Some(text) = text {
                rules.set(field, text);
            }
        }
        rules.timestamp_format =
            self.required("format.timestamp_format", TimestampFormat::Rfc3339, TimestampFormat::parse);
        rules.lone_surrogates = self
            .required("format.lone_surrogates", LoneSurrogates::Replace, |text| choice(text, &LoneSurrogates::CHOICES));
        let deepest = i64::try_from(MAX_DEPTH).unwrap_or(i64::MAX);
        rules.max_depth = usize::try_from(self.count("format.max_depth", 1..=deepest)).unwrap_or(1);
        let records = self.records(preset);
        EventFormat::new(&rules, time, records.as_ref()).unwrap_or_else(|error| {
            self.errors.push(format!("format.{error}"));
            EventFormat::default()
        })
    }

    fn records(&mut self, preset: &Preset) -> Option<Pointer> {
        let given = self.optional("format.records", |text| match text {
            NO_RECORDS => Ok(None),
            text => Pointer::parse(text).map(Some).map_err(|error| format!("{error}; or {NO_RECORDS}")),
        });
        // The pointers of presets are valid; a test checks it.
        given.unwrap_or_else(|| preset.records.and_then(|text| Pointer::parse(text).ok()))
    }
}

fn key(field: Field) -> &'static str {
    match field {
        Field::EventId => "format.event_id",
        Field::Timestamp => "format.timestamp",
        Field::Domain => "format.domain",
        Field::EventType => "format.event_type",
        Field::Data => "format.data",
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ConfigErrors, ConfigTree};
    use super::*;
    use crate::event::parse_event;

    #[test]
    fn rules_of_a_preset_are_replaced_one_by_one() -> Result<(), ConfigErrors> {
        let mut tree = ConfigTree::default();
        tree.add_file("x.toml", "[format]\npreset = \"cloudtrail\"\ndomain = \"const:aws\"\nmax_depth = 7\n");
        let format = tree.check()?.format;
        assert_eq!((format.preset, format.events.rules().domain.as_str()), ("cloudtrail", "const:aws"));
        assert_eq!(format.events.rules().event_id, "/eventID");
        assert_eq!((format.events.max_depth(), format.events.records().map(Pointer::as_str)), (7, Some("/Records")));
        tree.set("format.records", "none", "--set");
        assert!(tree.check()?.format.events.records().is_none());
        tree.set("format.records", "/a/b", "--set");
        tree.set("format.timestamp_format", "epoch_ms", "--set");
        let format = tree.check()?.format.events;
        assert_eq!(format.records().map(Pointer::as_str), Some("/a/b"));
        let event = br#"{"eventID":"x","eventTime":1610619330123,"eventName":"n"}"#;
        assert_eq!(parse_event(event, &format).map(|event| event.timestamp_us), Ok(1_610_619_330_123_000));
        tree.set("format.timestamp_format", "%Y/%m/%d %H:%M:%S %z", "--set");
        tree.set("format.lone_surrogates", "reject", "--set");
        let format = tree.check()?.format.events;
        let event = |data: &str| {
            format!(r#"{{"eventID":"x","eventTime":"2021/01/14 02:15:30 -0800","eventName":"n","data":"{data}"}}"#)
        };
        let time = |data: &str| parse_event(event(data).as_bytes(), &format).map(|event| event.timestamp_us);
        assert_eq!(time(""), Ok(1_610_619_330_000_000));
        assert_eq!(time("\\ud800").map_err(|problem| problem.code()), Err("lone_surrogate"));
        Ok(())
    }

    #[test]
    fn the_whole_record_can_be_asked_for_in_every_layer() -> Result<(), ConfigErrors> {
        let data = |tree: &ConfigTree| tree.check().map(|config| config.format.events.rules().data.clone());
        let mut tree = ConfigTree::default();
        assert_eq!(data(&tree)?, "/data");
        tree.add_file("x.toml", "[format]\ndata = \"\"\n");
        assert_eq!(data(&tree)?, "");
        assert!(tree.print().contains("data = \"whole\""), "it can be seen");
        tree.add_environment([("ED__FORMAT__DATA".to_owned(), String::new())]);
        assert_eq!(data(&tree)?, "/data", "an empty variable unsets, as everywhere");
        tree.set("format.data", "whole", "--set");
        assert_eq!(data(&tree)?, "");
        Ok(())
    }

    #[test]
    fn an_invalid_rule_is_reported_with_its_key_and_what_would_be_right() {
        let mut tree = ConfigTree::default();
        for (key, text) in [
            ("format.preset", "cloudtrial"),
            ("format.event_id", "eventID"),
            ("format.timestamp", "const:now"),
            ("format.domain", "template:{/a"),
            ("format.data", "whole record"),
            ("format.records", "Records"),
            ("format.timestamp_format", "epoch"),
            ("format.lone_surrogates", "drop"),
            ("format.max_depth", "1025"),
        ] {
            tree.set(key, text, "--set");
        }
        let errors = tree.check().err().map(|errors| errors.0).unwrap_or_default();
        for part in [
            "format.preset (--set): 'cloudtrial' is not one of: seed, cloudtrail, cloudevents",
            "format.event_id (--set): 'eventID' is neither a JSON pointer (/a/b) nor const:text nor template:",
            "format.timestamp (--set): 'const:now' is the same for every event",
            "format.domain (--set): 'template:{/a': a brace has no partner",
            "format.data (--set): 'whole record' is neither",
            "format.records (--set): 'Records' is not a JSON pointer: it must begin with '/', such as /a/b; or none",
            "format.timestamp_format (--set): 'epoch' is not one of: rfc3339, epoch_s, epoch_ms, epoch_us, epoch_ns; nor a pattern",
            "format.lone_surrogates (--set): 'drop' is not one of: replace, reject, keep",
            "format.max_depth (--set): '1025' is not a whole number from 1 to 1024",
        ] {
            assert!(errors.iter().any(|error| error.contains(part)), "{part:?} is missing in {errors:#?}");
        }
        assert_eq!(errors.len(), 9, "{errors:#?}");
        tree.set("format.timestamp_format", "%Y-%m-%d %Z", "--set");
        let errors = tree.check().err().map(|errors| errors.0).unwrap_or_default();
        let error = errors.iter().find(|error| error.starts_with("format.timestamp_format (--set): '%Y-%m-%d %Z': "));
        assert!(error.is_some_and(|error| error.contains("an example is %Y/%m/%d")), "{errors:#?}");
    }
}
