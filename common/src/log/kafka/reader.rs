//! The async side of reading: events from the poll thread, commands to it.
//!
//! A restart of a partition raises its generation; whatever the thread had already sent under an older one is dropped
//! here, so nothing from before the restart is ever yielded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::KafkaSettings;
use super::read_thread::{self, Command, Tagged};
use crate::log::{LogError, LogErrorKind, LogReader, Membership, ReadEvent, Result};

/// Chunks on their way between the thread and the caller: enough to overlap, little to hold.
const EVENTS_IN_FLIGHT: usize = 4;

pub(super) struct KafkaReader {
    commands: std_mpsc::Sender<Command>,
    events: mpsc::Receiver<Result<Tagged>>,
    finished: Option<oneshot::Receiver<()>>,
    generations: BTreeMap<i32, u64>,
    last_generation: u64,
    in_group: bool,
}

impl KafkaReader {
    pub(super) fn start(
        settings: &Arc<KafkaSettings>,
        topic: &str,
        membership: &Membership,
        earliest: BTreeMap<i32, i64>,
    ) -> Result<Self> {
        let (commands, command_receiver) = std_mpsc::channel();
        let (event_sender, events) = mpsc::channel(EVENTS_IN_FLIGHT);
        let (finish, finished) = oneshot::channel();
        let thread = read_thread::ReadThread::new(settings, topic, membership, earliest, command_receiver, event_sender)?;
        std::thread::Builder::new()
            .name("kafka-read".to_owned())
            .spawn(move || {
                thread.run();
                // Nobody listens when the reader was dropped without being closed.
                let _ = finish.send(());
            })
            .map_err(|error| LogError::new(LogErrorKind::Other, format!("cannot start the reading thread: {error}")))?;
        Ok(Self { commands, events, finished: Some(finished), generations: BTreeMap::new(), last_generation: 0, in_group: matches!(membership, Membership::Group { .. }) })
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let ended = || LogError::new(LogErrorKind::Other, "the Kafka reading thread has ended");
        self.commands.send(command(reply)).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

#[async_trait]
impl LogReader for KafkaReader {
    async fn poll(&mut self, max_wait: Duration) -> Result<ReadEvent> {
        let deadline = Instant::now() + max_wait;
        loop {
            let received = match tokio::time::timeout_at(deadline, self.events.recv()).await {
                Err(_) => return Ok(ReadEvent::Idle),
                Ok(None) => return Err(LogError::new(LogErrorKind::Other, "the Kafka reading thread has ended")),
                Ok(Some(received)) => received?,
            };
            match &received.event {
                ReadEvent::Assigned(partitions) => {
                    for partition in partitions {
                        self.generations.remove(partition);
                    }
                }
                ReadEvent::Revoked(partitions) => {
                    for partition in partitions {
                        self.generations.remove(partition);
                    }
                }
                ReadEvent::Chunk(chunk) if self.generations.get(&chunk.partition) != Some(&received.generation) => continue,
                ReadEvent::EndReached(partition) if self.generations.get(partition) != Some(&received.generation) => {
                    continue;
                }
                _ => {}
            }
            return Ok(received.event);
        }
    }

    async fn start(&mut self, partition: i32, offset: i64) -> Result<()> {
        self.last_generation += 1;
        let generation = self.last_generation;
        self.ask(|reply| Command::Start { partition, offset, generation, reply }).await?;
        self.generations.insert(partition, generation);
        Ok(())
    }

    async fn commit(&mut self, offsets: &BTreeMap<i32, i64>) -> Result<()> {
        if !self.in_group {
            return Err(LogError::new(LogErrorKind::Misconfigured, "a reader without a group cannot commit offsets"));
        }
        let offsets = offsets.clone();
        self.ask(|reply| Command::Commit { offsets, reply }).await
    }

    async fn close(mut self: Box<Self>) {
        let _ = self.commands.send(Command::Stop);
        // The thread may be waiting for room.
        self.events.close();
        while self.events.recv().await.is_some() {}
        if let Some(finished) = self.finished.take() {
            let _ = finished.await;
        }
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        // Fails when the thread has ended already.
        let _ = self.commands.send(Command::Stop);
    }
}
