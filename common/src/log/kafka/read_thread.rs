//! The thread that owns a consumer: it polls, gathers records into chunks, and executes commands between polls, so
//! that what it sends is always tagged with the generation it was read under.
//!
//! It never blocks on its reader. While there is no room for events it keeps serving commands, and when that lasts it
//! pauses fetching and goes on polling, so that rebalances and `max.poll.interval.ms` are served however slow the
//! store is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message, Timestamp};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::client::{base_config, explain, log_line};
use super::headers::visit_headers;
use super::{KafkaSettings, REQUEST_TIMEOUT};
use crate::log::record::MAX_HEADER_NAME_BYTES;
use crate::log::{Chunk, LogError, LogErrorKind, Membership, ReadEvent, Result};

/// A chunk is sent on when it holds this much, or when nothing more is waiting.
const CHUNK_BYTES: usize = 512 * 1024;
const CHUNK_RECORDS: usize = 4096;
/// How long an idle poll waits; also the latency of commands then.
const IDLE_POLL: Duration = Duration::from_millis(10);
/// How long there may be no room for events before fetching is paused.
const BLOCKED_BEFORE_PAUSE: Duration = Duration::from_secs(2);
const BLOCKED_POLL: Duration = Duration::from_millis(1);

pub(super) enum Command {
    Start { partition: i32, offset: i64, generation: u64, reply: oneshot::Sender<Result<()>> },
    Stop,
}

/// An event and the generation of its partition when it was read.
pub(super) struct Tagged {
    pub generation: u64,
    pub event: ReadEvent,
}

/// Why reading is interrupted.
pub(super) struct Failure {
    /// Partition and generation, if it is one record's: to whoever starts elsewhere meanwhile it means nothing.
    pub of: Option<(i32, u64)>,
    pub error: LogError,
}

pub(super) type Sent = std::result::Result<Tagged, Failure>;

/// Runs inside librdkafka's callbacks, which `poll` calls on the reading thread.
pub(super) struct RebalanceContext {
    earliest: BTreeMap<i32, i64>,
    events: Mutex<Vec<ReadEvent>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for RebalanceContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, reason, "client error");
    }
}

impl ConsumerContext for RebalanceContext {
    /// Assigns partitions paused and at a place that certainly exists: the owner says where to start. A logical offset
    /// would not do, for its look-up could end after the owner's seek and undo it.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions = partition_ids(list);
        let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let (outcome, event) = if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            (self.assign_paused(consumer, list, cooperative), ReadEvent::Assigned(partitions))
        } else {
            let outcome = if cooperative { consumer.incremental_unassign(list) } else { consumer.unassign() };
            (outcome, ReadEvent::Revoked(partitions))
        };
        if let Err(error) = outcome {
            tracing::warn!(%error, "a rebalance could not be applied; the group will try again");
        }
        lock(&self.events).push(event);
    }
}

impl RebalanceContext {
    fn assign_paused(
        &self,
        consumer: &BaseConsumer<Self>,
        list: &mut TopicPartitionList,
        cooperative: bool,
    ) -> std::result::Result<(), KafkaError> {
        let positions: Vec<(String, i32)> =
            list.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect();
        for (topic, partition) in positions {
            let earliest = self.earliest.get(&partition).copied().unwrap_or(0);
            list.set_partition_offset(&topic, partition, Offset::Offset(earliest))?;
        }
        if cooperative {
            consumer.incremental_assign(list)?;
        } else {
            consumer.assign(list)?;
        }
        if list.count() == 0 {
            return Ok(());
        }
        consumer.pause(list)
    }
}

fn partition_ids(list: &TopicPartitionList) -> Vec<i32> {
    let mut partitions: Vec<i32> =
        list.elements().iter().map(rdkafka::topic_partition_list::TopicPartitionListElem::partition).collect();
    partitions.sort_unstable();
    partitions
}

pub(super) struct ReadThread {
    consumer: Arc<BaseConsumer<RebalanceContext>>,
    settings: Arc<KafkaSettings>,
    topic: String,
    commands: Receiver<Command>,
    events: mpsc::Sender<Sent>,
    /// Events there was no room for yet.
    outbox: VecDeque<Sent>,
    gathering: BTreeMap<i32, Chunk>,
    /// Generation by started partition.
    started: BTreeMap<i32, u64>,
    blocked_since: Option<Instant>,
    paused: bool,
}

impl ReadThread {
    pub(super) fn new(
        settings: &Arc<KafkaSettings>,
        topic: &str,
        membership: &Membership,
        earliest: BTreeMap<i32, i64>,
        commands: Receiver<Command>,
        events: mpsc::Sender<Sent>,
    ) -> Result<Self> {
        let explain = |error: KafkaError| explain(settings, "starting to read", &error);
        let context = RebalanceContext { earliest, events: Mutex::default() };
        let consumer: BaseConsumer<RebalanceContext> =
            consumer_config(settings, membership).create_with_context(context).map_err(explain)?;
        match membership {
            Membership::Group { .. } => consumer.subscribe(&[topic]).map_err(explain)?,
            Membership::Direct { partitions } => {
                let mut list = TopicPartitionList::new();
                for partition in partitions {
                    list.add_partition(topic, *partition);
                }
                let context = consumer.context().clone();
                context.assign_paused(&consumer, &mut list, false).map_err(explain)?;
                lock(&context.events).push(ReadEvent::Assigned(partition_ids(&list)));
            }
        }
        Ok(Self {
            consumer: Arc::new(consumer),
            settings: settings.clone(),
            topic: topic.to_owned(),
            commands,
            events,
            outbox: VecDeque::new(),
            gathering: BTreeMap::new(),
            started: BTreeMap::new(),
            blocked_since: None,
            paused: false,
        })
    }

    /// The consumer, for calls that are safe from any thread.
    pub(super) fn consumer(&self) -> Arc<BaseConsumer<RebalanceContext>> {
        self.consumer.clone()
    }

    pub(super) fn run(mut self) {
        while self.serve_command() && self.send_outbox() {
            if self.outbox.is_empty() {
                self.unblock();
                self.poll_once();
            } else {
                self.keep_alive_while_blocked();
            }
        }
    }

    /// Executes a command if there is one; waits a moment for one while events have no room. False ends the thread.
    fn serve_command(&mut self) -> bool {
        let command = if self.outbox.is_empty() {
            match self.commands.try_recv() {
                Ok(command) => command,
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        } else {
            match self.commands.recv_timeout(BLOCKED_POLL) {
                Ok(command) => command,
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        };
        match command {
            Command::Start { partition, offset, generation, reply } => {
                let outcome = self.start(partition, offset, generation);
                // The asker may have been dropped meanwhile.
                let _ = reply.send(outcome);
            }
            Command::Stop => return false,
        }
        true
    }

    fn start(&mut self, partition: i32, offset: i64, generation: u64) -> Result<()> {
        let (settings, doing) = (self.settings.clone(), format!("starting {}/{partition} at {offset}", self.topic));
        let explain = |error: KafkaError| explain(&settings, &doing, &error);
        let assigned = self.consumer.assignment().map_err(explain)?;
        if assigned.find_partition(&self.topic, partition).is_none() {
            return Err(LogError::new(
                LogErrorKind::NotAssigned,
                format!("{}/{partition} is not assigned", self.topic),
            ));
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, partition, Offset::Offset(offset)).map_err(explain)?;
        self.consumer.pause(&list).map_err(explain)?;
        // Right after a rebalance the partition may be assigned while its fetcher is not started yet.
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        while let Err(error) = self.consumer.seek(&self.topic, partition, Offset::Offset(offset), REQUEST_TIMEOUT) {
            let explained = explain(error);
            if explained.kind != LogErrorKind::NotAssigned {
                return Err(explained);
            }
            if Instant::now() > deadline {
                // It is ours: giving it up silently would leave it unread.
                return Err(LogError { kind: LogErrorKind::Transient, ..explained });
            }
            self.poll_for(Duration::from_millis(20));
            if self.consumer.assignment().map_err(explain)?.find_partition(&self.topic, partition).is_none() {
                return Err(explained);
            }
        }
        if !self.paused {
            self.consumer.resume(&list).map_err(explain)?;
        }
        self.gathering.remove(&partition);
        self.started.insert(partition, generation);
        Ok(())
    }

    /// Moves events to the reader as long as there is room. False when the reader is gone.
    fn send_outbox(&mut self) -> bool {
        while let Some(event) = self.outbox.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.outbox.push_front(event);
                    return true;
                }
                Err(TrySendError::Closed(_)) => return false,
            }
        }
        true
    }

    fn poll_once(&mut self) {
        let wait = if self.gathering.is_empty() { IDLE_POLL } else { Duration::ZERO };
        if !self.poll_for(wait) {
            self.flush_all();
        }
    }

    /// One poll; false when it brought nothing.
    fn poll_for(&mut self, wait: Duration) -> bool {
        let mut full = None;
        let mut end = None;
        let mut failure = None;
        let progressed = match self.consumer.poll(wait) {
            None => false,
            Some(Ok(message)) => {
                let partition = message.partition();
                if let Some(generation) = self.started.get(&partition) {
                    let chunk =
                        self.gathering.entry(partition).or_insert_with(|| Chunk { partition, ..Chunk::default() });
                    match gather(chunk, &message) {
                        Ok(()) if chunk.records.size_bytes() >= CHUNK_BYTES || chunk.records.len() >= CHUNK_RECORDS => {
                            full = Some(partition);
                        }
                        Ok(()) => {}
                        Err(error) => failure = Some(Failure { of: Some((partition, *generation)), error }),
                    }
                }
                true
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                end = Some(partition);
                true
            }
            Some(Err(error)) => {
                let error = explain(&self.settings, &format!("reading topic '{}'", self.topic), &error);
                failure = Some(Failure { of: None, error });
                true
            }
        };
        let rebalances = std::mem::take(&mut *lock(&self.consumer.context().events));
        for event in rebalances {
            self.rebalanced(event);
        }
        if let Some(partition) = full.or(end) {
            self.flush(partition);
        }
        if let Some(partition) = end {
            self.push_tagged(partition, ReadEvent::EndReached(partition));
        }
        if let Some(failure) = failure {
            self.flush_all();
            self.outbox.push_back(Err(failure));
        }
        progressed
    }

    fn rebalanced(&mut self, event: ReadEvent) {
        self.flush_all();
        if let ReadEvent::Assigned(partitions) | ReadEvent::Revoked(partitions) = &event {
            for partition in partitions {
                self.started.remove(partition);
            }
        }
        self.outbox.push_back(Ok(Tagged { generation: 0, event }));
    }

    fn flush_all(&mut self) {
        while let Some((partition, chunk)) = self.gathering.pop_first() {
            self.push_tagged(partition, ReadEvent::Chunk(chunk));
        }
    }

    fn flush(&mut self, partition: i32) {
        if let Some(chunk) = self.gathering.remove(&partition) {
            self.push_tagged(partition, ReadEvent::Chunk(chunk));
        }
    }

    fn push_tagged(&mut self, partition: i32, event: ReadEvent) {
        if let Some(generation) = self.started.get(&partition) {
            self.outbox.push_back(Ok(Tagged { generation: *generation, event }));
        }
    }

    fn started_list(&self) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in self.started.keys() {
            list.add_partition(&self.topic, *partition);
        }
        list
    }

    /// The reader takes nothing: after a while stop fetching, but keep polling.
    fn keep_alive_while_blocked(&mut self) {
        let since = *self.blocked_since.get_or_insert_with(Instant::now);
        if since.elapsed() < BLOCKED_BEFORE_PAUSE {
            return;
        }
        if !self.paused && !self.started.is_empty() {
            match self.consumer.pause(&self.started_list()) {
                Ok(()) => self.paused = true,
                Err(error) => tracing::debug!(%error, "cannot pause; trying again"),
            }
        }
        if self.paused {
            self.poll_for(Duration::from_millis(50));
        }
    }

    fn unblock(&mut self) {
        self.blocked_since = None;
        if self.paused {
            match self.consumer.resume(&self.started_list()) {
                Ok(()) => self.paused = false,
                Err(error) => tracing::debug!(%error, "cannot resume; trying again"),
            }
        }
    }
}

fn consumer_config(settings: &KafkaSettings, membership: &Membership) -> rdkafka::ClientConfig {
    let mut config = base_config(settings);
    for (key, value) in [
        // With the default of 1,000 ms a full local queue stops fetching for a second at a time.
        ("fetch.queue.backoff.ms", "2"),
        // A queued message costs librdkafka more memory than its bytes: these two bound it to some 30 MB.
        ("queued.max.messages.kbytes", "8192"),
        ("queued.min.messages", "10000"),
        ("fetch.wait.max.ms", "100"),
        ("session.timeout.ms", "10000"),
        ("partition.assignment.strategy", "cooperative-sticky"),
    ] {
        let new_protocol =
            settings.client.get("group.protocol").is_some_and(|protocol| protocol.eq_ignore_ascii_case("consumer"));
        let classic_only = matches!(key, "session.timeout.ms" | "partition.assignment.strategy");
        let leave_out = settings.client.contains_key(key) || (new_protocol && classic_only);
        if !leave_out {
            config.set(key, value);
        }
    }
    config
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "error")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true");
    match membership {
        Membership::Group { group, instance_id } => {
            config.set("group.id", group);
            if let Some(instance_id) = instance_id {
                config.set("group.instance.id", instance_id);
            }
        }
        // librdkafka wants a group id for assigned partitions too; nothing is ever committed under it.
        Membership::Direct { .. } => {
            config.set("group.id", "event-distributor-direct");
        }
    }
    config
}

fn gather(chunk: &mut Chunk, message: &BorrowedMessage<'_>) -> Result<()> {
    let Timestamp::LogAppendTime(time_ms) = message.timestamp() else {
        return Err(LogError::new(
            LogErrorKind::Misconfigured,
            format!(
                "{}/{} offset {} carries no log-append time: set message.timestamp.type=LogAppendTime on the topic, and to \
                 leave out what came before that, set the group's offset past it (all that is not written yet up to there \
                 is skipped)",
                message.topic(),
                message.partition(),
                message.offset()
            ),
        ));
    };
    chunk.records.push(message.key().unwrap_or_default(), message.payload(), |writer| {
        visit_headers(message, |name, value| {
            // No header of ours has a longer name than fits, and nobody asks for others.
            if name.len() <= MAX_HEADER_NAME_BYTES {
                writer.put_bytes(name, value);
            }
        });
    })?;
    chunk.offsets.push(message.offset());
    chunk.times_ms.push(time_ms);
    Ok(())
}
