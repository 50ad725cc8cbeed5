//! A store that retries: repeats calls with back-off until they succeed, the patience is over or the process shuts
//! down.
//!
//! Repeating is safe by the seam's guarantees: puts are atomic, and a conditional put that succeeded with its answer
//! lost returns `AlreadyExists`, which every caller has to check anyway.
//!
//! All calls together may retry only a few times a second (`budget`). A call that fails for long makes a component of
//! the role not ready (`outage`).

mod budget;
mod outage;
mod reader;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Capabilities, DeleteOutcome, GetOptions, ListOptions, ListPage, ListUploads, LockKind, Metadata, Move,
    MultipartUpload, ObjectMeta, ObjectReader, Parts, PutCondition, PutOutcome, RenameOutcome, Result, Store,
    StoreError, StoreErrorKind, StoreLock, SurveyOptions, SurveyPage, TagOutcome, UnfinishedUpload, UploadPage,
    Version,
};
use crate::backoff::Backoff;
use crate::shutdown::Shutdown;
use crate::telemetry::Health;
use budget::Budget;
use outage::Outages;
use reader::RetryingReader;

pub use budget::{RETRIES_PER_SECOND, RETRY_BURST};
pub use outage::TOLERATED_OUTAGE;

/// Called for each failure that will be retried.
pub type OnRetry = Arc<dyn Fn(&StoreError) + Send + Sync>;

/// Called with the duration of each attempt, whatever the answer, except for batches of deletes and renames, which the
/// ingestor measures.
pub type OnAnswer = Arc<dyn Fn(&'static str, Duration) + Send + Sync>;

#[derive(Clone)]
pub struct RetryPolicy {
    /// How long one call may keep failing; `None`: until shutdown. An attempt that waits for the budget may end later.
    pub patience: Option<Duration>,
    /// Also wait for errors that an operator has to correct (permissions, a missing bucket).
    pub wait_for_operator: bool,
    pub shutdown: Shutdown,
    pub on_retry: OnRetry,
}

pub struct RetryingStore {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Arc<dyn Store>,
    policy: RetryPolicy,
    budget: Arc<Budget>,
    outages: Arc<Outages>,
    on_answer: Option<OnAnswer>,
}

impl RetryingStore {
    pub fn new(inner: Arc<dyn Store>, policy: RetryPolicy) -> Self {
        Self::with(inner, policy, None, None)
    }

    /// A store that makes `component` not ready while calls have been failing for longer than [`TOLERATED_OUTAGE`], and
    /// passes the duration of its answers to `on_answer`.
    pub fn reporting(
        inner: Arc<dyn Store>,
        policy: RetryPolicy,
        health: Health,
        component: &'static str,
        on_answer: OnAnswer,
    ) -> Self {
        Self::with(inner, policy, Some((health, component)), Some(on_answer))
    }

    fn with(
        inner: Arc<dyn Store>,
        policy: RetryPolicy,
        health: Option<(Health, &'static str)>,
        on_answer: Option<OnAnswer>,
    ) -> Self {
        let (budget, outages) = (Arc::new(Budget::new()), Arc::new(Outages::new(health)));
        Self { shared: Arc::new(Shared { inner, policy, budget, outages, on_answer }) }
    }

    /// Repeats the entries of a batch whose failure may be temporary.
    async fn repeat_batch<E: Clone, T, F: Future<Output = Vec<Result<T>>>>(
        &self,
        entries: &[E],
        first_key: &str,
        call: impl Fn(Vec<E>) -> F,
    ) -> Vec<Result<T>> {
        let mut tries = self.shared.tries(first_key);
        let mut answers = call(entries.to_vec()).await;
        loop {
            let worth =
                |answer: &Result<T>| answer.as_ref().err().is_some_and(|error| self.shared.is_worth_repeating(error));
            let open: Vec<usize> = (0..answers.len()).filter(|&entry| worth(&answers[entry])).collect();
            let Some(error) = open.first().and_then(|&entry| answers[entry].as_ref().err()).cloned() else {
                tries.succeeded();
                return answers;
            };
            if tries.failed(error).await.is_err() {
                return answers;
            }
            let again = call(open.iter().map(|&entry| entries[entry].clone()).collect()).await;
            for (entry, answer) in open.into_iter().zip(again) {
                answers[entry] = answer;
            }
        }
    }
}

impl Shared {
    fn is_worth_repeating(&self, error: &StoreError) -> bool {
        match error.kind {
            StoreErrorKind::Transient => true,
            StoreErrorKind::Denied | StoreErrorKind::NoSuchStore => self.policy.wait_for_operator,
            _ => false,
        }
    }

    fn answered(&self, operation: &'static str, begun: Instant) {
        if let Some(on_answer) = &self.on_answer {
            on_answer(operation, begun.elapsed());
        }
    }

    /// The attempts of a call that begins now.
    fn tries(&self, key: &str) -> Tries<'_> {
        let seed = xxhash_rust::xxh3::xxh3_64(key.as_bytes());
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10), seed);
        Tries { shared: self, since: Instant::now(), backoff, is_outage: false }
    }
}

/// The attempts of one call. Dropping it ends the call.
struct Tries<'a> {
    shared: &'a Shared,
    since: Instant,
    backoff: Backoff,
    /// The outage of this call was reported.
    is_outage: bool,
}

impl Tries<'_> {
    fn succeeded(&self) {
        self.shared.budget.succeeded();
    }

    /// Waits before the next attempt, or returns the error if there is none.
    async fn failed(&mut self, error: StoreError) -> Result<()> {
        let Shared { policy, budget, outages, .. } = self.shared;
        let over = policy.patience.is_some_and(|patience| self.since.elapsed() >= patience);
        if !self.shared.is_worth_repeating(&error) || over || policy.shutdown.is_triggered() {
            return Err(error);
        }
        (policy.on_retry)(&error);
        if self.since.elapsed() >= TOLERATED_OUTAGE {
            outages.report(!std::mem::replace(&mut self.is_outage, true), &error);
        }
        let wait = self.backoff.next_wait();
        tokio::select! {
            biased;
            () = policy.shutdown.wait() => Err(error),
            () = async {
                tokio::time::sleep(wait).await;
                budget.take().await;
            } => Ok(()),
        }
    }
}

impl Drop for Tries<'_> {
    fn drop(&mut self) {
        if self.is_outage {
            self.shared.outages.end();
        }
    }
}

/// Repeats a call of the inner store under the policy.
macro_rules! repeat {
    ($self:ident, $operation:literal, $key:expr, $call:expr) => {{
        let mut tries = $self.shared.tries($key);
        loop {
            let begun = Instant::now();
            let answer = $call.await;
            $self.shared.answered($operation, begun);
            match answer {
                Ok(value) => {
                    tries.succeeded();
                    return Ok(value);
                }
                Err(error) => tries.failed(error).await?,
            }
        }
    }};
}

impl RetryingStore {
    /// Opens an object without ensuring that its body is read to the end.
    async fn open_once(&self, key: &str, options: &GetOptions) -> Result<Option<(ObjectMeta, Box<dyn ObjectReader>)>> {
        repeat!(self, "get", key, self.shared.inner.open(key, options.clone()))
    }
}

#[async_trait]
impl Store for RetryingStore {
    fn location(&self) -> String {
        self.shared.inner.location()
    }

    fn capabilities(&self) -> Capabilities {
        self.shared.inner.capabilities()
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        repeat!(self, "head", key, self.shared.inner.head(key))
    }

    async fn open(&self, key: &str, options: GetOptions) -> Result<Option<(ObjectMeta, Box<dyn ObjectReader>)>> {
        let opened = self.open_once(key, &options).await?;
        Ok(opened.map(|(meta, reader)| {
            let reader = RetryingReader::new(self.shared.clone(), &meta, &options, reader);
            (meta, Box::new(reader) as Box<dyn ObjectReader>)
        }))
    }

    async fn put(&self, key: &str, body: Bytes, condition: PutCondition, metadata: &Metadata) -> Result<PutOutcome> {
        repeat!(self, "put", key, self.shared.inner.put(key, body.clone(), condition.clone(), metadata))
    }

    /// Repeats only the beginning. [`Store::put_in_parts`] is repeated as a whole.
    async fn multipart(&self, key: &str, metadata: &Metadata) -> Result<Box<dyn MultipartUpload>> {
        repeat!(self, "multipart", key, self.shared.inner.multipart(key, metadata))
    }

    async fn put_in_parts(
        &self,
        key: &str,
        body: &dyn Parts,
        condition: PutCondition,
        metadata: &Metadata,
    ) -> Result<PutOutcome> {
        repeat!(self, "put_in_parts", key, self.shared.inner.put_in_parts(key, body, condition.clone(), metadata))
    }

    async fn list(&self, options: &ListOptions) -> Result<ListPage> {
        repeat!(self, "list", &options.prefix, self.shared.inner.list(options))
    }

    async fn survey(&self, options: &SurveyOptions) -> Result<SurveyPage> {
        repeat!(self, "survey", &options.prefix, self.shared.inner.survey(options))
    }

    async fn copy(&self, from: &str, source_version: &Version, to: &str) -> Result<()> {
        repeat!(self, "copy", from, self.shared.inner.copy(from, source_version, to))
    }

    async fn rename(&self, from: &str, source_version: &Version, to: &str) -> Result<RenameOutcome> {
        repeat!(self, "rename", from, self.shared.inner.rename(from, source_version, to))
    }

    async fn rename_many(&self, moves: &[Move]) -> Vec<Result<RenameOutcome>> {
        let first = moves.first().map_or("", |first| &first.from);
        let call = |moves: Vec<Move>| async move { self.shared.inner.rename_many(&moves).await };
        self.repeat_batch(moves, first, call).await
    }

    async fn delete(&self, key: &str, if_version: Option<&Version>) -> Result<DeleteOutcome> {
        repeat!(self, "delete", key, self.shared.inner.delete(key, if_version))
    }

    async fn delete_many(&self, objects: &[(String, Version)]) -> Vec<Result<DeleteOutcome>> {
        let first = objects.first().map_or("", |(key, _)| key);
        let call = |objects: Vec<(String, Version)>| async move { self.shared.inner.delete_many(&objects).await };
        self.repeat_batch(objects, first, call).await
    }

    async fn tag(&self, key: &str, tags: &Metadata) -> Result<()> {
        repeat!(self, "tag", key, self.shared.inner.tag(key, tags))
    }

    async fn tag_version(&self, key: &str, version: &Version, tags: &Metadata) -> Result<TagOutcome> {
        repeat!(self, "tag", key, self.shared.inner.tag_version(key, version, tags))
    }

    fn as_of(&self, boot_ms: i64) -> Option<Arc<dyn Store>> {
        let inner = self.shared.inner.as_of(boot_ms)?;
        let Shared { policy, budget, outages, on_answer, .. } = &*self.shared;
        let (policy, on_answer) = (policy.clone(), on_answer.clone());
        let shared = Shared { inner, policy, budget: budget.clone(), outages: outages.clone(), on_answer };
        Some(Arc::new(Self { shared: Arc::new(shared) }))
    }

    async fn refuses_old_requests(&self) -> Result<bool> {
        repeat!(self, "try an old request", "", self.shared.inner.refuses_old_requests())
    }

    async fn lock(&self, key: &str, kind: LockKind) -> Result<Option<StoreLock>> {
        repeat!(self, "lock", key, self.shared.inner.lock(key, kind))
    }

    async fn unfinished_uploads(&self, options: &ListUploads) -> Result<UploadPage> {
        repeat!(self, "list_uploads", &options.prefix, self.shared.inner.unfinished_uploads(options))
    }

    async fn abort_upload(&self, upload: &UnfinishedUpload) -> Result<()> {
        repeat!(self, "abort_upload", &upload.key, self.shared.inner.abort_upload(upload))
    }
}

#[cfg(test)]
mod tests;
