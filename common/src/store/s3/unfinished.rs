//! Uploads in parts that were begun and neither completed nor aborted.

use aws_sdk_s3::operation::list_multipart_uploads::ListMultipartUploadsOutput;
use aws_sdk_s3::types::EncodingType;

use super::bucket::{Bucket, modified_ms};
use super::errors::S3Failure;
use super::list::decode;
use crate::store::{ListUploads, Result, StoreError, StoreErrorKind, UnfinishedUpload, UploadMarker, UploadPage};

/// S3's largest page.
const MAX_PAGE: usize = 1000;

/// Needs `s3:ListBucketMultipartUploads` on the bucket.
///
/// versitygw 1.8.0 refuses the marker of its own answer, so a page cannot begin between two uploads of one key there.
/// It begins at the next key instead: the remaining uploads of that key are listed once the earlier ones are removed.
pub(super) async fn list(bucket: &Bucket, options: &ListUploads) -> Result<UploadPage> {
    let answer = match send(bucket, options, true).await {
        Err(failure) if options.after.is_some() && failure.is_invalid_argument() => send(bucket, options, false).await,
        answer => answer,
    };
    page_of(bucket, options, &answer.map_err(|failure| failure.into_error("list uploads", &options.prefix))?)
}

async fn send(
    bucket: &Bucket,
    options: &ListUploads,
    within_key: bool,
) -> std::result::Result<ListMultipartUploadsOutput, S3Failure> {
    let limit = options.limit.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE);
    let after = options.after.as_ref();
    let request = bucket
        .client
        .list_multipart_uploads()
        .bucket(&bucket.name)
        .prefix(bucket.full_key(&options.prefix))
        .set_key_marker(after.map(|after| bucket.full_key(&after.key)))
        .set_upload_id_marker(after.filter(|_| within_key).map(|after| after.id.clone()))
        .set_max_uploads(i32::try_from(limit).ok())
        // XML cannot carry every character that a key may have.
        .encoding_type(EncodingType::Url);
    request.send().await.map_err(S3Failure::from)
}

fn page_of(bucket: &Bucket, options: &ListUploads, output: &ListMultipartUploadsOutput) -> Result<UploadPage> {
    let broken = |what: String| StoreError::new(StoreErrorKind::Other, "list uploads", &options.prefix, what);
    let is_encoded = output.encoding_type() == Some(&EncodingType::Url);
    let relative = |key: Option<&str>| -> Result<String> {
        let key = key.unwrap_or_default();
        let full_key = if is_encoded { decode(key) } else { Some(key.to_owned()) };
        let full_key = full_key.ok_or_else(|| broken(format!("the key '{key}' in the answer is not UTF-8")))?;
        let relative = bucket.relative_key(&full_key).map(str::to_owned);
        relative.ok_or_else(|| broken(format!("the answer holds '{full_key}', which was not asked for")))
    };
    let mut page = UploadPage::default();
    for upload in output.uploads() {
        let id = upload.upload_id().ok_or_else(|| broken("the answer has an upload without an id".to_owned()))?;
        page.uploads.push(UnfinishedUpload {
            key: relative(upload.key())?,
            id: id.to_owned(),
            begun_ms: modified_ms(upload.initiated()),
        });
    }
    if output.is_truncated() == Some(true) {
        let id = output.next_upload_id_marker().unwrap_or_default().to_owned();
        page.next = Some(UploadMarker { key: relative(output.next_key_marker())?, id });
    }
    Ok(page)
}

/// Frees its parts; a missing upload is a success.
pub(super) async fn abort(bucket: &Bucket, key: &str, upload_id: &str) -> Result<()> {
    let request =
        bucket.client.abort_multipart_upload().bucket(&bucket.name).key(bucket.full_key(key)).upload_id(upload_id);
    match request.send().await.map_err(S3Failure::from) {
        Ok(_) => Ok(()),
        Err(failure) if failure.is_no_such_upload() => Ok(()),
        Err(failure) => Err(failure.into_error("abort upload", key)),
    }
}
