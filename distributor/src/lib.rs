//! Events on the log to partitioned Parquet in the trusted zone, exactly once.
//!
//! Each log partition has a chain of *cuts* in the store. A cut fixes a batch `[from, to)` with its layout before any
//! of its files becomes visible. Files, key run and completion follow; the offset is committed last. Every owner of a
//! partition, also after a crash, relies on the chain alone.

mod abandon;
mod again;
mod audit;
mod batch;
mod chain;
mod compaction;
mod decode;
mod footer;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod in_turn;
mod known;
mod lane;
mod layout;
mod metrics;
mod owner;
mod partition;
mod records;
mod refusals;
mod remake;
mod replay;
mod rewrite;
mod rewriting;
mod role;
mod route;
mod scratch;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod testing;
mod watch;
mod watermark;
mod window;
mod worker;
mod written;

pub use abandon::{AbandonError, AbandonPlan, BatchAbandoner};
pub use audit::{
    Audit, AuditError, Auditor, ChainRebuild, ChainRebuilder, Finding, FindingKind, OpenBatch, PartitionAudit,
    PartitionRebuild, Repair, UnfinishedRewrite,
};
pub use batch::Encoding;
pub use layout::{LAYOUT_VERSION, Layout};
pub use metrics::{DistributeReport, Metrics};
pub use replay::{PartitionReplay, ReplayError, ReplayTarget, Replayer};
pub use rewrite::{PartitionRewrite, Rewriter};
pub use rewriting::{CommitRewrite, CommitRewriter, Fence};
pub use role::{DistributeError, Distributor, EndOfInput, Record, Settings, needed_rights};
pub use scratch::{Scratch, ScratchError};
