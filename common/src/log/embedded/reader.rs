//! Reading the embedded log. There is one process, so a group's only member is assigned every partition at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

use super::blocking;
use super::db::Db;
use crate::log::{LogError, LogErrorKind, LogReader, Membership, ReadEvent, Result};

#[derive(Debug, Clone, Copy)]
struct Position {
    next: i64,
    end_reported: bool,
}

pub(super) struct EmbeddedReader {
    db: Arc<Db>,
    topic: String,
    group: Option<String>,
    announced: bool,
    /// `None` until started, and again once it cannot be read.
    positions: BTreeMap<i32, Option<Position>>,
    paused: BTreeSet<i32>,
    /// The partition read last, so that all are read in turn.
    last: i32,
    commits: watch::Receiver<u64>,
}

impl EmbeddedReader {
    pub(super) fn new(db: Arc<Db>, topic: &str, membership: &Membership) -> Result<Self> {
        let existing = db.partitions(topic)?;
        let (group, partitions) = match membership {
            Membership::Group { group, .. } => (Some(group.clone()), existing),
            Membership::Direct { partitions } => (None, partitions.clone()),
        };
        Ok(Self {
            commits: db.subscribe(),
            db,
            topic: topic.to_owned(),
            group,
            announced: false,
            positions: partitions.into_iter().map(|partition| (partition, None)).collect(),
            paused: BTreeSet::new(),
            last: -1,
        })
    }

    /// Partitions that are started and not paused, beginning after the one read last.
    fn turn(&self) -> Vec<(i32, Position)> {
        let going = || self.positions.iter().filter(|(partition, _)| !self.paused.contains(partition));
        let started = || going().filter_map(|(partition, position)| Some((*partition, (*position)?)));
        let after = started().filter(|(partition, _)| *partition > self.last);
        after.chain(started().filter(|(partition, _)| *partition <= self.last)).collect()
    }

    async fn next_event(&mut self) -> Result<Option<ReadEvent>> {
        if !self.announced {
            self.announced = true;
            self.paused.clear();
            return Ok(Some(ReadEvent::Assigned(self.positions.keys().copied().collect())));
        }
        for (partition, position) in self.turn() {
            let topic = self.topic.clone();
            let read = blocking(&self.db, move |db| db.read(&topic, partition, position.next)).await;
            self.last = partition;
            let chunk = match read {
                Ok(chunk) => chunk,
                Err(error) => {
                    self.positions.insert(partition, None);
                    return Ok(Some(ReadEvent::Failed { partition, offset: position.next, error }));
                }
            };
            if let Some(chunk) = chunk {
                let next = chunk.offsets.last().map_or(position.next, |last| last + 1);
                self.positions.insert(partition, Some(Position { next, end_reported: false }));
                return Ok(Some(ReadEvent::Chunk(chunk)));
            }
            if !position.end_reported {
                self.positions.insert(partition, Some(Position { end_reported: true, ..position }));
                return Ok(Some(ReadEvent::EndReached(partition)));
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl LogReader for EmbeddedReader {
    async fn poll(&mut self, max_wait: Duration) -> Result<ReadEvent> {
        let deadline = Instant::now() + max_wait;
        loop {
            // Marks the counter as seen before reading, so that a commit during the read still wakes the reader.
            self.commits.borrow_and_update();
            if let Some(event) = self.next_event().await? {
                return Ok(event);
            }
            match tokio::time::timeout_at(deadline, self.commits.changed()).await {
                Ok(_) => {}
                Err(_) => return Ok(ReadEvent::Idle),
            }
        }
    }

    async fn start(&mut self, partition: i32, offset: i64) -> Result<()> {
        let bounds = self.db.bounds(&self.topic)?;
        let (Some(slot), Some(bounds)) = (self.positions.get_mut(&partition), bounds.get(&partition)) else {
            return Err(LogError::new(
                LogErrorKind::NotAssigned,
                format!("{}/{partition} is not assigned", self.topic),
            ));
        };
        if offset < bounds.earliest || offset > bounds.latest {
            return Err(LogError::new(
                LogErrorKind::OffsetOutOfRange,
                format!("{}/{partition} has offsets {}..{}, not {offset}", self.topic, bounds.earliest, bounds.latest),
            ));
        }
        *slot = Some(Position { next: offset, end_reported: false });
        Ok(())
    }

    fn pause(&mut self, partition: i32) {
        self.paused.insert(partition);
    }

    fn resume(&mut self, partition: i32) {
        self.paused.remove(&partition);
    }

    async fn commit(&mut self, offsets: &BTreeMap<i32, i64>) -> Result<()> {
        let Some(group) = self.group.clone() else {
            return Err(LogError::new(LogErrorKind::Misconfigured, "a reader without a group cannot commit offsets"));
        };
        let (topic, offsets) = (self.topic.clone(), offsets.clone());
        blocking(&self.db, move |db| db.commit_offsets(&group, &topic, &offsets)).await
    }

    async fn close(self: Box<Self>) {}
}
