//! The keys of a batch's files, and the facts about them in their footers.

use commitlog::FileId;
use parquet::errors::ParquetError;

use crate::chain::Cut;
use crate::layout::Layout;

/// Footer key of a stand-in: a file without rows under the name of one that must not appear any more.
pub(crate) const STANDS_IN: &str = "event_distributor.stands_in";

/// Footer key of the layout that the rows were made under.
pub(crate) const LAYOUT: &str = "event_distributor.layout";

/// The series of files that a batch may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Series {
    /// As it was cut.
    Cut,
    /// Rewritten under other settings: 1, 2, …
    Revision(u32),
    /// The rows that remained after its head was lost: round 1, 2, …
    Salvage(u32),
    /// Outputs of a replace of the commit log, numbered through all of its batches.
    Replace(u64),
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

    /// The key of a file of the batch.
    pub(crate) fn path(&self, folder: &str, sequence: u32) -> String {
        let batch = format!("{folder}/{}-{}-{}", self.topic, self.partition, self.from);
        match self.series {
            Series::Cut => format!("{batch}-{sequence}.parquet"),
            Series::Revision(revision) => format!("{batch}-r{revision}-{sequence}.parquet"),
            Series::Salvage(round) => format!("{batch}-s{round}-{sequence}.parquet"),
            Series::Replace(replace) => {
                let id = FileId::Replace { replace, k: sequence };
                format!("{folder}/{}-{}-{id}.parquet", self.topic, self.partition)
            }
        }
    }

    /// The facts about a file's place in its footer: enough to identify it. [`Stated`] has those about the whole batch.
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
            (LAYOUT, layout),
        ];
        match self.series {
            Series::Cut => {}
            Series::Revision(revision) => facts.push(("event_distributor.revision", revision.to_string())),
            Series::Salvage(round) => facts.push(("event_distributor.salvage", round.to_string())),
            Series::Replace(replace) => facts.push(("event_distributor.replace", replace.to_string())),
        }
        Ok(facts)
    }
}
