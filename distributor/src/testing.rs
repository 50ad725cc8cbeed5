//! A small trusted zone for tests, written by the whole role from an embedded log.

mod faulty;
pub(crate) mod interposed;
mod settled;
pub(crate) mod tables;
pub(crate) mod watched_log;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use commitlog::State;
use commitlog_storage::{CommitLog, Keep};
use common::clock::SystemClock;
use common::config::{MissingFiles, TypeAges};
use common::log::{EmbeddedLog, Log, RecordBatch, Retention, TopicSpec};
use common::shutdown::Shutdown;
use common::store::{LocalStore, Store};
use common::telemetry::{Health, Registry};

use crate::batch::testing::{ENCODING, event, layout};
use crate::layout::Layout;
use crate::{
    Audit, Auditor, Compactor, Distributor, EndOfInput, Fence, Host, Metrics, Pace, Policy, Repair, Rewriter, Scratch,
    Settings,
};

pub(crate) use faulty::Faulty;
pub(crate) use settled::to_its_last_effect;

const EVENTS: usize = 50;

/// A topic, and the tables written from it.
pub(crate) struct Zone {
    pub folder: tempfile::TempDir,
    pub log: Arc<EmbeddedLog>,
}

pub(crate) async fn open_log(folder: &Path) -> Arc<EmbeddedLog> {
    Arc::new(EmbeddedLog::open(folder, Arc::new(SystemClock)).await.unwrap())
}

impl Zone {
    /// A topic of one partition, distributed.
    pub async fn new() -> Self {
        let zone = Self::filled(1).await;
        zone.distribute().await;
        zone
    }

    pub async fn log_begins_at(&self) -> i64 {
        self.log.bounds("events").await.unwrap()[&0].earliest
    }

    /// In each partition 50 events of two types, every tenth of which is repeated; nothing distributed yet.
    pub async fn filled(partitions: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = open_log(&folder.path().join("log")).await;
        let spec = TopicSpec { name: "events".into(), partitions, retention: Retention::Delete };
        log.ensure_topic(&spec).await.unwrap();
        let zone = Self { folder, log };
        zone.append(partitions).await;
        zone
    }

    /// The same events again, in each partition.
    pub async fn append(&self, partitions: u32) {
        let mut records = RecordBatch::new();
        for number in 0..EVENTS {
            let value = event(&format!("e{number}"), "2021-01-14T10:15:30", "d", &format!("t{}", number % 2), "1");
            for _ in 0..if number % 10 == 0 { 2 } else { 1 } {
                records.push(b"key", Some(value.as_bytes()), |_| {}).unwrap();
            }
        }
        let mut writer = self.log.writer("w").await.unwrap();
        writer.begin().await.unwrap();
        for partition in 0..i32::try_from(partitions).unwrap() {
            writer.append("events", partition, &records).await.unwrap();
        }
        writer.commit().await.unwrap();
    }

    /// A single unique event.
    pub async fn append_one(&self, id: &str) {
        let mut records = RecordBatch::new();
        let value = event(id, "2021-01-14T10:15:30", "d", "t0", "1");
        records.push(b"key", Some(value.as_bytes()), |_| {}).unwrap();
        let mut writer = self.log.writer("w").await.unwrap();
        writer.begin().await.unwrap();
        writer.append("events", 0, &records).await.unwrap();
        writer.commit().await.unwrap();
    }

    /// Distributes up to the end of the log.
    pub async fn distribute(&self) {
        self.distributor().run(&EndOfInput::now(), &Shutdown::new()).await.unwrap();
    }

    /// In batches of 20 records.
    pub fn distributor(&self) -> Distributor {
        Distributor {
            companions: Vec::new(),
            store: self.store(),
            log: self.log.clone(),
            clock: Arc::new(SystemClock),
            host: crate::Host::system(),
            metrics: Arc::new(Metrics::new(&Registry::new()).unwrap()),
            health: Health::default(),
            settings: Settings {
                topic: "events".into(),
                partitions: 1,
                group: "g".into(),
                instance_id: None,
                layout: layout(),
                encoding: ENCODING,
                max_age: Duration::from_secs(60),
                ages: TypeAges::default(),
                max_bytes: u64::MAX,
                max_files: usize::MAX,
                max_rows: 20,
                max_memory: u64::MAX,
                window_memory: 1_000_000_000,
                scratch: Scratch::new(self.folder.path()),
                missing: MissingFiles::Restore,
                retention: Duration::from_secs(3_600),
                once: true,
                patience: Duration::from_secs(20),
            },
        }
    }

    pub fn store(&self) -> Arc<dyn Store> {
        Arc::new(LocalStore::new(self.trusted("")))
    }

    pub fn trusted(&self, path: &str) -> PathBuf {
        self.folder.path().join("trusted").join(path)
    }

    /// Files below a folder of the trusted zone, sorted.
    pub fn files(&self, folder: &str, suffix: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![self.trusted(folder)];
        while let Some(dir) = open.pop() {
            let Ok(entries) = fs::read_dir(dir) else { continue };
            for entry in entries {
                let path = entry.unwrap().path();
                // As engines do.
                if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"_")) {
                    continue;
                }
                if path.is_dir() {
                    open.push(path);
                } else if path.to_str().unwrap().ends_with(suffix) {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }

    /// The number of batches that entries commit, of which none is collected while a test runs.
    pub fn committed(&self, partition: i32) -> usize {
        let entries = self.files(&format!("_commits/events/{partition}/log"), ".json");
        let entries = entries.iter().filter_map(|path| fs::read(path).ok());
        let commits = |bytes: Vec<u8>| {
            let entry: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            entry["ops"].as_array().unwrap().iter().filter(|op| op["op"] == "commit").count()
        };
        entries.map(commits).sum()
    }

    pub async fn state(&self) -> State {
        CommitLog::new(self.store(), "events", 0).load_state().await.unwrap().0
    }

    /// Newest first.
    pub fn entries(&self) -> Vec<PathBuf> {
        self.files("_commits/events/0/log", ".json")
    }

    /// The entries alone say what is there.
    pub fn without_checkpoints(&self) {
        for kind in ["checkpoints", "segments"] {
            for path in self.files(&format!("_commits/events/0/{kind}"), "") {
                // A collection that was aborted may end its last call only now.
                let removed = fs::remove_file(path);
                assert!(
                    removed.as_ref().map_err(io::Error::kind).err().is_none_or(|kind| kind == io::ErrorKind::NotFound)
                );
            }
        }
        let root = self.trusted("_commits/events/0/root.json");
        if root.exists() {
            fs::remove_file(root).unwrap();
        }
    }

    /// The last commit is gone, as if its owner had died before.
    pub fn uncommit(&self) {
        self.without_checkpoints();
        let newest = self.entries().remove(0);
        assert!(fs::read_to_string(&newest).unwrap().contains("\"op\":\"commit\""));
        fs::remove_file(newest).unwrap();
        fs::remove_file(self.trusted("_watermark/events.json")).unwrap();
    }

    /// Puts a checkpoint of all entries.
    pub async fn checkpoint(&self) {
        let nothing = Keep { entries: 1_000, kept_ms: i64::MAX, log_from: i64::MIN };
        CommitLog::new(self.store(), "events", 0).collect(nothing, "collector").await.unwrap();
    }

    pub fn deep_auditor(&self) -> Auditor {
        Auditor {
            store: self.store(),
            log: Some(self.log.clone()),
            topic: "events".into(),
            group: "g".into(),
            window_memory: 1_000_000_000,
            batch_memory: 5_000,
            scratch: Scratch::new(self.folder.path()),
            has_tables: false,
            deep: true,
            uploads_older_than: Duration::from_secs(86_400),
            now_ms: common::clock::Clock::now_ms(&SystemClock),
            on_batch: Box::new(|_| {}),
        }
    }

    /// Merges every small file at once.
    pub fn compactor(&self) -> Compactor {
        Compactor {
            store: self.store(),
            log: Some(self.log.clone()),
            host: Host::system(),
            topic: "events".into(),
            group: "g".into(),
            encoding: ENCODING,
            policy: Policy { target_bytes: 1 << 30, rest_ms: 0 },
            now_ms: i64::MAX,
            scratch: Scratch::new(self.folder.path()),
            tables: None,
            since_ms: None,
            pace: Pace::new(None),
            fence: Fence::Locks,
            accepts_lost: false,
            on_file: Box::new(|_| {}),
        }
    }

    /// Makes batches that differ from a layout.
    pub fn rewriter(&self, layout: Layout) -> Rewriter {
        Rewriter {
            store: self.store(),
            log: self.log.clone(),
            host: Host::system(),
            topic: "events".into(),
            group: "g".into(),
            layout,
            encoding: ENCODING,
            window_memory: 1_000_000_000,
            batch_memory: 5_000,
            scratch: Scratch::new(self.folder.path()),
            tables: None,
            all: false,
            restores: true,
            require_all: false,
            accepts_lost: false,
            fence: Fence::Locks,
            on_batch: Box::new(|_| {}),
        }
    }

    /// A deep audit.
    pub async fn audit(&self) -> Audit {
        self.deep_auditor().verify(Repair::No).await.unwrap()
    }

    pub async fn assert_sound(&self) {
        let audit = self.audit().await;
        assert!(audit.is_sound(), "{:?}", audit.findings);
    }
}
