//! Events on the log to partitioned Parquet in the trusted zone, exactly once.
//!
//! Each log partition has a commit log in the store ([`commitlog`], [`commitlog_storage`]). An intent fixes a batch `[from,
//! to)` with its layout before any of its files becomes visible. Files and key run follow, then the commit; the offset is
//! committed last. Every owner of a partition, also after a crash, relies on the commit log alone.
//!
//! The hot path (`role`, `worker`, `lane`, `owner` and what these use) imports nothing of maintenance (`abandon`, `audit`,
//! `compact`, `replace`, `replay`, `rewrite`, `standing`).

mod abandon;
mod again;
mod audit;
mod batch;
mod close;
mod compact;
mod companion;
mod context;
mod decode;
mod error;
mod fetch;
mod footer;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod host;
mod in_turn;
mod known;
mod lane;
mod layout;
mod lost;
mod metrics;
mod owner;
mod records;
mod refusals;
mod replace;
mod replay;
mod rewrite;
mod role;
mod route;
mod scratch;
#[cfg(test)]
mod simulation;
mod standing;
mod table;
mod target;
#[cfg(test)]
mod testing;
mod uploads;
mod watch;
mod watermark;
mod window;
mod worker;
mod written;

pub use abandon::{AbandonError, AbandonPlan, BatchAbandoner};
pub use audit::{Audit, AuditError, Auditor, Finding, FindingKind, OpenBatch, PartitionAudit, Repair};
pub use batch::Encoding;
pub use close::{CloseFacts, CloseLimits, CloseReason, close_reason};
pub use compact::{Background, CompactError, Compactor, Pace, PartitionCompaction, Policy};
pub use companion::Companion;
pub use host::Host;
pub use layout::{LAYOUT_VERSION, Layout};
pub use lost::{file_without_commit_logs, lost};
pub use metrics::{DistributeReport, Metrics};
pub use replace::Fence;
pub use replay::{PartitionReplay, Replayer};
pub use rewrite::{PartitionRewrite, Rewriter};
pub use role::{DistributeError, Distributor, EndOfInput, Settings, needed_rights};
pub use scratch::{Scratch, ScratchError};
pub use standing::{Standing, standing};
pub use table::{Published, Rebuilt, TableError, TablePublisher, Tables};
pub use target::{ReplayError, ReplayTarget};
