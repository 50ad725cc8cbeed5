//! Copying on the server's side, and moving as copy plus conditional delete.

use std::fmt::Write as _;
use std::sync::Arc;

use super::bucket::Bucket;
use super::client::patient;
use super::conditional::{MAX_TRIES, pause_before};
use super::errors::S3Failure;
use super::multipart::{S3FailureOrError, S3Upload};
use super::put::gave_up;
use crate::store::{
    Metadata, MultipartUpload, ObjectMeta, PutCondition, RenameOutcome, Result, StoreError, StoreErrorKind, Version,
};

/// CopyObject's limit; a larger source is copied in parts.
const MAX_COPY_BYTES: u64 = 5 * 1024 * 1024 * 1024;
const MIN_COPY_PART_BYTES: u64 = 512 * 1024 * 1024;
const MAX_PARTS: u64 = 10_000;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Copied {
    Yes,
    /// The source is gone or is another version.
    SourceChanged,
}

pub(super) async fn copy(bucket: &Arc<Bucket>, from: &str, version: &Version, to: &str) -> Result<Copied> {
    let request = bucket
        .client
        .copy_object()
        .bucket(&bucket.name)
        .key(bucket.full_key(to))
        .copy_source(copy_source(bucket, from))
        .copy_source_if_match(&version.0)
        .customize()
        .config_override(patient());
    match request.send().await.map_err(S3Failure::from) {
        Ok(_) => Ok(Copied::Yes),
        Err(failure) if source_changed(&failure) => Ok(Copied::SourceChanged),
        Err(failure) if failure.is_too_large_to_copy() => match bucket.head(from).await? {
            Some(source) if source.size_bytes > MAX_COPY_BYTES => copy_in_parts(bucket, &source, version, to).await,
            _ => Err(failure.into_error("copy", from)),
        },
        Err(failure) => Err(failure.into_error("copy", from)),
    }
}

fn source_changed(failure: &S3Failure) -> bool {
    failure.is_precondition_failed() || failure.is_no_such_key()
}

async fn copy_in_parts(bucket: &Arc<Bucket>, source: &ObjectMeta, version: &Version, to: &str) -> Result<Copied> {
    let metadata = user_metadata(bucket, &source.key).await?;
    let mut upload = Box::new(S3Upload::start(Arc::clone(bucket), to, &metadata).await?);
    let encoded = copy_source(bucket, &source.key);
    for range in part_ranges(source.size_bytes) {
        match upload.copy_part(&encoded, version, range).await {
            Ok(()) => {}
            Err(failed) => {
                upload.abort().await?;
                return match failed {
                    S3FailureOrError::Failure(failure) if source_changed(&failure) => Ok(Copied::SourceChanged),
                    S3FailureOrError::Failure(failure) => Err(failure.into_error("copy", &source.key)),
                    S3FailureOrError::Error(error) => Err(error),
                };
            }
        }
    }
    upload.complete(PutCondition::None).await.map(|_| Copied::Yes)
}

fn part_ranges(size_bytes: u64) -> impl Iterator<Item = std::ops::Range<u64>> {
    let part_bytes = MIN_COPY_PART_BYTES.max(size_bytes.div_ceil(MAX_PARTS));
    (0..size_bytes.div_ceil(part_bytes)).map(move |index| {
        let start = index * part_bytes;
        start..(start + part_bytes).min(size_bytes)
    })
}

/// CopyObject takes it along by itself, an upload in parts does not.
async fn user_metadata(bucket: &Bucket, key: &str) -> Result<Metadata> {
    let request = bucket.client.head_object().bucket(&bucket.name).key(bucket.full_key(key));
    let output = request.send().await.map_err(|error| S3Failure::from(error).into_error("copy", key))?;
    Ok(output.metadata.unwrap_or_default().into_iter().collect())
}

/// The SDK sends this header as it is, so it is percent-encoded here.
fn copy_source(bucket: &Bucket, key: &str) -> String {
    let mut source = format!("{}/", bucket.name);
    for byte in bucket.full_key(key).bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            source.push(char::from(byte));
        } else {
            // Writing into a String cannot fail.
            let _ = write!(source, "%{byte:02X}");
        }
    }
    source
}

pub(super) async fn rename(bucket: &Arc<Bucket>, from: &str, version: &Version, to: &str) -> Result<RenameOutcome> {
    // Nobody honours If-None-Match on the target of a copy: this look keeps honest callers from overwriting, and is
    // no lock against two that race.
    if bucket.head(to).await?.is_some() {
        return Ok(RenameOutcome::TargetExists);
    }
    if copy(bucket, from, version, to).await? == Copied::SourceChanged {
        return Ok(RenameOutcome::SourceChanged);
    }
    delete_version(bucket, from, version).await?;
    Ok(RenameOutcome::Moved)
}

/// Deletes the object if it still is that version; a newer one stays.
async fn delete_version(bucket: &Bucket, key: &str, version: &Version) -> Result<()> {
    // Stores other than AWS may ignore If-Match on a delete without a word, so there the object is looked at first.
    if bucket.has_custom_endpoint && !is_still(bucket, key, version).await? {
        return Ok(());
    }
    let mut last_message = String::new();
    for attempt in 0..MAX_TRIES {
        pause_before(attempt).await;
        match send_delete(bucket, key, Some(version)).await {
            Ok(()) => return Ok(()),
            Err(failure) if source_changed(&failure) => return Ok(()),
            Err(failure) if failure.is_conflict() => last_message = failure.into_error("delete", key).message,
            Err(failure) if failure.is_not_implemented() => {
                return if is_still(bucket, key, version).await? { delete(bucket, key).await } else { Ok(()) };
            }
            Err(failure) => return Err(failure.into_error("delete", key)),
        }
    }
    Err(gave_up("delete", key, &last_message))
}

async fn is_still(bucket: &Bucket, key: &str, version: &Version) -> Result<bool> {
    Ok(bucket.head(key).await?.is_some_and(|meta| meta.version == *version))
}

pub(super) async fn delete(bucket: &Bucket, key: &str) -> Result<()> {
    match send_delete(bucket, key, None).await {
        Ok(()) => Ok(()),
        Err(failure) if failure.is_no_such_key() => Ok(()),
        Err(failure) => Err(failure.into_error("delete", key)),
    }
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

/// `copy` of the seam: a source that changed is an error there.
pub(super) fn require_copied(copied: &Copied, from: &str) -> Result<()> {
    match copied {
        Copied::Yes => Ok(()),
        Copied::SourceChanged => {
            let message = "the source is gone or is another version than asked for";
            Err(StoreError::new(StoreErrorKind::VersionMismatch, "copy", from, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copied_parts_cover_the_object_without_gap_within_the_limits() {
        for size_bytes in [MAX_COPY_BYTES + 1, 48 * 1024 * 1024 * 1024 * 1024] {
            let ranges: Vec<_> = part_ranges(size_bytes).collect();
            assert!(ranges.len() <= 10_000, "{} parts", ranges.len());
            assert_eq!(ranges.first().map(|range| range.start), Some(0));
            assert_eq!(ranges.last().map(|range| range.end), Some(size_bytes));
            assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start), "a gap between parts");
        }
    }
}
