//! A log in memory, with consumer groups as loose as Kafka's: members may each believe to own a partition, and anybody
//! may commit. Seen by each process through calls that go wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use common::log::{
    Bounds, Chunk, Log, LogError, LogErrorKind, LogReader, LogWriter, Membership, ReadEvent, Result as LogResult,
    TopicInfo, TopicSpec,
};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Sabotage;
use super::chance::{Chance, Fate, Life};

#[derive(Debug, Clone)]
pub(super) struct Record {
    pub offset: i64,
    pub append_ms: i64,
    pub value: String,
}

#[derive(Debug, Default)]
pub(super) struct PartitionLog {
    /// All that there ever were.
    pub records: Vec<Record>,
    pub earliest: i64,
    pub latest: i64,
}

impl PartitionLog {
    fn bounds(&self) -> Bounds {
        Bounds { earliest: self.earliest, latest: self.latest }
    }
}

#[derive(Default)]
struct State {
    partitions: BTreeMap<i32, PartitionLog>,
    committed: BTreeMap<i32, i64>,
    /// Who owns each partition, and since which rebalance.
    owners: BTreeMap<i32, (usize, u64)>,
    rebalances: u64,
}

/// What all processes share.
pub(super) struct MemoryLog {
    state: Mutex<State>,
    changed: Notify,
    chance: Arc<Chance>,
    /// Every member owns everything.
    all_own: bool,
    sabotage: Option<Sabotage>,
}

impl MemoryLog {
    pub fn new(chance: Arc<Chance>, partitions: i32, all_own: bool, sabotage: Option<Sabotage>) -> Self {
        let mut state = State::default();
        for partition in 0..partitions {
            state.partitions.insert(partition, PartitionLog::default());
            state.owners.insert(partition, (0, 0));
        }
        Self { state: Mutex::new(state), changed: Notify::new(), chance, all_own, sabotage }
    }

    /// Appends behind `hole` offsets that hold no record, as markers and aborted records do not.
    pub fn append(&self, partition: i32, hole: i64, append_ms: i64, value: String) {
        let mut state = self.state.lock().unwrap();
        let log = state.partitions.get_mut(&partition).unwrap();
        let offset = log.latest + hole;
        log.records.push(Record { offset, append_ms, value });
        log.latest = offset + 1;
        drop(state);
        self.changed.notify_waiters();
    }

    /// Ends the partition with offsets that hold no record.
    pub fn append_hole(&self, partition: i32, hole: i64) {
        self.state.lock().unwrap().partitions.get_mut(&partition).unwrap().latest += hole;
    }

    pub fn trim_to(&self, partition: i32, offset: i64) {
        self.state.lock().unwrap().partitions.get_mut(&partition).unwrap().earliest = offset;
    }

    pub fn partitions(&self) -> Vec<i32> {
        self.state.lock().unwrap().partitions.keys().copied().collect()
    }

    pub fn look<T>(&self, partition: i32, look: impl FnOnce(&PartitionLog) -> T) -> T {
        look(&self.state.lock().unwrap().partitions[&partition])
    }

    pub fn bounds(&self, partition: i32) -> Bounds {
        self.look(partition, PartitionLog::bounds)
    }

    pub fn committed(&self, partition: i32) -> Option<i64> {
        self.state.lock().unwrap().committed.get(&partition).copied()
    }

    pub fn commit(&self, partition: i32, offset: i64) {
        self.state.lock().unwrap().committed.insert(partition, offset);
    }

    /// Gives a partition to a member, be it the one that has it.
    pub fn rebalance(&self, partition: i32, member: usize) {
        let mut state = self.state.lock().unwrap();
        state.rebalances += 1;
        let since = state.rebalances;
        state.owners.insert(partition, (member, since));
        drop(state);
        self.changed.notify_waiters();
    }

    /// What a member owns, and since when.
    fn owned_by(&self, member: usize) -> BTreeMap<i32, u64> {
        let state = self.state.lock().unwrap();
        let owners = state.owners.iter();
        owners
            .filter(|(_, (owner, _))| self.all_own || *owner == member)
            .map(|(partition, (_, since))| (*partition, if self.all_own { 0 } else { *since }))
            .collect()
    }
}

/// The log as one process sees it.
#[derive(Clone)]
pub(super) struct LogOf {
    pub memory: Arc<MemoryLog>,
    pub life: Arc<Life>,
    pub member: usize,
}

impl LogOf {
    fn failure(&self, operation: &str, fate: Fate) -> LogError {
        self.memory.chance.tell(format_args!("{} log {operation}: {fate:?}", self.life.name));
        LogError::new(LogErrorKind::Transient, format!("{operation}: the simulation says so"))
    }

    async fn call<T>(&self, operation: &str, changes: bool, effect: impl FnOnce(&MemoryLog) -> T) -> LogResult<T> {
        self.life.goes_on().await;
        let fate = self.memory.chance.fate(changes);
        tokio::time::sleep(self.memory.chance.latency()).await;
        self.life.goes_on().await;
        match fate {
            Fate::Fine => Ok(effect(&self.memory)),
            Fate::Fails | Fate::Late(_) => Err(self.failure(operation, fate)),
            Fate::AnswerLost => {
                effect(&self.memory);
                Err(self.failure(operation, fate))
            }
            Fate::KilledBefore | Fate::KilledAfter | Fate::KilledLate(_) => {
                if fate == Fate::KilledAfter {
                    effect(&self.memory);
                }
                let failure = self.failure(operation, fate);
                self.life.end();
                self.life.goes_on().await;
                Err(failure)
            }
        }
    }
}

#[async_trait]
impl Log for LogOf {
    async fn identity(&self) -> LogResult<String> {
        self.call("identity", false, |_| "log".to_owned()).await
    }

    async fn ensure_topic(&self, _: &TopicSpec) -> LogResult<TopicInfo> {
        let count = |memory: &MemoryLog| u32::try_from(memory.partitions().len()).unwrap();
        self.call("ensure topic", false, count).await.map(|partitions| TopicInfo { partitions })
    }

    async fn verify_topic(&self, spec: &TopicSpec) -> LogResult<Option<TopicInfo>> {
        self.ensure_topic(spec).await.map(Some)
    }

    async fn bounds(&self, _: &str) -> LogResult<BTreeMap<i32, Bounds>> {
        let look = |memory: &MemoryLog| {
            let state = memory.state.lock().unwrap();
            state.partitions.iter().map(|(partition, log)| (*partition, log.bounds())).collect()
        };
        self.call("bounds", false, look).await
    }

    async fn settled_end(&self, _: &str, partition: i32) -> LogResult<i64> {
        self.call("settled end", false, |memory| memory.bounds(partition).latest).await
    }

    async fn offset_for_time(&self, _: &str, partition: i32, time_ms: i64) -> LogResult<Option<i64>> {
        let first = |log: &PartitionLog| {
            let mut left = log.records.iter().filter(|record| record.offset >= log.earliest);
            left.find(|record| record.append_ms >= time_ms).map(|record| record.offset)
        };
        self.call("offset for time", false, |memory| memory.look(partition, first)).await
    }

    async fn committed(&self, _: &str, _: &str) -> LogResult<BTreeMap<i32, i64>> {
        self.call("committed", false, |memory| memory.state.lock().unwrap().committed.clone()).await
    }

    async fn set_committed(&self, _: &str, _: &str, offsets: &BTreeMap<i32, i64>) -> LogResult<()> {
        let set = |memory: &MemoryLog| memory.state.lock().unwrap().committed.extend(offsets);
        self.call("set committed", true, set).await
    }

    async fn reader(&self, _: &str, membership: &Membership) -> LogResult<Box<dyn LogReader>> {
        let fixed = match membership {
            Membership::Group { .. } => None,
            Membership::Direct { partitions } => Some(partitions.iter().map(|partition| (*partition, 0)).collect()),
        };
        self.call("reader", false, |_| ()).await?;
        Ok(Box::new(Reader { log: self.clone(), fixed, is_announced: false, held: BTreeMap::new(), last: -1 }))
    }

    async fn writer(&self, id: &str) -> LogResult<Box<dyn LogWriter>> {
        Err(LogError::new(LogErrorKind::Other, format!("no distributor writes to the log, but {id}")))
    }

    async fn trim(&self, _: &str, _: i32, _: i64, _: i64) -> LogResult<()> {
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
struct Held {
    /// The rebalance that gave it.
    since: u64,
    /// Next offset and whether the end was told; `None` until started.
    position: Option<(i64, bool)>,
    is_paused: bool,
}

struct Reader {
    log: LogOf,
    /// Without a group.
    fixed: Option<BTreeMap<i32, u64>>,
    is_announced: bool,
    held: BTreeMap<i32, Held>,
    /// The partition read last, so that each gets its turn.
    last: i32,
}

impl Reader {
    fn owned(&self) -> BTreeMap<i32, u64> {
        self.fixed.clone().unwrap_or_else(|| self.log.memory.owned_by(self.log.member))
    }

    fn membership_event(&mut self) -> Option<ReadEvent> {
        let owned = self.owned();
        let gone: Vec<i32> =
            self.held.iter().filter(|(id, held)| owned.get(id) != Some(&held.since)).map(|(id, _)| *id).collect();
        if !gone.is_empty() {
            self.held.retain(|id, _| !gone.contains(id));
            return Some(ReadEvent::Revoked(gone));
        }
        let new: Vec<i32> = owned.keys().filter(|id| !self.held.contains_key(id)).copied().collect();
        if new.is_empty() && std::mem::replace(&mut self.is_announced, true) {
            return None;
        }
        self.is_announced = true;
        self.held.extend(new.iter().map(|id| (*id, Held { since: owned[id], position: None, is_paused: false })));
        Some(ReadEvent::Assigned(new))
    }

    fn next_event(&mut self) -> LogResult<Option<ReadEvent>> {
        if let Some(event) = self.membership_event() {
            return Ok(Some(event));
        }
        let last = self.last;
        let mut turn: Vec<i32> = self.held.keys().copied().collect();
        turn.sort_by_key(|id| (*id <= last, *id));
        let most = self.log.memory.chance.draw(|random| random.between(1, 9));
        for id in turn {
            let Some(held) = self.held.get_mut(&id) else { continue };
            let Some((next, end_told)) = held.position.filter(|_| !held.is_paused) else { continue };
            self.last = id;
            if self.log.memory.chance.is_unreadable() {
                let error = LogError::new(LogErrorKind::Corrupt, format!("{id} at {next}: the simulation says so"));
                self.log.memory.chance.tell(format_args!("{} log poll: {error}", self.log.life.name));
                held.position = None;
                return Ok(Some(ReadEvent::Failed { partition: id, offset: next, error }));
            }
            let chunk = self.log.memory.look(id, |log| chunk(log, id, next, usize::try_from(most).unwrap()))?;
            if let Some(mut chunk) = chunk {
                held.position = chunk.offsets.last().map(|last| (last + 1, false));
                if self.log.memory.sabotage == Some(Sabotage::RecordSkipped) && most == 9 {
                    chunk.offsets.pop();
                    chunk.times_ms.pop();
                    chunk.records.truncate(chunk.offsets.len());
                }
                return Ok(Some(ReadEvent::Chunk(chunk)));
            }
            if !end_told {
                held.position = Some((next, true));
                return Ok(Some(ReadEvent::EndReached(id)));
            }
        }
        Ok(None)
    }
}

/// What stands at `next` and after it; `None` at the end.
fn chunk(log: &PartitionLog, partition: i32, next: i64, most: usize) -> LogResult<Option<Chunk>> {
    if next < log.earliest || next > log.latest {
        let message = format!("{partition} has offsets {}..{}, not {next}", log.earliest, log.latest);
        return Err(LogError::new(LogErrorKind::OffsetOutOfRange, message));
    }
    let mut chunk = Chunk { partition, ..Chunk::default() };
    for record in log.records.iter().filter(|record| record.offset >= next).take(most) {
        let key = format!("k{}", record.offset);
        chunk.records.push(key.as_bytes(), Some(record.value.as_bytes()), |_| {})?;
        chunk.offsets.push(record.offset);
        chunk.times_ms.push(record.append_ms);
    }
    Ok((!chunk.offsets.is_empty()).then_some(chunk))
}

#[async_trait]
impl LogReader for Reader {
    async fn poll(&mut self, max_wait: Duration) -> LogResult<ReadEvent> {
        let deadline = Instant::now() + max_wait;
        self.log.call("poll", false, |_| ()).await?;
        loop {
            let memory = self.log.memory.clone();
            let mut changed = std::pin::pin!(memory.changed.notified());
            // From now on, so that nothing is missed between a look and the wait.
            changed.as_mut().enable();
            self.log.life.goes_on().await;
            if let Some(event) = self.next_event()? {
                return Ok(event);
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Ok(ReadEvent::Idle);
            }
        }
    }

    async fn start(&mut self, partition: i32, offset: i64) -> LogResult<()> {
        self.log.call("start", false, |_| ()).await?;
        let since = self.owned().get(&partition).copied();
        let Some(held) = self.held.get_mut(&partition).filter(|held| Some(held.since) == since) else {
            return Err(LogError::new(LogErrorKind::NotAssigned, format!("{partition} is not assigned")));
        };
        self.log.memory.look(partition, |log| chunk(log, partition, offset, 1))?;
        held.position = Some((offset, false));
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

    async fn commit(&mut self, offsets: &BTreeMap<i32, i64>) -> LogResult<()> {
        let commit = |memory: &MemoryLog| memory.state.lock().unwrap().committed.extend(offsets);
        self.log.call("commit", true, commit).await
    }

    async fn close(self: Box<Self>) {}
}
