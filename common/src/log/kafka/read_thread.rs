//! The thread that owns a consumer. It reads the partitions' queues in turn, a chunk at a time, serves the group, and
//! executes commands in between. Every event carries the generation under which it was read.
//!
//! The thread never blocks on its reader. While the channel is full it reads no events, but still serves commands and
//! the group, so rebalances and `max.poll.interval.ms` do not depend on the store. Unread messages stay in librdkafka's
//! queues, which stop fetching when they are full. The queue of a paused partition is not read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::client::explain;
use super::consumer::consumer_config;
use super::rebalance::RebalanceContext;
use super::source::Source;
use super::{KafkaSettings, REQUEST_TIMEOUT};
use crate::log::{LogError, LogErrorKind, Membership, ReadEvent, Result};

/// The wait when there is nothing to read, and the longest delay before a rebalance is handled.
const IDLE_WAIT: Duration = Duration::from_millis(10);
/// The pause between checks for room in the channel.
const BLOCKED_WAIT: Duration = Duration::from_millis(1);

pub(super) enum Command {
    Start {
        partition: i32,
        offset: i64,
        generation: u64,
        is_paused: bool,
        reply: oneshot::Sender<Result<()>>,
    },
    /// Ignored under another generation.
    SetPaused {
        partition: i32,
        generation: u64,
        is_paused: bool,
    },
    /// A queue has messages again.
    Wake,
    Stop,
}

/// An event and the generation of its partition when it was read.
pub(super) struct Tagged {
    pub generation: u64,
    pub event: ReadEvent,
}

/// The reason why reading is interrupted.
pub(super) struct Failure {
    /// Partition and generation of a failure of one partition. A partition that was restarted meanwhile ignores it.
    pub of: Option<(i32, u64)>,
    pub error: LogError,
}

pub(super) type Sent = std::result::Result<Tagged, Failure>;

pub(super) struct ReadThread {
    consumer: Arc<BaseConsumer<RebalanceContext>>,
    settings: Arc<KafkaSettings>,
    topic: String,
    commands: Receiver<Command>,
    /// For the queues, which wake the thread by a command.
    wake: Sender<Command>,
    events: mpsc::Sender<Sent>,
    /// Events that do not fit into the channel yet.
    outbox: VecDeque<Sent>,
    /// Started partitions.
    sources: BTreeMap<i32, Source>,
    /// The partition read last, so that all are read in turn.
    last: i32,
}

impl ReadThread {
    pub(super) fn new(
        settings: &Arc<KafkaSettings>,
        topic: &str,
        membership: &Membership,
        earliest: BTreeMap<i32, i64>,
        (wake, commands): (Sender<Command>, Receiver<Command>),
        events: mpsc::Sender<Sent>,
    ) -> Result<Self> {
        let explain = |error: KafkaError| explain(settings, "starting to read", &error);
        let most = match membership {
            Membership::Group { .. } => earliest.len(),
            Membership::Direct { partitions } => partitions.len(),
        };
        let config = consumer_config(settings, membership, most);
        let consumer: BaseConsumer<RebalanceContext> =
            config.create_with_context(RebalanceContext::new(earliest)).map_err(explain)?;
        match membership {
            Membership::Group { .. } => consumer.subscribe(&[topic]).map_err(explain)?,
            Membership::Direct { partitions } => {
                let mut list = TopicPartitionList::new();
                for partition in partitions {
                    list.add_partition(topic, *partition);
                }
                consumer.context().assign(&consumer, &mut list).map_err(explain)?;
            }
        }
        Ok(Self {
            consumer: Arc::new(consumer),
            settings: settings.clone(),
            topic: topic.to_owned(),
            commands,
            wake,
            events,
            outbox: VecDeque::new(),
            sources: BTreeMap::new(),
            last: -1,
        })
    }

    /// The consumer, for calls that are safe from any thread.
    pub(super) fn consumer(&self) -> Arc<BaseConsumer<RebalanceContext>> {
        self.consumer.clone()
    }

    pub(super) fn run(mut self) {
        let mut wait = Duration::ZERO;
        while self.serve_commands(wait) {
            self.serve_group(Duration::ZERO);
            let mut has_read = false;
            let mut has_reader = self.send_outbox();
            if has_reader && self.outbox.is_empty() {
                has_read = self.read_next();
                has_reader = self.send_outbox();
            }
            if !has_reader {
                return;
            }
            wait = match (self.outbox.is_empty(), has_read) {
                (false, _) => BLOCKED_WAIT,
                (true, false) => IDLE_WAIT,
                (true, true) => Duration::ZERO,
            };
        }
    }

    /// Executes all pending commands, and waits up to `wait` for the first. False ends the thread.
    fn serve_commands(&mut self, wait: Duration) -> bool {
        let mut next = self.commands.recv_timeout(wait);
        loop {
            match next {
                Ok(Command::Start { partition, offset, generation, is_paused, reply }) => {
                    let outcome = self.start(partition, offset, (generation, is_paused));
                    // The caller may have been dropped meanwhile.
                    let _ = reply.send(outcome);
                }
                Ok(Command::SetPaused { partition, generation, is_paused }) => {
                    if let Some(source) = self.sources.get_mut(&partition)
                        && source.generation == generation
                    {
                        source.is_paused = is_paused;
                    }
                }
                Ok(Command::Wake) => {}
                Err(RecvTimeoutError::Timeout) => return true,
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
            }
            next = self.commands.recv_timeout(Duration::ZERO);
        }
    }

    /// On success the partition is read from `offset` on, and no earlier record follows.
    fn start(&mut self, partition: i32, offset: i64, tag: (u64, bool)) -> Result<()> {
        let (settings, doing) = (self.settings.clone(), format!("starting {}/{partition} at {offset}", self.topic));
        let explain = |error: KafkaError| explain(&settings, &doing, &error);
        let assigned = self.consumer.assignment().map_err(explain)?;
        if assigned.find_partition(&self.topic, partition).is_none() {
            return Err(LogError::new(
                LogErrorKind::NotAssigned,
                format!("{}/{partition} is not assigned", self.topic),
            ));
        }
        self.sources.remove(&partition);
        let source = Source::new(&self.consumer, &self.topic, partition, tag, self.wake.clone())?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, partition, Offset::Offset(offset)).map_err(explain)?;
        self.consumer.pause(&list).map_err(explain)?;
        // Right after a rebalance the partition may be assigned before its fetcher has started.
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        while let Err(error) = self.consumer.seek(&self.topic, partition, Offset::Offset(offset), REQUEST_TIMEOUT) {
            let explained = explain(error);
            if explained.kind != LogErrorKind::NotAssigned {
                return Err(explained);
            }
            if Instant::now() > deadline {
                // The partition is assigned: giving up silently would leave it unread.
                return Err(LogError { kind: LogErrorKind::Transient, ..explained });
            }
            self.serve_group(Duration::from_millis(20));
            if self.consumer.assignment().map_err(explain)?.find_partition(&self.topic, partition).is_none() {
                return Err(explained);
            }
        }
        self.consumer.resume(&list).map_err(explain)?;
        self.sources.insert(partition, source);
        Ok(())
    }

    /// Ends reading of a partition until it is started again.
    fn stop(&mut self, partition: i32) {
        self.sources.remove(&partition);
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, partition);
        if let Err(error) = self.consumer.pause(&list) {
            tracing::debug!(partition, %error, "an unreadable partition was not paused; it is not assigned any more");
        }
    }

    /// Moves events to the reader while there is room. False when the reader has been dropped.
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

    /// Polls the consumer's own queue: rebalances, and events of no particular partition.
    fn serve_group(&mut self, wait: Duration) {
        let failure = match self.consumer.poll(wait) {
            // The partition is not started, so no end is promised.
            None | Some(Err(KafkaError::PartitionEOF(_))) => None,
            Some(Ok(stray)) => self.sources.get(&stray.partition()).map(|_| {
                let message = format!("{}/{} came by another queue than its own", self.topic, stray.partition());
                LogError::new(LogErrorKind::Transient, message)
            }),
            Some(Err(error)) => Some(explain(&self.settings, &format!("reading topic '{}'", self.topic), &error)),
        };
        for event in self.consumer.context().take() {
            if let ReadEvent::Assigned(partitions) | ReadEvent::Revoked(partitions) = &event {
                for partition in partitions {
                    self.sources.remove(partition);
                }
            }
            self.outbox.push_back(Ok(Tagged { generation: 0, event }));
        }
        self.outbox.extend(failure.map(|error| Err(Failure { of: None, error })));
    }

    /// Reads one chunk of the next partition that has messages. False if none has.
    fn read_next(&mut self) -> bool {
        let after = self.sources.range(self.last.saturating_add(1)..);
        let in_turn: Vec<i32> =
            after.chain(self.sources.range(..=self.last)).map(|(partition, _)| *partition).collect();
        for partition in in_turn {
            let Some(source) = self.sources.get_mut(&partition).filter(|source| !source.is_paused) else { continue };
            let read = source.read(&self.settings, &self.topic);
            if let Some(last) = read.last() {
                self.last = partition;
                if matches!(last, Ok(Tagged { event: ReadEvent::Failed { .. }, .. })) {
                    self.stop(partition);
                }
                self.outbox.extend(read);
                return true;
            }
        }
        false
    }
}
