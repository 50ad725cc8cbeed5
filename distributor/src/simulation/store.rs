//! The store in memory that passes the seam's conformance suite, seen by each process through calls that go wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use common::store::{
    Capabilities, DeleteOutcome, GetOptions, ListOptions, ListPage, MemoryStore as Objects, Metadata, MultipartUpload,
    ObjectMeta, ObjectReader, PutCondition, PutOutcome, RenameOutcome, Result as StoreResult, Store, StoreError,
    StoreErrorKind, TagOutcome, Version,
};
use futures_util::FutureExt;

use super::Sabotage;
use super::chance::{Chance, Fate, Life};

/// What all processes share.
pub(super) struct MemoryStore {
    objects: Objects,
    /// Every entry of a commit log that ever took effect, also those that were collected.
    entries: Mutex<BTreeMap<String, Bytes>>,
    /// What engines see.
    visible: Mutex<Visible>,
    /// What stood under a key before it was altered, and what it was made into.
    altered: Mutex<BTreeMap<String, (Bytes, Bytes)>>,
    pub chance: Arc<Chance>,
    sabotage: Option<Sabotage>,
}

/// A store in memory answers at once.
fn now<T>(answer: impl Future<Output = StoreResult<T>>) -> StoreResult<T> {
    answer.now_or_never().expect("nothing to wait for")
}

impl MemoryStore {
    pub fn new(chance: Arc<Chance>, sabotage: Option<Sabotage>) -> Self {
        let (entries, visible, altered) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { objects: Objects::new(chance.clone()), entries, visible, altered, chance, sabotage }
    }

    pub fn get(&self, key: &str) -> Option<Bytes> {
        self.objects.get(key)
    }

    pub fn put(&self, key: &str, body: &Bytes, condition: &PutCondition) -> StoreResult<PutOutcome> {
        let is_ignored = *condition == PutCondition::IfAbsent && self.sabotage == Some(Sabotage::ConditionIgnored);
        let condition = if is_ignored { PutCondition::None } else { condition.clone() };
        if self.sabotage == Some(Sabotage::PutForgotten) && self.chance.draw(|random| random.one_in(40)) {
            return Ok(PutOutcome::Written(Version("none".to_owned())));
        }
        let outcome = now(self.objects.put(key, body.clone(), condition, &Metadata::new()))?;
        if matches!(outcome, PutOutcome::Written(_)) {
            self.is_put(key, body);
        }
        Ok(outcome)
    }

    fn is_put(&self, key: &str, body: &Bytes) {
        if key.contains("/log/") {
            self.entries.lock().unwrap().entry(key.to_owned()).or_insert_with(|| body.clone());
        }
        self.visible.lock().unwrap().put(key, body);
    }

    fn copy(&self, from: &str, version: &Version, to: &str) -> StoreResult<()> {
        now(self.objects.copy(from, version, to))?;
        self.is_put(to, &self.get(to).unwrap());
        Ok(())
    }

    pub fn keys(&self, prefix: &str) -> Vec<String> {
        self.objects.keys(prefix)
    }

    /// By hand: whatever it was, it never was there.
    pub fn remove(&self, key: &str) {
        self.entries.lock().unwrap().remove(key);
        self.visible.lock().unwrap().removed(key);
        self.objects.set(key, None);
    }

    fn delete(&self, key: &str, version: Option<&Version>) -> StoreResult<DeleteOutcome> {
        let outcome = now(self.objects.delete(key, version))?;
        if outcome == DeleteOutcome::Deleted {
            self.visible.lock().unwrap().removed(key);
        }
        Ok(outcome)
    }

    /// Bytes rot, without anybody having put anything.
    pub fn alter(&self, key: &str, into: Bytes) {
        let Some(was) = self.get(key) else { return };
        self.objects.set(key, Some(into.clone()));
        self.altered.lock().unwrap().entry(key.to_owned()).or_insert_with(|| (was, Bytes::new())).1 = into;
    }

    /// Keys of what was altered and stands so.
    pub fn altered(&self) -> Vec<String> {
        let altered = self.altered.lock().unwrap();
        let still = altered.iter().filter(|(key, (was, into))| was != into && self.get(key).as_ref() == Some(into));
        still.map(|(key, _)| key.clone()).collect()
    }

    /// A person brings back whatever is still there as it was altered.
    pub fn bring_back(&self) -> usize {
        let altered = std::mem::take(&mut *self.altered.lock().unwrap());
        let still = altered.into_iter().filter(|(key, (_, into))| self.get(key).as_ref() == Some(into));
        still.map(|(key, (was, _))| self.objects.set(&key, Some(was))).count()
    }

    /// The entries of a partition that ever were, newest first.
    pub fn entries(&self, partition: i32) -> Vec<(String, Bytes)> {
        let prefix = format!("_commits/events/{partition}/log/");
        let entries = self.entries.lock().unwrap();
        let of_it = entries.iter().filter(|(key, _)| key.starts_with(&prefix));
        of_it.map(|(key, body)| (key.clone(), body.clone())).collect()
    }

    /// What was visible twice at any moment.
    pub fn doubled(&self) -> Option<String> {
        self.visible.lock().unwrap().doubled.clone()
    }
}

/// The rows that a reader of the folders sees.
#[derive(Default)]
struct Visible {
    offsets: BTreeMap<String, Vec<i64>>,
    /// The file of each row, by partition and offset.
    files: BTreeMap<(i32, i64), String>,
    doubled: Option<String>,
}

impl Visible {
    fn put(&mut self, key: &str, body: &Bytes) {
        let Some(partition) = partition_of(key) else { return };
        self.removed(key);
        let rows = super::model::rows(body.clone()).unwrap_or_default();
        let offsets: Vec<i64> = rows.into_iter().map(|row| row.offset).collect();
        for offset in &offsets {
            if let Some(other) = self.files.insert((partition, *offset), key.to_owned()) {
                self.doubled
                    .get_or_insert_with(|| format!("offset {offset} of {partition} is in {other} and in {key}"));
            }
        }
        self.offsets.insert(key.to_owned(), offsets);
    }

    fn removed(&mut self, key: &str) {
        let Some(partition) = partition_of(key) else { return };
        for offset in self.offsets.remove(key).unwrap_or_default() {
            self.files.remove(&(partition, offset));
        }
    }
}

/// Whether engines that list folders read it.
pub(super) fn is_data(key: &str) -> bool {
    ["events/", "rejected/"].iter().any(|table| key.starts_with(table)) && !key.contains("/_")
}

/// Of a data file.
fn partition_of(key: &str) -> Option<i32> {
    let name = key.rsplit('/').next()?.strip_prefix("events-")?;
    is_data(key).then(|| name.split('-').next()?.parse().ok()).flatten()
}

/// Says of a call, by operation and key, what becomes of it and what kind its failure has; `None`: nothing special.
pub(super) type Script = Arc<dyn Fn(&'static str, &str) -> Option<(Fate, StoreErrorKind)> + Send + Sync>;

/// The store as one process sees it.
#[derive(Clone)]
pub(super) struct StoreOf {
    pub memory: Arc<MemoryStore>,
    pub life: Arc<Life>,
    /// Instead of chance.
    pub script: Option<Script>,
    /// Its puts rest on a proof of the tail.
    pub is_resting: bool,
}

impl StoreOf {
    fn fate(&self, operation: &'static str, key: &str, changes: bool) -> (Fate, StoreErrorKind) {
        let scripted = |script: &Script| script(operation, key).unwrap_or((Fate::Fine, StoreErrorKind::Other));
        self.script.as_ref().map_or_else(
            || {
                let chance = &self.memory.chance;
                let kinds = [StoreErrorKind::Transient, StoreErrorKind::Transient, StoreErrorKind::Denied];
                (chance.fate(changes), chance.draw(|random| random.pick(&kinds)))
            },
            scripted,
        )
    }

    fn failure(&self, operation: &'static str, key: &str, (fate, kind): (Fate, StoreErrorKind)) -> StoreError {
        self.memory.chance.tell(format_args!("{} {operation} {key}: {fate:?}", self.life.name));
        StoreError::new(kind, operation, key, format!("{kind:?}, says the simulation"))
    }

    async fn look<T>(
        &self,
        operation: &'static str,
        key: &str,
        look: impl FnOnce(&Objects) -> StoreResult<T>,
    ) -> StoreResult<T>
    where
        T: Default,
    {
        self.life.goes_on().await;
        let (fate, kind) = self.fate(operation, key, false);
        tokio::time::sleep(self.memory.chance.latency()).await;
        self.life.goes_on().await;
        match fate {
            Fate::Fine => look(&self.memory.objects),
            Fate::KilledBefore => self.die(operation, key, (fate, kind)).await,
            _ => {
                let failure = self.failure(operation, key, (fate, kind));
                if self.memory.sabotage == Some(Sabotage::FailureAsAbsence) { Ok(T::default()) } else { Err(failure) }
            }
        }
    }

    async fn change<T>(
        &self,
        operation: &'static str,
        key: &str,
        change: impl FnOnce(&MemoryStore) -> StoreResult<T> + Send + 'static,
    ) -> StoreResult<T> {
        self.life.goes_on().await;
        let (fate, kind) = self.fate(operation, key, true);
        tokio::time::sleep(self.memory.chance.latency()).await;
        self.life.goes_on().await;
        match fate {
            Fate::Fine => change(&self.memory),
            Fate::Fails => Err(self.failure(operation, key, (fate, kind))),
            Fate::AnswerLost => {
                drop(change(&self.memory));
                Err(self.failure(operation, key, (fate, kind)))
            }
            Fate::KilledBefore => self.die(operation, key, (fate, kind)).await,
            Fate::KilledAfter => {
                drop(change(&self.memory));
                self.die(operation, key, (fate, kind)).await
            }
            Fate::Late(after) | Fate::KilledLate(after) => {
                let memory = self.memory.clone();
                let what = format!("{} {operation} {key} takes effect only now", self.life.name);
                memory.chance.sent();
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    drop(change(&memory));
                    memory.chance.tell(what);
                    memory.chance.landed();
                });
                match fate {
                    Fate::Late(_) => Err(self.failure(operation, key, (fate, kind))),
                    _ => self.die(operation, key, (fate, kind)).await,
                }
            }
        }
    }

    async fn die<T>(&self, operation: &'static str, key: &str, fate: (Fate, StoreErrorKind)) -> StoreResult<T> {
        let failure = self.failure(operation, key, fate);
        self.life.end();
        self.life.goes_on().await;
        Err(failure)
    }

    /// # Errors
    /// The store is full.
    fn check_room(&self, operation: &'static str, key: &str) -> StoreResult<()> {
        if !self.memory.chance.is_full() {
            return Ok(());
        }
        Err(StoreError::new(StoreErrorKind::Transient, operation, key, "no space left, says the simulation"))
    }

    /// A put that makes rows visible has to end some time after its proof does.
    fn check_put(&self, key: &str, condition: &PutCondition) {
        let shows_rows = is_data(key) && *condition == PutCondition::IfAbsent;
        assert!(self.is_resting || !shows_rows, "{key} is put without a proof");
    }

    fn never(operation: &'static str, key: &str) -> StoreError {
        StoreError::new(StoreErrorKind::Unsupported, operation, key, "no distributor does this")
    }
}

struct Upload {
    store: StoreOf,
    key: String,
    parts: Vec<u8>,
}

#[async_trait]
impl MultipartUpload for Upload {
    async fn part(&mut self, bytes: Bytes) -> StoreResult<()> {
        self.store.check_room("put part", &self.key)?;
        self.store.look("put part", &self.key, |_| Ok(())).await?;
        self.parts.extend_from_slice(&bytes);
        Ok(())
    }

    async fn complete(self: Box<Self>, condition: PutCondition) -> StoreResult<PutOutcome> {
        let Self { store, key, parts } = *self;
        store.check_put(&key, &condition);
        store.check_room("complete", &key)?;
        let named = key.clone();
        store.change("complete", &key, move |memory| memory.put(&named, &parts.into(), &condition)).await
    }

    async fn abort(self: Box<Self>) -> StoreResult<()> {
        self.store.look("abort", &self.key, |_| Ok(())).await
    }
}

/// A body that breaks off.
struct Broken(Option<StoreError>);

#[async_trait]
impl ObjectReader for Broken {
    async fn next(&mut self) -> StoreResult<Option<Bytes>> {
        self.0.take().map_or(Ok(None), Err)
    }
}

#[async_trait]
impl Store for StoreOf {
    fn location(&self) -> String {
        "memory".to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        self.memory.objects.capabilities()
    }

    fn as_of(&self, _: i64) -> Option<Arc<dyn Store>> {
        Some(Arc::new(Self { is_resting: true, ..self.clone() }))
    }

    async fn head(&self, key: &str) -> StoreResult<Option<ObjectMeta>> {
        self.look("head", key, |objects| now(objects.head(key))).await
    }

    async fn open(&self, key: &str, options: GetOptions) -> StoreResult<Option<(ObjectMeta, Box<dyn ObjectReader>)>> {
        let opened = self.look("get", key, |objects| now(objects.open(key, options))).await?;
        let Some((meta, body)) = opened else { return Ok(None) };
        let broken = self.fate("get (body)", key, false);
        if broken.0 == Fate::Fails {
            return Ok(Some((meta, Box::new(Broken(Some(self.failure("get (body)", key, broken)))))));
        }
        Ok(Some((meta, body)))
    }

    async fn put(&self, key: &str, body: Bytes, condition: PutCondition, _: &Metadata) -> StoreResult<PutOutcome> {
        self.check_put(key, &condition);
        self.check_room("put", key)?;
        let named = key.to_owned();
        self.change("put", key, move |memory| memory.put(&named, &body, &condition)).await
    }

    async fn multipart(&self, key: &str, _: &Metadata) -> StoreResult<Box<dyn MultipartUpload>> {
        self.look("multipart put", key, |_| Ok(())).await?;
        Ok(Box::new(Upload { store: self.clone(), key: key.to_owned(), parts: Vec::new() }))
    }

    async fn list(&self, options: &ListOptions) -> StoreResult<ListPage> {
        self.look("list", &options.prefix, |objects| now(objects.list(options))).await
    }

    async fn copy(&self, from: &str, version: &Version, to: &str) -> StoreResult<()> {
        self.check_room("copy", to)?;
        let (source, version, target) = (from.to_owned(), version.clone(), to.to_owned());
        self.change("copy", from, move |memory| memory.copy(&source, &version, &target)).await
    }

    async fn rename(&self, from: &str, _: &Version, _: &str) -> StoreResult<RenameOutcome> {
        Err(Self::never("rename", from))
    }

    async fn delete(&self, key: &str, if_version: Option<&Version>) -> StoreResult<DeleteOutcome> {
        let (named, version) = (key.to_owned(), if_version.cloned());
        self.change("delete", key, move |memory| memory.delete(&named, version.as_ref())).await
    }

    async fn tag(&self, key: &str, _: &Metadata) -> StoreResult<()> {
        Err(Self::never("tag", key))
    }

    async fn tag_version(&self, key: &str, _: &Version, _: &Metadata) -> StoreResult<TagOutcome> {
        Err(Self::never("tag", key))
    }
}
