//! What a worker and the tasks of its partitions say to each other.
//!
//! A lane ([`crate::owner`]) receives orders in sequence and reports to its worker, and neither waits for the other. If a lane
//! has no room for an order, the order is delivered later, and reading of the partition is paused meanwhile. Dropping a lane
//! at any point leaves the same state as a crash.

mod handle;
mod state;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::log::{Bounds, Chunk, Log, LogError, LogErrorKind};
use common::store::Store;
use tokio::sync::{Notify, mpsc, watch};

use crate::context::Context;
use crate::error::PartitionError;

pub(crate) use handle::{LaneHandle, ORDERS_IN_FLIGHT};
pub(crate) use state::{LaneState, Observed};

/// The end of the work.
#[derive(Debug)]
pub(crate) struct Target {
    /// The time of the request, Unix milliseconds.
    pub asked_ms: i64,
    pub bounds: BTreeMap<i32, Bounds>,
}

pub(crate) type Targets = Arc<Target>;

/// An order of the worker to a lane.
#[derive(Debug)]
pub(crate) enum Order {
    Chunk(Chunk),
    /// The log had no more records; whether the end of input was announced by then.
    EndReached {
        announced: bool,
    },
    /// Reading begins where the lane last requested. Everything before is dropped.
    Restarted,
    /// The log cannot be read further.
    Unreadable(LogError),
}

/// A report of a lane to the worker.
#[derive(Debug)]
pub(crate) enum Report {
    /// Read from this offset on; chunks are dropped until [`Order::Restarted`].
    Start(i64),
    /// Everything below this offset is complete.
    Commit(i64),
    /// A batch is flushed, or all is done.
    Progress,
    Failed(PartitionError),
}

/// The state shared by all lanes of a worker.
#[derive(Clone)]
pub(crate) struct Shared {
    pub context: Arc<Context>,
    pub log: Arc<dyn Log>,
    /// The store without retries, for calls that may fail.
    pub plain_store: Arc<dyn Store>,
    pub targets: watch::Receiver<Option<Targets>>,
    /// By partition and generation: reports of an earlier lane are ignored.
    pub reports: mpsc::UnboundedSender<(i32, u64, Report)>,
    /// Notified when a lane has taken an order, or has ended.
    pub room: Arc<Notify>,
}

impl Shared {
    /// The group's offset of a partition, and the bounds of its log.
    pub(crate) async fn ask_log(&self, id: i32) -> Result<(Option<i64>, Bounds), PartitionError> {
        let Self { log, context, .. } = self;
        let committed = log.committed(&context.group, &context.topic).await?.get(&id).copied();
        let bounds = log.bounds(&context.topic).await?.get(&id).copied();
        let bounds = bounds.ok_or_else(|| {
            LogError::new(LogErrorKind::NotAssigned, format!("{}/{id} does not exist", context.topic))
        })?;
        Ok((committed, bounds))
    }
}
