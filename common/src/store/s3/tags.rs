//! Tags of objects. A tag request cannot be pinned to an ETag, so the object is read before and after.

use aws_sdk_s3::types::{Tag, Tagging};

use super::bucket::Bucket;
use super::conditional::{MAX_TRIES, pause_before};
use super::errors::S3Failure;
use crate::store::{Metadata, Result, StoreError, StoreErrorKind, TagOutcome, Version};

/// `None` if there is certainly no such object.
pub(super) async fn read(bucket: &Bucket, key: &str) -> Result<Option<Metadata>> {
    let request = bucket.client.get_object_tagging().bucket(&bucket.name).key(bucket.full_key(key));
    match request.send().await.map_err(S3Failure::from) {
        Ok(output) => Ok(Some(output.tag_set.into_iter().map(|tag| (tag.key, tag.value)).collect())),
        Err(failure) if failure.is_no_such_key() => Ok(None),
        // The answer of some stores other than AWS for an object without tags.
        Err(failure) if failure.is_no_such_tag_set() => Ok(Some(Metadata::new())),
        Err(failure) => Err(failure.into_error("tag", key)),
    }
}

pub(super) async fn replace(bucket: &Bucket, key: &str, tags: &Metadata) -> Result<()> {
    if replace_if_there(bucket, key, tags).await? {
        return Ok(());
    }
    Err(StoreError::new(StoreErrorKind::Other, "tag", key, "there is no such object"))
}

/// False if there is certainly no such object.
async fn replace_if_there(bucket: &Bucket, key: &str, tags: &Metadata) -> Result<bool> {
    let tagging = tagging(tags).map_err(|failure| failure.into_error("tag", key))?;
    let request = bucket.client.put_object_tagging().bucket(&bucket.name).key(bucket.full_key(key)).tagging(tagging);
    match request.send().await.map_err(S3Failure::from) {
        Ok(_) => Ok(true),
        Err(failure) if failure.is_no_such_key() => Ok(false),
        Err(failure) => Err(failure.into_error("tag", key)),
    }
}

fn tagging(tags: &Metadata) -> std::result::Result<Tagging, S3Failure> {
    let tags = tags
        .iter()
        .map(|(name, value)| Tag::builder().key(name).value(value).build())
        .collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(Tagging::builder().set_tag_set(Some(tags)).build()?)
}

/// See [`crate::store::Store::tag_version`]. A crash between the tag and the second read leaves the tag on a newer
/// object that was put concurrently.
pub(super) async fn tag_version(bucket: &Bucket, key: &str, version: &Version, tags: &Metadata) -> Result<TagOutcome> {
    if !bucket.is_still(key, version).await? {
        return Ok(TagOutcome::VersionMismatch);
    }
    let Some(before) = read(bucket, key).await? else { return Ok(TagOutcome::VersionMismatch) };
    let mut wanted = before.clone();
    wanted.extend(tags.clone());
    if wanted != before && !replace_if_there(bucket, key, &wanted).await? {
        return Ok(TagOutcome::VersionMismatch);
    }
    if bucket.is_still(key, version).await? {
        return Ok(TagOutcome::Tagged);
    }
    take_off_at_last(bucket, key, tags).await?;
    Ok(TagOutcome::VersionMismatch)
}

/// The caller cannot repeat this: at its next attempt the object has another version from the start.
async fn take_off_at_last(bucket: &Bucket, key: &str, tags: &Metadata) -> Result<()> {
    let mut last_message = String::new();
    for attempt in 0..MAX_TRIES {
        pause_before(attempt).await;
        match take_off(bucket, key, tags).await {
            Ok(()) => return Ok(()),
            Err(error) => last_message = error.message,
        }
    }
    let names = tags.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let message = format!(
        "the object was replaced while it was tagged, and the newer one now wrongly carries the tag {names}; \
         remove it by hand: {last_message}"
    );
    Err(StoreError::new(StoreErrorKind::Other, "tag", key, message))
}

async fn take_off(bucket: &Bucket, key: &str, tags: &Metadata) -> Result<()> {
    let Some(found) = read(bucket, key).await? else { return Ok(()) };
    let left = without(&found, tags);
    if left != found {
        replace_if_there(bucket, key, &left).await?;
    }
    Ok(())
}

/// A tag of the same name with another value belongs to another program and stays.
fn without(found: &Metadata, tags: &Metadata) -> Metadata {
    found.iter().filter(|(name, value)| tags.get(*name) != Some(value)).map(|(n, v)| (n.clone(), v.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_tags_are_taken_off() {
        let set = |pairs: &[(&str, &str)]| -> Metadata {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let found = set(&[("ingested", "2021"), ("owner", "x"), ("state", "new")]);
        let ours = set(&[("ingested", "2021"), ("state", "old")]);
        assert_eq!(without(&found, &ours), set(&[("owner", "x"), ("state", "new")]));
    }
}
