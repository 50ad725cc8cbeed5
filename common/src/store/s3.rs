//! S3, or a store with its protocol.
//!
//! - A version is the ETag. After a conditional write without a 200, the object under the key decides, not the answer
//!   (see `conditional`).
//! - The SDK repeats requests (three attempts), with time-outs for connecting, for silence and for one attempt.
//! - A rename copies the pinned version and deletes that version. It is no lock: see [`Store::rename`]. The next rename
//!   finishes one that was interrupted between the two, which it detects by the target's ETag. A copy of an object
//!   uploaded in parts has another ETag: for such an object the next rename reports that the target exists.
//! - Deletes of a version are atomic on AWS; with a custom endpoint a small window remains, see `delete`.
//! - A batch runs 16 requests at a time, and deletes up to 1,000 objects with one request.

mod bucket;
mod client;
mod conditional;
mod delete;
mod errors;
mod list;
mod multipart;
mod put;
mod read;
mod relocate;
mod stale;
mod tags;
mod unfinished;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use self::bucket::Bucket;
use self::client::Connection;
pub use self::client::aws_config;
use self::multipart::S3Upload;
use self::stale::ServerClock;
use super::batch::{answer_all, sort_out};
use super::key::check_key;
use super::{
    Capabilities, DeleteOutcome, GetOptions, ListOptions, ListPage, ListUploads, Location, Metadata, Move,
    MultipartUpload, ObjectMeta, ObjectReader, PutCondition, PutOutcome, RenameOutcome, Result, Store, SurveyOptions,
    SurveyPage, TagOutcome, UnfinishedUpload, UploadPage, Version,
};

/// A place in S3. Endpoint, region and credentials come from the environment, see [`S3Store::connect`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Settings {
    pub bucket: String,
    /// No leading and no trailing `/`; empty = the whole bucket.
    pub prefix: String,
}

/// See the module's documentation. Clones share the connections.
#[derive(Clone)]
pub struct S3Store {
    bucket: Arc<Bucket>,
    clock: ServerClock,
}

impl S3Store {
    /// Reads the usual AWS environment: `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL` (then with path-style addresses),
    /// `AWS_REGION`, credentials from variables, profiles, web identity, container or instance, and
    /// `AWS_REQUEST_CHECKSUM_CALCULATION=when_required` for stores without checksums. Sends no request to the bucket.
    ///
    /// # Errors
    /// No region and no endpoint that would make one unnecessary, or an endpoint that is not a URL.
    pub async fn connect(settings: S3Settings) -> Result<Self> {
        let S3Settings { bucket, prefix } = settings;
        let location = Location::S3 { bucket: bucket.clone(), prefix: prefix.clone() }.to_string();
        let Connection { client, has_custom_endpoint, clock } = client::connect(&location).await?;
        Ok(Self { bucket: Arc::new(Bucket::new(client, bucket, prefix, has_custom_endpoint)), clock })
    }

    /// The tags of an object; `None` if there is certainly no such object.
    ///
    /// # Errors
    /// The store's error.
    pub async fn tags(&self, key: &str) -> Result<Option<Metadata>> {
        check_key("tag", key)?;
        tags::read(&self.bucket, key).await
    }
}

/// The store of a bucket, see [`S3Store::connect`].
///
/// # Errors
/// As [`S3Store::connect`].
pub async fn connect_s3(bucket: &str, prefix: &str) -> Result<Arc<dyn Store>> {
    let settings = S3Settings { bucket: bucket.to_owned(), prefix: prefix.to_owned() };
    Ok(Arc::new(S3Store::connect(settings).await?))
}

#[async_trait]
impl Store for S3Store {
    fn location(&self) -> String {
        self.bucket.location()
    }

    /// An `ETag` is a hash of the content.
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            has_tags: true,
            is_written_in_place: false,
            has_unique_versions: false,
            max_key_bytes: self.bucket.max_key_bytes(),
            folder: None,
        }
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        check_key("head", key)?;
        self.bucket.head(key).await
    }

    async fn open(&self, key: &str, options: GetOptions) -> Result<Option<(ObjectMeta, Box<dyn ObjectReader>)>> {
        check_key("get", key)?;
        let opened = read::open(&self.bucket, key, options).await?;
        Ok(opened.map(|(meta, reader)| (meta, Box::new(reader) as Box<dyn ObjectReader>)))
    }

    async fn put(&self, key: &str, body: Bytes, condition: PutCondition, metadata: &Metadata) -> Result<PutOutcome> {
        check_key("put", key)?;
        put::put(&self.bucket, key, &body, &condition, metadata).await
    }

    async fn multipart(&self, key: &str, metadata: &Metadata) -> Result<Box<dyn MultipartUpload>> {
        check_key("multipart put", key)?;
        Ok(Box::new(S3Upload::start(Arc::clone(&self.bucket), key, metadata).await?))
    }

    async fn refuses_old_requests(&self) -> Result<bool> {
        stale::is_refused(&self.bucket, &self.clock).await
    }

    fn as_of(&self, boot_ms: i64) -> Option<Arc<dyn Store>> {
        let client = stale::client_as_of(&self.bucket.client, &self.clock, boot_ms);
        Some(Arc::new(Self { bucket: Arc::new(self.bucket.over(client)), clock: self.clock.clone() }))
    }

    async fn list(&self, options: &ListOptions) -> Result<ListPage> {
        list::list(&self.bucket, options).await
    }

    async fn survey(&self, options: &SurveyOptions) -> Result<SurveyPage> {
        list::survey(&self.bucket, options).await
    }

    async fn copy(&self, from: &str, source_version: &Version, to: &str) -> Result<()> {
        check_key("copy", from)?;
        check_key("copy", to)?;
        let copied = relocate::copy(&self.bucket, from, source_version, to).await?;
        relocate::require_copied(&copied, from)
    }

    async fn rename(&self, from: &str, source_version: &Version, to: &str) -> Result<RenameOutcome> {
        check_key("rename", from)?;
        check_key("rename", to)?;
        relocate::rename(&self.bucket, from, source_version, to).await
    }

    async fn rename_many(&self, moves: &[Move]) -> Vec<Result<RenameOutcome>> {
        let (refused, valid) = sort_out(moves, |entry| {
            check_key("rename", &entry.from)?;
            check_key("rename", &entry.to)?;
            Ok(entry.clone())
        });
        answer_all(refused, relocate::rename_many(&self.bucket, valid).await)
    }

    async fn delete(&self, key: &str, if_version: Option<&Version>) -> Result<DeleteOutcome> {
        check_key("delete", key)?;
        delete::delete(&self.bucket, key, if_version).await
    }

    async fn delete_many(&self, objects: &[(String, Version)]) -> Vec<Result<DeleteOutcome>> {
        let (refused, valid) = sort_out(objects, |object| check_key("delete", &object.0).map(|()| object.clone()));
        answer_all(refused, delete::delete_many(&self.bucket, valid).await)
    }

    async fn tag(&self, key: &str, tags: &Metadata) -> Result<()> {
        check_key("tag", key)?;
        tags::replace(&self.bucket, key, tags).await
    }

    async fn tag_version(&self, key: &str, version: &Version, tags: &Metadata) -> Result<TagOutcome> {
        check_key("tag", key)?;
        tags::tag_version(&self.bucket, key, version, tags).await
    }

    async fn unfinished_uploads(&self, options: &ListUploads) -> Result<UploadPage> {
        unfinished::list(&self.bucket, options).await
    }

    async fn abort_upload(&self, upload: &UnfinishedUpload) -> Result<()> {
        check_key("abort upload", &upload.key)?;
        unfinished::abort(&self.bucket, &upload.key, &upload.id).await
    }
}
