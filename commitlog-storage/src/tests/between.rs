//! A store that lets others act between two calls.

use std::sync::Mutex;

use async_trait::async_trait;
use common::store::{
    DeleteOutcome, GetOptions, ListOptions, ListPage, Metadata, MultipartUpload, ObjectMeta, ObjectReader,
    PutCondition, PutOutcome, RenameOutcome, Result, Store, TagOutcome, Version,
};
use futures_util::future::BoxFuture;

use super::*;

type Others = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

pub(super) struct Between {
    inner: MemoryStore,
    after_first_list: Mutex<Option<Others>>,
}

impl Between {
    pub(super) fn new(inner: MemoryStore, after_first_list: Others) -> Self {
        Self { inner, after_first_list: Mutex::new(Some(after_first_list)) }
    }
}

#[async_trait]
impl Store for Between {
    fn location(&self) -> String {
        self.inner.location()
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        self.inner.head(key).await
    }

    async fn open(&self, key: &str, options: GetOptions) -> Result<Option<(ObjectMeta, Box<dyn ObjectReader>)>> {
        self.inner.open(key, options).await
    }

    async fn put(&self, key: &str, body: Bytes, condition: PutCondition, metadata: &Metadata) -> Result<PutOutcome> {
        self.inner.put(key, body, condition, metadata).await
    }

    async fn multipart(&self, key: &str, metadata: &Metadata) -> Result<Box<dyn MultipartUpload>> {
        self.inner.multipart(key, metadata).await
    }

    async fn list(&self, options: &ListOptions) -> Result<ListPage> {
        let page = self.inner.list(options).await;
        let others = self.after_first_list.lock().expect("not poisoned").take();
        if let Some(others) = others {
            others().await;
        }
        page
    }

    async fn copy(&self, from: &str, version: &Version, to: &str) -> Result<()> {
        self.inner.copy(from, version, to).await
    }

    async fn rename(&self, from: &str, version: &Version, to: &str) -> Result<RenameOutcome> {
        self.inner.rename(from, version, to).await
    }

    async fn delete(&self, key: &str, if_version: Option<&Version>) -> Result<DeleteOutcome> {
        self.inner.delete(key, if_version).await
    }

    async fn tag(&self, key: &str, tags: &Metadata) -> Result<()> {
        self.inner.tag(key, tags).await
    }

    async fn tag_version(&self, key: &str, version: &Version, tags: &Metadata) -> Result<TagOutcome> {
        self.inner.tag_version(key, version, tags).await
    }
}
