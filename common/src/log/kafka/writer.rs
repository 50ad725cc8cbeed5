//! A transactional producer (KIP-98) behind [`LogWriter`].
//!
//! Most of the cost is librdkafka's: a message object, its headers, and LZ4. The following rules keep the rest small
//! (figures in `bench/runs`):
//! - Records are appended partition by partition, as their batches are: requests are large, and memory is freed in the
//!   order of its allocation.
//! - No message is sent because it has lingered: nobody can read it before the commit, which flushes. A batch is sent
//!   when it is full. This is more than an optimization: while messages that *may* be sent (lingering or flushed) wait
//!   for an earlier request of their partition, librdkafka's broker thread spins instead of sleeping. A dozen such
//!   producers take the processors from the broker they wait for.
//! - For the same reason a commit flushes only after full batches have been sent, when partial ones are left.
//! - Nothing polls with a time-out: the binding's `poll` spins for the last millisecond.
//! - A successful delivery is not reported: the commit's answer covers all.

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

/// Fencing an older writer waits until the coordinator has aborted its transaction.
const INIT_TIMEOUT: Duration = Duration::from_secs(60);
/// The time-out of one commit attempt; retriable failures are repeated until [`COMMIT_PATIENCE`] is over.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(20);
const COMMIT_PATIENCE: Duration = Duration::from_secs(90);
/// How long the producer's queue may stay full before the transaction is aborted.
const QUEUE_PATIENCE: Duration = Duration::from_secs(45);
/// The polling interval while the queue empties.
const QUEUE_POLL: Duration = Duration::from_micros(500);
/// A queue that has not shrunk for this long holds no full batch: the rest needs a flush.
const STALLED_AFTER: Duration = Duration::from_millis(4);
/// The length of one flush of partial batches; a pause follows.
const FLUSH_AT_A_TIME: Duration = Duration::from_millis(20);
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// The polling interval for failure reports while librdkafka waits for them to be taken.
const REPORTS_POLL: Duration = Duration::from_millis(5);
/// Appending yields to other tasks after this many records, about a millisecond of work.
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
                Err(error) => {
                    let mut failed = writer.failed(Step::Own, "taking over", &error);
                    if failed.kind == LogErrorKind::Misconfigured {
                        failed.message.push_str("; it takes Write on the transactional id, see docs/permissions.md");
                    }
                    return Err(failed);
                }
            }
        }
    }

    fn failed(&self, step: Step, doing: &str, error: &KafkaError) -> LogError {
        let failure = Failure {
            step,
            error,
            fatal: self.producer.client().fatal_error(),
            // From half of the time-out on, a fence may be the coordinator's own: it aborts transactions that take too
            // long.
            may_have_timed_out: self.begun.elapsed() >= transaction_timeout(&self.settings) / 2,
        };
        let doing = format!("{doing} (transactional id '{}')", self.id);
        failure.explain(&self.settings, &doing)
    }

    /// Passes a record to librdkafka; `false` when its queue is full.
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
            // The transaction has already failed. A request for another one makes librdkafka report the reason.
            if let Err(reason) = self.producer.begin_transaction() {
                return self.failed(Step::Append, &doing, &reason);
            }
        }
        self.failed(Step::Append, &doing, error)
    }

    /// Waits until librdkafka has delivered every message or given it up, which the commit then reports. First waits
    /// for full batches, which are sent anyway; then flushes partial ones, with pauses, or the broker threads would
    /// spin.
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

    /// The number of messages in flight once none has been sent for a moment.
    fn in_flight_until_stalled(&self) -> i32 {
        let mut left = Shrinking::from(self.producer.in_flight_count());
        while left.count > 0 && !left.has_stalled() {
            std::thread::sleep(QUEUE_POLL);
            left.update(self.producer.in_flight_count());
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
    // Defaults that an operator may override come first; the settings that the guarantees depend on are reserved (see
    // RESERVED…).
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

/// Longer than any transaction should take, and less than the time-out of a message, as librdkafka requires.
fn longest_linger(settings: &KafkaSettings) -> Duration {
    let configured = ["message.timeout.ms", "delivery.timeout.ms"]
        .iter()
        .filter_map(|key| settings.client.get(*key)?.parse().ok())
        .map(Duration::from_millis)
        // 0 disables the time-out in librdkafka.
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

/// A count that should decrease.
struct Shrinking {
    count: i32,
    since: Instant,
}

impl Shrinking {
    fn from(count: i32) -> Self {
        Self { count, since: Instant::now() }
    }

    fn update(&mut self, count: i32) {
        if count != self.count {
            *self = Self::from(count);
        }
    }

    fn has_stalled(&self) -> bool {
        self.since.elapsed() >= STALLED_AFTER
    }
}

/// Polls while `step` runs. Committing and aborting wait until no message is left, and a failed or purged message is
/// left until its report is taken.
fn while_polling(producer: &BaseProducer, step: impl FnOnce() -> KafkaResult<()>) -> KafkaResult<()> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let poller = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                producer.poll(Duration::ZERO);
                std::thread::park_timeout(REPORTS_POLL);
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
                left.update(in_flight);
                if left.has_stalled() {
                    // Many partitions have a little each.
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
                // Meanwhile the broker's thread has the whole queue to send.
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
