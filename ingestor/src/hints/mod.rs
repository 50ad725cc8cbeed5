//! Hints that a file may have appeared. They only make an ingestor look it up at once.
//!
//! The listing stays authoritative. A hint may come late, twice, for an incomplete file, or never. No file needs one to
//! be found, and a source of hints that fails never ends the role.

#[cfg(feature = "s3")]
pub mod sqs;
#[cfg(not(feature = "s3"))]
#[path = "without_sqs.rs"]
pub mod sqs;
pub mod watch;

use tokio::sync::oneshot;

/// A key that may hold a new file.
#[derive(Debug)]
pub struct Hint {
    /// Relative to the store's root, such as `pending/a.json`.
    pub key: String,
    /// For sources that deliver a hint again until an ingestor has taken it. Without an answer, the hint is delivered
    /// again later.
    pub answer: Option<oneshot::Sender<HintAnswer>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HintAnswer {
    /// The key belongs to this ingestor.
    Taken,
    /// The key belongs to another ingestor.
    NotOurs,
}
