//! Deletes objects, one or many, and only the named version.
//!
//! AWS honours `If-Match` on a delete and the ETag of each entry of a DeleteObjects request. Other stores may silently
//! ignore either (versitygw 1.8 honours the first, not atomically, and ignores the second). With a custom endpoint an
//! object is therefore read just before the delete: one that is replaced between the two would be lost. That window is
//! one request for a single delete, and for a batch the reads and the request of one group.

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_s3::operation::delete_objects::DeleteObjectsOutput;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use futures_util::stream::{self, StreamExt as _};

use super::bucket::Bucket;
use super::client::patient;
use super::conditional::{MAX_TRIES, pause_before};
use super::errors::S3Failure;
use super::put::gave_up;
use crate::store::batch::independent;
use crate::store::{DeleteOutcome, Result, StoreError, StoreErrorKind, Version};

/// Concurrent requests of one batch.
pub(super) const CONCURRENCY: usize = 16;
/// The limit of DeleteObjects.
const MAX_GROUP: usize = 1_000;
/// The group size where objects are read first: small, because the window grows with it.
const MAX_CHECKED_GROUP: usize = 100;

pub(super) async fn delete(bucket: &Bucket, key: &str, if_version: Option<&Version>) -> Result<DeleteOutcome> {
    match if_version {
        Some(version) => delete_version(bucket, key, version).await,
        None => delete_any(bucket, key).await,
    }
}

async fn delete_any(bucket: &Bucket, key: &str) -> Result<DeleteOutcome> {
    match send_delete(bucket, key, None).await {
        Ok(()) => Ok(DeleteOutcome::Deleted),
        Err(failure) if failure.is_no_such_key() => Ok(DeleteOutcome::Deleted),
        Err(failure) => Err(failure.into_error("delete", key)),
    }
}

async fn delete_version(bucket: &Bucket, key: &str, version: &Version) -> Result<DeleteOutcome> {
    if bucket.has_custom_endpoint
        && let Some(outcome) = check(bucket, key, version).await?
    {
        return Ok(outcome);
    }
    let mut last_message = String::new();
    for attempt in 0..MAX_TRIES {
        pause_before(attempt).await;
        match send_delete(bucket, key, Some(version)).await {
            Ok(()) => return Ok(DeleteOutcome::Deleted),
            Err(failure) if failure.is_no_such_key() => return Ok(DeleteOutcome::Deleted),
            Err(failure) if failure.is_conflict() => last_message = failure.into_error("delete", key).message,
            // Some stores also return this if the object no longer exists, perhaps because of an earlier request whose
            // answer was lost.
            Err(failure) if failure.is_precondition_failed() => match check(bucket, key, version).await? {
                Some(outcome) => return Ok(outcome),
                None => last_message = failure.into_error("delete", key).message,
            },
            Err(failure) if failure.is_not_implemented() => {
                return match check(bucket, key, version).await? {
                    Some(outcome) => Ok(outcome),
                    None => delete_any(bucket, key).await,
                };
            }
            Err(failure) => return Err(failure.into_error("delete", key)),
        }
    }
    Err(gave_up("delete", key, &last_message))
}

/// `None` if the object still has that version, otherwise the outcome of deleting it.
async fn check(bucket: &Bucket, key: &str, version: &Version) -> Result<Option<DeleteOutcome>> {
    Ok(match bucket.head(key).await? {
        None => Some(DeleteOutcome::Deleted),
        Some(found) if found.version != *version => Some(DeleteOutcome::VersionMismatch),
        Some(_) => None,
    })
}

async fn send_delete(bucket: &Bucket, key: &str, version: Option<&Version>) -> std::result::Result<(), S3Failure> {
    bucket
        .client
        .delete_object()
        .bucket(&bucket.name)
        .key(bucket.full_key(key))
        .set_if_match(version.map(|version| version.0.clone()))
        .send()
        .await?;
    Ok(())
}

type Objects = Vec<(String, Version)>;
type Outcomes = Vec<Result<DeleteOutcome>>;

pub(super) async fn delete_many(bucket: &Arc<Bucket>, objects: Objects) -> Outcomes {
    let limit = if bucket.has_custom_endpoint { MAX_CHECKED_GROUP } else { MAX_GROUP };
    let mut outcomes = Vec::with_capacity(objects.len());
    while let rest @ [_, ..] = &objects[outcomes.len()..] {
        let length = independent(rest.iter().map(|(key, _)| [&**key])).min(limit);
        outcomes.extend(delete_group(bucket, &rest[..length]).await);
    }
    outcomes
}

async fn delete_group(bucket: &Arc<Bucket>, group: &[(String, Version)]) -> Outcomes {
    let mut outcomes: Vec<Option<Result<DeleteOutcome>>> = if bucket.has_custom_endpoint {
        check_all(bucket, group.to_vec()).await.into_iter().map(Result::transpose).collect()
    } else {
        group.iter().map(|_| None).collect()
    };
    let open: Objects = group
        .iter()
        .zip(&outcomes)
        .filter(|(_, outcome)| outcome.is_none())
        .map(|(object, _)| object.clone())
        .collect();
    let mut deleted = delete_unchecked(bucket, open).await.into_iter();
    for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
        *outcome = deleted.next();
    }
    outcomes.into_iter().flatten().collect()
}

async fn check_all(bucket: &Arc<Bucket>, group: Objects) -> Vec<Result<Option<DeleteOutcome>>> {
    let looks = group.into_iter().map(|(key, version)| {
        let bucket = Arc::clone(bucket);
        async move { check(&bucket, &key, &version).await }
    });
    stream::iter(looks).buffered(CONCURRENCY).collect().await
}

/// One request for all, or one for each object if the store supports nothing else or the key does not fit.
async fn delete_unchecked(bucket: &Arc<Bucket>, group: Objects) -> Outcomes {
    if group.is_empty() {
        return Vec::new();
    }
    if group.len() == 1 || !group.iter().all(|(key, _)| fits_into_xml(key)) {
        return delete_each(bucket, group).await;
    }
    match send_delete_many(bucket, &group).await {
        Ok(output) => {
            let mut answers = answers_by_key(&output);
            let mut outcomes = Vec::with_capacity(group.len());
            for (key, version) in &group {
                let answer = answers.remove(&*bucket.full_key(key));
                outcomes.push(outcome_of(bucket, key, version, answer).await);
            }
            outcomes
        }
        Err(failure) if failure.is_not_implemented() => delete_each(bucket, group).await,
        Err(failure) => group.iter().map(|(key, _)| Err(failure.clone().into_error("delete", key))).collect(),
    }
}

async fn delete_each(bucket: &Arc<Bucket>, group: Objects) -> Outcomes {
    let deletes = group.into_iter().map(|(key, version)| {
        let bucket = Arc::clone(bucket);
        async move { delete_version(&bucket, &key, &version).await }
    });
    stream::iter(deletes).buffered(CONCURRENCY).collect().await
}

/// XML 1.0 cannot represent most control characters. A request with such a key would be refused as a whole, and no
/// object of the batch would ever be deleted.
fn fits_into_xml(key: &str) -> bool {
    !key.chars().any(|character| character.is_control() || matches!(character, '\u{fffe}' | '\u{ffff}'))
}

async fn send_delete_many(
    bucket: &Bucket,
    group: &[(String, Version)],
) -> std::result::Result<DeleteObjectsOutput, S3Failure> {
    let identifiers = group
        .iter()
        .map(|(key, version)| ObjectIdentifier::builder().key(bucket.full_key(key)).e_tag(&version.0).build())
        .collect::<std::result::Result<Vec<_>, _>>()?;
    // Not quiet: an object counts as deleted only if the answer names it.
    let delete = Delete::builder().set_objects(Some(identifiers)).build()?;
    let request = bucket.client.delete_objects().bucket(&bucket.name).delete(delete);
    Ok(request.customize().config_override(patient()).send().await?)
}

fn answers_by_key(output: &DeleteObjectsOutput) -> HashMap<&str, std::result::Result<(), S3Failure>> {
    let deleted = output.deleted().iter().filter_map(|object| Some((object.key()?, Ok(()))));
    let failed = output
        .errors()
        .iter()
        .filter_map(|error| Some((error.key()?, Err(S3Failure::of_entry(error.code(), error.message())))));
    deleted.chain(failed).collect()
}

async fn outcome_of(
    bucket: &Bucket,
    key: &str,
    version: &Version,
    answer: Option<std::result::Result<(), S3Failure>>,
) -> Result<DeleteOutcome> {
    match answer {
        Some(Ok(())) => Ok(DeleteOutcome::Deleted),
        Some(Err(failure)) if failure.is_no_such_key() => Ok(DeleteOutcome::Deleted),
        Some(Err(failure)) if failure.is_precondition_failed() || failure.is_not_implemented() => {
            delete_version(bucket, key, version).await
        }
        Some(Err(failure)) => Err(failure.into_error("delete", key)),
        None => {
            let message = "the answer to a batch of deletes does not name the object";
            Err(StoreError::new(StoreErrorKind::Transient, "delete", key, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_xml_cannot_represent_are_detected() {
        for key in ["a/b c.json", "ä&<>\"'+%2F", "日本"] {
            assert!(fits_into_xml(key), "{key:?}");
        }
        for key in ["a\u{1}b", "a\tb", "a\nb", "a\r", "\u{7f}", "\u{ffff}"] {
            assert!(!fits_into_xml(key), "{key:?}");
        }
    }

    #[test]
    fn each_entry_of_an_answer_is_found_by_its_key() {
        use aws_sdk_s3::types::{DeletedObject, Error};
        let output = DeleteObjectsOutput::builder()
            .deleted(DeletedObject::builder().key("gone").build())
            .errors(Error::builder().key("newer").code("PreconditionFailed").build())
            .errors(Error::builder().key("denied").code("AccessDenied").message("no").build())
            .build();
        let answers = answers_by_key(&output);
        assert!(matches!(answers.get("gone"), Some(Ok(()))));
        assert!(matches!(answers.get("newer"), Some(Err(failure)) if failure.is_precondition_failed()));
        assert!(matches!(answers.get("denied"), Some(Err(failure)) if failure.kind == StoreErrorKind::Denied));
        assert!(!answers.contains_key("other"));
    }
}
