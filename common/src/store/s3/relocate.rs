//! Copies on the server, and moves as copy plus conditional delete.

use std::fmt::Write as _;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};

use super::bucket::Bucket;
use super::client::patient;
use super::delete::{CONCURRENCY, delete, delete_many};
use super::errors::S3Failure;
use super::multipart::{S3FailureOrError, S3Upload};
use crate::store::batch::independent;
use crate::store::{
    Metadata, Move, MultipartUpload, ObjectMeta, PutCondition, RenameOutcome, Result, StoreError, StoreErrorKind,
    Version,
};

/// CopyObject's limit; a larger source is copied in parts.
const MAX_COPY_BYTES: u64 = 5 * 1024 * 1024 * 1024;
const MIN_COPY_PART_BYTES: u64 = 512 * 1024 * 1024;
const MAX_PARTS: u64 = 10_000;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Copied {
    Yes,
    /// The source is missing or has another version.
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

/// CopyObject copies it by itself, an upload in parts does not.
async fn user_metadata(bucket: &Bucket, key: &str) -> Result<Metadata> {
    let request = bucket.client.head_object().bucket(&bucket.name).key(bucket.full_key(key));
    let output = request.send().await.map_err(|error| S3Failure::from(error).into_error("copy", key))?;
    Ok(output.metadata.unwrap_or_default().into_iter().collect())
}

/// The SDK sends this header unchanged, so it is percent-encoded here.
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

/// The state of a move.
enum Step {
    /// The move is complete.
    Answered(RenameOutcome),
    /// The target exists; the source has to be deleted.
    Copied,
}

pub(super) async fn rename(bucket: &Arc<Bucket>, from: &str, version: &Version, to: &str) -> Result<RenameOutcome> {
    match copy_to_free_key(bucket, from, version, to).await? {
        Step::Answered(outcome) => Ok(outcome),
        Step::Copied => {
            delete(bucket, from, Some(version)).await?;
            Ok(RenameOutcome::Moved)
        }
    }
}

/// The first half of a move.
async fn copy_to_free_key(bucket: &Arc<Bucket>, from: &str, version: &Version, to: &str) -> Result<Step> {
    if from == to {
        return Ok(Step::Answered(RenameOutcome::TargetExists));
    }
    // No store honours If-None-Match on the target of a copy. This check prevents accidental overwriting, but does not
    // lock out concurrent callers.
    let copied = match bucket.head(to).await? {
        None => copy(bucket, from, version, to).await? == Copied::Yes,
        // The target has the content of the source: an earlier call did the first half of this move.
        Some(found) if found.version == *version => bucket.is_still(from, version).await?,
        Some(_) => return Ok(Step::Answered(RenameOutcome::TargetExists)),
    };
    Ok(if copied { Step::Copied } else { Step::Answered(RenameOutcome::SourceChanged) })
}

/// Copies concurrently, then deletes the copied sources in few requests.
pub(super) async fn rename_many(bucket: &Arc<Bucket>, moves: Vec<Move>) -> Vec<Result<RenameOutcome>> {
    let mut outcomes = Vec::with_capacity(moves.len());
    while let rest @ [_, ..] = &moves[outcomes.len()..] {
        let length = independent(rest.iter().map(|entry| [&*entry.from, &*entry.to]));
        outcomes.extend(rename_independent(bucket, &rest[..length]).await);
    }
    outcomes
}

async fn rename_independent(bucket: &Arc<Bucket>, moves: &[Move]) -> Vec<Result<RenameOutcome>> {
    let copies = moves.iter().cloned().map(|Move { from, version, to }| {
        let bucket = Arc::clone(bucket);
        async move { copy_to_free_key(&bucket, &from, &version, &to).await }
    });
    let steps: Vec<Result<Step>> = stream::iter(copies).buffered(CONCURRENCY).collect().await;
    let copied = |(step, entry): (&Result<Step>, &Move)| {
        matches!(step, Ok(Step::Copied)).then(|| (entry.from.clone(), entry.version.clone()))
    };
    let copied: Vec<_> = steps.iter().zip(moves).filter_map(copied).collect();
    let mut deleted = delete_many(bucket, copied).await.into_iter();
    let answer = |step| match step {
        Ok(Step::Answered(outcome)) => Some(Ok(outcome)),
        // A newer object under the source stays.
        Ok(Step::Copied) => deleted.next().map(|deleted| deleted.map(|_| RenameOutcome::Moved)),
        Err(error) => Some(Err(error)),
    };
    steps.into_iter().filter_map(answer).collect()
}

/// For `copy` of the seam, where a changed source is an error.
pub(super) fn require_copied(copied: &Copied, from: &str) -> Result<()> {
    match copied {
        Copied::Yes => Ok(()),
        Copied::SourceChanged => {
            let message = "the source is missing or has another version";
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
