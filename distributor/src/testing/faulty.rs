//! A store that fails once.

use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use common::store::{
    DeleteOutcome, GetOptions, ListOptions, ListPage, LocalStore, Metadata, MultipartUpload, ObjectMeta, ObjectReader,
    PutCondition, PutOutcome, RenameOutcome, Result as StoreResult, Store, StoreError, StoreErrorKind, TagOutcome,
    Version,
};

/// Fails one call after a while: before it took effect, or after, so that the caller sees a time-out of a success.
pub(crate) struct Faulty {
    inner: LocalStore,
    calls_left: AtomicI64,
    after_effect: bool,
}

impl Faulty {
    /// Negative calls: never.
    pub fn new(inner: LocalStore, calls: i64, after_effect: bool) -> Self {
        Self { inner, calls_left: AtomicI64::new(calls), after_effect }
    }

    /// Whether a call has failed.
    pub fn has_failed(&self) -> bool {
        self.calls_left.load(Ordering::SeqCst) < 0
    }

    fn fails_now(&self) -> bool {
        self.calls_left.fetch_sub(1, Ordering::SeqCst) == 0
    }
}

fn timeout(key: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Transient, "call", key, "timed out")
}

macro_rules! faulty {
    ($self:ident, $key:expr, $call:expr) => {{
        let fails = $self.fails_now();
        if fails && !$self.after_effect {
            return Err(timeout($key));
        }
        let outcome = $call.await;
        if fails { Err(timeout($key)) } else { outcome }
    }};
}

#[async_trait]
impl Store for Faulty {
    fn location(&self) -> String {
        self.inner.location()
    }
    async fn head(&self, key: &str) -> StoreResult<Option<ObjectMeta>> {
        faulty!(self, key, self.inner.head(key))
    }
    async fn open(&self, key: &str, options: GetOptions) -> StoreResult<Option<(ObjectMeta, Box<dyn ObjectReader>)>> {
        faulty!(self, key, self.inner.open(key, options))
    }
    async fn put(
        &self,
        key: &str,
        body: Bytes,
        condition: PutCondition,
        metadata: &Metadata,
    ) -> StoreResult<PutOutcome> {
        faulty!(self, key, self.inner.put(key, body, condition, metadata))
    }
    async fn multipart(&self, key: &str, metadata: &Metadata) -> StoreResult<Box<dyn MultipartUpload>> {
        faulty!(self, key, self.inner.multipart(key, metadata))
    }
    async fn list(&self, options: &ListOptions) -> StoreResult<ListPage> {
        faulty!(self, &options.prefix, self.inner.list(options))
    }
    async fn copy(&self, from: &str, version: &Version, to: &str) -> StoreResult<()> {
        self.inner.copy(from, version, to).await
    }
    async fn rename(&self, from: &str, version: &Version, to: &str) -> StoreResult<RenameOutcome> {
        faulty!(self, from, self.inner.rename(from, version, to))
    }
    async fn delete(&self, key: &str, if_version: Option<&Version>) -> StoreResult<DeleteOutcome> {
        faulty!(self, key, self.inner.delete(key, if_version))
    }
    async fn tag(&self, key: &str, tags: &Metadata) -> StoreResult<()> {
        self.inner.tag(key, tags).await
    }
    async fn tag_version(&self, key: &str, version: &Version, tags: &Metadata) -> StoreResult<TagOutcome> {
        self.inner.tag_version(key, version, tags).await
    }
}
