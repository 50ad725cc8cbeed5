//! Looking at what the roles would find when they start: the topics, the trusted zone and the landing zone. Nothing is
//! created, and nothing stays behind.

use std::sync::Arc;

use common::config::Config;
use common::log::{Log, LogErrorKind};
use common::store::{ListOptions, LocalStore, Location, Store, StoreError, StoreErrorKind};
use ingestor::IngestError;

use super::archivable::try_archive;
use super::report::Findings;
use crate::args::CheckArgs;
use crate::wiring::{
    EMBEDDED_LEDGER_PARTITIONS, EMBEDDED_PARTITIONS, KAFKA_LEDGER_PARTITIONS, KAFKA_PARTITIONS, hint_sources, landing,
    probe_trusted, s3,
};
use crate::{Failure, trusted};

/// Types are counted to here: more are as bad.
const MAX_TYPES_COUNTED: usize = 10_000;

/// What was seen of the log and the tables, as far as they were there.
#[derive(Debug, Default)]
pub struct Seen {
    pub partitions: Option<u64>,
    pub types: Option<u64>,
}

/// Partitions of the events topic, should it have to be created.
pub fn default_partitions(config: &Config) -> u32 {
    config.log.partitions.unwrap_or(if config.kafka.is_some() { KAFKA_PARTITIONS } else { EMBEDDED_PARTITIONS })
}

pub async fn look(args: &CheckArgs, config: &Config, findings: &mut Findings) -> Seen {
    let mut seen = Seen::default();
    if let Some(location) = &config.trusted.location {
        look_at_trusted(location, &mut seen, findings).await;
    }
    if let Some(location) = &config.landing.location {
        look_at_landing(location, config, findings).await;
    }
    look_at_log(args, config, &mut seen, findings).await;
    seen
}

async fn look_at_log(args: &CheckArgs, config: &Config, seen: &mut Seen, findings: &mut Findings) {
    if config.kafka.is_none() && args.log.data_dir.is_none() && config.trusted.location.is_none() {
        findings.note("log", "none is named: give --brokers, --trusted or --data-dir");
        return;
    }
    let log = match trusted::log(&args.log, config).await {
        Ok(Some(log)) => log,
        Ok(None) => {
            findings.note("log", "there is no embedded log yet; `run` makes one");
            return;
        }
        // A log that another process works with, or one that cannot be opened.
        Err(Failure::Runtime(error)) => {
            findings.warn("log", format!("could not be looked at: {error:#}"));
            return;
        }
        Err(Failure::Usage(error)) => {
            findings.error("log", format!("{error:#}"));
            return;
        }
    };
    look_at_topics(&*log, config, seen, findings).await;
}

async fn look_at_topics(log: &dyn Log, config: &Config, seen: &mut Seen, findings: &mut Findings) {
    let default = if config.kafka.is_some() { KAFKA_LEDGER_PARTITIONS } else { EMBEDDED_LEDGER_PARTITIONS };
    let ledger_partitions = config.ledger.partitions.unwrap_or(default);
    let topics = &config.log;
    let specs = ingestor::topic_specs(
        (&topics.events_topic, default_partitions(config)),
        &topics.dlq_topic,
        (&topics.ledger_topic, ledger_partitions),
    );
    for spec in &specs {
        let about = format!("topic {}", spec.name);
        match log.verify_topic(spec).await {
            Ok(Some(info)) => {
                if spec.name == topics.events_topic {
                    seen.partitions = Some(u64::from(info.partitions));
                }
                findings.note(&about, format!("is as it must be, with {}", partitions(info.partitions)));
            }
            Ok(None) => {
                findings.note(&about, format!("does not exist yet; it is made with {}", partitions(spec.partitions)));
            }
            Err(error) if error.kind == LogErrorKind::Misconfigured => findings.error(&about, error),
            Err(error) => {
                findings.warn(&about, format!("could not be looked at: {error}"));
                // The others would only take as long.
                return;
            }
        }
    }
}

fn partitions(count: u32) -> String {
    format!("{count} partition{}", if count == 1 { "" } else { "s" })
}

async fn look_at_trusted(location: &Location, seen: &mut Seen, findings: &mut Findings) {
    const ABOUT: &str = "trusted zone";
    let store: Arc<dyn Store> = match location {
        Location::Local(path) if path.is_dir() => Arc::new(LocalStore::open(path.clone())),
        Location::Local(path) if path.exists() => {
            findings.error(ABOUT, format!("trusted.url: {} is not a folder", path.display()));
            return;
        }
        Location::Local(path) => {
            findings.note(ABOUT, format!("{} is not there yet; it is made", path.display()));
            return;
        }
        location => match s3(location).await {
            Ok(store) => store,
            Err(Failure::Usage(error) | Failure::Runtime(error)) => {
                findings.error(ABOUT, format!("{error:#}"));
                return;
            }
        },
    };
    let counted = async {
        if matches!(location, Location::S3 { .. }) {
            probe_trusted(&*store).await?;
        }
        count_types(&*store).await
    };
    match counted.await {
        Ok(types) => {
            seen.types = Some(types).filter(|types| *types > 0);
            findings.note(ABOUT, format!("{location} has {types} event types"));
        }
        Err(error) => store_failed(ABOUT, &error, findings),
    }
}

/// Folders of the events table.
async fn count_types(store: &dyn Store) -> Result<u64, StoreError> {
    let mut types = 0;
    let mut options =
        ListOptions { prefix: "events/domain_event_type=".to_owned(), delimiter: true, ..ListOptions::default() };
    loop {
        let page = store.list(&options).await?;
        types += page.prefixes.len();
        match page.prefixes.last() {
            Some(last) if page.more && types < MAX_TYPES_COUNTED => options.start_after = Some(last.clone()),
            _ => return Ok(types as u64),
        }
    }
}

async fn look_at_landing(location: &Location, config: &Config, findings: &mut Findings) {
    const ABOUT: &str = "landing zone";
    let store = match landing(location).await {
        Ok(store) => store,
        Err(Failure::Usage(error) | Failure::Runtime(error)) => {
            findings.error(ABOUT, format!("{error:#}"));
            return;
        }
    };
    let pending = ListOptions { prefix: "pending/".to_owned(), limit: Some(1), ..ListOptions::default() };
    let looked = async {
        let archive = ingestor::archive_mode(&*store, config.landing.archive).await?;
        let page = store.list(&pending).await?;
        Ok::<_, IngestError>((archive, !page.objects.is_empty()))
    };
    match looked.await {
        Ok((archive, waiting)) => {
            let files = if waiting { "files wait" } else { "no files wait" };
            let mode = common::config::Archive::NAMES.iter().find(|(_, mode)| *mode == archive);
            let mode = mode.map_or("move", |(name, _)| *name);
            findings.note(ABOUT, format!("{location} can be read, {files} there, and landing.archive is '{mode}'"));
            if let Err(why) = try_archive(location, &*store, archive).await {
                findings.warn(ABOUT, why);
            }
        }
        Err(IngestError::Store(error)) => store_failed(ABOUT, &error, findings),
        Err(error) => findings.error(ABOUT, error),
    }
}

fn store_failed(about: &str, error: &StoreError, findings: &mut Findings) {
    match error.kind {
        StoreErrorKind::Transient => findings.warn(about, format!("could not be looked at: {error}")),
        _ => findings.error(about, error),
    }
}

/// What no look is needed for, and yet only the roles refuse.
pub fn check_settings(config: &Config, findings: &mut Findings) {
    if let Err(Failure::Usage(error) | Failure::Runtime(error)) = hint_sources(&config.landing) {
        findings.error("landing.sqs_queue_url", format!("{error:#}"));
    }
    if config.landing.location.is_none() && config.trusted.location.is_none() {
        findings.note("landing.url", "neither it nor trusted.url is set, which roles need");
    }
}
