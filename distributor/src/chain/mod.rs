//! The chain of cuts of one log partition, as it stands in the store.

mod compact;
mod decide;
mod documents;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod json;
mod listing;
#[cfg(test)]
mod model;
mod rebuilding;
mod revisions;
mod salvage;
mod storage;
mod summary;

pub(crate) use compact::{CUTS_PER_SUMMARY, Compacted};
pub(crate) use decide::{Facts, Plan, Refusal, decide, gap_at};
pub(crate) use documents::{Completion, Cut, CutKind, DOCUMENT_VERSION, Damage, FileEntry, Origin, Salvage, Witness};
pub(crate) use listing::Part;
pub(crate) use revisions::{Revision, Revisions, Rewrite, Standing};
pub(crate) use storage::{ChainError, ChainStore, PutDocument};
