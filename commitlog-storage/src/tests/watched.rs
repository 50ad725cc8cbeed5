//! A store in memory that calls back around each request: to count it, to let others act, to wait.

use async_trait::async_trait;
use bytes::Bytes;
use common::store::{
    Capabilities, DeleteOutcome, GetOptions, ListOptions, ListPage, MemoryStore, Metadata, MultipartUpload, ObjectMeta,
    ObjectReader, PutCondition, PutOutcome, RenameOutcome, Result, Store, TagOutcome, Version,
};
use futures_util::future::BoxFuture;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Request {
    Head,
    Get,
    Put,
    List,
    Delete,
}

/// A request, before it is answered or after that, and the bytes of its body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub request: Request,
    pub is_answered: bool,
    pub bytes: u64,
}

type Watcher = Box<dyn Fn(Call) -> BoxFuture<'static, ()> + Send + Sync>;

pub(crate) struct Watched {
    inner: MemoryStore,
    watcher: Watcher,
}

impl Watched {
    pub(crate) fn new(
        inner: MemoryStore,
        watcher: impl Fn(Call) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        Self { inner, watcher: Box::new(watcher) }
    }

    /// Lets others act before and after each request.
    pub(crate) fn interleaved(inner: MemoryStore) -> Self {
        Self::new(inner, |_| Box::pin(super::pauses::Pause::default()))
    }

    async fn before(&self, request: Request, bytes: usize) {
        (self.watcher)(Call { request, is_answered: false, bytes: bytes as u64 }).await;
    }

    async fn after(&self, request: Request, bytes: u64) {
        (self.watcher)(Call { request, is_answered: true, bytes }).await;
    }
}

#[async_trait]
impl Store for Watched {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        self.before(Request::Head, 0).await;
        let found = self.inner.head(key).await;
        self.after(Request::Head, 0).await;
        found
    }

    async fn open(&self, key: &str, options: GetOptions) -> Result<Option<(ObjectMeta, Box<dyn ObjectReader>)>> {
        self.before(Request::Get, 0).await;
        let opened = self.inner.open(key, options).await;
        let bytes = opened.as_ref().ok().and_then(Option::as_ref).map_or(0, |(meta, _)| meta.size_bytes);
        self.after(Request::Get, bytes).await;
        opened
    }

    async fn put(&self, key: &str, body: Bytes, condition: PutCondition, data: &Metadata) -> Result<PutOutcome> {
        let bytes = body.len();
        self.before(Request::Put, bytes).await;
        let put = self.inner.put(key, body, condition, data).await;
        self.after(Request::Put, bytes as u64).await;
        put
    }

    async fn multipart(&self, key: &str, data: &Metadata) -> Result<Box<dyn MultipartUpload>> {
        self.inner.multipart(key, data).await
    }

    async fn list(&self, options: &ListOptions) -> Result<ListPage> {
        self.before(Request::List, 0).await;
        let page = self.inner.list(options).await;
        self.after(Request::List, 0).await;
        page
    }

    async fn copy(&self, from: &str, version: &Version, to: &str) -> Result<()> {
        self.inner.copy(from, version, to).await
    }

    async fn rename(&self, from: &str, version: &Version, to: &str) -> Result<RenameOutcome> {
        self.inner.rename(from, version, to).await
    }

    async fn delete(&self, key: &str, version: Option<&Version>) -> Result<DeleteOutcome> {
        self.before(Request::Delete, 0).await;
        let deleted = self.inner.delete(key, version).await;
        self.after(Request::Delete, 0).await;
        deleted
    }

    async fn tag(&self, key: &str, tags: &Metadata) -> Result<()> {
        self.inner.tag(key, tags).await
    }

    async fn tag_version(&self, key: &str, version: &Version, tags: &Metadata) -> Result<TagOutcome> {
        self.inner.tag_version(key, version, tags).await
    }
}
