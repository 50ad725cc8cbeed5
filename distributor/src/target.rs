//! The place that a replay or a rewrite goes back to.

use std::sync::Arc;

use commitlog_storage::{CommitLog, Loaded};
use common::log::{Bounds, Log, LogError};
use common::store::{Store, StoreError};

use crate::error::PartitionError;
use crate::refusals;

/// The place to go back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayTarget {
    /// Where the commit log begins.
    Earliest,
    /// The batch that holds this offset.
    Offset(i64),
    /// The batch that begins exactly at this offset.
    Batch(i64),
    /// The batch that holds the first record that the log received at or after this time, Unix milliseconds.
    Time(i64),
    /// Where the commit log ends: nothing before it is looked at.
    End,
}

#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The message says what to do.
    #[error("{0}")]
    Refused(String),
    #[error("trusted zone")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
}

impl From<PartitionError> for ReplayError {
    fn from(error: PartitionError) -> Self {
        match error {
            PartitionError::Store(error) => Self::Store(error),
            PartitionError::Log(error) => Self::Log(error),
            other => Self::Refused(other.to_string()),
        }
    }
}

/// A partition with a commit log, and the place of a target in it.
pub(crate) struct Found {
    pub id: i32,
    pub commits: CommitLog,
    pub loaded: Loaded,
    /// Where the batch begins that the target names, or the offsets that were passed over.
    pub from: i64,
    pub log: Bounds,
}

/// Finds a target in each of the partitions that have a commit log, or in those of `partitions`. Those that have no
/// record at or after a requested time are left out.
///
/// # Errors
/// An invalid target, or one beyond what is written; another log than the one that the trusted zone was written from; the
/// store's and the log's.
pub(crate) async fn find(
    store: &Arc<dyn Store>,
    log: &dyn Log,
    topic: &str,
    target: ReplayTarget,
    partitions: Option<&[i32]>,
) -> Result<Vec<Found>, ReplayError> {
    let log_id = log.identity().await?;
    let bounds = log.bounds(topic).await?;
    if let Some(unknown) = partitions.into_iter().flatten().find(|id| !bounds.contains_key(id)) {
        return Err(ReplayError::Refused(format!("topic '{topic}' has no partition {unknown}")));
    }
    let mut found = Vec::new();
    for (id, bounds) in bounds {
        if partitions.is_some_and(|wanted| !wanted.contains(&id)) {
            continue;
        }
        let refused = |message: String| ReplayError::from(refusals::text(topic, id, &message));
        let commits = CommitLog::new(store.clone(), topic, id);
        let loaded = commits.load().await.map_err(PartitionError::from)?;
        let Some(header) = &loaded.head.header else { continue };
        if header.log_id != log_id {
            let message = format!("the trusted zone was written from log {}, this is {log_id}", header.log_id);
            return Err(refused(message));
        }
        let (start, end) = (header.start, loaded.head.end);
        if bounds.latest < end {
            let message = format!(
                "the log ends at {}, the trusted zone at {end}: it was truncated or recreated. Name the right log",
                bounds.latest
            );
            return Err(refused(message));
        }
        if start == end {
            continue;
        }
        let offset = match target {
            ReplayTarget::End => {
                found.push(Found { id, commits, loaded, from: end, log: bounds });
                continue;
            }
            ReplayTarget::Earliest => start,
            ReplayTarget::Offset(offset) | ReplayTarget::Batch(offset) => offset.max(start),
            ReplayTarget::Time(time_ms) => match log.offset_for_time(topic, id, time_ms).await? {
                Some(offset) if offset < end => offset.max(start),
                // All later records are still to be read.
                Some(_) | None => continue,
            },
        };
        if offset >= end {
            return Err(refused(format!(
                "offset {offset} is not written yet: written offsets end at {end}. Name an earlier place, or leave the \
                 partition out with --partitions"
            )));
        }
        let spans =
            commits.spans_before(&loaded.recent, offset.saturating_add(1)).await.map_err(PartitionError::from)?;
        let Some((from, span)) = spans.last_key_value() else {
            return Err(refused(format!("nothing was decided of offset {offset}; bring _commits back from a backup")));
        };
        if let ReplayTarget::Batch(wanted) = target
            && wanted != *from
        {
            let message = format!("no batch begins at {wanted}; the one that holds it is {from}..{}", span.to);
            return Err(refused(message));
        }
        let from = *from;
        found.push(Found { id, commits, loaded, from, log: bounds });
    }
    Ok(found)
}
