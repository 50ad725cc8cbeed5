//! The chain of cuts of one log partition, as it stands in the store.

mod decide;
mod documents;
#[cfg(test)]
mod model;
mod revisions;
mod storage;

pub(crate) use decide::{Facts, Plan, Refusal, decide, gap_at};
pub(crate) use documents::{Completion, Cut, CutKind, FileEntry, Origin, Witness};
pub(crate) use revisions::{Revision, Revisions, Rewrite, Standing};
pub(crate) use storage::{ChainError, ChainStore, PutDocument};
