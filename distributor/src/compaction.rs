//! Compacts a partition's chain from time to time, concurrently with the lane.

use std::sync::Arc;
use std::time::Duration;

use common::shutdown::Shutdown;
use common::store::{RetryPolicy, RetryingStore};
use tokio::task::JoinHandle;

use crate::chain::{CUTS_PER_SUMMARY, ChainStore, Compacted};
use crate::lane::Shared;

/// Batches between two runs; the first one comes with the first batch of an owner.
const BATCHES_BETWEEN: u64 = 256;
/// Nothing waits for a run: a call that fails for this long is left to the next one.
const PATIENCE: Duration = Duration::from_secs(30);

/// The compaction of one partition by its owner. Dropping it aborts it, which is safe at any point.
pub(crate) struct Compaction {
    at_least: usize,
    batches: u64,
    task: Option<JoinHandle<()>>,
}

impl Default for Compaction {
    fn default() -> Self {
        Self { at_least: CUTS_PER_SUMMARY, batches: 0, task: None }
    }
}

impl Compaction {
    /// Called after each complete batch.
    pub(crate) fn batch_done(&mut self, shared: &Shared, id: i32) {
        let is_due = self.batches.is_multiple_of(BATCHES_BETWEEN);
        self.batches += 1;
        if is_due && self.task.as_ref().is_none_or(JoinHandle::is_finished) {
            self.task = Some(tokio::spawn(compact_and_report(shared.clone(), id, self.at_least)));
        }
    }
}

impl Drop for Compaction {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Failures are logged and counted; they do not affect the chain.
async fn compact_and_report(shared: Shared, id: i32, at_least: usize) {
    let topic = &shared.context.topic;
    match compact(&shared, id, at_least).await {
        Ok(Compacted { cuts: 0, .. }) => {}
        Ok(Compacted { summaries, cuts }) => {
            tracing::info!(topic, partition = id, cuts, summaries, "old cuts were compacted");
        }
        Err(error) => {
            shared.context.metrics.compaction_failed();
            tracing::warn!(topic, partition = id, error, "old cuts could not be compacted; the next run tries again");
        }
    }
}

async fn compact(shared: &Shared, id: i32, at_least: usize) -> Result<Compacted, String> {
    let bounds = shared.log.bounds(&shared.context.topic).await.map_err(|error| error.to_string())?;
    let Some(bounds) = bounds.get(&id) else { return Ok(Compacted::default()) };
    let policy = RetryPolicy {
        patience: Some(PATIENCE),
        // An error for an operator, such as a missing permission to delete, is not waited for.
        wait_for_operator: false,
        shutdown: Shutdown::new(),
        on_retry: Arc::new(|_| {}),
    };
    let store = Arc::new(RetryingStore::new(shared.plain_store.clone(), policy));
    let chain = ChainStore::new(store, &shared.context.topic, id);
    chain.compact(bounds.earliest, at_least).await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use common::config::MissingFiles;
    use common::store::{Store, StoreErrorKind};
    use common::telemetry::Registry;
    use tokio::sync::{mpsc, watch};

    use super::*;
    use crate::batch::testing::{ENCODING, layout};
    use crate::metrics::Metrics;
    use crate::partition::Context;
    use crate::testing::Zone;
    use crate::testing::interposed::{Fate, interposed};

    fn shared(zone: &Zone, metrics: &Arc<Metrics>, plain_store: Arc<dyn Store>) -> Shared {
        let context = Context {
            store: zone.store(),
            topic: "events".into(),
            group: "g".into(),
            log_id: "unused".into(),
            layout: layout(),
            encoding: ENCODING,
            max_rows: 20,
            max_bytes: u64::MAX,
            max_files: usize::MAX,
            max_age: PATIENCE,
            ages: common::config::TypeAges::default(),
            budget: crate::window::Budget::new(u64::MAX, crate::Scratch::new(zone.folder.path())),
            scratch: crate::Scratch::new(zone.folder.path()),
            uploads: crate::partition::UploadRoom::default(),
            missing: MissingFiles::Restore,
            metrics: metrics.clone(),
        };
        Shared {
            context: Arc::new(context),
            log: zone.log.clone(),
            plain_store,
            targets: watch::channel(None).1,
            reports: mpsc::unbounded_channel().0,
            room: Arc::default(),
        }
    }

    #[tokio::test]
    async fn an_owner_compacts_beside_its_batches_and_a_failure_is_counted_and_corrected_later() {
        let zone = Zone::of_forty_days().await;
        let metrics = Arc::new(Metrics::new(&Registry::new()).unwrap());
        let denied = interposed(zone.store(), |call, _| match call {
            "delete" => Fate::Fail(StoreErrorKind::Denied),
            _ => Fate::Pass,
        });
        let mut owner = Compaction { at_least: 2, batches: 0, task: None };
        let refused = shared(&zone, &metrics, denied);
        owner.batch_done(&refused, 0);
        owner.task.as_mut().unwrap().await.unwrap();
        assert_eq!((metrics.compaction_failures(), zone.chain("cuts").len()), (1, 12), "nothing may be deleted");
        let allowed = shared(&zone, &metrics, zone.store());
        owner.batch_done(&allowed, 0);
        assert!(owner.task.as_ref().unwrap().is_finished(), "rarely: not after each batch");
        for _ in 2..=BATCHES_BETWEEN {
            owner.batch_done(&allowed, 0);
        }
        owner.task.as_mut().unwrap().await.unwrap();
        assert_eq!(metrics.compaction_failures(), 1);
        assert!(zone.chain("cuts").len() < 12 && zone.chain("summaries").len() == 1);
    }
}
