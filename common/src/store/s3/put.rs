//! Putting a whole object in one request.

use bytes::Bytes;

use super::bucket::{Bucket, version_from};
use super::conditional::{MAX_TRIES, Next, decide, pause_before};
use super::errors::S3Failure;
use crate::store::{Metadata, PutCondition, PutOutcome, Result, StoreError, StoreErrorKind, Version};

pub(super) async fn put(
    bucket: &Bucket,
    key: &str,
    body: &Bytes,
    condition: &PutCondition,
    metadata: &Metadata,
) -> Result<PutOutcome> {
    let mut last_message = String::new();
    for attempt in 0..MAX_TRIES {
        pause_before(attempt).await;
        let failure = match send(bucket, key, body, condition, metadata).await {
            Ok(version) => return written(bucket, key, version).await,
            Err(failure) => failure,
        };
        let found = match condition {
            PutCondition::None => None,
            _ => match bucket.head(key).await {
                Ok(found) => found.map(|meta| meta.version),
                Err(unknown) => return Err(undecidable(failure, unknown, "put", key)),
            },
        };
        match decide(condition, &failure, found.as_ref()) {
            Next::Answer(outcome) => return Ok(outcome),
            Next::Fail => return Err(failure.into_error("put", key)),
            Next::Again => last_message = failure.into_error("put", key).message,
        }
    }
    Err(gave_up("put", key, &last_message))
}

/// The write failed, and so did reading its outcome. Reports the first failure, unless it is a lost race: then the read
/// has to be repeated.
pub(super) fn undecidable(failure: S3Failure, unknown: StoreError, operation: &'static str, key: &str) -> StoreError {
    if failure.is_precondition_failed() || failure.is_conflict() { unknown } else { failure.into_error(operation, key) }
}

pub(super) fn gave_up(operation: &'static str, key: &str, last_message: &str) -> StoreError {
    let message = format!("gave up after {MAX_TRIES} tries, the last one: {last_message}");
    StoreError::new(StoreErrorKind::Transient, operation, key, message)
}

/// The outcome of a write that was answered with 200, from the answer's ETag or else from the object.
pub(super) async fn written(bucket: &Bucket, key: &str, version: Option<Version>) -> Result<PutOutcome> {
    if let Some(version) = version {
        return Ok(PutOutcome::Written(version));
    }
    match bucket.head(key).await? {
        Some(meta) => Ok(PutOutcome::Written(meta.version)),
        None => Err(StoreError::new(StoreErrorKind::Transient, "put", key, "the object vanished as it was written")),
    }
}

async fn send(
    bucket: &Bucket,
    key: &str,
    body: &Bytes,
    condition: &PutCondition,
    metadata: &Metadata,
) -> std::result::Result<Option<Version>, S3Failure> {
    let (if_none_match, if_match) = headers(condition);
    let output = bucket
        .client
        .put_object()
        .bucket(&bucket.name)
        .key(bucket.full_key(key))
        .body(body.clone().into())
        .set_if_none_match(if_none_match)
        .set_if_match(if_match)
        .set_metadata((!metadata.is_empty()).then(|| metadata.clone().into_iter().collect()))
        .send()
        .await?;
    Ok(version_from(output.e_tag()))
}

/// `If-None-Match` and `If-Match`.
pub(super) fn headers(condition: &PutCondition) -> (Option<String>, Option<String>) {
    match condition {
        PutCondition::None => (None, None),
        PutCondition::IfAbsent => (Some("*".to_owned()), None),
        PutCondition::IfVersion(version) => (None, Some(version.0.clone())),
    }
}
