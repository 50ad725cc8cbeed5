//! The store seam: objects under string keys, in a bucket or a directory.
//!
//! # Guarantees of every implementation
//!
//! 1. An object is visible under its key completely or not at all. A put that returned `Ok` survives a crash of this
//!    process and (local) of the machine.
//! 2. [`Store::put`] with [`PutCondition::IfAbsent`] and [`MultipartUpload::complete`] with it have at most one winner
//!    for a key. A loser gets [`PutOutcome::AlreadyExists`] and does not change the winner's object. An `AlreadyExists`
//!    may come from the caller's own earlier request whose answer was lost: the caller reads the object and compares.
//! 3. [`Store::list`] is in ascending byte order of the keys and complete up to the page's end. It never returns a
//!    short page instead of an error. [`Store::survey`] lists in the same order everything that can be listed, and
//!    reports everything that cannot: a caller that needs all of it uses `list`.
//! 4. A rename or a delete that names a version affects only that version: a newer object under the key stays. Stores
//!    without conditional deletes are read first, which leaves a small window; each implementation documents it.
//! 5. A failed look-up is never reported as an absent object: only a definite answer becomes `None`.
//! 6. [`Store::lock`] excludes other processes until the lock is dropped and every call that began meanwhile has ended.
//!
//! One conformance suite (`conformance`, behind the feature of that name) runs over every implementation.

mod batch;
mod capabilities;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod error;
mod folders;
mod key;
mod local;
mod location;
mod lock;
#[cfg(any(test, feature = "conformance"))]
mod memory;
mod place;
mod probe;
mod read_all;
mod retry;
#[cfg(feature = "s3")]
mod s3;
mod survey;
mod unfinished;
#[cfg(any(test, not(feature = "s3")))]
mod without_s3;
mod writable;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use capabilities::Capabilities;
pub use error::{StoreError, StoreErrorKind};
pub use folders::folders;
pub use local::{LocalStore, is_later_state};
pub use location::{Location, LocationError};
pub use lock::{LockKind, StoreLock};
#[cfg(any(test, feature = "conformance"))]
pub use memory::MemoryStore;
pub use place::{FileId, Place};
pub use probe::probe;
pub use read_all::read_all;
pub use retry::{OnAnswer, OnRetry, RETRIES_PER_SECOND, RETRY_BURST, RetryPolicy, RetryingStore, TOLERATED_OUTAGE};
#[cfg(feature = "s3")]
pub use s3::{S3Settings, S3Store, aws_config, connect_s3};
pub use survey::{PassedOver, PassedOverKind, SurveyOptions, SurveyPage};
pub use unfinished::{ListUploads, UnfinishedUpload, UploadMarker, UploadPage};
#[cfg(not(feature = "s3"))]
pub use without_s3::connect_s3;
pub use writable::{check_writable, free_bytes};

pub type Result<T> = std::result::Result<T, StoreError>;

/// Identifies one version of an object's content: an S3 ETag, or for local files size, modification time and inode.
/// Opaque; equal means the same content.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version(pub String);

/// The properties that a listing or a head returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Key relative to the store's root, `/` between segments.
    pub key: String,
    pub size_bytes: u64,
    pub version: Version,
    /// Last modification, milliseconds since the Unix epoch.
    pub modified_ms: i64,
}

/// The condition under which a put takes effect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PutCondition {
    /// Replaces any object under the key.
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

/// User metadata of an object. Local directories cannot store it and drop it, so metadata that must be read back is
/// also part of the content.
pub type Metadata = BTreeMap<String, String>;

/// The part of an object to read.
#[derive(Debug, Clone, Default)]
pub struct GetOptions {
    /// Byte range, end exclusive; clipped to the object's end.
    pub range: Option<Range<u64>>,
    /// Return [`StoreErrorKind::VersionMismatch`] unless the object has this version.
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

/// A body read in pieces.
#[async_trait]
pub trait ObjectReader: Send {
    /// The next piece; `None` at the verified end of the requested range. A body that ends early is an error, never
    /// `None`.
    async fn next(&mut self) -> Result<Option<Bytes>>;
}

/// A multipart upload. Nothing is visible before `complete`.
#[async_trait]
pub trait MultipartUpload: Send {
    /// Appends a part. All parts but the last must have at least [`MIN_PART_BYTES`].
    async fn part(&mut self, bytes: Bytes) -> Result<()>;
    async fn complete(self: Box<Self>, condition: PutCondition) -> Result<PutOutcome>;
    /// Aborts the upload and frees its storage.
    async fn abort(self: Box<Self>) -> Result<()>;
}

/// Keys of a call of [`Store::head_many`].
pub const HEADS_AT_ONCE: usize = 1_000;

/// The smallest part S3 accepts, except for the last.
pub const MIN_PART_BYTES: usize = 5 * 1024 * 1024;

/// The part size of [`Store::put_in_parts`]: the memory that a body on disk takes.
pub const PART_BYTES: usize = 8 * 1024 * 1024;
const _: () = assert!(PART_BYTES >= MIN_PART_BYTES, "S3 takes no smaller parts");

/// A body that need not be completely in memory.
pub trait Parts: Send + Sync {
    fn len_bytes(&self) -> usize;

    /// # Errors
    /// The error of the body's storage.
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
    /// The location for people and logs: `s3://bucket/prefix`, `/dir`.
    fn location(&self) -> String;

    fn capabilities(&self) -> Capabilities;

    /// `None` if there is certainly no such object.
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>>;

    /// Calls [`Store::head`] for each key and returns the answers in order. In a folder a batch is far faster than its
    /// keys one by one: pass up to [`HEADS_AT_ONCE`].
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

    /// Puts the body as a multipart upload, so a failure repeats a part and not everything. Aborts the upload if it
    /// fails.
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
    /// Also if only a part of the requested keys cannot be listed.
    async fn list(&self, options: &ListOptions) -> Result<ListPage>;

    /// Lists like [`Store::list`], but continues past entries that cannot be listed and reports them. For stores that
    /// other programs fill: one folder without permission must not hide the others.
    ///
    /// # Errors
    /// Nothing can be listed: the store does not respond, or the folder that the prefix names cannot be read.
    async fn survey(&self, options: &SurveyOptions) -> Result<SurveyPage> {
        Ok(SurveyPage::complete(self.list(&options.strict()).await?))
    }

    /// Copies within the store, on the server if there is one, if the source still has `source_version`. Never a lock:
    /// the destination is overwritten.
    async fn copy(&self, from: &str, source_version: &Version, to: &str) -> Result<()>;

    /// Moves the object if the source still has `source_version`. The content under `to` is exactly that version, and
    /// `from` no longer exists unless a newer version was put there meanwhile, which stays. An existing object under
    /// `to` is never overwritten: `AlreadyExists`. Idempotent for a caller that checks `to` first.
    async fn rename(&self, from: &str, source_version: &Version, to: &str) -> Result<RenameOutcome>;

    /// Calls [`Store::rename`] for each move, as if one after another, and returns the answers in order. A failure does
    /// not affect the other moves. A batch is far faster than its moves one by one: pass up to [`HEADS_AT_ONCE`].
    async fn rename_many(&self, moves: &[Move]) -> Vec<Result<RenameOutcome>> {
        let mut outcomes = Vec::with_capacity(moves.len());
        for Move { from, version, to } in moves {
            outcomes.push(self.rename(from, version, to).await);
        }
        outcomes
    }

    /// Deletes the object, with `if_version` only if it still has that version. A missing key is a success.
    async fn delete(&self, key: &str, if_version: Option<&Version>) -> Result<DeleteOutcome>;

    /// Calls [`Store::delete`] with a version for each key and returns the answers in order. A failure does not affect
    /// the other deletes.
    async fn delete_many(&self, objects: &[(String, Version)]) -> Vec<Result<DeleteOutcome>> {
        let mut outcomes = Vec::with_capacity(objects.len());
        for (key, version) in objects {
            outcomes.push(self.delete(key, Some(version)).await);
        }
        outcomes
    }

    /// Replaces the tags of an object. Local directories return [`StoreErrorKind::Unsupported`].
    async fn tag(&self, key: &str, tags: &Metadata) -> Result<()>;

    /// Adds tags to an object, keeping those it has, if it still has `version`. If the object is replaced concurrently,
    /// the tags are removed from the newer object again. Local directories return [`StoreErrorKind::Unsupported`].
    ///
    /// # Errors
    /// Besides the usual ones, [`StoreErrorKind::Other`] if a newer object was tagged and that could not be undone.
    async fn tag_version(&self, key: &str, version: &Version, tags: &Metadata) -> Result<TagOutcome>;

    /// This store for requests that rest on what was true when the machine had been up for `boot_ms` (see
    /// [`BootClock`](crate::clock::BootClock)): once [`SIGNATURE_LASTS`] have passed since, by the store's clock, none of them is
    /// accepted any more, whatever became of their sender meanwhile. `None`: this store makes no difference.
    fn as_of(&self, boot_ms: i64) -> Option<Arc<dyn Store>> {
        let _ = boot_ms;
        None
    }

    /// Whether a request is refused once it was signed [`SIGNATURE_LASTS`] ago, as was tried just now: then no put of a process
    /// that is gone takes effect long after. Stores without signatures say no.
    async fn refuses_old_requests(&self) -> Result<bool> {
        Ok(false)
    }

    /// Takes a lock that every process sees which uses this store, as soon as no other excludes it. `None`: this store has
    /// no locks. The lock is released when it is dropped and every call of this store that began meanwhile has ended, also
    /// one whose future was dropped; and when its process ends.
    ///
    /// # Errors
    /// Of the store.
    async fn lock(&self, key: &str, kind: LockKind) -> Result<Option<StoreLock>> {
        let (_, _) = (key, kind);
        Ok(None)
    }

    /// Uploads that were begun and neither completed nor aborted, including those of living writers. Unordered. If a
    /// page ends at a key with several uploads, a store may leave out those that do not fit.
    ///
    /// # Errors
    /// Besides the usual ones, [`StoreErrorKind::Unsupported`] if the store cannot list them.
    async fn unfinished_uploads(&self, options: &ListUploads) -> Result<UploadPage> {
        Err(StoreError::new(StoreErrorKind::Unsupported, "list uploads", &options.prefix, "this store does not tell"))
    }

    /// Frees the storage of an unfinished upload. Never touches an object; an upload that ended meanwhile is a success.
    ///
    /// # Errors
    /// Besides the usual ones, [`StoreErrorKind::VersionMismatch`] if the store detects that it was written to since it
    /// was listed, and [`StoreErrorKind::Unsupported`] if the store cannot abort it.
    async fn abort_upload(&self, upload: &UnfinishedUpload) -> Result<()> {
        Err(StoreError::new(StoreErrorKind::Unsupported, "abort upload", &upload.key, "this store does not tell"))
    }
}

/// One entry of [`Store::rename_many`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    pub from: String,
    /// The version that `from` must still have.
    pub version: Version,
    pub to: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenameOutcome {
    Moved,
    /// The source is missing or has another version; nothing was changed.
    SourceChanged,
    /// The target already exists; nothing was changed.
    TargetExists,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteOutcome {
    /// No object exists under the key now.
    Deleted,
    /// The object has another version; it was not deleted.
    VersionMismatch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagOutcome {
    Tagged,
    /// The object is missing or has another version, which does not carry the tags.
    VersionMismatch,
}

/// S3 refuses requests whose signature is so much older, or younger, than its own time.
pub const SIGNATURE_LASTS: Duration = Duration::from_secs(15 * 60);
