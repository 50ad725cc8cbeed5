//! Uploads in parts.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;

use super::bucket::{Bucket, version_from};
use super::client::patient;
use super::conditional::{MAX_TRIES, Next, decide, pause_before};
use super::errors::S3Failure;
use super::put::{gave_up, headers, put, undecidable, written};
use super::unfinished;
use crate::store::{
    Metadata, MultipartUpload, ObjectMeta, PutCondition, PutOutcome, Result, StoreError, StoreErrorKind, Version,
};

const MAX_PARTS: i32 = 10_000;

/// If dropped without `complete` or `abort`, its parts stay, invisible, until the bucket's lifecycle rule removes them.
pub(super) struct S3Upload {
    bucket: Arc<Bucket>,
    key: String,
    metadata: Metadata,
    upload_id: String,
    parts: Vec<CompletedPart>,
    size_bytes: u64,
}

impl S3Upload {
    pub async fn start(bucket: Arc<Bucket>, key: &str, metadata: &Metadata) -> Result<Self> {
        let request = bucket
            .client
            .create_multipart_upload()
            .bucket(&bucket.name)
            .key(bucket.full_key(key))
            .set_metadata((!metadata.is_empty()).then(|| metadata.clone().into_iter().collect()));
        let output = request.send().await.map_err(|error| S3Failure::from(error).into_error("multipart put", key))?;
        let Some(upload_id) = output.upload_id else {
            let message = "the answer has no upload id";
            return Err(StoreError::new(StoreErrorKind::Other, "multipart put", key, message));
        };
        let (key, metadata) = (key.to_owned(), metadata.clone());
        Ok(Self { bucket, key, metadata, upload_id, parts: Vec::new(), size_bytes: 0 })
    }

    fn next_number(&self) -> Result<i32> {
        i32::try_from(self.parts.len() + 1).ok().filter(|number| *number <= MAX_PARTS).ok_or_else(|| {
            let message = format!("an upload has at most {MAX_PARTS} parts: use larger ones");
            StoreError::new(StoreErrorKind::TooLarge, "put part", &self.key, message)
        })
    }

    fn add(&mut self, number: i32, etag: Option<String>, length_bytes: u64) {
        self.parts.push(CompletedPart::builder().part_number(number).set_e_tag(etag).build());
        self.size_bytes += length_bytes;
    }

    /// Appends a part that the server copies. `source` is percent-encoded, `range` is `bytes=a-b`.
    pub async fn copy_part(
        &mut self,
        source: &str,
        version: &Version,
        range: std::ops::Range<u64>,
    ) -> std::result::Result<(), S3FailureOrError> {
        let number = self.next_number()?;
        let output = self
            .bucket
            .client
            .upload_part_copy()
            .bucket(&self.bucket.name)
            .key(self.bucket.full_key(&self.key))
            .upload_id(&self.upload_id)
            .part_number(number)
            .copy_source(source)
            .copy_source_if_match(&version.0)
            .copy_source_range(format!("bytes={}-{}", range.start, range.end - 1))
            .customize()
            .config_override(patient())
            .send()
            .await
            .map_err(S3Failure::from)?;
        let etag = output.copy_part_result.and_then(|result| result.e_tag);
        self.add(number, etag, range.end - range.start);
        Ok(())
    }

    async fn send_complete(&self, condition: &PutCondition) -> std::result::Result<Option<Version>, S3Failure> {
        let (if_none_match, if_match) = headers(condition);
        let output = self
            .bucket
            .client
            .complete_multipart_upload()
            .bucket(&self.bucket.name)
            .key(self.bucket.full_key(&self.key))
            .upload_id(&self.upload_id)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(self.parts.clone())).build())
            .set_if_none_match(if_none_match)
            .set_if_match(if_match)
            .customize()
            .config_override(patient())
            .send()
            .await?;
        Ok(version_from(output.e_tag()))
    }

    async fn try_complete(&self, condition: &PutCondition) -> Result<PutOutcome> {
        let mut last_message = String::new();
        for attempt in 0..MAX_TRIES {
            pause_before(attempt).await;
            let failure = match self.send_complete(condition).await {
                Ok(version) => return self.verified(condition, version).await,
                Err(failure) => failure,
            };
            let found = match self.bucket.head(&self.key).await {
                Ok(found) => found,
                Err(unknown) => return Err(undecidable(failure, unknown, "complete", &self.key)),
            };
            if *condition == PutCondition::None && failure.is_no_such_upload() && self.is_ours(found.as_ref()) {
                return written(&self.bucket, &self.key, found.map(|meta| meta.version)).await;
            }
            match decide(condition, &failure, found.as_ref().map(|meta| &meta.version)) {
                Next::Answer(outcome) => return Ok(outcome),
                Next::Fail => return Err(failure.into_error("complete", &self.key)),
                Next::Again => last_message = failure.into_error("complete", &self.key).message,
            }
        }
        Err(gave_up("complete", &self.key, &last_message))
    }

    /// The outcome of a completion that was answered with 200. versitygw 1.8 also answers so for an aborted upload, so
    /// with other stores than AWS the object is read.
    async fn verified(&self, condition: &PutCondition, version: Option<Version>) -> Result<PutOutcome> {
        if !self.bucket.has_custom_endpoint {
            return written(&self.bucket, &self.key, version).await;
        }
        let Some(found) = self.bucket.head(&self.key).await? else {
            let message =
                "the store says that the upload was completed, but no object is there: was the upload aborted?";
            return Err(StoreError::new(StoreErrorKind::Transient, "complete", &self.key, message));
        };
        let is_other = version.is_some_and(|version| version != found.version);
        Ok(match condition {
            PutCondition::IfAbsent if is_other => PutOutcome::AlreadyExists,
            PutCondition::IfVersion(_) if is_other => PutOutcome::VersionMismatch,
            _ => PutOutcome::Written(found.version),
        })
    }

    /// Whether an earlier attempt completed the upload and its answer was lost: the object then has this size and, by
    /// its ETag, this number of parts.
    fn is_ours(&self, found: Option<&ObjectMeta>) -> bool {
        let parts_suffix = format!("-{}\"", self.parts.len());
        found.is_some_and(|meta| meta.size_bytes == self.size_bytes && meta.version.0.ends_with(&parts_suffix))
    }

    async fn send_abort(&self) -> Result<()> {
        unfinished::abort(&self.bucket, &self.key, &self.upload_id).await
    }

    /// Frees the parts. A failure is only logged, so that it does not hide the actual outcome.
    async fn abort_or_warn(&self) {
        if let Err(error) = self.send_abort().await {
            tracing::warn!(key = self.key, %error, "the parts of an unfinished upload stay in the bucket");
        }
    }
}

/// A failed request, or a limit exceeded before any was sent.
pub(super) enum S3FailureOrError {
    Failure(S3Failure),
    Error(StoreError),
}

impl From<S3Failure> for S3FailureOrError {
    fn from(failure: S3Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<StoreError> for S3FailureOrError {
    fn from(error: StoreError) -> Self {
        Self::Error(error)
    }
}

#[async_trait]
impl MultipartUpload for S3Upload {
    async fn part(&mut self, bytes: Bytes) -> Result<()> {
        let number = self.next_number()?;
        let length_bytes = bytes.len() as u64;
        let request = self
            .bucket
            .client
            .upload_part()
            .bucket(&self.bucket.name)
            .key(self.bucket.full_key(&self.key))
            .upload_id(&self.upload_id)
            .part_number(number)
            .body(bytes.into());
        let output = request.send().await.map_err(|error| S3Failure::from(error).into_error("put part", &self.key))?;
        // Counted only now: a part that failed is sent again under the same number.
        self.add(number, output.e_tag, length_bytes);
        Ok(())
    }

    async fn complete(self: Box<Self>, condition: PutCondition) -> Result<PutOutcome> {
        if self.parts.is_empty() {
            // S3 refuses an upload without parts; an empty object is intended.
            self.abort_or_warn().await;
            return put(&self.bucket, &self.key, &Bytes::new(), &condition, &self.metadata).await;
        }
        let outcome = self.try_complete(&condition).await;
        if !matches!(outcome, Ok(PutOutcome::Written(_))) {
            self.abort_or_warn().await;
        }
        outcome
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.send_abort().await
    }
}
