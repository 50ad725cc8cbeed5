//! What an entry says: one to three operations, each valid or not by the state before it alone.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::hash::Hash;

/// A record as the commit log remembers it: enough to detect that another one has its offset now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    pub append_ms: i64,
    /// xxh3-64 of the record's key.
    pub key_hash: u64,
}

/// How files are made: what decides their rows, and what decides their bytes. The core compares, the driver understands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    pub layout: Value,
    pub encoding: Value,
}

/// The least and the greatest values in a data file. The core does not look into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// Offsets of the first and the last row.
    pub offsets: (i64, i64),
    /// Timestamps of rows, microseconds since 1970; none in a file of rejected rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times_us: Option<(i64, i64)>,
}

/// An object that counts: what stands under its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    pub rows: u64,
    pub bytes: u64,
    pub sha256: Hash,
    /// Of data files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounds: Option<Bounds>,
}

/// Name of a data file of this partition, without folder, topic and partition. No name is ever used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum FileId {
    /// The `k`th file of the batch that begins at offset `from`: `<from>-<k>`.
    Batch { from: i64, k: u32 },
    /// The `k`th output of a replace: `c<replace>-<k>`.
    Replace { replace: u64, k: u32 },
}

impl fmt::Display for FileId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch { from, k } => write!(formatter, "{from}-{k}"),
            Self::Replace { replace, k } => write!(formatter, "c{replace}-{k}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a file of the commit log: `<offset>-<number>` or `c<replace>-<number>`")]
pub struct NotAFileId;

impl FromStr for FileId {
    type Err = NotAFileId;

    fn from_str(text: &str) -> Result<Self, NotAFileId> {
        let (before, k) = text.rsplit_once('-').ok_or(NotAFileId)?;
        let k = k.parse().map_err(|_| NotAFileId)?;
        let id = match before.strip_prefix('c') {
            Some(replace) => Self::Replace { replace: replace.parse().map_err(|_| NotAFileId)?, k },
            None => Self::Batch { from: before.parse().map_err(|_| NotAFileId)?, k },
        };
        // One name, one spelling: `007-1` is none.
        if id.to_string() == text { Ok(id) } else { Err(NotAFileId) }
    }
}

impl From<FileId> for String {
    fn from(id: FileId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for FileId {
    type Error = NotAFileId;

    fn try_from(text: String) -> Result<Self, NotAFileId> {
        text.parse()
    }
}

/// The first operation of a commit log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    pub topic: String,
    pub partition: i32,
    /// Identity of the cluster or log file.
    pub log_id: String,
    /// Offset of the first record.
    pub start: i64,
    pub first: Witness,
}

/// Fixes a batch before any file of it is visible.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    pub from: i64,
    pub to: i64,
    pub recipe: Recipe,
    /// Begin of the oldest batch whose keys matter at `from`.
    pub window_from: i64,
    /// Log time (running maximum) after the last record.
    pub clock_ms: i64,
    pub first: Witness,
    pub last: Witness,
    /// Of each file, in sequence. None: all records are duplicates.
    pub folders: Vec<String>,
}

/// Every file of the intent, and its key run, are durable.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    pub from: i64,
    /// As `folders` of the intent.
    pub files: Vec<Stored>,
    /// Rows of a key run are its keys.
    pub keys: Stored,
    /// Records read, written and left out, and why. The core does not look into it.
    pub counts: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PassReason {
    /// An operator set the group's offset forward.
    Skipped,
    /// The log no longer held these offsets.
    Lost,
}

/// Which slot a replace takes: the two kinds do not wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    Compaction,
    Forget,
    Restore,
    Rewrite,
}

/// What the rows of the outputs are made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    Inputs,
    /// The inputs may be missing.
    Log,
}

/// Files of one folder.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InFolder {
    pub folder: String,
    pub files: Vec<FileId>,
}

/// An output before it is made: its rows are those of its scope in this folder with offsets in `[from, to)`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Planned {
    pub folder: String,
    pub from: i64,
    pub to: i64,
}

/// Inputs that are replaced together: none of the outputs becomes visible before all of the inputs are gone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Whole batches: from the begin of the first to the end of the last.
    pub from: i64,
    pub to: i64,
    pub inputs: Vec<InFolder>,
    pub outputs: Vec<Planned>,
}

impl Scope {
    /// Every input, with its folder.
    pub fn inputs(&self) -> impl Iterator<Item = (&str, FileId)> {
        self.inputs.iter().flat_map(|within| within.files.iter().map(|id| (within.folder.as_str(), *id)))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplaceIntent {
    pub replace: u64,
    pub reason: Reason,
    pub source: Source,
    pub recipe: Recipe,
    pub scopes: Vec<Scope>,
}

impl ReplaceIntent {
    /// Every output in sequence, with its name.
    pub fn outputs(&self) -> impl Iterator<Item = (FileId, &Planned)> {
        let outputs = self.scopes.iter().flat_map(|scope| &scope.outputs);
        (0u32..).zip(outputs).map(|(k, planned)| (FileId::Replace { replace: self.replace, k }, planned))
    }

    pub fn inputs(&self) -> impl Iterator<Item = (&str, FileId)> {
        self.scopes.iter().flat_map(Scope::inputs)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    Header(Header),
    Intent(Intent),
    Commit(Commit),
    /// Nothing of `[end, to)` is in the tables, and why.
    Pass(Pass),
    /// From here on the open batch is not committed. Its names are taken by files without rows.
    AbandonIntent(AbandonIntent),
    /// Nothing of the batch is visible, nor will be: `[from, resume_at)` is lost.
    Abandoned(Abandoned),
    ReplaceIntent(ReplaceIntent),
    /// Decides: the inputs do not count any more, the outputs do.
    ReplaceReady(ReplaceReady),
    ReplaceAbort(ReplaceEnd),
    /// Every output is visible under its name, no input is.
    ReplaceDone(ReplaceEnd),
    /// Key runs of batches that begin before `from` are deleted from here on.
    CollectKeys(CollectKeys),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectKeys {
    pub from: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pass {
    pub reason: PassReason,
    pub to: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AbandonIntent {
    pub from: i64,
    pub resume_at: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Abandoned {
    pub from: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplaceReady {
    pub replace: u64,
    /// What stands staged, in the order of the outputs.
    pub outputs: Vec<Stored>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplaceEnd {
    pub replace: u64,
}

impl Op {
    /// As it is written in an entry.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Header(_) => "header",
            Self::Intent(_) => "intent",
            Self::Commit(_) => "commit",
            Self::Pass(_) => "pass",
            Self::AbandonIntent(_) => "abandon_intent",
            Self::Abandoned(_) => "abandoned",
            Self::ReplaceIntent(_) => "replace_intent",
            Self::ReplaceReady(_) => "replace_ready",
            Self::ReplaceAbort(_) => "replace_abort",
            Self::ReplaceDone(_) => "replace_done",
            Self::CollectKeys(_) => "collect_keys",
        }
    }

    /// Whether files may count, be frozen or be replaced otherwise than before.
    pub fn is_of_a_replace(&self) -> bool {
        matches!(self, Self::ReplaceIntent(_) | Self::ReplaceReady(_) | Self::ReplaceAbort(_) | Self::ReplaceDone(_))
    }
}
