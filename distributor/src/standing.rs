//! Whether distributors could go on with the tables as they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use commitlog::decide::{Facts, decide};
use commitlog_storage::CommitLog;
use common::log::{Bounds, Log, TopicSpec};
use common::store::Store;

use crate::error::PartitionError;
use crate::lost::refuse_lost;
use crate::refusals::refused as text_of;
use crate::target::ReplayError;

/// What distributors would refuse.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// Why, for each partition that they would refuse.
    pub refused: Vec<String>,
    /// Whether a partition is left that they would work on.
    pub is_workable: bool,
}

/// What distributors would refuse, without changing anything. A topic that does not exist yet is taken for an
/// empty one.
///
/// # Errors
/// The store's and the log's.
pub async fn standing(
    store: &Arc<dyn Store>,
    log: &dyn Log,
    spec: &TopicSpec,
    group: &str,
) -> Result<Standing, ReplayError> {
    let mut refused = Vec::new();
    if let Err(error) = refuse_lost(&**store, &spec.name).await {
        return Ok(Standing { refused: vec![refusal(error)?], is_workable: false });
    }
    let (topic, log_id) = (&*spec.name, log.identity().await?);
    let exists = log.verify_topic(spec).await?.is_some();
    let bounds = async || -> Result<BTreeMap<i32, Bounds>, ReplayError> {
        if exists {
            return Ok(log.bounds(topic).await?);
        }
        let partitions = 0..i32::try_from(spec.partitions).unwrap_or(i32::MAX);
        Ok(partitions.map(|id| (id, Bounds { earliest: 0, latest: 0 })).collect())
    };
    let (mut heads, mut is_workable) = (Vec::new(), false);
    for id in bounds().await?.into_keys() {
        match CommitLog::new(store.clone(), topic, id).load().await.map_err(PartitionError::from) {
            Ok(loaded) => heads.push((id, loaded.head)),
            Err(error) => refused.push(format!("{topic}/{id}: {}", refusal(error)?)),
        }
    }
    // In this order, so that neither seems to be behind.
    let committed = if exists { log.committed(group, topic).await? } else { BTreeMap::new() };
    let bounds = bounds().await?;
    for (id, head) in heads {
        let Some(bounds) = bounds.get(&id) else { continue };
        let (earliest, latest) = (bounds.earliest, bounds.latest);
        let facts = Facts { log_id: log_id.clone(), earliest, latest, committed: committed.get(&id).copied() };
        match decide(&head, &facts) {
            Ok(_) => is_workable = true,
            Err(reason) => refused.push(text_of(topic, group, id, &reason).to_string()),
        }
    }
    Ok(Standing { refused, is_workable })
}

/// What a person has to mend; an error otherwise.
fn refusal(error: PartitionError) -> Result<String, ReplayError> {
    match error {
        PartitionError::Refused(_) | PartitionError::Damaged { .. } => Ok(error.to_string()),
        other => Err(other.into()),
    }
}
