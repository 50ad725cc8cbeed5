//! Puts a checkpoint of a partition's commit log from time to time, and deletes what nobody needs any more, concurrently
//! with the owner.

use std::sync::Arc;
use std::time::Duration;

use commitlog_storage::{Collected, CommitLog, Keep};
use common::shutdown::Shutdown;
use common::store::{RetryPolicy, RetryingStore};
use tokio::task::JoinHandle;

use crate::error::PartitionError;
use crate::host::Host;
use crate::lane::Shared;

/// Batches between two runs; the first one comes with the first batch of an owner.
const BATCHES_BETWEEN: u64 = if cfg!(test) { 2 } else { 128 };
/// Entries that stay before a checkpoint, for those who follow the commit log.
/// In tests it is low, so that they have checkpoints.
const KEPT_ENTRIES: u64 = if cfg!(test) { 3 } else { 1_000 };
/// Nothing younger is deleted.
const KEPT_MS: i64 = if cfg!(test) { 30_000 } else { 7 * 24 * 3_600 * 1_000 };
/// Nothing waits for a run: a call that fails for this long is left to the next one.
const PATIENCE: Duration = Duration::from_secs(30);

/// Dropping it aborts a run, which is safe at any point.
#[derive(Default)]
pub(super) struct Collection {
    batches: u64,
    task: Option<JoinHandle<()>>,
}

impl Collection {
    /// Called after each batch.
    pub(super) fn batch_done(&mut self, shared: &Shared, host: &Host, id: i32) {
        let is_due = self.batches.is_multiple_of(BATCHES_BETWEEN);
        self.batches += 1;
        if is_due && self.task.as_ref().is_none_or(JoinHandle::is_finished) {
            let writer = (host.writer())();
            self.task = Some(tokio::spawn(collect_and_report(shared.clone(), writer, id)));
        }
    }
}

#[cfg(test)]
impl Collection {
    pub(super) fn is_idle(&self) -> bool {
        self.task.as_ref().is_none_or(JoinHandle::is_finished)
    }

    pub(super) async fn ended(&mut self) {
        self.task.as_mut().unwrap().await.unwrap();
    }
}

impl Drop for Collection {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Failures are logged and counted; they do not affect the commit log.
async fn collect_and_report(shared: Shared, writer: String, id: i32) {
    let topic = &shared.context.topic;
    match collect(&shared, &writer, id).await {
        Ok(collected) => tracing::debug!(topic, partition = id, ?collected, "a checkpoint was put"),
        Err(error) => {
            shared.context.metrics.collection_failed();
            error.of_the_store().into_iter().for_each(|error| shared.context.metrics.store_failed(error));
            tracing::warn!(topic, partition = id, %error, "no checkpoint could be put; the next run tries again");
        }
    }
}

async fn collect(shared: &Shared, writer: &str, id: i32) -> Result<Collected, PartitionError> {
    let bounds = shared.log.bounds(&shared.context.topic).await?;
    let Some(bounds) = bounds.get(&id) else { return Ok(Collected::default()) };
    let metrics = shared.context.metrics.clone();
    let policy = RetryPolicy {
        patience: Some(PATIENCE),
        // An error for an operator, such as a missing permission to delete, is not waited for.
        wait_for_operator: false,
        shutdown: Shutdown::new(),
        on_retry: Arc::new(move |error| metrics.store_failed(error)),
    };
    let store = Arc::new(RetryingStore::new(shared.plain_store.clone(), policy));
    let commits = CommitLog::new(store, &shared.context.topic, id);
    Ok(commits.collect(Keep { entries: KEPT_ENTRIES, kept_ms: KEPT_MS, log_from: bounds.earliest }, writer).await?)
}
