//! `replay --rewrite`: making complete batches again under the settings of today.
//!
//! A batch keeps its boundaries, and its cut, completion and key run stay as they are. What is made again is a
//! *revision* r = 1, 2, … of it: files of other names, and a document that lists them and those they replace.
//!
//! # Protocol, for each partition
//!
//! | # | step | object |
//! |---|---|---|
//! | 1 | say that the partition is being rewritten, and to what | `rewrite.json`, if absent |
//! | 2 | see that the group has no members | |
//! | 3 | for each batch, upwards: make it from the log and stage its files | `staged/<id>/<path>`, if absent |
//! | 4 | its keys, if events are read by other rules now | `revision-keys/<n>-<r>-<id>.run`, if absent |
//! | 5 | **decide**: from here on the revision stands | `revisions/<n>-<r>.json`, if absent |
//! | 6 | remove the files it replaces | all that the document before lists |
//! | 7 | move its files to where engines see them | `<path>` has `-r<r>-` in its name |
//! | 8 | after the last batch: clear what is staged, and say that it is finished | `rewrite.json` is deleted |
//!
//! # What holds
//!
//! 1. *No row stands twice.* Old files are removed (6) before new ones are visible (7). In between the rows of one batch
//!    are missing from the tables, for the time of some deletes and renames; a query that runs then misses them, as it
//!    would before they had come. The other order would count them twice, which no reader can tell from truth.
//! 2. *No row is lost.* Nothing is removed (6) before all that replaces it is durable (3 to 5); staged files need no
//!    log any more. After that, steps 6 and 7 can only be repeated to their end.
//! 3. *One revision at a time.* Steps 3 to 7 of a batch are done before those of the next are begun, so that at most
//!    the newest revision of a rewrite is half settled. Whoever goes on with the rewrite settles that one first.
//! 4. *One window.* Keys depend on how events are read (rules, time zone). Once a rewrite has given a batch other keys,
//!    all later batches are made again, to the chain's end: they were deduplicated against the former ones. Before the
//!    end no batch is made by anyone else. A changed window changes no keys, only what is looked for in them.
//! 5. *Nobody else is at work.* A distributor asks for `rewrite.json` when it takes a partition, and refuses; it is
//!    a member of the group before it asks, and we look for members after putting it: one of the two sees the other.
//!    So it is with a chain that is being made again, which `rebuild.json` tells of.
//!
//! # Crashes
//!
//! After 1: nothing has changed, but distributors refuse; the next `replay --rewrite` goes on or gives it up for another
//! one. After 3 or 4: staged files that nobody sees; they are known again, or cleared in step 8. After 5 or 6: the
//! batch's old files are partly there or gone, its new ones wait; the next run settles it. After 7: the next batch
//! follows. Within 8: there is nothing left to do but this. `verify` tells of an unfinished rewrite, and finds no fault
//! with what that has yet to do; what is left over without one is an orphan, and `verify --repair` removes it.
//!
//! # Several at once
//!
//! A second run with the same settings works on the same rewrite: it makes the same files, and each step happens once,
//! whoever takes it. One with other settings takes the rewrite's place, if it begins no later, and makes everything
//! from there again; the first one notices before its next step 5, and stops. Should it decide at that very moment, its
//! revision is a whole one too: the second loses the race for the number, and stops; or it comes upon it, and settles
//! it before replacing it.
//!
//! A distributor that its group has given up, and that does not know it, may be making missing files of an older revision
//! again: after putting them it looks for a newer one, and takes them away again. If it dies right then, or a request
//! of it is delayed past step 6, a file of the older revision is left. The same holds for a run that is stopped between
//! its look and step 7 of a batch until not only its rewrite but the next one has passed that batch. No store can keep
//! either from happening; `verify` finds such files (`file-orphaned`), and `--repair` removes them.
//!
//! # Proof
//!
//! A deep `verify` makes each batch again under the layout of its newest revision, from the key runs that stand, and
//! compares the rows; lists all files, of which there may be none that no newest revision or completion lists; and
//! finds no key twice within the window.
//!
//! # Readers of the chain
//!
//! A batch's newest revision stands for it: its layout, encoding and names for making files again, its files for walks,
//! previews and audits, its key run for windows. They are found by listing `revisions/`, which is empty in most
//! partitions: one request for each 64 cuts of a window that is rebuilt, and one for a walk. Beside that a take-over
//! reads `rewrite.json`.
//!
//! A revision whose document is lost is made again by `verify --rebuild-chain`, once no rewrite is under way: its files are
//! visible only after it was decided and what it replaced was removed, so that the highest number among them stands.

mod judge;
mod pass;
mod plan;
mod settle;

use crate::batch::{BatchError, Encoding};
use crate::layout::Layout;
use crate::partition::PartitionError;
use crate::remake::RemakeError;
use crate::replay::{ReplayError, Replayer};
use crate::scratch::Scratch;

pub use plan::PartitionRewrite;

pub struct Rewriter {
    pub replayer: Replayer,
    /// What batches are to be like.
    pub layout: Layout,
    pub encoding: Encoding,
    /// Memory of a deduplication window, bytes, and where its keys go when that does not suffice.
    pub window_memory: u64,
    /// Memory of a batch that is made again, bytes. What exceeds it goes to `scratch`.
    pub batch_memory: u64,
    pub scratch: Scratch,
    /// Also batches that are like that already.
    pub all: bool,
    /// Refuse when the log does not hold all that would be made again.
    pub require_all: bool,
    /// Unix milliseconds. Names a rewrite that is begun.
    pub now_ms: i64,
    /// Called after each batch that was looked at, with how many there were so far.
    pub on_batch: Box<dyn Fn(u64) + Send + Sync>,
}

impl From<PartitionError> for ReplayError {
    fn from(error: PartitionError) -> Self {
        match error {
            PartitionError::Store(error) => Self::Store(error),
            PartitionError::Log(error) => Self::Log(error),
            other @ (PartitionError::Refused(_)
            | PartitionError::Damaged { .. }
            | PartitionError::Encode(_)
            | PartitionError::Unwritable(_)
            | PartitionError::Scratch(_)
            | PartitionError::Internal(_)
            | PartitionError::Partitions(_)) => Self::Refused(other.to_string()),
        }
    }
}

impl From<BatchError> for ReplayError {
    fn from(error: BatchError) -> Self {
        Self::Refused(error.to_string())
    }
}

impl From<RemakeError> for ReplayError {
    fn from(error: RemakeError) -> Self {
        match error {
            RemakeError::Log(error) => Self::Log(error),
            RemakeError::Layout(message) => Self::Refused(message),
            RemakeError::Batch(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests;
