//! The error of the blocking code: a kind and a text. The operation and the key are added at the seam.

use std::io;

use rustix::io::Errno;

use crate::store::{StoreError, StoreErrorKind};

#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub kind: StoreErrorKind,
    pub message: String,
    errno: Option<Errno>,
}

pub(super) type Outcome<T> = std::result::Result<T, Failure>;

impl Failure {
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), errno: None }
    }

    /// A failed system call; `step` describes the attempt in words.
    pub fn io(step: &str, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        Self { kind: kind_of(errno), message: format!("{step}: {error}"), errno }
    }

    /// The process or the machine lacks a resource: the same call on another file would fail, too.
    pub fn is_of_process(&self) -> bool {
        matches!(self.errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::INTR | Errno::AGAIN))
    }

    /// The process lacks the permission.
    pub fn is_denied(&self) -> bool {
        self.kind == StoreErrorKind::Denied
    }

    /// Adds the path below the root.
    pub fn at(self, path: &str) -> Self {
        Self { message: format!("{path}: {}", self.message), ..self }
    }

    pub fn into_error(self, operation: &'static str, key: &str) -> StoreError {
        StoreError::new(self.kind, operation, key, self.message)
    }
}

/// Converts a failed call into a [`Failure`]: `openat(…).map_err(while_trying("open the file"))`.
pub(super) fn while_trying<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Failure {
    move |error| Failure::io(&format!("cannot {step}"), error)
}

fn kind_of(errno: Option<Errno>) -> StoreErrorKind {
    match errno {
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => StoreErrorKind::Denied,
        // NAMETOOLONG and ILSEQ: the file system under the root permits fewer names than the rules for keys.
        Some(Errno::NAMETOOLONG | Errno::ILSEQ | Errno::NOTDIR | Errno::ISDIR | Errno::LOOP) => {
            StoreErrorKind::InvalidKey
        }
        // NOENT occurs here only while writing: a directory vanished concurrently, and the next attempt creates it
        // again.
        Some(
            Errno::NOENT
            | Errno::NOSPC
            | Errno::DQUOT
            | Errno::IO
            | Errno::TIMEDOUT
            | Errno::STALE
            | Errno::INTR
            | Errno::AGAIN
            | Errno::BUSY
            | Errno::MFILE
            | Errno::NFILE
            | Errno::NOMEM
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::CONNREFUSED
            | Errno::CONNRESET
            | Errno::NOTCONN,
        ) => StoreErrorKind::Transient,
        _ => StoreErrorKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_errors_are_retried_and_those_for_an_operator_are_marked() {
        use StoreErrorKind::{Denied, InvalidKey, Other, Transient};
        let cases = [
            (Errno::NOSPC, Transient),
            (Errno::DQUOT, Transient),
            (Errno::IO, Transient),
            (Errno::TIMEDOUT, Transient),
            (Errno::ACCESS, Denied),
            (Errno::ROFS, Denied),
            (Errno::NAMETOOLONG, InvalidKey),
            (Errno::INVAL, Other),
        ];
        for (errno, kind) in cases {
            let failure = Failure::io("cannot write", errno);
            assert_eq!(failure.kind, kind, "{}", failure.message);
        }
    }
}
