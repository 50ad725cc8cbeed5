//! Makes committed batches again, from the log and the key runs before them: the same rows in the same files.

use std::sync::Arc;

use commitlog::{Batch as Decided, Fate, Intent};
use commitlog_storage::{CommitLog, Recent};
use common::log::Log;

use crate::batch::{Batch, Encoded, Encoding, Ends};
use crate::error::PartitionError;
use crate::known::Known;
use crate::layout::Layout;
use crate::records::{Filled, Records};
use crate::scratch::{Scratch, ScratchError};
use crate::window::Budget;

/// Where batches are made again, and from what.
pub(crate) struct Again<'a> {
    pub commits: &'a CommitLog,
    pub recent: &'a Recent,
    pub log: &'a dyn Log,
    pub topic: &'a str,
    pub partition: i32,
    /// Where the log begins.
    pub log_from: i64,
    pub budget: &'a Arc<Budget>,
    pub scratch: &'a Scratch,
    /// Bytes of a batch in memory. More goes to `scratch`.
    pub memory: u64,
    pub known: Known,
    pub records: Option<Records>,
}

/// How a batch is made.
pub(crate) struct Under {
    pub layout: Layout,
    pub encoding: Encoding,
    /// Number of the replace whose outputs its files are, and of the first of them.
    pub replace: Option<(u64, u32)>,
}

/// What came of making a batch again.
pub(crate) enum Made {
    Batch(Box<MadeBatch>),
    /// It cannot be made, and why.
    Cannot(String),
}

pub(crate) struct MadeBatch {
    /// As it was appended.
    pub intent: Intent,
    pub layout: Layout,
    pub encoded: Encoded,
}

impl Again<'_> {
    /// Makes the batch that begins at `from`.
    ///
    /// # Errors
    /// Of log, store and disk.
    pub(crate) async fn make(&mut self, from: i64) -> Result<Made, PartitionError> {
        let spans = self.commits.spans_before(self.recent, from.saturating_add(1)).await?;
        let Some((to, Fate::Batch(decided))) = spans.get(&from).map(|span| (span.to, &span.fate)) else {
            return Ok(Made::Cannot("no batch begins there".to_owned()));
        };
        let layout: Result<Layout, _> = serde_json::from_value(decided.recipe.layout.clone());
        let encoding = serde_json::from_value(decided.recipe.encoding.clone());
        let (Ok(layout), Ok(encoding)) = (layout, encoding) else {
            return Ok(Made::Cannot("this build does not know its layout".to_owned()));
        };
        self.make_under((from, to), decided, Under { layout, encoding, replace: None }).await
    }

    /// Makes a batch under another layout or encoding. The layout must read the same keys, within the same window.
    ///
    /// # Errors
    /// Of log, store and disk.
    pub(crate) async fn make_under(
        &mut self,
        (from, to): (i64, i64),
        decided: &Decided,
        under: Under,
    ) -> Result<Made, PartitionError> {
        let Under { layout, encoding, replace } = under;
        let Decided { recipe, clock_ms, window_from, .. } = decided;
        if self.log_from > from {
            return Ok(Made::Cannot(format!("the log begins at {}, after the batch does", self.log_from)));
        }
        self.known.rebuild(self.commits, self.recent, from, layout.window_ms, self.budget, *window_from).await?;
        let begun_ms = self.known.clock_ms().unwrap_or(i64::MIN);
        let mut batch = match Batch::new(self.topic, self.partition, from, begun_ms, &layout, encoding, self.scratch) {
            Ok(batch) => batch,
            Err(reason) => return Ok(Made::Cannot(reason)),
        };
        if let Some((replace, first)) = replace {
            batch = batch.of_replace(replace, first);
        }
        let records = match &mut self.records {
            Some(records) => {
                records.go_to(from).await?;
                records
            }
            records => records.insert(Records::open(self.log, self.topic, self.partition, from).await?),
        };
        if records.fill(&mut batch, &self.known.window, from, to, self.memory).await? == Filled::LogEnded {
            return Ok(Made::Cannot("the log ends before the batch does".to_owned()));
        }
        let others = || Made::Cannot("the records in the log are not those it was made from".to_owned());
        let Some(encoded) = batch.finish()? else { return Ok(others()) };
        let Ends { first, last, to: ends_at, clock_ms: ended_ms } = encoded.ends;
        if (ends_at, ended_ms) != (to, *clock_ms) {
            return Ok(others());
        }
        let intent = Intent {
            from,
            to,
            recipe: recipe.clone(),
            window_from: *window_from,
            clock_ms: *clock_ms,
            first,
            last,
            folders: encoded.files.iter().map(|file| file.folder.clone()).collect(),
        };
        Ok(Made::Batch(Box::new(MadeBatch { intent, layout, encoded })))
    }

    /// Keeps the keys of a batch that was made: the one after it needs no key runs then.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn keep(&mut self, made: MadeBatch) -> Result<(), ScratchError> {
        self.known.take(made.encoded.overlay, &made.intent)
    }

    pub(crate) async fn close(self) {
        if let Some(records) = self.records {
            records.close().await;
        }
    }
}
