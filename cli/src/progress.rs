//! A progress line on the terminal. Draws nothing if stderr is not a terminal.

use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::{CommonArgs, Output};

const REFRESH: Duration = Duration::from_millis(150);

/// Draws until dropped.
pub struct Progress {
    bar: ProgressBar,
    task: tokio::task::JoinHandle<()>,
}

impl Progress {
    pub fn start(
        common: &CommonArgs,
        ingest: Option<Arc<ingestor::Metrics>>,
        distribute: Option<Arc<distributor::Metrics>>,
    ) -> Self {
        let target =
            if common.output == Output::Text { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
            bar.set_style(style);
        }
        let drawn = bar.clone();
        let task = tokio::spawn(async move {
            let begun = Instant::now();
            loop {
                tokio::time::sleep(REFRESH).await;
                let mut parts = Vec::new();
                if let Some(metrics) = &ingest {
                    let report = metrics.report();
                    let rate = per_second(report.events.published, begun);
                    parts.push(format!(
                        "ingested {} files, {} events ({rate}/s), {}",
                        HumanCount(report.files.ingested),
                        HumanCount(report.events.published),
                        HumanBytes(metrics.read_bytes())
                    ));
                }
                if let Some(metrics) = &distribute {
                    let report = metrics.report();
                    let rate = per_second(report.rows, begun);
                    parts.push(format!(
                        "written {} rows ({rate}/s), {} files, {}",
                        HumanCount(report.rows),
                        HumanCount(report.files),
                        HumanBytes(report.bytes)
                    ));
                }
                drawn.set_message(parts.join(" | "));
                drawn.tick();
            }
        });
        Self { bar, task }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.task.abort();
        self.bar.finish_and_clear();
    }
}

fn per_second(count: u64, since: Instant) -> HumanCount {
    let millis = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
    HumanCount(count.saturating_mul(1000) / millis)
}
