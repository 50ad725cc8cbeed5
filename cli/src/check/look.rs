//! Looking at what the roles would find when they start: the topics, the trusted zone and the landing zone. Nothing is
//! created, and nothing stays behind.

use std::sync::Arc;

use common::config::Config;
use common::log::{Log, LogError, LogErrorKind};
use common::store::{ListOptions, LocalStore, Location, Store, StoreError, StoreErrorKind, check_writable};
use ingestor::IngestError;

use super::archivable::try_archive;
use super::pending::Pending;
use super::report::Findings;
use crate::wiring::{
    EMBEDDED_LEDGER_PARTITIONS, EMBEDDED_PARTITIONS, KAFKA_LEDGER_PARTITIONS, KAFKA_PARTITIONS, landing, probe_trusted,
    s3, scratch,
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

/// Whether there is anything to look at.
pub fn is_anything_named(config: &Config) -> bool {
    config.kafka.is_some() || config.landing.location.is_some() || config.data_dir().is_some()
}

pub async fn look(config: &Config, findings: &mut Findings) -> Seen {
    let mut seen = Seen::default();
    look_at_folders(config, findings);
    if let Some(location) = &config.trusted.location {
        look_at_trusted(location, &mut seen, findings).await;
    }
    if let Some(location) = &config.landing.location {
        look_at_landing(location, config, findings).await;
    }
    look_at_log(config, &mut seen, findings).await;
    seen
}

/// Whether files can be made where they will have to be.
fn look_at_folders(config: &Config, findings: &mut Findings) {
    let trusted = match &config.trusted.location {
        // One that is no folder is noticed when it is looked at.
        Some(Location::Local(path)) if path.is_dir() || !path.exists() => Some(path.clone()),
        _ => None,
    };
    // By default it is inside a local trusted zone.
    let is_own = config.log.data_dir.is_some() || matches!(config.trusted.location, Some(Location::S3 { .. }));
    let data_dir = config.data_dir().filter(|_| config.kafka.is_none() && is_own);
    for (key, folder) in [("trusted.url", trusted), ("log.data_dir", data_dir)] {
        if let Some(folder) = folder
            && let Err(error) = check_writable(&folder)
        {
            findings.error(key, format!("no files can be made in {}: {error}", folder.display()));
        }
    }
    // Only the distributor needs it.
    if config.trusted.location.is_some()
        && let Err(Failure::Usage(error) | Failure::Runtime(error)) = scratch(config)
    {
        findings.error("scratch.dir", format!("{error:#}"));
    }
}

async fn look_at_log(config: &Config, seen: &mut Seen, findings: &mut Findings) {
    if config.kafka.is_none() && config.data_dir().is_none() {
        findings.note("log", "no log is named, so none was looked at: give --brokers, --trusted or --data-dir");
        return;
    }
    let log = match trusted::log(config).await {
        Ok(Some(log)) => log,
        Ok(None) => {
            findings.note("log", "there is no embedded log yet; `run` makes one");
            return;
        }
        Err(Failure::Runtime(error)) if is_locked(&error) => {
            findings.note("log", "another process has the embedded log, such as `run`: it was not looked at");
            return;
        }
        Err(Failure::Usage(error) | Failure::Runtime(error)) => {
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
                let partitions = partitions(spec.partitions);
                findings.note(&about, format!("does not exist yet; the ingestor makes it with {partitions}"));
            }
            Err(error) if error.kind == LogErrorKind::Misconfigured => findings.error(&about, error),
            // The others would only take as long.
            Err(error) if matches!(error.kind, LogErrorKind::Transient) => {
                findings.warn(&about, format!("could not be looked at: {error}"));
                return;
            }
            Err(error) => {
                findings.error(&about, error);
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
            findings.note(ABOUT, format!("{} does not exist yet; the distributor makes it", path.display()));
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
            findings.note(ABOUT, tables(location, types));
        }
        Err(error) => store_failed(ABOUT, location, &error, findings),
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

fn tables(location: &Location, types: u64) -> String {
    match types {
        0 => format!("{location} has no tables yet"),
        1 => format!("{location} has tables of 1 event type"),
        types if types >= MAX_TYPES_COUNTED as u64 => format!("{location} has tables of {types} event types or more"),
        types => format!("{location} has tables of {types} event types"),
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
    let looked = async {
        let archive = ingestor::archive_mode(&*store, config.landing.archive).await?;
        let pending = Pending::look(&*store, &config.landing).await?;
        let waiting = waiting(&*store, pending.has_files()).await;
        Ok::<_, IngestError>((archive, waiting, pending))
    };
    match looked.await {
        Ok((archive, waiting, pending)) => {
            let mode = common::config::Archive::NAMES.iter().find(|(_, mode)| *mode == archive);
            let mode = mode.map_or("move", |(name, _)| *name);
            findings
                .note(ABOUT, format!("{location} can be read, {}, and landing.archive is '{mode}'", waiting.told()));
            pending.tell(findings);
            if let Err(why) = try_archive(location, &*store, archive).await {
                findings.warn(ABOUT, why);
            }
            if let Some(misplaced) = waiting.misplaced(location) {
                findings.warn(ABOUT, misplaced);
            }
        }
        Err(IngestError::Store(error)) => store_failed(ABOUT, location, &error, findings),
        Err(error) => findings.error(ABOUT, error),
    }
}

/// What waits in a landing zone.
struct Waiting {
    in_pending: bool,
    /// A file beside `pending/`, which nobody reads.
    beside: Option<String>,
}

impl Waiting {
    fn told(&self) -> &'static str {
        if self.in_pending { "files wait in its pending/" } else { "no files wait in its pending/" }
    }

    /// Files that were put where they are not looked for.
    fn misplaced(&self, location: &Location) -> Option<String> {
        let beside = self.beside.as_ref().filter(|_| !self.in_pending)?;
        let shown = location.to_string();
        let meant = match shown.trim_end_matches('/').strip_suffix("/pending").filter(|outer| !outer.is_empty()) {
            Some(outer) => format!("did you mean landing.url = '{outer}'?"),
            None => format!("move such files into {}", location.join("pending")),
        };
        Some(format!("'{beside}' is not in pending/, where files are looked for; {meant}"))
    }
}

async fn waiting(store: &dyn Store, in_pending: bool) -> Waiting {
    let root = ListOptions { delimiter: true, limit: Some(100), ..ListOptions::default() };
    // A folder that cannot be listed is told by the look into pending/; then nothing is said of misplaced files.
    let beside = store.list(&root).await.map_or_else(|_| Vec::new(), |page| page.objects);
    let beside = beside.into_iter().map(|object| object.key).find(|key| key != ingestor::MARKER_KEY);
    Waiting { in_pending, beside }
}

fn is_locked(error: &anyhow::Error) -> bool {
    error.downcast_ref::<LogError>().is_some_and(|error| error.kind == LogErrorKind::Locked)
}

fn store_failed(about: &str, location: &Location, error: &StoreError, findings: &mut Findings) {
    match error.kind {
        StoreErrorKind::Transient => findings.warn(about, format!("{location} could not be looked at: {error}")),
        _ => findings.error(about, format!("{location}: {error}")),
    }
}

/// What no look is needed for, and yet only the roles refuse.
pub fn check_settings(config: &Config, findings: &mut Findings) {
    if config.landing.location.is_none() && config.trusted.location.is_none() {
        findings.note(
            "landing.url",
            "neither it nor trusted.url is set: give --landing and --trusted to have them looked at",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_lie_where_nobody_looks_are_noticed() {
        let waiting = |in_pending, beside: Option<&str>| Waiting { in_pending, beside: beside.map(str::to_owned) };
        let misplaced = |waiting: Waiting, location: &str| waiting.misplaced(&Location::parse(location).ok()?);
        let told = misplaced(waiting(false, Some("a.json")), "zone/pending/").unwrap_or_default();
        assert!(told.contains("'a.json' is not in pending/") && told.contains("landing.url = 'zone'?"), "{told}");
        let told = misplaced(waiting(false, Some("a.json")), "s3://lake").unwrap_or_default();
        assert!(told.contains("move such files into s3://lake/pending"), "{told}");
        assert_eq!(misplaced(waiting(true, Some("a.json")), "zone"), None);
        assert_eq!(misplaced(waiting(false, None), "zone"), None);
    }

    #[test]
    fn tables_are_counted_by_their_types() {
        let location = Location::Local("t".into());
        let told = [0, 1, 12].map(|types| tables(&location, types));
        assert_eq!(told, ["t has no tables yet", "t has tables of 1 event type", "t has tables of 12 event types"]);
    }
}
