//! What an audit says.

use std::collections::BTreeSet;

use serde::Serialize;

/// The result of [`super::Auditor::verify`]: sound if it has no finding.
#[derive(Debug, Default, Serialize)]
pub struct Audit {
    pub topic: String,
    /// Rows were read and compared, not only footers.
    pub deep: bool,
    /// False when there was no log to compare the commit logs with.
    pub log_compared: bool,
    pub partitions: Vec<PartitionAudit>,
    pub findings: Vec<Finding>,
    /// What was removed, if that was asked for.
    pub removed: Vec<String>,
    /// Abandoned uploads that were aborted, if that was asked for.
    pub aborted: Vec<String>,
    /// What could not be looked at. No fault of the trusted zone.
    pub notes: Vec<String>,
}

impl Audit {
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

/// What the commit log of one partition says, summed up.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionAudit {
    pub partition: i32,
    /// Offsets that are decided: `from` up to before `to`.
    pub from: i64,
    pub to: i64,
    pub batches: u64,
    pub files: u64,
    pub bytes: u64,
    pub rows: u64,
    pub duplicates: u64,
    pub rejected: u64,
    /// Files that replaces made: batches under other settings.
    pub rewritten_files: u64,
    /// Replaces that are under way or were interrupted. That is no fault.
    pub open_replaces: u64,
    /// The commands that go on with them.
    pub finished_by: BTreeSet<&'static str>,
    /// Offsets that were passed over because an operator said so.
    pub skipped_offsets: u64,
    /// Offsets that the log lost before they were written.
    pub lost_offsets: u64,
    /// Batches that were abandoned, because the log dropped their head before they were complete.
    pub abandoned_batches: u64,
    /// Their offsets, of which nothing is written.
    pub abandoned_offsets: u64,
    /// The batch that has an intent and no commit. That is work under way, no fault.
    pub open: Option<OpenBatch>,
    pub committed: Option<i64>,
    /// Where the log ends.
    pub log_end: Option<i64>,
    /// Batches whose rows were made again from the log and compared.
    pub recounted_batches: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct OpenBatch {
    pub from: i64,
    pub to: i64,
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    pub kind: FindingKind,
    /// Key of the object, or `topic/partition` and what of it.
    pub place: String,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// An object of a commit log is missing or altered, or says what cannot be.
    CommitLogDamaged,
    /// The log is not the one the trusted zone was written from.
    LogReplaced,
    /// The group's offset lies beyond what is written.
    OffsetBeyondEnd,
    /// Needed to tell duplicates, and missing or altered.
    KeyRunDamaged,
    FileMissing,
    /// Another size, hash, footer, or rows than its entry says.
    FileAltered,
    /// A replace was interrupted when its rows were in no file that readers see.
    RowsHidden,
    /// A file that is not live any more: its rows stand in another file, too.
    FileOrphaned,
    /// As orphaned, in a partition that lacks other files: it may be the only one that has its rows, and is left alone.
    OrphanKept,
    /// A file that no entry accounts for, or an entry that is no file but that engines read.
    FileUnknown,
    /// A folder or a file that the store refuses to list or to read: it was not checked.
    Unreadable,
    /// A Delta table is damaged, was changed by another program, or names other files than the commit logs do.
    TableWrong,
    /// The watermark says more than is true, or cannot be understood.
    WatermarkWrong,
    /// Begun long ago and never completed: it holds parts that no listing of objects shows.
    UploadAbandoned,
    /// Two rows with the same key within the window.
    KeyRepeated,
    /// The log's records make other rows.
    RowsDiffer,
}

impl FindingKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::CommitLogDamaged => "commit-log-damaged",
            Self::LogReplaced => "log-replaced",
            Self::OffsetBeyondEnd => "offset-beyond-end",
            Self::KeyRunDamaged => "key-run-damaged",
            Self::FileMissing => "file-missing",
            Self::FileAltered => "file-altered",
            Self::RowsHidden => "rows-hidden",
            Self::FileOrphaned => "file-orphaned",
            Self::OrphanKept => "orphan-kept",
            Self::FileUnknown => "file-unknown",
            Self::Unreadable => "unreadable",
            Self::TableWrong => "table-wrong",
            Self::WatermarkWrong => "watermark-wrong",
            Self::UploadAbandoned => "upload-abandoned",
            Self::KeyRepeated => "key-repeated",
            Self::RowsDiffer => "rows-differ",
        }
    }
}

/// Whether to remove what does harm and nobody needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    No,
    /// Orphaned files and abandoned uploads.
    Orphans,
}
