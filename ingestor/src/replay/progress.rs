//! The progress of replays: one small record in the ledger, replaced in the same transaction as the letters' results.
//!
//! A letter is *open* until a replay has processed it: published its events, and written its remaining bad pieces as
//! new letters at the end of the topic. A replay of all reasons processes every open letter up to an offset. A replay
//! of a single reason processes only letters with that reason, and leaves the others open. The progress is therefore an
//! offset for each partition, plus one for each reason that is further ahead.

use std::collections::BTreeMap;
use std::time::Duration;

use common::log::{Log, LogError, RecordBatch, read_to_end};
use serde::{Deserialize, Serialize};

use crate::ledger::{META_KEY, Meta, REPLAY_KEY, damaged, push_json, read_json};

const VERSION: u8 = 1;
/// How long the log may be silent while the ledger is read.
const READ_PATIENCE: Duration = Duration::from_secs(30);
/// The ledger partition that holds the record.
pub(super) const PARTITION: i32 = 0;

/// By partition of the dead-letter topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayProgress {
    v: u8,
    /// Every letter before this offset was processed …
    next: BTreeMap<i32, i64>,
    /// … and before these, those with the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    reasons: BTreeMap<i32, BTreeMap<String, i64>>,
}

impl Default for ReplayProgress {
    fn default() -> Self {
        Self { v: VERSION, next: BTreeMap::new(), reasons: BTreeMap::new() }
    }
}

impl ReplayProgress {
    /// Reads the committed progress; a ledger without any has all letters open.
    ///
    /// # Errors
    /// The log's error, and a record that this build does not understand.
    pub async fn read(log: &dyn Log, ledger_topic: &str) -> Result<Self, LogError> {
        Ok(Recorded::read(log, ledger_topic).await?.progress)
    }

    /// Whether the letter at `offset` was not processed yet.
    pub fn is_open(&self, partition: i32, offset: i64, reason: &str) -> bool {
        offset >= self.first_open(partition, Some(reason))
    }

    /// The first offset that may be an open letter, of any reason or of one.
    pub(super) fn first_open(&self, partition: i32, reason: Option<&str>) -> i64 {
        let all = self.next.get(&partition).copied().unwrap_or_default();
        let of_reason = reason.and_then(|reason| self.reasons.get(&partition)?.get(reason)).copied();
        of_reason.unwrap_or_default().max(all)
    }

    /// Records that every letter before `next` was processed, or only those with `reason`.
    pub(super) fn processed(&mut self, partition: i32, next: i64, reason: Option<&str>) {
        match reason {
            Some(reason) => {
                self.reasons.entry(partition).or_default().insert(reason.to_owned(), next);
            }
            None => {
                self.next.insert(partition, next);
                if let Some(reasons) = self.reasons.get_mut(&partition) {
                    reasons.retain(|_, ahead| *ahead > next);
                }
                self.reasons.retain(|_, reasons| !reasons.is_empty());
            }
        }
    }

    pub(super) fn record(&self) -> Result<RecordBatch, LogError> {
        let mut batch = RecordBatch::new();
        push_json(&mut batch, REPLAY_KEY, self)?;
        Ok(batch)
    }
}

/// The ledger's data for a replay.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    pub progress: ReplayProgress,
    pub meta: Option<Meta>,
}

impl Recorded {
    /// Keeps only two records of the partition in memory.
    pub(super) async fn read(log: &dyn Log, ledger_topic: &str) -> Result<Self, LogError> {
        let mut recorded = Self::default();
        read_to_end(log, ledger_topic, PARTITION, READ_PATIENCE, |chunk| {
            chunk.records.iter().try_for_each(|record| recorded.apply(record.key, record.value))
        })
        .await?;
        Ok(recorded)
    }

    fn apply(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), LogError> {
        if key == META_KEY {
            self.meta = Some(read_json(key, value)?);
        } else if key == REPLAY_KEY {
            self.progress = read_json(key, value)?;
            if self.progress.v > VERSION {
                let what = format!("it has version {}, this build knows up to {VERSION}", self.progress.v);
                return Err(damaged(key, what));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REASONS: [&str; 3] = ["bad_timestamp", "missing_field", "not_json"];

    #[test]
    fn a_replay_of_one_reason_leaves_the_others_open() {
        let mut progress = ReplayProgress::default();
        progress.processed(0, 10, None);
        progress.processed(0, 20, Some("not_json"));
        let open = |progress: &ReplayProgress, offset| REASONS.map(|reason| progress.is_open(0, offset, reason));
        assert_eq!(open(&progress, 9), [false, false, false]);
        assert_eq!(open(&progress, 19), [true, true, false]);
        assert_eq!(open(&progress, 20), [true, true, true]);
        assert!(progress.is_open(1, 0, "not_json"), "another partition");
        progress.processed(0, 15, None);
        assert_eq!((open(&progress, 14), open(&progress, 15)), ([false, false, false], [true, true, false]));
        progress.processed(0, 20, None);
        assert!(progress.reasons.is_empty(), "no longer ahead");
    }

    #[test]
    fn a_record_of_a_later_version_is_refused() {
        let mut recorded = Recorded::default();
        let error = recorded.apply(REPLAY_KEY, Some(br#"{"v":2,"next":{"0":7}}"#)).err().map(|error| error.message);
        assert!(error.is_some_and(|error| error.contains("!dlq-replay") && error.contains("version 2")));
        assert!(recorded.apply(REPLAY_KEY, Some(br#"{"v":1,"next":{"0":7}}"#)).is_ok());
        assert!(recorded.progress.is_open(0, 7, "x") && !recorded.progress.is_open(0, 6, "x"));
    }

    proptest! {
        /// Compares with the set of letters that replays over all offsets have processed.
        #[test]
        fn a_letter_is_open_until_a_replay_has_processed_it(
            letters in prop::collection::vec(0_usize..3, 1..30),
            replays in prop::collection::vec((prop::option::of(0_usize..3), 0_usize..31), 0..8),
        ) {
            let mut progress = ReplayProgress::default();
            let mut open: Vec<bool> = vec![true; letters.len()];
            for (only, stopped_at) in replays {
                let only = only.map(|reason| REASONS[reason]);
                for (offset, reason) in (0_i64..).zip(&letters).take(stopped_at) {
                    if offset < progress.first_open(0, only) {
                        continue;
                    }
                    if only.is_none_or(|only| only == REASONS[*reason]) {
                        open[usize::try_from(offset).unwrap_or_default()] = false;
                    }
                    progress.processed(0, offset + 1, only);
                }
                let batch = progress.record().map_err(|error| TestCaseError::fail(error.to_string()))?;
                let mut recorded = Recorded::default();
                let record = batch.get(0);
                recorded.apply(record.key, record.value).map_err(|error| TestCaseError::fail(error.to_string()))?;
                prop_assert_eq!(&recorded.progress, &progress);
                let expected: Vec<bool> =
                    (0_i64..).zip(&letters).map(|(at, reason)| progress.is_open(0, at, REASONS[*reason])).collect();
                prop_assert_eq!(&expected, &open);
            }
        }
    }
}
