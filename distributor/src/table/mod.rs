//! Delta tables over the files of the trusted zone: one with root `events/`, one with root `rejected/`.
//!
//! A reader of the folders sees a batch file by file, and misses rows while files are replaced. A reader of a table sees every batch
//! at once, and neither less nor more while files are replaced. The tables hold no data of their own: they name the files that the
//! commit logs say a reader should read ([`commitlog::Visible`]), and can be made anew from these at any time.
//!
//! # What holds
//!
//! 1. *Exactly once.* A commit of a table names, for each log partition, how many entries of its commit log it holds (`txn`), and is put
//!    if absent. The loser of a race reads the winner's commit and computes its own anew, so any number of publishers do no harm.
//! 2. *Never less, never more.* A replacer deletes its inputs only after a version of the table reads the outputs where they are
//!    staged, and what is staged only after one reads them under their names; each time `table.retain` later.
//! 3. *Nothing foreign is built upon.* A table that another program changed is not published to until it is rebuilt.
//!
//! | part | module |
//! |---|---|
//! | files of a commit log as actions of a table | `file` |
//! | the schema, of layouts | `schema` |
//! | what a commit log has to tell, entry by entry, or all at once | `follower` |
//! | one table, and its commits | `table` |
//! | publishing | `publisher` |
//! | publishing from time to time | `background` |
//! | comparing tables with commit logs, for the audit | `compare` |

mod background;
mod compare;
mod file;
mod follower;
mod publisher;
mod schema;
#[allow(clippy::module_inception, reason = "one table of the module's two")]
mod table;

use commitlog_storage::CommitLogError;
use common::store::StoreError;
use deltalog::{DeltaError, Foreign};

pub use background::TablePublisher;
pub(crate) use compare::compare;
pub use publisher::{Published, Tables};
pub use table::Rebuilt;

#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}; 'table rebuild' makes the table anew from the commit logs")]
    Delta(DeltaError),
    #[error(transparent)]
    CommitLog(#[from] CommitLogError),
    #[error(
        "{root}_delta_log: version {} was written by {} ({}), not by this program. Its changes are not in the commit logs: 'table \
         rebuild' undoes them in the table; files that it added below {root} are read twice by engines that list folders, and \
         'verify' names them",
        foreign.version, foreign.engine, foreign.operation
    )]
    Foreign { root: String, foreign: Foreign },
    #[error(
        "{root}_delta_log knows {known} entries of the commit log of partition {partition}, which has {entries}: if _commits was brought \
         back from a backup, run 'table rebuild'"
    )]
    Ahead { root: String, partition: i32, known: i64, entries: u64 },
    #[error("{0}")]
    Layout(String),
    #[error("{root}_delta_log: others write to it all the time; try again")]
    Busy { root: String },
}

impl From<DeltaError> for TableError {
    fn from(error: DeltaError) -> Self {
        match error {
            DeltaError::Store(error) => Self::Store(error),
            other => Self::Delta(other),
        }
    }
}

#[cfg(test)]
mod tests;
