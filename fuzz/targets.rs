//! The fuzz targets. What each of them checks is said where its oracle stands.

use rustix::io;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Code that reads what others wrote.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Of its corpus, and its dictionary, too.
    pub name: &'static str,
    /// Panics if the code does with these bytes what it must not do.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 13] = [
    Target { name: "archive_names", run: ingestor::fuzz::archive_names },
    Target { name: "chunk", run: common::fuzz::chunk },
    Target { name: "content", run: ingestor::fuzz::content },
    Target { name: "document", run: distributor::fuzz::document },
    Target { name: "event", run: common::fuzz::event },
    Target { name: "folder", run: distributor::fuzz::folder },
    Target { name: "footer", run: distributor::fuzz::footer },
    Target { name: "framing", run: ingestor::fuzz::framing },
    Target { name: "json", run: common::fuzz::json },
    Target { name: "key_run", run: distributor::fuzz::key_run },
    Target { name: "ledger", run: ingestor::fuzz::ledger },
    Target { name: "queue_message", run: ingestor::fuzz::queue_message },
    Target { name: "timestamp", run: common::fuzz::timestamp },
];

/// Of the whole process: far more than any target may need, far less than a length in hostile bytes can ask for.
const MEMORY_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// From here on a target that takes the length in its input at its word ends the process.
///
/// # Errors
/// The system's.
pub fn limit_memory() -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::As);
    setrlimit(Resource::As, Rlimit { current: Some(MEMORY_BYTES), maximum })
}
