//! From raw settings to [`Config`]; collects every error.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::secrets::is_secret;
use super::tree::{ConfigTree, Raw};
use super::values::{
    MAX_DURATION, bytes, choice, duration, events_topic, flag, listen_address, prefixes, queue_url, ratio, show_bytes,
    show_duration, suffixes, whole,
};
use super::{
    Archive, Compact, Compression, Config, ConfigErrors, Dedup, Flush, Landing, Ledger, LogConfig, MAX_FILES_PER_BATCH,
    MAX_ROWS_PER_BATCH, MissingFiles, Quarantine, TableConfig, Trusted, TypeAges,
};
use crate::redact::{MASK, without_credentials};
use crate::store::Location;

/// The longest `dedup.window`. The sum of a log time and a window fits into 64 bits of milliseconds by a wide margin.
pub const MAX_DEDUP_WINDOW: Duration = MAX_DURATION;
/// Shorter pauses and ages would only busy a processor.
const SHORTEST: Duration = Duration::from_millis(1);
/// The limit of settings that need no other.
const MANY: i64 = 1_000_000_000_000;

/// Kafka's default message limit less the default event limit: room for key, headers and framing.
const MESSAGE_OVERHEAD_BYTES: usize = 48_576;

pub(super) struct Checker<'a> {
    pub(super) tree: &'a ConfigTree,
    pub(super) errors: Vec<String>,
    /// The permitted values of the settings checked so far, for the documentation.
    limits: BTreeMap<String, String>,
}

impl Checker<'_> {
    pub(super) fn optional<T>(&mut self, path: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let Raw { text, origin } = self.tree.get(path)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(_) if is_secret(path) => {
                self.errors.push(format!("{path} ({origin}): the value ({MASK}) is not valid"));
                None
            }
            Err(message) => {
                self.errors.push(format!("{path} ({origin}): {message}"));
                None
            }
        }
    }

    /// A setting with a default. After an error the fallback lets the other checks continue.
    pub(super) fn required<T>(&mut self, path: &str, fallback: T, parse: impl FnOnce(&str) -> Result<T, String>) -> T {
        let errors = self.errors.len();
        let value = self.optional(path, parse);
        if value.is_none() && self.errors.len() == errors {
            self.errors.push(format!("{path}: must not be empty"));
        }
        value.unwrap_or(fallback)
    }

    /// A duration within `range`.
    fn period(&mut self, path: &str, range: RangeInclusive<Duration>) -> Duration {
        let limits = format!("{} to {}", show_duration(*range.start()), show_duration(*range.end()));
        self.limits.insert(path.to_owned(), limits.clone());
        self.required(path, *range.start(), |text| match duration(text)? {
            value if range.contains(&value) => Ok(value),
            _ => Err(format!("'{text}' is not from {limits}")),
        })
    }

    fn table(&mut self) -> Option<TableConfig> {
        let config = TableConfig {
            every: self.positive("table.every"),
            retain: self.period("table.retain", Duration::ZERO..=MAX_DURATION),
        };
        let is_delta = self.required("table.format", true, |text| match text {
            "delta" => Ok(true),
            "none" => Ok(false),
            _ => Err(format!("'{text}' is neither `delta` nor `none`")),
        });
        is_delta.then_some(config)
    }

    fn positive(&mut self, path: &str) -> Duration {
        self.period(path, SHORTEST..=MAX_DURATION)
    }

    fn location(&mut self, path: &str) -> Option<Location> {
        self.optional(path, |text| Location::parse(text).map_err(|error| error.to_string()))
    }

    fn folder(&mut self, path: &str) -> Option<std::path::PathBuf> {
        self.optional(path, |text| Location::parse_folder(text).map_err(|error| error.to_string()))
    }

    fn count_limits(&mut self, path: &str, range: &RangeInclusive<i64>) {
        self.limits.insert(path.to_owned(), format!("{} to {}", range.start(), range.end()));
    }

    pub(super) fn count(&mut self, path: &str, range: RangeInclusive<i64>) -> i64 {
        self.count_limits(path, &range);
        let fallback = *range.start();
        self.required(path, fallback, |text| whole(text, range))
    }

    fn optional_count(&mut self, path: &str, range: RangeInclusive<i64>) -> Option<u64> {
        self.count_limits(path, &range);
        self.optional(path, |text| whole(text, range)).map(i64::unsigned_abs)
    }

    fn partitions(&mut self, path: &str, at_most: i64) -> Option<u32> {
        self.optional_count(path, 1..=at_most).and_then(|count| u32::try_from(count).ok())
    }

    pub(super) fn size(&mut self, path: &str, range: RangeInclusive<u64>) -> u64 {
        let fallback = *range.start();
        let size = self.size_limits(path, range);
        self.required(path, fallback, size)
    }

    fn optional_size(&mut self, path: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let size = self.size_limits(path, range);
        self.optional(path, size)
    }

    fn size_limits(
        &mut self,
        path: &str,
        range: RangeInclusive<u64>,
    ) -> impl FnOnce(&str) -> Result<u64, String> + use<> {
        let limits = format!("{} to {}", show_bytes(*range.start()), show_bytes(*range.end()));
        self.limits.insert(path.to_owned(), limits.clone());
        move |text| match bytes(text)? {
            value if range.contains(&value) => Ok(value),
            _ => Err(format!("'{text}' is not from {limits}")),
        }
    }

    fn ratio(&mut self, path: &str) -> f64 {
        self.limits.insert(path.to_owned(), "0 to 1".to_owned());
        self.required(path, 1.0, ratio)
    }

    fn log(&mut self) -> LogConfig {
        let events_topic = self.required("log.events_topic", "events".to_owned(), events_topic);
        LogConfig {
            dlq_topic: format!("{events_topic}.dlq"),
            ledger_topic: format!("{events_topic}.ledger"),
            partitions: self.partitions("log.partitions", 10_000),
            retention: self.positive("log.retention"),
            data_dir: self.folder("log.data_dir"),
            events_topic,
        }
    }

    fn ages(&mut self) -> TypeAges {
        // An invalid `flush.max_age` is reported by its own check.
        let max_age = self.tree.get("flush.max_age").and_then(|raw| duration(&raw.text).ok());
        let ages = self.optional("flush.ages", |text| {
            let ages = TypeAges::parse(text)?;
            match max_age.and_then(|max_age| ages.longer_than(max_age).next()) {
                Some(pattern) => Err(format!("the age of '{pattern}' is longer than flush.max_age, which comes first")),
                None => Ok(ages),
            }
        });
        ages.unwrap_or_default()
    }

    fn trusted(&mut self) -> Trusted {
        let trusted = Trusted {
            location: self.location("trusted.url"),
            compression: self.required("trusted.compression", Compression::Zstd, |text| {
                choice(text, &[("zstd", Compression::Zstd), ("snappy", Compression::Snappy)])
            }),
            bloom_filter: self.required("trusted.bloom_filter", false, flag),
            max_types: u32::try_from(self.count("trusted.max_types", 1..=100_000)).unwrap_or(1),
            min_year: self.count("trusted.min_year", 1..=9999),
            max_year: self.count("trusted.max_year", 1..=9999),
            max_rows_per_file: self.count("trusted.max_rows_per_file", 8_192..=1_000_000_000).unsigned_abs(),
        };
        if trusted.min_year > trusted.max_year {
            self.errors.push(format!(
                "trusted.min_year{} must not be after trusted.max_year",
                self.origin("trusted.min_year")
            ));
        }
        trusted
    }

    fn origin(&self, path: &str) -> String {
        self.tree.get(path).map_or_else(String::new, |raw| format!(" ({})", raw.origin))
    }

    /// Reports settings that are valid alone but not in combination.
    fn check_together(&mut self, config: &Config) {
        let Landing { location, sqs_queue_url, archive, .. } = &config.landing;
        if let Some(Location::Local(_)) = location {
            if sqs_queue_url.is_some() {
                let origin = self.origin("landing.sqs_queue_url");
                self.errors.push(format!(
                    "landing.sqs_queue_url{origin}: notifications are of S3 buckets, but landing.url is a folder"
                ));
            }
            if *archive == Some(Archive::Tag) {
                let origin = self.origin("landing.archive");
                self.errors.push(format!(
                    "landing.archive{origin}: 'tag' is for S3, but landing.url is a folder; use move, leave or delete"
                ));
            }
        }
        self.check_message_size(config);
    }

    /// Kafka's client would refuse a message that the limits of events and dead letters permit, and the ingestor would
    /// stop.
    fn check_message_size(&mut self, config: &Config) {
        const PATH: &str = "kafka.client.message.max.bytes";
        let Some(raw) = self.tree.get(PATH) else { return };
        let needed = config.format.max_event_bytes.max(config.dlq_max_bytes) + MESSAGE_OVERHEAD_BYTES;
        // An invalid number is reported by its own check.
        if raw.text.parse().is_ok_and(|bytes: usize| bytes < needed) {
            self.errors.push(format!(
                "{PATH} ({}): must be at least {needed}, so that the largest event (format.max_event_bytes) or dead letter (dlq.max_bytes) fits",
                raw.origin
            ));
        }
    }
}

/// The permitted values of each setting with a range, by its path: `1 to 100`, `1ms to 10y`, `8MB to 64GB`.
#[must_use]
pub fn limits() -> BTreeMap<String, String> {
    gather(&ConfigTree::default(), Vec::new()).1
}

pub(super) fn check(tree: &ConfigTree, errors: Vec<String>) -> Result<Config, ConfigErrors> {
    gather(tree, errors).0
}

fn gather(tree: &ConfigTree, errors: Vec<String>) -> (Result<Config, ConfigErrors>, BTreeMap<String, String>) {
    let mut checker = Checker { tree, errors, limits: BTreeMap::new() };
    let config = Config {
        patience: checker.positive("patience"),
        landing: Landing {
            location: checker.location("landing.url"),
            archive: checker.optional("landing.archive", Archive::parse),
            poll_interval: checker.positive("landing.poll_interval"),
            full_sweep_interval: checker.positive("landing.full_sweep_interval"),
            min_age: checker.period("landing.min_age", Duration::ZERO..=MAX_DURATION),
            ignore_prefixes: checker.optional("landing.ignore_prefixes", prefixes).unwrap_or_default(),
            ignore_suffixes: checker.optional("landing.ignore_suffixes", suffixes).unwrap_or_default(),
            watch: checker.required("landing.watch", true, flag),
            sqs_queue_url: checker.optional("landing.sqs_queue_url", queue_url),
            parallel_files: usize::try_from(checker.count("landing.parallel_files", 1..=1_000)).unwrap_or(1),
            max_memory_bytes: checker.size("landing.max_memory", 16_000_000..=64_000_000_000),
            max_bytes_per_second: checker.optional_size("landing.max_rate", 1_000..=1_000_000_000_000),
            max_expansion_ratio: checker.count("landing.max_expansion_ratio", 1..=1_000_000_000).unsigned_abs(),
            max_expanded_bytes: checker.size("landing.max_expanded_bytes", 1_000_000..=1_000_000_000_000_000),
            max_published_bytes: checker.size("landing.max_published_bytes", 1_000_000..=1_000_000_000_000_000),
        },
        quarantine: Quarantine {
            max_error_ratio: checker.ratio("quarantine.max_error_ratio"),
            min_events: checker.count("quarantine.min_events", 1..=MANY).unsigned_abs(),
            max_errors: checker.optional_count("quarantine.max_errors", 0..=MANY),
        },
        ledger: Ledger {
            partitions: checker.partitions("ledger.partitions", 1_000),
            retain: checker.positive("ledger.retain"),
        },
        // The whole message stays below Kafka's default limit.
        dlq_max_bytes: usize::try_from(checker.size("dlq.max_bytes", 0..=900_000)).unwrap_or(0),
        format: checker.format(),
        log: checker.log(),
        kafka: checker.kafka(),
        dedup: Dedup {
            window: checker.period("dedup.window", Duration::ZERO..=MAX_DEDUP_WINDOW),
            max_memory: checker.size("dedup.max_memory", 8_000_000..=1_000_000_000_000),
        },
        scratch_dir: checker.folder("scratch.dir"),
        flush: Flush {
            max_age: checker.positive("flush.max_age"),
            ages: checker.ages(),
            max_bytes: checker.size("flush.max_bytes", 1_000..=64_000_000_000),
            max_rows: checker.count("flush.max_rows", 1..=MAX_ROWS_PER_BATCH.cast_signed()).unsigned_abs(),
            max_files: checker.count("flush.max_files", 1..=MAX_FILES_PER_BATCH.cast_signed()).unsigned_abs(),
            max_memory: checker.size("flush.max_memory", 8_000_000..=64_000_000_000),
            warn_files_per_day: checker.count("flush.warn_files_per_day", 1..=MANY).unsigned_abs(),
        },
        replay_missing: checker.required("replay.missing", MissingFiles::Restore, MissingFiles::parse),
        compact: Compact {
            target_bytes: checker.size("compact.target_size", 1_000_000..=10_000_000_000),
            rest: checker.period("compact.rest", Duration::ZERO..=MAX_DURATION),
            every: Some(checker.period("compact.every", Duration::ZERO..=MAX_DURATION))
                .filter(|every| !every.is_zero()),
            max_bytes_per_second: checker.size("compact.max_rate", 1_000..=1_000_000_000_000),
        },
        table: checker.table(),
        columns: checker.columns(),
        trusted: checker.trusted(),
        http_listen: checker.optional("http.listen", listen_address),
    };
    checker.check_together(&config);
    let Checker { errors, limits, .. } = checker;
    // Values and names are quoted, so messages are stripped of credentials.
    let errors: Vec<String> = errors.iter().map(|error| without_credentials(error).into_owned()).collect();
    (if errors.is_empty() { Ok(config) } else { Err(ConfigErrors(errors)) }, limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() -> Result<(), ConfigErrors> {
        let config = ConfigTree::default().check()?;
        assert_eq!(config.flush.max_age, Duration::from_secs(30));
        assert_eq!(config.dedup.window, Duration::from_secs(86_400));
        assert!(config.kafka.is_none() && config.landing.location.is_none());
        Ok(())
    }

    #[test]
    fn later_layers_win() -> Result<(), ConfigErrors> {
        let mut tree = ConfigTree::default();
        tree.add_file("a.toml", "[flush]\nmax_age = \"10s\"\nmax_rows = 5\n[kafka]\nbrokers = \"a:1\"\n[kafka.client]\n\"sasl.username\" = \"u\"");
        tree.add_environment([
            ("ED__FLUSH__MAX_AGE".to_owned(), "20s".to_owned()),
            ("ED__KAFKA__CLIENT__SASL_PASSWORD".to_owned(), "hush".to_owned()),
            ("PATH".to_owned(), "/bin".to_owned()),
        ]);
        tree.set("kafka.brokers", "b:2", "--brokers");
        let config = tree.check()?;
        assert_eq!((config.flush.max_age.as_secs(), config.flush.max_rows), (20, 5));
        let kafka = config.kafka.as_ref().map(|kafka| (kafka.brokers.as_str(), kafka.client["sasl.password"].as_str()));
        assert_eq!(kafka, Some(("b:2", "hush")));
        let printed = tree.print();
        assert!(!printed.contains("hush"), "{printed}");
        assert!(printed.contains("\"sasl.password\" = \"********\""), "{printed}");
        assert!(printed.parse::<toml::Table>().is_ok(), "{printed}");
        Ok(())
    }

    #[test]
    fn every_error_is_reported_at_once_with_its_key_and_origin() {
        let mut tree = ConfigTree::default();
        tree.add_file("x.toml", "[flush]\nmax_agee = \"10s\"\nmax_rows = \"many\"\nmax_files = 20001\n[trusted]\ncompression = \"lzo\"\nmin_year = 3000\n[kafka.client]\n\"acks\" = \"1\"\n[extra]\na = 1");
        tree.add_environment([("ED__DEDUP__WINDOW".to_owned(), "soon".to_owned())]);
        let errors = tree.check().err().map(|errors| errors.0).unwrap_or_default();
        for part in [
            "flush.max_agee (x.toml): no such setting; did you mean flush.max_age?",
            "extra.a (x.toml): no such setting",
            "flush.max_rows (x.toml): 'many' is not a whole number",
            "flush.max_files (x.toml): '20001' is not a whole number from 1 to 20000",
            "trusted.compression (x.toml): 'lzo' is not one of: zstd, snappy",
            "trusted.min_year (x.toml) must not be after",
            "kafka.client.acks (x.toml): is set by Event Distributor",
            "dedup.window (environment variable ED__DEDUP__WINDOW): 'soon' is not a duration",
        ] {
            assert!(errors.iter().any(|error| error.contains(part)), "{part:?} is missing in {errors:#?}");
        }
        assert_eq!(errors.len(), 8, "{errors:#?}");
    }

    #[test]
    fn ages_of_types_are_at_most_the_age_of_all() -> Result<(), ConfigErrors> {
        let ages = |text: &str| {
            let mut tree = ConfigTree::default();
            tree.add_file("x.toml", &format!("[flush]\nmax_age = \"1m\"\nages = \"{text}\"\n"));
            tree.check().map(|config| config.flush.ages)
        };
        assert_eq!(ages("alerts-*=10s,*=1m")?.for_type("alerts-fire"), Some(Duration::from_secs(10)));
        assert_eq!(ages("")?, TypeAges::default());
        let errors = ages("a=10s,b=2m").err().map(|errors| errors.to_string()).unwrap_or_default();
        assert!(errors.contains("flush.ages (x.toml): the age of 'b' is longer than flush.max_age"), "{errors}");
        Ok(())
    }

    #[test]
    fn broken_toml_is_placed_without_quoting_it() {
        let mut tree = ConfigTree::default();
        tree.add_file("x.toml", "[kafka.client]\n\"sasl.password\" = hush\n");
        let errors = tree.check().err().map(|errors| errors.to_string()).unwrap_or_default();
        assert!(errors.contains("x.toml, line 2") && !errors.contains("hush"), "{errors}");
    }

    fn errors(settings: &[(&str, &str)]) -> Vec<String> {
        let mut tree = ConfigTree::default();
        for (path, text) in settings {
            tree.set(path, text, "--set");
        }
        tree.check().err().map(|errors| errors.0).unwrap_or_default()
    }

    #[test]
    fn values_that_cannot_be_meant_are_refused() {
        for (path, bad) in [
            ("patience", "0s"),
            ("patience", "500y"),
            ("landing.poll_interval", "1ns"),
            ("landing.full_sweep_interval", "0"),
            ("landing.min_age", "11y"),
            ("landing.parallel_files", "0"),
            ("landing.max_memory", "1MB"),
            ("landing.max_rate", "0"),
            ("landing.max_rate", "18446744073709551615"),
            ("landing.max_expansion_ratio", "0"),
            ("landing.max_expanded_bytes", "0"),
            ("landing.max_published_bytes", "18446744073709551615"),
            ("landing.sqs_queue_url", "https://"),
            ("landing.sqs_queue_url", "queue"),
            ("quarantine.max_error_ratio", "NaN"),
            ("quarantine.max_error_ratio", "1.1"),
            ("quarantine.min_events", "-1"),
            ("quarantine.max_errors", "9223372036854775807"),
            ("log.events_topic", "__consumer_offsets"),
            ("log.events_topic", ".."),
            ("log.events_topic", "a b"),
            ("log.partitions", "0"),
            ("log.retention", "-1s"),
            ("log.retention", "9999999999999999999y"),
            ("log.data_dir", "s3://lake/log"),
            ("log.data_dir", "~/log"),
            ("scratch.dir", "file://scratch"),
            ("ledger.partitions", "1001"),
            ("dlq.max_bytes", "1MB"),
            ("dedup.window", "3653d"),
            ("dedup.max_memory", "99999999999999999999MB"),
            ("flush.max_age", "0ms"),
            ("flush.max_rows", "1e6"),
            ("trusted.max_rows_per_file", "100"),
            ("trusted.min_year", "0"),
            ("http.listen", "8080"),
        ] {
            let reported = errors(&[(path, bad)]);
            assert!(
                reported.len() == 1 && reported[0].starts_with(&format!("{path} (--set): ")),
                "{path} = {bad}: {reported:?}"
            );
        }
    }

    #[test]
    fn the_window_has_one_limit_which_settings_and_message_say() {
        let longest = show_duration(MAX_DEDUP_WINDOW);
        assert_eq!(errors(&[("dedup.window", &longest)]), Vec::<String>::new());
        let reported = errors(&[("dedup.window", "87661h")]).join("");
        assert!(reported.contains(&format!("'87661h' is longer than {longest}")), "{reported}");
        assert_eq!(limits().get("dedup.window"), Some(&format!("0s to {longest}")));
        let help =
            super::super::SETTINGS.iter().find(|setting| setting.path == "dedup.window").map(|setting| setting.help);
        assert!(help.is_some_and(|help| help.contains(&format!("at most {longest}"))), "{help:?}");
    }

    #[test]
    fn conflicting_settings_are_reported_with_their_origin() {
        let reported = errors(&[
            ("landing.url", "land"),
            ("landing.archive", "tag"),
            ("landing.sqs_queue_url", "https://sqs.eu-west-1.amazonaws.com/1/q"),
        ]);
        assert!(
            reported.iter().any(|error| error.starts_with("landing.archive (--set): 'tag' is for S3")),
            "{reported:?}"
        );
        assert!(
            reported.iter().any(|error| error.starts_with("landing.sqs_queue_url (--set): notifications")),
            "{reported:?}"
        );
        let reported = errors(&[("kafka.client.message.max.bytes", "1000000")]).join("");
        assert!(reported.contains("kafka.client.message.max.bytes (--set): must be at least 1048576"), "{reported}");
        let smaller = [("kafka.client.message.max.bytes", "500000"), ("format.max_event_bytes", "400KB")];
        assert_eq!(errors(&smaller), Vec::<String>::new());
    }

    #[test]
    fn messages_steer_no_terminal_when_they_are_printed() {
        let reported = errors(&[("trusted.compression", "a\u{1b}[2Jb\u{202e}c"), ("flush.x\u{7}", "1")]).join("\n");
        let reported = crate::printable::message(&reported);
        assert!(
            reported.contains("a\\u{1b}[2Jb\\u{202e}c") && reported.contains("x\\u{7}") && !reported.contains('\u{1b}'),
            "{reported}"
        );
    }
}
