//! What the machine gives to those who write to commit logs.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use commitlog_storage::Writer;
use common::clock::{BootClock, SystemClock};

#[derive(Clone)]
pub struct Host {
    /// Ages of proofs are measured by it.
    pub boot_clock: Arc<dyn BootClock>,
    /// Numbers that nobody else gets.
    pub random: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Host {
    pub fn system() -> Self {
        Self { boot_clock: Arc::new(SystemClock), random: Arc::new(|| RandomState::new().build_hasher().finish()) }
    }

    /// By its names an appender knows its own entries: random for each appender, and counted.
    pub(crate) fn writer(&self) -> Writer {
        let (who, mut entries) = ((self.random)(), 0_u64);
        Box::new(move || {
            entries += 1;
            format!("{who:016x}-{entries}")
        })
    }
}
