//! One file that cannot be read must neither stop the others nor be called done.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::clock::SystemClock;
use common::event::EventFormat;
use common::log::EmbeddedLog;
use common::shutdown::Shutdown;
use common::store::{
    DeleteOutcome, GetOptions, ListOptions, ListPage, LocalStore, Metadata, Move, MultipartUpload, ObjectMeta,
    ObjectReader, PutCondition, PutOutcome, RenameOutcome, Result, Store, StoreError, StoreErrorKind, TagOutcome,
    Version,
};
use common::telemetry::{Health, Registry};
use ingestor::{Ingestor, Limits, Metrics, Settings};

/// Refuses to open one key, as an object with permissions of its own does.
struct Refusing {
    inner: LocalStore,
    key: &'static str,
}

#[async_trait]
impl Store for Refusing {
    fn location(&self) -> String {
        self.inner.location()
    }
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        self.inner.head(key).await
    }
    async fn open(&self, key: &str, options: GetOptions) -> Result<Option<(ObjectMeta, Box<dyn ObjectReader>)>> {
        if key == self.key {
            return Err(StoreError::new(StoreErrorKind::Denied, "get", key, "access denied"));
        }
        self.inner.open(key, options).await
    }
    async fn put(&self, key: &str, body: Bytes, condition: PutCondition, metadata: &Metadata) -> Result<PutOutcome> {
        self.inner.put(key, body, condition, metadata).await
    }
    async fn multipart(&self, key: &str, metadata: &Metadata) -> Result<Box<dyn MultipartUpload>> {
        self.inner.multipart(key, metadata).await
    }
    async fn list(&self, options: &ListOptions) -> Result<ListPage> {
        self.inner.list(options).await
    }
    async fn copy(&self, from: &str, version: &Version, to: &str) -> Result<()> {
        self.inner.copy(from, version, to).await
    }
    async fn rename(&self, from: &str, version: &Version, to: &str) -> Result<RenameOutcome> {
        self.inner.rename(from, version, to).await
    }
    async fn rename_many(&self, moves: &[Move]) -> Vec<Result<RenameOutcome>> {
        self.inner.rename_many(moves).await
    }
    async fn delete(&self, key: &str, if_version: Option<&Version>) -> Result<DeleteOutcome> {
        self.inner.delete(key, if_version).await
    }
    async fn delete_many(&self, objects: &[(String, Version)]) -> Vec<Result<DeleteOutcome>> {
        self.inner.delete_many(objects).await
    }
    async fn tag(&self, key: &str, tags: &Metadata) -> Result<()> {
        self.inner.tag(key, tags).await
    }
    async fn tag_version(&self, key: &str, version: &Version, tags: &Metadata) -> Result<TagOutcome> {
        self.inner.tag_version(key, version, tags).await
    }
}

type Outcome<T> = std::result::Result<T, Box<dyn std::error::Error>>;

async fn ingestor(root: &Path, refused: &'static str) -> Outcome<Ingestor> {
    let clock = Arc::new(SystemClock);
    Ok(Ingestor {
        store: Arc::new(Refusing { inner: LocalStore::open(root.to_owned()), key: refused }),
        log: Arc::new(EmbeddedLog::open(&root.join("log"), clock.clone()).await?),
        clock,
        metrics: Arc::new(Metrics::new(&Registry::new())?),
        health: Health::default(),
        settings: Settings {
            events_topic: "events".to_owned(),
            dlq_topic: "events.dlq".to_owned(),
            ledger_topic: "events.ledger".to_owned(),
            partitions: 1,
            archive: None,
            poll_interval: Duration::from_millis(10),
            min_age: Duration::ZERO,
            format: EventFormat::default(),
            limits: Limits { max_event_bytes: 10_000, bad_head_bytes: 100 },
            once: true,
            patience: Duration::from_secs(5),
        },
    })
}

#[tokio::test]
async fn a_file_that_cannot_be_read_neither_stops_the_others_nor_is_called_done() -> Outcome<()> {
    let root = tempfile::tempdir()?;
    let pending = root.path().join("pending");
    std::fs::create_dir(&pending)?;
    let event = r#"{"event_id":"a","timestamp":"2021-01-14T10:15:30","domain":"d","event_type":"t","data":1}"#;
    std::fs::write(pending.join("1.json"), event)?;
    std::fs::write(pending.join("2.json"), event)?;
    let first = ingestor(root.path(), "pending/1.json").await?;
    let error = first.run(&Shutdown::new()).await.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("pending/1.json") && error.contains("access denied"), "{error}");
    assert_eq!(first.metrics.report().files.ingested, 1, "the other one is done");
    assert!(pending.join("1.json").exists() && !pending.join("2.json").exists());
    drop(first);
    let second = ingestor(root.path(), "none").await?;
    assert_eq!(second.run(&Shutdown::new()).await?.files.ingested, 1, "it is read as soon as it can be");
    Ok(())
}
