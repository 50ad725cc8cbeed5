//! The log of a Delta table in a store, as far as a writer of whole files needs it.
//!
//! It follows the Delta transaction log protocol (<https://github.com/delta-io/delta/blob/master/PROTOCOL.md>), reader version 1
//! and writer version 2: no deletion vectors, no column mapping, no table features. Below the table's root:
//!
//! | Object | Put | Content |
//! |---|---|---|
//! | `_delta_log/<version, 20 digits>.json` | if absent | a commit: one action a line |
//! | `_delta_log/<version>.checkpoint.parquet` | replaces | every action that counts after that commit |
//! | `_delta_log/_last_checkpoint` | replaces | the version of the newest checkpoint: a hint |
//!
//! # What holds
//!
//! 1. *One order.* Commit n + 1 is put if absent by a writer that has read 0..n ([`DeltaLog::commit`]). A loser reads the
//!    winner's commit and computes its own anew.
//! 2. *Nothing is guessed.* A commit that is missing between others, or that cannot be read, is an error.
//! 3. *Foreign commits are noticed.* A commit of another engine that changes files, schema or protocol is reported by
//!    [`Snapshot::foreign`] until a commit of this program with operation [`REBUILD`] follows.
//! 4. *Memory is bounded by the changes since a checkpoint.* The files of a table are visited, not collected.

mod action;
mod checkpoint;
mod error;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod log;
mod path;
mod replay;
mod schema;
mod snapshot;

pub use action::{Action, Add, CommitInfo, Format, MetaData, Protocol, Remove, Txn};
pub use error::{DeltaError, Result};
pub use log::{Committed, DeltaLog};
pub use path::{decode_path, encode_path};
pub use replay::File;
pub use schema::{Field, Schema};
pub use snapshot::{Foreign, Snapshot};

/// Operation of a commit that makes the table what it has to be, whatever was in it.
pub const REBUILD: &str = "REBUILD";

/// `engineInfo` of every commit of this program begins like this.
pub const ENGINE: &str = "event-distributor/";

/// What a reader of the table must understand.
pub const READER_VERSION: i32 = 1;
/// What a writer of the table must understand.
pub const WRITER_VERSION: i32 = 2;
