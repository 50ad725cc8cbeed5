//! Shared by commands that inspect the log or the trusted zone without writing events.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use common::clock::SystemClock;
use common::config::Config;
use common::log::{EmbeddedLog, Log, LogError, LogErrorKind};
use common::shutdown::Shutdown;
use common::store::{ListOptions, Location, RetryPolicy, RetryingStore, Store, folders};
use distributor::{Tables, file_without_commit_logs, lost};

use crate::args::{CommonArgs, LogArgs};
use crate::stores::refuse_no_folder;
use crate::wiring::{EMBEDDED_GROUP, kafka_log, required};
use crate::{Failure, configure, stores, wiring};

/// The trusted zone, its log, if that is known, and the group that wrote it.
pub struct Trusted {
    pub config: Config,
    pub location: Location,
    pub store: Arc<dyn Store>,
    pub log: Option<Arc<dyn Log>>,
    pub group: String,
}

impl Trusted {
    /// The log, for commands that need one.
    pub fn need_log(&self, command: &str) -> Result<Arc<dyn Log>, Failure> {
        let missing = || Failure::usage(anyhow!("{command} needs the log: {}", no_log(&self.config)));
        self.log.clone().ok_or_else(missing)
    }
}

/// The folder of the trusted zone with a folder for each topic.
const COMMIT_LOGS: &str = "_commits/";

impl Trusted {
    /// Refuses a zone without any batch of the topic where there are tables or batches of other topics, or other things: a job
    /// with a wrong path or topic would succeed for ever. An empty zone is none such.
    ///
    /// `partitions`, which a person named, have to have a commit log.
    pub async fn refuse_other_place(&self, partitions: &[i32]) -> Result<(), Failure> {
        let (topic, location) = (&self.config.log.events_topic, &self.location);
        let wrong = |message: String| Err(Failure::Runtime(anyhow!(message)));
        let topics = self.folder_names(COMMIT_LOGS).await?;
        if topics.contains(topic) {
            let known = self.folder_names(&format!("{COMMIT_LOGS}{topic}/")).await?;
            return match partitions.iter().find(|id| !known.contains(&id.to_string())) {
                Some(id) => {
                    Err(Failure::usage(anyhow!("--partitions: topic '{topic}' has no commit log of partition {id}")))
                }
                None => Ok(()),
            };
        }
        if let Some(file) = file_without_commit_logs(&*self.store, topic).await? {
            return wrong(lost(topic, &file));
        }
        if !topics.is_empty() {
            let topics = topics.join(", ");
            return wrong(format!(
                "{location} has no batches of topic '{topic}', but of: {topics}; log.events_topic says which to take"
            ));
        }
        let root = self.store.list(&ListOptions { delimiter: true, ..ListOptions::default() }).await?;
        let folders = root.prefixes.iter().map(|folder| folder.trim_end_matches('/').to_owned());
        let names: Vec<String> = folders.chain(root.objects.into_iter().map(|object| object.key)).collect();
        let is_ours = |name: &&String| name.starts_with('_') || ["events", "rejected"].contains(&name.as_str());
        match names.iter().find(|name| !is_ours(name)) {
            Some(other) => wrong(format!(
                "{location} has no batches of topic '{topic}', but other things, such as {other}: trusted.url has to name the \
                 folder that holds events/"
            )),
            None => Ok(()),
        }
    }

    /// The tables over the files. Refuses to leave out ones that exist: their readers would miss files.
    pub async fn tables(&self) -> Result<Option<Arc<Tables>>, Failure> {
        let tables = wiring::tables(&self.config, &self.store);
        if tables.is_some() {
            return Ok(tables);
        }
        for table in ["events/", "rejected/"] {
            let prefix = format!("{table}_delta_log/");
            let page = self.store.list(&ListOptions { prefix, limit: Some(1), ..ListOptions::default() }).await?;
            if let Some(object) = page.objects.first() {
                return Err(Failure::usage(anyhow!(
                    "table.format is 'none', and there is {}: delete {table}_delta_log/ if nobody reads this table, or set 'delta'",
                    object.key
                )));
            }
        }
        Ok(None)
    }

    /// The names of the folders directly below a prefix.
    async fn folder_names(&self, prefix: &str) -> Result<Vec<String>, Failure> {
        let folders = folders(&*self.store, prefix, usize::MAX).await?;
        let name = |key: &String| key.strip_prefix(prefix).map(|name| name.trim_end_matches('/').to_owned());
        Ok(folders.iter().filter_map(name).collect())
    }
}

pub async fn open(args: &LogArgs, common: &CommonArgs) -> Result<Trusted, Failure> {
    let mut trusted = open_tables(args, common).await?;
    trusted.log = log(&trusted.config).await?;
    Ok(trusted)
}

/// The trusted zone without its log, which another process may have.
pub async fn open_tables(args: &LogArgs, common: &CommonArgs) -> Result<Trusted, Failure> {
    let config = config(args, common)?;
    let location = required(config.trusted.location.as_ref(), "trusted.url", "--trusted")?.clone();
    let (store, log) = (store(&config, &location).await?, None);
    let group = config.kafka.as_ref().map_or_else(|| EMBEDDED_GROUP.to_owned(), |kafka| kafka.group.clone());
    Ok(Trusted { config, location, store, log, group })
}

/// The configuration with the flags applied.
pub fn config(args: &LogArgs, common: &CommonArgs) -> Result<Config, Failure> {
    configure::config(common, &flags(args))
}

/// The settings of the flags.
pub fn flags(args: &LogArgs) -> [(&'static str, &'static str, Option<&String>); 3] {
    [
        ("--brokers", "kafka.brokers", args.brokers.as_ref()),
        ("--trusted", "trusted.url", args.trusted.as_ref()),
        ("--data-dir", "log.data_dir", args.data_dir.as_ref()),
    ]
}

async fn store(config: &Config, location: &Location) -> Result<Arc<dyn Store>, Failure> {
    let store = stores::as_it_is(location).await?;
    let policy = RetryPolicy {
        patience: Some(config.patience.min(Duration::from_secs(60))),
        wait_for_operator: false,
        shutdown: Shutdown::new(),
        on_retry: Arc::new(|error| tracing::warn!(%error, "the trusted zone cannot be reached; trying again")),
    };
    Ok(Arc::new(RetryingStore::new(store, policy)))
}

/// Kafka if it is configured, else the embedded log if there is one.
pub async fn log(config: &Config) -> Result<Option<Arc<dyn Log>>, Failure> {
    if config.kafka.is_some() {
        return Ok(Some(kafka_log(config)?));
    }
    let data_dir = data_dir(config)?;
    if config.log.data_dir.is_some() {
        refuse_no_folder("log.data_dir", &data_dir)?;
    }
    if !EmbeddedLog::exists(&data_dir)? {
        return Ok(None);
    }
    match EmbeddedLog::open(&data_dir, Arc::new(SystemClock)).await {
        Ok(log) => Ok(Some(Arc::new(log))),
        Err(error) if error.kind == LogErrorKind::Locked => {
            Err(anyhow::Error::new(error).context("stop the other process first, then run this again").into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether another process has the embedded log open.
pub fn is_locked(error: &anyhow::Error) -> bool {
    error.downcast_ref::<LogError>().is_some_and(|error| error.kind == LogErrorKind::Locked)
}

/// The message if there is no log: the places that were searched, and how to name one.
pub fn no_log(config: &Config) -> String {
    let looked =
        config.data_dir().map_or_else(String::new, |dir| format!("there is no embedded log in {}; ", dir.display()));
    format!("{looked}name the log with --brokers, or the folder that `run` keeps it in with --data-dir")
}

/// The folder of the embedded log, if there is one.
pub fn data_dir(config: &Config) -> Result<PathBuf, Failure> {
    let nothing = "kafka.brokers, trusted.url and log.data_dir are not set: give --brokers, --trusted or --data-dir";
    config.data_dir().ok_or_else(|| Failure::usage(anyhow!(nothing)))
}
