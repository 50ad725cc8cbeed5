//! What commands that look at the trusted zone, or at the offsets that belong to it, have in common.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use common::clock::SystemClock;
use common::config::Config;
use common::log::{EmbeddedLog, Log};
use common::shutdown::Shutdown;
use common::store::{LocalStore, Location, RetryPolicy, RetryingStore, Store};

use crate::args::{CommonArgs, TrustedArgs};
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

pub async fn open(args: &TrustedArgs, common: &CommonArgs) -> Result<Trusted, Failure> {
    let flags =
        [("--brokers", "kafka.brokers", args.brokers.as_ref()), ("--trusted", "trusted.url", args.trusted.as_ref())];
    let config = configure::config(common, &flags)?;
    let location = required(config.trusted.location.as_ref(), "trusted.url", "--trusted")?.clone();
    let (log, group) = log(args, &config, &location).await?;
    let store = store(&config, &location).await?;
    Ok(Trusted { config, location, store, log, group })
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
async fn log(
    args: &TrustedArgs,
    config: &Config,
    location: &Location,
) -> Result<(Option<Arc<dyn Log>>, String), Failure> {
    if let Some(kafka) = &config.kafka {
        return Ok((Some(kafka_log(config)?), kafka.group.clone()));
    }
    let data_dir: PathBuf = args.data_dir.clone().unwrap_or_else(|| default_data_dir(location));
    let group = EMBEDDED_GROUP.to_owned();
    if !EmbeddedLog::exists(&data_dir) {
        return Ok((None, group));
    }
    Ok((Some(Arc::new(EmbeddedLog::open(&data_dir, Arc::new(SystemClock)).await?)), group))
}
