//! A store that fails on purpose: refusals, temporary errors, lost answers of calls that took effect, and files that
//! change while they are read.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use common::backoff::splitmix64;
use common::store::{
    Capabilities, DeleteOutcome, GetOptions, ListOptions, ListPage, LocalStore, Metadata, Move, MultipartUpload,
    ObjectMeta, ObjectReader, PutCondition, PutOutcome, RenameOutcome, Result, Store, StoreError, StoreErrorKind,
    SurveyOptions, SurveyPage, TagOutcome, Version,
};

type Hook = Box<dyn Fn(&str) + Send + Sync>;

pub struct Faulty {
    pub inner: LocalStore,
    /// Keys that may not be opened.
    pub denied: Mutex<Vec<String>>,
    /// Keys that cannot be opened now.
    pub busy: Mutex<Vec<String>>,
    /// Keys that cannot be moved, with a permanent error.
    pub immovable: Mutex<Vec<String>>,
    /// Called after a key was opened.
    pub opened: Mutex<Option<Hook>>,
    /// The number of calls in a thousand that fail, before or after they take effect.
    pub failures_per_mille: AtomicU64,
    state: AtomicU64,
    pub tags: Mutex<HashMap<String, Metadata>>,
    pub lists: AtomicU64,
    /// The bytes that a reader yields before it waits for the gate of its key to be opened.
    pub gates: Mutex<HashMap<String, Arc<tokio::sync::Semaphore>>>,
    /// Folders (ending in `/`) and keys that cannot be listed.
    pub unlistable: Mutex<Vec<String>>,
    /// Entries of a page of a survey; 0: as asked.
    pub page_entries: AtomicUsize,
    /// Surveys fail: all of them, or only pages after the first one.
    pub unsurveyable: Mutex<Option<(Pages, StoreErrorKind)>>,
    /// Each page of a survey takes a permit.
    pub survey_gate: Mutex<Option<Arc<tokio::sync::Semaphore>>>,
    /// Keys that cannot be looked up.
    pub hidden: Mutex<Vec<String>>,
    /// Moves wait until it is opened.
    pub move_gate: Mutex<Option<Arc<tokio::sync::Semaphore>>>,
    /// Behaves as a bucket: supports tags.
    pub is_s3: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    All,
    Later,
}

async fn pass(gate: &Mutex<Option<Arc<tokio::sync::Semaphore>>>) {
    let gate = gate.lock().unwrap().clone();
    if let Some(gate) = gate {
        gate.acquire().await.unwrap().forget();
    }
}

impl Faulty {
    pub fn new(inner: LocalStore, seed: u64) -> Self {
        Self {
            inner,
            denied: Mutex::default(),
            busy: Mutex::default(),
            immovable: Mutex::default(),
            opened: Mutex::default(),
            failures_per_mille: AtomicU64::new(0),
            state: AtomicU64::new(seed),
            tags: Mutex::default(),
            lists: AtomicU64::new(0),
            gates: Mutex::default(),
            unlistable: Mutex::default(),
            page_entries: AtomicUsize::new(0),
            unsurveyable: Mutex::default(),
            survey_gate: Mutex::default(),
            hidden: Mutex::default(),
            move_gate: Mutex::default(),
            is_s3: false,
        }
    }

    fn roll(&self) -> u64 {
        let state = self.state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        splitmix64(state) % 1000
    }

    fn may_fail(&self, operation: &'static str, key: &str) -> Result<()> {
        if self.roll() < self.failures_per_mille.load(Ordering::Relaxed) {
            return Err(StoreError::new(StoreErrorKind::Transient, operation, key, "injected"));
        }
        Ok(())
    }

    /// Fails before the work, does it, or does it and loses the answer.
    async fn attempt<T>(
        &self,
        operation: &'static str,
        key: &str,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.may_fail(operation, key)?;
        let outcome = work.await;
        self.may_fail(operation, key)?;
        outcome
    }
}

struct GatedReader {
    inner: Box<dyn ObjectReader>,
    gate: Arc<tokio::sync::Semaphore>,
}

#[async_trait]
impl ObjectReader for GatedReader {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        self.gate.acquire().await.unwrap().forget();
        self.inner.next().await
    }
}

#[async_trait]
impl Store for Faulty {
    fn location(&self) -> String {
        if self.is_s3 { "s3://bucket/zone".to_owned() } else { self.inner.location() }
    }
    fn capabilities(&self) -> Capabilities {
        if !self.is_s3 {
            return self.inner.capabilities();
        }
        Capabilities {
            has_tags: true,
            is_written_in_place: false,
            has_unique_versions: false,
            max_key_bytes: 1_000,
            folder: None,
        }
    }
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        if self.hidden.lock().unwrap().iter().any(|hidden| hidden == key) {
            return Err(StoreError::new(StoreErrorKind::Denied, "head", key, "look-up denied"));
        }
        self.attempt("head", key, self.inner.head(key)).await
    }
    async fn open(&self, key: &str, options: GetOptions) -> Result<Option<(ObjectMeta, Box<dyn ObjectReader>)>> {
        if self.denied.lock().unwrap().iter().any(|denied| denied == key) {
            return Err(StoreError::new(StoreErrorKind::Denied, "get", key, "access denied"));
        }
        if self.busy.lock().unwrap().iter().any(|busy| busy == key) {
            return Err(StoreError::new(StoreErrorKind::Transient, "get", key, "busy"));
        }
        let opened = self.attempt("get", key, self.inner.open(key, options)).await?;
        if let Some(hook) = &*self.opened.lock().unwrap() {
            hook(key);
        }
        let gate = self.gates.lock().unwrap().get(key).cloned();
        Ok(opened.map(|(meta, inner)| match gate {
            Some(gate) => (meta, Box::new(GatedReader { inner, gate }) as Box<dyn ObjectReader>),
            None => (meta, inner),
        }))
    }
    async fn put(&self, key: &str, body: Bytes, condition: PutCondition, metadata: &Metadata) -> Result<PutOutcome> {
        self.attempt("put", key, self.inner.put(key, body, condition, metadata)).await
    }
    async fn multipart(&self, key: &str, metadata: &Metadata) -> Result<Box<dyn MultipartUpload>> {
        self.inner.multipart(key, metadata).await
    }
    async fn list(&self, options: &ListOptions) -> Result<ListPage> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        self.attempt("list", &options.prefix, self.inner.list(options)).await
    }
    async fn survey(&self, options: &SurveyOptions) -> Result<SurveyPage> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        pass(&self.survey_gate).await;
        let is_later = options.start_after.is_some();
        let failure = *self.unsurveyable.lock().unwrap();
        if let Some((_, kind)) = failure.filter(|(pages, _)| *pages == Pages::All || is_later) {
            return Err(StoreError::new(kind, "list", &options.prefix, "the listing broke off"));
        }
        let mut options = options.clone();
        let entries = self.page_entries.load(Ordering::Relaxed);
        if entries > 0 {
            options.limit = Some(entries);
        }
        let options = &options;
        let mut page = self.attempt("survey", &options.prefix, self.inner.survey(options)).await?;
        for key in &*self.unlistable.lock().unwrap() {
            let objects = page.objects.len();
            page.objects.retain(|object| object.key != *key && !(key.ends_with('/') && object.key.starts_with(key)));
            if page.objects.len() < objects || options.start_after.is_none() {
                page.unlisted.push(StoreError::new(StoreErrorKind::Denied, "list", key, "permission denied"));
            }
        }
        Ok(page)
    }
    async fn copy(&self, from: &str, version: &Version, to: &str) -> Result<()> {
        self.attempt("copy", from, self.inner.copy(from, version, to)).await
    }
    async fn rename(&self, from: &str, version: &Version, to: &str) -> Result<RenameOutcome> {
        self.attempt("rename", from, self.inner.rename(from, version, to)).await
    }
    async fn rename_many(&self, moves: &[Move]) -> Vec<Result<RenameOutcome>> {
        pass(&self.move_gate).await;
        let immovable = self.immovable.lock().unwrap().clone();
        let can_move: Vec<Move> = moves.iter().filter(|item| !immovable.contains(&item.from)).cloned().collect();
        let mut moved = self.inner.rename_many(&can_move).await.into_iter();
        let denied =
            |item: &Move| StoreError::new(StoreErrorKind::Denied, "rename", &item.from, "read-only file system");
        let outcomes = moves
            .iter()
            .map(|item| if immovable.contains(&item.from) { Err(denied(item)) } else { moved.next().unwrap() });
        let lose = |(outcome, item): (Result<RenameOutcome>, &Move)| {
            self.may_fail("rename", &item.from)?;
            outcome
        };
        outcomes.zip(moves).map(lose).collect()
    }
    async fn delete(&self, key: &str, if_version: Option<&Version>) -> Result<DeleteOutcome> {
        self.attempt("delete", key, self.inner.delete(key, if_version)).await
    }
    async fn delete_many(&self, objects: &[(String, Version)]) -> Vec<Result<DeleteOutcome>> {
        self.inner.delete_many(objects).await
    }
    async fn tag(&self, key: &str, tags: &Metadata) -> Result<()> {
        self.inner.tag(key, tags).await
    }
    async fn tag_version(&self, key: &str, version: &Version, tags: &Metadata) -> Result<TagOutcome> {
        if !self.is_s3 {
            return self.inner.tag_version(key, version, tags).await;
        }
        if self.inner.head(key).await?.is_none_or(|meta| meta.version != *version) {
            return Ok(TagOutcome::VersionMismatch);
        }
        self.tags.lock().unwrap().insert(key.to_owned(), tags.clone());
        Ok(TagOutcome::Tagged)
    }
}
