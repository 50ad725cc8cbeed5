//! The log in memory that passes the conformance suite of its seam, with consumer groups as loose as Kafka's: members may
//! each believe to own a partition, and anybody may commit. Seen by each process through calls that go wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use common::log::{
    Bounds, Chunk, Log, LogError, LogErrorKind, LogReader, LogWriter, Membership, MemoryReader, ReadEvent,
    Result as LogResult, Retention, TopicInfo, TopicSpec,
};

use super::Sabotage;
use super::chance::{Chance, Fate, Life};
use super::roles::{GROUP, TOPIC};

#[derive(Debug, Clone)]
pub(super) struct Record {
    pub offset: i64,
    pub append_ms: i64,
    pub value: String,
}

/// All records that there ever were, and from where on they are left.
#[derive(Debug)]
pub(super) struct History {
    pub records: Vec<Record>,
    pub earliest: i64,
}

/// Who owns each partition, and since which rebalance.
type Owners = BTreeMap<i32, (usize, u64)>;

/// What all processes share.
pub(super) struct MemoryLog {
    inner: common::log::MemoryLog,
    owners: Mutex<Owners>,
    chance: Arc<Chance>,
    /// Every member owns everything.
    all_own: bool,
    sabotage: Option<Sabotage>,
}

impl MemoryLog {
    pub fn new(chance: Arc<Chance>, partitions: u32, all_own: bool, sabotage: Option<Sabotage>) -> Self {
        let inner = common::log::MemoryLog::new(chance.clone());
        inner.create(TOPIC, partitions, Retention::Delete);
        let owners = inner.bounds_now(TOPIC).into_keys().map(|partition| (partition, (0, 0))).collect();
        Self { inner, owners: Mutex::new(owners), chance, all_own, sabotage }
    }

    /// Appends behind `hole` offsets that hold no record, as markers and aborted records do not.
    pub fn append(&self, partition: i32, hole: i64, append_ms: i64, value: &str) {
        self.inner.insert(TOPIC, partition, hole, append_ms, value.as_bytes()).unwrap();
    }

    /// Ends the partition with offsets that hold no record.
    pub fn append_hole(&self, partition: i32, hole: i64) {
        self.inner.insert_hole(TOPIC, partition, hole).unwrap();
    }

    pub fn trim_to(&self, partition: i32, offset: i64) {
        self.inner.trim_to(TOPIC, partition, offset).unwrap();
    }

    pub fn partitions(&self) -> Vec<i32> {
        self.inner.bounds_now(TOPIC).into_keys().collect()
    }

    pub fn history(&self, partition: i32) -> History {
        let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap().to_vec()).unwrap();
        let records = self.inner.history(TOPIC, partition).unwrap();
        let records = records.iter().map(|stored| Record {
            offset: stored.offset,
            append_ms: stored.append_ms,
            value: text(stored.record().value),
        });
        History { records: records.collect(), earliest: self.bounds(partition).earliest }
    }

    pub fn bounds(&self, partition: i32) -> Bounds {
        self.inner.bounds_now(TOPIC)[&partition]
    }

    pub fn committed(&self, partition: i32) -> Option<i64> {
        self.inner.committed_now(GROUP, TOPIC).get(&partition).copied()
    }

    /// As an operator does, be there members or not.
    pub fn commit(&self, partition: i32, offset: i64) {
        self.inner.commit_now(GROUP, TOPIC, &BTreeMap::from([(partition, offset)]));
    }

    /// Gives a partition to a member, be it the one that has it.
    pub fn rebalance(&self, partition: i32, member: usize) {
        let mut owners = self.owners.lock().unwrap();
        let since = owners.values().map(|(_, since)| since + 1).max().unwrap();
        owners.insert(partition, (member, since));
        drop(owners);
        self.inner.wake();
    }

    /// What a member owns, and since when.
    fn owned_by(&self, member: usize) -> BTreeMap<i32, u64> {
        let owners = self.owners.lock().unwrap();
        owners
            .iter()
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

    /// A call that takes effect, or does not.
    async fn call<T>(
        &self,
        operation: &str,
        changes: bool,
        effect: impl AsyncFnOnce() -> LogResult<T>,
    ) -> LogResult<T> {
        self.life.goes_on().await;
        let fate = self.memory.chance.fate(changes);
        tokio::time::sleep(self.memory.chance.latency()).await;
        self.life.goes_on().await;
        match fate {
            Fate::Fine => effect().await,
            Fate::Fails | Fate::Late(_) => Err(self.failure(operation, fate)),
            Fate::AnswerLost => {
                effect().await?;
                Err(self.failure(operation, fate))
            }
            Fate::KilledBefore | Fate::KilledAfter | Fate::KilledLate(_) => {
                if fate == Fate::KilledAfter {
                    effect().await?;
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
        self.call("identity", false, async || self.memory.inner.identity().await).await
    }

    async fn ensure_topic(&self, spec: &TopicSpec) -> LogResult<TopicInfo> {
        self.call("ensure topic", false, async || self.memory.inner.ensure_topic(spec).await).await
    }

    async fn verify_topic(&self, spec: &TopicSpec) -> LogResult<Option<TopicInfo>> {
        self.call("verify topic", false, async || self.memory.inner.verify_topic(spec).await).await
    }

    async fn bounds(&self, topic: &str) -> LogResult<BTreeMap<i32, Bounds>> {
        self.call("bounds", false, async || self.memory.inner.bounds(topic).await).await
    }

    async fn settled_end(&self, topic: &str, partition: i32) -> LogResult<i64> {
        self.call("settled end", false, async || self.memory.inner.settled_end(topic, partition).await).await
    }

    async fn offset_for_time(&self, topic: &str, partition: i32, time_ms: i64) -> LogResult<Option<i64>> {
        let find = async || self.memory.inner.offset_for_time(topic, partition, time_ms).await;
        self.call("offset for time", false, find).await
    }

    async fn committed(&self, group: &str, topic: &str) -> LogResult<BTreeMap<i32, i64>> {
        self.call("committed", false, async || self.memory.inner.committed(group, topic).await).await
    }

    async fn set_committed(&self, group: &str, topic: &str, offsets: &BTreeMap<i32, i64>) -> LogResult<()> {
        self.call("set committed", true, async || self.memory.inner.set_committed(group, topic, offsets).await).await
    }

    async fn reader(&self, topic: &str, membership: &Membership) -> LogResult<Box<dyn LogReader>> {
        self.call("reader", false, async || Ok(())).await?;
        let inner = match membership {
            Membership::Group { group, .. } => {
                let (memory, member) = (self.memory.clone(), self.member);
                self.memory.inner.reader_of(topic, group, move || memory.owned_by(member))
            }
            Membership::Direct { partitions } => self.memory.inner.reader_direct(topic, partitions),
        };
        Ok(Box::new(Reader { log: self.clone(), inner }))
    }

    async fn writer(&self, id: &str) -> LogResult<Box<dyn LogWriter>> {
        Err(LogError::new(LogErrorKind::Other, format!("no distributor writes to the log, but {id}")))
    }

    async fn trim(&self, _: &str, _: i32, _: i64, _: i64) -> LogResult<()> {
        Ok(())
    }
}

struct Reader {
    log: LogOf,
    inner: MemoryReader,
}

impl Reader {
    /// Now and then records cannot be read, this time.
    fn disturbed(&mut self, mut chunk: Chunk) -> ReadEvent {
        let MemoryLog { chance, sabotage, .. } = &*self.log.memory;
        let Chunk { partition, .. } = chunk;
        if chance.is_unreadable() {
            let offset = chunk.offsets[0];
            let error =
                LogError::new(LogErrorKind::Corrupt, format!("{partition} at {offset}: the simulation says so"));
            chance.tell(format_args!("{} log poll: {error}", self.log.life.name));
            self.inner.stop(partition);
            return ReadEvent::Failed { partition, offset, error };
        }
        if *sabotage == Some(Sabotage::RecordSkipped) && chunk.offsets.len() == 9 {
            chunk.offsets.pop();
            chunk.times_ms.pop();
            chunk.records.truncate(chunk.offsets.len());
        }
        ReadEvent::Chunk(chunk)
    }
}

#[async_trait]
impl LogReader for Reader {
    async fn poll(&mut self, max_wait: Duration) -> LogResult<ReadEvent> {
        self.log.call("poll", false, async || Ok(())).await?;
        let most = self.log.memory.chance.draw(|random| random.between(1, 9));
        self.inner.set_most(usize::try_from(most).unwrap());
        let event = self.inner.poll(max_wait).await?;
        self.log.life.goes_on().await;
        Ok(match event {
            ReadEvent::Chunk(chunk) => self.disturbed(chunk),
            event => event,
        })
    }

    async fn start(&mut self, partition: i32, offset: i64) -> LogResult<()> {
        self.log.call("start", false, async || Ok(())).await?;
        self.inner.start(partition, offset).await
    }

    fn pause(&mut self, partition: i32) {
        self.inner.pause(partition);
    }

    fn resume(&mut self, partition: i32) {
        self.inner.resume(partition);
    }

    async fn commit(&mut self, offsets: &BTreeMap<i32, i64>) -> LogResult<()> {
        let Self { log, inner } = self;
        log.call("commit", true, async || inner.commit(offsets).await).await
    }

    async fn close(self: Box<Self>) {}
}
