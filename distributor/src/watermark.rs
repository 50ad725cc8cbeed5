//! `_watermark/<topic>.json`: the log time up to which the tables are complete.
//!
//! # Guarantee
//!
//! Every record of the topic with a log time before `complete_before_ms` is in the tables (or recorded in the chain as
//! skipped or lost), and the value never decreases. Log time is the running maximum of append times, so no later record
//! has an earlier one.
//!
//! Any member of the group may write it, each for its own partitions. A member that has lost them without its knowledge
//! still writes nothing false, because complete batches stay complete. Writers do not overwrite each other: the put is
//! conditional, and the loser reads again.

use std::collections::BTreeMap;

use bytes::Bytes;
use common::store::{Metadata, PutCondition, PutOutcome, Store, StoreError, StoreErrorKind, read_all};
use common::telemetry::status::time;
use serde::{Deserialize, Serialize};

const VERSION: u32 = 1;
const LIMIT_BYTES: u64 = 16 * 1024 * 1024;
/// Members rarely put at the same time.
const MAX_TRIES: usize = 10;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Watermark {
    version: u32,
    topic: String,
    /// For all partitions; `None` until each of them has one.
    pub complete_before_ms: Option<i64>,
    /// The same, for people.
    complete_before: Option<String>,
    pub partitions: BTreeMap<i32, Reached>,
}

/// How far a partition is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reached {
    /// Everything below this offset.
    pub offset: i64,
    /// Everything with a log time before this one, Unix milliseconds.
    pub complete_before_ms: i64,
}

impl Watermark {
    fn new(topic: &str) -> Self {
        Self {
            version: VERSION,
            topic: topic.to_owned(),
            complete_before_ms: None,
            complete_before: None,
            partitions: BTreeMap::new(),
        }
    }

    /// Adds the progress of some partitions; `all` are the topic's partitions. No value decreases.
    fn advance(&mut self, reached: &BTreeMap<i32, Reached>, all: &[i32]) {
        for (partition, new) in reached {
            let known = self.partitions.entry(*partition).or_insert(*new);
            known.offset = known.offset.max(new.offset);
            known.complete_before_ms = known.complete_before_ms.max(new.complete_before_ms);
        }
        let of_all = all.iter().map(|id| self.partitions.get(id).map(|known| known.complete_before_ms));
        // A partition without any progress holds the others back.
        let slowest = of_all.collect::<Option<Vec<_>>>().and_then(|times| times.into_iter().min());
        self.complete_before_ms = self.complete_before_ms.max(slowest);
        self.complete_before = self.complete_before_ms.and_then(|ms| time(ms).as_str().map(str::to_owned));
    }
}

pub(crate) fn key(topic: &str) -> String {
    format!("_watermark/{topic}.json")
}

/// Raises the document to at least this progress, and returns its new value.
///
/// # Errors
/// The store's error, or the document is invalid; it is left unchanged then.
pub(crate) async fn put(
    store: &dyn Store,
    topic: &str,
    reached: &BTreeMap<i32, Reached>,
    all: &[i32],
) -> Result<Watermark, StoreError> {
    let key = key(topic);
    let unreadable = |error: serde_json::Error| {
        let message = format!("it cannot be understood ({error}); remove it, and it is written again");
        StoreError::new(StoreErrorKind::Other, "read", &key, &message)
    };
    for _ in 0..MAX_TRIES {
        let (before, condition) = match read_all(store, &key, LIMIT_BYTES).await? {
            None => (Watermark::new(topic), PutCondition::IfAbsent),
            Some((meta, body)) => {
                let before: Watermark = serde_json::from_slice(&body).map_err(unreadable)?;
                (before, PutCondition::IfVersion(meta.version))
            }
        };
        let mut after = before.clone();
        after.advance(reached, all);
        if after == before {
            return Ok(after);
        }
        let mut body = serde_json::to_vec_pretty(&after).map_err(unreadable)?;
        body.push(b'\n');
        if body.len() as u64 > LIMIT_BYTES {
            let message =
                format!("it would have {} bytes, more than the {LIMIT_BYTES} that are read again", body.len());
            return Err(StoreError::new(StoreErrorKind::TooLarge, "put", &key, message));
        }
        if let PutOutcome::Written(_) = store.put(&key, Bytes::from(body), condition, &Metadata::new()).await? {
            return Ok(after);
        }
    }
    Err(StoreError::new(StoreErrorKind::Transient, "put", &key, "others kept changing it"))
}

#[cfg(test)]
mod tests {
    use common::store::LocalStore;
    use proptest::prelude::*;

    use super::*;

    fn reached(offset: i64, complete_before_ms: i64) -> Reached {
        Reached { offset, complete_before_ms }
    }

    #[test]
    fn a_partition_without_progress_holds_it_back() {
        let mut watermark = Watermark::new("events");
        watermark.advance(&BTreeMap::from([(0, reached(5, 70))]), &[0, 1]);
        assert_eq!(watermark.complete_before_ms, None);
        watermark.advance(&BTreeMap::from([(1, reached(5, 60))]), &[0, 1]);
        assert_eq!(watermark.complete_before_ms, Some(60));
        watermark.advance(&BTreeMap::from([(0, reached(5, 90)), (1, reached(5, 90))]), &[0, 1, 2]);
        assert_eq!(watermark.complete_before_ms, Some(60), "a new partition holds it where it is");
    }

    proptest! {
        #[test]
        fn it_never_decreases(steps in prop::collection::vec((0_i32..3, 0_i64..50, 0_i64..50, 1_i32..4), 1..30)) {
            let mut watermark = Watermark::new("events");
            for (partition, offset, time_ms, count) in steps {
                let before = watermark.clone();
                watermark.advance(&BTreeMap::from([(partition, reached(offset, time_ms))]), &(0..count).collect::<Vec<_>>());
                prop_assert!(watermark.complete_before_ms >= before.complete_before_ms);
                for (id, known) in before.partitions {
                    let now = watermark.partitions[&id];
                    prop_assert!(now.offset >= known.offset && now.complete_before_ms >= known.complete_before_ms);
                }
            }
        }
    }

    #[tokio::test]
    async fn members_that_put_at_the_same_time_lose_nothing_of_each_other() -> Result<(), StoreError> {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::new(folder.path().to_owned());
        let all: Vec<i32> = (0..6).collect();
        let puts = all.iter().map(|id| {
            let (store, all) = (&store, &all);
            async move { put(store, "events", &BTreeMap::from([(*id, reached(1, 100 + i64::from(*id)))]), all).await }
        });
        for put in futures_util::future::join_all(puts).await {
            put?;
        }
        let watermark = put(&store, "events", &BTreeMap::new(), &all).await?;
        assert_eq!((watermark.partitions.len(), watermark.complete_before_ms), (6, Some(100)));
        std::fs::write(folder.path().join("_watermark/events.json"), "{}").unwrap();
        let error = put(&store, "events", &BTreeMap::new(), &all).await.unwrap_err();
        assert!(error.to_string().contains("remove it"), "{error}");
        Ok(())
    }
}
