//! Merges small files into few large ones, over the commit log, while distributors run.
//!
//! A compaction is one or more replaces of reason compaction, made from their inputs (see [`commitlog::Replacer`], which
//! decides every step, and [`commitlog_storage::replacing`], which asks this module for the work with files).
//!
//! # What holds
//!
//! 1. *No row is visible twice, and none is lost.* As of every replace: outputs are durable and examined before their inputs
//!    are deleted, and visible only after that. In between the rows of a merged file are missing from the folder.
//! 2. *A merged file has the rows of its inputs, in the order of their offsets.* The bytes of every input are compared with its
//!    entry first: an altered file is not merged, nor is one that is missing.
//! 3. *The same inputs make the same bytes*, under one build and encoding: whoever goes on with a compaction that was
//!    interrupted makes the same outputs.
//! 4. *A crash leaves nothing to be cleared by hand.* The next run goes on with what is under way.
//!
//! | step | module |
//! |---|---|
//! | which files, a pure function of sizes and age | `policy` |
//! | files of the commit log that can be merged, and scopes | `choice` |
//! | an output from its inputs | `merge` |
//! | what merging may take of a process | `pace` |
//! | rounds beside owners | `background` |
//! | what a compaction comes to, and its run | `run` |

mod background;
mod choice;
mod merge;
mod pace;
mod policy;
mod run;

use std::sync::Arc;

use common::log::Log;
use common::store::Store;

use crate::batch::Encoding;
use crate::host::Host;
use crate::replace::{Carrier, Fence, Ground};
use crate::scratch::Scratch;
use crate::table::Tables;

pub use background::Background;
pub use pace::Pace;
pub use policy::Policy;
pub use run::{CompactError, PartitionCompaction};

pub struct Compactor {
    pub store: Arc<dyn Store>,
    /// Needed with [`Fence::Offline`] only.
    pub log: Option<Arc<dyn Log>>,
    pub host: Host,
    pub topic: String,
    pub group: String,
    /// Of merged files.
    pub encoding: Encoding,
    pub policy: Policy,
    /// The time now, Unix milliseconds, by which folders have rested.
    pub now_ms: i64,
    pub scratch: Scratch,
    /// Tables over the files. They are published before a file is deleted.
    pub tables: Option<Arc<Tables>>,
    pub fence: Fence,
    /// Ends a decided compaction also if an output of it is lost for good. That file stays missing, until it is restored from the
    /// log.
    pub accepts_lost: bool,
    /// Batches whose log time ends before it, Unix milliseconds, are left alone, and their part of the commit log is not
    /// read. `None`: there are none such.
    pub since_ms: Option<i64>,
    pub pace: Pace,
    /// Called after each file that was made, with how many there were so far.
    pub on_file: Box<dyn Fn(u64) + Send + Sync>,
}

impl Compactor {
    fn carrier(&self, partition: i32) -> Carrier {
        let ground = Ground {
            store: &self.store,
            log: self.log.as_ref(),
            host: &self.host,
            topic: &self.topic,
            group: &self.group,
            fence: self.fence,
            scratch: &self.scratch,
            tables: self.tables.as_ref(),
        };
        Carrier::new(&ground, partition)
    }
}

#[cfg(test)]
mod tests;
