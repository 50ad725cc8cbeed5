//! A descriptor in reserve: a process whose roles have used up all others still accepts a connection.
//!
//! Without descriptors `accept` fails, and waiting connections are neither answered nor refused. The reserve is then
//! released for the next connection, and taken again when that one has ended.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

/// Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Reserve(Arc<Mutex<Option<File>>>);

impl Reserve {
    pub(super) fn new() -> Self {
        let reserve = Self(Arc::default());
        reserve.fill();
        reserve
    }

    /// Takes a descriptor, unless one is held. Without a free one the next call tries again.
    pub(super) fn fill(&self) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_none() {
            *held = File::open("/dev/null").ok();
        }
    }

    /// Whether there was one.
    pub(super) fn release(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }
}

/// No descriptor is free, of the process (`EMFILE`) or of the system (`ENFILE`).
pub(super) fn is_out_of_descriptors(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let codes = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}
