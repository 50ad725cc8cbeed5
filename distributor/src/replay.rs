//! Sets a group's offsets back, and reports the result beforehand.
//!
//! A replay needs no special worker: the next owner of the partition sees an offset before the chain's end, checks the
//! batches from there, and restores missing files (see `partition`). Kafka's own tools can set the offsets too.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use common::log::{Bounds, Log, LogError};
use common::store::{Store, StoreError};
use serde::Serialize;

use crate::chain::{ChainError, ChainStore, Cut, Origin, Standing};
use crate::partition::{PartitionError, missing_files};

/// The place to go back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayTarget {
    /// The beginning of the chain.
    Earliest,
    /// The batch that holds this offset.
    Offset(i64),
    /// The batch that begins exactly at this offset.
    Batch(i64),
    /// The batch that holds the first record that the log received at or after this time, Unix milliseconds.
    Time(i64),
}

#[derive(Debug)]
pub enum ReplayError {
    /// Nothing was set; the message says what to do.
    Refused(String),
    Store(StoreError),
    Log(LogError),
}

impl fmt::Display for ReplayError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(message) => formatter.write_str(message),
            Self::Store(error) => write!(formatter, "trusted zone: {error}"),
            Self::Log(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for ReplayError {}

impl From<StoreError> for ReplayError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<LogError> for ReplayError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<ChainError> for ReplayError {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::Store(error) => Self::Store(error),
            refused @ (ChainError::Damaged { .. } | ChainError::Unwritable { .. }) => {
                Self::Refused(refused.to_string())
            }
        }
    }
}

/// The replay of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionReplay {
    pub partition: i32,
    /// The group's current offset.
    pub committed: Option<i64>,
    /// The group's offset after the replay: where a batch begins.
    pub to: i64,
    /// Complete batches to check.
    pub batches: u64,
    /// Missing files.
    pub missing: u64,
    /// Missing files whose records the log still has: they are restored.
    pub restorable: u64,
}

/// A partition with a chain, and the place of a target in it.
pub(crate) struct Place {
    pub id: i32,
    pub chain: ChainStore,
    /// The batch to go back to, or the offsets that were not written.
    pub holder: Cut,
    pub committed: Option<i64>,
    pub log: Bounds,
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
    /// Skips partitions without a chain, and those without a record at or after a requested time.
    ///
    /// # Errors
    /// An invalid target, or one beyond the written offsets; the store's and the log's errors.
    pub async fn plan(
        &self,
        target: ReplayTarget,
        partitions: Option<&[i32]>,
    ) -> Result<Vec<PartitionReplay>, ReplayError> {
        let mut plans = Vec::new();
        for Place { id, chain, holder, committed, log } in self.places(target, partitions).await? {
            plans.push(self.plan_one(&chain, id, holder, committed, log.earliest).await?);
        }
        Ok(plans)
    }

    /// The requested partitions that have a chain, and the place of the target in each.
    pub(crate) async fn places(
        &self,
        target: ReplayTarget,
        partitions: Option<&[i32]>,
    ) -> Result<Vec<Place>, ReplayError> {
        let log_id = self.log.identity().await?;
        let bounds = self.log.bounds(&self.topic).await?;
        let committed = self.log.committed(&self.group, &self.topic).await?;
        if let Some(unknown) = partitions.into_iter().flatten().find(|id| !bounds.contains_key(id)) {
            return Err(ReplayError::Refused(format!("topic '{}' has no partition {unknown}", self.topic)));
        }
        let mut places = Vec::new();
        for (id, log) in bounds {
            if partitions.is_some_and(|wanted| !wanted.contains(&id)) {
                continue;
            }
            let chain = ChainStore::new(self.store.clone(), &self.topic, id);
            let (Some(origin), Some(last)) = (chain.origin().await?, chain.last_cut().await?) else { continue };
            if origin.log_id != log_id {
                return Err(ReplayError::Refused(format!(
                    "{}/{id}: the trusted zone was written from log {}, this is {log_id}",
                    self.topic, origin.log_id
                )));
            }
            let Some(holder) = self.holder(&chain, id, target, &origin, &last).await? else { continue };
            let committed = committed.get(&id).copied();
            places.push(Place { id, chain, holder, committed, log });
        }
        Ok(places)
    }

    /// The batch to go back to.
    async fn holder(
        &self,
        chain: &ChainStore,
        id: i32,
        target: ReplayTarget,
        origin: &Origin,
        last: &Cut,
    ) -> Result<Option<Cut>, ReplayError> {
        let refused = |message: String| Err(ReplayError::Refused(format!("{}/{id}: {message}", self.topic)));
        let offset = match target {
            ReplayTarget::Earliest => origin.start,
            ReplayTarget::Offset(offset) | ReplayTarget::Batch(offset) => offset,
            ReplayTarget::Time(time_ms) => match self.log.offset_for_time(&self.topic, id, time_ms).await? {
                Some(offset) if offset < last.to => offset,
                // All later records are still to be read.
                Some(_) | None => return Ok(None),
            },
        };
        if offset >= last.to {
            return refused(format!(
                "offset {offset} is not written yet: written offsets end at {}. Name an earlier place, or leave the partition out with --partitions",
                last.to
            ));
        }
        let holder = chain.cut_at_or_before(offset.max(origin.start)).await?;
        let Some(holder) = holder else { return refused(format!("no cut holds offset {offset}")) };
        if let ReplayTarget::Batch(from) = target
            && holder.from != from
        {
            return refused(format!(
                "no batch begins at {from}; the one that holds it is {}..{}",
                holder.from, holder.to
            ));
        }
        Ok(Some(holder))
    }

    async fn plan_one(
        &self,
        chain: &ChainStore,
        id: i32,
        holder: Cut,
        committed: Option<i64>,
        log_begins_at: i64,
    ) -> Result<PartitionReplay, ReplayError> {
        let mut plan =
            PartitionReplay { partition: id, committed, to: holder.from, batches: 0, missing: 0, restorable: 0 };
        let revisions = chain.revisions(holder.from, i64::MAX).await?;
        let mut next = Some(holder);
        while let Some(cut) = next {
            let revision = revisions.get(&cut.from).copied();
            let standing = if cut.is_batch() { chain.standing(&cut, revision).await? } else { None };
            if let Some(Standing { completion, .. }) = standing {
                plan.batches += 1;
                let missing = missing_files(&*self.store, &completion).await.map_err(|error| match error {
                    PartitionError::Store(error) => ReplayError::Store(error),
                    other => ReplayError::Refused(other.to_string()),
                })?;
                plan.missing += missing.len() as u64;
                if log_begins_at <= cut.from {
                    plan.restorable += missing.len() as u64;
                }
            }
            next = chain.next_cut(&cut).await?;
        }
        Ok(plan)
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
        let expected = PartitionReplay { partition: 0, committed: end, to: 0, batches: 3, missing: 2, restorable: 2 };
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
