//! Landing files to events on the log, exactly once.
//!
//! The ledger, a compacted topic, records for each file version how far its events are committed. All ingestors of a
//! landing zone share its partitions as a consumer group ([`role`], [`crew`]). The assigned ingestor *owns* a partition
//! ([`ownership`]): it fences older owners, then reads the ledger to its end. A *lane* works for each owned partition.
//! Files that *discovery* found become batches of events, dead letters and the ledger entry that covers them
//! ([`file`]). Batches become transactions ([`transaction`]), and only after the commit a file is archived
//! ([`archive`]). An invalid record becomes a dead letter, which can be published later when the cause is corrected
//! ([`replay`]).

mod archive;
pub mod content;
mod crew;
mod discovery;
mod error;
mod file;
mod framing;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
pub mod hints;
mod identity;
mod lane;
mod ledger;
mod metrics;
mod ownership;
mod pace;
mod passed_over;
mod problems;
mod quarantine;
mod rate;
mod replay;
mod role;
mod routes;
mod settings;
mod transaction;
mod tries;
mod uncovered;
mod young;

pub use archive::TAG;
pub use error::IngestError;
pub use framing::{Framed, Framer, FramingState, Limits};
pub use metrics::{IngestReport, Metrics, Quarantined};
pub use ownership::{needed_rights, topic_specs};
pub use passed_over::{PassedOverCounts, Reason};
pub use problems::{Problem, Problems};
pub use replay::{DeadLetter, ReplayProgress, ReplayReport, ReplaySettings, replay};
pub use role::{HintSource, Ingestor, MARKER_KEY, archive_mode, read_marker};
pub use settings::{DiscoverySettings, IgnoredNames, Settings};
