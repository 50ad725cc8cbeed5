//! A damaged file causes an error that says what to do, never a panic.
//!
//! Records and positions have checksums of their own. redb verifies its pages only after a crash; otherwise it may
//! panic on an altered one. Such a panic is caught here and becomes the same error.

use std::fmt::Display;
use std::path::Path;

use super::file::FILE_NAME;
use crate::guard;
use crate::log::{LogError, LogErrorKind, Result};

/// The error for a file in `directory` that differs from what was written.
pub(super) fn damaged(directory: &Path, what: impl Display) -> LogError {
    LogError::new(
        LogErrorKind::Other,
        format!(
            "the embedded log {} is damaged: {what}. Nothing was changed. Bring the folder back from a backup; without \
             one the tables can be rebuilt from the landing files, see docs/guarantees.md",
            directory.join(FILE_NAME).display()
        ),
    )
}

/// Runs `work` on the file in `directory`.
pub(super) fn guarded<T>(directory: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    // Shared state is behind locks: redb's are poisoned and refuse from now on, the log's own protect data that is
    // always consistent.
    guard::catch(work).unwrap_or_else(|panic| Err(damaged(directory, panic)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_that_names_the_file_and_says_what_to_do() {
        let directory = Path::new("/data");
        let outcome = guarded(directory, || -> Result<()> {
            panic!("page 7 is odd");
        });
        let message = outcome.unwrap_err().to_string();
        assert!(message.contains("/data/log.redb is damaged: page 7 is odd. "), "{message}");
        assert!(message.contains("backup"), "{message}");
        assert_eq!(guarded(directory, || Ok(3)).unwrap(), 3);
    }
}
