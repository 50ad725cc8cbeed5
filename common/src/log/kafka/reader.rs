//! The async side of reading: receives events from the read thread and sends it commands.
//!
//! A restart of a partition raises its generation. Events sent under an older one are dropped here, so nothing from
//! before a restart is ever yielded. Events sent before the thread received a pause are held here until the resume.
//! Their number is bounded by the channel, because the thread sends nothing of a paused partition.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::client::explain;
use super::read_thread::{Command, Failure, ReadThread, Sent};
use super::rebalance::RebalanceContext;
use super::{KafkaSettings, blocking};
use crate::log::{Chunk, LogError, LogErrorKind, LogReader, Membership, ReadEvent, Result};

/// Chunks between the thread and the caller: enough to overlap, few to hold.
const EVENTS_IN_FLIGHT: usize = 4;
/// librdkafka's own wait for a commit is unlimited when the coordinator is unreachable.
const COMMIT_PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct KafkaReader {
    commands: std_mpsc::Sender<Command>,
    events: mpsc::Receiver<Sent>,
    finished: Option<oneshot::Receiver<()>>,
    generations: BTreeMap<i32, u64>,
    last_generation: u64,
    paused: BTreeSet<i32>,
    /// Events of partitions that are or were paused, in order.
    held: BTreeMap<i32, VecDeque<ReadEvent>>,
    in_group: bool,
    settings: Arc<KafkaSettings>,
    topic: String,
    consumer: Option<Arc<BaseConsumer<RebalanceContext>>>,
}

impl KafkaReader {
    pub(super) fn start(
        settings: &Arc<KafkaSettings>,
        topic: &str,
        membership: &Membership,
        earliest: BTreeMap<i32, i64>,
    ) -> Result<Self> {
        let (commands, served) = std_mpsc::channel();
        let (event_sender, events) = mpsc::channel(EVENTS_IN_FLIGHT);
        let (finish, finished) = oneshot::channel();
        let thread = ReadThread::new(settings, topic, membership, earliest, (commands.clone(), served), event_sender)?;
        let consumer = thread.consumer();
        std::thread::Builder::new()
            .name("kafka-read".to_owned())
            .spawn(move || {
                thread.run();
                // The receiver is gone if the reader was dropped without being closed.
                let _ = finish.send(());
            })
            .map_err(|error| LogError::new(LogErrorKind::Other, format!("cannot start the reading thread: {error}")))?;
        Ok(Self {
            commands,
            events,
            finished: Some(finished),
            generations: BTreeMap::new(),
            last_generation: 0,
            paused: BTreeSet::new(),
            held: BTreeMap::new(),
            in_group: matches!(membership, Membership::Group { .. }),
            settings: settings.clone(),
            topic: topic.to_owned(),
            consumer: Some(consumer),
        })
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let ended = || LogError::new(LogErrorKind::Other, "the Kafka reading thread has ended");
        self.commands.send(command(reply)).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

impl KafkaReader {
    /// Drops the state of a partition that is revoked or newly assigned.
    fn forget(&mut self, partition: i32) {
        self.generations.remove(&partition);
        self.paused.remove(&partition);
        self.held.remove(&partition);
    }

    /// Returns held events of resumed partitions, which precede anything newer.
    fn next_held(&mut self) -> Option<ReadEvent> {
        let resumed = self.held.iter_mut().find(|(partition, _)| !self.paused.contains(partition));
        let (partition, (event, is_last)) =
            resumed.map(|(partition, held)| (*partition, (held.pop_front(), held.is_empty())))?;
        if is_last {
            self.held.remove(&partition);
        }
        event
    }

    fn tell_paused(&self, partition: i32, is_paused: bool) {
        if let Some(generation) = self.generations.get(&partition).copied() {
            // Fails when the thread has ended, which the next poll reports.
            let _ = self.commands.send(Command::SetPaused { partition, generation, is_paused });
        }
    }
}

#[async_trait]
impl LogReader for KafkaReader {
    async fn poll(&mut self, max_wait: Duration) -> Result<ReadEvent> {
        if let Some(event) = self.next_held() {
            return Ok(event);
        }
        let deadline = Instant::now() + max_wait;
        loop {
            let received = match tokio::time::timeout_at(deadline, self.events.recv()).await {
                Err(_) => return Ok(ReadEvent::Idle),
                Ok(None) => return Err(LogError::new(LogErrorKind::Other, "the Kafka reading thread has ended")),
                Ok(Some(Ok(received))) => received,
                Ok(Some(Err(Failure { of: Some((partition, generation)), .. })))
                    if self.generations.get(&partition) != Some(&generation) =>
                {
                    continue;
                }
                Ok(Some(Err(failure))) => return Err(failure.error),
            };
            let (generation, event) = (received.generation, received.event);
            match &event {
                ReadEvent::Assigned(partitions) | ReadEvent::Revoked(partitions) => {
                    for partition in partitions {
                        self.forget(*partition);
                    }
                }
                ReadEvent::Chunk(Chunk { partition, .. })
                | ReadEvent::EndReached(partition)
                | ReadEvent::Failed { partition, .. } => {
                    let partition = *partition;
                    if self.generations.get(&partition) != Some(&generation) {
                        continue;
                    }
                    if self.paused.contains(&partition) {
                        self.held.entry(partition).or_default().push_back(event);
                        continue;
                    }
                }
                ReadEvent::Idle => {}
            }
            return Ok(event);
        }
    }

    async fn start(&mut self, partition: i32, offset: i64) -> Result<()> {
        self.last_generation += 1;
        let generation = self.last_generation;
        let is_paused = self.paused.contains(&partition);
        self.ask(|reply| Command::Start { partition, offset, generation, is_paused, reply }).await?;
        self.generations.insert(partition, generation);
        self.held.remove(&partition);
        Ok(())
    }

    fn pause(&mut self, partition: i32) {
        if self.paused.insert(partition) {
            self.tell_paused(partition, true);
        }
    }

    fn resume(&mut self, partition: i32) {
        if self.paused.remove(&partition) {
            self.tell_paused(partition, false);
        }
    }

    async fn commit(&mut self, offsets: &BTreeMap<i32, i64>) -> Result<()> {
        if !self.in_group {
            return Err(LogError::new(LogErrorKind::Misconfigured, "a reader without a group cannot commit offsets"));
        }
        let Some(consumer) = self.consumer.clone() else {
            return Err(LogError::new(LogErrorKind::Other, "the reader is closed"));
        };
        let (settings, topic, offsets) = (self.settings.clone(), self.topic.clone(), offsets.clone());
        let commit = blocking(move || {
            let explain = |error| explain(&settings, "committing offsets", &error);
            let mut list = TopicPartitionList::new();
            for (partition, offset) in offsets {
                list.add_partition_offset(&topic, partition, Offset::Offset(offset)).map_err(explain)?;
            }
            consumer.commit(&list, CommitMode::Sync).map_err(explain)
        });
        match tokio::time::timeout(COMMIT_PATIENCE, commit).await {
            Ok(outcome) => outcome,
            Err(_) => Err(LogError::new(
                LogErrorKind::Transient,
                format!("no answer to an offset commit within {COMMIT_PATIENCE:?}"),
            )),
        }
    }

    async fn close(mut self: Box<Self>) {
        let _ = self.commands.send(Command::Stop);
        // Unblocks the thread if it waits for room.
        self.events.close();
        while self.events.recv().await.is_some() {}
        if let Some(finished) = self.finished.take() {
            let _ = finished.await;
        }
        // Dropping the last handle leaves the group, which sends a request to the broker.
        if let Some(consumer) = self.consumer.take() {
            let _ = tokio::task::spawn_blocking(move || drop(consumer)).await;
        }
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        // Fails when the thread has ended already.
        let _ = self.commands.send(Command::Stop);
    }
}
