//! Two workers that both believe they own a partition, crashes, lost answers and offset resets, over a real folder:
//! whatever the interleaving, every event ends in the tables once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow_array::cast::AsArray;
use async_trait::async_trait;
use bytes::Bytes;
use common::log::RecordBatch;
use common::store::{
    DeleteOutcome, GetOptions, ListOptions, ListPage, LocalStore, Metadata, MultipartUpload, ObjectMeta, ObjectReader,
    PutCondition, PutOutcome, RenameOutcome, Result as StoreResult, StoreError, StoreErrorKind, TagOutcome, Version,
};
use common::telemetry::Registry;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;

use super::*;
use crate::batch::testing::{ENCODING, event, layout};

const GROUP: &str = "g";

/// Fails one call after a while: before it took effect, or after, so that the caller sees a time-out of a success.
struct Faulty {
    inner: LocalStore,
    calls_left: AtomicI64,
    after_effect: bool,
}

impl Faulty {
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
        self.inner.rename(from, version, to).await
    }
    async fn delete(&self, key: &str, if_version: Option<&Version>) -> StoreResult<DeleteOutcome> {
        self.inner.delete(key, if_version).await
    }
    async fn tag(&self, key: &str, tags: &Metadata) -> StoreResult<()> {
        self.inner.tag(key, tags).await
    }
    async fn tag_version(&self, key: &str, version: &Version, tags: &Metadata) -> StoreResult<TagOutcome> {
        self.inner.tag_version(key, version, tags).await
    }
}

#[derive(Debug, Clone)]
enum Action {
    Read(usize),
    Flush,
    Crash,
    /// The worker's next store call but so many times out, after its effect or before it.
    Fault {
        calls: i64,
        after_effect: bool,
    },
    /// The worker restarts from an offset an operator set: this share of what is committed.
    Reset(u8),
    /// Files of the tables disappear (one in so many), and the worker starts over from the beginning.
    Lose(usize),
    /// The worker restarts from an offset an operator set forward: this share of what lies ahead.
    Skip(u8),
    /// The log lets go of this share of its records.
    Trim(u8),
}

struct Simulation {
    folder: tempfile::TempDir,
    values: Vec<String>,
    /// Where the log begins.
    earliest: i64,
    committed: Option<i64>,
    /// The log let go of records of a batch whose cut is put, and a worker said so.
    is_stuck: bool,
    max_rows: [u64; 2],
    metrics: Arc<Metrics>,
}

struct Worker {
    context: Context,
    /// `None` after a crash.
    partition: Option<Partition>,
    position: i64,
}

impl Simulation {
    /// A log of events, by id and type.
    fn new(kinds: &[(u32, u8)], max_rows: [u64; 2]) -> Self {
        let values = kinds
            .iter()
            .map(|(id, kind)| event(&format!("e{id}"), "2021-01-14T10:15:30", "d", &format!("t{kind}"), "1"));
        Self {
            folder: tempfile::tempdir().unwrap(),
            values: values.collect(),
            earliest: 0,
            committed: None,
            is_stuck: false,
            max_rows,
            metrics: Arc::new(Metrics::new(&Registry::new()).unwrap()),
        }
    }

    fn bounds(&self) -> Bounds {
        Bounds { earliest: self.earliest, latest: i64::try_from(self.values.len()).unwrap() }
    }

    fn worker(&self, index: usize, fault: Option<(i64, bool)>) -> Worker {
        let (calls, after_effect) = fault.unwrap_or((-1, false));
        let inner = LocalStore::new(self.folder.path().to_owned());
        let context = Context {
            store: Arc::new(Faulty { inner, calls_left: AtomicI64::new(calls), after_effect }),
            topic: "events".into(),
            group: GROUP.into(),
            log_id: "log".into(),
            layout: layout(),
            encoding: ENCODING,
            max_age: Duration::MAX,
            ages: TypeAges::default(),
            max_rows: self.max_rows[index],
            max_bytes: u64::MAX,
            missing: MissingFiles::Restore,
            metrics: self.metrics.clone(),
        };
        Worker { context, partition: None, position: 0 }
    }

    fn chunk(&self, from: i64, count: usize) -> Chunk {
        let start = usize::try_from(from).unwrap();
        let end = (start + count).min(self.values.len());
        let mut chunk = Chunk { partition: 0, records: RecordBatch::new(), ..Chunk::default() };
        for (index, value) in self.values.iter().enumerate().take(end).skip(start) {
            chunk.records.push(format!("k{index}").as_bytes(), Some(value.as_bytes()), |_| {}).unwrap();
            chunk.offsets.push(i64::try_from(index).unwrap());
            chunk.times_ms.push(1_000_000 + i64::try_from(index).unwrap());
        }
        chunk
    }

    /// Takes the partition over if the worker has not got it. A store fault is a crash.
    async fn own(&mut self, worker: &mut Worker) {
        if worker.partition.is_none() {
            match Partition::take_over(&worker.context, 0, self.committed, self.bounds()).await {
                Ok((partition, start)) => {
                    worker.partition = Some(partition);
                    worker.position = start;
                }
                Err(PartitionError::Store(_)) => {}
                Err(PartitionError::Refused(refusal)) if refusal.0.contains("was begun") => self.is_stuck = true,
                Err(error) => panic!("refused: {error}"),
            }
        }
    }

    /// What the refusal tells an operator to do, with every worker stopped and nothing under way.
    async fn remedy(&mut self) {
        // Store calls that were given up may still take effect. They run one after another, before this.
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        let cuts = self.folder.path().join("_batches/events/0/cuts");
        let mut open: Vec<_> = std::fs::read_dir(&cuts).unwrap().map(|entry| entry.unwrap().path()).collect();
        open.retain(|path| path.extension().is_some_and(|extension| extension == "json") && !is_hidden(path));
        let open = open.into_iter().min().unwrap();
        let cut: Cut = serde_json::from_slice(&std::fs::read(&open).unwrap()).unwrap();
        for path in self.table_files() {
            if path.file_name().unwrap().to_str().unwrap().starts_with(&format!("events-0-{}-", cut.from)) {
                std::fs::remove_file(path).unwrap();
            }
        }
        std::fs::remove_file(open).unwrap();
        self.is_stuck = false;
    }

    /// Where the chain begins; the end of the log if it never did.
    fn origin(&self) -> usize {
        match std::fs::read(self.folder.path().join("_batches/events/0/origin.json")) {
            Ok(body) => usize::try_from(serde_json::from_slice::<Origin>(&body).unwrap().start).unwrap(),
            Err(_) => self.values.len(),
        }
    }

    /// Offsets that the chain says nothing was written of.
    fn passed_over(&self) -> BTreeSet<usize> {
        let mut offsets = BTreeSet::new();
        for entry in std::fs::read_dir(self.folder.path().join("_batches/events/0/cuts")).into_iter().flatten() {
            let path = entry.unwrap().path();
            if is_hidden(&path) {
                continue;
            }
            let cut: Cut = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            if !cut.is_batch() {
                offsets.extend(usize::try_from(cut.from).unwrap()..usize::try_from(cut.to).unwrap());
            }
        }
        offsets
    }

    async fn settle(&mut self, worker: &mut Worker, next: Result<Next>) {
        match next {
            Ok(next) => {
                // A commit is seen by everybody, also that of a worker that does not own the partition any more.
                if let Some(offset) = worker.partition.as_mut().and_then(Partition::take_commit) {
                    self.committed = Some(offset);
                }
                match next {
                    Next::Continue => {}
                    Next::Restart(offset) => worker.position = offset,
                    Next::Resolve => worker.partition = None,
                }
            }
            Err(PartitionError::Store(_)) => worker.partition = None,
            Err(error) => panic!("refused: {error}"),
        }
    }

    async fn read(&mut self, worker: &mut Worker, count: usize) {
        self.own(worker).await;
        if worker.position < self.earliest {
            // A log answers that the offset is out of range, which ends the session.
            worker.partition = None;
        }
        let Some(partition) = &mut worker.partition else { return };
        let chunk = self.chunk(worker.position, count);
        worker.position += i64::try_from(chunk.offsets.len()).unwrap();
        let next = partition.take(&worker.context, &chunk).await;
        self.settle(worker, next).await;
    }

    async fn flush(&mut self, worker: &mut Worker) {
        self.own(worker).await;
        let Some(partition) = &mut worker.partition else { return };
        let next = partition.flush(&worker.context).await;
        self.settle(worker, next).await;
    }

    fn table_files(&self) -> Vec<std::path::PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![self.folder.path().join("events")];
        while let Some(dir) = open.pop() {
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                // What a store call that was given up still writes, or takes away again, has a hidden name.
                if entry.path().is_dir() {
                    open.push(entry.path());
                } else if !is_hidden(&entry.path()) {
                    found.push(entry.path());
                }
            }
        }
        found.sort();
        found
    }

    async fn act(&mut self, workers: &mut [Worker; 2], index: usize, action: &Action) {
        self.act_alone(&mut workers[index], index, action).await;
        if self.is_stuck {
            workers.iter_mut().for_each(|worker| worker.partition = None);
            self.remedy().await;
        }
    }

    async fn act_alone(&mut self, worker: &mut Worker, index: usize, action: &Action) {
        match action {
            Action::Read(count) => self.read(worker, *count).await,
            Action::Flush => self.flush(worker).await,
            Action::Crash => worker.partition = None,
            Action::Fault { calls, after_effect } => *worker = self.worker(index, Some((*calls, *after_effect))),
            Action::Reset(share) => {
                worker.partition = None;
                self.committed = self.committed.map(|offset| offset * i64::from(*share) / 255);
            }
            Action::Lose(one_in) => {
                for path in self.table_files().iter().step_by(*one_in) {
                    std::fs::remove_file(path).unwrap();
                }
                worker.partition = None;
                self.set_back();
            }
            Action::Skip(share) => {
                worker.partition = None;
                let latest = self.bounds().latest;
                self.committed = self.committed.map(|offset| offset + (latest - offset) * i64::from(*share) / 255);
            }
            Action::Trim(share) => {
                self.earliest += (self.bounds().latest - self.earliest) * i64::from(*share) / 255;
            }
        }
    }

    /// What an operator does to have files made again. Also when no commit was ever seen: the chain may be further than
    /// that, and a group without offsets asks for nothing.
    fn set_back(&mut self) {
        let origin = self.folder.path().join("_batches/events/0/origin.json");
        if self.committed.is_some() || origin.exists() {
            self.committed = Some(0);
        }
    }

    /// One worker alone, without faults, to the end.
    async fn finish(&mut self) {
        let mut worker = self.worker(0, None);
        let end = self.bounds().latest;
        // Files may have been lost while another worker moved the committed offset past them.
        self.set_back();
        for _ in 0..10_000 {
            self.own(&mut worker).await;
            if worker.position >= end && worker.partition.as_ref().is_some_and(Partition::is_flushed) {
                return;
            }
            if worker.position < end {
                self.read(&mut worker, 7).await;
            } else {
                self.flush(&mut worker).await;
            }
            if self.is_stuck {
                worker.partition = None;
                self.remedy().await;
            }
        }
        panic!("no end after 10,000 steps, at {}", worker.position);
    }

    fn ids(&self) -> Vec<String> {
        let mut ids = Vec::new();
        for path in self.table_files() {
            let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(path).unwrap()).unwrap();
            for batch in reader.build().unwrap() {
                let batch = batch.unwrap();
                let column = batch.column_by_name("event_id").unwrap().as_string::<i32>();
                ids.extend((0..batch.num_rows()).map(|row| column.value(row).to_owned()));
            }
        }
        ids.sort();
        ids
    }
}

/// One blocking thread: what is given up ends before what is begun later.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap()
}

fn is_hidden(path: &std::path::Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => (1_usize..12).prop_map(Action::Read),
        3 => Just(Action::Flush),
        1 => Just(Action::Crash),
        3 => (0_i64..14, any::<bool>()).prop_map(|(calls, after_effect)| Action::Fault { calls, after_effect }),
        1 => any::<u8>().prop_map(Action::Reset),
        1 => (1_usize..4).prop_map(Action::Lose),
    ]
}

fn action_on_the_log() -> impl Strategy<Value = Action> {
    prop_oneof![
        12 => action().prop_filter("keeps the files", |action| !matches!(action, Action::Lose(_))),
        1 => (0_u8..120).prop_map(Action::Skip),
        1 => (0_u8..120).prop_map(Action::Trim),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn every_event_is_written_once_whatever_happens(
        kinds in prop::collection::vec((0_u32..40, 0_u8..3), 5..60),
        script in prop::collection::vec((0_usize..2, action()), 0..60),
        max_rows in [3_u64..20, 3_u64..20],
    ) {
        let runtime = runtime();
        let expected: BTreeSet<String> = kinds.iter().map(|(id, _)| format!("e{id}")).collect();
        let mut simulation = Simulation::new(&kinds, max_rows);
        runtime.block_on(async {
            let mut workers = [simulation.worker(0, None), simulation.worker(1, None)];
            for (index, action) in &script {
                simulation.act(&mut workers, *index, action).await;
            }
            simulation.finish().await;
        });
        prop_assert_eq!(simulation.ids(), expected.into_iter().collect::<Vec<_>>());
    }

    /// Files may not get lost here: those of records that the log has let go of cannot be made again.
    #[test]
    fn what_is_skipped_or_lost_stands_in_the_chain_and_everything_else_is_written_once(
        kinds in prop::collection::vec((0_u32..40, 0_u8..3), 5..60),
        script in prop::collection::vec((0_usize..2, action_on_the_log()), 0..60),
        max_rows in [3_u64..20, 3_u64..20],
    ) {
        let runtime = runtime();
        let mut simulation = Simulation::new(&kinds, max_rows);
        runtime.block_on(async {
            let mut workers = [simulation.worker(0, None), simulation.worker(1, None)];
            for (index, action) in &script {
                simulation.act(&mut workers, *index, action).await;
            }
            simulation.finish().await;
        });
        // Before the origin nothing was there when the chain began.
        let begins = simulation.origin();
        let passed_over = simulation.passed_over();
        let expected: BTreeSet<String> = kinds
            .iter()
            .enumerate()
            .filter(|(offset, _)| *offset >= begins && !passed_over.contains(offset))
            .map(|(_, (id, _))| format!("e{id}"))
            .collect();
        prop_assert_eq!(simulation.ids(), expected.into_iter().collect::<Vec<_>>());
    }
}
