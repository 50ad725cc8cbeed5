//! A transactional producer (KIP-98) behind [`LogWriter`].
//!
//! What it costs is mostly librdkafka's: a message object, its headers, and LZ4. Three habits keep the rest small
//! (figures in `bench/runs`):
//! - Records go in partition by partition, as their batches do: large requests, and memory that is freed in the order
//!   in which it was taken.
//! - Nothing polls with a timeout: the binding's `poll` spins for the last millisecond, and its `flush` looks only every
//!   100 ms when successes are not reported.
//! - A successful delivery makes no report: whether all went well is the commit's answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

use super::client::{base_config, explain};
use super::writer_error::{Failure, Step};
use super::{KafkaSettings, blocking};
use crate::log::{LogError, LogErrorKind, LogWriter, RecordBatch, RecordRef, Result};

/// Fencing an older writer waits for its transaction to be aborted by the coordinator.
const INIT_TIMEOUT: Duration = Duration::from_secs(60);
/// One try of a commit; retriable failures are tried again until [`COMMIT_PATIENCE`] is over.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(20);
const COMMIT_PATIENCE: Duration = Duration::from_secs(90);
/// How long the producer's queue may stay full before the transaction is given up.
const QUEUE_PATIENCE: Duration = Duration::from_secs(45);
/// How often the queue is looked at while it has to empty.
const QUEUE_LOOK: Duration = Duration::from_micros(500);
/// Appending lets other tasks run after this many records, about a millisecond's work.
const RECORDS_AT_A_TIME: usize = 1_000;
const DEFAULT_TRANSACTION_TIMEOUT_MS: u32 = 60_000;

pub(super) struct KafkaWriter {
    producer: Arc<BaseProducer>,
    settings: Arc<KafkaSettings>,
    id: Arc<str>,
    begun: Instant,
}

impl KafkaWriter {
    /// Fences older producers of `id`. Blocks.
    pub(super) fn own(settings: &Arc<KafkaSettings>, id: &str) -> Result<Self> {
        let producer: BaseProducer = producer_config(settings, id)
            .create_with_context(DefaultProducerContext)
            .map_err(|error| explain(settings, "configuring the producer", &error))?;
        let writer =
            Self { producer: Arc::new(producer), settings: settings.clone(), id: Arc::from(id), begun: Instant::now() };
        let deadline = Instant::now() + INIT_TIMEOUT;
        loop {
            match writer.producer.init_transactions(Duration::from_secs(10)) {
                Ok(()) => return Ok(writer),
                Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {}
                Err(error) => return Err(writer.failed(Step::Own, "taking over", &error)),
            }
        }
    }

    fn failed(&self, step: Step, doing: &str, error: &KafkaError) -> LogError {
        let failure = Failure {
            step,
            error,
            fatal: self.producer.client().fatal_error(),
            // From half of the time on, a fence may be the coordinator's own: it ends what lasts too long.
            may_have_timed_out: self.begun.elapsed() >= transaction_timeout(&self.settings) / 2,
        };
        let doing = format!("{doing} (transactional id '{}')", self.id);
        failure.explain(&self.settings, &doing)
    }

    /// Hands a record to librdkafka; `false` when its queue is full.
    fn try_send(&self, topic: &str, partition: i32, record: &RecordRef<'_>) -> Result<bool> {
        let mut message: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(partition).key(record.key);
        message.payload = record.value;
        message.headers = native_headers(record)?;
        match self.producer.send(message) {
            Ok(()) => Ok(true),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(false),
            Err((error, _)) => Err(self.cannot_append(topic, partition, &error)),
        }
    }

    fn cannot_append(&self, topic: &str, partition: i32, error: &KafkaError) -> LogError {
        let doing = format!("appending to {topic}/{partition}");
        if matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::State)) {
            // The transaction has failed already. Asked for a further one, librdkafka says why.
            if let Err(reason) = self.producer.begin_transaction() {
                return self.failed(Step::Append, &doing, &reason);
            }
        }
        self.failed(Step::Append, &doing, error)
    }

    /// Lets queued records go out at once, though they linger, and serves what has come back.
    fn push_out(&self) {
        self.producer.poll(Duration::ZERO);
        // Raises librdkafka's flushing flag for a moment and wakes the broker threads. What is still there is no error.
        let _still_in_flight = self.producer.flush(Duration::ZERO);
    }

    /// Waits until librdkafka has handed over everything or given it up, which the commit then tells.
    fn drain(&self, deadline: Instant) {
        while self.producer.in_flight_count() > 0
            && self.producer.client().fatal_error().is_none()
            && Instant::now() < deadline
        {
            self.push_out();
            std::thread::sleep(QUEUE_LOOK);
        }
    }

    /// Blocks.
    fn commit_now(&self) -> Result<()> {
        let deadline = Instant::now() + COMMIT_PATIENCE;
        loop {
            self.drain(deadline);
            let Err(error) = self.producer.commit_transaction(COMMIT_TIMEOUT) else { return Ok(()) };
            let retriable = match &error {
                KafkaError::Transaction(inner) => inner.is_retriable() && !inner.txn_requires_abort(),
                KafkaError::Flush(_) => true,
                _ => false,
            };
            if !retriable || self.producer.client().fatal_error().is_some() || Instant::now() >= deadline {
                return Err(self.failed(Step::Commit, "committing a transaction", &error));
            }
        }
    }

    /// A handle for a blocking task.
    fn share(&self) -> Self {
        Self {
            producer: self.producer.clone(),
            settings: self.settings.clone(),
            id: self.id.clone(),
            begun: self.begun,
        }
    }
}

fn producer_config(settings: &KafkaSettings, id: &str) -> rdkafka::ClientConfig {
    let mut config = base_config(settings);
    let transaction_timeout_ms = DEFAULT_TRANSACTION_TIMEOUT_MS.to_string();
    // Defaults an operator may override come first; what the guarantees rest on is reserved (see RESERVED…).
    for (key, value) in [
        ("compression.type", "lz4"),
        ("linger.ms", "100"),
        ("batch.size", "1000000"),
        ("message.max.bytes", "1048576"),
        // Counts values only; with keys, headers and its own objects librdkafka needs about twice as much.
        ("queue.buffering.max.kbytes", "8192"),
        ("queue.buffering.max.messages", "200000"),
        ("transaction.timeout.ms", &transaction_timeout_ms),
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
    config
}

fn transaction_timeout(settings: &KafkaSettings) -> Duration {
    let configured = settings.client.get("transaction.timeout.ms").and_then(|value| value.parse().ok());
    Duration::from_millis(u64::from(configured.unwrap_or(DEFAULT_TRANSACTION_TIMEOUT_MS)))
}

fn native_headers(record: &RecordRef<'_>) -> Result<Option<OwnedHeaders>> {
    let count = record.headers.iter().count();
    if count == 0 {
        return Ok(None);
    }
    let mut headers = OwnedHeaders::new_with_capacity(count);
    for (name, value) in record.headers.iter() {
        let name = std::str::from_utf8(name)
            .map_err(|_| LogError::new(LogErrorKind::BadRecord, "a header name is not UTF-8"))?;
        headers = headers.insert(Header { key: name, value: Some(value) });
    }
    Ok(Some(headers))
}

/// Aborting waits until every message in flight is reported as purged, and reports come only to who polls.
fn abort_while_polling(producer: &BaseProducer) -> KafkaResult<()> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                producer.poll(Duration::ZERO);
                std::thread::sleep(QUEUE_LOOK);
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
        self.producer.begin_transaction().map_err(|error| self.failed(Step::Begin, "beginning a transaction", &error))
    }

    async fn append(&mut self, topic: &str, partition: i32, batch: &RecordBatch) -> Result<()> {
        let mut full_since = None;
        for (number, record) in (1..).zip(batch.iter()) {
            while !self.try_send(topic, partition, &record)? {
                self.push_out();
                let since = *full_since.get_or_insert_with(Instant::now);
                if since.elapsed() > QUEUE_PATIENCE {
                    return Err(LogError::new(
                        LogErrorKind::MustAbort,
                        format!("Kafka at {} has taken nothing for {QUEUE_PATIENCE:?}", self.settings.brokers),
                    ));
                }
                // The broker's thread has the whole queue to work on meanwhile.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            full_since = None;
            if number % RECORDS_AT_A_TIME == 0 {
                tokio::task::yield_now().await;
            }
        }
        self.producer.poll(Duration::ZERO);
        Ok(())
    }

    async fn commit(&mut self) -> Result<()> {
        let writer = self.share();
        blocking(move || writer.commit_now()).await
    }

    async fn abort(&mut self) -> Result<()> {
        let writer = self.share();
        blocking(move || {
            abort_while_polling(&writer.producer)
                .map_err(|error| writer.failed(Step::Abort, "aborting a transaction", &error))
        })
        .await
    }
}
