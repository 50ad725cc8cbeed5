//! Decides when a run with `once` is complete, and when it never will be.

use std::collections::BTreeSet;

use common::log::{LogError, LogErrorKind};
use tokio::time::Instant;

use super::{MAX_POLL, Worker};
use crate::error::PartitionError;
use crate::watch::is_drained;

impl Worker<'_> {
    /// With `--once` a log that stays silent or broken for too long ends the run.
    pub(super) fn check_patience(&self, quiet_since: Instant, error: Option<LogError>) -> Result<(), PartitionError> {
        let settings = &self.role.settings;
        // If only other members' partitions are open, their owners decide how long it takes.
        let ours_open = !self.assigned_once || self.states().any(|state| !state.is_done());
        let waiting = self.targets.borrow().is_some() && settings.once && ours_open;
        if waiting && quiet_since.elapsed() >= settings.patience {
            let silent =
                || LogError::new(LogErrorKind::Other, format!("nothing came from the log for {:?}", settings.patience));
            return Err(PartitionError::Log(LogError { kind: LogErrorKind::Other, ..error.unwrap_or_else(silent) }));
        }
        Ok(())
    }

    /// With an announced end: all assigned partitions are read and flushed, and all others are read by their owners.
    pub(super) async fn is_finished(&mut self) -> Result<bool, PartitionError> {
        let targets = self.targets.borrow().clone();
        let Some(targets) = targets else { return Ok(false) };
        // A lane may have reported an offset to commit just before it was done.
        if !self.assigned_once || self.has_reports() {
            return Ok(false);
        }
        let done = |id: &i32| self.lanes.get(id).is_some_and(|lane| lane.state.is_done());
        let open: BTreeSet<i32> =
            targets.bounds.keys().filter(|id| !done(id) && !self.parked.holds(**id)).copied().collect();
        if open.iter().any(|id| self.lanes.contains_key(id)) {
            return Ok(false);
        }
        for id in open {
            if !self.is_drained(id).await? {
                tokio::time::sleep(MAX_POLL).await;
                return Ok(false);
            }
        }
        Ok(!self.has_reports())
    }

    fn has_reports(&self) -> bool {
        !self.reports.is_empty() || !self.earlier_reports.is_empty()
    }

    /// Whether a partition of another member has no record between its committed offset and its end.
    async fn is_drained(&self, id: i32) -> Result<bool, PartitionError> {
        let (log, topic) = (&self.role.log, &self.context.topic);
        let Some(bounds) = log.bounds(topic).await?.get(&id).copied() else { return Ok(true) };
        let from = log
            .committed(&self.context.group, topic)
            .await?
            .get(&id)
            .copied()
            .unwrap_or(bounds.earliest)
            .max(bounds.earliest);
        Ok(is_drained(&**log, topic, id, from).await?)
    }
}
