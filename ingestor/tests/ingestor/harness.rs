//! A landing zone for one test, ingestors on it, and their output.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::clock::{Clock, SystemClock};
use common::config::Quarantine;
use common::event::EventFormat;
use common::log::{EmbeddedLog, Log, read_to_end};
use common::shutdown::Shutdown;
use common::store::{LocalStore, Store};
use common::telemetry::{Health, Registry};
use ingestor::content::{ExpansionLimits, RATIO_JUDGED_FROM_BYTES};
use ingestor::{DiscoverySettings, IgnoredNames, IngestError, IngestReport, Ingestor, Limits, Metrics, Settings};

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Zone {
    pub root: tempfile::TempDir,
    pub log: Arc<EmbeddedLog>,
    pub clock: Arc<dyn Clock>,
}

pub fn event(id: &str) -> String {
    format!(r#"{{"event_id":"{id}","timestamp":"2021-01-14T10:15:30","domain":"d","event_type":"t","data":{{"n":1}}}}"#)
}

/// `count` events, one a line.
pub fn lines(prefix: &str, count: usize) -> String {
    (0..count).map(|number| event(&format!("{prefix}-{number}")) + "\n").collect()
}

impl Zone {
    pub async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("landing/pending")).unwrap();
        let clock = Arc::new(SystemClock);
        let log = Arc::new(EmbeddedLog::open(&root.path().join("log"), clock.clone()).await.unwrap());
        Self { root, log, clock }
    }

    pub fn landing(&self) -> PathBuf {
        self.root.path().join("landing")
    }

    pub fn pending(&self, path: &str) -> PathBuf {
        self.landing().join("pending").join(path)
    }

    /// Creates a complete file, as writers should.
    pub fn land(&self, path: &str, content: impl AsRef<[u8]>) {
        let target = self.pending(path);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        let temporary = target.with_file_name(".writing");
        std::fs::write(&temporary, content).unwrap();
        std::fs::rename(&temporary, &target).unwrap();
    }

    pub fn local_store(&self) -> LocalStore {
        LocalStore::landing(self.landing())
    }

    /// An ingestor that ends when everything is done.
    pub fn ingestor(&self) -> Ingestor {
        self.ingestor_over(Arc::new(self.local_store()))
    }

    pub fn ingestor_over(&self, store: Arc<dyn Store>) -> Ingestor {
        Ingestor {
            store,
            log: self.log.clone(),
            clock: self.clock.clone(),
            metrics: Arc::new(Metrics::new(&Registry::new()).unwrap()),
            health: Health::default(),
            hints: Vec::new(),
            settings: settings(),
        }
    }

    pub async fn ingest(&self) -> IngestReport {
        run(&self.ingestor()).await.unwrap()
    }

    /// How often each event is on the topic, by source file and byte.
    pub async fn events(&self) -> BTreeMap<(String, u64), u32> {
        let mut events = BTreeMap::new();
        self.read("events", |_, headers| *events.entry(headers).or_default() += 1).await;
        events
    }

    /// Ids of the events of a file, in the order of the topic.
    pub async fn values(&self) -> Vec<String> {
        let mut values = Vec::new();
        self.read("events", |value, _| values.push(value)).await;
        values
    }

    /// Dead letters: reason and place.
    pub async fn dead_letters(&self) -> Vec<(String, u64)> {
        let mut letters = Vec::new();
        self.read("events.dlq", |_, place| letters.push(place)).await;
        letters.sort();
        letters
    }

    async fn read(&self, topic: &str, mut visit: impl FnMut(String, (String, u64)) + Send) {
        for partition in self.log.bounds(topic).await.unwrap_or_default().into_keys() {
            read_to_end(&*self.log, topic, partition, PATIENCE, |chunk| {
                for record in chunk.records.iter() {
                    let source = record.headers.text("source").unwrap().to_owned();
                    let offset = record.headers.text("byte_offset").unwrap().parse().unwrap();
                    let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
                    visit(value, (source, offset));
                }
                Ok(())
            })
            .await
            .unwrap();
        }
    }

    /// The last ledger entry of each file version, by path.
    pub async fn ledger(&self) -> BTreeMap<String, Vec<serde_json::Value>> {
        let mut by_identity = BTreeMap::new();
        for partition in self.log.bounds("events.ledger").await.unwrap_or_default().into_keys() {
            read_to_end(&*self.log, "events.ledger", partition, PATIENCE, |chunk| {
                for record in chunk.records.iter() {
                    let identity = String::from_utf8(record.key.to_vec()).unwrap();
                    match record.value {
                        Some(value) if identity.contains('|') => {
                            let entry: serde_json::Value = serde_json::from_slice(value).unwrap();
                            by_identity.insert(identity, entry);
                        }
                        Some(_) => {}
                        None => {
                            by_identity.remove(&identity);
                        }
                    }
                }
                Ok(())
            })
            .await
            .unwrap();
        }
        let mut by_path: BTreeMap<String, Vec<serde_json::Value>> = BTreeMap::new();
        for entry in by_identity.into_values() {
            by_path.entry(entry["path"].as_str().unwrap().to_owned()).or_default().push(entry);
        }
        by_path
    }
}

pub fn settings() -> Settings {
    Settings {
        events_topic: "events".to_owned(),
        dlq_topic: "events.dlq".to_owned(),
        ledger_topic: "events.ledger".to_owned(),
        partitions: 2,
        ledger_partitions: 3,
        instance_id: None,
        archive: None,
        retain: Duration::from_secs(86_400),
        discovery: DiscoverySettings {
            poll_interval: Duration::from_millis(10),
            full_sweep_interval: Duration::from_secs(60),
            min_age: Duration::ZERO,
            ignored: IgnoredNames { prefixes: vec!["_".to_owned(), ".".to_owned()], suffixes: vec![".tmp".to_owned()] },
        },
        quarantine: Quarantine { max_error_ratio: 0.5, min_events: 100, max_errors: None },
        expansion: ExpansionLimits {
            max_ratio: 1_000,
            ratio_from_bytes: RATIO_JUDGED_FROM_BYTES,
            max_bytes: 10_000_000_000,
        },
        max_published_bytes: 10_000_000_000,
        retry_quarantined: false,
        parallel_files: 4,
        max_memory_bytes: 64_000_000,
        max_bytes_per_second: None,
        format: EventFormat::default(),
        limits: Limits { max_event_bytes: 100_000, bad_head_bytes: 100 },
        once: true,
        patience: Duration::from_secs(20),
    }
}

pub async fn run(ingestor: &Ingestor) -> Result<IngestReport, IngestError> {
    tokio::time::timeout(PATIENCE, ingestor.run(&Shutdown::new())).await.expect("it ends")
}

/// Waits for a condition, never for time.
pub async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Relative paths of all files below a folder, hidden ones too.
pub fn tree(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(folder).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

/// A metric's value as exported.
pub fn metric(registry: &Registry, name: &str) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name);
    family
        .into_iter()
        .flat_map(|family| family.get_metric())
        .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
        .sum()
}
