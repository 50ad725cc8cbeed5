//! The embedded log: one file (redb) and one process, with the guarantees of the seam.
//!
//! # How it keeps them
//!
//! - A transaction of the log is one durable redb transaction. Events, DLQ records and ledger entries become visible
//!   together or not at all, also across a power failure.
//! - A lock file is held while the log is open: a second process is refused with [`LogErrorKind::Locked`]. Writers of
//!   one process are fenced by a counter in memory: writers of an earlier process and their uncommitted records no
//!   longer exist.
//! - The records of a commit are stored in compressed chunks with one log-append time, which never decreases in a
//!   partition. Chunks stay below 256 KiB of input, because redb stores values in power-of-two pages.
//! - Every row has a checksum that is verified on each read, and the chunks of a partition are contiguous. A changed or
//!   lost byte is an error that names its position, never other records. The records before it can still be read.
//! - [`Log::trim`] deletes whole chunks; freed pages are reused, the file does not shrink.

mod checksum;
mod chunk;
mod damage;
mod db;
mod file;
mod reader;
mod rows;
mod writer;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

#[cfg(feature = "fuzz")]
pub(crate) use self::chunk::fuzz::chunk;
use super::{Bounds, Log, LogError, LogErrorKind, LogReader, LogWriter, Membership, Result, TopicInfo, TopicSpec};
use crate::clock::Clock;
use damage::guarded;
use db::Db;

/// A log in one local file. Clones share it.
#[derive(Clone)]
pub struct EmbeddedLog {
    db: Arc<Db>,
}

impl EmbeddedLog {
    /// Whether `directory` contains a log.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn exists(directory: &Path) -> Result<bool> {
        match directory.join(file::FILE_NAME).try_exists() {
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => Ok(false),
            looked => looked.map_err(|error| {
                let place = directory.display();
                LogError::new(LogErrorKind::Other, format!("embedded log in {place}: cannot look for it: {error}"))
            }),
        }
    }

    /// Opens or creates the log in `directory` (file `log.redb`).
    ///
    /// # Errors
    /// [`LogErrorKind::Locked`] if another process holds it; [`LogErrorKind::Other`] for a damaged or unreadable file.
    pub async fn open(directory: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        let directory = directory.to_owned();
        let opened = off_the_async_threads(move || guarded(&directory, || Db::open(&directory, clock)));
        Ok(Self { db: Arc::new(opened.await?) })
    }
}

/// Runs `work` on the file. Damage becomes an error.
async fn blocking<T: Send + 'static>(db: &Arc<Db>, work: impl FnOnce(&Db) -> Result<T> + Send + 'static) -> Result<T> {
    let db = db.clone();
    off_the_async_threads(move || guarded(db.directory(), || work(&db))).await
}

async fn off_the_async_threads<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| LogError::new(LogErrorKind::Other, format!("embedded log task failed: {error}")))?
}

#[async_trait]
impl Log for EmbeddedLog {
    async fn identity(&self) -> Result<String> {
        Ok(self.db.id().to_owned())
    }

    async fn ensure_topic(&self, spec: &TopicSpec) -> Result<TopicInfo> {
        let spec = spec.clone();
        blocking(&self.db, move |db| db.ensure_topic(&spec)).await
    }

    async fn verify_topic(&self, spec: &TopicSpec) -> Result<Option<TopicInfo>> {
        let spec = spec.clone();
        blocking(&self.db, move |db| Ok(db.verify_topic(&spec)?.map(|partitions| TopicInfo { partitions }))).await
    }

    async fn bounds(&self, topic: &str) -> Result<BTreeMap<i32, Bounds>> {
        self.db.bounds(topic)
    }

    /// A transaction is committed in one step, so none is ever open on a partition.
    async fn settled_end(&self, topic: &str, partition: i32) -> Result<i64> {
        Ok(self.db.bounds(topic)?.get(&partition).map_or(0, |bounds| bounds.latest))
    }

    async fn offset_for_time(&self, topic: &str, partition: i32, time_ms: i64) -> Result<Option<i64>> {
        let topic = topic.to_owned();
        blocking(&self.db, move |db| db.offset_for_time(&topic, partition, time_ms)).await
    }

    async fn committed(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>> {
        let (group, topic) = (group.to_owned(), topic.to_owned());
        blocking(&self.db, move |db| db.committed(&group, &topic)).await
    }

    /// No other process can have the log open; within this one the caller must ensure that nobody else commits.
    async fn set_committed(&self, group: &str, topic: &str, offsets: &BTreeMap<i32, i64>) -> Result<()> {
        let (group, topic, offsets) = (group.to_owned(), topic.to_owned(), offsets.clone());
        blocking(&self.db, move |db| db.commit_offsets(&group, &topic, &offsets)).await
    }

    async fn reader(&self, topic: &str, membership: &Membership) -> Result<Box<dyn LogReader>> {
        Ok(Box::new(reader::EmbeddedReader::new(self.db.clone(), topic, membership)?))
    }

    async fn writer(&self, id: &str) -> Result<Box<dyn LogWriter>> {
        Ok(Box::new(writer::EmbeddedWriter::own(self.db.clone(), id).await?))
    }

    async fn trim(&self, topic: &str, partition: i32, below_offset: i64, before_ms: i64) -> Result<()> {
        let topic = topic.to_owned();
        blocking(&self.db, move |db| db.trim(&topic, partition, below_offset, before_ms)).await
    }
}

#[cfg(test)]
mod damaged_files;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::log::conformance;

    fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
    }

    #[test]
    fn it_conforms() -> anyhow_free::TestResult {
        let directory = tempfile::tempdir()?;
        runtime()?.block_on(async {
            let log = EmbeddedLog::open(directory.path(), Arc::new(SystemClock)).await?;
            conformance::run_all(Arc::new(log), "conf").await;
            Ok(())
        })
    }

    #[test]
    fn topics_may_be_asked_for_by_several_tasks_at_once() -> anyhow_free::TestResult {
        let directory = tempfile::tempdir()?;
        runtime()?.block_on(async {
            let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(directory.path(), Arc::new(SystemClock)).await?);
            conformance::a_topic_that_was_ensured_exists(&log, "race", 200).await;
            Ok(())
        })
    }

    /// The older writer commits without pause while the newer one takes over. After that, a read to the end shows all
    /// commits of the older one, and no further one follows.
    #[test]
    fn a_commit_in_progress_is_visible_to_the_writer_that_takes_over() -> anyhow_free::TestResult {
        let directory = tempfile::tempdir()?;
        runtime()?.block_on(async {
            let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(directory.path(), Arc::new(SystemClock)).await?);
            conformance::topic(&*log, "race", 1).await;
            for _ in 0..40 {
                let mut old = log.writer("w").await?;
                let committing = tokio::spawn(async move {
                    while old.begin().await.is_ok()
                        && old.append("race", 0, &conformance::batch(&["x"])).await.is_ok()
                        && old.commit().await.is_ok()
                    {}
                });
                tokio::task::yield_now().await;
                let _new = log.writer("w").await?;
                let end = log.bounds("race").await?[&0].latest;
                committing.await?;
                assert_eq!(log.bounds("race").await?[&0].latest, end, "a commit came after the takeover was read");
            }
            Ok(())
        })
    }

    #[test]
    fn a_second_holder_is_refused() -> anyhow_free::TestResult {
        let directory = tempfile::tempdir()?;
        runtime()?.block_on(async {
            let first = EmbeddedLog::open(directory.path(), Arc::new(SystemClock)).await?;
            let second = EmbeddedLog::open(directory.path(), Arc::new(SystemClock)).await;
            assert_eq!(second.err().map(|error| error.kind), Some(LogErrorKind::Locked));
            drop(first);
            Ok(())
        })
    }

    #[test]
    fn committed_records_and_offsets_survive_reopening_and_uncommitted_ones_do_not() -> anyhow_free::TestResult {
        let directory = tempfile::tempdir()?;
        runtime()?.block_on(async {
            let identity = {
                let log = EmbeddedLog::open(directory.path(), Arc::new(SystemClock)).await?;
                conformance::fill(&log, "t", 3, &["a", "b"]).await;
                let mut reader = log.reader("t", &conformance::group("g")).await?;
                reader.commit(&BTreeMap::from([(0, 1)])).await?;
                let mut writer = log.writer("w").await?;
                writer.begin().await?;
                writer.append("t", 0, &conformance::batch(&["lost"])).await?;
                log.identity().await?
            };
            let log = EmbeddedLog::open(directory.path(), Arc::new(SystemClock)).await?;
            assert_eq!(log.identity().await?, identity);
            assert_eq!(conformance::values(&log, "t", 0).await, ["a", "b"]);
            assert_eq!(log.committed("g", "t").await?, BTreeMap::from([(0, 1)]));
            Ok(())
        })
    }

    #[test]
    fn trim_keeps_recent_and_needed_records() -> anyhow_free::TestResult {
        let directory = tempfile::tempdir()?;
        runtime()?.block_on(async {
            let clock = Arc::new(crate::clock::ManualClock::at(1_000));
            let log = EmbeddedLog::open(directory.path(), clock.clone()).await?;
            conformance::fill(&log, "t", 1, &["a"]).await;
            clock.set(2_000);
            conformance::fill(&log, "t", 1, &["b"]).await;
            clock.set(3_000);
            conformance::fill(&log, "t", 1, &["c"]).await;
            log.trim("t", 0, 1, 5_000).await?;
            assert_eq!(conformance::values(&log, "t", 0).await, ["b", "c"], "b is still needed");
            log.trim("t", 0, 3, 2_500).await?;
            assert_eq!(conformance::values(&log, "t", 0).await, ["c"], "c is young");
            assert_eq!(log.bounds("t").await?[&0], Bounds { earliest: 2, latest: 3 });
            Ok(())
        })
    }

    #[test]
    fn a_compacted_topic_drops_old_values_on_reopening() -> anyhow_free::TestResult {
        let directory = tempfile::tempdir()?;
        let spec = TopicSpec { name: "ledger".into(), partitions: 1, retention: crate::log::Retention::Compact };
        runtime()?.block_on(async {
            {
                let log = EmbeddedLog::open(directory.path(), Arc::new(SystemClock)).await?;
                log.ensure_topic(&spec).await?;
                let mut writer = log.writer("w").await?;
                for round in 0..40 {
                    writer.begin().await?;
                    let mut batch = crate::log::RecordBatch::new();
                    for key in 0..100 {
                        let value = format!("{round}");
                        batch.push(format!("k{key}").as_bytes(), (key != 7).then_some(value.as_bytes()), |_| {})?;
                    }
                    writer.append("ledger", 0, &batch).await?;
                    writer.commit().await?;
                }
            }
            let log = EmbeddedLog::open(directory.path(), Arc::new(SystemClock)).await?;
            let values = conformance::values(&log, "ledger", 0).await;
            assert_eq!(values, vec!["39"; 99]);
            Ok(())
        })
    }

    /// `?` in tests without a dependency for it.
    mod anyhow_free {
        pub type TestResult = Result<(), Box<dyn std::error::Error>>;
    }
}
