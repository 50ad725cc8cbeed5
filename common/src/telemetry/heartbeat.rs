//! Detects that the roles' runtime runs no tasks. A task on it beats every second; another thread checks the last beat.
//!
//! A runtime whose threads are all busy runs no beat. That is no reason to end the process, which may only be busy:
//! `/livez` still answers. It is a reason not to be ready, so that somebody investigates.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::Health;

const INTERVAL: Duration = Duration::from_secs(1);
/// The silence that is reported.
const SILENCE: Duration = Duration::from_secs(10);
const COMPONENT: &str = "runtime";

/// Beats on the runtime it was started on, until it is dropped.
#[derive(Debug)]
pub struct Heartbeat {
    last: Arc<watch::Sender<Instant>>,
    task: JoinHandle<()>,
}

impl Heartbeat {
    /// Must be called within the tokio runtime that is to be watched.
    pub fn start() -> Self {
        let last = Arc::new(watch::Sender::new(Instant::now()));
        let beating = last.clone();
        let task = tokio::spawn(async move {
            loop {
                beating.send_replace(Instant::now());
                sleep(INTERVAL).await;
            }
        });
        Self { last, task }
    }

    /// The task for another runtime that keeps `health` informed. It never ends by itself.
    pub(crate) fn watch(&self, health: Health) -> impl Future<Output = ()> + Send + use<> {
        let last = self.last.clone();
        async move {
            loop {
                match silence(*last.borrow(), Instant::now()) {
                    Some(silence) => health.not_ready(COMPONENT, &busy(silence)),
                    None => health.ready(COMPONENT),
                }
                sleep(INTERVAL).await;
            }
        }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The time since the last beat, if it is too long.
fn silence(last: Instant, now: Instant) -> Option<Duration> {
    Some(now.saturating_duration_since(last)).filter(|silence| *silence > SILENCE)
}

fn busy(silence: Duration) -> String {
    format!("busy: every worker thread has been at work for {} s without a break", silence.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_runtime_that_runs_no_task_for_ten_seconds_is_not_ready_until_it_does() {
        let health = Health::default();
        let heart = Heartbeat::start();
        let _watching = tokio::spawn(heart.watch(health.clone()));
        sleep(SILENCE * 3).await;
        assert!(health.problems().is_empty(), "it beats");
        heart.task.abort();
        sleep(SILENCE + INTERVAL * 3).await;
        let reported = health.problems().get(COMPONENT).cloned().unwrap_or_default();
        assert!(reported.starts_with("busy: ") && reported.contains("for 1"), "{reported}");
        heart.last.send_replace(Instant::now());
        sleep(INTERVAL * 2).await;
        assert!(health.problems().is_empty(), "it beats again");
    }
}
