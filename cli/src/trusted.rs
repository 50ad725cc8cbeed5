//! What commands that look at the log or the trusted zone, rather than work on them, have in common.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use common::clock::SystemClock;
use common::config::Config;
use common::log::{EmbeddedLog, Log};
use common::shutdown::Shutdown;
use common::store::{LocalStore, Location, RetryPolicy, RetryingStore, Store};

use crate::args::{CommonArgs, LogArgs};
use crate::wiring::{EMBEDDED_GROUP, default_data_dir, kafka_log, required, s3};
use crate::{Failure, configure};

/// The trusted zone, the log it was written from, if that is known, and the group that wrote it.
pub struct Trusted {
    pub config: Config,
    pub location: Location,
    pub store: Arc<dyn Store>,
    pub log: Option<Arc<dyn Log>>,
    pub group: String,
}

pub async fn open(args: &LogArgs, common: &CommonArgs) -> Result<Trusted, Failure> {
    let config = config(args, common)?;
    let location = required(config.trusted.location.as_ref(), "trusted.url", "--trusted")?.clone();
    let log = log(args, &config).await?;
    let group = config.kafka.as_ref().map_or_else(|| EMBEDDED_GROUP.to_owned(), |kafka| kafka.group.clone());
    let store = store(&config, &location).await?;
    Ok(Trusted { config, location, store, log, group })
}

/// The configuration with what the flags say.
pub fn config(args: &LogArgs, common: &CommonArgs) -> Result<Config, Failure> {
    let flags =
        [("--brokers", "kafka.brokers", args.brokers.as_ref()), ("--trusted", "trusted.url", args.trusted.as_ref())];
    configure::config(common, &flags)
}

async fn store(config: &Config, location: &Location) -> Result<Arc<dyn Store>, Failure> {
    let store: Arc<dyn Store> = match location {
        // Opened as it is: nothing here makes folders.
        Location::Local(path) if path.is_dir() => Arc::new(LocalStore::open(path.clone())),
        Location::Local(path) => {
            return Err(Failure::usage(anyhow!("trusted.url: {} is not a folder", path.display())));
        }
        location => s3(location).await?,
    };
    let policy = RetryPolicy {
        patience: Some(config.patience.min(Duration::from_secs(60))),
        wait_for_operator: false,
        shutdown: Shutdown::new(),
        on_retry: Arc::new(|error| tracing::warn!(%error, "the trusted zone cannot be reached; trying again")),
    };
    Ok(Arc::new(RetryingStore::new(store, policy)))
}

/// Kafka if it is configured, else the embedded log if there is one.
pub async fn log(args: &LogArgs, config: &Config) -> Result<Option<Arc<dyn Log>>, Failure> {
    if config.kafka.is_some() {
        return Ok(Some(kafka_log(config)?));
    }
    let data_dir = data_dir(args, config)?;
    if !EmbeddedLog::exists(&data_dir) {
        return Ok(None);
    }
    Ok(Some(Arc::new(EmbeddedLog::open(&data_dir, Arc::new(SystemClock)).await?)))
}

/// Where the embedded log is, if there is one.
pub fn data_dir(args: &LogArgs, config: &Config) -> Result<PathBuf, Failure> {
    if let Some(data_dir) = &args.data_dir {
        return Ok(data_dir.clone());
    }
    let trusted = config.trusted.location.as_ref();
    Ok(default_data_dir(required(trusted, "kafka.brokers and trusted.url", "--brokers, --trusted or --data-dir")?))
}
