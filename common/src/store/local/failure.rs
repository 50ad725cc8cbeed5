//! What the blocking code answers: a kind and a text. The operation and the key are added where it returns to the seam.

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

    /// A failed system call; `step` says in words what was tried.
    pub fn io(step: &str, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        Self { kind: kind_of(errno), message: format!("{step}: {error}"), errno }
    }

    /// The process or the machine lacks something: the same call elsewhere would fail, too.
    pub fn is_of_process(&self) -> bool {
        matches!(self.errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::INTR | Errno::AGAIN))
    }

    /// Whoever runs us may not do that.
    pub fn is_denied(&self) -> bool {
        self.kind == StoreErrorKind::Denied
    }

    /// Says where below the root it happened.
    pub fn at(self, path: &str) -> Self {
        Self { message: format!("{path}: {}", self.message), ..self }
    }

    pub fn into_error(self, operation: &'static str, key: &str) -> StoreError {
        StoreError::new(self.kind, operation, key, self.message)
    }
}

/// Turns a failed call into a [`Failure`]: `openat(…).map_err(while_trying("open the file"))`.
pub(super) fn while_trying<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Failure {
    move |error| Failure::io(&format!("cannot {step}"), error)
}

fn kind_of(errno: Option<Errno>) -> StoreErrorKind {
    match errno {
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => StoreErrorKind::Denied,
        // NAMETOOLONG and ILSEQ: the file system under the root is narrower than the rules for keys.
        Some(Errno::NAMETOOLONG | Errno::ILSEQ | Errno::NOTDIR | Errno::ISDIR | Errno::LOOP) => {
            StoreErrorKind::InvalidKey
        }
        // NOENT reaches this only while writing: a directory vanished under our hands, the next try makes it again.
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
    fn what_may_pass_is_tried_again_and_what_an_operator_has_to_mend_is_said_to_be_so() {
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
