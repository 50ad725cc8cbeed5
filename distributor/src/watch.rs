//! Checks from time to time where the log ends and how far the assigned partitions are, for the lag metrics and the
//! watermark.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::clock::Clock;
use common::log::{Bounds, Log, LogError, LogErrorKind, Membership, ReadEvent};
use common::store::Store;

use crate::lane::LaneState;
use crate::metrics::{Behind, Metrics};
use crate::watermark::{self, Reached};

const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Each update is a put. If nothing else holds the watermark back, it is at most this much behind …
const CHECKS_PER_WATERMARK: u32 = 6;
/// … and this much more, because the clocks of brokers and of this process may differ. An idle partition is complete up
/// to the time of the check, less this.
const CLOCK_SKEW_MS: i64 = 60_000;
/// How long an end-of-partition check may be silent.
const PATIENCE: Duration = Duration::from_secs(15);

/// The progress of a partition at the end of its commit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The offset of the next record.
    pub position: i64,
    /// Everything below this offset is in the tables …
    pub complete_to: i64,
    /// … and this was log time then, Unix milliseconds. `None` before the first record.
    pub complete_ms: Option<i64>,
    /// Log-append time of the open batch's first record.
    pub open_since_ms: Option<i64>,
    /// No record has arrived since the log's end was reached.
    pub at_end: bool,
}

/// The assigned partitions.
pub(crate) type Lanes = Arc<Mutex<BTreeMap<i32, Arc<LaneState>>>>;

pub(crate) struct Watch {
    pub log: Arc<dyn Log>,
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub topic: String,
    pub lanes: Lanes,
}

/// Whether there is no committed record at or after `from`, up to the log's current end.
///
/// # Errors
/// The log's error.
pub(crate) async fn is_drained(log: &dyn Log, topic: &str, partition: i32, from: i64) -> Result<bool, LogError> {
    let mut reader = log.reader(topic, &Membership::Direct { partitions: vec![partition] }).await?;
    let drained = async {
        loop {
            match reader.poll(PATIENCE).await? {
                ReadEvent::Assigned(_) => reader.start(partition, from).await?,
                ReadEvent::EndReached(_) => return Ok(true),
                ReadEvent::Chunk(_) | ReadEvent::Idle => return Ok(false),
                // There is something, which its owner cannot read either.
                ReadEvent::Failed { error, .. } if error.kind == LogErrorKind::Corrupt => return Ok(false),
                ReadEvent::Failed { error, .. } => return Err(error),
                ReadEvent::Revoked(_) => {}
            }
        }
    }
    .await;
    reader.close().await;
    drained
}

impl Watch {
    /// Never ends; may be dropped at any point.
    pub(crate) async fn run(self) {
        // For idle partitions: the range that contains only transaction markers.
        let mut empty: HashMap<i32, (i64, i64)> = HashMap::new();
        for check in 1_u32.. {
            tokio::time::sleep(LOOK_EVERY).await;
            let asked_ms = self.clock.now_ms();
            let all = self.all();
            let bounds = match self.log.bounds(&self.topic).await {
                Ok(bounds) => Some(bounds),
                Err(error) => {
                    self.metrics.log_failed(&error);
                    None
                }
            };
            self.report(&all, bounds.as_ref());
            let Some(bounds) = bounds.filter(|_| check % CHECKS_PER_WATERMARK == 0) else { continue };
            let mut reached = BTreeMap::new();
            for (id, progress) in all {
                let caught_up = match bounds.get(&id) {
                    Some(bounds) => self.is_caught_up(id, &progress, bounds.latest, &mut empty).await,
                    None => Ok(false),
                };
                match caught_up {
                    Ok(caught_up) => {
                        reached.extend(reach(&progress, caught_up.then_some(asked_ms)).map(|reached| (id, reached)));
                    }
                    Err(error) => self.metrics.log_failed(&error),
                }
            }
            self.put(&reached, &bounds).await;
        }
    }

    /// A final check, once everything has been read up to the log's end at `asked_ms`.
    pub(crate) async fn at_the_end(&self, asked_ms: i64, bounds: &BTreeMap<i32, Bounds>) {
        let all = self.all();
        self.report(&all, None);
        let reached = all.iter().filter_map(|(id, progress)| Some((*id, reach(progress, Some(asked_ms))?)));
        self.put(&reached.collect(), bounds).await;
    }

    fn all(&self) -> BTreeMap<i32, Progress> {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.iter().filter_map(|(id, state)| Some((*id, state.progress()?))).collect()
    }

    fn report(&self, all: &BTreeMap<i32, Progress>, bounds: Option<&BTreeMap<i32, Bounds>>) {
        let now_ms = self.clock.now_ms();
        for (id, progress) in all {
            let records = bounds.and_then(|bounds| bounds.get(id)).map(|bounds| records_behind(progress, *bounds));
            self.metrics.behind(&self.topic, *id, Behind { ms: ms_behind(progress, now_ms), records });
        }
        // Other owners report partitions that are no longer assigned.
        self.metrics.behind_only(&self.topic, all.keys());
    }

    /// Whether all records below `latest`, committed or yet to be, are in the tables.
    async fn is_caught_up(
        &self,
        id: i32,
        progress: &Progress,
        latest: i64,
        empty: &mut HashMap<i32, (i64, i64)>,
    ) -> Result<bool, LogError> {
        if progress.open_since_ms.is_some() || progress.position != progress.complete_to {
            return Ok(false);
        }
        if progress.complete_to >= latest || empty.get(&id) == Some(&(progress.complete_to, latest)) {
            return Ok(true);
        }
        if !progress.at_end || self.log.settled_end(&self.topic, id).await? < latest {
            return Ok(false);
        }
        let is_empty = is_drained(&*self.log, &self.topic, id, progress.complete_to).await?;
        if is_empty {
            empty.insert(id, (progress.complete_to, latest));
        }
        Ok(is_empty)
    }

    async fn put(&self, reached: &BTreeMap<i32, Reached>, bounds: &BTreeMap<i32, Bounds>) {
        if reached.is_empty() {
            return;
        }
        let all: Vec<i32> = bounds.keys().copied().collect();
        match watermark::put(&*self.store, &self.topic, reached, &all, self.clock.now_ms()).await {
            Ok(watermark) => self.metrics.watermark(watermark.complete_before_ms),
            Err(error) => {
                self.metrics.store_failed(&error);
                tracing::warn!(%error, "the watermark could not be put; trying again later");
            }
        }
    }
}

/// How far a partition is complete, given the last time it was caught up with the log.
fn reach(progress: &Progress, caught_up_ms: Option<i64>) -> Option<Reached> {
    let idle_ms = caught_up_ms.map(|asked_ms| asked_ms - CLOCK_SKEW_MS);
    let complete_before_ms = progress.complete_ms.max(idle_ms)?;
    Some(Reached { offset: progress.complete_to, complete_before_ms })
}

/// Age of the oldest record that is not in the tables yet.
fn ms_behind(progress: &Progress, now_ms: i64) -> i64 {
    let oldest_ms = match progress {
        Progress { open_since_ms: Some(since_ms), .. } => Some(*since_ms),
        Progress { at_end: true, .. } => None,
        // The next one is no older than the last.
        Progress { complete_ms, .. } => *complete_ms,
    };
    oldest_ms.map_or(0, |oldest_ms| (now_ms - oldest_ms).max(0))
}

/// From the position, not from committed offsets. Transaction markers count wherever records may still come.
fn records_behind(progress: &Progress, bounds: Bounds) -> i64 {
    if progress.at_end { 0 } else { (bounds.latest - progress.position.max(bounds.earliest)).max(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLUSHED: Progress =
        Progress { position: 20, complete_to: 20, complete_ms: Some(5_000), open_since_ms: None, at_end: true };

    #[test]
    fn behind_is_the_age_of_the_oldest_record_not_in_the_tables() {
        assert_eq!(ms_behind(&FLUSHED, 9_000), 0, "idle");
        assert_eq!(ms_behind(&Progress { at_end: false, ..FLUSHED }, 9_000), 4_000, "more is to come");
        let open = Progress { open_since_ms: Some(6_000), position: 30, ..FLUSHED };
        assert_eq!(ms_behind(&open, 9_000), 3_000);
        assert_eq!(ms_behind(&open, 5_000), 0, "the broker's clock is ahead");
        let bounds = |earliest| Bounds { earliest, latest: 50 };
        assert_eq!(
            records_behind(&Progress { at_end: false, ..open }, bounds(0)),
            20,
            "records already read count as lag"
        );
        assert_eq!(records_behind(&Progress { at_end: false, ..open }, bounds(40)), 10);
        assert_eq!(records_behind(&FLUSHED, bounds(0)), 0, "markers only");
    }

    #[test]
    fn an_idle_partition_is_complete_up_to_the_check_less_the_clock_skew() {
        assert_eq!(reach(&FLUSHED, None), Some(Reached { offset: 20, complete_before_ms: 5_000 }));
        let at = reach(&FLUSHED, Some(100_000));
        assert_eq!(at, Some(Reached { offset: 20, complete_before_ms: 40_000 }));
        assert_eq!(reach(&FLUSHED, Some(64_000)).map(|at| at.complete_before_ms), Some(5_000), "never below the chain");
        let empty = Progress { complete_ms: None, ..FLUSHED };
        assert_eq!(reach(&empty, None), None);
        assert_eq!(reach(&empty, Some(100_000)).map(|at| at.complete_before_ms), Some(40_000));
    }
}
