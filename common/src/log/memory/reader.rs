//! Reading the log in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::MemoryLog;
use crate::log::{LogError, LogErrorKind, LogReader, ReadEvent, Result};

/// How many records a chunk has, unless [`MemoryReader::set_most`] says otherwise.
const MOST: usize = 100;

/// Tells which partitions a reader owns, by the number of the assignment that gave it.
type Assignments = Box<dyn Fn() -> BTreeMap<i32, u64> + Send>;

enum Owned {
    Direct(BTreeMap<i32, u64>),
    Member { group: String, member: u64 },
    Given { group: String, assignments: Assignments },
}

#[derive(Debug, Clone, Copy)]
struct Position {
    next: i64,
    is_end_told: bool,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    assignment: u64,
    /// `None` until started, and again once it cannot be read.
    position: Option<Position>,
    is_paused: bool,
}

/// A reader, which leaves its group when it is dropped.
pub struct MemoryReader {
    log: MemoryLog,
    topic: String,
    owned: Owned,
    is_announced: bool,
    held: BTreeMap<i32, Held>,
    /// The partition read last, so that all are read in turn.
    last: i32,
    most: usize,
}

impl MemoryReader {
    fn new(log: MemoryLog, topic: &str, owned: Owned) -> Self {
        let topic = topic.to_owned();
        Self { log, topic, owned, is_announced: false, held: BTreeMap::new(), last: -1, most: MOST }
    }

    pub(super) fn direct(log: MemoryLog, topic: &str, partitions: &[i32]) -> Self {
        Self::new(log, topic, Owned::Direct(partitions.iter().map(|partition| (*partition, 0)).collect()))
    }

    pub(super) fn member(log: MemoryLog, topic: &str, group: &str) -> Self {
        let mut content = log.content();
        let partitions = content.bounds(topic).into_keys();
        let member = content.groups.join(group, topic, partitions);
        drop(content);
        log.wake();
        Self::new(log, topic, Owned::Member { group: group.to_owned(), member })
    }

    pub(super) fn given(log: MemoryLog, topic: &str, group: &str, assignments: Assignments) -> Self {
        Self::new(log, topic, Owned::Given { group: group.to_owned(), assignments })
    }

    /// How many records the next chunks have at most.
    pub fn set_most(&mut self, most: usize) {
        self.most = most;
    }

    /// Yields nothing more of the partition until it is started again.
    pub fn stop(&mut self, partition: i32) {
        if let Some(held) = self.held.get_mut(&partition) {
            held.position = None;
        }
    }

    fn owned(&self) -> BTreeMap<i32, u64> {
        match &self.owned {
            Owned::Direct(partitions) => partitions.clone(),
            Owned::Member { group, member } => self.log.content().groups.owned(group, &self.topic, *member),
            Owned::Given { assignments, .. } => assignments(),
        }
    }

    fn membership_event(&mut self) -> Option<ReadEvent> {
        let owned = self.owned();
        let is_gone = |(id, held): (&i32, &Held)| owned.get(id) != Some(&held.assignment);
        let gone: Vec<i32> = self.held.iter().filter(|held| is_gone(*held)).map(|(id, _)| *id).collect();
        if !gone.is_empty() {
            self.held.retain(|id, _| !gone.contains(id));
            return Some(ReadEvent::Revoked(gone));
        }
        let new: Vec<i32> = owned.keys().filter(|id| !self.held.contains_key(id)).copied().collect();
        if std::mem::replace(&mut self.is_announced, true) && new.is_empty() {
            return None;
        }
        let held = |id: i32| Held { assignment: owned[&id], position: None, is_paused: false };
        self.held.extend(new.iter().map(|id| (*id, held(*id))));
        Some(ReadEvent::Assigned(new))
    }

    fn next_event(&mut self) -> Result<Option<ReadEvent>> {
        if let Some(event) = self.membership_event() {
            return Ok(Some(event));
        }
        let mut turn: Vec<i32> = self.held.keys().copied().collect();
        turn.sort_by_key(|id| (*id <= self.last, *id));
        for partition in turn {
            let Some(held) = self.held.get_mut(&partition).filter(|held| !held.is_paused) else { continue };
            let Some(position) = held.position else { continue };
            self.last = partition;
            let chunk = {
                let mut content = self.log.content();
                content.partition(&self.topic, partition)?.chunk(&self.topic, partition, position.next, self.most)
            };
            match chunk {
                Ok(Some(chunk)) => {
                    let next = chunk.offsets.last().map_or(position.next, |last| last + 1);
                    held.position = Some(Position { next, is_end_told: false });
                    return Ok(Some(ReadEvent::Chunk(chunk)));
                }
                Ok(None) if position.is_end_told => {}
                Ok(None) => {
                    held.position = Some(Position { is_end_told: true, ..position });
                    return Ok(Some(ReadEvent::EndReached(partition)));
                }
                Err(error) if error.kind == LogErrorKind::Corrupt => {
                    held.position = None;
                    return Ok(Some(ReadEvent::Failed { partition, offset: position.next, error }));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl LogReader for MemoryReader {
    async fn poll(&mut self, max_wait: Duration) -> Result<ReadEvent> {
        let deadline = Instant::now() + max_wait;
        let changed = self.log.changed.clone();
        loop {
            let mut changed = std::pin::pin!(changed.notified());
            // From now on, so that nothing is missed between a look and the wait.
            changed.as_mut().enable();
            if let Some(event) = self.next_event()? {
                return Ok(event);
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Ok(ReadEvent::Idle);
            }
        }
    }

    async fn start(&mut self, partition: i32, offset: i64) -> Result<()> {
        let assignment = self.owned().get(&partition).copied();
        let held = self.held.get_mut(&partition).filter(|held| Some(held.assignment) == assignment);
        let Some(held) = held else {
            let message = format!("{}/{partition} is not assigned", self.topic);
            return Err(LogError::new(LogErrorKind::NotAssigned, message));
        };
        self.log.content().partition(&self.topic, partition)?.check(&self.topic, partition, offset)?;
        held.position = Some(Position { next: offset, is_end_told: false });
        Ok(())
    }

    fn pause(&mut self, partition: i32) {
        if let Some(held) = self.held.get_mut(&partition) {
            held.is_paused = true;
        }
    }

    fn resume(&mut self, partition: i32) {
        if let Some(held) = self.held.get_mut(&partition) {
            held.is_paused = false;
        }
    }

    async fn commit(&mut self, offsets: &BTreeMap<i32, i64>) -> Result<()> {
        match &self.owned {
            Owned::Direct(_) => {
                Err(LogError::new(LogErrorKind::Misconfigured, "a reader without a group cannot commit offsets"))
            }
            Owned::Member { group, .. } | Owned::Given { group, .. } => {
                self.log.commit_now(group, &self.topic, offsets);
                Ok(())
            }
        }
    }

    async fn close(self: Box<Self>) {}
}

impl Drop for MemoryReader {
    fn drop(&mut self) {
        if let Owned::Member { group, member } = &self.owned {
            self.log.content().groups.leave(group, &self.topic, *member);
            self.log.wake();
        }
    }
}
