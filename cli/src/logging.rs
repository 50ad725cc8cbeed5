//! Log lines on stderr.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::{CommonArgs, LogFormat, Output};

/// On a terminal the progress bar tells what goes on, and only warnings interrupt it.
pub fn start(common: &CommonArgs) {
    let on_terminal = std::io::stderr().is_terminal() && common.output == Output::Text;
    let level = common.log.unwrap_or(if on_terminal { LevelFilter::WARN } else { LevelFilter::INFO });
    // Libraries speak up only when something is wrong, unless everything is asked for.
    let others = if level >= LevelFilter::TRACE { level } else { level.min(LevelFilter::WARN) };
    let filter = ["common", "ingestor", "distributor", "event_distributor", "librdkafka"]
        .into_iter()
        .fold(Targets::new().with_default(others), |filter, target| filter.with_target(target, level));
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines = match common.log_format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // Fails only when a subscriber is set already, which this process does once.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}
