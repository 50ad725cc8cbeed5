//! Decides how long to keep retrying.

use std::time::Duration;

use common::backoff::Backoff;
use tokio::time::Instant;

use crate::error::IngestError;
use crate::metrics::IngestReport;

const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// The measure of progress.
pub(crate) type Progress = (IngestReport, u64);

/// Waits grow while there is no progress. Without `once` retries are unlimited; with it, limited by the patience.
pub(crate) struct Tries {
    once: bool,
    patience: Duration,
    fresh: Backoff,
    backoff: Backoff,
    failing_since: Option<Instant>,
    progress: Option<Progress>,
}

impl Tries {
    pub(crate) fn new(once: bool, patience: Duration, seed: u64) -> Self {
        let fresh = Backoff::new(FIRST_WAIT, LONGEST_WAIT, seed);
        Self { once, patience, backoff: fresh.clone(), fresh, failing_since: None, progress: None }
    }

    /// The wait before the next attempt; `None` to give up.
    pub(crate) fn failed(&mut self, error: &IngestError, progress: Progress, now: Instant) -> Option<Duration> {
        if !error.is_retryable(self.once) {
            return None;
        }
        if self.progress.replace(progress).is_some_and(|before| before != progress) {
            self.failing_since = None;
            self.backoff = self.fresh.clone();
        }
        let since = *self.failing_since.get_or_insert(now);
        if self.once && now.duration_since(since) >= self.patience {
            return None;
        }
        Some(self.backoff.next_wait())
    }
}

#[cfg(test)]
mod tests {
    use common::log::{LogError, LogErrorKind};

    use super::*;

    fn failure(kind: LogErrorKind) -> IngestError {
        LogError::new(kind, "x").into()
    }

    #[test]
    fn once_gives_up_after_its_patience_without_progress() {
        let mut tries = Tries::new(true, Duration::from_secs(10), 1);
        let transient = failure(LogErrorKind::Transient);
        let begun = Instant::now();
        let mut failed = |bytes, seconds| {
            tries.failed(&transient, (IngestReport::default(), bytes), begun + Duration::from_secs(seconds)).is_some()
        };
        assert!(failed(0, 0));
        assert!(failed(0, 9));
        assert!(failed(1, 11), "it got on");
        assert!(failed(1, 20));
        assert!(!failed(1, 21));
    }

    #[test]
    fn a_service_retries_for_ever_except_errors_for_an_operator() {
        let mut tries = Tries::new(false, Duration::from_secs(10), 1);
        let progress = (IngestReport::default(), 0);
        let begun = Instant::now();
        for minute in 0..50 {
            let now = begun + Duration::from_secs(60 * minute);
            let wait = tries.failed(&failure(LogErrorKind::Fenced), progress, now).unwrap_or_default();
            assert!(wait > Duration::ZERO && wait <= LONGEST_WAIT);
        }
        assert!(tries.failed(&failure(LogErrorKind::Misconfigured), progress, begun).is_none());
    }
}
