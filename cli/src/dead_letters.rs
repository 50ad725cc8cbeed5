//! `dlq list` and `dlq replay`: shows the dead-letter topic, and publishes its letters.

mod list;
mod replay;

use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use common::config::Config;
use common::log::{Log, LogErrorKind};

use crate::args::{CommonArgs, LogArgs};
use crate::{Failure, trusted};

pub use list::list;
pub use replay::replay;

/// How long the log may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// The configuration, and the log that it and the flags name.
async fn open(args: &LogArgs, common: &CommonArgs) -> Result<(Config, Arc<dyn Log>), Failure> {
    let config = trusted::config(args, common)?;
    let Some(log) = trusted::log(&config).await? else {
        return Err(Failure::usage(anyhow!("{}", trusted::no_log(&config))));
    };
    if let Err(error) = log.bounds(&config.log.dlq_topic).await {
        let error = match error.kind {
            LogErrorKind::Misconfigured => {
                let topic = &config.log.events_topic;
                anyhow::Error::new(error)
                    .context(format!("no ingestor has worked with log.events_topic = '{topic}' here"))
            }
            _ => error.into(),
        };
        return Err(Failure::Runtime(error));
    }
    Ok((config, log))
}
