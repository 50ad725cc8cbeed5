//! What the chain's objects say. All are JSON, written once and never changed.

use common::log::RecordRef;
use serde::{Deserialize, Serialize};

use super::json;
use crate::batch::{Counts, Encoding};
use crate::layout::Layout;

pub(crate) const DOCUMENT_VERSION: u32 = 1;

/// A record as the chain remembers it: enough to notice that another one stands at its offset now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Witness {
    pub append_ms: i64,
    /// xxh3-64 of the record's key.
    pub key_hash: u64,
}

impl Witness {
    pub(crate) fn of(record: &RecordRef<'_>, append_ms: i64) -> Self {
        Self { append_ms, key_hash: xxhash_rust::xxh3::xxh3_64(record.key) }
    }
}

/// Where the chain begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Origin {
    pub version: u32,
    pub topic: String,
    pub partition: i32,
    pub start: i64,
    /// Identity of the cluster or log file.
    pub log_id: String,
    pub first: Witness,
}

/// Fixes a batch before any file of it is visible, or says which offsets hold nothing in the trusted zone and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cut {
    pub version: u32,
    pub kind: CutKind,
    pub topic: String,
    pub partition: i32,
    pub from: i64,
    pub to: i64,
    pub layout: Layout,
    /// Offset of the oldest batch whose keys still mattered at `from`.
    pub window_from: i64,
    /// Log time (running maximum) after the last record.
    pub clock_ms: i64,
    /// First and last record of a batch. Offsets that were passed over have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Witness>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Witness>,
    /// Of a batch: the folder of each of its files, in sequence. With it a batch whose head the log lets go of can be
    /// closed (see [`Salvage`]). Cuts of earlier builds do not have it.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "json::some_list::<_, _, { json::LISTED }>"
    )]
    pub folders: Option<Vec<String>>,
    /// Of every file of the batch, whoever makes it and whenever. `None` for offsets that were passed over, and in cuts of
    /// builds that did not say it: such a batch is made as is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
    /// 0 as it was cut; in memory only, for a batch that was made again (see [`super::Standing`]).
    #[serde(skip)]
    pub revision: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CutKind {
    Batch,
    /// An operator set the group's offset forward.
    Skipped,
    /// The log let go of these offsets before they were written.
    Lost,
}

impl CutKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Skipped => "skipped",
            Self::Lost => "lost",
        }
    }
}

impl Cut {
    /// A batch has files, a key run and a completion to follow; offsets that are passed over are done with the cut.
    pub(crate) fn is_batch(&self) -> bool {
        self.kind == CutKind::Batch
    }
}

/// Says that every file of a cut, and its key run, are durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Completion {
    pub version: u32,
    pub from: i64,
    pub to: i64,
    #[serde(deserialize_with = "json::list::<_, _, { json::LISTED }>")]
    pub files: Vec<FileEntry>,
    pub counts: Counts,
    /// Log-append times of the first and last record.
    pub first_append_ms: i64,
    pub last_append_ms: i64,
    /// Only of a damaged batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damage: Option<Damage>,
}

/// What a batch lost because the log let go of its first records before all of its files were there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Damage {
    /// The files listed are those of the cut, followed by those of so many rounds of salvage.
    pub rounds: u32,
    /// From this offset on, everything is there.
    pub log_from: i64,
    /// Offsets before it of which no row is there. Some may have been duplicates, or no records.
    pub lost_offsets: u64,
}

/// A round of salvage: closing an open batch whose head the log has let go of, with what is left from `log_from` on.
/// Written once, before any file of the round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Salvage {
    pub version: u32,
    pub topic: String,
    pub partition: i32,
    pub from: i64,
    pub to: i64,
    /// 1, 2, … A further one is begun when the log has let go of more.
    pub round: u32,
    /// Where the log began then, or the end of the batch if that is less.
    pub log_from: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileEntry {
    /// Key below the trusted zone.
    pub path: String,
    pub rows: u64,
    pub bytes: u64,
}
