//! One started partition of a consumer, read from a queue of its own.
//!
//! librdkafka forwards all partitions to the consumer's one queue unless they are split off. In that queue a partition
//! that has to wait delays the others. librdkafka's own pause (`rd_kafka_pause_partitions`) discards the messages
//! fetched ahead and fetches them again after the resume: `rd_kafka_toppar_pause_resume` in `rdkafka_partition.c` bumps
//! the partition's version, which outdates everything queued, and resets the next fetch to the last message polled. A
//! lane slightly slower than the broker would be paused many times a second. A queue of its own that is not polled
//! costs nothing: fetching stops once it is full (`rd_kafka_toppar_fetch_decide` in `rdkafka_fetcher.c`) and then
//! continues.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;

use super::KafkaSettings;
use super::client::explain;
use super::fetched::Fetched;
use super::queue::FetchQueue;
use super::read_thread::{Command, Failure, Sent, Tagged};
use super::rebalance::RebalanceContext;
use crate::log::MAX_HEADER_NAME_BYTES;
use crate::log::{Chunk, LogError, LogErrorKind, ReadEvent, Result};

/// A chunk is sent when it holds this much, or when the queue is empty. With one more record it stays below half a
/// megabyte; from there on the allocator maps fresh memory for each allocation.
const CHUNK_BYTES: usize = 448 * 1024;
const CHUNK_RECORDS: usize = 4096;

pub(super) struct Source {
    partition: i32,
    pub generation: u64,
    /// The owner has enough work: the queue is left to fill up.
    pub is_paused: bool,
    /// Records and bytes of the previous chunk. The next one is about as large, and is allocated at that size: growing
    /// to half a megabyte in steps would touch twice the memory.
    before: (usize, usize),
    queue: FetchQueue,
}

impl Source {
    /// Splits the partition off. Messages already queued are outdated by the seek that must follow. `wake` receives a
    /// command when there are messages.
    ///
    /// Only one source of a partition may exist at a time: dropping the first would end the notifications of a second.
    pub(super) fn new(
        consumer: &Arc<BaseConsumer<RebalanceContext>>,
        topic: &str,
        partition: i32,
        (generation, is_paused): (u64, bool),
        wake: Sender<Command>,
    ) -> Result<Self> {
        let wake = move || {
            // Fails when the thread has ended.
            let _ = wake.send(Command::Wake);
        };
        let queue = FetchQueue::split_off(consumer, topic, partition, wake).ok_or_else(|| {
            LogError::new(LogErrorKind::Other, format!("librdkafka has no queue for {topic}/{partition}"))
        })?;
        Ok(Self { partition, generation, is_paused, before: (0, 0), queue })
    }

    /// Returns the queued records, up to one chunk, and the event right after them: the partition's end, or a failure.
    /// Never waits.
    ///
    /// After [`ReadEvent::Failed`] the source is finished: librdkafka may go on behind the records that it could not
    /// read.
    pub(super) fn read(&mut self, settings: &KafkaSettings, topic: &str) -> Vec<Sent> {
        let (records, bytes) = self.before;
        let mut chunk = Chunk::default();
        let mut last = None;
        while last.is_none() && chunk.records.size_bytes() < CHUNK_BYTES && chunk.records.len() < CHUNK_RECORDS {
            let Some(message) = self.queue.next() else { break };
            let gathered = match message.error() {
                None => {
                    if chunk.offsets.is_empty() {
                        chunk = Chunk::with_capacity(self.partition, records, bytes);
                    }
                    gather(&mut chunk, message, topic).map(|()| None)
                }
                Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF) => {
                    Ok(Some(ReadEvent::EndReached(self.partition)))
                }
                Some(error) => Err(unreadable(settings, topic, self.partition, error, message)),
            };
            let offset = message.offset();
            self.queue.advance();
            last = match gathered {
                Ok(event) => event.map(|event| self.tagged(event)),
                Err(error) if is_about_records(error.kind) => {
                    Some(self.tagged(ReadEvent::Failed { partition: self.partition, offset, error }))
                }
                // The client fetches again, or a new one has to: after an offset out of range it cannot seek any more.
                Err(error) => Some(self.interrupted(error)),
            };
        }
        let chunk = (!chunk.offsets.is_empty()).then(|| {
            let with_room_for_one_more = |of_chunk: usize| of_chunk + of_chunk / 16;
            let (records, bytes) = (chunk.records.len(), chunk.records.size_bytes().min(CHUNK_BYTES));
            self.before = (with_room_for_one_more(records), with_room_for_one_more(bytes));
            self.tagged(ReadEvent::Chunk(chunk))
        });
        chunk.into_iter().chain(last).collect()
    }

    fn tagged(&self, event: ReadEvent) -> Sent {
        Ok(Tagged { generation: self.generation, event })
    }

    fn interrupted(&self, error: LogError) -> Sent {
        Err(Failure { of: Some((self.partition, self.generation)), error })
    }
}

/// Whether the records are the reason, and not the way to them.
fn is_about_records(kind: LogErrorKind) -> bool {
    matches!(kind, LogErrorKind::Corrupt | LogErrorKind::BadRecord | LogErrorKind::Misconfigured)
}

/// The error of a message that stands for records which cannot be read.
fn unreadable(
    settings: &KafkaSettings,
    topic: &str,
    partition: i32,
    code: RDKafkaRespErr,
    message: &Fetched,
) -> LogError {
    let place = format!("reading {topic}/{partition} at offset {}", message.offset());
    let mut error = explain(settings, &place, &KafkaError::MessageConsumption(code.into()));
    if let Some(detail) = message.error_text() {
        error.message = format!("{}: {detail}", error.message);
    }
    if matches!(error.kind, LogErrorKind::Corrupt | LogErrorKind::BadRecord) {
        error.message.push_str(&remedy(topic, partition));
    }
    error
}

fn remedy(topic: &str, partition: i32) -> String {
    format!(
        ". Later records of this partition wait for it, other partitions go on. If a zstd batch is too large for the client, raise \
         kafka.client.receive.message.max.bytes. To skip it, stop all distributors and set the group's offset past it: \
         kafka-consumer-groups --reset-offsets --topic {topic}:{partition} --to-offset <the next readable offset>"
    )
}

fn gather(chunk: &mut Chunk, message: &Fetched, topic: &str) -> Result<()> {
    let (partition, offset) = (chunk.partition, message.offset());
    let time_ms = message.append_time_ms().ok_or_else(|| {
        LogError::new(
            LogErrorKind::Misconfigured,
            format!(
                "{topic}/{partition} offset {offset} carries no log-append time: set message.timestamp.type=LogAppendTime on \
                 the topic, and to leave out what came before that, set the group's offset past it (all that is not written \
                 yet up to there is skipped)"
            ),
        )
    })?;
    chunk.records.push(message.key(), message.value(), |writer| {
        message.visit_headers(|name, value| {
            // The program's own header names fit, and no other header is needed.
            if name.len() <= MAX_HEADER_NAME_BYTES {
                writer.put_bytes(name, value);
            }
        });
    })?;
    chunk.offsets.push(offset);
    chunk.times_ms.push(time_ms);
    Ok(())
}
