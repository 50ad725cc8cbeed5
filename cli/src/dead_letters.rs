//! `dlq list` and `dlq replay`: what stands in the dead-letter topic, and publishing it after all.

mod list;
mod replay;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use common::clock::SystemClock;
use common::config::Config;
use common::log::{EmbeddedLog, Log};

use crate::args::{CommonArgs, DlqLogArgs};
use crate::wiring::{default_data_dir, kafka_log, required};
use crate::{Failure, configure};

pub use list::list;
pub use replay::replay;

/// How long the log may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// The configuration, and the log that it and the flags name.
async fn open(args: &DlqLogArgs, common: &CommonArgs) -> Result<(Config, Arc<dyn Log>), Failure> {
    let flags =
        [("--brokers", "kafka.brokers", args.brokers.as_ref()), ("--trusted", "trusted.url", args.trusted.as_ref())];
    let config = configure::config(common, &flags)?;
    if config.kafka.is_some() {
        let log = kafka_log(&config)?;
        return Ok((config, log));
    }
    let data_dir = data_dir(args, &config)?;
    if !EmbeddedLog::exists(&data_dir) {
        return Err(Failure::usage(anyhow!("there is no embedded log in {}", data_dir.display())));
    }
    let log = Arc::new(EmbeddedLog::open(&data_dir, Arc::new(SystemClock)).await?);
    Ok((config, log))
}

fn data_dir(args: &DlqLogArgs, config: &Config) -> Result<PathBuf, Failure> {
    if let Some(data_dir) = &args.data_dir {
        return Ok(data_dir.clone());
    }
    let trusted = config.trusted.location.as_ref();
    Ok(default_data_dir(required(trusted, "kafka.brokers and trusted.url", "--brokers, --trusted or --data-dir")?))
}
