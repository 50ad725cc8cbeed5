//! Reads one object's body, and checks its length against the answer's head.

use async_trait::async_trait;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;

use super::bucket::{Bucket, modified_ms, size_bytes, version_from};
use super::client::READ_TIMEOUT;
use super::errors::{S3Failure, chain};
use crate::store::{GetOptions, ObjectMeta, ObjectReader, Result, StoreError, StoreErrorKind};

pub(super) async fn open(bucket: &Bucket, key: &str, options: GetOptions) -> Result<Option<(ObjectMeta, S3Reader)>> {
    // HTTP has no empty range.
    if options.range.as_ref().is_some_and(std::ops::Range::is_empty) {
        return open_empty(bucket, key, &options).await;
    }
    let request = bucket
        .client
        .get_object()
        .bucket(&bucket.name)
        .key(bucket.full_key(key))
        .set_range(options.range.as_ref().map(|range| format!("bytes={}-{}", range.start, range.end - 1)))
        .set_if_match(options.if_version.as_ref().map(|version| version.0.clone()));
    match request.send().await.map_err(S3Failure::from) {
        Ok(output) => opened(key, output).map(Some),
        Err(failure) if failure.is_no_such_key() => Ok(None),
        // An empty object has no first byte, so any range of it is beyond its end.
        Err(failure) if failure.is_range_beyond_end() => open_empty(bucket, key, &options).await,
        Err(failure) if failure.is_precondition_failed() => Err(changed(key)),
        Err(failure) => Err(failure.into_error("get", key)),
    }
}

fn opened(key: &str, output: GetObjectOutput) -> Result<(ObjectMeta, S3Reader)> {
    let broken = |what: &str| StoreError::new(StoreErrorKind::Transient, "get", key, what);
    let body_bytes = output.content_length().and_then(size_bytes).ok_or_else(|| broken("the answer has no length"))?;
    let whole_bytes = match output.content_range() {
        Some(range) => total_of(range).ok_or_else(|| broken("the answer's Content-Range cannot be read"))?,
        None => body_bytes,
    };
    let version = version_from(output.e_tag()).ok_or_else(|| broken("the answer has no ETag"))?;
    let modified_ms = modified_ms(output.last_modified());
    let meta = ObjectMeta { key: key.to_owned(), size_bytes: whole_bytes, version, modified_ms };
    Ok((meta, S3Reader { key: key.to_owned(), body: output.body, missing_bytes: body_bytes }))
}

/// The total of `bytes 0-99/1234`.
fn total_of(content_range: &str) -> Option<u64> {
    content_range.rsplit_once('/')?.1.parse().ok()
}

async fn open_empty(bucket: &Bucket, key: &str, options: &GetOptions) -> Result<Option<(ObjectMeta, S3Reader)>> {
    let Some(meta) = bucket.head(key).await? else { return Ok(None) };
    if options.if_version.as_ref().is_some_and(|version| *version != meta.version) {
        return Err(changed(key));
    }
    let range = options.range.clone().unwrap_or(0..0);
    if !range.is_empty() && range.start < meta.size_bytes {
        // The object was replaced by a longer one between the two requests.
        let message = "the object changed while it was opened";
        return Err(StoreError::new(StoreErrorKind::Transient, "get", key, message));
    }
    let reader = S3Reader { key: key.to_owned(), body: ByteStream::from_static(b""), missing_bytes: 0 };
    Ok(Some((meta, reader)))
}

fn changed(key: &str) -> StoreError {
    StoreError::new(StoreErrorKind::VersionMismatch, "get", key, "the object is another version than asked for")
}

pub(super) struct S3Reader {
    key: String,
    body: ByteStream,
    missing_bytes: u64,
}

#[async_trait]
impl ObjectReader for S3Reader {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let transient = |message: String| StoreError::new(StoreErrorKind::Transient, "get", &self.key, message);
        let piece = tokio::time::timeout(READ_TIMEOUT, self.body.next())
            .await
            .map_err(|_| transient(format!("no byte of the body came for {} s", READ_TIMEOUT.as_secs())))?
            .transpose()
            .map_err(|error| transient(format!("the body broke off: {}", chain(&error))))?;
        match piece {
            Some(piece) => match self.missing_bytes.checked_sub(piece.len() as u64) {
                Some(left) => {
                    self.missing_bytes = left;
                    Ok(Some(piece))
                }
                None => Err(transient("the body is longer than promised".to_owned())),
            },
            None if self.missing_bytes == 0 => Ok(None),
            None => Err(transient(format!("the body ended {} bytes early", self.missing_bytes))),
        }
    }
}
