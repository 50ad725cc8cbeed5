//! One page of a listing, strict or as a survey.

use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::types::{EncodingType, Object};

use super::bucket::{Bucket, meta_from};
use super::errors::S3Failure;
use crate::store::{ListOptions, ListPage, ObjectMeta, Result, StoreError, StoreErrorKind, SurveyOptions, SurveyPage};

/// S3's largest page.
const MAX_PAGE: usize = 1000;

/// Continues while a page holds only folder markers, so that a page with `more` has a last key to continue from.
pub(super) async fn list(bucket: &Bucket, options: &ListOptions) -> Result<ListPage> {
    let mut continuation = None;
    loop {
        let output = send(bucket, options, continuation).await?;
        let page = page_of(bucket, options, &output)?;
        let is_empty = page.objects.is_empty() && page.prefixes.is_empty();
        continuation = output.next_continuation_token;
        if !is_empty || !page.more || continuation.is_none() {
            return Ok(page);
        }
    }
}

/// Continues while a page ends with a key that cannot be decoded, so that there is one to continue from.
pub(super) async fn survey(bucket: &Bucket, options: &SurveyOptions) -> Result<SurveyPage> {
    let options = options.strict();
    let mut page = SurveyPage::default();
    let mut continuation = None;
    loop {
        let output = send(bucket, &options, continuation).await?;
        add_to(&mut page, bucket, &options, &output)?;
        continuation = output.next_continuation_token;
        if output.is_truncated != Some(true) || page.next.is_some() || continuation.is_none() {
            return Ok(page);
        }
    }
}

async fn send(bucket: &Bucket, options: &ListOptions, continuation: Option<String>) -> Result<ListObjectsV2Output> {
    let limit = options.limit.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE);
    bucket
        .client
        .list_objects_v2()
        .bucket(&bucket.name)
        .prefix(bucket.full_key(&options.prefix))
        .set_delimiter(options.delimiter.then(|| "/".to_owned()))
        .set_start_after(start_after(options).map(|key| bucket.full_key(&key)))
        .set_max_keys(i32::try_from(limit).ok())
        .set_continuation_token(continuation)
        // XML cannot represent every character that a key may have; one such key would make the whole page unreadable.
        .encoding_type(EncodingType::Url)
        .send()
        .await
        .map_err(|error| S3Failure::from(error).into_error("list", &options.prefix))
}

/// With a delimiter S3 compares keys, not folded prefixes: after `a/` it would return the prefix `a/` again for the
/// keys in it. The seam's semantics are to start after every key of that prefix.
fn start_after(options: &ListOptions) -> Option<String> {
    let after = options.start_after.clone()?;
    let folded = options.delimiter.then(|| after.strip_prefix(&options.prefix)?.find('/')).flatten();
    Some(match folded {
        Some(slash) => format!("{}{}", &after[..=options.prefix.len() + slash], char::MAX),
        None => after,
    })
}

fn page_of(bucket: &Bucket, options: &ListOptions, output: &ListObjectsV2Output) -> Result<ListPage> {
    let mut page = ListPage { more: output.is_truncated() == Some(true), ..ListPage::default() };
    for object in output.contents() {
        let key = relative(bucket, options, output, object.key().unwrap_or_default())?;
        if !is_folder_marker(&key, object) {
            page.objects.push(meta_of(&key, object)?);
        }
    }
    for prefix in output.common_prefixes() {
        page.prefixes.push(relative(bucket, options, output, prefix.prefix().unwrap_or_default())?);
    }
    Ok(page)
}

fn add_to(page: &mut SurveyPage, bucket: &Bucket, options: &ListOptions, output: &ListObjectsV2Output) -> Result<()> {
    page.next = None;
    for object in output.contents() {
        let full_key = object.key().unwrap_or_default();
        page.next = match decoded(output, full_key) {
            Some(full_key) => {
                let key = within(bucket, options, &full_key)?;
                if !is_folder_marker(&key, object) {
                    match meta_of(&key, object) {
                        Ok(meta) => page.objects.push(meta),
                        Err(error) => page.unlisted.push(error),
                    }
                }
                Some(key)
            }
            None => {
                let what = "the key is not UTF-8: rename the object";
                page.unlisted.push(StoreError::new(StoreErrorKind::InvalidKey, "list", full_key, what));
                None
            }
        };
    }
    if output.is_truncated() != Some(true) {
        page.next = None;
    }
    Ok(())
}

fn meta_of(key: &str, object: &Object) -> Result<ObjectMeta> {
    meta_from("list", key, object.size(), object.e_tag(), object.last_modified())
}

/// A key of the answer, relative to the store's root.
fn relative(bucket: &Bucket, options: &ListOptions, output: &ListObjectsV2Output, full_key: &str) -> Result<String> {
    let broken = || {
        let what = format!("the key '{full_key}' in the answer is not UTF-8");
        StoreError::new(StoreErrorKind::Other, "list", &options.prefix, what)
    };
    within(bucket, options, &decoded(output, full_key).ok_or_else(broken)?)
}

/// `None` if it is not UTF-8.
fn decoded(output: &ListObjectsV2Output, full_key: &str) -> Option<String> {
    let is_encoded = output.encoding_type() == Some(&EncodingType::Url);
    if is_encoded { decode(full_key) } else { Some(full_key.to_owned()) }
}

fn within(bucket: &Bucket, options: &ListOptions, full_key: &str) -> Result<String> {
    bucket.relative_key(full_key).map(str::to_owned).ok_or_else(|| {
        let what = format!("the answer holds '{full_key}', which was not asked for");
        StoreError::new(StoreErrorKind::Other, "list", &options.prefix, what)
    })
}

/// The marker that consoles and tools create for an empty "folder". It is not an object of the store.
fn is_folder_marker(key: &str, object: &Object) -> bool {
    (key.is_empty() || key.ends_with('/')) && object.size().unwrap_or(0) == 0
}

/// Decodes S3's form encoding: `%XX`, and `+` for a space.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn encoded_keys_are_read_as_they_were_written() {
        for (encoded, key) in [("a+b", "a b"), ("a%2Bb", "a+b"), ("a%252Fb/c", "a%2Fb/c"), ("%C3%BC", "ü")] {
            assert_eq!(decode(encoded).as_deref(), Some(key));
        }
        assert_eq!(decode("%C3"), None);
        assert_eq!(decode("%4"), None);
    }

    fn object(key: &str, etag: Option<&str>, size: Option<i64>) -> Object {
        Object::builder().key(key).set_e_tag(etag.map(str::to_owned)).set_size(size).build()
    }

    fn surveyed(objects: Vec<Object>, is_truncated: bool) -> SurveyPage {
        let config = aws_sdk_s3::Config::builder().behavior_version_latest().build();
        let bucket = Bucket::new(aws_sdk_s3::Client::from_conf(config), "b".to_owned(), "zone".to_owned(), false);
        let output = ListObjectsV2Output::builder()
            .set_contents(Some(objects))
            .encoding_type(EncodingType::Url)
            .is_truncated(is_truncated)
            .build();
        let mut page = SurveyPage::default();
        add_to(&mut page, &bucket, &ListOptions::default(), &output).unwrap();
        page
    }

    #[test]
    fn an_object_without_version_or_length_is_named_and_hides_no_other() {
        let page = surveyed(
            vec![
                object("zone/pending/", Some("e"), Some(0)),
                object("zone/pending/a", None, Some(1)),
                object("zone/pending/b", Some(""), Some(1)),
                object("zone/pending/c", Some("e"), None),
                object("zone/pending/d+e", Some("e"), Some(1)),
                object("zone/pending/%FF", Some("e"), Some(1)),
                object("zone/pending/f", None, Some(1)),
            ],
            true,
        );
        let keys: Vec<&str> = page.objects.iter().map(|object| object.key.as_str()).collect();
        assert_eq!(keys, ["pending/d e"]);
        let unlisted: Vec<&str> = page.unlisted.iter().map(|error| error.key.as_str()).collect();
        assert_eq!(unlisted, ["pending/a", "pending/b", "pending/c", "zone/pending/%FF", "pending/f"]);
        assert_eq!(page.next.as_deref(), Some("pending/f"), "it goes on after what it could not list, too");
    }

    #[test]
    fn a_survey_ends_with_the_listing_and_does_not_go_on_from_a_key_that_cannot_be_read() {
        assert_eq!(surveyed(vec![object("zone/a", Some("e"), Some(1))], false).next, None);
        let page = surveyed(vec![object("zone/a", Some("e"), Some(1)), object("zone/%FF", Some("e"), Some(1))], true);
        assert_eq!((page.objects.len(), page.next), (1, None), "more has to be asked for at once");
    }

    #[test]
    fn a_page_after_a_folded_prefix_starts_behind_all_its_keys() {
        let after = |prefix: &str, start_after: &str, delimiter| {
            let (prefix, start_after) = (prefix.to_owned(), Some(start_after.to_owned()));
            super::start_after(&ListOptions { prefix, start_after, delimiter, limit: None }).unwrap_or_default()
        };
        assert_eq!(after("", "a/", true), format!("a/{}", char::MAX));
        assert_eq!(after("p/", "p/a/b", true), format!("p/a/{}", char::MAX));
        assert_eq!(after("p/", "p/a", true), "p/a");
        assert_eq!(after("p/", "p/a/", false), "p/a/");
    }
}
