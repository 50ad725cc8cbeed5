//! Batches that were made again, and the rewrite that is at it.
//!
//! An audit may run beside a rewrite. What that has begun and not finished is told, not found fault with: its own
//! document says that it is under way, and stands from before the first revision until after the last removal.

use super::present::FileName;
use super::{AuditError, FindingKind, PartitionAudit, UnfinishedRewrite, Work};
use crate::chain::{ChainStore, Completion, Cut, Revision, Revisions, Standing};

impl Work<'_> {
    pub(super) async fn look_for_rewrite(
        &mut self,
        chain: &ChainStore,
        summary: &mut PartitionAudit,
    ) -> Result<(), AuditError> {
        let rewrite = chain.rewrite().await;
        if let Some(rewrite) = self.understood(rewrite)? {
            summary.rewrite = Some(UnfinishedRewrite { from: rewrite.from, begun_ms: rewrite.id });
        }
        Ok(())
    }

    /// Once more, after the chain was read and before the files are listed again: whatever was replaced until now is
    /// gone, or its rewrite is not finished.
    pub(super) async fn look_for_rewrites(&mut self) -> Result<(), AuditError> {
        let mut partitions = std::mem::take(&mut self.audit.partitions);
        for summary in &mut partitions {
            let chain = ChainStore::new(self.auditor.store.clone(), &self.auditor.topic, summary.partition);
            self.look_for_rewrite(&chain, summary).await?;
        }
        self.audit.partitions = partitions;
        Ok(())
    }

    /// Newest revisions of a page of cuts, newest cut first.
    pub(super) async fn list_revisions(&mut self, chain: &ChainStore, page: &[i64]) -> Result<Revisions, AuditError> {
        let (Some(newest), Some(oldest)) = (page.first(), page.last()) else { return Ok(Revisions::new()) };
        let listed = chain.revisions(*oldest, *newest).await.map(Some);
        let listed = self.understood(listed)?.unwrap_or_default();
        self.revisions.extend(listed.iter().map(|(from, revision)| (*from, *revision)));
        Ok(listed)
    }

    /// What stands of a batch, from its documents.
    pub(super) fn stand(
        &mut self,
        chain: &ChainStore,
        cut: &Cut,
        completion: Option<Completion>,
        revision: Option<Revision>,
    ) -> Option<Standing> {
        let Some(revision) = revision else {
            return completion.map(|completion| Standing::as_cut(chain, cut, completion));
        };
        if completion.is_none() {
            let message = "it is missing, though the batch was rewritten later; restore it from a backup";
            self.find(FindingKind::ChainDamaged, chain.completion_key(cut.from), message);
        }
        Some(Standing::revised(cut, revision))
    }

    /// Files that are not there are no fault if they wait to be made visible, or if the batch was made again since
    /// the chain was read.
    pub(super) async fn leave_out_what_is_on_its_way(
        &mut self,
        chain: &ChainStore,
        standing: &Standing,
        findings: &mut Vec<(FindingKind, String, String)>,
    ) -> Result<(), AuditError> {
        if findings.iter().all(|(kind, ..)| *kind != FindingKind::FileMissing) {
            return Ok(());
        }
        if let Some(rewrite) = standing.rewrite {
            let mut left = Vec::new();
            for (kind, path, message) in findings.drain(..) {
                let staged = format!("{}{path}", chain.staged_prefix(rewrite));
                if kind != FindingKind::FileMissing || !self.is_on_its_way(chain, &path, &staged).await? {
                    left.push((kind, path, message));
                }
            }
            *findings = left;
        }
        let from = standing.cut.from;
        let listed = chain.revisions(from, from).await.map(Some);
        let listed = self.understood(listed)?.unwrap_or_default();
        if listed.get(&from).is_some_and(|newest| *newest > standing.cut.revision) {
            findings.retain(|(kind, ..)| *kind != FindingKind::FileMissing);
        }
        Ok(())
    }

    /// Whether a file waits for an unfinished rewrite to make it visible, or has become visible by now.
    async fn is_on_its_way(&mut self, chain: &ChainStore, path: &str, staged: &str) -> Result<bool, AuditError> {
        if self.auditor.store.head(staged).await?.is_some() {
            let rewrite = chain.rewrite().await;
            if self.understood(rewrite)?.is_some() {
                return Ok(true);
            }
        }
        Ok(self.auditor.store.head(path).await?.is_some())
    }

    /// Whether a file that its complete batch does not list is one that an unfinished rewrite has replaced.
    pub(super) fn is_about_to_be_removed(&self, name: &FileName) -> bool {
        let mut partitions = self.audit.partitions.iter();
        let rewrite = partitions.find(|summary| summary.partition == name.partition).and_then(|found| found.rewrite);
        rewrite.is_some_and(|rewrite| rewrite.from <= name.from)
    }
}
