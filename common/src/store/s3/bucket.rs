//! The bucket and its common operations: full keys, and a reliable head.

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::DateTime;

use super::errors::S3Failure;
use crate::store::key::MAX_KEY_BYTES;
use crate::store::{ObjectMeta, Result, StoreError, StoreErrorKind, Version};

/// How often an object that appears and disappears between two requests is read.
const MAX_ATTEMPTS: usize = 3;

pub(super) struct Bucket {
    pub client: Client,
    pub name: String,
    /// No leading and no trailing `/`; empty = the whole bucket.
    prefix: String,
    pub has_custom_endpoint: bool,
}

impl Bucket {
    pub fn new(client: Client, name: String, prefix: String, has_custom_endpoint: bool) -> Self {
        Self { client, name, prefix, has_custom_endpoint }
    }

    /// The same with another client.
    pub fn over(&self, client: Client) -> Self {
        Self { client, name: self.name.clone(), prefix: self.prefix.clone(), ..*self }
    }

    pub fn location(&self) -> String {
        if self.prefix.is_empty() {
            format!("s3://{}", self.name)
        } else {
            format!("s3://{}/{}", self.name, self.prefix)
        }
    }

    /// How long keys may be, after the prefix.
    pub fn max_key_bytes(&self) -> usize {
        MAX_KEY_BYTES.saturating_sub(self.full_key("").len())
    }

    /// The key in the bucket; also turns a prefix of keys into a prefix of full keys.
    pub fn full_key(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.prefix) }
    }

    pub fn relative_key<'k>(&self, full_key: &'k str) -> Option<&'k str> {
        if self.prefix.is_empty() {
            return Some(full_key);
        }
        full_key.strip_prefix(self.prefix.as_str())?.strip_prefix('/')
    }

    /// `None` only on S3's explicit answer. The answer to a HEAD has no body: its 404 may also mean a missing bucket,
    /// an access key that the store no longer has, or a proxy. A GET of one byte distinguishes them.
    pub async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        for _ in 0..MAX_ATTEMPTS {
            let request = self.client.head_object().bucket(&self.name).key(self.full_key(key));
            match request.send().await.map_err(S3Failure::from) {
                Ok(output) => {
                    return meta_from("head", key, output.content_length(), output.e_tag(), output.last_modified())
                        .map(Some);
                }
                Err(failure) if failure.is_bare_not_found() || failure.is_no_such_key() => {}
                Err(failure) => return Err(failure.into_error("head", key)),
            }
            let request = self.client.get_object().bucket(&self.name).key(self.full_key(key)).range("bytes=0-0");
            match request.send().await.map_err(S3Failure::from) {
                Err(failure) if failure.is_no_such_key() => return Ok(None),
                // Put between the two requests.
                Ok(_) => {}
                Err(failure) if failure.is_range_beyond_end() => {}
                Err(failure) => return Err(failure.into_error("head", key)),
            }
        }
        let message = "the store says at once that the object is there and that it is not";
        Err(StoreError::new(StoreErrorKind::Transient, "head", key, message))
    }

    pub async fn is_still(&self, key: &str, version: &Version) -> Result<bool> {
        Ok(self.head(key).await?.is_some_and(|meta| meta.version == *version))
    }
}

/// The properties in the head of an answer.
pub(super) fn meta_from(
    operation: &'static str,
    key: &str,
    length: Option<i64>,
    etag: Option<&str>,
    modified: Option<&DateTime>,
) -> Result<ObjectMeta> {
    let incomplete = || StoreError::new(StoreErrorKind::Other, operation, key, "the answer has no length or no ETag");
    Ok(ObjectMeta {
        key: key.to_owned(),
        size_bytes: length.and_then(size_bytes).ok_or_else(incomplete)?,
        version: version_from(etag).ok_or_else(incomplete)?,
        modified_ms: modified_ms(modified),
    })
}

/// Some stores quote the ETag in one answer and not in another; versions must compare equal.
pub(super) fn version_from(etag: Option<&str>) -> Option<Version> {
    let etag = etag.filter(|etag| !etag.is_empty())?;
    let is_quoted = etag.starts_with('"') || etag.starts_with("W/");
    Some(Version(if is_quoted { etag.to_owned() } else { format!("\"{etag}\"") }))
}

pub(super) fn size_bytes(length: i64) -> Option<u64> {
    u64::try_from(length).ok()
}

pub(super) fn modified_ms(time: Option<&DateTime>) -> i64 {
    time.and_then(|time| time.to_millis().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_takes_room_of_keys() {
        let config = aws_sdk_s3::Config::builder().behavior_version_latest().build();
        let of = |prefix: &str| Bucket::new(Client::from_conf(config.clone()), "b".into(), prefix.into(), true);
        assert_eq!(of("").max_key_bytes(), 1_024);
        assert_eq!(of("ab/cd").max_key_bytes(), 1_024 - 6);
    }
}
