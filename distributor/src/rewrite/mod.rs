//! Writes committed batches again under the settings of today, over the commit log.
//!
//! A rewrite is one or more replaces of reason rewrite, made from the log (see [`commitlog::Replacer`], which decides every
//! step, and [`commitlog_storage::replacing`], which asks this module for the work with files).
//!
//! # What holds
//!
//! 1. *No row is visible twice.* The inputs of a scope are deleted before its outputs are published. In between its rows are
//!    missing from the tables, for the time of some deletes and copies.
//! 2. *No row is lost.* Nothing is deleted before every output of the replace is staged and the commit log says so.
//! 3. *Batches keep their records and their duplicates.* An output holds rows of one batch. A layout with other keys or
//!    another window would make other rows duplicates, in later batches too: it is refused.
//! 4. *A crash leaves nothing to be cleared by hand.* The next run goes on with what is under way, by the recipe in the
//!    commit log, whatever its own settings are; then it rewrites what still differs.
//!
//! # Steps of one replace
//!
//! | step | module | object |
//! |---|---|---|
//! | choose scopes, each a run of whole batches, and plan their outputs by making the batches once | `choice`, `judge`, `groups` | |
//! | make the batches again, and stage their files | `outputs` | `staged/<replace>-<k>.parquet`, if absent |
//! | wait until no put of an input can come late any more; examine outputs, delete inputs, publish outputs, drop what is staged | `crate::replace` | the data files |
//!
//! A file of a replace that was lost is made again alone, while the other files of its batches stay: a replace of reason
//! restore (`mend`).
//!
//! # Example
//!
//! Batches 0..20 and 20..40 have two files each. Under `max_rows_per_file = 5` each makes four. The replace has two scopes
//! of two inputs and four outputs: `<topic>-<partition>-c<replace>-0` to `-7`.

mod choice;
mod differences;
mod files;
mod groups;
mod judge;
mod mend;
mod outputs;
mod plan;
mod run;

use std::sync::Arc;

use common::log::Log;
use common::store::Store;

use crate::batch::Encoding;
use crate::error::PartitionError;
use crate::host::Host;
use crate::layout::Layout;
use crate::replace::{Carrier, Fence, Ground};
use crate::scratch::Scratch;
use crate::table::Tables;

pub(crate) use differences::{differences, encoding_words};
pub use plan::PartitionRewrite;

pub struct Rewriter {
    pub store: Arc<dyn Store>,
    pub log: Arc<dyn Log>,
    pub host: Host,
    pub topic: String,
    pub group: String,
    /// What batches are to be like.
    pub layout: Layout,
    pub encoding: Encoding,
    /// Memory of the deduplication window, bytes, and where its keys go when that does not suffice.
    pub window_memory: u64,
    /// Memory of a batch that is made again, bytes. What exceeds it goes to `scratch`.
    pub batch_memory: u64,
    pub scratch: Scratch,
    /// Tables over the files. They are published before a file is deleted.
    pub tables: Option<Arc<Tables>>,
    /// Also batches that are like that already.
    pub all: bool,
    /// Outputs of replaces that were lost are made again.
    pub restores: bool,
    /// Refuse when the log does not hold all that would be made again.
    pub require_all: bool,
    /// Ends a decided replace also if an output of it is lost and the log no longer has its records.
    pub accepts_lost: bool,
    pub fence: Fence,
    /// Called after each batch that was looked at or made, with how many there were so far.
    pub on_batch: Box<dyn Fn(u64) + Send + Sync>,
}

impl Rewriter {
    fn carrier(&self, partition: i32) -> Carrier {
        let ground = Ground {
            store: &self.store,
            log: Some(&self.log),
            host: &self.host,
            topic: &self.topic,
            group: &self.group,
            fence: self.fence,
            scratch: &self.scratch,
            tables: self.tables.as_ref(),
        };
        Carrier::new(&ground, partition)
    }

    fn refusal(&self, partition: i32, message: impl std::fmt::Display) -> PartitionError {
        crate::refusals::text(&self.topic, partition, &message.to_string())
    }
}

#[cfg(test)]
mod tests;
