//! A store whose calls a test observes and can fail.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use common::store::{
    Capabilities, DeleteOutcome, GetOptions, ListOptions, ListPage, ListUploads, LockKind, Metadata, MultipartUpload,
    ObjectMeta, ObjectReader, PutCondition, PutOutcome, RenameOutcome, Result, Store, StoreError, StoreErrorKind,
    StoreLock, SurveyOptions, SurveyPage, TagOutcome, UnfinishedUpload, UploadPage, Version,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

/// The outcome of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Pass,
    /// It fails without an effect.
    Fail(StoreErrorKind),
    /// It takes effect, but the caller sees a time-out.
    TimeOut,
}

/// Called before each call, with the operation and the key. May take its time.
type Judge = Box<dyn Fn(&'static str, &str) -> BoxFuture<'static, Fate> + Send + Sync>;

struct Interposed {
    inner: Arc<dyn Store>,
    judge: Judge,
}

/// `inner`, with a judge before it.
pub(crate) fn interposed(
    inner: Arc<dyn Store>,
    judge: impl Fn(&'static str, &str) -> Fate + Send + Sync + 'static,
) -> Arc<dyn Store> {
    delayed(inner, move |operation, key| std::future::ready(judge(operation, key)).boxed())
}

/// The same, with a judge that can delay calls.
pub(crate) fn delayed(
    inner: Arc<dyn Store>,
    judge: impl Fn(&'static str, &str) -> BoxFuture<'static, Fate> + Send + Sync + 'static,
) -> Arc<dyn Store> {
    Arc::new(Interposed { inner, judge: Box::new(judge) })
}

impl Interposed {
    async fn call<T>(&self, operation: &'static str, key: &str, call: impl Future<Output = Result<T>>) -> Result<T> {
        match (self.judge)(operation, key).await {
            Fate::Pass => call.await,
            Fate::Fail(kind) => Err(StoreError::new(kind, operation, key, "injected failure")),
            Fate::TimeOut => {
                call.await?;
                Err(StoreError::new(StoreErrorKind::Transient, operation, key, "timed out"))
            }
        }
    }
}

#[async_trait]
impl Store for Interposed {
    fn location(&self) -> String {
        self.inner.location()
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        self.call("head", key, self.inner.head(key)).await
    }
    async fn open(&self, key: &str, options: GetOptions) -> Result<Option<(ObjectMeta, Box<dyn ObjectReader>)>> {
        self.call("open", key, self.inner.open(key, options)).await
    }
    async fn put(&self, key: &str, body: Bytes, condition: PutCondition, metadata: &Metadata) -> Result<PutOutcome> {
        self.call("put", key, self.inner.put(key, body, condition, metadata)).await
    }
    async fn multipart(&self, key: &str, metadata: &Metadata) -> Result<Box<dyn MultipartUpload>> {
        self.call("multipart", key, self.inner.multipart(key, metadata)).await
    }
    async fn list(&self, options: &ListOptions) -> Result<ListPage> {
        self.call("list", &options.prefix, self.inner.list(options)).await
    }
    async fn survey(&self, options: &SurveyOptions) -> Result<SurveyPage> {
        self.call("list", &options.prefix, self.inner.survey(options)).await
    }
    async fn copy(&self, from: &str, version: &Version, to: &str) -> Result<()> {
        self.call("copy", from, self.inner.copy(from, version, to)).await
    }
    async fn rename(&self, from: &str, version: &Version, to: &str) -> Result<RenameOutcome> {
        self.call("rename", from, self.inner.rename(from, version, to)).await
    }
    async fn delete(&self, key: &str, if_version: Option<&Version>) -> Result<DeleteOutcome> {
        self.call("delete", key, self.inner.delete(key, if_version)).await
    }
    async fn tag(&self, key: &str, tags: &Metadata) -> Result<()> {
        self.call("tag", key, self.inner.tag(key, tags)).await
    }
    async fn tag_version(&self, key: &str, version: &Version, tags: &Metadata) -> Result<TagOutcome> {
        self.call("tag", key, self.inner.tag_version(key, version, tags)).await
    }
    async fn refuses_old_requests(&self) -> Result<bool> {
        self.call("try an old request", "", self.inner.refuses_old_requests()).await
    }
    async fn lock(&self, key: &str, kind: LockKind) -> Result<Option<StoreLock>> {
        self.call("lock", key, self.inner.lock(key, kind)).await
    }
    async fn unfinished_uploads(&self, options: &ListUploads) -> Result<UploadPage> {
        self.call("list uploads", &options.prefix, self.inner.unfinished_uploads(options)).await
    }
    async fn abort_upload(&self, upload: &UnfinishedUpload) -> Result<()> {
        self.call("abort upload", &upload.key, self.inner.abort_upload(upload)).await
    }
}
