//! Interprets a failure of a transactional producer: a pure function of librdkafka's error.
//!
//! librdkafka distinguishes fatal errors (the client instance is finished), abortable ones (the transaction is) and
//! retriable ones (KIP-360, KIP-588, KIP-691). Some of them mean that another owner exists, others only that this
//! instance cannot continue. That decides whether a role ends or takes its id over again.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::KafkaSettings;
use super::client::{explain, kind_of};
use crate::log::{LogError, LogErrorKind};

/// The operation that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Own,
    Begin,
    Append,
    Commit,
    Abort,
}

pub(super) struct Failure<'a> {
    pub step: Step,
    pub error: &'a KafkaError,
    /// The error that ended the client instance, if any.
    pub fatal: Option<(RDKafkaErrorCode, String)>,
    /// The transaction has been open so long that the coordinator may have ended it. That looks like fencing, because
    /// it raises the epoch.
    pub may_have_timed_out: bool,
}

impl Failure<'_> {
    pub(super) fn explain(&self, settings: &KafkaSettings, doing: &str) -> LogError {
        let mut explained = explain(settings, doing, self.error);
        if let Some((_, reason)) = &self.fatal {
            explained.message = format!("{}: {reason}", explained.message);
        }
        explained.kind = self.kind(explained.kind);
        explained
    }

    /// `general` is the meaning of the error for any client.
    fn kind(&self, general: LogErrorKind) -> LogErrorKind {
        if let Some((code, _)) = &self.fatal {
            if self.step == Step::Own && kind_of(*code) == LogErrorKind::Misconfigured {
                return LogErrorKind::Misconfigured;
            }
            return if is_fence(*code) && !self.may_have_timed_out {
                LogErrorKind::Fenced
            } else {
                // The instance is finished; a new one that owns the id determines the outcome.
                LogErrorKind::UnknownOutcome
            };
        }
        if matches!(self.error, KafkaError::Transaction(inner) if inner.txn_requires_abort()) {
            return LogErrorKind::MustAbort;
        }
        match (self.step, general) {
            (_, LogErrorKind::Misconfigured | LogErrorKind::BadRecord) => general,
            // Another owner took the id at the same time.
            (Step::Own, LogErrorKind::Fenced) => LogErrorKind::Fenced,
            (Step::Own, _) => LogErrorKind::Transient,
            (Step::Append, _) => LogErrorKind::MustAbort,
            // Nothing proves that it did not happen, and the state of the instance is unknown.
            (Step::Begin | Step::Commit | Step::Abort, _) => LogErrorKind::UnknownOutcome,
        }
    }
}

/// The broker has a newer epoch of the id. (`InvalidProducerIdMapping` is no fence: the broker has dropped the id after
/// `transactional.id.expiration.ms` without a transaction.)
fn is_fence(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(
        step: Step,
        code: RDKafkaErrorCode,
        fatal: Option<RDKafkaErrorCode>,
        may_have_timed_out: bool,
    ) -> LogErrorKind {
        let error = KafkaError::MessageProduction(code);
        let fatal = fatal.map(|code| (code, "reason".to_owned()));
        Failure { step, error: &error, fatal, may_have_timed_out }.explain(&KafkaSettings::default(), "testing").kind
    }

    #[test]
    fn only_a_newer_epoch_that_no_time_out_can_explain_is_another_owner() {
        use RDKafkaErrorCode as Code;
        for step in [Step::Begin, Step::Append, Step::Commit, Step::Abort] {
            assert_eq!(kind(step, Code::Fatal, Some(Code::Fenced), false), LogErrorKind::Fenced, "{step:?}");
            assert_eq!(kind(step, Code::Fatal, Some(Code::Fenced), true), LogErrorKind::UnknownOutcome, "{step:?}");
            let forgotten = kind(step, Code::Fatal, Some(Code::InvalidProducerIdMapping), false);
            assert_eq!(forgotten, LogErrorKind::UnknownOutcome, "{step:?}");
        }
    }

    #[test]
    fn a_commit_that_nothing_disproves_may_have_happened() {
        use RDKafkaErrorCode as Code;
        for code in [Code::OperationTimedOut, Code::State, Code::BrokerTransportFailure, Code::Application] {
            assert_eq!(kind(Step::Commit, code, None, false), LogErrorKind::UnknownOutcome, "{code}");
        }
    }

    #[test]
    fn a_misconfiguration_and_a_record_too_large_keep_their_kinds() {
        use RDKafkaErrorCode as Code;
        assert_eq!(kind(Step::Append, Code::MessageSizeTooLarge, None, false), LogErrorKind::BadRecord);
        let refused = kind(Step::Own, Code::TransactionalIdAuthorizationFailed, None, false);
        assert_eq!(refused, LogErrorKind::Misconfigured);
        let denied = Code::TransactionalIdAuthorizationFailed;
        assert_eq!(kind(Step::Own, Code::Fatal, Some(denied), false), LogErrorKind::Misconfigured);
        let unknown = kind(Step::Commit, Code::Fatal, Some(denied), false);
        assert_eq!(unknown, LogErrorKind::UnknownOutcome, "a right that is taken away during a commit");
        assert_eq!(kind(Step::Own, Code::OperationTimedOut, None, false), LogErrorKind::Transient);
        assert_eq!(kind(Step::Append, Code::MessageTimedOut, None, false), LogErrorKind::MustAbort);
    }
}
