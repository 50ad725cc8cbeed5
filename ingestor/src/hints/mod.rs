//! Hints that a file may have appeared: they make an ingestor look at once, and nothing more.
//!
//! The listing stays the truth. A hint may come late, twice, for a file that is not whole yet, or never; none is needed
//! for a file to be found, and a source of hints that fails never ends the role.

pub mod sqs;
pub mod watch;

use tokio::sync::oneshot;

/// A key that may hold a new file.
#[derive(Debug)]
pub struct Hint {
    /// Relative to the store's root, such as `pending/a.json`.
    pub key: String,
    /// For sources that deliver a hint again until somebody has taken it. Dropped without an answer, the hint comes
    /// again later.
    pub answer: Option<oneshot::Sender<HintAnswer>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HintAnswer {
    /// This ingestor looks after the key.
    Taken,
    /// The key belongs to another ingestor.
    NotOurs,
}
