//! The log seam: an ordered, partitioned, transactional log of records. The unit is a chunk of records, so the
//! abstraction costs nothing per record.
//!
//! # Guarantees of every implementation
//!
//! 1. **Committed records only.** A reader sees a record once its transaction is committed, in offset order within a
//!    partition. It never sees one of an aborted transaction. Offsets increase but may have gaps.
//! 2. **Fencing.** [`Log::writer`] with an id ends every older writer of that id: its open transaction is aborted and
//!    its later calls fail with [`LogErrorKind::Fenced`]. Everything that the older one committed is visible to a
//!    reader that reads to the end afterwards.
//! 3. **One transaction over several topics.** [`LogWriter::commit`] makes everything appended since
//!    [`LogWriter::begin`] visible, or nothing. After [`LogErrorKind::UnknownOutcome`] either may have happened: own
//!    the id again and read.
//! 4. **The caller sets positions.** An assigned partition yields nothing before [`LogReader::start`] sets an offset,
//!    and after a later `start` nothing from before it. Committed offsets never move a reader by themselves.
//! 5. **The log's clock.** Every record carries its log-append time. A record with another kind of time is refused.
//! 6. **No partition waits for another.** Between [`LogReader::pause`] and [`LogReader::resume`] no record of that
//!    partition is yielded, while the others continue. Read-ahead is bounded, and none of it is lost or repeated.
//! 7. **Unreadable records stop only their partition.** Records that fail the client's or the file's checks are never
//!    skipped: [`ReadEvent::Failed`] takes their place, once everything before them has been yielded. The partition
//!    yields nothing more until it is started again, while the others continue.
//!
//! One conformance suite ([`conformance`]) runs over every implementation.

pub mod conformance;
mod embedded;
mod error;
#[cfg(feature = "kafka")]
mod kafka;
mod kafka_settings;
#[cfg(any(test, feature = "conformance"))]
mod memory;
mod record;
mod rights;
#[cfg(any(test, not(feature = "kafka")))]
mod without_kafka;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

pub use embedded::EmbeddedLog;
#[cfg(feature = "fuzz")]
pub(crate) use embedded::chunk;
pub use error::{LogError, LogErrorKind};
#[cfg(feature = "kafka")]
pub use kafka::{KafkaLog, client_setting_fault, connect_kafka};
pub use kafka_settings::{KafkaSettings, RESERVED_CLIENT_SETTINGS};
#[cfg(any(test, feature = "conformance"))]
pub use memory::{MemoryLog, MemoryReader, StoredRecord};
pub use record::{Chunk, HeaderWriter, Headers, MAX_HEADER_NAME_BYTES, RecordBatch, RecordRef};
pub use rights::{DIRECT_GROUP, Operation, Resource, Right, require_rights, with_rights};
#[cfg(not(feature = "kafka"))]
pub use without_kafka::{client_setting_fault, connect_kafka};

/// The polling interval for an open transaction.
const SETTLE_POLL: Duration = Duration::from_millis(20);

pub type Result<T> = std::result::Result<T, LogError>;

/// The required settings of a topic. An existing topic with another partition count or settings is refused, not
/// changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    pub name: String,
    /// Used only to create the topic: an existing one keeps its count, which [`TopicInfo`] reports.
    pub partitions: u32,
    pub retention: Retention,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// `cleanup.policy=delete` with the log's default or the operator's retention.
    Delete,
    /// `cleanup.policy=delete` without any expiry.
    Forever,
    /// `cleanup.policy=compact`.
    Compact,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    pub partitions: u32,
}

/// The first offset still in the log, and the lowest possible offset of the next committed record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub earliest: i64,
    pub latest: i64,
}

/// How a reader gets its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Membership {
    /// As a member of a consumer group; partitions are assigned and revoked.
    Group { group: String, instance_id: Option<String> },
    /// These partitions, without a group; commits are refused.
    Direct { partitions: Vec<i32> },
}

/// The result of a poll.
#[derive(Debug)]
pub enum ReadEvent {
    /// These partitions are now assigned. Each waits for [`LogReader::start`].
    Assigned(Vec<i32>),
    /// These partitions are no longer assigned: drop their state in memory, and write nothing more for them.
    Revoked(Vec<i32>),
    Chunk(Chunk),
    /// Every record that could be read when this poll began has been yielded: all committed records up to the first
    /// transaction that is still open (see [`settled_bounds`]).
    EndReached(i32),
    /// The partition cannot be read from `offset` on, and yields nothing more until it is started again. The error
    /// names the partition, the offset and the remedy.
    Failed {
        partition: i32,
        offset: i64,
        error: LogError,
    },
    /// Nothing within the requested time.
    Idle,
}

#[async_trait]
pub trait Log: Send + Sync {
    /// Identity of the cluster or log file, which detects another one under the same address.
    async fn identity(&self) -> Result<String>;

    /// Creates the topic, or verifies that it has the required settings.
    async fn ensure_topic(&self, spec: &TopicSpec) -> Result<TopicInfo>;

    /// Verifies a topic as [`Log::ensure_topic`] does, and creates nothing; `None` if it does not exist.
    async fn verify_topic(&self, spec: &TopicSpec) -> Result<Option<TopicInfo>>;

    /// The part of `needed` that this client is certainly not permitted. A resource that does not exist yet lacks
    /// nothing, nor does a log without rights.
    ///
    /// # Errors
    /// The log did not answer.
    async fn missing_rights(&self, needed: &[Right]) -> Result<Vec<Right>> {
        let _ = needed;
        Ok(Vec::new())
    }

    async fn bounds(&self, topic: &str) -> Result<BTreeMap<i32, Bounds>>;

    /// The offset up to which every transaction has ended: readers currently get no further. Below [`Bounds::latest`]
    /// while a transaction is open on the partition.
    async fn settled_end(&self, topic: &str, partition: i32) -> Result<i64>;

    /// The lowest offset whose log-append time is at least `time_ms`; `None` if there is none.
    async fn offset_for_time(&self, topic: &str, partition: i32, time_ms: i64) -> Result<Option<i64>>;

    /// Committed offsets of a group; partitions without one are absent.
    async fn committed(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>>;

    /// Sets committed offsets from outside the group, as an operator does.
    ///
    /// # Errors
    /// [`LogErrorKind::NotAssigned`] if the log knows that the group has members, which would overwrite the offsets.
    async fn set_committed(&self, group: &str, topic: &str, offsets: &BTreeMap<i32, i64>) -> Result<()>;

    async fn reader(&self, topic: &str, membership: &Membership) -> Result<Box<dyn LogReader>>;

    /// Fences older writers of `id` (guarantee 2).
    async fn writer(&self, id: &str) -> Result<Box<dyn LogWriter>>;

    /// Deletes records of `topic` that are older than `before_ms` and below `below_offset` in their partition. A log
    /// with its own retention does nothing.
    async fn trim(&self, topic: &str, partition: i32, below_offset: i64, before_ms: i64) -> Result<()>;
}

#[async_trait]
pub trait LogReader: Send {
    /// Waits for at most `max_wait`. Dropping the future loses nothing.
    ///
    /// # Errors
    /// What concerns the whole reader, passes by itself ([`LogErrorKind::Transient`]), or needs a new reader. Records that
    /// cannot be read are an event ([`ReadEvent::Failed`]).
    async fn poll(&mut self, max_wait: Duration) -> Result<ReadEvent>;

    /// (Re)starts an assigned partition at `offset`: no earlier record is yielded.
    ///
    /// # Errors
    /// [`LogErrorKind::NotAssigned`] if the partition is not assigned (any more).
    async fn start(&mut self, partition: i32, offset: i64) -> Result<()>;

    /// Yields neither records of the partition nor its end until it is resumed. The partition stays assigned, and stays
    /// paused when it is started again. A new assignment begins without a pause. Has no effect on a partition that is
    /// not assigned. Only sets a flag: records that were read ahead are kept.
    fn pause(&mut self, partition: i32);

    /// Continues the partition at its position, or where it was started meanwhile.
    fn resume(&mut self, partition: i32);

    /// Commits group offsets (the next record to read, by partition). The log does not check ownership. That does no
    /// harm: committed offsets are a lag figure and an operator's request, never a distributor's position.
    async fn commit(&mut self, offsets: &BTreeMap<i32, i64>) -> Result<()>;

    /// Leaves the group and frees all resources.
    async fn close(self: Box<Self>);
}

#[async_trait]
pub trait LogWriter: Send {
    async fn begin(&mut self) -> Result<()>;
    /// Appends to the open transaction.
    async fn append(&mut self, topic: &str, partition: i32, batch: &RecordBatch) -> Result<()>;
    async fn commit(&mut self) -> Result<()>;
    /// Drops the open transaction.
    async fn abort(&mut self) -> Result<()>;
}

/// Reads all records of one partition that are committed now, from its beginning on.
///
/// An open transaction hides later commits, so this waits for its end.
///
/// # Errors
/// The log's errors, and [`LogErrorKind::Transient`] if no end is reached within `patience` of silence.
pub async fn read_to_end(
    log: &dyn Log,
    topic: &str,
    partition: i32,
    patience: Duration,
    mut visit: impl FnMut(&Chunk) -> Result<()> + Send,
) -> Result<()> {
    let bounds = log.bounds(topic).await?.get(&partition).copied().unwrap_or(Bounds { earliest: 0, latest: 0 });
    settle(log, topic, partition, bounds.latest, patience).await?;
    let earliest = bounds.earliest;
    let mut reader = log.reader(topic, &Membership::Direct { partitions: vec![partition] }).await?;
    let outcome = async {
        loop {
            match reader.poll(patience).await? {
                ReadEvent::Assigned(_) => reader.start(partition, earliest).await?,
                ReadEvent::Chunk(chunk) => visit(&chunk)?,
                ReadEvent::EndReached(_) => return Ok(()),
                ReadEvent::Failed { error, .. } => return Err(error),
                ReadEvent::Revoked(_) => {}
                ReadEvent::Idle => {
                    return Err(LogError::new(
                        LogErrorKind::Transient,
                        format!("no answer within {patience:?} while reading {topic}/{partition} to its end"),
                    ));
                }
            }
        }
    }
    .await;
    reader.close().await;
    outcome
}

/// The beginning and end of every partition, once no transaction below the ends is open. A read to the end from now on
/// returns everything that was committed at the time of the call.
///
/// # Errors
/// The log's errors, and [`LogErrorKind::Transient`] if a transaction stays open for `patience`.
pub async fn settled_bounds(log: &dyn Log, topic: &str, patience: Duration) -> Result<BTreeMap<i32, Bounds>> {
    let bounds = log.bounds(topic).await?;
    for (partition, Bounds { latest, .. }) in &bounds {
        settle(log, topic, *partition, *latest, patience).await?;
    }
    Ok(bounds)
}

/// Waits until every transaction below `end` has ended.
async fn settle(log: &dyn Log, topic: &str, partition: i32, end: i64, patience: Duration) -> Result<()> {
    let deadline = tokio::time::Instant::now() + patience;
    let mut is_logged = false;
    while log.settled_end(topic, partition).await? < end {
        if !std::mem::replace(&mut is_logged, true) {
            tracing::info!(topic, partition, "waiting for the end of a transaction that is open");
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(LogError::new(
                LogErrorKind::Transient,
                format!("a transaction on {topic}/{partition} has been open for more than {patience:?}"),
            ));
        }
        tokio::time::sleep(SETTLE_POLL).await;
    }
    Ok(())
}
