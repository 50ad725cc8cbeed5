//! The facts about the whole batch in each of its files, from which its cut and completion can be rebuilt.

use parquet::errors::ParquetError;
use serde::{Deserialize, Serialize};

use super::{Counts, Ends};
use crate::chain::Witness;

/// Footer key. Files of version 0.1.0 do not have it.
pub(crate) const STATED: &str = "event_distributor.batch";

/// A pure function of the batch's records and the window before them, as its rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stated {
    pub first: Witness,
    pub last: Witness,
    /// Log time (running maximum) after the last record.
    pub clock_ms: i64,
    /// Except for values that did not fit their column, which are known when their file is encoded: each file has its
    /// own.
    counts: Counts,
    /// How many files the batch has.
    pub files: u32,
}

impl Stated {
    pub(crate) fn new(ends: &Ends, counts: Counts, files: usize) -> Self {
        let Ends { first, last, clock_ms, .. } = *ends;
        let counts = Counts { unfit: 0, ..counts };
        Self { first, last, clock_ms, counts, files: u32::try_from(files).unwrap_or(u32::MAX) }
    }

    /// The batch's counts, with the values that did not fit in all its files together.
    pub(crate) fn counts(&self, unfit: u64) -> Counts {
        Counts { unfit, ..self.counts }
    }

    /// The fact as written in a footer.
    ///
    /// # Errors
    /// Never: it contains only numbers.
    pub(crate) fn fact(&self) -> Result<(&'static str, String), ParquetError> {
        let text = serde_json::to_string(self).map_err(|error| ParquetError::General(error.to_string()))?;
        Ok((STATED, text))
    }
}
