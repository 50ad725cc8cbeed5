//! What a rewrite does with files, as the replacer of the core asks for it.

use async_trait::async_trait;
use commitlog::actor::Choice;
use commitlog::{FileId, Reason, ReplaceIntent, State, Stored};
use commitlog_storage::Proof;
use commitlog_storage::replacing::{Files, Published, Staged};

use super::outputs::Unmakeable;
use super::run::Work;
use crate::error::PartitionError;

#[async_trait]
impl Files for Work<'_, '_> {
    type Error = PartitionError;

    async fn choose(&mut self, state: &State) -> Result<Option<Choice>, PartitionError> {
        self.carrier.check_members(state.head.end).await?;
        self.judge.log_from = self.log_from().await?;
        let lost = self.lost(state).await?;
        if !lost.is_empty() {
            return self.choice(Reason::Restore, lost).map(Some);
        }
        let scopes = self.next_scopes(state).await?;
        if scopes.is_empty() { Ok(None) } else { self.choice(Reason::Rewrite, scopes).map(Some) }
    }

    async fn stage(&mut self, intent: &ReplaceIntent, k: u32) -> Result<Staged, PartitionError> {
        if self.carrier.staged(intent.replace, k).is_none()
            && let Err(Unmakeable(reason)) = self.stage_all(intent).await?
        {
            *self.unmakeable = Some(reason);
            return Ok(Staged::OtherRecords);
        }
        let stored = self.carrier.staged(intent.replace, k);
        stored.map(Staged::Stands).ok_or_else(|| PartitionError::Internal(format!("output {k} was not staged")))
    }

    async fn await_fence(&mut self, _entry: u64, put_ms: Option<i64>) -> Result<(), PartitionError> {
        self.carrier.await_fence(put_ms, self.range.end).await
    }

    async fn examine(&mut self, intent: &ReplaceIntent, decided: &[Stored]) -> Result<Vec<u32>, PartitionError> {
        self.carrier.examine(intent, decided).await
    }

    async fn delete(&mut self, intent: &ReplaceIntent, files: &[FileId]) -> Result<Vec<FileId>, PartitionError> {
        self.settling(intent).await?;
        self.carrier.delete(intent, files).await
    }

    async fn publish(&mut self, intent: &ReplaceIntent, k: u32, proof: Proof) -> Result<Published, PartitionError> {
        self.carrier.publish(intent, k, proof).await
    }

    async fn drop_staged(&mut self, replace: u64) -> Result<(), PartitionError> {
        self.carrier.drop_staged(replace).await
    }
}
