//! Compaction: old cuts and completions move into a summary, old key runs go.
//!
//! What is compacted is complete, lies before the log's beginning, and is older, by [`MARGIN_MS`] more than the window,
//! than where the log begins: no batch that can still be made again reaches back to its keys.
//!
//! The summary is put first, only if none stands there, and read back; what it holds in the same words is deleted only
//! then. Broken off anywhere, the next run goes on: readers find each cut in the one place or in the other. Of two that
//! compact at the same time one puts the summary, and both delete by it.

use futures_util::{StreamExt, stream};

use super::storage::READS_AT_ONCE;
use super::summary::{Held, Summary};
use super::{ChainError, ChainStore, Cut, DOCUMENT_VERSION, Part, json};

/// Fewer cuts are not worth a summary.
pub(crate) const CUTS_PER_SUMMARY: usize = 1_000;
/// A summary is about this large at most, unless a single batch takes more: far below the limit of a document, and soon read.
/// In tests that is soon reached.
const SUMMARY_BYTES: usize = if cfg!(test) { 64 * 1024 } else { 16 * 1024 * 1024 };
/// Batches whose documents are read at the same time.
const DOCUMENTS_AT_ONCE: usize = 4;
/// Beyond the window; its slices reach a little further back than it does.
const MARGIN_MS: i64 = 3_600_000;

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Compacted {
    pub summaries: u64,
    pub cuts: u64,
}

impl ChainStore {
    /// Compacts while there are `at_least` cuts to make a summary of. `log_begins_at` may be where the log began earlier.
    ///
    /// # Errors
    /// The store's, or a chain that is damaged: nothing was deleted that is not in a summary.
    pub(crate) async fn compact(&self, log_begins_at: i64, at_least: usize) -> Result<Compacted, ChainError> {
        let mut done = Compacted::default();
        loop {
            let singles = self.begins(Part::Cuts).await?;
            let newest = self.summary_at_or_before(i64::MAX - 1).await?;
            if let Some(summary) = &newest {
                let left = singles.iter().copied().filter(|from| *from < summary.to).collect::<Vec<_>>();
                self.delete_held(summary, &left).await?;
            }
            let from = match &newest {
                Some(summary) => summary.to,
                None => match self.origin().await? {
                    Some(origin) => origin.start,
                    None => return Ok(done),
                },
            };
            let candidates: Vec<i64> = singles.into_iter().filter(|begin| *begin >= from).collect();
            let Some(summary) = self.next_summary(from, &candidates, log_begins_at, at_least.max(1)).await? else {
                return Ok(done);
            };
            // Whoever put it: what counts is what stands there.
            self.put(&self.summary_key(from), &summary).await?;
            let key = self.summary_key(from);
            let Some(stands) = self.read_summary(&key).await? else {
                return Err(ChainError::Damaged { key, message: "it was put and is gone".to_owned() });
            };
            let held: Vec<i64> = stands.held.iter().map(|held| held.cut.from).collect();
            self.delete_held(&stands, &held).await?;
            done.summaries += 1;
            done.cuts += held.len() as u64;
        }
    }

    /// Cuts whose log time is before this have no keys that could matter to a batch that the log still holds.
    async fn horizon_ms(&self, log_begins_at: i64) -> Result<Option<i64>, ChainError> {
        let mut oldest = self.cut_at_or_before(log_begins_at.saturating_sub(1)).await?;
        if let Some(cut) = oldest.take_if(|cut| cut.to > log_begins_at) {
            oldest = self.cut_at_or_before(cut.from.saturating_sub(1)).await?;
        }
        let (Some(oldest), Some(newest)) = (oldest, self.last_cut().await?) else { return Ok(None) };
        let window_ms = oldest.layout.window_ms.max(newest.layout.window_ms);
        Ok(Some(oldest.clock_ms.saturating_sub(window_ms).saturating_sub(MARGIN_MS)))
    }

    /// The next summary, of `at_least` and at most [`CUTS_PER_SUMMARY`] cuts (or `at_least`, if that is more).
    async fn next_summary(
        &self,
        from: i64,
        candidates: &[i64],
        log_begins_at: i64,
        at_least: usize,
    ) -> Result<Option<Summary>, ChainError> {
        // The newest cut is never compacted.
        let Some((_, candidates)) = candidates.split_last() else { return Ok(None) };
        let Some(decisive) = candidates.get(at_least - 1) else { return Ok(None) };
        let Some(horizon_ms) = self.horizon_ms(log_begins_at).await? else { return Ok(None) };
        let is_old = |cut: &Cut| cut.to <= log_begins_at && cut.clock_ms < horizon_ms;
        // One look saves reading all others where it is too early.
        if !self.single(*decisive).await?.is_some_and(|cut| is_old(&cut)) {
            return Ok(None);
        }
        let wanted = &candidates[..candidates.len().min(at_least.max(CUTS_PER_SUMMARY))];
        let mut documents = stream::iter(wanted.to_vec())
            .map(async |begin| Ok::<_, ChainError>((begin, self.single(begin).await?, self.completion(begin).await?)))
            .buffered(DOCUMENTS_AT_ONCE);
        let (mut held, mut to, mut bytes, mut is_full) = (Vec::new(), from, 0, false);
        while let Some(read) = documents.next().await {
            let (begin, cut, completion) = read?;
            // Gone: another worker compacts. Not complete: nobody may touch it.
            let Some(cut) = cut.filter(&is_old) else { break };
            if cut.is_batch() && completion.is_none() {
                break;
            }
            if (begin, cut.from) != (to, to) {
                let message = format!("no cut begins at {to}, though later ones are there");
                return Err(ChainError::Damaged { key: self.cut_key(to), message });
            }
            let next = Held { cut, completion };
            bytes += json::len_bytes(&next);
            is_full = bytes > SUMMARY_BYTES && !held.is_empty();
            if is_full {
                break;
            }
            to = next.cut.to;
            held.push(next);
        }
        if held.is_empty() || (held.len() < at_least && !is_full) {
            return Ok(None);
        }
        Ok(Some(Summary { version: DOCUMENT_VERSION, from, to, held }))
    }

    /// Deletes single objects that the summary, which was read from the store, holds in the same words.
    async fn delete_held(&self, summary: &Summary, begins: &[i64]) -> Result<(), ChainError> {
        let mut deletes = stream::iter(begins.to_vec())
            .map(async |begin| match summary.beginning(begin) {
                Some(held) => self.delete_one(held).await,
                None => Ok(()),
            })
            .buffered(READS_AT_ONCE);
        while let Some(deleted) = deletes.next().await {
            deleted?;
        }
        Ok(())
    }

    /// The cut goes last: as long as it stands, the next run finds what is left.
    async fn delete_one(&self, held: &Held) -> Result<(), ChainError> {
        let from = held.cut.from;
        let Some(single) = self.single(from).await? else { return Ok(()) };
        if single != held.cut {
            tracing::warn!(key = self.cut_key(from), "this cut is not the one that the summary holds; it is kept");
            return Ok(());
        }
        let completion_key = self.completion_key(from);
        if self.read(&completion_key).await? == held.completion {
            self.store.delete(&completion_key, None).await?;
        }
        self.store.delete(&self.key_run_key(from), None).await?;
        self.store.delete(&self.cut_key(from), None).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
