//! A directory as a store.
//!
//! - A put writes a hidden temporary file beside the target, syncs it, links it under its name and syncs the directory.
//!   `IfAbsent` is a hard link, which the file system refuses if the name exists: one process of all wins.
//! - `IfVersion` checks and renames under a lock of this process. A concurrent replacement by another process is not
//!   detected; use it for objects with one writer.
//! - A version is size, modification time and inode. A reader checks at its end that the open file still is that
//!   version; a small file is read and checked at once when it is opened.
//! - A delete of a version moves the file aside and checks it there, so a newer file of the same name is never lost.
//! - A batch of moves or deletes syncs each directory once.
//! - Names that start with `.` are temporary or hidden: never listed, and refused as keys. Temporary files left by a
//!   crash are unfinished uploads. A file that a delete moved aside is not one, because it may be the only copy.
//! - Symbolic links are not objects: never listed, never followed below the root (the root itself may be one, and so may
//!   `pending` and `processed` directly below the root of a landing zone).
//! - File names that are not UTF-8 cannot be keys; they are skipped with a warning.
//! - Paths longer than the longest key are not listed.
//! - A listing reads the directories on its way again for each page: use large pages to sweep a large directory.
//! - A lock is a file without content, locked by `flock`. File systems without `flock` have no locks.
//! - User metadata is dropped, tags are unsupported.

mod entries;
mod failure;
mod folders;
mod list;
mod lock;
mod read;
mod relocate;
#[cfg(test)]
mod tests;
mod tree;
mod unfinished;
mod walk;
mod write;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::JoinError;

use self::failure::Outcome;
use self::lock::Held;
use self::relocate::{Relocation, Removal};
use self::tree::{Place, Root, meta_of, stat_object};
use self::write::Temporary;
use super::batch::{answer_all, sort_out};
use super::key::MAX_KEY_BYTES;
use super::{
    Capabilities, DeleteOutcome, GetOptions, ListOptions, ListPage, ListUploads, LockKind, Metadata, Move,
    MultipartUpload, ObjectMeta, ObjectReader, PutCondition, PutOutcome, RenameOutcome, Result, Store, StoreError,
    StoreErrorKind, StoreLock, SurveyOptions, SurveyPage, TagOutcome, UnfinishedUpload, UploadPage, Version,
};

/// Whether `now` is a later state of the same file as `then`: the same inode, written to since. Never true for versions
/// of other stores, whose objects are replaced as a whole.
#[must_use]
pub fn is_later_state(then: &Version, now: &Version) -> bool {
    let inode = |version: &'_ Version| version.0.rsplit_once('-').map(|(_, inode)| inode.to_owned());
    then != now && inode(then).is_some_and(|same| inode(now) == Some(same))
}

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct LocalStore {
    root: Arc<Root>,
    held: Arc<Held>,
}

/// Of Linux.
const MAX_PATH_BYTES: usize = 4_095;

/// A lock that another one holds is tried again so often.
const LOCK_POLL: Duration = Duration::from_millis(20);

/// One that is held for so long is reported.
const LOCK_TOLD: Duration = Duration::from_secs(10);

impl LocalStore {
    /// A store whose directory the first put creates; until then it is empty.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self::at(Root::new(root, true))
    }

    /// A store whose directory must exist: while it is missing every call returns [`StoreErrorKind::NoSuchStore`]. For
    /// directories that other programs fill: an unmounted volume must not look empty.
    #[must_use]
    pub fn open(root: PathBuf) -> Self {
        Self::at(Root::new(root, false))
    }

    /// As [`LocalStore::open`], for a landing zone: `pending` and `processed` may be symbolic links to directories.
    #[must_use]
    pub fn landing(root: PathBuf) -> Self {
        Self::at(Root::new(root, false).following(&["pending", "processed"]))
    }

    fn at(root: Root) -> Self {
        Self { root: Arc::new(root), held: Arc::default() }
    }

    /// File system calls block, so they run off the async threads.
    async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        key: &str,
        work: impl FnOnce(&Root) -> Outcome<T> + Send + 'static,
    ) -> Result<T> {
        let (root, held) = (Arc::clone(&self.root), self.held.now());
        run_blocking(move || under(held, || work(&root)))
            .await
            .map_err(|error| join_error(&error, operation, key))?
            .map_err(|failure| failure.into_error(operation, key))
    }

    /// Runs a whole batch in one blocking task.
    async fn run_batch<E: Send + 'static, T: Send + 'static>(
        &self,
        operation: &'static str,
        entries: Vec<E>,
        work: fn(&Root, &[E]) -> Vec<Result<T>>,
    ) -> Vec<Result<T>> {
        let (root, length, held) = (Arc::clone(&self.root), entries.len(), self.held.now());
        run_blocking(move || under(held, || work(&root, &entries))).await.unwrap_or_else(|error| {
            (0..length).map(|_| Err(join_error(&error, operation, "an entry of a batch"))).collect()
        })
    }
}

/// Keeps locks until the work is done.
fn under<T>(held: Vec<Arc<OwnedFd>>, work: impl FnOnce() -> T) -> T {
    let outcome = work();
    drop(held);
    outcome
}

fn relocation(from: &str, version: &Version, to: &str) -> Result<Relocation> {
    let (from, to) = (Place::parse("rename", from)?, Place::parse("rename", to)?);
    Ok(Relocation { from, version: version.clone(), to })
}

fn removal(key: &str, version: &Version) -> Result<Removal> {
    Ok(Removal { place: Place::parse("delete", key)?, version: version.clone() })
}

async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> std::result::Result<T, JoinError> {
    tokio::task::spawn_blocking(work).await
}

fn join_error(error: &JoinError, operation: &'static str, key: &str) -> StoreError {
    let kind = if error.is_cancelled() { StoreErrorKind::Transient } else { StoreErrorKind::Other };
    StoreError::new(kind, operation, key, format!("the file system thread did not finish: {error}"))
}

fn no_tags(key: &str) -> Result<TagOutcome> {
    Place::parse("tag", key)?;
    Err(StoreError::new(StoreErrorKind::Unsupported, "tag", key, "a local directory has no place for tags"))
}

#[async_trait]
impl Store for LocalStore {
    fn location(&self) -> String {
        self.root.path.display().to_string()
    }

    /// A version has the inode in it.
    fn capabilities(&self) -> Capabilities {
        let path = &self.root.path;
        Capabilities {
            has_tags: false,
            is_written_in_place: true,
            has_unique_versions: true,
            max_key_bytes: MAX_PATH_BYTES.saturating_sub(path.as_os_str().len() + 1).min(MAX_KEY_BYTES),
            folder: Some(path.clone()),
        }
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        let place = Place::parse("head", key)?;
        self.run("head", key, move |root| {
            let Some(folder) = root.find_folder(&place)? else { return Ok(None) };
            Ok(stat_object(&folder, &place.name)?.map(|stat| meta_of(&place.key, &stat)))
        })
        .await
    }

    async fn head_many(&self, keys: &[String]) -> Vec<Result<Option<ObjectMeta>>> {
        let (refused, valid) = sort_out(keys, |key| Place::parse("head", key));
        answer_all(refused, self.run_batch("head", valid, relocate::head_many).await)
    }

    async fn open(&self, key: &str, options: GetOptions) -> Result<Option<(ObjectMeta, Box<dyn ObjectReader>)>> {
        let place = Place::parse("get", key)?;
        let opened = self.run("get", key, move |root| read::open(root, &place, &options)).await?;
        Ok(opened.map(|(meta, reader)| (meta, Box::new(reader) as Box<dyn ObjectReader>)))
    }

    async fn put(&self, key: &str, body: Bytes, condition: PutCondition, _metadata: &Metadata) -> Result<PutOutcome> {
        let place = Place::parse("put", key)?;
        self.run("put", key, move |root| write::put(root, &place, &body, &condition)).await
    }

    async fn multipart(&self, key: &str, _metadata: &Metadata) -> Result<Box<dyn MultipartUpload>> {
        let place = Place::parse("multipart put", key)?;
        let name = place.name.clone();
        let temporary =
            self.run("multipart put", key, move |root| Temporary::create(root.make_folder(&place)?)).await?;
        Ok(Box::new(LocalUpload {
            store: self.clone(),
            key: key.to_owned(),
            name,
            temporary: Arc::new(temporary),
            written_bytes: 0,
        }))
    }

    async fn list(&self, options: &ListOptions) -> Result<ListPage> {
        let wanted = options.clone();
        self.run("list", &options.prefix, move |root| list::list(root, &wanted)).await
    }

    async fn survey(&self, options: &SurveyOptions) -> Result<SurveyPage> {
        let wanted = options.clone();
        self.run("survey", &options.prefix, move |root| list::survey(root, &wanted)).await
    }

    async fn copy(&self, from: &str, source_version: &Version, to: &str) -> Result<()> {
        let (source, target) = (Place::parse("copy", from)?, Place::parse("copy", to)?);
        let version = source_version.clone();
        self.run("copy", from, move |root| relocate::copy(root, &source, &version, &target)).await
    }

    async fn lock(&self, key: &str, kind: LockKind) -> Result<Option<StoreLock>> {
        let place = Place::parse("lock", key)?;
        let (begun, mut is_told) = (std::time::Instant::now(), false);
        loop {
            let (root, place) = (Arc::clone(&self.root), place.clone());
            let taken = run_blocking(move || lock::try_lock(&root, &place, kind))
                .await
                .map_err(|error| join_error(&error, "lock", key))?;
            match taken {
                Ok(Some(file)) => return Ok(Some(StoreLock::new(self.held.add(file)))),
                Ok(None) => {
                    if begun.elapsed() > LOCK_TOLD && !std::mem::replace(&mut is_told, true) {
                        tracing::warn!(
                            key,
                            "another process holds this lock for long; nothing is written meanwhile. If it was stopped or hangs, end it"
                        );
                    }
                    tokio::time::sleep(LOCK_POLL).await;
                }
                Err(failure) if failure.kind == StoreErrorKind::Unsupported => return Ok(None),
                Err(failure) => return Err(failure.into_error("lock", key)),
            }
        }
    }

    async fn rename(&self, from: &str, source_version: &Version, to: &str) -> Result<RenameOutcome> {
        let relocation = relocation(from, source_version, to)?;
        self.run("rename", from, move |root| relocate::rename(root, &relocation)).await
    }

    async fn rename_many(&self, moves: &[Move]) -> Vec<Result<RenameOutcome>> {
        let (refused, valid) = sort_out(moves, |Move { from, version, to }| relocation(from, version, to));
        answer_all(refused, self.run_batch("rename", valid, relocate::rename_many).await)
    }

    async fn delete(&self, key: &str, if_version: Option<&Version>) -> Result<DeleteOutcome> {
        let Some(version) = if_version else {
            let place = Place::parse("delete", key)?;
            return self.run("delete", key, move |root| write::delete(root, &place)).await;
        };
        let removal = removal(key, version)?;
        self.run("delete", key, move |root| relocate::delete(root, &removal)).await
    }

    async fn delete_many(&self, objects: &[(String, Version)]) -> Vec<Result<DeleteOutcome>> {
        let (refused, valid) = sort_out(objects, |(key, version)| removal(key, version));
        answer_all(refused, self.run_batch("delete", valid, relocate::delete_many).await)
    }

    async fn tag(&self, key: &str, _tags: &Metadata) -> Result<()> {
        no_tags(key).map(|_| ())
    }

    async fn tag_version(&self, key: &str, _version: &Version, _tags: &Metadata) -> Result<TagOutcome> {
        no_tags(key)
    }

    async fn unfinished_uploads(&self, options: &ListUploads) -> Result<UploadPage> {
        let wanted = options.clone();
        self.run("list uploads", &options.prefix, move |root| unfinished::list(root, &wanted)).await
    }

    async fn abort_upload(&self, upload: &UnfinishedUpload) -> Result<()> {
        let ((folders, name), upload) = (unfinished::parse(upload)?, upload.clone());
        let key = upload.key.clone();
        self.run("abort upload", &key, move |root| unfinished::abort(root, &folders, &name, &upload)).await
    }
}

/// Parts are appended to one temporary file. Dropping the upload removes it.
struct LocalUpload {
    store: LocalStore,
    key: String,
    name: String,
    temporary: Arc<Temporary>,
    written_bytes: u64,
}

#[async_trait]
impl MultipartUpload for LocalUpload {
    async fn part(&mut self, bytes: Bytes) -> Result<()> {
        let (temporary, offset, length) = (Arc::clone(&self.temporary), self.written_bytes, bytes.len() as u64);
        self.store.run("put part", &self.key, move |_| temporary.write_at(&bytes, offset)).await?;
        // Counted only now: a part that failed half-way may be sent again and is written to the same place.
        self.written_bytes += length;
        Ok(())
    }

    async fn complete(self: Box<Self>, condition: PutCondition) -> Result<PutOutcome> {
        let Self { store, key, name, temporary, written_bytes } = *self;
        let Some(temporary) = Arc::into_inner(temporary) else {
            let message = "a part is still being written: its call was given up before it ended";
            return Err(StoreError::new(StoreErrorKind::Transient, "complete", &key, message));
        };
        store
            .run("complete", &key, move |_| {
                temporary.cut_to(written_bytes)?;
                temporary.publish(&name, &condition)
            })
            .await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        let Self { store, key, temporary, .. } = *self;
        store
            .run("abort", &key, move |_| {
                drop(temporary);
                Ok(())
            })
            .await
    }
}
