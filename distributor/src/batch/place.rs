//! Where the files of a batch stand, and what their footers say of it.

use parquet::errors::ParquetError;

use crate::chain::Cut;
use crate::layout::Layout;

/// Key in the footer of a file without rows that stands under the name of one that must not come any more.
pub(crate) const STANDS_IN: &str = "event_distributor.stands_in";

/// Which of the files that a batch may come to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Series {
    /// As it was cut.
    Cut,
    /// Made again under other settings: 1, 2, …
    Revision(u32),
    /// What was left when the log had let go of its head: round 1, 2, …
    Salvage(u32),
}

impl Series {
    pub(crate) fn of_revision(revision: u32) -> Self {
        if revision == 0 { Self::Cut } else { Self::Revision(revision) }
    }
}

/// The batch that a file belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub from: i64,
    pub to: i64,
    pub series: Series,
    pub layout: &'a Layout,
}

impl<'a> Place<'a> {
    pub(crate) fn of(cut: &'a Cut) -> Self {
        let Cut { topic, partition, from, to, revision, layout, .. } = cut;
        let series = Series::of_revision(*revision);
        Self { topic, partition: *partition, from: *from, to: *to, series, layout }
    }

    /// Key of a file of the batch.
    pub(crate) fn path(&self, folder: &str, sequence: u32) -> String {
        let batch = format!("{folder}/{}-{}-{}", self.topic, self.partition, self.from);
        match self.series {
            Series::Cut => format!("{batch}-{sequence}.parquet"),
            Series::Revision(revision) => format!("{batch}-r{revision}-{sequence}.parquet"),
            Series::Salvage(round) => format!("{batch}-s{round}-{sequence}.parquet"),
        }
    }

    /// What a file's footer says of its place: enough to know it again. What it says of the whole batch is [`Stated`].
    ///
    /// # Errors
    /// Never for a layout that was read or configured.
    pub(crate) fn footer_facts(&self, sequence: u32) -> Result<Vec<(&'static str, String)>, ParquetError> {
        let layout = serde_json::to_string(self.layout).map_err(|error| ParquetError::General(error.to_string()))?;
        let mut facts = vec![
            ("event_distributor.topic", self.topic.to_owned()),
            ("event_distributor.partition", self.partition.to_string()),
            ("event_distributor.from", self.from.to_string()),
            ("event_distributor.to", self.to.to_string()),
            ("event_distributor.sequence", sequence.to_string()),
            ("event_distributor.layout", layout),
        ];
        match self.series {
            Series::Cut => {}
            Series::Revision(revision) => facts.push(("event_distributor.revision", revision.to_string())),
            Series::Salvage(round) => facts.push(("event_distributor.salvage", round.to_string())),
        }
        Ok(facts)
    }
}
