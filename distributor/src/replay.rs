//! Sets a group's offsets back, and reports the result beforehand.
//!
//! A replay needs no special worker: the next owner of the partition sees an offset before the commit log's end, looks for
//! the files of the batches from there on, and makes missing ones again (see [`crate::owner`]). Kafka's own tools can set
//! the offsets too.

use std::collections::BTreeMap;
use std::sync::Arc;

use commitlog::{Fate, FileId};
use common::log::Log;
use common::store::Store;
use serde::Serialize;

use crate::error::PartitionError;
use crate::owner::files::missing;
use crate::target::{Found, ReplayError, ReplayTarget, find};

/// The replay of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionReplay {
    pub partition: i32,
    /// The group's current offset.
    pub committed: Option<i64>,
    /// The group's offset after the replay: where a batch begins.
    pub to: i64,
    /// Batches whose files are looked for.
    pub batches: u64,
    /// Missing files.
    pub missing: u64,
    /// Missing files of batches whose records the log still has: they are restored.
    pub restorable: u64,
    /// Missing files that a rewrite made, which only another one makes again.
    pub of_rewrites: u64,
}

pub struct Replayer {
    pub store: Arc<dyn Store>,
    pub log: Arc<dyn Log>,
    pub topic: String,
    pub group: String,
}

impl Replayer {
    /// What `apply` would do. Changes nothing.
    ///
    /// Skips partitions without a commit log, and those without a record at or after a requested time.
    ///
    /// # Errors
    /// An invalid target, or one beyond the written offsets; the store's and the log's errors.
    pub async fn plan(
        &self,
        target: ReplayTarget,
        partitions: Option<&[i32]>,
    ) -> Result<Vec<PartitionReplay>, ReplayError> {
        let committed = self.log.committed(&self.group, &self.topic).await?;
        let mut plans = Vec::new();
        for found in find(&self.store, &*self.log, &self.topic, target, partitions).await? {
            plans.push(self.plan_one(&found, committed.get(&found.id).copied()).await?);
        }
        Ok(plans)
    }

    async fn plan_one(&self, found: &Found, committed: Option<i64>) -> Result<PartitionReplay, ReplayError> {
        let Found { id, commits, loaded, from, log } = found;
        let state = commits.state_within(&loaded.recent, *from, i64::MAX).await.map_err(PartitionError::from)?;
        let batches = state.spans.range(*from..).filter(|(_, span)| matches!(span.fate, Fate::Batch(_))).count() as u64;
        // What a replace is about to publish is not missing.
        let is_under_way = |file: FileId| {
            matches!(file, FileId::Replace { replace, .. }
                if state.head.replaces().any(|open| open.intent.replace == replace))
        };
        let live = state.live.iter().filter(|(file, live)| live.to > *from && !is_under_way(**file));
        let live = live.map(|(file, live)| (*file, live.clone())).collect();
        let missing = missing(&*self.store, &self.topic, *id, live).await?;
        let of_rewrites = missing.iter().filter(|(file, _)| matches!(file, FileId::Replace { .. })).count() as u64;
        let is_in_log = |file: &FileId| matches!(file, FileId::Batch { from, .. } if log.earliest <= *from);
        Ok(PartitionReplay {
            partition: *id,
            committed,
            to: *from,
            batches,
            missing: missing.len() as u64,
            restorable: missing.iter().filter(|(file, _)| is_in_log(file)).count() as u64,
            of_rewrites,
        })
    }

    /// Sets the offsets of a plan.
    ///
    /// # Errors
    /// The group has members, or the log's error.
    pub async fn apply(&self, plans: &[PartitionReplay]) -> Result<(), ReplayError> {
        let offsets: BTreeMap<i32, i64> = plans.iter().map(|plan| (plan.partition, plan.to)).collect();
        if offsets.is_empty() {
            return Ok(());
        }
        Ok(self.log.set_committed(&self.group, &self.topic, &offsets).await?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::Zone;

    fn replayer(zone: &Zone) -> Replayer {
        Replayer { store: zone.store(), log: zone.log.clone(), topic: "events".into(), group: "g".into() }
    }

    async fn committed(zone: &Zone) -> Option<i64> {
        zone.log.committed("g", "events").await.unwrap().get(&0).copied()
    }

    #[tokio::test]
    async fn missing_files_are_reported_beforehand_and_restored() {
        let zone = Zone::new().await;
        let files = zone.files("events", ".parquet");
        let before: Vec<_> = files.iter().map(|path| fs::read(path).unwrap()).collect();
        for path in &files[1..3] {
            fs::remove_file(path).unwrap();
        }
        let end = committed(&zone).await;
        let plans = replayer(&zone).plan(ReplayTarget::Earliest, None).await.unwrap();
        let expected = PartitionReplay {
            partition: 0,
            committed: end,
            to: 0,
            batches: 3,
            missing: 2,
            restorable: 2,
            of_rewrites: 0,
        };
        assert_eq!(plans, [expected]);
        assert_eq!(committed(&zone).await, end, "a plan changes nothing");
        replayer(&zone).apply(&plans).await.unwrap();
        assert_eq!(committed(&zone).await, Some(0));
        zone.distribute().await;
        let after: Vec<_> = files.iter().map(|path| fs::read(path).unwrap()).collect();
        assert!(before == after, "the same bytes under the same names");
        assert_eq!(committed(&zone).await, end);
    }

    #[tokio::test]
    async fn a_target_leads_to_the_batch_that_holds_it() {
        let zone = Zone::new().await;
        let place = async |target| match replayer(&zone).plan(target, None).await {
            Ok(plans) => Ok(plans.iter().map(|plan| plan.to).collect::<Vec<_>>()),
            Err(error) => Err(error.to_string()),
        };
        assert_eq!(place(ReplayTarget::Offset(0)).await, Ok(vec![0]));
        assert_eq!(place(ReplayTarget::Offset(25)).await, Ok(vec![20]));
        assert_eq!(place(ReplayTarget::Batch(40)).await, Ok(vec![40]));
        assert_eq!(place(ReplayTarget::Time(0)).await, Ok(vec![0]));
        assert_eq!(place(ReplayTarget::Time(i64::MAX)).await, Ok(vec![]), "nothing was received after that");
        for (target, message) in [
            (ReplayTarget::Batch(25), "no batch begins at 25; the one that holds it is 20..40"),
            (ReplayTarget::Offset(5_000), "offset 5000 is not written yet"),
        ] {
            let error = place(target).await.unwrap_err();
            assert!(error.contains(message), "{error}");
        }
        let unknown = replayer(&zone).plan(ReplayTarget::Earliest, Some(&[0, 7])).await.unwrap_err().to_string();
        assert!(unknown.contains("has no partition 7"), "{unknown}");
    }
}
