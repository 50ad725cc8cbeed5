//! Landing files to events on the log, exactly once.
//!
//! The ledger, a compacted topic, says of each file version how far its events are committed. Its partitions are shared
//! by all ingestors of a landing zone as a consumer group ([`role`], [`crew`]). Whoever is assigned a partition *owns*
//! it ([`ownership`]): older owners are fenced, then the ledger is read to its end. A *lane* works for each owned partition: files
//! that *discovery* found become batches of events, dead letters and the ledger entry that covers them ([`file`]),
//! batches become transactions ([`transaction`]), and only after the commit a file is archived ([`archive`]). What was
//! no event is a dead letter, which may be published after all when the cause is mended ([`replay`]).

mod archive;
pub mod content;
mod crew;
mod discovery;
mod error;
mod file;
mod framing;
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

pub use archive::TAG;
pub use error::IngestError;
pub use framing::{Framed, Framer, FramingState, Limits};
pub use metrics::{IngestReport, Metrics};
pub use ownership::topic_specs;
pub use passed_over::{PassedOverCounts, Reason};
pub use problems::{Problem, Problems};
pub use replay::{DeadLetter, ReplayProgress, ReplayReport, ReplaySettings, replay};
pub use role::{HintSource, Ingestor, MARKER_KEY, archive_mode, read_marker};
pub use settings::{DiscoverySettings, IgnoredNames, Settings};
