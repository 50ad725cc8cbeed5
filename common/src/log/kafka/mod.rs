//! The log seam over Apache Kafka, or any system with its protocol and transactions, by librdkafka.
//!
//! # How it keeps the guarantees
//!
//! - Committed records only: `isolation.level=read_committed`. `EndReached` is librdkafka's end-of-partition event,
//!   which counts transaction markers, not "the last record's offset + 1 equals the high watermark".
//! - Fencing: a transactional producer per writer id (KIP-98); `init_transactions` aborts and fences older ones.
//! - Positions are the caller's: partitions are assigned paused, and `auto.offset.reset=error`.
//! - No partition waits for another: each has its own queue in librdkafka, and the queue of a paused one is not read.
//! - The log's clock: topics must have `message.timestamp.type=LogAppendTime`; a record with a create time is refused.

mod admin;
mod client;
mod consumer;
mod fetched;
mod flush;
mod queue;
mod read_thread;
mod reader;
mod rebalance;
mod rights;
mod source;
mod writer;
mod writer_error;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::{
    Bounds, KafkaSettings, Log, LogError, LogErrorKind, LogReader, LogWriter, Membership, Result, Right, TopicInfo,
    TopicSpec,
};
pub use client::client_setting_fault;
use client::{LoggingContext, explain};

/// The time-out of one metadata or offset request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// The log of a cluster. Nothing is sent yet.
///
/// # Errors
/// As [`KafkaLog::new`].
pub fn connect_kafka(settings: KafkaSettings) -> Result<Arc<dyn Log>> {
    Ok(Arc::new(KafkaLog::new(settings)?))
}

#[derive(Clone)]
pub struct KafkaLog {
    settings: Arc<KafkaSettings>,
    /// For metadata and offsets; uses read_uncommitted, so that ends are high watermarks.
    meta: Arc<BaseConsumer<LoggingContext>>,
    /// Uses read_committed, so that ends are last stable offsets.
    settled: Arc<BaseConsumer<LoggingContext>>,
}

impl KafkaLog {
    /// Prepares a client. Sends nothing yet.
    ///
    /// # Errors
    /// [`LogErrorKind::Misconfigured`] when librdkafka refuses a setting.
    pub fn new(settings: KafkaSettings) -> Result<Self> {
        let client = |isolation_level: &str| {
            let mut config = client::base_config(&settings);
            config.set("isolation.level", isolation_level).set("enable.auto.commit", "false");
            config
                .create_with_context(LoggingContext)
                .map(Arc::new)
                .map_err(|error| explain(&settings, "configuring the client", &error))
        };
        let (meta, settled) = (client("read_uncommitted")?, client("read_committed")?);
        Ok(Self { settings: Arc::new(settings), meta, settled })
    }

    async fn with_meta<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&BaseConsumer<LoggingContext>) -> rdkafka::error::KafkaResult<T> + Send + 'static,
    ) -> Result<T> {
        let (meta, settings) = (self.meta.clone(), self.settings.clone());
        blocking(move || work(&meta).map_err(|error| explain(&settings, doing, &error))).await
    }

    async fn partition_ids(&self, topic: &str) -> Result<Vec<i32>> {
        Ok(self.describe(topic).await?.ok_or_else(|| missing(topic))?.partitions)
    }

    async fn describe(&self, topic: &str) -> Result<Option<admin::Described>> {
        let topic = topic.to_owned();
        self.with_meta("asking for topic metadata", move |meta| admin::describe(meta, &topic)).await
    }
}

fn missing(topic: &str) -> LogError {
    LogError::new(LogErrorKind::Misconfigured, format!("topic '{topic}' does not exist"))
}

/// librdkafka's calls block, so they run off the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| LogError::new(LogErrorKind::Other, format!("Kafka client task failed: {error}")))?
}

#[async_trait]
impl Log for KafkaLog {
    async fn identity(&self) -> Result<String> {
        let id = self
            .with_meta("asking for the cluster id", |meta| Ok(meta.client().fetch_cluster_id(REQUEST_TIMEOUT)))
            .await?;
        id.map(|id| format!("kafka-{id}")).ok_or_else(|| {
            LogError::new(LogErrorKind::Transient, format!("cannot reach Kafka at {}", self.settings.brokers))
        })
    }

    async fn ensure_topic(&self, spec: &TopicSpec) -> Result<TopicInfo> {
        let described = match self.describe(&spec.name).await? {
            Some(described) if described.has_leaders => described,
            // Another process is creating it.
            Some(_) => self.created(&spec.name).await?,
            None => {
                let brokers = self
                    .with_meta("asking for the brokers", |meta| {
                        Ok(meta.fetch_metadata(None, REQUEST_TIMEOUT)?.brokers().len())
                    })
                    .await?;
                admin::create(&self.settings, spec, brokers).await?;
                self.created(&spec.name).await?
            }
        };
        admin::verify(&self.settings, spec, &described).await?;
        Ok(described.info())
    }

    async fn verify_topic(&self, spec: &TopicSpec) -> Result<Option<TopicInfo>> {
        let Some(described) = self.describe(&spec.name).await? else { return Ok(None) };
        admin::verify(&self.settings, spec, &described).await?;
        Ok(Some(described.info()))
    }

    async fn missing_rights(&self, needed: &[Right]) -> Result<Vec<Right>> {
        let needed = needed.to_vec();
        self.with_meta("asking for the rights of this client", move |meta| {
            let permitted = rights::ask(meta, &needed, REQUEST_TIMEOUT)?;
            Ok(rights::missing(&needed, &permitted))
        })
        .await
    }

    async fn bounds(&self, topic: &str) -> Result<BTreeMap<i32, Bounds>> {
        let partitions = self.partition_ids(topic).await?;
        let topic = topic.to_owned();
        self.with_meta("asking for offsets", move |meta| {
            let bounds = partitions.into_iter().map(|partition| {
                let (earliest, latest) = meta.fetch_watermarks(&topic, partition, REQUEST_TIMEOUT)?;
                Ok((partition, Bounds { earliest, latest }))
            });
            bounds.collect()
        })
        .await
    }

    async fn settled_end(&self, topic: &str, partition: i32) -> Result<i64> {
        let (settled, settings, topic) = (self.settled.clone(), self.settings.clone(), topic.to_owned());
        blocking(move || {
            let ends = settled.fetch_watermarks(&topic, partition, REQUEST_TIMEOUT);
            ends.map(|(_, end)| end).map_err(|error| explain(&settings, "asking for the last stable offset", &error))
        })
        .await
    }

    async fn offset_for_time(&self, topic: &str, partition: i32, time_ms: i64) -> Result<Option<i64>> {
        let topic = topic.to_owned();
        self.with_meta("looking up an offset by time", move |meta| {
            let mut asked = TopicPartitionList::new();
            asked.add_partition_offset(&topic, partition, Offset::Offset(time_ms))?;
            let found = meta.offsets_for_times(asked, REQUEST_TIMEOUT)?;
            Ok(found.elements().first().and_then(|element| numeric(element.offset())))
        })
        .await
    }

    async fn committed(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>> {
        let partitions = self.partition_ids(topic).await?;
        let (settings, group, topic) = (self.settings.clone(), group.to_owned(), topic.to_owned());
        blocking(move || {
            let explain = |error| explain(&settings, "asking for committed offsets", &error);
            let mut config = client::base_config(&settings);
            config.set("group.id", &group).set("enable.auto.commit", "false");
            let consumer: BaseConsumer<LoggingContext> = config.create_with_context(LoggingContext).map_err(explain)?;
            let mut asked = TopicPartitionList::new();
            for partition in partitions {
                asked.add_partition(&topic, partition);
            }
            let found = consumer.committed_offsets(asked, REQUEST_TIMEOUT).map_err(explain)?;
            let known = found.elements();
            Ok(known.iter().filter_map(|element| Some((element.partition(), numeric(element.offset())?))).collect())
        })
        .await
    }

    async fn set_committed(&self, group: &str, topic: &str, offsets: &BTreeMap<i32, i64>) -> Result<()> {
        let (settings, group, topic) = (self.settings.clone(), group.to_owned(), topic.to_owned());
        let offsets = offsets.clone();
        blocking(move || {
            let explain = |error| explain(&settings, "setting committed offsets", &error);
            let mut config = client::base_config(&settings);
            config.set("group.id", &group).set("enable.auto.commit", "false");
            let consumer: BaseConsumer<LoggingContext> = config.create_with_context(LoggingContext).map_err(explain)?;
            let mut wanted = TopicPartitionList::new();
            for (partition, offset) in offsets {
                wanted.add_partition_offset(&topic, partition, Offset::Offset(offset)).map_err(explain)?;
            }
            // Without a generation the coordinator accepts the commit only while the group has no members.
            consumer.commit(&wanted, CommitMode::Sync).map_err(|error| {
                let mut error = explain(error);
                if error.kind == LogErrorKind::NotAssigned {
                    error.message =
                        format!("group '{group}' has members: stop every distributor first ({})", error.message);
                }
                error
            })
        })
        .await
    }

    async fn reader(&self, topic: &str, membership: &Membership) -> Result<Box<dyn LogReader>> {
        let earliest = self.bounds(topic).await?.into_iter().map(|(partition, bounds)| (partition, bounds.earliest));
        let reader = reader::KafkaReader::start(&self.settings, topic, membership, earliest.collect())?;
        Ok(Box::new(reader))
    }

    async fn writer(&self, id: &str) -> Result<Box<dyn LogWriter>> {
        let (settings, id) = (self.settings.clone(), id.to_owned());
        let writer = blocking(move || writer::KafkaWriter::own(&settings, &id)).await?;
        Ok(Box::new(writer))
    }

    /// Kafka expires records itself, by the topic's `retention.ms`.
    async fn trim(&self, _topic: &str, _partition: i32, _below_offset: i64, _before_ms: i64) -> Result<()> {
        Ok(())
    }
}

impl KafkaLog {
    /// Waits until a topic just created is known to the cluster with leaders for all partitions.
    async fn created(&self, topic: &str) -> Result<admin::Described> {
        let mut backoff = crate::backoff::Backoff::new(Duration::from_millis(50), Duration::from_secs(1), 7);
        for _ in 0..30 {
            if let Some(described) = self.describe(topic).await?.filter(|described| described.has_leaders) {
                return Ok(described);
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
        Err(LogError::new(LogErrorKind::Transient, format!("topic '{topic}' was created but has no leaders yet")))
    }
}

fn numeric(offset: Offset) -> Option<i64> {
    match offset {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}
