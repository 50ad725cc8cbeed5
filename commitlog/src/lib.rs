//! The commit log of one log partition: its entries, and every decision about them, without I/O.
//!
//! State is a fold of entries ([`State`], [`Head`]). Entry `n + 1` is put if absent by somebody who has folded those up to
//! `n`, so there is one order, and whether an entry is valid depends on the state before it alone. Actors ([`Owner`],
//! [`Replacer`], [`Abandoner`], [`Collector`]) say what they want done and take the answer: the driver, the exhaustive
//! model and the simulation run the same code.
//!
//! # Invariants
//!
//! 1. One order: the state is the fold of the entries.
//! 2. No row is visible twice, at any moment, to who lists the folders.
//! 3. No row is lost: a file goes only after a `ReplaceReady` says that durable objects hold all of its rows.
//! 4. A name belongs to one entry, and is never used again. So deletes may come late, twice, and from anybody.
//! 5. What counts has its hash in the entry that made it count, and every entry has the hash of the one before it.
//! 6. Committed offsets are a wish and a lag figure. The commit log is the truth.
//!
//! # What the store has to give
//!
//! * Linearizable put-if-absent, reads and listings.
//! * The fence: every put that makes rows visible rests on a proof of the tail (its [`actor::Anchor`]), and once
//!   [`actor::Action::AwaitFence`] is answered, none that rests on fewer entries is accepted or becomes visible.
//!
//! # Holes
//!
//! Old entries are deleted ([`Collector`]). Who slept since before that finds their numbers free: a put fills a hole, a
//! read takes it for the tail. The floor says below which number this can be, and is raised before anything is deleted;
//! it is read after each append, won or lost, and after each proof of the tail.

mod abandoner;
pub mod actor;
mod checkpoint;
mod collector;
pub mod decide;
mod entry;
mod files;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod hash;
mod head;
#[cfg(test)]
mod model;
mod op;
mod owner;
mod replacer;
pub mod rules;
mod segment;
mod sum;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod visible;

pub use abandoner::Abandoner;
pub use checkpoint::{CHECKPOINT_VERSION, Checkpoint, CheckpointError, Places, Split};
pub use collector::Collector;
pub use entry::{ENTRY_VERSION, Entry, EntryError, MAX_ENTRY_BYTES, MAX_OPS, Sealed};
pub use files::{Batch, Blanks, Fate, LiveFile, Span, State};
pub use hash::{Hash, Hasher, NotAHash};
pub use head::{BatchSlot, Head, Invalid, Replace, ReplaceSlot, Stage};
pub use op::{
    AbandonIntent, Abandoned, Bounds, CollectKeys, Commit, FileId, Header, InFolder, Intent, NotAFileId, Op, Pass,
    PassReason, Planned, Reason, Recipe, ReplaceEnd, ReplaceIntent, ReplaceReady, Scope, Source, Stored, Witness,
};
pub use owner::Owner;
pub use replacer::Replacer;
pub use segment::{Segment, SegmentRef};
pub use sum::{SumError, with_sum, without_sum};
pub use visible::{Change, Changes, Visible};
