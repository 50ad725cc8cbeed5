//! `_watermark/<topic>.json`: the log time up to which the tables are complete.
//!
//! # Guarantee
//!
//! Every record of the topic with a log time before `complete_before_ms` is in the tables (or recorded in the commit log
//! as skipped, lost or abandoned), and the value never decreases. Log time is the running maximum of append times, so no later record
//! has an earlier one.
//!
//! Any member of the group may write it, each for its own partitions. A member that has lost them without its knowledge
//! still writes nothing false, because complete batches stay complete. Writers do not overwrite each other: the put is
//! conditional, and the loser reads again.

use std::collections::BTreeMap;

use bytes::Bytes;
use common::store::{Metadata, PutCondition, PutOutcome, Store, StoreError, StoreErrorKind, Version, read_all};
use common::telemetry::status::time;
use serde::{Deserialize, Serialize};

const VERSION: u32 = 1;
const LIMIT_BYTES: u64 = 16 * 1024 * 1024;
/// Clocks of brokers, distributors and auditors differ by less.
const MAX_AHEAD_MS: i64 = 10 * 60_000;
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

impl Watermark {
    /// The time that it says the tables are complete up to, if that is in the future.
    pub(crate) fn ahead(&self, now_ms: i64) -> Option<String> {
        let of_partitions = self.partitions.values().map(|reached| reached.complete_before_ms);
        let latest = of_partitions.chain(self.complete_before_ms).max()?;
        let is_ahead = latest > now_ms.saturating_add(MAX_AHEAD_MS);
        is_ahead.then(|| time(latest).as_str().map_or_else(|| format!("{latest} ms"), str::to_owned))
    }
}

/// The document with its version, if it is there.
///
/// # Errors
/// The store's error, or the document is invalid; the message says what to do.
pub(crate) async fn read(store: &dyn Store, topic: &str) -> Result<Option<(Watermark, Version)>, StoreError> {
    let key = key(topic);
    let Some((meta, body)) = read_all(store, &key, LIMIT_BYTES).await? else { return Ok(None) };
    let watermark = serde_json::from_slice(&body).map_err(|error| unreadable(&key, &error))?;
    Ok(Some((watermark, meta.version)))
}

fn unreadable(key: &str, error: &serde_json::Error) -> StoreError {
    let message = format!("it cannot be understood ({error}); remove it, and it is written again");
    StoreError::new(StoreErrorKind::Other, "read", key, message)
}

pub(crate) fn key(topic: &str) -> String {
    format!("_watermark/{topic}.json")
}

/// Raises the document to at least this progress, and returns its new value.
///
/// # Errors
/// The store's error, or the document is invalid or says a time after `now_ms`; it is left unchanged then.
pub(crate) async fn put(
    store: &dyn Store,
    topic: &str,
    reached: &BTreeMap<i32, Reached>,
    all: &[i32],
    now_ms: i64,
) -> Result<Watermark, StoreError> {
    let key = key(topic);
    for _ in 0..MAX_TRIES {
        let (before, condition) = match read(store, topic).await? {
            None => (Watermark::new(topic), PutCondition::IfAbsent),
            Some((before, version)) => (before, PutCondition::IfVersion(version)),
        };
        if let Some(ahead) = before.ahead(now_ms) {
            let message =
                format!("it says that the tables are complete up to {ahead}; remove it, and it is written again");
            return Err(StoreError::new(StoreErrorKind::Other, "read", &key, message));
        }
        let mut after = before.clone();
        after.advance(reached, all);
        if after == before {
            return Ok(after);
        }
        let mut body = serde_json::to_vec_pretty(&after).map_err(|error| unreadable(&key, &error))?;
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
            async move { put(store, "events", &BTreeMap::from([(*id, reached(1, 100 + i64::from(*id)))]), all, 0).await }
        });
        for put in futures_util::future::join_all(puts).await {
            put?;
        }
        let watermark = put(&store, "events", &BTreeMap::new(), &all, 0).await?;
        assert_eq!((watermark.partitions.len(), watermark.complete_before_ms), (6, Some(100)));
        std::fs::write(folder.path().join("_watermark/events.json"), "{}").unwrap();
        let error = put(&store, "events", &BTreeMap::new(), &all, 0).await.unwrap_err();
        assert!(error.to_string().contains("remove it"), "{error}");
        Ok(())
    }

    #[tokio::test]
    async fn one_from_the_future_is_refused_for_it_would_never_go_back() -> Result<(), StoreError> {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::new(folder.path().to_owned());
        let now_ms = 1_700_000_000_000;
        put(&store, "events", &BTreeMap::from([(0, reached(1, now_ms + MAX_AHEAD_MS))]), &[0], now_ms).await?;
        put(&store, "events", &BTreeMap::from([(0, reached(2, now_ms))]), &[0], now_ms).await?;
        let error = put(&store, "events", &BTreeMap::new(), &[0], now_ms - 1).await.unwrap_err().to_string();
        assert!(error.contains("complete up to 2023-11-14T22:23:20Z; remove it"), "{error}");
        Ok(())
    }
}
