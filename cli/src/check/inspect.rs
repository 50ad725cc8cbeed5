//! Inspects what the roles would find when they start: the topics, the trusted zone and the landing zone. Creates
//! nothing that stays.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use common::config::Config;
use common::log::{Log, LogErrorKind, Retention, TopicSpec, require_rights};
use common::store::{ListOptions, Location, Store, StoreError, StoreErrorKind, check_writable};
use distributor::ReplayError;
use ingestor::IngestError;

use super::archivable::{lack_of_room, try_archive};
use super::pending::Pending;
use super::report::Findings;
use crate::wiring::{
    EMBEDDED_GROUP, EMBEDDED_LEDGER_PARTITIONS, EMBEDDED_PARTITIONS, KAFKA_LEDGER_PARTITIONS, KAFKA_PARTITIONS, scratch,
};
use crate::{Failure, stores, trusted};

/// Types are counted up to here: more are equally bad.
const MAX_TYPES_COUNTED: usize = 10_000;
/// Folders of the table are looked at up to here.
const MAX_FOLDERS_LOOKED_AT: usize = 50_000;
/// The name of the embedded log's file in its folder.
const LOG_FILE: &str = "log.redb";
/// … and the one by which a process holds it.
const LOCK_FILE: &str = "lock";
/// The most folders that are named if they cannot be read.
const MAX_NAMED: usize = 5;

/// The findings about the log and the tables, as far as they exist.
#[derive(Debug, Default)]
pub struct Inspected {
    pub partitions: Option<u64>,
    pub types: Option<u64>,
}

/// Partitions of the events topic if it has to be created.
pub fn default_partitions(config: &Config) -> u32 {
    config.log.partitions.unwrap_or(if config.kafka.is_some() { KAFKA_PARTITIONS } else { EMBEDDED_PARTITIONS })
}

/// Whether there is anything to inspect.
pub fn is_anything_named(config: &Config) -> bool {
    config.kafka.is_some() || config.landing.location.is_some() || config.data_dir().is_some()
}

pub async fn inspect(config: &Config, findings: &mut Findings) -> Inspected {
    let mut inspected = Inspected::default();
    let is_log_usable = inspect_folders(config, findings);
    let tables = match &config.trusted.location {
        Some(location) => inspect_trusted(location, &mut inspected, findings).await,
        None => None,
    };
    if let Some(location) = &config.landing.location {
        inspect_landing(location, config, findings).await;
    }
    let log = if is_log_usable { inspect_log(config, &mut inspected, findings).await } else { None };
    if let (Some(tables), Some(log)) = (tables, log) {
        inspect_standing(&tables, &*log, config, findings).await;
    }
    inspected
}

/// Whether distributors could go on with the tables.
async fn inspect_standing(store: &Arc<dyn Store>, log: &dyn Log, config: &Config, findings: &mut Findings) {
    const ABOUT: &str = "trusted zone";
    let group = config.kafka.as_ref().map_or(EMBEDDED_GROUP, |kafka| &kafka.group);
    let (name, partitions) = (config.log.events_topic.clone(), default_partitions(config));
    let spec = TopicSpec { name, partitions, retention: Retention::Delete };
    match distributor::standing(store, log, &spec, group).await {
        Ok(standing) => standing.refused.iter().for_each(|refusal| findings.error(ABOUT, refusal)),
        // Reported with the rights of the topic.
        Err(ReplayError::Log(error)) => findings.note(ABOUT, format!("not held against the log: {error}")),
        Err(error) => findings.error(ABOUT, format!("{:#}", anyhow::Error::from(error))),
    }
}

/// Checks that files can be created wherever the roles need to. Returns whether the log can be inspected.
fn inspect_folders(config: &Config, findings: &mut Findings) -> bool {
    let trusted = match &config.trusted.location {
        // One that is not a folder is reported when it is inspected.
        Some(Location::Local(path)) if path.is_dir() || !path.exists() => Some(path.clone()),
        _ => None,
    };
    if let Some(folder) = trusted
        && let Err(error) = check_writable(&folder)
    {
        findings.error("trusted.url", format!("no files can be made in {}: {error}", folder.display()));
    }
    let data_dir = config.data_dir().filter(|_| config.kafka.is_none());
    let log_problem = data_dir.and_then(|data_dir| log_problem(config, &data_dir).err());
    let is_log_usable = log_problem.is_none();
    if let Some(problem) = log_problem {
        findings.error("log.data_dir", problem);
    }
    // Only the distributor needs it.
    if config.trusted.location.is_some()
        && let Err(Failure::Usage(error) | Failure::Runtime(error)) = scratch(config)
    {
        findings.error("scratch.dir", format!("{error:#}"));
    }
    is_log_usable
}

/// Checks by trying that the embedded log can be created, or written to. Changes nothing.
fn log_problem(config: &Config, data_dir: &Path) -> Result<(), String> {
    if let Err(Failure::Usage(error) | Failure::Runtime(error)) = stores::refuse_no_folder("log.data_dir", data_dir) {
        return Err(format!("{error:#}"));
    }
    // By default it is inside a local trusted zone, which is reported by itself.
    let is_own = config.log.data_dir.is_some() || matches!(config.trusted.location, Some(Location::S3 { .. }));
    if is_own || data_dir.is_dir() {
        check_writable(data_dir).map_err(|error| format!("no files can be made in {}: {error}", data_dir.display()))?;
    }
    let lock = data_dir.join(LOCK_FILE);
    if lock.symlink_metadata().is_ok_and(|facts| !facts.is_file()) {
        return Err(format!("{} is not a regular file, as the lock of the log has to be; remove it", lock.display()));
    }
    let file = data_dir.join(LOG_FILE);
    if !file.is_file() {
        // None, or one that is refused with its reason when it is opened.
        return Ok(());
    }
    let opened = OpenOptions::new().write(true).open(&file);
    opened.map(|_| ()).map_err(|error| format!("{} cannot be written to, as `run` has to: {error}", file.display()))
}

async fn inspect_log(config: &Config, inspected: &mut Inspected, findings: &mut Findings) -> Option<Arc<dyn Log>> {
    if config.kafka.is_none() && config.data_dir().is_none() {
        findings.note("log", "no log is named, so none was checked: give --brokers, --trusted or --data-dir");
        return None;
    }
    let log = match trusted::log(config).await {
        Ok(Some(log)) => log,
        Ok(None) => {
            findings.note("log", "there is no embedded log yet; `run` makes one");
            return None;
        }
        Err(Failure::Runtime(error)) if trusted::is_locked(&error) => {
            findings.note("log", "another process has the embedded log, such as `run`: it was not checked");
            return None;
        }
        Err(Failure::Usage(error) | Failure::Runtime(error)) => {
            findings.error("log", format!("{error:#}"));
            return None;
        }
    };
    inspect_topics(&*log, config, inspected, findings).await.then_some(log)
}

/// Whether the log can be worked with.
async fn inspect_topics(log: &dyn Log, config: &Config, inspected: &mut Inspected, findings: &mut Findings) -> bool {
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
                    inspected.partitions = Some(u64::from(info.partitions));
                }
                findings.note(&about, format!("is as it must be, with {}", partitions(info.partitions)));
            }
            Ok(None) => {
                let partitions = partitions(spec.partitions);
                findings.note(&about, format!("does not exist yet; the ingestor makes it with {partitions}"));
            }
            Err(error) if error.kind == LogErrorKind::Misconfigured => findings.error(&about, error),
            // The other topics would take as long.
            Err(error) if matches!(error.kind, LogErrorKind::Transient) => {
                findings.warn(&about, format!("could not be checked: {error}"));
                return false;
            }
            Err(error) => {
                findings.error(&about, error);
                return false;
            }
        }
    }
    inspect_rights(log, config, findings).await
}

/// Of the roles whose zones are named: whether they have them all.
async fn inspect_rights(log: &dyn Log, config: &Config, findings: &mut Findings) -> bool {
    let topics = &config.log;
    let group = config.kafka.as_ref().map_or(EMBEDDED_GROUP, |kafka| &kafka.group);
    let ingest = config.landing.location.is_some().then(|| {
        let needed = ingestor::needed_rights(&topics.events_topic, &topics.dlq_topic, &topics.ledger_topic);
        ("rights of ingest", needed)
    });
    let distribute = config.trusted.location.is_some().then(|| {
        let needed = distributor::needed_rights(&topics.events_topic, group);
        ("rights of distribute", needed)
    });
    let mut has_all = true;
    for (about, needed) in [ingest, distribute].into_iter().flatten() {
        if let Err(error) = require_rights(log, &needed).await {
            findings.error(about, error);
            has_all = false;
        }
    }
    has_all
}

fn partitions(count: u32) -> String {
    format!("{count} partition{}", if count == 1 { "" } else { "s" })
}

async fn inspect_trusted(
    location: &Location,
    inspected: &mut Inspected,
    findings: &mut Findings,
) -> Option<Arc<dyn Store>> {
    const ABOUT: &str = "trusted zone";
    if let Location::Local(path) = location
        && !path.exists()
    {
        findings.note(ABOUT, format!("{} does not exist yet; the distributor makes it", path.display()));
        return None;
    }
    let store = match stores::as_it_is(location).await {
        Ok(store) => store,
        Err(Failure::Usage(error) | Failure::Runtime(error)) => {
            findings.error(ABOUT, format!("{error:#}"));
            return None;
        }
    };
    let counted = async {
        match location {
            Location::Local(root) => count_folders(root),
            Location::S3 { .. } => {
                stores::probe_trusted(&*store).await?;
                Ok((count_types(&*store).await?, Vec::new()))
            }
        }
    };
    match counted.await {
        Ok((types, unreadable)) => {
            report_unreadable(&unreadable, findings);
            inspected.types = Some(types).filter(|types| *types > 0);
            findings.note(ABOUT, tables(location, types));
            Some(store)
        }
        Err(error) => {
            store_failed(ABOUT, location, &error, findings);
            None
        }
    }
}

/// The number of types in the events table, and its folders that cannot be read.
fn count_folders(root: &Path) -> Result<(u64, Vec<String>), StoreError> {
    let (mut types, mut looked_at, mut unreadable) = (0, 0, Vec::new());
    let events = root.join("events");
    let failed = |error: &std::io::Error| StoreError::new(StoreErrorKind::Denied, "list", "events/", error);
    let entries = match std::fs::read_dir(&events) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((0, unreadable)),
        Err(error) => return Err(failed(&error)),
    };
    for entry in entries {
        let entry = entry.map_err(|error| failed(&error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("domain_event_type=") || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let mut folders = vec![format!("events/{name}")];
        let mut is_empty = true;
        while let Some(folder) = folders.pop().filter(|_| looked_at < MAX_FOLDERS_LOOKED_AT) {
            looked_at += 1;
            match std::fs::read_dir(root.join(&folder)) {
                Ok(entries) => {
                    let inner = entries.filter_map(Result::ok).filter(|entry| {
                        is_empty = false;
                        entry.file_type().is_ok_and(|kind| kind.is_dir())
                    });
                    // Years, months and days.
                    let is_deep = folder.matches('/').count() > 3;
                    let inner = inner.map(|entry| format!("{folder}/{}", entry.file_name().to_string_lossy()));
                    folders.extend(inner.collect::<Vec<_>>().into_iter().filter(|_| !is_deep));
                }
                Err(error) => {
                    is_empty = false;
                    unreadable.push(format!("{folder}/: {error}"));
                }
            }
        }
        types += u64::from(!is_empty);
        if types >= MAX_TYPES_COUNTED as u64 {
            break;
        }
    }
    unreadable.sort();
    Ok((types, unreadable))
}

fn report_unreadable(folders: &[String], findings: &mut Findings) {
    for folder in folders.iter().take(MAX_NAMED) {
        findings.warn("trusted zone", format!("{folder}; batches with events that belong there cannot be written"));
    }
    if folders.len() > MAX_NAMED {
        findings.warn("trusted zone", format!("{} more folders cannot be read", folders.len() - MAX_NAMED));
    }
}

/// Folders of the events table, in a bucket.
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

async fn inspect_landing(location: &Location, config: &Config, findings: &mut Findings) {
    const ABOUT: &str = "landing zone";
    let store = match stores::landing(location).await {
        Ok(store) => store,
        Err(Failure::Usage(error) | Failure::Runtime(error)) => {
            findings.error(ABOUT, format!("{error:#}"));
            return;
        }
    };
    let looked = async {
        let archive = ingestor::archive_mode(&*store, config.landing.archive).await?;
        let pending = Pending::list(&*store, &config.landing).await?;
        let waiting = waiting(&*store, pending.has_files()).await;
        Ok::<_, IngestError>((archive, waiting, pending))
    };
    match looked.await {
        Ok((archive, waiting, pending)) => {
            let mode = common::config::Archive::NAMES.iter().find(|(_, mode)| *mode == archive);
            let mode = mode.map_or("move", |(name, _)| *name);
            findings.note(
                ABOUT,
                format!("{location} can be read, {}, and landing.archive is '{mode}'", waiting.description()),
            );
            pending.report(findings);
            if let Err(why) = try_archive(location, &*store, archive).await {
                findings.warn(ABOUT, why);
            }
            if let Some(lack) = lack_of_room(location, archive, pending.bytes()) {
                findings.warn(ABOUT, lack);
            }
            if let Some(misplaced) = waiting.misplaced(location) {
                findings.warn(ABOUT, misplaced);
            }
        }
        Err(IngestError::Store(error)) => store_failed(ABOUT, location, &error, findings),
        Err(error) => findings.error(ABOUT, error),
    }
}

/// The files that wait in a landing zone.
struct Waiting {
    in_pending: bool,
    /// A file beside `pending/`, which no ingestor reads.
    beside: Option<String>,
}

impl Waiting {
    fn description(&self) -> &'static str {
        if self.in_pending { "files wait in its pending/" } else { "no files wait in its pending/" }
    }

    /// Reports files that were put where no ingestor reads them.
    fn misplaced(&self, location: &Location) -> Option<String> {
        let beside = self.beside.as_ref().filter(|_| !self.in_pending)?;
        let shown = location.to_string();
        let meant = match shown.trim_end_matches('/').strip_suffix("/pending").filter(|outer| !outer.is_empty()) {
            Some(outer) => format!("did you mean landing.url = '{outer}'?"),
            None => format!("move such files into {}", location.join("pending")),
        };
        Some(format!("'{beside}' is not in pending/, where files are read; {meant}"))
    }
}

async fn waiting(store: &dyn Store, in_pending: bool) -> Waiting {
    let root = ListOptions { delimiter: true, limit: Some(100), ..ListOptions::default() };
    // A folder that cannot be listed is reported by the inspection of pending/; misplaced files are then not reported.
    let beside = store.list(&root).await.map_or_else(|_| Vec::new(), |page| page.objects);
    let beside = beside.into_iter().map(|object| object.key).find(|key| key != ingestor::MARKER_KEY);
    Waiting { in_pending, beside }
}

fn store_failed(about: &str, location: &Location, error: &StoreError, findings: &mut Findings) {
    match error.kind {
        StoreErrorKind::Transient => findings.warn(about, format!("{location} could not be checked: {error}")),
        _ => findings.error(about, format!("{location}: {error}")),
    }
}

/// Checks settings that need no inspection and that only the roles refuse.
pub fn check_settings(config: &Config, findings: &mut Findings) {
    if config.landing.location.is_none() && config.trusted.location.is_none() {
        findings.note(
            "landing.url",
            "neither it nor trusted.url is set: give --landing and --trusted to have them checked",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_no_ingestor_would_read_are_reported() {
        let waiting = |in_pending, beside: Option<&str>| Waiting { in_pending, beside: beside.map(str::to_owned) };
        let misplaced = |waiting: Waiting, location: &str| waiting.misplaced(&Location::parse(location).ok()?);
        let words = misplaced(waiting(false, Some("a.json")), "zone/pending/").unwrap_or_default();
        assert!(words.contains("'a.json' is not in pending/") && words.contains("landing.url = 'zone'?"), "{words}");
        let words = misplaced(waiting(false, Some("a.json")), "s3://lake").unwrap_or_default();
        assert!(words.contains("move such files into s3://lake/pending"), "{words}");
        assert_eq!(misplaced(waiting(true, Some("a.json")), "zone"), None);
        assert_eq!(misplaced(waiting(false, None), "zone"), None);
    }

    #[test]
    fn tables_are_counted_by_their_types() {
        let location = Location::Local("t".into());
        let words = [0, 1, 12].map(|types| tables(&location, types));
        assert_eq!(words, ["t has no tables yet", "t has tables of 1 event type", "t has tables of 12 event types"]);
    }
}
