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

/// As [`damaged`], of the records of one partition. Those of others can still be read.
pub(super) fn unreadable(directory: &Path, what: impl Display) -> LogError {
    LogError { kind: LogErrorKind::Corrupt, ..damaged(directory, what) }
}

/// Every error of the file names it.
fn named(directory: &Path, error: LogError) -> LogError {
    let is_of_the_file = error.kind == LogErrorKind::Other;
    if !is_of_the_file || error.message.contains(&directory.display().to_string()) {
        return error;
    }
    let file = directory.join(FILE_NAME);
    LogError { message: format!("embedded log {}: {}", file.display(), error.message), ..error }
}

/// Runs `work` on the file in `directory`.
pub(super) fn guarded<T>(directory: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    // Shared state is behind locks: redb's are poisoned and refuse from now on, the log's own protect data that is
    // always consistent.
    // The text of a panic is one of redb's assertions, which means nothing to an operator.
    let outcome =
        guard::catch(work).unwrap_or_else(|_| Err(damaged(directory, "its pages are not as they were written")));
    outcome.map_err(|error| named(directory, error))
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
        assert!(message.contains("/data/log.redb is damaged: its pages are not as they were written. "), "{message}");
        assert!(message.contains("backup"), "{message}");
        assert_eq!(guarded(directory, || Ok(3)).unwrap(), 3);
    }

    #[test]
    fn an_error_of_the_file_names_it_once() {
        let message = |kind, text: &str| {
            let error = LogError::new(kind, text);
            guarded(Path::new("/data"), || Err::<(), _>(error)).unwrap_err().message
        };
        assert_eq!(
            message(LogErrorKind::Other, "write end: no space"),
            "embedded log /data/log.redb: write end: no space"
        );
        assert_eq!(message(LogErrorKind::Other, "embedded log in /data: no"), "embedded log in /data: no");
        assert_eq!(message(LogErrorKind::Fenced, "taken over"), "taken over");
    }
}
