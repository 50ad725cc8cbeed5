//! The reasons why the ingestor cannot continue.

use common::log::{LogError, LogErrorKind};
use common::store::{StoreError, StoreErrorKind};

use crate::problems::Problems;

#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("landing zone: {0}")]
    Store(StoreError),
    /// The landing zone's marker file is invalid, or asks for an archive mode that its store does not support.
    #[error("landing zone: {0}")]
    Marker(String),
    /// The store does not support the configured archive mode.
    #[error("landing zone: {0}")]
    Unsupported(String),
    /// With `once`: everything else is done, except these.
    #[error("{0}")]
    Incomplete(Problems),
    /// With `once`: no ledger partition was assigned to this ingestor.
    #[error(
        "no ledger partition was assigned to this ingestor: others share all of them; stop one, or wait until the session of \
         one that was killed has timed out (kafka.instance_id makes a restart take over at once)"
    )]
    NothingAssigned,
}

impl From<StoreError> for IngestError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl IngestError {
    /// Whether owning the partition again may succeed without an operator's action.
    pub(crate) fn is_retryable(&self, once: bool) -> bool {
        match self {
            // A person waits for `--once`, and the records stay unreadable.
            Self::Log(error) if error.kind == LogErrorKind::Corrupt => !once,
            // A fence means another owner, or a coordinator that gave up on a slow transaction. The group decides which
            // of the two owns the partition, so it is owned again as long as it is assigned.
            Self::Log(error) => matches!(
                error.kind,
                LogErrorKind::Transient
                    | LogErrorKind::MustAbort
                    | LogErrorKind::UnknownOutcome
                    | LogErrorKind::Fenced
                    | LogErrorKind::NotAssigned
            ),
            // Likewise an error that only an operator can correct.
            Self::Store(error) if once => error.kind == StoreErrorKind::Transient,
            Self::Store(error) => error.is_retryable(),
            // It can be corrected in the landing zone while a service runs.
            Self::Marker(_) => !once,
            Self::Unsupported(_) | Self::Incomplete(_) | Self::NothingAssigned => false,
        }
    }

    /// A task of this process panicked or was cancelled: a bug.
    pub(crate) fn task(error: &tokio::task::JoinError) -> Self {
        Self::Log(LogError::new(LogErrorKind::Other, format!("a task of the ingestor failed: {error}")))
    }
}
