//! A transactional producer (KIP-98) behind [`LogWriter`].
//!
//! What it costs is mostly librdkafka's: a message object, its headers, and LZ4. These habits keep the rest small
//! (figures in `bench/runs`):
//! - Records go in partition by partition, as their batches do: large requests, and memory that is freed in the order
//!   in which it was taken.
//! - Messages do not go out because they have lingered: nobody can read them before the commit, which flushes. A batch
//!   goes when it is full. More than a habit: while messages that *may* go (because they lingered, or because of a flush)
//!   wait for an earlier request of their partition, librdkafka's broker thread does not sleep but spins, and a dozen of
//!   producers that do so take the processors from the very broker they wait for.
//! - For the same reason a commit flushes when full batches have gone, and only partial ones are left.
//! - Nothing polls with a timeout: the binding's `poll` spins for the last millisecond.
//! - A successful delivery makes no report: whether all went well is the commit's answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

use super::client::{base_config, explain};
use super::flush::flush;
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
/// A queue that has not shrunk for so long holds no full batch: what is left goes only if flushed.
const STALLED_AFTER: Duration = Duration::from_millis(4);
/// Partial batches are flushed for so long, if there is somebody to take them, and then again after a pause.
const FLUSH_AT_A_TIME: Duration = Duration::from_millis(20);
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// How often reports of failures are fetched while librdkafka waits for somebody to take them.
const REPORTS_LOOK: Duration = Duration::from_millis(5);
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

    /// Waits until librdkafka has handed over everything or given it up, which the commit then tells. First for full
    /// batches, which go by themselves; then it flushes partial ones, with pauses, lest the broker threads spin.
    fn drain(&self, deadline: Instant) {
        let mut pause = FIRST_PAUSE;
        while self.in_flight_until_stalled() > 0 && !flush(&self.producer, FLUSH_AT_A_TIME) {
            if self.producer.client().fatal_error().is_some() || Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// What is left when nothing has gone for a moment.
    fn in_flight_until_stalled(&self) -> i32 {
        let mut left = Shrinking::from(self.producer.in_flight_count());
        while left.count > 0 && !left.has_stalled() {
            std::thread::sleep(QUEUE_LOOK);
            left.look(self.producer.in_flight_count());
        }
        left.count
    }

    /// Blocks.
    fn commit_now(&self) -> Result<()> {
        let deadline = Instant::now() + COMMIT_PATIENCE;
        loop {
            let committed = while_polling(&self.producer, || {
                self.drain(deadline);
                self.producer.commit_transaction(COMMIT_TIMEOUT)
            });
            let Err(error) = committed else { return Ok(()) };
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
    let linger_ms = longest_linger(settings).as_millis().to_string();
    // Defaults an operator may override come first; what the guarantees rest on is reserved (see RESERVED…).
    for (key, value) in [
        ("compression.type", "lz4"),
        ("linger.ms", &linger_ms),
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

/// Longer than any transaction should last, and less than the time-out of a message, as librdkafka wants it.
fn longest_linger(settings: &KafkaSettings) -> Duration {
    let configured = ["message.timeout.ms", "delivery.timeout.ms"]
        .iter()
        .filter_map(|key| settings.client.get(*key)?.parse().ok())
        .map(Duration::from_millis)
        // 0 is librdkafka's word for no time-out.
        .filter(|timeout| !timeout.is_zero());
    configured.fold(transaction_timeout(settings), Duration::min) / 2
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

/// A count that is to become smaller.
struct Shrinking {
    count: i32,
    since: Instant,
}

impl Shrinking {
    fn from(count: i32) -> Self {
        Self { count, since: Instant::now() }
    }

    fn look(&mut self, count: i32) {
        if count != self.count {
            *self = Self::from(count);
        }
    }

    fn has_stalled(&self) -> bool {
        self.since.elapsed() >= STALLED_AFTER
    }
}

/// Committing and aborting wait until no message is left, and one that failed or was purged is left until somebody has
/// taken the report of it.
fn while_polling(producer: &BaseProducer, step: impl FnOnce() -> KafkaResult<()>) -> KafkaResult<()> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let poller = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                producer.poll(Duration::ZERO);
                std::thread::park_timeout(REPORTS_LOOK);
            }
        });
        let outcome = step();
        done.store(true, Ordering::Release);
        poller.thread().unpark();
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
        for (number, record) in (1..).zip(batch.iter()) {
            let mut full: Option<(Instant, Shrinking)> = None;
            while !self.try_send(topic, partition, &record)? {
                let in_flight = self.producer.in_flight_count();
                let (since, left) = full.get_or_insert_with(|| (Instant::now(), Shrinking::from(in_flight)));
                left.look(in_flight);
                if left.has_stalled() {
                    // Of many partitions each has a little.
                    let producer = self.producer.clone();
                    let _all_gone = blocking(move || Ok(flush(&producer, FLUSH_AT_A_TIME))).await?;
                    *left = Shrinking::from(self.producer.in_flight_count());
                } else {
                    self.producer.poll(Duration::ZERO);
                }
                if since.elapsed() > QUEUE_PATIENCE {
                    return Err(LogError::new(
                        LogErrorKind::MustAbort,
                        format!("Kafka at {} has taken nothing for {QUEUE_PATIENCE:?}", self.settings.brokers),
                    ));
                }
                // The broker's thread has the whole queue to work on meanwhile.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
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
            while_polling(&writer.producer, || writer.producer.abort_transaction(COMMIT_TIMEOUT))
                .map_err(|error| writer.failed(Step::Abort, "aborting a transaction", &error))
        })
        .await
    }
}
