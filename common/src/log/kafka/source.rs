//! One started partition of a consumer, read from a queue of its own.
//!
//! librdkafka forwards all partitions to the consumer's one queue unless they are split off. There a partition that is to
//! wait stands in the way of the others, and its own way of pausing (`rd_kafka_pause_partitions`) makes what was fetched
//! ahead obsolete and fetches it again after the resume: `rd_kafka_toppar_pause_resume` in `rdkafka_partition.c` bumps the
//! partition's version, which outdates everything queued, and sets the next fetch back to what the application has seen.
//! A lane that is a little slower than the broker would be paused many times a second. A queue of its own that is not
//! polled costs nothing: fetching for it stops once it is full (`rd_kafka_toppar_fetch_decide` in `rdkafka_fetcher.c`), and
//! goes on with it as it is.

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
use crate::log::record::MAX_HEADER_NAME_BYTES;
use crate::log::{Chunk, LogError, LogErrorKind, ReadEvent, Result};

/// A chunk is sent on when it holds this much, or when nothing more is waiting. With room for one more record it stays below the
/// half megabyte from which on the allocator takes memory for each anew.
const CHUNK_BYTES: usize = 448 * 1024;
const CHUNK_RECORDS: usize = 4096;

pub(super) struct Source {
    partition: i32,
    pub generation: u64,
    /// Its owner has enough to do: the queue is left to fill up.
    pub is_paused: bool,
    /// Records and bytes of the chunk before. The next one is about as large, and begins with room for that: growing to
    /// half a megabyte step by step would touch twice the memory.
    before: (usize, usize),
    queue: FetchQueue,
}

impl Source {
    /// Splits the partition off; whatever is queued from before is outdated by the seek that has to follow. `wake` is sent a
    /// command when there is something to read.
    ///
    /// There can be one source of a partition at a time: a second one would be told of nothing once the first is dropped.
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

    /// What is there, up to one chunk, and what comes right after it: the partition's end, or a failure. Never waits.
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
                Some(error) => {
                    let error = KafkaError::MessageConsumption(error.into());
                    let place = format!("reading {topic}/{} at offset {}", self.partition, message.offset());
                    Err(explain(settings, &place, &error))
                }
            };
            self.queue.advance();
            last = match gathered {
                Ok(event) => event.map(|event| self.tagged(event)),
                Err(error) => Some(self.failed(error)),
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

    fn failed(&self, error: LogError) -> Sent {
        Err(Failure { of: Some((self.partition, self.generation)), error })
    }
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
            // No header of ours has a longer name than fits, and nobody asks for others.
            if name.len() <= MAX_HEADER_NAME_BYTES {
                writer.put_bytes(name, value);
            }
        });
    })?;
    chunk.offsets.push(offset);
    chunk.times_ms.push(time_ms);
    Ok(())
}
