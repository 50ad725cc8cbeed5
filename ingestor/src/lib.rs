//! Landing files to events on the log, exactly once.
//!
//! A *session* owns the ledger (fencing older sessions), reads it to its end, and then turns files into transactions:
//! events, DLQ records and the ledger entries of the files concerned are committed together, and only after that a
//! file is archived. Whatever goes wrong, the session ends and a new one starts from the ledger.

mod archive;
pub mod content;
mod framing;
pub mod hints;
mod ledger;
mod metrics;
mod publish;
mod role;
mod session;

pub use framing::{Framed, Framer, FramingState, Limits};
pub use metrics::{IngestReport, Metrics};
pub use role::{IngestError, Ingestor, MARKER_KEY, Settings, read_marker};
