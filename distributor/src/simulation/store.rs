//! A store in memory that keeps the seam's guarantees, seen by each process through calls that go wrong.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use common::clock::Clock;
use common::store::{
    DeleteOutcome, GetOptions, ListOptions, ListPage, Metadata, MultipartUpload, ObjectMeta, ObjectReader,
    PutCondition, PutOutcome, RenameOutcome, Result as StoreResult, Store, StoreError, StoreErrorKind, TagOutcome,
    Version,
};

use super::Sabotage;
use super::chance::{Chance, Fate, Life};

struct Object {
    body: Bytes,
    version: u64,
    modified_ms: i64,
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

/// What all processes share.
pub(super) struct MemoryStore {
    objects: Mutex<BTreeMap<String, Object>>,
    /// Every entry of a commit log that ever took effect, also those that were collected.
    entries: Mutex<BTreeMap<String, Bytes>>,
    /// What engines see.
    visible: Mutex<Visible>,
    pub chance: Arc<Chance>,
    sabotage: Option<Sabotage>,
}

impl MemoryStore {
    pub fn new(chance: Arc<Chance>, sabotage: Option<Sabotage>) -> Self {
        let (objects, entries, visible) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { objects, entries, visible, chance, sabotage }
    }

    fn head(&self, key: &str) -> Option<ObjectMeta> {
        self.objects.lock().unwrap().get(key).map(|object| object.meta(key))
    }

    pub fn get(&self, key: &str) -> Option<Bytes> {
        self.objects.lock().unwrap().get(key).map(|object| object.body.clone())
    }

    pub fn put(&self, key: &str, body: Bytes, condition: &PutCondition) -> PutOutcome {
        let mut objects = self.objects.lock().unwrap();
        let found = objects.get(key).map(|object| Version(object.version.to_string()));
        match condition {
            PutCondition::IfAbsent if found.is_some() && self.sabotage != Some(Sabotage::ConditionIgnored) => {
                return PutOutcome::AlreadyExists;
            }
            PutCondition::IfVersion(version) if found.as_ref() != Some(version) => return PutOutcome::VersionMismatch,
            _ => {}
        }
        let version = self.chance.draw(super::random::Random::next);
        let forgets = self.sabotage == Some(Sabotage::PutForgotten) && version.is_multiple_of(40);
        if !forgets {
            if key.contains("/log/") {
                self.entries.lock().unwrap().entry(key.to_owned()).or_insert_with(|| body.clone());
            }
            self.visible.lock().unwrap().put(key, &body);
            objects.insert(key.to_owned(), Object { body, version, modified_ms: self.chance.now_ms() });
        }
        PutOutcome::Written(Version(version.to_string()))
    }

    fn list(&self, options: &ListOptions) -> ListPage {
        let objects = self.objects.lock().unwrap();
        let from = match &options.start_after {
            Some(key) if *key >= options.prefix => Bound::Excluded(key.clone()),
            _ => Bound::Included(options.prefix.clone()),
        };
        let limit = options.limit.unwrap_or(usize::MAX);
        let mut page = ListPage::default();
        for (key, object) in objects.range((from, Bound::Unbounded)) {
            let Some(rest) = key.strip_prefix(&options.prefix) else { break };
            let folded = options.delimiter.then(|| rest.find('/')).flatten();
            let folded = folded.map(|at| format!("{}{}", options.prefix, &rest[..=at]));
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

    pub fn keys(&self, prefix: &str) -> Vec<String> {
        self.objects.lock().unwrap().keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }

    /// By hand: whatever it was, it never was there.
    pub fn remove(&self, key: &str) {
        self.entries.lock().unwrap().remove(key);
        self.delete(key, None);
    }

    fn delete(&self, key: &str, version: Option<&Version>) -> DeleteOutcome {
        let mut objects = self.objects.lock().unwrap();
        let is_other =
            |version: &Version| objects.get(key).is_some_and(|object| Version(object.version.to_string()) != *version);
        if version.is_some_and(is_other) {
            return DeleteOutcome::VersionMismatch;
        }
        self.visible.lock().unwrap().removed(key);
        objects.remove(key);
        DeleteOutcome::Deleted
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

/// Of a data file.
fn partition_of(key: &str) -> Option<i32> {
    let is_data = key.starts_with("events/") || key.starts_with("rejected/");
    let name = key.rsplit('/').next()?.strip_prefix("events-")?;
    is_data.then(|| name.split('-').next()?.parse().ok()).flatten()
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

    async fn look<T>(&self, operation: &'static str, key: &str, look: impl FnOnce(&MemoryStore) -> T) -> StoreResult<T>
    where
        T: Default,
    {
        self.life.goes_on().await;
        let (fate, kind) = self.fate(operation, key, false);
        tokio::time::sleep(self.memory.chance.latency()).await;
        self.life.goes_on().await;
        match fate {
            Fate::Fine => Ok(look(&self.memory)),
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
        change: impl FnOnce(&MemoryStore) -> T + Send + 'static,
    ) -> StoreResult<T> {
        self.life.goes_on().await;
        let (fate, kind) = self.fate(operation, key, true);
        tokio::time::sleep(self.memory.chance.latency()).await;
        self.life.goes_on().await;
        match fate {
            Fate::Fine => Ok(change(&self.memory)),
            Fate::Fails => Err(self.failure(operation, key, (fate, kind))),
            Fate::AnswerLost => {
                change(&self.memory);
                Err(self.failure(operation, key, (fate, kind)))
            }
            Fate::KilledBefore => self.die(operation, key, (fate, kind)).await,
            Fate::KilledAfter => {
                change(&self.memory);
                self.die(operation, key, (fate, kind)).await
            }
            Fate::Late(after) | Fate::KilledLate(after) => {
                let memory = self.memory.clone();
                let what = format!("{} {operation} {key} takes effect only now", self.life.name);
                memory.chance.sent();
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    change(&memory);
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

    /// A put that makes rows visible has to end some time after its proof does.
    fn check_put(&self, key: &str, condition: &PutCondition) {
        let is_data = key.starts_with("events/") || key.starts_with("rejected/");
        let shows_rows = is_data && *condition == PutCondition::IfAbsent;
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
        self.store.look("put part", &self.key, |_| ()).await?;
        self.parts.extend_from_slice(&bytes);
        Ok(())
    }

    async fn complete(self: Box<Self>, condition: PutCondition) -> StoreResult<PutOutcome> {
        let Self { store, key, parts } = *self;
        store.check_put(&key, &condition);
        let named = key.clone();
        store.change("complete", &key, move |memory| memory.put(&named, parts.into(), &condition)).await
    }

    async fn abort(self: Box<Self>) -> StoreResult<()> {
        self.store.look("abort", &self.key, |_| ()).await
    }
}

/// The whole range at once, or a failure half-way.
struct Body(StoreResult<Option<Bytes>>);

#[async_trait]
impl ObjectReader for Body {
    async fn next(&mut self) -> StoreResult<Option<Bytes>> {
        std::mem::replace(&mut self.0, Ok(None))
    }
}

#[async_trait]
impl Store for StoreOf {
    fn location(&self) -> String {
        "memory".to_owned()
    }

    fn as_of(&self, _: i64) -> Option<Arc<dyn Store>> {
        Some(Arc::new(Self { is_resting: true, ..self.clone() }))
    }

    async fn head(&self, key: &str) -> StoreResult<Option<ObjectMeta>> {
        self.look("head", key, |memory| memory.head(key)).await
    }

    async fn open(&self, key: &str, options: GetOptions) -> StoreResult<Option<(ObjectMeta, Box<dyn ObjectReader>)>> {
        let found = self.look("get", key, |memory| memory.head(key).zip(memory.get(key))).await?;
        let Some((meta, body)) = found else { return Ok(None) };
        if options.if_version.is_some_and(|version| version != meta.version) {
            return Err(StoreError::new(StoreErrorKind::VersionMismatch, "get", key, "another version is there"));
        }
        let range = options.range.unwrap_or(0..meta.size_bytes);
        let at = |byte: u64| usize::try_from(byte.min(meta.size_bytes)).unwrap();
        let body = body.slice(at(range.start)..at(range.end.max(range.start)));
        let broken = self.fate("get (body)", key, false);
        let body = if broken.0 == Fate::Fails { Err(self.failure("get (body)", key, broken)) } else { Ok(Some(body)) };
        Ok(Some((meta, Box::new(Body(body)))))
    }

    async fn put(&self, key: &str, body: Bytes, condition: PutCondition, _: &Metadata) -> StoreResult<PutOutcome> {
        self.check_put(key, &condition);
        let named = key.to_owned();
        self.change("put", key, move |memory| memory.put(&named, body, &condition)).await
    }

    async fn multipart(&self, key: &str, _: &Metadata) -> StoreResult<Box<dyn MultipartUpload>> {
        self.look("multipart put", key, |_| ()).await?;
        Ok(Box::new(Upload { store: self.clone(), key: key.to_owned(), parts: Vec::new() }))
    }

    async fn list(&self, options: &ListOptions) -> StoreResult<ListPage> {
        self.look("list", &options.prefix, |memory| memory.list(options)).await
    }

    async fn copy(&self, from: &str, version: &Version, to: &str) -> StoreResult<()> {
        let (source, version, target) = (from.to_owned(), version.clone(), to.to_owned());
        let copied = self.change("copy", from, move |memory| {
            let body =
                memory.get(&source).filter(|_| memory.head(&source).is_some_and(|meta| meta.version == version))?;
            Some(memory.put(&target, body, &PutCondition::None))
        });
        let missing = || StoreError::new(StoreErrorKind::Other, "copy", from, "another version is there");
        copied.await?.map(drop).ok_or_else(missing)
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
