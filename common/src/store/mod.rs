//! The store seam: objects under string keys, in a bucket or a directory.
//!
//! # What every implementation guarantees
//!
//! 1. An object is visible under its key whole or not at all, and a put that
//!    returned `Ok` survives a crash of this process and (local) of the machine.
//! 2. [`Store::put`] with [`PutCondition::IfAbsent`] and
//!    [`MultipartUpload::complete`] with it have at most one winner for a key,
//!    whoever races. A loser gets [`PutOutcome::AlreadyExists`] and the winner's
//!    object is untouched. An `AlreadyExists` may be *ours*, from a request
//!    whose answer was lost: the caller reads the object and compares.
//! 3. [`Store::list`] is in ascending byte order of the keys, complete up to the
//!    page's end, and never answers a short page in place of an error. [`Store::survey`] lists in the same order what
//!    can be listed, and names everything that cannot: a caller that needs all of it asks for a list.
//! 4. A rename or a delete that names a version takes that version only: a newer object under the key stays. Stores that
//!    cannot delete on a condition are asked first, which leaves a small window; each implementation says so.
//! 5. A failed look-up is never reported as "not there": only a definite answer
//!    becomes `None`.
//!
//! One conformance suite (`conformance`, behind the feature of that name) runs over every implementation.

mod batch;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod error;
mod key;
mod local;
mod location;
mod place;
mod probe;
mod retry;
mod s3;
mod survey;
mod unfinished;
mod writable;

use std::collections::BTreeMap;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

pub use error::{StoreError, StoreErrorKind};
pub use local::{LocalStore, is_later_state};
pub use location::{Location, LocationError};
pub use place::{FileId, Place};
pub use probe::probe;
pub use retry::{OnAnswer, OnRetry, RETRIES_PER_SECOND, RETRY_BURST, RetryPolicy, RetryingStore, TOLERATED_OUTAGE};
pub use s3::{S3Settings, S3Store, aws_config};
pub use survey::{PassedOver, PassedOverKind, SurveyOptions, SurveyPage};
pub use unfinished::{ListUploads, UnfinishedUpload, UploadMarker, UploadPage};
pub use writable::check_writable;

pub type Result<T> = std::result::Result<T, StoreError>;

/// Names one version of an object's content: an S3 ETag, or for local files
/// size, modification time and inode. Opaque; equal means the same content.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version(pub String);

/// What a listing or a head says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Key relative to the store's root, `/` between segments.
    pub key: String,
    pub size_bytes: u64,
    pub version: Version,
    /// Last modification, milliseconds since the Unix epoch.
    pub modified_ms: i64,
}

/// What must hold of the key for a put to take effect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PutCondition {
    /// Replace whatever is there.
    #[default]
    None,
    /// Only if no object has the key (`If-None-Match: *`).
    IfAbsent,
    /// Only if the key still holds this version (`If-Match`).
    IfVersion(Version),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutOutcome {
    Written(Version),
    /// `IfAbsent` found an object under the key.
    AlreadyExists,
    /// `IfVersion` found another version, or none.
    VersionMismatch,
}

/// User metadata of an object. Local directories have no place for it and drop it,
/// so whatever must be read back also stands inside the object.
pub type Metadata = BTreeMap<String, String>;

/// Which part of an object to read.
#[derive(Debug, Clone, Default)]
pub struct GetOptions {
    /// Byte range, end exclusive; clipped to the object's end.
    pub range: Option<Range<u64>>,
    /// Answer [`StoreErrorKind::VersionMismatch`] unless the object is this version.
    pub if_version: Option<Version>,
}

/// One page of a listing.
#[derive(Debug, Clone, Default)]
pub struct ListPage {
    pub objects: Vec<ObjectMeta>,
    /// With a delimiter: the folded "directories", each ending in `/`.
    pub prefixes: Vec<String>,
    /// True when keys after the last one of this page exist.
    pub more: bool,
}

#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Only keys that start with this string (not necessarily a whole segment).
    pub prefix: String,
    /// Only keys strictly greater than this one; with a delimiter only folded prefixes greater than it, too.
    /// So the last entry of a page, of either kind, continues it.
    pub start_after: Option<String>,
    /// Fold keys at `/` after the prefix.
    pub delimiter: bool,
    /// At most this many entries (objects plus prefixes); `None` = the store's page size.
    pub limit: Option<usize>,
}

/// A body read piece by piece.
#[async_trait]
pub trait ObjectReader: Send {
    /// The next piece, `None` at the verified end of the requested range. A body that ends
    /// early is an error, never `None`.
    async fn next(&mut self) -> Result<Option<Bytes>>;
}

/// A multipart upload. Nothing is visible before `complete`.
#[async_trait]
pub trait MultipartUpload: Send {
    /// Appends a part. All parts but the last must have at least [`MIN_PART_BYTES`].
    async fn part(&mut self, bytes: Bytes) -> Result<()>;
    async fn complete(self: Box<Self>, condition: PutCondition) -> Result<PutOutcome>;
    /// Gives the upload up and frees what it holds.
    async fn abort(self: Box<Self>) -> Result<()>;
}

/// The smallest part S3 accepts, except for the last.
pub const MIN_PART_BYTES: usize = 5 * 1024 * 1024;

/// Parts of [`Store::put_in_parts`].
const PART_BYTES: usize = 8 * 1024 * 1024;
const _: () = assert!(PART_BYTES >= MIN_PART_BYTES, "S3 takes no smaller parts");

/// A body that need not be in memory as a whole.
pub trait Parts: Send + Sync {
    fn len_bytes(&self) -> usize;

    /// # Errors
    /// Of where it is.
    fn part(&self, range: std::ops::Range<usize>) -> std::io::Result<Bytes>;
}

impl Parts for Bytes {
    fn len_bytes(&self) -> usize {
        self.len()
    }

    fn part(&self, range: std::ops::Range<usize>) -> std::io::Result<Bytes> {
        Ok(self.slice(range))
    }
}

/// See the module's documentation for the guarantees.
#[async_trait]
pub trait Store: Send + Sync {
    /// The location in a form for people and logs: `s3://bucket/prefix`, `/dir`.
    fn location(&self) -> String;

    /// `None` if there is certainly no such object.
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>>;

    /// Does what [`Store::head`] does for each key, and answers in their order. In a folder a batch costs far less than
    /// its keys one by one: hand over up to 1,000.
    async fn head_many(&self, keys: &[String]) -> Vec<Result<Option<ObjectMeta>>> {
        let mut answers = Vec::with_capacity(keys.len());
        for key in keys {
            answers.push(self.head(key).await);
        }
        answers
    }

    /// Opens an object for reading; `None` if there is certainly no such object.
    async fn open(&self, key: &str, options: GetOptions) -> Result<Option<(ObjectMeta, Box<dyn ObjectReader>)>>;

    async fn put(&self, key: &str, body: Bytes, condition: PutCondition, metadata: &Metadata) -> Result<PutOutcome>;

    async fn multipart(&self, key: &str, metadata: &Metadata) -> Result<Box<dyn MultipartUpload>>;

    /// Puts as a multipart upload, which a failure costs a part of and not all that was sent. Gives the upload up when
    /// it fails.
    async fn put_in_parts(
        &self,
        key: &str,
        body: &dyn Parts,
        condition: PutCondition,
        metadata: &Metadata,
    ) -> Result<PutOutcome> {
        let mut upload = self.multipart(key, metadata).await?;
        let mut start = 0;
        while start < body.len_bytes() {
            let end = (start + PART_BYTES).min(body.len_bytes());
            let sent = match body.part(start..end) {
                Ok(part) => upload.part(part).await,
                Err(error) => Err(StoreError::new(StoreErrorKind::Transient, "read the body", key, error)),
            };
            if let Err(error) = sent {
                if let Err(abort) = upload.abort().await {
                    tracing::debug!(key, error = %abort, "an upload could not be given up; the bucket's lifecycle rule removes it");
                }
                return Err(error);
            }
            start = end;
        }
        upload.complete(condition).await
    }

    /// # Errors
    /// Also when only a part of what was asked for cannot be listed.
    async fn list(&self, options: &ListOptions) -> Result<ListPage>;

    /// Lists like [`Store::list`], but goes on past what cannot be listed and says what that was. For stores that others
    /// fill: one folder without permission must not hide all others.
    ///
    /// # Errors
    /// Nothing can be listed: the store does not answer, or the folder that the prefix names cannot be read.
    async fn survey(&self, options: &SurveyOptions) -> Result<SurveyPage> {
        Ok(SurveyPage::complete(self.list(&options.strict()).await?))
    }

    /// Copies within the store, on the server's side where there is one, if the source is still `source_version`.
    /// Never a lock: the destination is overwritten.
    async fn copy(&self, from: &str, source_version: &Version, to: &str) -> Result<()>;

    /// Moves the object if the source is still `source_version`: content under `to` is exactly that
    /// version, and `from` is gone unless someone put a newer version there meanwhile (which then stays).
    /// An existing object under `to` is never overwritten: `AlreadyExists`. Idempotent for the caller who
    /// checks `to` first.
    async fn rename(&self, from: &str, source_version: &Version, to: &str) -> Result<RenameOutcome>;

    /// Does what [`Store::rename`] does for each move, as if one after another, and answers in their order. One that
    /// fails leaves the others alone. A batch costs far less than its moves one by one: hand over up to 1,000.
    async fn rename_many(&self, moves: &[Move]) -> Vec<Result<RenameOutcome>> {
        let mut outcomes = Vec::with_capacity(moves.len());
        for Move { from, version, to } in moves {
            outcomes.push(self.rename(from, version, to).await);
        }
        outcomes
    }

    /// Deletes the object, with `if_version` only if it still is that version. A key that is not there is a success.
    async fn delete(&self, key: &str, if_version: Option<&Version>) -> Result<DeleteOutcome>;

    /// Does what [`Store::delete`] with a version does for each key, answers in their order, and lets none that fails
    /// stop the others.
    async fn delete_many(&self, objects: &[(String, Version)]) -> Vec<Result<DeleteOutcome>> {
        let mut outcomes = Vec::with_capacity(objects.len());
        for (key, version) in objects {
            outcomes.push(self.delete(key, Some(version)).await);
        }
        outcomes
    }

    /// Replaces the tags of an object. Local directories answer [`StoreErrorKind::Unsupported`].
    async fn tag(&self, key: &str, tags: &Metadata) -> Result<()>;

    /// Adds tags to an object, beside those it has, if it still is `version`. When it is replaced at that very moment,
    /// the tags are taken off the newer object again. Local directories answer [`StoreErrorKind::Unsupported`].
    ///
    /// # Errors
    /// Besides the usual ones [`StoreErrorKind::Other`] if a newer object was tagged and that could not be undone.
    async fn tag_version(&self, key: &str, version: &Version, tags: &Metadata) -> Result<TagOutcome>;

    /// Uploads that were begun and neither completed nor given up, those of living writers among them. In no order.
    /// Of a key with several where a page ends, a store may leave out those that did not fit.
    ///
    /// # Errors
    /// Besides the usual ones [`StoreErrorKind::Unsupported`] where the store does not know.
    async fn unfinished_uploads(&self, options: &ListUploads) -> Result<UploadPage> {
        Err(StoreError::new(StoreErrorKind::Unsupported, "list uploads", &options.prefix, "this store does not tell"))
    }

    /// Frees what an unfinished upload holds. Objects are never touched, and one that ended meanwhile is a success.
    ///
    /// # Errors
    /// Besides the usual ones [`StoreErrorKind::VersionMismatch`] if it was written to since it was listed, where the
    /// store notices, and [`StoreErrorKind::Unsupported`] where it does not know.
    async fn abort_upload(&self, upload: &UnfinishedUpload) -> Result<()> {
        Err(StoreError::new(StoreErrorKind::Unsupported, "abort upload", &upload.key, "this store does not tell"))
    }
}

/// One entry of [`Store::rename_many`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    pub from: String,
    /// The version that `from` must still be.
    pub version: Version,
    pub to: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenameOutcome {
    Moved,
    /// The source is gone or is another version; nothing was changed.
    SourceChanged,
    /// Something already stands under the target; nothing was changed.
    TargetExists,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteOutcome {
    /// Nothing stands under the key any more, or nothing did.
    Deleted,
    /// Another version stands under the key; it was left alone.
    VersionMismatch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagOutcome {
    Tagged,
    /// The object is gone or is another version, which does not carry the tags.
    VersionMismatch,
}

/// Reads a whole object, refusing one larger than `limit_bytes`; `None` if there is certainly none.
pub async fn read_all(store: &dyn Store, key: &str, limit_bytes: u64) -> Result<Option<(ObjectMeta, Bytes)>> {
    let Some((meta, mut reader)) = store.open(key, GetOptions::default()).await? else {
        return Ok(None);
    };
    if meta.size_bytes > limit_bytes {
        return Err(StoreError::new(
            StoreErrorKind::TooLarge,
            "get",
            key,
            format!("{} bytes, more than the limit of {limit_bytes}", meta.size_bytes),
        ));
    }
    let mut body = bytes::BytesMut::with_capacity(usize::try_from(meta.size_bytes).unwrap_or(0));
    while let Some(piece) = reader.next().await? {
        body.extend_from_slice(&piece);
    }
    Ok(Some((meta, body.freeze())))
}
