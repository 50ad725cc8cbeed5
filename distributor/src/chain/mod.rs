//! The chain of cuts of one log partition, as it stands in the store.

mod decide;
mod documents;
mod listing;
mod storage;

pub(crate) use decide::{Facts, Plan, Refusal, decide, gap_at};
pub(crate) use documents::{Completion, Cut, CutKind, DOCUMENT_VERSION, FileEntry, Origin, Witness};
pub(crate) use listing::Part;
pub(crate) use storage::{ChainError, ChainStore, PutDocument};
