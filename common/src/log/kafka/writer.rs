//! A transactional producer (KIP-98) behind [`LogWriter`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

use super::client::{base_config, explain};
use super::{KafkaSettings, blocking};
use crate::log::{LogError, LogErrorKind, LogWriter, RecordBatch, RecordRef, Result};

/// Fencing an older writer waits for its transaction to be aborted by the coordinator.
const INIT_TIMEOUT: Duration = Duration::from_secs(60);
/// One try of a commit; retriable failures are tried again until [`COMMIT_PATIENCE`] is over.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(20);
const COMMIT_PATIENCE: Duration = Duration::from_secs(90);
/// Half of the default transaction.timeout.ms: after that a fence may be the coordinator's own.
const FENCED_BY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the producer's queue may stay full before the transaction is given up.
const QUEUE_PATIENCE: Duration = Duration::from_secs(45);

pub(super) struct KafkaWriter {
    producer: Arc<BaseProducer>,
    settings: Arc<KafkaSettings>,
    id: String,
    begun: Instant,
}

impl KafkaWriter {
    /// Fences older producers of `id`. Blocks.
    pub(super) fn own(settings: &Arc<KafkaSettings>, id: &str) -> Result<Self> {
        let mut config = base_config(settings);
        // Defaults an operator may override come first; what the guarantees rest on is reserved (see RESERVED…).
        for (key, value) in [
            ("compression.type", "lz4"),
            ("linger.ms", "5"),
            ("batch.size", "1000000"),
            ("message.max.bytes", "1048576"),
            ("queue.buffering.max.kbytes", "32768"),
            ("queue.buffering.max.messages", "200000"),
            ("transaction.timeout.ms", "60000"),
        ] {
            if !settings.client.contains_key(key) {
                config.set(key, value);
            }
        }
        config
            .set("transactional.id", id)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("delivery.report.only.error", "true");
        let producer: BaseProducer = config
            .create_with_context(DefaultProducerContext)
            .map_err(|error| explain(settings, "configuring the producer", &error))?;
        let deadline = Instant::now() + INIT_TIMEOUT;
        loop {
            match producer.init_transactions(Duration::from_secs(10)) {
                Ok(()) => break,
                Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {}
                Err(error) => return Err(explain(settings, &format!("taking over transactional id '{id}'"), &error)),
            }
        }
        Ok(Self { producer: Arc::new(producer), settings: settings.clone(), id: id.to_owned(), begun: Instant::now() })
    }

    fn explain(&self, doing: &str, error: &KafkaError) -> LogError {
        classify(&self.producer, &self.settings, &self.id, doing, error)
    }

    /// Hands a record to librdkafka; `false` when its queue is full.
    fn try_send(&self, topic: &str, partition: i32, record: &RecordRef<'_>) -> Result<bool> {
        let mut message: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(partition).key(record.key);
        if let Some(value) = record.value {
            message = message.payload(value);
        }
        let mut names = record.headers.iter();
        if let Some(first) = names.next() {
            let mut headers = OwnedHeaders::new_with_capacity(4);
            for (name, value) in std::iter::once(first).chain(names) {
                let name = std::str::from_utf8(name)
                    .map_err(|_| LogError::new(LogErrorKind::BadRecord, "a header name is not UTF-8"))?;
                headers = headers.insert(Header { key: name, value: Some(value) });
            }
            message = message.headers(headers);
        }
        match self.producer.send(message) {
            Ok(()) => Ok(true),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(false),
            Err((error, _)) => Err(self.explain(&format!("appending to {topic}/{partition}"), &error)),
        }
    }
}

/// Decides what the caller has to do: librdkafka says whether an error is fatal, abortable or retriable (KIP-360, KIP-691).
fn classify(producer: &BaseProducer, settings: &KafkaSettings, id: &str, doing: &str, error: &KafkaError) -> LogError {
    let mut explained = explain(settings, &format!("{doing} (transactional id '{id}')"), error);
    if let Some((code, reason)) = producer.client().fatal_error() {
        explained.message = format!("{}: {reason}", explained.message);
        explained.kind = match code {
            RDKafkaErrorCode::Fenced
            | RDKafkaErrorCode::ProducerFenced
            | RDKafkaErrorCode::InvalidProducerEpoch
            | RDKafkaErrorCode::InvalidProducerIdMapping => LogErrorKind::Fenced,
            // The client instance is finished; a new one that owns the id finds out what happened.
            _ => LogErrorKind::UnknownOutcome,
        };
        return explained;
    }
    match error {
        KafkaError::Transaction(inner) if inner.txn_requires_abort() => explained.kind = LogErrorKind::MustAbort,
        KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge) => {
            explained.kind = LogErrorKind::BadRecord;
        }
        KafkaError::MessageProduction(_) => explained.kind = LogErrorKind::MustAbort,
        _ => {}
    }
    explained
}

/// Aborting waits until every message in flight is reported as purged, and reports come only to who polls.
fn abort_while_polling(producer: &BaseProducer) -> KafkaResult<()> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                producer.poll(Duration::from_millis(10));
            }
        });
        let outcome = producer.abort_transaction(COMMIT_TIMEOUT);
        done.store(true, Ordering::Release);
        outcome
    })
}

#[async_trait]
impl LogWriter for KafkaWriter {
    async fn begin(&mut self) -> Result<()> {
        self.begun = Instant::now();
        self.producer.begin_transaction().map_err(|error| self.explain("beginning a transaction", &error))
    }

    async fn append(&mut self, topic: &str, partition: i32, batch: &RecordBatch) -> Result<()> {
        let mut full_since = None;
        for record in batch.iter() {
            while !self.try_send(topic, partition, &record)? {
                self.producer.poll(Duration::ZERO);
                let since = *full_since.get_or_insert_with(Instant::now);
                if since.elapsed() > QUEUE_PATIENCE {
                    return Err(LogError::new(
                        LogErrorKind::MustAbort,
                        format!("Kafka at {} has taken nothing for {QUEUE_PATIENCE:?}", self.settings.brokers),
                    ));
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            full_since = None;
        }
        self.producer.poll(Duration::ZERO);
        Ok(())
    }

    async fn commit(&mut self) -> Result<()> {
        let (producer, settings, id) = (self.producer.clone(), self.settings.clone(), self.id.clone());
        let begun = self.begun;
        blocking(move || {
            let deadline = Instant::now() + COMMIT_PATIENCE;
            loop {
                let Err(error) = producer.commit_transaction(COMMIT_TIMEOUT) else { return Ok(()) };
                let mut explained = classify(&producer, &settings, &id, "committing a transaction", &error);
                let retriable = match &error {
                    KafkaError::Transaction(inner) => inner.is_retriable() && !inner.txn_requires_abort(),
                    KafkaError::Flush(_) => true,
                    _ => false,
                };
                if retriable && producer.client().fatal_error().is_none() && Instant::now() < deadline {
                    continue;
                }
                // A transaction that lasted too long was ended by the coordinator, which looks like fencing: only owning
                // the id again tells whether there is another owner.
                if explained.kind == LogErrorKind::Fenced && begun.elapsed() >= FENCED_BY_TIMEOUT {
                    explained.kind = LogErrorKind::UnknownOutcome;
                }
                // Only a definite abort or fencing says that the commit did not happen.
                if !matches!(explained.kind, LogErrorKind::MustAbort | LogErrorKind::Fenced) {
                    explained.kind = LogErrorKind::UnknownOutcome;
                }
                return Err(explained);
            }
        })
        .await
    }

    async fn abort(&mut self) -> Result<()> {
        let (producer, settings, id) = (self.producer.clone(), self.settings.clone(), self.id.clone());
        blocking(move || {
            abort_while_polling(&producer)
                .map_err(|error| classify(&producer, &settings, &id, "aborting a transaction", &error))
        })
        .await
    }
}
