//! Publishes from time to time, in the process that owns the first partition of the topic.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::{TableError, Tables};
use crate::companion::Companion;
use crate::metrics::Metrics;

/// Its owner publishes for all partitions. Every topic has it.
const PUBLISHING_PARTITION: i32 = 0;

/// A round after one that failed comes so many times as late.
const AFTER_FAILURE: u32 = 6;

/// Publishes what the commit logs of all partitions say, while this process owns the first one.
pub struct TablePublisher {
    pub tables: Arc<Tables>,
    pub metrics: Arc<Metrics>,
    pub every: Duration,
    /// The last failure, which is logged once.
    pub failure: Mutex<Option<String>>,
}

impl Companion for TablePublisher {
    fn accompany(self: Arc<Self>, partition: i32) -> JoinHandle<()> {
        tokio::spawn(async move {
            if partition == PUBLISHING_PARTITION {
                self.publish().await;
            }
        })
    }
}

impl TablePublisher {
    /// Failures are logged and counted; they do not affect the owner, and the next round tries again.
    async fn publish(&self) {
        let mut pause = self.every;
        loop {
            tokio::time::sleep(pause).await;
            let outcome = self.tables.publish().await;
            self.report(&outcome.as_ref().map(|published| published.commits));
            if let Ok(published) = outcome {
                pause = self.every;
                self.metrics.tables_published(self.tables.clock.now_ms(), published);
            } else {
                // It reads the whole log of the table again.
                pause = self.every.saturating_mul(AFTER_FAILURE);
                self.metrics.publishing_failed();
            }
        }
    }

    fn report(&self, outcome: &Result<u64, &TableError>) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(_) if failure.take().is_some() => tracing::info!("the tables are published again"),
            Ok(_) => {}
            Err(error) => {
                let message = error.to_string();
                if failure.as_ref() != Some(&message) {
                    tracing::warn!(error = message, "the tables are not published; files and folders are not affected");
                }
                *failure = Some(message);
            }
        }
    }
}
