//! The observable state of a partition at work, and freeing its memory.

use std::time::Duration;

use tokio::time::Instant;

use super::{Context, Next, Partition, Phase, Result};
use crate::lane::Observed;
use crate::watch::Progress;

impl Partition {
    /// Frees memory: rows go to disk, and if that frees less than half, the batch is written, and later ones are
    /// encoded at their end only, file by file. The same applies to a batch that is restored.
    ///
    /// # Errors
    /// As [`Partition::flush`].
    pub(crate) async fn make_room(&mut self, context: &Context) -> Result<Next> {
        let before = self.memory_bytes();
        match &mut self.phase {
            Phase::Fill(batch) => {
                let spilled = batch.spill();
                if let Err(error) = &spilled {
                    tracing::warn!(%error, topic = context.topic, partition = self.id, "rows cannot go to disk; the batch is written instead");
                }
                if spilled.is_err() || batch.memory_bytes() > before / 2 {
                    self.is_tight = spilled.is_ok();
                    return self.flush(context).await;
                }
            }
            Phase::Redo { batch, .. } => {
                batch.spill()?;
                if batch.memory_bytes() > before / 2 {
                    batch.defer();
                }
            }
            Phase::CheckLast { .. } => {}
        }
        Ok(Next::Continue)
    }

    pub(crate) fn observed(&self, at_end: bool) -> Observed {
        Observed {
            memory_bytes: self.memory_bytes(),
            reclaimable_bytes: self.reclaimable_bytes(),
            window_entries: self.window.len(),
            window_bytes: self.window.memory_bytes(),
            open_files: self.open_files(),
            progress: self.progress(at_end),
            filling_for: self.filling_for(),
        }
    }

    /// The memory that [`Partition::make_room`] can free.
    fn reclaimable_bytes(&self) -> usize {
        match &self.phase {
            Phase::Fill(batch) => batch.memory_bytes(),
            Phase::Redo { batch, .. } => batch.spillable_bytes(),
            Phase::CheckLast { .. } => 0,
        }
    }

    fn memory_bytes(&self) -> usize {
        match &self.phase {
            Phase::Fill(batch) | Phase::Redo { batch, .. } => batch.memory_bytes(),
            Phase::CheckLast { .. } => 0,
        }
    }

    /// Adapts to this window's share of the memory, which may have shrunk.
    ///
    /// # Errors
    /// The error of the disk with old keys.
    pub(crate) fn fit_window(&mut self) -> Result<()> {
        Ok(self.window.fit()?)
    }

    fn open_files(&self) -> usize {
        match &self.phase {
            Phase::Fill(batch) | Phase::Redo { batch, .. } => batch.files(),
            Phase::CheckLast { .. } => 0,
        }
    }

    /// `None` while earlier batches are checked or restored.
    fn progress(&self, at_end: bool) -> Option<Progress> {
        let (position, first) = match &self.phase {
            Phase::Fill(batch) => {
                (batch.ends().map_or(batch.from(), |ends| ends.to), batch.ends().map(|ends| ends.first))
            }
            Phase::CheckLast { at, .. } => (*at, None),
            Phase::Redo { .. } => return None,
        };
        // Without an origin there were never any records: the chain will begin where the log does.
        let (complete_to, clock_ms) =
            self.reached.or(self.origin.is_none().then_some((self.log.earliest, i64::MIN)))?;
        Some(Progress {
            position,
            complete_to,
            complete_ms: Some(clock_ms).filter(|clock_ms| *clock_ms > i64::MIN),
            open_since_ms: first.map(|first| first.append_ms),
            at_end: at_end && matches!(self.phase, Phase::Fill(_)),
        })
    }

    /// Age of the open batch.
    fn filling_for(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Fill(batch) if !batch.is_empty() => self.filling_since.map(|since| since.elapsed()),
            _ => None,
        }
    }

    /// The latest time at which the open batch has to be written.
    pub(crate) fn due(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Fill(batch) if !batch.is_empty() => self.due,
            _ => None,
        }
    }

    /// Whether everything below `latest` has been read; then only the open batch is left to flush.
    pub(crate) fn has_read_to(&self, latest: i64) -> bool {
        match &self.phase {
            Phase::Fill(batch) => self.end_seen || batch.ends().map_or(batch.from(), |ends| ends.to) >= latest,
            _ => false,
        }
    }

    pub(crate) fn is_flushed(&self) -> bool {
        matches!(&self.phase, Phase::Fill(batch) if batch.is_empty())
    }
}
