//! The fuzz targets. The documentation of each function says what it checks.

use common::guard::panic_is_caught;
use rustix::io;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Code that reads untrusted bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Also the name of its corpus and its dictionary.
    pub name: &'static str,
    /// Panics if a guarantee is broken for these bytes.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 15] = [
    Target { name: "archive_names", run: ingestor::fuzz::archive_names },
    Target { name: "chunk", run: common::fuzz::chunk },
    Target { name: "commit_log", run: commitlog::fuzz::object },
    Target { name: "content", run: ingestor::fuzz::content },
    Target { name: "delta", run: deltalog::fuzz::delta },
    Target { name: "event", run: common::fuzz::event },
    Target { name: "folder", run: distributor::fuzz::folder },
    Target { name: "footer", run: distributor::fuzz::footer },
    Target { name: "framing", run: ingestor::fuzz::framing },
    Target { name: "json", run: common::fuzz::json },
    Target { name: "key_run", run: distributor::fuzz::key_run },
    Target { name: "ledger", run: ingestor::fuzz::ledger },
    Target { name: "pages", run: distributor::fuzz::pages },
    Target { name: "queue_message", run: ingestor::fuzz::queue_message },
    Target { name: "timestamp", run: common::fuzz::timestamp },
];

/// Address space of the process: far more than a target needs, far less than a hostile length field can request.
const MEMORY_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// After this call an allocation of a size that a hostile length field requests ends the process.
///
/// # Errors
/// The system's.
pub fn limit_memory() -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::As);
    setrlimit(Resource::As, Rlimit { current: Some(MEMORY_BYTES), maximum })
}

/// After this call a panic that the program catches, and reports as a damaged file, is no finding and prints nothing.
pub fn silence_caught_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic_is_caught() {
            report(panic);
        }
    }));
}
