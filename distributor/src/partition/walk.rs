//! After offsets were set back: checks complete batches one after another, and restores missing files.

use common::config::MissingFiles;

use super::{Context, Partition, Result, Start, files};
use crate::chain::Cut;

impl Partition {
    /// Checks complete batches from `cut` on, up to the first with missing files.
    pub(super) async fn walk(&mut self, context: &Context, cut: Cut) -> Result<Start> {
        let mut cut = cut;
        loop {
            if cut.is_batch() {
                let revision = self.revisions.get(&cut.from).copied();
                let Some(standing) = self.chain.standing(&cut, revision).await? else {
                    if self.log.earliest > cut.from && !self.chain.is_open_in_between(&cut).await? {
                        // Another owner has put it since `decide` ran, which will report it.
                        return Ok(Start::ReadAgain);
                    }
                    return self.redo(context, cut, false).await;
                };
                let missing = files::missing(&*context.store, &standing.completion).await?;
                let is_damaged = standing.completion.damage.is_some();
                if self.is_to_be_restored(context, &cut, is_damaged, &missing) {
                    return self.redo(context, standing.cut, true).await;
                }
            }
            self.commit = Some(cut.to);
            match self.chain.next_cut(&cut).await? {
                Some(next) => cut = next,
                None => return self.read_on(context, &cut).await,
            }
        }
    }

    fn is_to_be_restored(&self, context: &Context, cut: &Cut, is_damaged: bool, missing: &[String]) -> bool {
        if missing.is_empty() {
            return false;
        }
        let (topic, partition) = (&context.topic, self.id);
        let is_in_the_log = self.log.earliest <= cut.from && !is_damaged;
        if context.missing == MissingFiles::Restore && is_in_the_log {
            tracing::info!(
                ?missing,
                topic,
                partition,
                from = cut.from,
                to = cut.to,
                "these files are missing; they are restored"
            );
            return true;
        }
        context.metrics.files_missing(missing.len());
        if is_in_the_log {
            tracing::warn!(
                ?missing,
                topic,
                partition,
                from = cut.from,
                to = cut.to,
                "these files are missing, and replay.missing is 'report'"
            );
        } else {
            let log_begins_at = self.log.earliest;
            tracing::error!(
                ?missing,
                topic,
                partition,
                from = cut.from,
                to = cut.to,
                log_begins_at,
                "these files are missing and cannot be restored, because the log no longer holds their records"
            );
        }
        false
    }
}
