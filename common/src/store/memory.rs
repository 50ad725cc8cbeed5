//! A store in memory, for tests and simulations. It keeps every guarantee of the seam, as the conformance suite shows.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::key::{MAX_KEY_BYTES, check_key};
use super::{
    Capabilities, DeleteOutcome, GetOptions, ListOptions, ListPage, ListUploads, Metadata, MultipartUpload, ObjectMeta,
    ObjectReader, PutCondition, PutOutcome, RenameOutcome, Result, Store, StoreError, StoreErrorKind, TagOutcome,
    UnfinishedUpload, UploadMarker, UploadPage, Version,
};
use crate::clock::{Clock, SystemClock};

#[derive(Debug, Clone)]
struct Object {
    body: Bytes,
    version: u64,
    modified_ms: i64,
    tags: Metadata,
}

impl Object {
    fn meta(&self, key: &str) -> ObjectMeta {
        ObjectMeta {
            key: key.to_owned(),
            size_bytes: self.body.len() as u64,
            version: Version(self.version.to_string()),
            modified_ms: self.modified_ms,
        }
    }
}

#[derive(Debug, Default)]
struct Content {
    objects: BTreeMap<String, Object>,
    /// By key and number.
    uploads: BTreeMap<(String, String), i64>,
    /// Of versions and uploads: no two are the same.
    last_number: u64,
}

impl Content {
    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// The object, if it still is that version.
    fn at(&self, key: &str, version: &Version) -> Option<&Object> {
        self.objects.get(key).filter(|object| object.version.to_string() == version.0)
    }

    fn put(&mut self, key: &str, body: Bytes, condition: &PutCondition, now_ms: i64) -> PutOutcome {
        match condition {
            PutCondition::None => {}
            PutCondition::IfAbsent if self.objects.contains_key(key) => return PutOutcome::AlreadyExists,
            PutCondition::IfAbsent => {}
            PutCondition::IfVersion(version) if self.at(key, version).is_none() => return PutOutcome::VersionMismatch,
            PutCondition::IfVersion(_) => {}
        }
        let version = self.number();
        let object = Object { body, version, modified_ms: now_ms, tags: Metadata::new() };
        self.objects.insert(key.to_owned(), object);
        PutOutcome::Written(Version(version.to_string()))
    }

    fn list(&self, options: &ListOptions) -> ListPage {
        let from = match &options.start_after {
            Some(key) if *key >= options.prefix => Bound::Excluded(key.clone()),
            _ => Bound::Included(options.prefix.clone()),
        };
        let limit = options.limit.unwrap_or(usize::MAX);
        let mut page = ListPage::default();
        for (key, object) in self.objects.range((from, Bound::Unbounded)) {
            let Some(rest) = key.strip_prefix(&options.prefix) else { break };
            let folded = options.delimiter.then(|| rest.find('/')).flatten();
            let folded = folded.and_then(|at| rest.get(..=at)).map(|rest| format!("{}{rest}", options.prefix));
            if let Some(folder) = &folded {
                let is_old = options.start_after.as_ref().is_some_and(|after| folder <= after);
                if is_old || page.prefixes.last() == Some(folder) {
                    continue;
                }
            }
            if page.objects.len() + page.prefixes.len() == limit {
                page.more = true;
                break;
            }
            match folded {
                Some(folder) => page.prefixes.push(folder),
                None => page.objects.push(object.meta(key)),
            }
        }
        page
    }
}

/// Objects in memory. Clones share them.
#[derive(Clone)]
pub struct MemoryStore {
    content: Arc<Mutex<Content>>,
    clock: Arc<dyn Clock>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock))
    }
}

fn refused(kind: StoreErrorKind, operation: &'static str, key: &str, why: &str) -> StoreError {
    StoreError::new(kind, operation, key, why)
}

impl MemoryStore {
    /// One whose objects are modified when the clock says.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { content: Arc::default(), clock }
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every key below a prefix, in order.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let content = self.content();
        let below = content.objects.range(prefix.to_owned()..);
        below.map(|(key, _)| key.clone()).take_while(|key| key.starts_with(prefix)).collect()
    }

    /// Replaces what stands under a key, or removes it, as somebody else would.
    pub fn set(&self, key: &str, body: Option<Bytes>) {
        let now_ms = self.clock.now_ms();
        let mut content = self.content();
        match body {
            Some(body) => drop(content.put(key, body, &PutCondition::None, now_ms)),
            None => drop(content.objects.remove(key)),
        }
    }

    /// What stands under a key.
    pub fn get(&self, key: &str) -> Option<Bytes> {
        self.content().objects.get(key).map(|object| object.body.clone())
    }
}

struct Upload {
    store: MemoryStore,
    key: String,
    id: String,
    body: Vec<u8>,
}

#[async_trait]
impl MultipartUpload for Upload {
    async fn part(&mut self, bytes: Bytes) -> Result<()> {
        self.body.extend_from_slice(&bytes);
        Ok(())
    }

    async fn complete(self: Box<Self>, condition: PutCondition) -> Result<PutOutcome> {
        let Self { store, key, id, body } = *self;
        let now_ms = store.clock.now_ms();
        let mut content = store.content();
        if content.uploads.remove(&(key.clone(), id)).is_none() {
            return Err(refused(StoreErrorKind::Other, "complete", &key, "the upload was given up"));
        }
        Ok(content.put(&key, body.into(), &condition, now_ms))
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        let Self { store, key, id, .. } = *self;
        store.content().uploads.remove(&(key, id));
        Ok(())
    }
}

struct Body(Option<Bytes>);

#[async_trait]
impl ObjectReader for Body {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        Ok(self.0.take())
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            has_tags: true,
            is_written_in_place: false,
            has_unique_versions: false,
            max_key_bytes: MAX_KEY_BYTES,
            folder: None,
        }
    }

    fn location(&self) -> String {
        "memory".to_owned()
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        check_key("head", key)?;
        Ok(self.content().objects.get(key).map(|object| object.meta(key)))
    }

    async fn open(&self, key: &str, options: GetOptions) -> Result<Option<(ObjectMeta, Box<dyn ObjectReader>)>> {
        check_key("get", key)?;
        let Some(object) = self.content().objects.get(key).cloned() else { return Ok(None) };
        let meta = object.meta(key);
        if options.if_version.is_some_and(|version| version != meta.version) {
            return Err(refused(StoreErrorKind::VersionMismatch, "get", key, "it is another version"));
        }
        let length = object.body.len();
        let at = |byte: u64| usize::try_from(byte).unwrap_or(length).min(length);
        let range = options.range.map_or(0..length, |range| at(range.start)..at(range.end).max(at(range.start)));
        Ok(Some((meta, Box::new(Body(Some(object.body.slice(range)).filter(|body| !body.is_empty()))))))
    }

    async fn put(&self, key: &str, body: Bytes, condition: PutCondition, _: &Metadata) -> Result<PutOutcome> {
        check_key("put", key)?;
        let now_ms = self.clock.now_ms();
        Ok(self.content().put(key, body, &condition, now_ms))
    }

    async fn multipart(&self, key: &str, _: &Metadata) -> Result<Box<dyn MultipartUpload>> {
        check_key("multipart put", key)?;
        let now_ms = self.clock.now_ms();
        let mut content = self.content();
        let id = content.number().to_string();
        content.uploads.insert((key.to_owned(), id.clone()), now_ms);
        drop(content);
        Ok(Box::new(Upload { store: self.clone(), key: key.to_owned(), id, body: Vec::new() }))
    }

    async fn list(&self, options: &ListOptions) -> Result<ListPage> {
        Ok(self.content().list(options))
    }

    async fn copy(&self, from: &str, source_version: &Version, to: &str) -> Result<()> {
        check_key("copy", from)?;
        check_key("copy", to)?;
        if from == to {
            return Err(refused(StoreErrorKind::InvalidKey, "copy", from, "onto itself"));
        }
        let now_ms = self.clock.now_ms();
        let mut content = self.content();
        let Some(body) = content.at(from, source_version).map(|object| object.body.clone()) else {
            return Err(refused(
                StoreErrorKind::VersionMismatch,
                "copy",
                from,
                "the source is another version, or gone",
            ));
        };
        content.put(to, body, &PutCondition::None, now_ms);
        Ok(())
    }

    async fn rename(&self, from: &str, source_version: &Version, to: &str) -> Result<RenameOutcome> {
        check_key("rename", from)?;
        check_key("rename", to)?;
        let now_ms = self.clock.now_ms();
        let mut content = self.content();
        if content.objects.contains_key(to) {
            return Ok(RenameOutcome::TargetExists);
        }
        let Some(body) = content.at(from, source_version).map(|object| object.body.clone()) else {
            return Ok(RenameOutcome::SourceChanged);
        };
        content.put(to, body, &PutCondition::None, now_ms);
        content.objects.remove(from);
        Ok(RenameOutcome::Moved)
    }

    async fn delete(&self, key: &str, if_version: Option<&Version>) -> Result<DeleteOutcome> {
        check_key("delete", key)?;
        let mut content = self.content();
        let is_other = if_version.is_some_and(|version| content.at(key, version).is_none());
        if is_other && content.objects.contains_key(key) {
            return Ok(DeleteOutcome::VersionMismatch);
        }
        content.objects.remove(key);
        Ok(DeleteOutcome::Deleted)
    }

    async fn tag(&self, key: &str, tags: &Metadata) -> Result<()> {
        check_key("tag", key)?;
        let mut content = self.content();
        let object = content.objects.get_mut(key);
        let object = object.ok_or_else(|| refused(StoreErrorKind::Other, "tag", key, "it is not there"))?;
        object.tags.clone_from(tags);
        Ok(())
    }

    async fn tag_version(&self, key: &str, version: &Version, tags: &Metadata) -> Result<TagOutcome> {
        check_key("tag", key)?;
        let mut content = self.content();
        let object = content.objects.get_mut(key).filter(|object| object.version.to_string() == version.0);
        let Some(object) = object else { return Ok(TagOutcome::VersionMismatch) };
        object.tags.extend(tags.clone());
        Ok(TagOutcome::Tagged)
    }

    async fn unfinished_uploads(&self, options: &ListUploads) -> Result<UploadPage> {
        let content = self.content();
        let after = options.after.as_ref().map(|marker| (marker.key.clone(), marker.id.clone()));
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let below = content.uploads.range((from, Bound::Unbounded));
        let mut below = below.filter(|((key, _), _)| key.starts_with(&options.prefix));
        let limit = options.limit.unwrap_or(usize::MAX);
        let found = below.by_ref().take(limit);
        let uploads: Vec<UnfinishedUpload> = found
            .map(|((key, id), begun_ms)| UnfinishedUpload { key: key.clone(), id: id.clone(), begun_ms: *begun_ms })
            .collect();
        let last = uploads.last().filter(|_| below.next().is_some());
        let next = last.map(|last| UploadMarker { key: last.key.clone(), id: last.id.clone() });
        Ok(UploadPage { uploads, next })
    }

    async fn abort_upload(&self, upload: &UnfinishedUpload) -> Result<()> {
        check_key("abort upload", &upload.key)?;
        self.content().uploads.remove(&(upload.key.clone(), upload.id.clone()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    #[tokio::test]
    async fn a_store_in_memory_keeps_what_the_seam_promises() {
        conformance::run_all(Arc::new(MemoryStore::default()), "suite").await;
    }
}
