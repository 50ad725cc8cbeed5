//! A small trusted zone for tests, written by the whole role from an embedded log.

mod faulty;
pub(crate) mod interposed;
mod settled;
pub(crate) mod watched_log;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::clock::{ManualClock, SystemClock};
use common::config::{MissingFiles, TypeAges};
use common::log::{EmbeddedLog, Log, RecordBatch, Retention, TopicSpec};
use common::shutdown::Shutdown;
use common::store::{LocalStore, Store};
use common::telemetry::{Health, Registry};

use crate::batch::testing::{ENCODING, event, layout};
use crate::{Distributor, EndOfInput, Metrics, Record, Scratch, Settings};

pub(crate) use faulty::Faulty;
pub(crate) use settled::to_its_last_effect;

const EVENTS: usize = 50;
const DAY_MS: i64 = 86_400_000;

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

    /// The same events four times, ten days apart; the log only has the last of them.
    pub async fn of_forty_days() -> Self {
        Self::of_forty_days_and(async |_, _| {}).await
    }

    /// The same, with a call of `after` after each round, numbered from 0.
    pub async fn of_forty_days_and(after: impl AsyncFn(&Self, usize)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(1_000 * DAY_MS));
        let log = EmbeddedLog::open(&folder.path().join("log"), clock.clone()).await.unwrap();
        let spec = TopicSpec { name: "events".into(), partitions: 1, retention: Retention::Delete };
        log.ensure_topic(&spec).await.unwrap();
        let zone = Self { folder, log: Arc::new(log) };
        for round in 0..4 {
            zone.append(1).await;
            zone.distribute().await;
            after(&zone, round).await;
            clock.advance(10 * DAY_MS);
        }
        assert_eq!((zone.chain("cuts").len(), zone.completions(0)), (12, 12));
        // A distributor trims the embedded log by its own clock.
        let earliest = zone.log_begins_at().await;
        assert_eq!(earliest, 165, "the last round was trimmed");
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
            store: self.store(),
            log: self.log.clone(),
            clock: Arc::new(SystemClock),
            boot_clock: Arc::new(SystemClock),
            metrics: Arc::new(Metrics::new(&Registry::new()).unwrap()),
            health: Health::default(),
            settings: Settings {
                record: Record::Chain,
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

    /// Newest first.
    pub fn chain(&self, kind: &str) -> Vec<PathBuf> {
        self.files(&format!("_batches/events/0/{kind}"), "")
    }

    /// The number of complete batches of a partition.
    pub fn completions(&self, partition: i32) -> usize {
        let done = fs::read_dir(self.trusted(&format!("_batches/events/{partition}/done")));
        let names = done.into_iter().flatten().map(|entry| entry.unwrap().file_name());
        names.filter(|name| !name.to_string_lossy().starts_with('.')).count()
    }
}
