//! Ends the files of a batch, one after another. Only one encoder at a time is created for them, and encoded bytes take
//! the memory of their rows, or go to disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::file::{FinishedFile, OpenFile};
use super::promoted::Promoted;
use super::spool::Overflow;
use super::{Batch, BatchError, Encoded, Place};
use crate::scratch::ScratchFile;

/// Footer key: values of promoted columns that did not fit and are null in this file. Omitted if there are none.
const UNFIT: &str = "event_distributor.unfit";

/// Encoded files of this size may stay in memory even if their rows took less: a batch with few files needs no disk.
const HELD_BYTES: usize = 256 * 1024;

/// The facts in a file's footer.
pub(super) type Facts = Vec<(&'static str, String)>;

/// The encoded files of a batch, in order.
pub(super) struct Ended {
    pub files: Vec<FinishedFile>,
    /// By promoted column: values that did not fit it.
    pub unfit: BTreeMap<String, u64>,
}

/// Encodes the remaining rows of each file and ends it before the next. Writes `facts` into its footer. Encoded files
/// may take as much memory as the open ones did.
///
/// # Errors
/// The encoder's error, or the disk's if rows are on it.
pub(super) fn end_all(
    open: Vec<OpenFile>,
    promoted: &Promoted,
    overflow: &mut Overflow,
    facts: impl Fn(&OpenFile) -> Result<Facts, BatchError>,
) -> Result<Ended, BatchError> {
    let mut left_bytes: usize = open.iter().map(OpenFile::memory_bytes).sum();
    let mut room = Room { limit_bytes: left_bytes.max(HELD_BYTES), held_bytes: 0, overflow };
    let mut files = Vec::with_capacity(open.len());
    let mut unfit: BTreeMap<String, u64> = BTreeMap::new();
    for mut file in open {
        left_bytes -= file.memory_bytes();
        let disk = room.overflow.used();
        file.seal(disk.as_ref())?;
        let mut facts = facts(&file)?;
        let counts = promoted.names().iter().zip(file.unfit()).filter(|(_, count)| **count > 0);
        let mut of_file = 0;
        for (name, count) in counts {
            *unfit.entry(name.clone()).or_default() += count;
            of_file += count;
        }
        if of_file > 0 {
            facts.push((UNFIT, of_file.to_string()));
        }
        let mut finished = file.finish(&facts)?;
        room.take(&mut finished, left_bytes, disk)?;
        files.push(finished);
    }
    Ok(Ended { files, unfit })
}

/// Memory for encoded files.
struct Room<'a> {
    limit_bytes: usize,
    held_bytes: usize,
    overflow: &'a mut Overflow,
}

impl Room<'_> {
    /// Moves a file to disk if rows were spilled, or if it does not fit into memory beside the files that are still
    /// open.
    fn take(
        &mut self,
        file: &mut FinishedFile,
        left_bytes: usize,
        disk: Option<Arc<ScratchFile>>,
    ) -> Result<(), BatchError> {
        let is_too_much = left_bytes + self.held_bytes + file.memory_bytes() > self.limit_bytes;
        if let Some(disk) = disk {
            // If the rows did not fit into memory, the files do not either.
            file.spill(&disk)?;
        } else if is_too_much {
            match self.overflow.file() {
                Ok(disk) => file.spill(&disk)?,
                Err(error) => {
                    // Their memory is bounded all the same, by flush.max_files and their rows.
                    tracing::warn!(%error, "encoded files cannot go to disk; they stay in memory until they are put");
                    self.limit_bytes = usize::MAX;
                }
            }
        }
        self.held_bytes += file.memory_bytes();
        Ok(())
    }
}

impl Batch {
    /// Ends all files; `None` if there was no record.
    ///
    /// # Errors
    /// The encoder's error, or the disk's.
    pub(crate) fn finish(self) -> Result<Option<Encoded>, BatchError> {
        let Self { topic, partition, from, series, layout, promoted, mut overflow, .. } = self;
        let Some(ends) = self.ends else { return Ok(None) };
        let place = Place { topic: &topic, partition, from, to: ends.to, series, layout: &layout };
        let facts = |file: &OpenFile| Ok(place.footer_facts(file.sequence)?);
        let Ended { files, unfit } = end_all(self.files, &promoted, &mut overflow, facts)?;
        let counts = super::Counts { unfit: unfit.values().sum(), ..self.counts };
        let [waiting, raw, _] = self.progress;
        let encoded: usize = files.iter().map(|file| file.body.len()).sum();
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        let ratio = encoded as f64 / (waiting + raw).max(1) as f64;
        Ok(Some(Encoded { files, overlay: self.overlay, counts, ends, unfit, ratio }))
    }
}
