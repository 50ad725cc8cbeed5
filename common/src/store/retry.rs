//! A store that tries again: what is worth repeating is repeated with back-off, until it works, the patience is over or
//! the process shuts down.
//!
//! Repeating is safe by the seam's guarantees: puts are whole or not at all, and a conditional put that succeeded with
//! its answer lost comes back as `AlreadyExists`, which every caller has to check anyway.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    DeleteOutcome, GetOptions, ListOptions, ListPage, ListUploads, Metadata, Move, MultipartUpload, ObjectMeta,
    ObjectReader, PutCondition, PutOutcome, RenameOutcome, Result, Store, StoreError, StoreErrorKind, TagOutcome,
    UnfinishedUpload, UploadPage, Version,
};
use crate::backoff::Backoff;
use crate::shutdown::Shutdown;

/// Called for each failure that will be tried again.
pub type OnRetry = Arc<dyn Fn(&StoreError) + Send + Sync>;

#[derive(Clone)]
pub struct RetryPolicy {
    /// How long one call may go on failing; `None` = until shutdown.
    pub patience: Option<Duration>,
    /// Also wait for what an operator has to mend (permissions, a missing bucket).
    pub wait_for_operator: bool,
    pub shutdown: Shutdown,
    pub on_retry: OnRetry,
}

pub struct RetryingStore {
    inner: Arc<dyn Store>,
    policy: RetryPolicy,
}

impl RetryingStore {
    pub fn new(inner: Arc<dyn Store>, policy: RetryPolicy) -> Self {
        Self { inner, policy }
    }

    fn is_worth_repeating(&self, error: &StoreError) -> bool {
        match error.kind {
            StoreErrorKind::Transient => true,
            StoreErrorKind::Denied | StoreErrorKind::NoSuchStore => self.policy.wait_for_operator,
            _ => false,
        }
    }

    /// Waits before the next try, or gives the error back when there is to be none.
    async fn before_retry(&self, error: StoreError, since: Instant, backoff: &mut Backoff) -> Result<()> {
        let over = self.policy.patience.is_some_and(|patience| since.elapsed() >= patience);
        if !self.is_worth_repeating(&error) || over || self.policy.shutdown.is_triggered() {
            return Err(error);
        }
        (self.policy.on_retry)(&error);
        tokio::select! {
            () = tokio::time::sleep(backoff.next_wait()) => Ok(()),
            () = self.policy.shutdown.wait() => Err(error),
        }
    }

    /// Repeats the entries of a batch that failed and may work later; the others have their answer.
    async fn repeat_batch<E: Clone, T, F: Future<Output = Vec<Result<T>>>>(
        &self,
        entries: &[E],
        first_key: &str,
        call: impl Fn(Vec<E>) -> F,
    ) -> Vec<Result<T>> {
        let since = Instant::now();
        let mut backoff = backoff(first_key);
        let mut answers = call(entries.to_vec()).await;
        loop {
            let worth = |answer: &Result<T>| answer.as_ref().err().is_some_and(|error| self.is_worth_repeating(error));
            let open: Vec<usize> = (0..answers.len()).filter(|&entry| worth(&answers[entry])).collect();
            let Some(error) = open.first().and_then(|&entry| answers[entry].as_ref().err()).cloned() else {
                return answers;
            };
            if self.before_retry(error, since, &mut backoff).await.is_err() {
                return answers;
            }
            let again = call(open.iter().map(|&entry| entries[entry].clone()).collect()).await;
            for (entry, answer) in open.into_iter().zip(again) {
                answers[entry] = answer;
            }
        }
    }
}

fn backoff(key: &str) -> Backoff {
    Backoff::new(Duration::from_millis(100), Duration::from_secs(10), xxhash_rust::xxh3::xxh3_64(key.as_bytes()))
}

/// Repeats a call of the inner store under the policy.
macro_rules! repeat {
    ($self:ident, $key:expr, $call:expr) => {{
        let since = Instant::now();
        let mut backoff = backoff($key);
        loop {
            match $call.await {
                Ok(value) => return Ok(value),
                Err(error) => $self.before_retry(error, since, &mut backoff).await?,
            }
        }
    }};
}

#[async_trait]
impl Store for RetryingStore {
    fn location(&self) -> String {
        self.inner.location()
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        repeat!(self, key, self.inner.head(key))
    }

    async fn open(&self, key: &str, options: GetOptions) -> Result<Option<(ObjectMeta, Box<dyn ObjectReader>)>> {
        repeat!(self, key, self.inner.open(key, options.clone()))
    }

    async fn put(&self, key: &str, body: Bytes, condition: PutCondition, metadata: &Metadata) -> Result<PutOutcome> {
        repeat!(self, key, self.inner.put(key, body.clone(), condition.clone(), metadata))
    }

    /// Only the beginning is repeated: parts are retried by the store's client, and a failed upload is begun anew.
    async fn multipart(&self, key: &str, metadata: &Metadata) -> Result<Box<dyn MultipartUpload>> {
        repeat!(self, key, self.inner.multipart(key, metadata))
    }

    async fn list(&self, options: &ListOptions) -> Result<ListPage> {
        repeat!(self, &options.prefix, self.inner.list(options))
    }

    async fn copy(&self, from: &str, source_version: &Version, to: &str) -> Result<()> {
        repeat!(self, from, self.inner.copy(from, source_version, to))
    }

    async fn rename(&self, from: &str, source_version: &Version, to: &str) -> Result<RenameOutcome> {
        repeat!(self, from, self.inner.rename(from, source_version, to))
    }

    async fn rename_many(&self, moves: &[Move]) -> Vec<Result<RenameOutcome>> {
        let first = moves.first().map_or("", |first| &first.from);
        let call = |moves: Vec<Move>| async move { self.inner.rename_many(&moves).await };
        self.repeat_batch(moves, first, call).await
    }

    async fn delete(&self, key: &str, if_version: Option<&Version>) -> Result<DeleteOutcome> {
        repeat!(self, key, self.inner.delete(key, if_version))
    }

    async fn delete_many(&self, objects: &[(String, Version)]) -> Vec<Result<DeleteOutcome>> {
        let first = objects.first().map_or("", |(key, _)| key);
        let call = |objects: Vec<(String, Version)>| async move { self.inner.delete_many(&objects).await };
        self.repeat_batch(objects, first, call).await
    }

    async fn tag(&self, key: &str, tags: &Metadata) -> Result<()> {
        repeat!(self, key, self.inner.tag(key, tags))
    }

    async fn tag_version(&self, key: &str, version: &Version, tags: &Metadata) -> Result<TagOutcome> {
        repeat!(self, key, self.inner.tag_version(key, version, tags))
    }

    async fn unfinished_uploads(&self, options: &ListUploads) -> Result<UploadPage> {
        repeat!(self, &options.prefix, self.inner.unfinished_uploads(options))
    }

    async fn abort_upload(&self, upload: &UnfinishedUpload) -> Result<()> {
        repeat!(self, &upload.key, self.inner.abort_upload(upload))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::store::LocalStore;

    fn store(patience: Duration) -> RetryingStore {
        let policy = RetryPolicy {
            patience: Some(patience),
            wait_for_operator: false,
            shutdown: Shutdown::new(),
            on_retry: Arc::new(|_| {}),
        };
        RetryingStore::new(Arc::new(LocalStore::new("unused".into())), policy)
    }

    fn error(kind: StoreErrorKind, key: &str) -> StoreError {
        StoreError::new(kind, "rename", key, "told to fail")
    }

    #[tokio::test]
    async fn of_a_batch_only_what_may_work_later_is_repeated() {
        let calls = Mutex::new(Vec::new());
        let call = |keys: Vec<&'static str>| {
            calls.lock().unwrap().push(keys.clone());
            let count = calls.lock().unwrap().len();
            let answer = move |key: &'static str| match key {
                "wrong" => Err(error(StoreErrorKind::InvalidKey, key)),
                "slow" if count < 3 => Err(error(StoreErrorKind::Transient, key)),
                "busy" if count < 2 => Err(error(StoreErrorKind::Transient, key)),
                key => Ok(format!("{key} at {count}")),
            };
            async move { keys.into_iter().map(answer).collect() }
        };
        let entries = ["a", "slow", "wrong", "busy", "b"];
        let answers = store(Duration::from_secs(60)).repeat_batch(&entries, "a", call).await;
        let texts: Vec<_> = answers.into_iter().map(|answer| answer.map_err(|error| error.kind)).collect();
        let ok = |text: &str| Ok(text.to_owned());
        let expected = [ok("a at 1"), ok("slow at 3"), Err(StoreErrorKind::InvalidKey), ok("busy at 2"), ok("b at 1")];
        assert_eq!(texts, expected);
        assert_eq!(*calls.lock().unwrap(), [entries.to_vec(), vec!["slow", "busy"], vec!["slow"]]);
    }

    #[tokio::test]
    async fn when_the_patience_is_over_each_entry_keeps_its_own_answer() {
        let call = |keys: Vec<&'static str>| async move {
            let answer = |key| if key == "a" { Ok(key) } else { Err(error(StoreErrorKind::Transient, key)) };
            keys.into_iter().map(answer).collect()
        };
        let answers = store(Duration::ZERO).repeat_batch(&["a", "b", "c"], "a", call).await;
        let keys: Vec<_> = answers.into_iter().map(|answer| answer.map_err(|error| error.key)).collect();
        assert_eq!(keys, [Ok("a"), Err("b".to_owned()), Err("c".to_owned())]);
    }
}
