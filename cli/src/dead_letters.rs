//! `dlq list` and `dlq replay`: what stands in the dead-letter topic, and publishing it after all.

mod list;
mod replay;

use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use common::config::Config;
use common::log::Log;

use crate::args::{CommonArgs, LogArgs};
use crate::{Failure, trusted};

pub use list::list;
pub use replay::replay;

/// How long the log may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// The configuration, and the log that it and the flags name.
async fn open(args: &LogArgs, common: &CommonArgs) -> Result<(Config, Arc<dyn Log>), Failure> {
    let config = trusted::config(args, common)?;
    match trusted::log(args, &config).await? {
        Some(log) => Ok((config, log)),
        None => {
            let data_dir = trusted::data_dir(args, &config)?;
            Err(Failure::usage(anyhow!("there is no embedded log in {}", data_dir.display())))
        }
    }
}
