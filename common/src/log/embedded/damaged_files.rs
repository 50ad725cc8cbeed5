//! Files with a changed byte: reads return the data that was written, or an error.

use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::clock::ManualClock;
use crate::log::{ReadEvent, RecordBatch, Retention};

type Outcome<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const RECORDS: usize = 120;
const CHANGES: usize = 160;

fn open(directory: &Path) -> impl Future<Output = Result<EmbeddedLog>> {
    EmbeddedLog::open(directory, Arc::new(ManualClock::at(1_000)))
}

fn spec(name: &str, partitions: u32, retention: Retention) -> TopicSpec {
    TopicSpec { name: name.to_owned(), partitions, retention }
}

fn specs() -> [TopicSpec; 2] {
    [spec("events", 2, Retention::Delete), spec("ledger", 1, Retention::Compact)]
}

/// Incompressible values.
fn values(topic: &str, partition: i32) -> Vec<Vec<u8>> {
    let mut state = u64::from(u8::try_from(topic.len()).unwrap()) + partition.unsigned_abs() as u64;
    let mut byte = || {
        state = crate::backoff::splitmix64(state);
        state.to_le_bytes()[0]
    };
    (0..RECORDS).map(|_| (0..100).map(|_| byte()).collect()).collect()
}

async fn append(log: &EmbeddedLog, topic: &str, partition: i32, values: &[Vec<u8>]) -> Result<()> {
    let mut batch = RecordBatch::new();
    for (number, value) in values.iter().enumerate() {
        batch.push(format!("k{number}").as_bytes(), Some(value), |_| {})?;
    }
    let mut writer = log.writer("w").await?;
    writer.begin().await?;
    writer.append(topic, partition, &batch).await?;
    writer.commit().await
}

async fn make(directory: &Path) -> Result<()> {
    let log = open(directory).await?;
    for spec in specs() {
        log.ensure_topic(&spec).await?;
        for partition in 0..i32::try_from(spec.partitions).unwrap() {
            for part in values(&spec.name, partition).chunks(30) {
                append(&log, &spec.name, partition, part).await?;
            }
        }
    }
    log.set_committed("g", "events", &BTreeMap::from([(0, 17), (1, 4)])).await
}

/// Reads all values up to the end, or to the first error.
async fn read(log: &EmbeddedLog, topic: &str, partition: i32, read: &mut Vec<Vec<u8>>) -> Result<()> {
    let mut reader = log.reader(topic, &Membership::Direct { partitions: vec![partition] }).await?;
    loop {
        match reader.poll(Duration::ZERO).await? {
            ReadEvent::Assigned(_) => reader.start(partition, 0).await?,
            ReadEvent::Chunk(chunk) => read.extend(chunk.records.iter().filter_map(|r| r.value.map(<[u8]>::to_vec))),
            ReadEvent::EndReached(_) => return Ok(()),
            ReadEvent::Failed { error, .. } => return Err(error),
            ReadEvent::Revoked(_) | ReadEvent::Idle => {}
        }
    }
}

/// Uses every operation of the log. Each must return correct data or report damage.
async fn examine(directory: &Path, identity: &str) -> Result<()> {
    let log = open(directory).await?;
    assert_eq!(log.identity().await?, identity);
    let mut first_error = None;
    let mut note = |outcome: Result<()>| first_error = first_error.take().or(outcome.err());
    for spec in specs() {
        for partition in 0..i32::try_from(spec.partitions).unwrap() {
            let (expected, mut found) = (values(&spec.name, partition), Vec::new());
            let outcome = read(&log, &spec.name, partition, &mut found).await;
            assert!(expected.starts_with(&found), "{}/{partition}: other records than were written", spec.name);
            assert!(outcome.is_err() || found == expected, "{}/{partition}: an end before the end", spec.name);
            note(outcome);
        }
    }
    match log.committed("g", "events").await {
        Ok(committed) => assert_eq!(committed, BTreeMap::from([(0, 17), (1, 4)])),
        Err(error) => note(Err(error)),
    }
    match log.offset_for_time("events", 0, 500).await {
        Ok(offset) => assert_eq!(offset, Some(0)),
        Err(error) => note(Err(error)),
    }
    for spec in specs() {
        match log.ensure_topic(&spec).await {
            Ok(info) => assert_eq!(info.partitions, spec.partitions),
            Err(error) => note(Err(error)),
        }
    }
    note(append(&log, "events", 1, &[b"one more".to_vec()]).await);
    note(log.set_committed("g", "events", &BTreeMap::from([(0, 18)])).await);
    note(log.trim("events", 0, 60, 5_000).await);
    first_error.map_or(Ok(()), Err)
}

struct Whole {
    runtime: tokio::runtime::Runtime,
    directory: tempfile::TempDir,
    bytes: Vec<u8>,
    identity: String,
}

impl Whole {
    fn make() -> Outcome<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let directory = tempfile::tempdir()?;
        runtime.block_on(make(directory.path()))?;
        let identity = runtime.block_on(async { open(directory.path()).await?.identity().await })?;
        let bytes = fs::read(directory.path().join(file::FILE_NAME))?;
        Ok(Self { runtime, directory, bytes, identity })
    }

    /// The outcome of using the log after a change of these bytes.
    fn with_change(&self, at: &[usize], change: u8) -> Outcome<Result<()>> {
        let mut bytes = self.bytes.clone();
        at.iter().for_each(|at| bytes[*at] ^= change);
        let path = self.directory.path();
        fs::write(path.join(file::FILE_NAME), bytes)?;
        let (directory, identity) = (path.to_owned(), self.identity.clone());
        let (done, outcome) = mpsc::channel();
        self.runtime.spawn(async move {
            // The receiver is gone after a time-out.
            let _ = done.send(examine(&directory, &identity).await);
        });
        // A panic of the task drops the sender.
        outcome
            .recv_timeout(Duration::from_secs(60))
            .map_err(|error| format!("bytes {at:?} ^ {change}: {error}").into())
    }
}

#[test]
fn reads_after_any_changed_byte_are_correct_or_an_error() -> Outcome<()> {
    let whole = Whole::make()?;
    whole.with_change(&[], 0)??;
    let mut noticed = 0;
    let mut state = 14;
    // Every page several times, and random bytes.
    for step in 0..CHANGES {
        state = crate::backoff::splitmix64(state);
        let [a, b, c, d, change, ..] = state.to_le_bytes();
        let random = u32::from_le_bytes([a, b, c, d]) as usize;
        let at = if step % 2 == 0 { step * whole.bytes.len() / CHANGES + random % 64 } else { random };
        noticed += usize::from(whole.with_change(&[at % whole.bytes.len()], change.max(1))?.is_err());
    }
    assert!(noticed > CHANGES / 10, "only {noticed} changes were noticed: the file is mostly empty");
    Ok(())
}

/// Changes a byte of the log's file wherever `value` is stored. Freed pages may hold it too.
fn damage(directory: &Path, value: &[u8]) -> Outcome<()> {
    let path = directory.join(file::FILE_NAME);
    let mut bytes = fs::read(&path)?;
    let places = bytes.windows(value.len()).enumerate().filter(|(_, window)| *window == value);
    let places: Vec<usize> = places.map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "the value is stored as it is");
    places.into_iter().for_each(|at| bytes[at] ^= 1);
    Ok(fs::write(&path, bytes)?)
}

#[test]
fn a_damaged_chunk_stops_only_its_partition() -> Outcome<()> {
    use crate::log::conformance::{unreadable_records_stop_only_their_partition, write_after, write_before};
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let directory = tempfile::tempdir()?;
    runtime.block_on(async {
        let value = &values("t", 0)[0];
        let place = {
            let log = open(directory.path()).await?;
            let unreadable = write_before(&log, "t").await;
            append(&log, "t", 0, std::slice::from_ref(value)).await?;
            write_after(&log, "t", unreadable).await
        };
        damage(directory.path(), value)?;
        let log = open(directory.path()).await?;
        unreadable_records_stop_only_their_partition(&log, "t", place).await;
        Ok(())
    })
}

/// Ledgers are compacted when the log is opened.
#[test]
fn a_log_with_a_damaged_chunk_in_a_compacted_topic_opens() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let directory = tempfile::tempdir()?;
    runtime.block_on(async {
        let value = &values("ledger", 0)[0];
        {
            let log = open(directory.path()).await?;
            log.ensure_topic(&spec("ledger", 2, Retention::Compact)).await?;
            append(&log, "ledger", 0, std::slice::from_ref(value)).await?;
            append(&log, "ledger", 1, std::slice::from_ref(value)).await?;
            append(&log, "ledger", 1, &[b"one more".to_vec()]).await?;
        }
        damage(directory.path(), value)?;
        let log = open(directory.path()).await?;
        let mut found = Vec::new();
        let error = read(&log, "ledger", 1, &mut found).await.err().ok_or("the damage was not noticed")?;
        assert_eq!(error.kind, LogErrorKind::Corrupt, "{error}");
        append(&log, "ledger", 0, &[b"one more".to_vec()]).await?;
        Ok(())
    })
}

/// Every byte of a stored chunk matters. The message names its position and the remedy.
#[test]
fn a_changed_byte_of_a_chunk_is_reported_with_its_position() -> Outcome<()> {
    let whole = Whole::make()?;
    let value = &values("events", 1)[65];
    // Freed pages may hold it too.
    let windows = whole.bytes.windows(value.len()).enumerate();
    let places: Vec<usize> = windows.filter(|(_, window)| window == value).map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "the value is stored as it is");
    for offset in [0, 50, 99] {
        let changed: Vec<usize> = places.iter().map(|at| at + offset).collect();
        let error = whole.with_change(&changed, 1)?.err().ok_or("it was not noticed")?;
        let message = error.to_string();
        for part in ["log.redb is damaged", "'events'", "partition 1", "offset 60", "checksum", "backup"] {
            assert!(message.contains(part), "{part:?} is missing in {message}");
        }
    }
    Ok(())
}

#[test]
fn a_file_that_was_cut_off_is_an_error() -> Outcome<()> {
    let whole = Whole::make()?;
    let path = whole.directory.path().join(file::FILE_NAME);
    for length in [1, 9, 100, 4_096, whole.bytes.len() / 2] {
        fs::write(&path, &whole.bytes[..length])?;
        let outcome = whole.runtime.block_on(examine(whole.directory.path(), &whole.identity));
        let message = outcome.err().ok_or_else(|| format!("{length} bytes were taken for a log"))?.message;
        let directory = whole.directory.path().display().to_string();
        for part in [directory.as_str(), "log.redb", "ackup"] {
            assert!(message.contains(part), "{length} bytes: {part:?} is missing in {message}");
        }
        assert!(!message.contains("unreachable"), "{message}");
    }
    Ok(())
}

#[test]
fn a_database_of_another_program_is_refused_and_unchanged() -> Outcome<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join(file::FILE_NAME);
    {
        let foreign = redb::Database::create(&path)?;
        let write = foreign.begin_write()?;
        write.open_table(redb::TableDefinition::<u64, u64>::new("theirs"))?.insert(1, 2)?;
        write.commit()?;
    }
    let before = fs::read(&path)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let message = runtime.block_on(open(directory.path())).err().ok_or("it was taken for a log")?.message;
    for part in [path.to_str().unwrap_or_default(), "another program wrote it", "--data-dir"] {
        assert!(message.contains(part), "{part:?} is missing in {message}");
    }
    assert_eq!(fs::read(&path)?, before);
    Ok(())
}
