//! Whether distributors could go on with the tables as they are.

use std::sync::Arc;

use commitlog::decide::{Facts, decide};
use commitlog_storage::CommitLog;
use common::log::Log;
use common::store::Store;

use crate::error::PartitionError;
use crate::lost::refuse_lost;
use crate::refusals::refused as text_of;
use crate::target::ReplayError;

/// Why distributors would refuse to work, for each partition that they would refuse. Changes nothing.
///
/// # Errors
/// The store's and the log's.
pub async fn refusals(
    store: &Arc<dyn Store>,
    log: &dyn Log,
    topic: &str,
    group: &str,
) -> Result<Vec<String>, ReplayError> {
    let mut refused = Vec::new();
    if let Err(error) = refuse_lost(&**store, topic).await {
        refused.push(refusal(error)?);
        return Ok(refused);
    }
    let log_id = log.identity().await?;
    let mut heads = Vec::new();
    for id in log.bounds(topic).await?.into_keys() {
        match CommitLog::new(store.clone(), topic, id).load().await.map_err(PartitionError::from) {
            Ok(loaded) => heads.push((id, loaded.head)),
            Err(error) => refused.push(format!("{topic}/{id}: {}", refusal(error)?)),
        }
    }
    // In this order, so that neither seems to be behind.
    let committed = log.committed(group, topic).await?;
    let bounds = log.bounds(topic).await?;
    for (id, head) in heads {
        let Some(bounds) = bounds.get(&id) else { continue };
        let (earliest, latest) = (bounds.earliest, bounds.latest);
        let facts = Facts { log_id: log_id.clone(), earliest, latest, committed: committed.get(&id).copied() };
        if let Err(reason) = decide(&head, &facts) {
            refused.push(text_of(topic, group, id, &reason).to_string());
        }
    }
    Ok(refused)
}

/// What a person has to mend; an error otherwise.
fn refusal(error: PartitionError) -> Result<String, ReplayError> {
    match error {
        PartitionError::Refused(_) | PartitionError::Damaged { .. } => Ok(error.to_string()),
        other => Err(other.into()),
    }
}
