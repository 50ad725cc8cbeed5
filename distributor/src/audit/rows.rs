//! The deep part of an audit: every row of a partition, batch by batch, beside what the log's records make.

use super::deep::{self, Key, Made, Recount};
use super::{AuditError, FindingKind, PartitionAudit, Work};
use crate::batch::BatchError;
use crate::chain::{ChainStore, Completion, Cut, Standing};
use crate::partition::PartitionError;
use crate::partition::rebuild::rebuild;
use crate::remake::Room;
use crate::window::Window;

async fn stop(recount: Option<Recount>) {
    if let Some(recount) = recount {
        recount.close().await;
    }
}

impl Work<'_> {
    /// Reads every row of a partition, oldest batch first.
    pub(super) async fn rows(
        &mut self,
        chain: &ChainStore,
        id: i32,
        begins: impl Iterator<Item = i64>,
        summary: &mut PartitionAudit,
    ) -> Result<(), AuditError> {
        let mut written: Option<(i64, Window)> = None;
        let mut recount: Option<Recount> = None;
        let earliest = match &self.auditor.log {
            Some(log) if summary.log_end.is_some() => {
                log.bounds(&self.auditor.topic).await?.get(&id).map(|bounds| bounds.earliest)
            }
            _ => None,
        };
        for from in begins {
            // Both were read before; what was wrong with them is found already.
            let Ok(Some(cut)) = chain.cut_from(from).await else {
                stop(recount.take()).await;
                continue;
            };
            let Ok(standing) = chain.standing(&cut, self.revisions.get(&from).copied()).await else {
                stop(recount.take()).await;
                continue;
            };
            if !cut.is_batch() {
                if let Some(recount) = &mut recount {
                    recount.pass_over(cut.to).await?;
                }
                continue;
            }
            let Some(Standing { cut, completion, rewrite, .. }) = standing else {
                // Its keys are not known without it: the next batch begins with a window from the key runs.
                stop(recount.take()).await;
                continue;
            };
            let window_ms = cut.layout.window_ms;
            if completion.damage.is_some() {
                // Its head is not in the log any more.
                stop(recount.take()).await;
            }
            if recount.as_ref().is_some_and(|recount| recount.window_ms != window_ms) {
                stop(recount.take()).await;
            }
            // What an unfinished rewrite has not come to yet was made from keys that may be others now.
            let is_to_come = summary
                .rewrite
                .is_some_and(|unfinished| unfinished.from <= from && rewrite != Some(unfinished.begun_ms));
            if is_to_come {
                stop(recount.take()).await;
                written = None;
            } else if recount.is_none()
                && completion.damage.is_none()
                && earliest.is_some_and(|earliest| earliest <= cut.from)
            {
                recount = self.begin_recount(chain, &cut).await?;
            }
            let made = match &mut recount {
                Some(recount) => Some(recount.make(&cut, &completion, self.auditor.encoding).await?),
                None => None,
            };
            match &made {
                Some(Made::Files(_)) => summary.recounted_batches += 1,
                Some(Made::Other(_)) => stop(recount.take()).await,
                None => {}
            }
            // Under another window other repetitions are right: what was written before it changed is not held against it.
            if written.as_ref().is_none_or(|(before_ms, _)| *before_ms != window_ms) {
                written = Some((window_ms, Window::new(window_ms, &self.budget)));
            }
            if let Some((_, window)) = &mut written {
                self.batch_rows(&cut, &completion, made, window).await?;
            }
            (self.auditor.on_batch)(self.batches);
        }
        stop(recount).await;
        Ok(())
    }

    async fn begin_recount(&mut self, chain: &ChainStore, cut: &Cut) -> Result<Option<Recount>, AuditError> {
        let Some(log) = &self.auditor.log else { return Ok(None) };
        match rebuild(chain, cut.from, cut.layout.window_ms, &self.budget).await {
            Ok(rebuilt) => {
                let room = Room { scratch: self.auditor.scratch.clone(), batch_memory: self.auditor.batch_memory };
                Ok(Some(Recount::new(&**log, cut, rebuilt.window, rebuilt.clock_ms, room).await?))
            }
            Err(PartitionError::Store(error)) => Err(error.into()),
            Err(PartitionError::Scratch(error)) => Err(BatchError::from(error).into()),
            Err(error) => {
                let place = format!("{}/{}: {}..{}", cut.topic, cut.partition, cut.from, cut.to);
                self.find(FindingKind::KeyRunMissing, place, format!("the rows cannot be made again: {error}"));
                Ok(None)
            }
        }
    }

    async fn batch_rows(
        &mut self,
        cut: &Cut,
        completion: &Completion,
        made: Option<Made>,
        window: &mut Window,
    ) -> Result<(), AuditError> {
        let place = format!("{}/{}: {}..{}", cut.topic, cut.partition, cut.from, cut.to);
        let made = match made {
            Some(Made::Other(message)) => {
                self.find(FindingKind::RowsDiffer, place.clone(), message);
                Vec::new()
            }
            Some(Made::Files(files)) => files,
            None => Vec::new(),
        };
        let mut all_offsets: Vec<i64> = Vec::new();
        let mut all_keys: Vec<Key> = Vec::new();
        for (index, file) in completion.files.iter().enumerate() {
            if self.present.is_hidden(&file.path) {
                continue;
            }
            let (store, scratch) = (&*self.auditor.store, &self.auditor.scratch);
            let body = match deep::fetch(store, &file.path, file.bytes, scratch).await {
                Ok(Some(body)) => body,
                Ok(None) => continue,
                Err(AuditError::Store(error)) => {
                    self.refused(&file.path, error)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            match deep::written(&body) {
                Ok(written) => {
                    all_offsets.extend(written.offsets);
                    all_keys.extend(written.keys);
                }
                Err(message) => {
                    self.find(FindingKind::FileAltered, file.path.clone(), message);
                    continue;
                }
            }
            if let Some(expected) = made.get(index)
                && !deep::same_rows(expected, &body)?
            {
                let message = "its rows are not those that the log's records make";
                self.find(FindingKind::RowsDiffer, file.path.clone(), message);
            }
        }
        all_offsets.sort_unstable();
        let outside = all_offsets.iter().filter(|offset| !(cut.from..cut.to).contains(offset)).count();
        let twice = all_offsets.windows(2).filter(|pair| pair[0] == pair[1]).count();
        if outside + twice > 0 {
            let message = format!("{twice} offsets stand in it twice, {outside} are not of the batch");
            self.find(FindingKind::RowsDiffer, place.clone(), message);
        }
        self.unique(&place, cut, all_keys, window)
    }

    /// No written row may repeat a written one within the window: a necessary condition, also where the log is gone.
    fn unique(&mut self, place: &str, cut: &Cut, mut keys: Vec<Key>, window: &mut Window) -> Result<(), AuditError> {
        keys.sort_unstable_by_key(|key| key.offset);
        let mut overlay = Window::overlay();
        let mut repeated = Vec::new();
        for key in keys {
            if window.take(&mut overlay, key.fingerprint, key.time_ms)? {
                repeated.push(key.offset);
            }
        }
        window.merge(overlay, cut.clock_ms)?;
        if let Some(first) = repeated.first() {
            let message =
                format!("{} rows repeat an earlier one within the window, first at offset {first}", repeated.len());
            self.find(FindingKind::KeyRepeated, place, message);
        }
        Ok(())
    }
}
