//! From raw settings to [`Config`], gathering every error.

use std::path::PathBuf;
use std::time::Duration;

use super::group::check_group_protocol;
use super::tree::{ConfigTree, Raw};
use super::values::{bytes, choice, duration, flag, queue_url, ratio, suffixes, topic_name, whole};
use super::{
    Archive, Compression, Config, ConfigErrors, Dedup, Flush, Kafka, Landing, Ledger, LogConfig, MAX_FILES_PER_BATCH,
    MAX_ROWS_PER_BATCH, MissingFiles, Quarantine, Trusted, TypeAges,
};
use crate::log::RESERVED_CLIENT_SETTINGS;
use crate::store::Location;

pub(super) struct Checker<'a> {
    pub(super) tree: &'a ConfigTree,
    pub(super) errors: Vec<String>,
}

impl Checker<'_> {
    pub(super) fn optional<T>(&mut self, path: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let Raw { text, origin } = self.tree.get(path)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(message) => {
                self.errors.push(format!("{path} ({origin}): {message}"));
                None
            }
        }
    }

    /// A setting with a default. After an error the fallback only serves to go on checking.
    pub(super) fn required<T>(&mut self, path: &str, fallback: T, parse: impl FnOnce(&str) -> Result<T, String>) -> T {
        let errors = self.errors.len();
        let value = self.optional(path, parse);
        if value.is_none() && self.errors.len() == errors {
            self.errors.push(format!("{path}: must not be empty"));
        }
        value.unwrap_or(fallback)
    }

    fn positive(&mut self, path: &str) -> Duration {
        self.required(path, Duration::ZERO, |text| match duration(text)? {
            Duration::ZERO => Err("must be longer than 0".to_owned()),
            value => Ok(value),
        })
    }

    fn location(&mut self, path: &str) -> Option<Location> {
        self.optional(path, |text| Location::parse(text).map_err(|error| error.message))
    }

    pub(super) fn count(&mut self, path: &str, range: std::ops::RangeInclusive<i64>) -> i64 {
        let fallback = *range.start();
        self.required(path, fallback, |text| whole(text, range))
    }

    pub(super) fn size(&mut self, path: &str, range: std::ops::RangeInclusive<u64>) -> u64 {
        let fallback = *range.start();
        self.required(path, fallback, |text| {
            let value = bytes(text)?;
            if range.contains(&value) {
                Ok(value)
            } else {
                Err(format!("must be from {} to {} bytes", range.start(), range.end()))
            }
        })
    }

    fn log(&mut self) -> LogConfig {
        let events_topic = self.required("log.events_topic", "events".to_owned(), topic_name);
        LogConfig {
            dlq_topic: format!("{events_topic}.dlq"),
            ledger_topic: format!("{events_topic}.ledger"),
            partitions: self
                .optional("log.partitions", |text| whole(text, 1..=10_000))
                .and_then(|count| u32::try_from(count).ok()),
            retention: self.positive("log.retention"),
            events_topic,
        }
    }

    fn kafka(&mut self) -> Option<Kafka> {
        let brokers = self.optional("kafka.brokers", |text| {
            let valid = |broker: &str| {
                broker.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
            };
            if text.split(',').all(|broker| valid(broker.trim())) {
                Ok(text.to_owned())
            } else {
                Err(format!("'{text}' is not host:port[,host:port]"))
            }
        });
        let group = self.required("kafka.group", String::new(), topic_name);
        let instance_id = self.optional("kafka.instance_id", topic_name);
        let client = self.tree.section("kafka.client.");
        for (key, raw) in &client {
            if RESERVED_CLIENT_SETTINGS.contains(&key.as_str()) {
                self.errors.push(format!(
                    "kafka.client.{key} ({}): is set by Event Distributor, exactly-once rests on it",
                    raw.origin
                ));
            }
        }
        self.errors.extend(check_group_protocol(&client));
        let client = client.into_iter().map(|(key, raw)| (key, raw.text)).collect();
        brokers.map(|brokers| Kafka { brokers, group, instance_id, client })
    }

    fn ages(&mut self) -> TypeAges {
        // What is wrong with it is reported where it stands.
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
            self.errors.push("trusted.min_year must not be after trusted.max_year".to_owned());
        }
        trusted
    }
}

pub(super) fn check(tree: &ConfigTree, errors: Vec<String>) -> Result<Config, ConfigErrors> {
    let mut checker = Checker { tree, errors };
    let config = Config {
        patience: checker.positive("patience"),
        landing: Landing {
            location: checker.location("landing.url"),
            archive: checker.optional("landing.archive", Archive::parse),
            poll_interval: checker.positive("landing.poll_interval"),
            full_sweep_interval: checker.positive("landing.full_sweep_interval"),
            min_age: checker.required("landing.min_age", Duration::ZERO, duration),
            ignore_suffixes: checker.optional("landing.ignore_suffixes", suffixes).unwrap_or_default(),
            watch: checker.required("landing.watch", true, flag),
            sqs_queue_url: checker.optional("landing.sqs_queue_url", queue_url),
            parallel_files: usize::try_from(checker.count("landing.parallel_files", 1..=1_000)).unwrap_or(1),
            max_memory_bytes: checker.size("landing.max_memory", 16_000_000..=64_000_000_000),
            max_bytes_per_second: checker.optional("landing.max_rate", |text| match bytes(text)? {
                0 => Err("must be more than 0; leave it out for no limit".to_owned()),
                rate => Ok(rate),
            }),
        },
        quarantine: Quarantine {
            max_error_ratio: checker.required("quarantine.max_error_ratio", 1.0, ratio),
            min_events: checker.count("quarantine.min_events", 1..=i64::MAX).unsigned_abs(),
            max_errors: checker
                .optional("quarantine.max_errors", |text| whole(text, 0..=i64::MAX))
                .map(i64::unsigned_abs),
        },
        ledger: Ledger {
            partitions: checker
                .optional("ledger.partitions", |text| whole(text, 1..=1_000))
                .and_then(|count| u32::try_from(count).ok()),
            retain: checker.positive("ledger.retain"),
        },
        // The whole message stays below Kafka's default limit.
        dlq_max_bytes: usize::try_from(checker.size("dlq.max_bytes", 0..=900_000)).unwrap_or(0),
        format: checker.format(),
        log: checker.log(),
        kafka: checker.kafka(),
        dedup: Dedup {
            window: checker.required("dedup.window", Duration::ZERO, |text| {
                let window = duration(text)?;
                // So that log time plus a window is a number of milliseconds by a wide margin.
                if window > Duration::from_secs(3_660 * 86_400) {
                    Err("must be at most 10y".to_owned())
                } else {
                    Ok(window)
                }
            }),
            max_memory: checker.size("dedup.max_memory", 8_000_000..=1_000_000_000_000),
        },
        scratch_dir: checker.optional("scratch.dir", |text| Ok(PathBuf::from(text))),
        flush: Flush {
            max_age: checker.positive("flush.max_age"),
            ages: checker.ages(),
            max_bytes: checker.size("flush.max_bytes", 1_000..=64_000_000_000),
            max_rows: checker.count("flush.max_rows", 1..=MAX_ROWS_PER_BATCH.cast_signed()).unsigned_abs(),
            max_files: checker.count("flush.max_files", 1..=MAX_FILES_PER_BATCH.cast_signed()).unsigned_abs(),
            max_memory: checker.size("flush.max_memory", 8_000_000..=64_000_000_000),
            warn_files_per_day: checker.count("flush.warn_files_per_day", 1..=i64::MAX).unsigned_abs(),
        },
        replay_missing: checker.required("replay.missing", MissingFiles::Restore, MissingFiles::parse),
        columns: checker.columns(),
        trusted: checker.trusted(),
        http_listen: checker.optional("http.listen", |text| {
            text.parse::<std::net::SocketAddr>()
                .map(|_| text.to_owned())
                .map_err(|_| format!("'{text}' is not an address such as 0.0.0.0:8080"))
        }),
    };
    if checker.errors.is_empty() { Ok(config) } else { Err(ConfigErrors(checker.errors)) }
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
            "trusted.min_year must not be after",
            "kafka.client.acks (x.toml): is set by Event Distributor",
            "dedup.window (environment variable ED__DEDUP__WINDOW): 'soon' is not a duration",
        ] {
            assert!(errors.iter().any(|error| error.contains(part)), "{part:?} is missing in {errors:#?}");
        }
        assert_eq!(errors.len(), 7, "{errors:#?}");
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
}
