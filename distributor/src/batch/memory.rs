//! The memory of an open batch, and moving rows to disk.

use super::Batch;
use super::file::OpenFile;
use crate::scratch::ScratchError;

/// The number of encoded bytes from which on the measured ratio is used.
const MEASURED_BYTES: usize = 1_000_000;

impl Batch {
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes + self.overlay.memory_bytes()
    }

    /// The memory that [`Batch::spill`] frees.
    pub(crate) fn spillable_bytes(&self) -> usize {
        self.spillable_bytes
    }

    /// The estimated size of the files if the batch ended here.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate"
    )]
    pub(crate) fn estimated_bytes(&self) -> u64 {
        let [waiting, raw, encoded] = self.progress;
        let ratio = if raw >= MEASURED_BYTES { encoded as f64 / raw as f64 } else { self.expected_ratio };
        encoded as u64 + (waiting as f64 * ratio) as u64
    }

    /// Uses the ratio measured in an earlier batch.
    pub(crate) fn expect_ratio(&mut self, ratio: f64) {
        self.expected_ratio = ratio;
    }

    /// Moves waiting rows and finished row groups to disk. Does not affect a byte of the files.
    ///
    /// # Errors
    /// The disk's error; nothing is lost.
    pub(crate) fn spill(&mut self) -> Result<(), ScratchError> {
        let disk = self.overflow.file()?;
        for index in 0..self.files.len() {
            self.account(index, |file| file.spill(&disk))?;
        }
        Ok(())
    }

    /// Moves rows to disk, and defers encoding to the end, as far as necessary to need about `limit_bytes` besides the
    /// keys.
    ///
    /// # Errors
    /// The disk's error.
    pub(crate) fn keep_within(&mut self, limit_bytes: u64) -> Result<(), ScratchError> {
        if self.memory_bytes as u64 <= limit_bytes {
            return Ok(());
        }
        // A small amount is not worth a write to disk.
        if self.spillable_bytes as u64 > limit_bytes / 16 {
            self.spill()?;
        }
        if self.memory_bytes as u64 > limit_bytes / 2 {
            self.defer();
        }
        Ok(())
    }

    /// Whether any of it was moved to disk.
    pub(crate) fn has_spilled(&self) -> bool {
        self.overflow.used().is_some()
    }

    /// Defers encoding to the end, file by file, if the encoders of many files take too much memory. Does not affect a
    /// byte of the files.
    pub(crate) fn defer(&mut self) {
        self.is_deferred = true;
    }

    /// Changes a file and updates the sums.
    pub(super) fn account<E>(
        &mut self,
        index: usize,
        work: impl FnOnce(&mut OpenFile) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(file) = self.files.get_mut(index) else { return Ok(()) };
        let before = (file.memory_bytes(), file.spillable_bytes(), file.progress());
        let outcome = work(file);
        let after = (file.memory_bytes(), file.spillable_bytes(), file.progress());
        self.memory_bytes = self.memory_bytes + after.0 - before.0;
        self.spillable_bytes = self.spillable_bytes + after.1 - before.1;
        for (sum, (after, before)) in self.progress.iter_mut().zip(after.2.into_iter().zip(before.2)) {
            *sum = *sum + after - before;
        }
        outcome
    }
}
