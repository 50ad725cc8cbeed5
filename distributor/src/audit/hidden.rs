//! Rows that no reader sees: a replace was interrupted after its inputs were deleted and before its outputs were published.

use std::time::Duration;

use commitlog::{ReplaceIntent, Stage, State, Stored};
use commitlog_storage::CommitLog;
use common::store::HEADS_AT_ONCE;

use super::{AuditError, FindingKind, Work};
use crate::batch::path;
use crate::replace::command;

/// A replace whose files do not change for so long is not at work.
const STILL_FOR: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 3_000 });
const LOOKS: u32 = 10;
/// Files that are watched meanwhile, of inputs and of outputs.
const WATCHED: usize = 200;

/// What is not visible of a replace, and the files whose coming and going shows that it goes on.
#[derive(Default)]
struct Hidden {
    rows: u64,
    files: u64,
    watched: Vec<String>,
}

impl Work<'_> {
    pub(super) async fn hidden_rows(
        &mut self,
        commits: &CommitLog,
        partition: i32,
        state: &State,
    ) -> Result<(), AuditError> {
        for replace in state.head.replaces() {
            let Stage::Ready(decided) = &replace.stage else { continue };
            let hidden = self.hidden(partition, &replace.intent, decided).await?;
            if hidden.files == 0 || !self.stands_still(commits, replace.intent.replace, &hidden.watched).await? {
                continue;
            }
            let Hidden { rows, files, .. } = hidden;
            let command = command(replace.intent.reason);
            let message = format!(
                "readers do not see some or all of {rows} rows: '{command}' was interrupted after it had deleted files and before {files} that \
                 have their rows were in place; run '{command}', which goes on with it"
            );
            self.find(FindingKind::RowsHidden, format!("{}/{partition}", self.auditor.topic), message);
        }
        Ok(())
    }

    async fn hidden(&self, partition: i32, intent: &ReplaceIntent, decided: &[Stored]) -> Result<Hidden, AuditError> {
        let (topic, mut hidden) = (&self.auditor.topic, Hidden::default());
        let (mut outputs, mut inputs) = (intent.outputs().zip(decided), Vec::new());
        for scope in &intent.scopes {
            let outputs: Vec<_> = outputs.by_ref().take(scope.outputs.len()).collect();
            let paths = outputs.iter().map(|((id, planned), _)| path(topic, partition, &planned.folder, *id)).collect();
            let missing: Vec<(String, u64)> = self
                .are_there(paths)
                .await?
                .into_iter()
                .zip(&outputs)
                .filter(|((_, is_there), _)| !is_there)
                .map(|((path, _), (_, stored))| (path, stored.rows))
                .collect();
            if missing.is_empty() {
                continue;
            }
            let paths = scope.inputs().map(|(folder, id)| path(topic, partition, folder, id)).collect();
            let (there, gone): (Vec<_>, Vec<_>) =
                self.are_there(paths).await?.into_iter().partition(|(_, is_there)| *is_there);
            if !gone.is_empty() {
                hidden.files += missing.len() as u64;
                hidden.rows += missing.iter().map(|(_, rows)| rows).sum::<u64>();
                hidden.watched.extend(missing.into_iter().map(|(path, _)| path));
            }
            inputs.extend(there.into_iter().map(|(path, _)| path));
        }
        hidden.watched.truncate(WATCHED);
        inputs.truncate(WATCHED);
        hidden.watched.extend(inputs);
        Ok(hidden)
    }

    /// Whether nobody goes on with a replace.
    async fn stands_still(&self, commits: &CommitLog, replace: u64, watched: &[String]) -> Result<bool, AuditError> {
        let before = self.are_there(watched.to_vec()).await?;
        for _ in 0..LOOKS {
            tokio::time::sleep(STILL_FOR / LOOKS).await;
            if self.are_there(watched.to_vec()).await? != before {
                return Ok(false);
            }
        }
        match commits.load().await.map_err(Self::damage) {
            Ok(now) => Ok(now.head.replaces().any(|open| open.intent.replace == replace)),
            // A finding of its own.
            Err(damage) => damage.map(|_| true),
        }
    }

    async fn are_there(&self, paths: Vec<String>) -> Result<Vec<(String, bool)>, AuditError> {
        let mut all = Vec::with_capacity(paths.len());
        for paths in paths.chunks(HEADS_AT_ONCE) {
            for (path, head) in paths.iter().zip(self.auditor.store.head_many(paths).await) {
                all.push((path.clone(), head?.is_some()));
            }
        }
        Ok(all)
    }
}
