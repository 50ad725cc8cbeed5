//! Merges small files from time to time, while their partition is owned.

use std::sync::Arc;
use std::time::Duration;

use commitlog::ReplaceSlot;
use commitlog_storage::CommitLog;
use common::clock::Clock;
use common::shutdown::Shutdown;
use common::store::{RetryPolicy, RetryingStore, Store};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;

use super::{Compactor, Pace, PartitionCompaction, Policy};
use crate::batch::Encoding;
use crate::companion::Companion;
use crate::error::PartitionError;
use crate::host::Host;
use crate::metrics::{Merged, Metrics};
use crate::replace::Fence;
use crate::scratch::Scratch;
use crate::table::Tables;

/// Batches are looked at until their folders have rested for so long. Older small files, of a time without compaction, are left
/// to the command.
const LOOKED_AT: Duration = Duration::from_secs(48 * 3_600);
/// Nothing waits for a round: a call that fails for this long is left to the next one.
const PATIENCE: Duration = Duration::from_secs(30);

/// Merges small files of every partition that this process owns.
pub struct Background {
    /// Without retries.
    pub store: Arc<dyn Store>,
    pub host: Host,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub topic: String,
    pub group: String,
    /// Of merged files.
    pub encoding: Encoding,
    pub policy: Policy,
    /// The pause between two rounds of a partition.
    pub every: Duration,
    pub pace: Pace,
    pub scratch: Scratch,
    pub tables: Option<Arc<Tables>>,
    /// What lets files be deleted while distributors run, once known.
    pub fence: OnceCell<Option<Fence>>,
}

impl Companion for Background {
    fn accompany(self: Arc<Self>, partition: i32) -> JoinHandle<()> {
        tokio::spawn(async move { self.compact(partition).await })
    }
}

impl Background {
    /// Failures are logged and counted; they do not affect the owner.
    async fn compact(&self, partition: i32) {
        let Self { topic, metrics, .. } = self;
        // Partitions that are assigned together are not looked at together. Readers wait for what was interrupted.
        let mut pause = self.every.mul_f64(share((self.host.random)()));
        if self.is_interrupted(partition).await {
            pause = Duration::ZERO;
        }
        loop {
            tokio::time::sleep(pause).await;
            pause = self.every;
            match self.round(partition).await {
                Ok(Some(outcome)) => self.report(partition, &outcome),
                Ok(None) => return,
                Err(error) => {
                    metrics.merging_failed();
                    error.of_the_store().into_iter().for_each(|error| metrics.store_failed(error));
                    tracing::warn!(topic, partition, %error, "small files could not be merged; the next round tries again");
                }
            }
        }
    }

    /// Whether files are being replaced. If that cannot be read, the next round says why.
    async fn is_interrupted(&self, partition: i32) -> bool {
        let loaded = CommitLog::new(self.store.clone(), &self.topic, partition).load().await;
        loaded.is_ok_and(|loaded| loaded.head.replace(ReplaceSlot::Merging).is_some())
    }

    fn report(&self, partition: i32, outcome: &PartitionCompaction) {
        let PartitionCompaction { files_removed, files_made, bytes_removed, bytes_made, rows, skipped, .. } = outcome;
        let topic = &self.topic;
        self.metrics.merged(&Merged {
            files: *files_removed,
            bytes: *bytes_removed,
            rows: *rows,
            made_files: *files_made,
            made_bytes: *bytes_made,
            skipped: skipped.len() as u64,
        });
        if *files_made > 0 {
            tracing::info!(
                topic,
                partition,
                files_removed,
                files_made,
                bytes_removed,
                bytes_made,
                rows,
                "small files merged"
            );
        }
        if let Some(first) = skipped.first() {
            let files = skipped.len();
            tracing::warn!(
                topic,
                partition,
                files,
                first,
                "files that are missing or altered were not merged; 'verify' says what to do"
            );
        }
    }

    /// `None`: the store lets no file be deleted while distributors run.
    async fn round(&self, partition: i32) -> Result<Option<PartitionCompaction>, PartitionError> {
        let metrics = self.metrics.clone();
        let policy = RetryPolicy {
            patience: Some(PATIENCE),
            // An error for an operator, such as a missing permission to delete, is not waited for.
            wait_for_operator: false,
            shutdown: Shutdown::new(),
            on_retry: Arc::new(move |error| metrics.store_failed(error)),
        };
        let store: Arc<dyn Store> = Arc::new(RetryingStore::new(self.store.clone(), policy));
        let Some(fence) = *self.fence.get_or_try_init(|| Fence::beside(&*store)).await? else {
            tracing::warn!(
                topic = self.topic,
                partition,
                "small files are not merged here, for this store has neither locks nor refuses old requests: \
                 stop every distributor from time to time and run 'compact --offline', or set compact.every = \"0s\""
            );
            return Ok(None);
        };
        let now_ms = self.clock.now_ms();
        let looked_at = i64::try_from(LOOKED_AT.as_millis()).unwrap_or(i64::MAX);
        let compactor = Compactor {
            store,
            log: None,
            host: self.host.clone(),
            topic: self.topic.clone(),
            group: self.group.clone(),
            encoding: self.encoding,
            policy: self.policy,
            now_ms,
            scratch: self.scratch.clone(),
            tables: self.tables.clone(),
            fence,
            accepts_lost: false,
            since_ms: Some(now_ms.saturating_sub(self.policy.rest_ms).saturating_sub(looked_at)),
            pace: self.pace.clone(),
            on_file: Box::new(|_| {}),
        };
        Ok(Some(compactor.round(partition).await?))
    }
}

/// Between 0 and 1.
#[allow(clippy::cast_precision_loss, reason = "a share of a pause")]
fn share(random: u64) -> f64 {
    random as f64 / u64::MAX as f64
}
