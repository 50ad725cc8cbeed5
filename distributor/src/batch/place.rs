//! The keys of a batch's files, and the facts about them in their footers.

use commitlog::FileId;
use parquet::errors::ParquetError;

use crate::layout::Layout;

/// Footer key of a stand-in: a file without rows under the name of one that must not appear any more.
pub(crate) const STANDS_IN: &str = "event_distributor.stands_in";

/// Footer key of the layout that the rows were made under.
pub(crate) const LAYOUT: &str = "event_distributor.layout";

/// The key of a data file.
pub(crate) fn path(topic: &str, partition: i32, folder: &str, id: FileId) -> String {
    format!("{folder}/{topic}-{partition}-{id}.parquet")
}

/// The series of files that a batch may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Series {
    /// Its own.
    Batch,
    /// Outputs of a replace of the commit log, numbered through all of its batches.
    Replace(u64),
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

impl Place<'_> {
    /// The key of a file of the batch.
    pub(crate) fn path(&self, folder: &str, sequence: u32) -> String {
        let Self { topic, partition, from, .. } = *self;
        let id = match self.series {
            Series::Batch => FileId::Batch { from, k: sequence },
            Series::Replace(replace) => FileId::Replace { replace, k: sequence },
        };
        path(topic, partition, folder, id)
    }

    /// The facts about a file's place in its footer: enough to identify it.
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
        if let Series::Replace(replace) = self.series {
            facts.push(("event_distributor.replace", replace.to_string()));
        }
        Ok(facts)
    }
}
