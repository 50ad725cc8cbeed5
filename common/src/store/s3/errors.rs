//! Converts S3's answers to errors of the seam: a kind that a caller can act on and a text for people.

use std::error::Error;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{BuildError, ProvideErrorMetadata, SdkError};

use crate::store::{StoreError, StoreErrorKind};

/// A failed request.
#[derive(Debug, Clone)]
pub(super) struct S3Failure {
    pub kind: StoreErrorKind,
    /// S3's error code; `None` if no answer came or it had none.
    code: Option<String>,
    status: Option<u16>,
    message: String,
}

impl S3Failure {
    pub fn into_error(self, operation: &'static str, key: &str) -> StoreError {
        StoreError::new(self.kind, operation, key, self.message)
    }

    /// The object certainly does not exist. A 404 without S3's own code is not certain: a proxy may have sent it.
    pub fn is_no_such_key(&self) -> bool {
        self.has_code("NoSuchKey")
    }

    /// The answer to a HEAD, which has no body and so no code: no such object, or no such bucket.
    pub fn is_bare_not_found(&self) -> bool {
        self.status == Some(404) && self.code.as_deref().is_none_or(|code| code == "NotFound")
    }

    pub fn is_precondition_failed(&self) -> bool {
        self.status == Some(412) || self.has_code("PreconditionFailed")
    }

    pub fn is_range_beyond_end(&self) -> bool {
        self.status == Some(416) || self.has_code("InvalidRange")
    }

    /// Another conditional request on the same key was in progress.
    pub fn is_conflict(&self) -> bool {
        self.status == Some(409) && (self.has_code("ConditionalRequestConflict") || self.has_code("OperationAborted"))
    }

    /// The signature is too old.
    pub fn is_too_old(&self) -> bool {
        self.has_code("RequestTimeTooSkewed") || self.has_code("RequestExpired")
    }

    pub fn is_no_such_upload(&self) -> bool {
        self.has_code("NoSuchUpload")
    }

    pub fn is_invalid_argument(&self) -> bool {
        self.has_code("InvalidArgument")
    }

    pub fn is_not_implemented(&self) -> bool {
        self.kind == StoreErrorKind::Unsupported
    }

    pub fn is_no_such_tag_set(&self) -> bool {
        self.has_code("NoSuchTagSet") || self.has_code("NoSuchTagSetError")
    }

    /// CopyObject's answer to a source above 5 GiB.
    pub fn is_too_large_to_copy(&self) -> bool {
        self.has_code("InvalidRequest") || self.has_code("EntityTooLarge")
    }

    /// The request may be sent again: it lost a race, or its outcome is unknown.
    pub fn is_undecided(&self) -> bool {
        self.is_precondition_failed()
            || self.is_conflict()
            || (self.kind == StoreErrorKind::Transient && !self.is_no_such_upload())
    }

    fn of(status: Option<u16>, code: Option<&str>, message: Option<&str>) -> Self {
        let kind = kind_of_answer(status, code);
        Self { kind, code: code.map(str::to_owned), status, message: describe(status, code, message) }
    }

    /// The failure of one entry of a batch, which has a code and no status.
    pub fn of_entry(code: Option<&str>, message: Option<&str>) -> Self {
        let status = match code {
            Some("AccessDenied") => Some(403),
            Some("NoSuchKey") => Some(404),
            Some("ConditionalRequestConflict" | "OperationAborted") => Some(409),
            Some("PreconditionFailed") => Some(412),
            Some("InternalError") => Some(500),
            Some("ServiceUnavailable" | "SlowDown") => Some(503),
            _ => None,
        };
        Self::of(status, code, message)
    }

    #[cfg(test)]
    pub fn answered(status: u16, code: &str) -> Self {
        Self::of(Some(status), Some(code), None)
    }

    fn has_code(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }
}

impl<E: ProvideErrorMetadata + Error + 'static> From<SdkError<E, HttpResponse>> for S3Failure {
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        let status = error.raw_response().map(|response| response.status().as_u16());
        match &error {
            SdkError::ServiceError(service) => Self::of(status, service.err().code(), service.err().message()),
            _ => {
                // The SDK's outermost message ("dispatch failure") is of no use to people.
                let cause = error.source().map_or_else(|| error.to_string(), chain);
                let message = cause.split_whitespace().collect::<Vec<_>>().join(" ");
                Self { kind: kind_without_answer(&error, &message), code: None, status, message }
            }
        }
    }
}

/// A request that could not be built.
impl From<BuildError> for S3Failure {
    fn from(error: BuildError) -> Self {
        Self { kind: StoreErrorKind::Other, code: None, status: None, message: chain(&error) }
    }
}

fn describe(status: Option<u16>, code: Option<&str>, message: Option<&str>) -> String {
    // The answer to a HEAD has only a status.
    let said = message.unwrap_or(match status {
        Some(301) => "the bucket is in another region, see AWS_REGION",
        Some(401 | 403) => "access denied",
        Some(412) => "the object is another version than asked for",
        _ => "the store gave no reason",
    });
    let status = status.map_or_else(String::new, |status| format!(" (HTTP {status})"));
    match code {
        Some(code) => format!("{code}: {said}{status}"),
        None => format!("{said}{status}"),
    }
}

fn kind_of_answer(status: Option<u16>, code: Option<&str>) -> StoreErrorKind {
    match code {
        Some("NoSuchBucket") => return StoreErrorKind::NoSuchStore,
        Some("NotImplemented" | "MethodNotAllowed") => return StoreErrorKind::Unsupported,
        // The last one is versitygw's, as a 404: an unknown access key.
        Some("ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" | "XAdminUserNotFound") => {
            return StoreErrorKind::Denied;
        }
        Some("KeyTooLongError" | "InvalidObjectName") => return StoreErrorKind::InvalidKey,
        Some("EntityTooLarge") => return StoreErrorKind::TooLarge,
        // The caller can repeat the upload from its start.
        Some("NoSuchUpload" | "SlowDown" | "RequestTimeout" | "OperationAborted" | "ConditionalRequestConflict") => {
            return StoreErrorKind::Transient;
        }
        // The data was damaged in transit.
        Some("BadDigest" | "IncompleteBody" | "XAmzContentSHA256Mismatch") => return StoreErrorKind::Transient,
        _ => {}
    }
    match status {
        Some(401 | 403) => StoreErrorKind::Denied,
        Some(412) => StoreErrorKind::VersionMismatch,
        Some(501) => StoreErrorKind::Unsupported,
        Some(408 | 429 | 500..=599) => StoreErrorKind::Transient,
        _ => StoreErrorKind::Other,
    }
}

fn kind_without_answer<E>(error: &SdkError<E, HttpResponse>, message: &str) -> StoreErrorKind {
    match error {
        // The SDK has no error type for missing credentials that could be matched here.
        SdkError::DispatchFailure(_) if message.contains("credential") => StoreErrorKind::Denied,
        SdkError::DispatchFailure(failure) if failure.is_user() => StoreErrorKind::Other,
        SdkError::ConstructionFailure(_) => StoreErrorKind::Other,
        _ => StoreErrorKind::Transient,
    }
}

/// An error and its causes in one line; causes that only repeat earlier text are left out.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_become_kinds_that_a_caller_acts_on() {
        use StoreErrorKind::{Denied, NoSuchStore, Other, Transient, Unsupported};
        let cases = [
            (Some(404), Some("NoSuchBucket"), NoSuchStore),
            (Some(403), Some("AccessDenied"), Denied),
            (Some(400), Some("ExpiredToken"), Denied),
            (Some(503), Some("SlowDown"), Transient),
            (Some(500), None, Transient),
            (Some(429), None, Transient),
            (Some(501), Some("NotImplemented"), Unsupported),
            (Some(400), Some("InvalidArgument"), Other),
            (Some(404), None, Other),
        ];
        for (status, code, kind) in cases {
            assert_eq!(kind_of_answer(status, code), kind, "{status:?} {code:?}");
        }
    }

    #[test]
    fn a_not_found_without_the_code_of_s3_is_not_certain() {
        let answer = |status, code: Option<&str>| S3Failure::of(Some(status), code, None);
        assert!(answer(404, Some("NoSuchKey")).is_no_such_key());
        assert!(!answer(404, None).is_no_such_key());
        assert!(!answer(404, Some("NoSuchBucket")).is_bare_not_found());
        assert!(answer(503, None).is_undecided());
        assert!(answer(409, Some("ConditionalRequestConflict")).is_undecided());
        assert!(!answer(404, Some("NoSuchUpload")).is_undecided());
        assert!(!answer(403, Some("AccessDenied")).is_undecided());
    }
}
