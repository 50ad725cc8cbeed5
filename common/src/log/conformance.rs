//! One suite for every implementation of the log seam. Each function states a guarantee of the seam and proves it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a test suite: a broken guarantee is a panic with its message"
)]
#![cfg(any(test, feature = "conformance"))]

mod paused;
mod unreadable;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{
    Log, LogErrorKind, LogReader, LogWriter, Membership, ReadEvent, RecordBatch, Retention, TopicSpec, read_to_end,
};

pub use paused::a_partition_that_was_revoked_while_paused_comes_back_without_the_pause;
pub use unreadable::{Place, unreadable_records_stop_only_their_partition, write_after, write_before};

const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the whole suite. `prefix` makes the topics, groups and writer names of this run unique.
pub async fn run_all(log: Arc<dyn Log>, prefix: &str) {
    let name = |suffix: &str| format!("{prefix}-{suffix}");
    records_come_back_whole_and_in_order(&*log, &name("order")).await;
    nothing_is_seen_before_the_commit_or_after_an_abort(&*log, &name("commit")).await;
    one_transaction_covers_several_topics(&*log, &name("several")).await;
    a_newer_writer_fences_the_older(&*log, &name("fence")).await;
    a_dropped_transaction_is_aborted_by_its_successor(&*log, &name("dropped")).await;
    positions_are_the_callers(&*log, &name("seek")).await;
    records_fetched_before_a_start_are_not_yielded_after_it(&*log, &name("ahead")).await;
    committed_offsets_are_kept_and_do_not_move_readers(&*log, &name("group")).await;
    times_are_log_append_times_and_can_be_looked_up(&*log, &name("time")).await;
    topics_are_verified(&*log, &name("topic")).await;
    a_topic_that_was_ensured_exists(&log, &name("ensure"), 3).await;
    paused::run_all(&*log, &name("pause")).await;
    a_waiting_reader_is_woken_by_a_commit(log, &name("wake")).await;
}

pub fn group(name: &str) -> Membership {
    Membership::Group { group: name.to_owned(), instance_id: None }
}

pub fn batch(values: &[&str]) -> RecordBatch {
    let mut batch = RecordBatch::new();
    for value in values {
        batch.push(value.as_bytes(), Some(value.as_bytes()), |headers| headers.put("source", b"suite")).unwrap();
    }
    batch
}

pub async fn topic(log: &dyn Log, name: &str, partitions: u32) {
    let spec = TopicSpec { name: name.to_owned(), partitions, retention: Retention::Delete };
    assert_eq!(log.ensure_topic(&spec).await.unwrap().partitions, partitions);
}

async fn write(writer: &mut Box<dyn LogWriter>, topic: &str, partition: i32, values: &[&str]) {
    writer.begin().await.unwrap();
    writer.append(topic, partition, &batch(values)).await.unwrap();
    writer.commit().await.unwrap();
}

/// Creates the topic if necessary and writes `values` to its partition 0.
pub async fn fill(log: &dyn Log, name: &str, partitions: u32, values: &[&str]) {
    topic(log, name, partitions).await;
    let mut writer = log.writer(&format!("{name}-filler")).await.unwrap();
    write(&mut writer, name, 0, values).await;
}

pub async fn values(log: &dyn Log, topic: &str, partition: i32) -> Vec<String> {
    let mut seen = Vec::new();
    read_to_end(log, topic, partition, PATIENCE, |chunk| {
        seen.extend(chunk.records.iter().map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
        Ok(())
    })
    .await
    .unwrap();
    seen
}

/// The next event that is not [`ReadEvent::Idle`].
async fn next(reader: &mut Box<dyn LogReader>) -> ReadEvent {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match reader.poll(Duration::from_millis(200)).await.unwrap() {
            ReadEvent::Idle => assert!(tokio::time::Instant::now() < deadline, "nothing came within {PATIENCE:?}"),
            event => return event,
        }
    }
}

async fn started(log: &dyn Log, topic: &str, membership: &Membership, offset: i64) -> Box<dyn LogReader> {
    let mut reader = log.reader(topic, membership).await.unwrap();
    let ReadEvent::Assigned(partitions) = next(&mut reader).await else { panic!("an assignment comes first") };
    assert_eq!(partitions, [0]);
    reader.start(0, offset).await.unwrap();
    reader
}

/// The values up to the end, with their offsets.
async fn drain(reader: &mut Box<dyn LogReader>) -> Vec<(i64, String)> {
    let mut seen = Vec::new();
    loop {
        match next(reader).await {
            ReadEvent::Chunk(chunk) => {
                assert_eq!(chunk.records.len(), chunk.offsets.len());
                assert_eq!(chunk.records.len(), chunk.times_ms.len());
                let values =
                    chunk.records.iter().map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap());
                seen.extend(chunk.offsets.iter().copied().zip(values));
            }
            ReadEvent::EndReached(_) => return seen,
            other => panic!("unexpected {other:?}"),
        }
    }
}

fn only_values(seen: &[(i64, String)]) -> Vec<&str> {
    seen.iter().map(|(_, value)| value.as_str()).collect()
}

async fn records_come_back_whole_and_in_order(log: &dyn Log, name: &str) {
    topic(log, name, 2).await;
    let mut writer = log.writer(&format!("{name}-w")).await.unwrap();
    let mut first = RecordBatch::new();
    first
        .push(b"key", Some(b"value"), |headers| {
            headers.put("a", b"1");
            headers.put("b", b"");
            headers.put("a", b"\xff\x00");
        })
        .unwrap();
    first.push(b"gone", None, |_| {}).unwrap();
    first.push(b"", Some(b""), |_| {}).unwrap();
    writer.begin().await.unwrap();
    writer.append(name, 1, &first).await.unwrap();
    let many: Vec<String> = (0..5_000).map(|number| format!("{number:0>120}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    writer.append(name, 1, &batch(&many)).await.unwrap();
    writer.commit().await.unwrap();

    let mut seen = Vec::new();
    read_to_end(log, name, 1, PATIENCE, |chunk| {
        for (record, offset) in chunk.records.iter().zip(&chunk.offsets) {
            let headers: Vec<_> = record.headers.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
            seen.push((*offset, record.key.to_vec(), record.value.map(<[u8]>::to_vec), headers));
        }
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(seen.len(), 5_003, "every record once");
    assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0), "offsets rise");
    let header = |name: &[u8], value: &[u8]| (name.to_vec(), value.to_vec());
    assert_eq!(seen[0].3, [header(b"a", b"1"), header(b"b", b""), header(b"a", b"\xff\x00")], "headers as written");
    assert_eq!((seen[1].1.as_slice(), seen[1].2.as_deref()), (b"gone".as_slice(), None), "a null value stays null");
    assert_eq!((seen[2].1.as_slice(), seen[2].2.as_deref()), (b"".as_slice(), Some(b"".as_slice())));
    assert_eq!(seen[5_002].2.as_deref(), Some(many[4_999].as_bytes()));
    assert!(values(log, name, 0).await.is_empty(), "the other partition is empty and its end is still reached");
}

async fn nothing_is_seen_before_the_commit_or_after_an_abort(log: &dyn Log, name: &str) {
    topic(log, name, 1).await;
    let mut writer = log.writer(&format!("{name}-w")).await.unwrap();
    writer.begin().await.unwrap();
    writer.append(name, 0, &batch(&["aborted"])).await.unwrap();
    assert!(values(log, name, 0).await.is_empty(), "an open transaction is invisible");
    writer.abort().await.unwrap();
    write(&mut writer, name, 0, &["committed"]).await;
    assert_eq!(values(log, name, 0).await, ["committed"], "an aborted transaction stays invisible");
}

async fn one_transaction_covers_several_topics(log: &dyn Log, name: &str) {
    let (left, right) = (format!("{name}-left"), format!("{name}-right"));
    topic(log, &left, 1).await;
    topic(log, &right, 3).await;
    let mut writer = log.writer(&format!("{name}-w")).await.unwrap();
    for (outcome, value) in [(false, "no"), (true, "yes")] {
        writer.begin().await.unwrap();
        writer.append(&left, 0, &batch(&[value])).await.unwrap();
        writer.append(&right, 2, &batch(&[value])).await.unwrap();
        if outcome { writer.commit().await.unwrap() } else { writer.abort().await.unwrap() }
    }
    assert_eq!(values(log, &left, 0).await, ["yes"]);
    assert_eq!(values(log, &right, 2).await, ["yes"]);
}

async fn a_newer_writer_fences_the_older(log: &dyn Log, name: &str) {
    topic(log, name, 1).await;
    let id = format!("{name}-w");
    let mut old = log.writer(&id).await.unwrap();
    write(&mut old, name, 0, &["before"]).await;
    old.begin().await.unwrap();
    old.append(name, 0, &batch(&["zombie"])).await.unwrap();
    let mut new = log.writer(&id).await.unwrap();
    assert_eq!(old.commit().await.map_err(|error| error.kind), Err(LogErrorKind::Fenced), "the zombie cannot commit");
    write(&mut new, name, 0, &["after"]).await;
    assert_eq!(values(log, name, 0).await, ["before", "after"]);
}

async fn a_dropped_transaction_is_aborted_by_its_successor(log: &dyn Log, name: &str) {
    topic(log, name, 1).await;
    let id = format!("{name}-w");
    let mut old = log.writer(&id).await.unwrap();
    old.begin().await.unwrap();
    old.append(name, 0, &batch(&["crashed"])).await.unwrap();
    drop(old);
    let mut new = log.writer(&id).await.unwrap();
    assert!(values(log, name, 0).await.is_empty(), "to its end, and nothing of the crashed writer");
    write(&mut new, name, 0, &["successor"]).await;
    assert_eq!(values(log, name, 0).await, ["successor"]);
}

async fn positions_are_the_callers(log: &dyn Log, name: &str) {
    fill(log, name, 1, &["a", "b"]).await;
    fill(log, name, 1, &["c", "d"]).await;
    let mut reader = log.reader(name, &group(&format!("{name}-g"))).await.unwrap();
    let ReadEvent::Assigned(partitions) = next(&mut reader).await else { panic!("an assignment comes first") };
    assert_eq!(partitions, [0]);
    assert!(matches!(reader.poll(Duration::from_millis(300)).await.unwrap(), ReadEvent::Idle), "nothing before start");
    let earliest = log.bounds(name).await.unwrap()[&0].earliest;
    reader.start(0, earliest).await.unwrap();
    let all = drain(&mut reader).await;
    assert_eq!(only_values(&all), ["a", "b", "c", "d"]);
    for (index, (offset, _)) in all.iter().enumerate() {
        reader.start(0, *offset).await.unwrap();
        assert_eq!(drain(&mut reader).await, all[index..], "from {offset} on, again and again");
    }
    // A restart in the middle of a stream yields nothing that precedes it.
    reader.start(0, earliest).await.unwrap();
    reader.start(0, all[3].0).await.unwrap();
    assert_eq!(drain(&mut reader).await, all[3..]);
    let refused = reader.start(7, 0).await.map_err(|error| error.kind);
    assert_eq!(refused, Err(LogErrorKind::NotAssigned));
    reader.close().await;
}

async fn records_fetched_before_a_start_are_not_yielded_after_it(log: &dyn Log, name: &str) {
    // Several chunks, so that some are fetched ahead.
    let values: Vec<String> = (0..1_000).map(|number| format!("{number:0>3000}")).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    topic(log, name, 1).await;
    let mut writer = log.writer(&format!("{name}-w")).await.unwrap();
    for part in values.chunks(250) {
        write(&mut writer, name, 0, part).await;
    }
    let earliest = log.bounds(name).await.unwrap()[&0].earliest;
    let mut reader = started(log, name, &group(&format!("{name}-g")), earliest).await;
    let all = drain(&mut reader).await;
    assert_eq!(only_values(&all), values);
    for index in [990, 10, 500] {
        reader.start(0, earliest).await.unwrap();
        let ReadEvent::Chunk(chunk) = next(&mut reader).await else { panic!("a chunk comes first") };
        assert!(chunk.offsets.len() < all.len(), "the first chunk holds everything");
        reader.start(0, all[index].0).await.unwrap();
        assert_eq!(drain(&mut reader).await, all[index..], "from the one at {index} on");
    }
    reader.close().await;
}

async fn committed_offsets_are_kept_and_do_not_move_readers(log: &dyn Log, name: &str) {
    fill(log, name, 1, &["a", "b", "c"]).await;
    let group_name = format!("{name}-g");
    assert!(log.committed(&group_name, name).await.unwrap().is_empty(), "no offset before the first commit");
    let earliest = log.bounds(name).await.unwrap()[&0].earliest;
    let mut reader = started(log, name, &group(&group_name), earliest).await;
    let all = drain(&mut reader).await;
    reader.commit(&BTreeMap::from([(0, all[2].0)])).await.unwrap();
    assert_eq!(log.committed(&group_name, name).await.unwrap(), BTreeMap::from([(0, all[2].0)]));
    assert!(log.committed(&format!("{name}-other"), name).await.unwrap().is_empty(), "another group has its own");
    reader.close().await;
    let mut again = started(log, name, &group(&group_name), earliest).await;
    assert_eq!(only_values(&drain(&mut again).await), ["a", "b", "c"], "the caller says where to read");
    again.close().await;
    // An operator's offsets apply once no member is left, forwards and backwards.
    for (offset, name_of_group) in
        [(all[0].0, &group_name), (all[1].0, &group_name), (all[1].0, &format!("{name}-new"))]
    {
        log.set_committed(name_of_group, name, &BTreeMap::from([(0, offset)])).await.unwrap();
        assert_eq!(log.committed(name_of_group, name).await.unwrap(), BTreeMap::from([(0, offset)]));
    }
}

async fn times_are_log_append_times_and_can_be_looked_up(log: &dyn Log, name: &str) {
    let now = || i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let before = now();
    fill(log, name, 1, &["a"]).await;
    // Append times have millisecond resolution: wait for the next millisecond, so that the two differ.
    let first_done = now();
    while now() <= first_done + 1 {
        tokio::task::yield_now().await;
    }
    fill(log, name, 1, &["b"]).await;
    let mut seen = Vec::new();
    read_to_end(log, name, 0, PATIENCE, |chunk| {
        seen.extend(chunk.offsets.iter().copied().zip(chunk.times_ms.iter().copied()));
        Ok(())
    })
    .await
    .unwrap();
    assert!(seen.iter().all(|(_, time)| (before - 5..=now() + 5).contains(time)), "{seen:?} is not about {before}");
    assert!(seen[0].1 < seen[1].1, "{seen:?}");
    assert_eq!(log.offset_for_time(name, 0, seen[1].1).await.unwrap(), Some(seen[1].0));
    assert_eq!(log.offset_for_time(name, 0, seen[0].1).await.unwrap(), Some(seen[0].0));
    assert_eq!(log.offset_for_time(name, 0, seen[1].1 + 3_600_000).await.unwrap(), None);
}

async fn topics_are_verified(log: &dyn Log, name: &str) {
    let spec = TopicSpec { name: name.to_owned(), partitions: 3, retention: Retention::Delete };
    assert_eq!(log.verify_topic(&spec).await.unwrap(), None);
    assert_eq!(log.verify_topic(&spec).await.unwrap(), None, "to look creates nothing");
    topic(log, name, 3).await;
    let other_count = TopicSpec { name: name.to_owned(), partitions: 5, retention: Retention::Delete };
    assert_eq!(log.ensure_topic(&other_count).await.unwrap().partitions, 3, "an existing topic keeps its count");
    assert_eq!(log.verify_topic(&other_count).await.unwrap().map(|topic| topic.partitions), Some(3));
    let other_policy = TopicSpec { retention: Retention::Compact, ..other_count };
    let refused = log.ensure_topic(&other_policy).await.map_err(|error| error.kind);
    assert_eq!(refused, Err(LogErrorKind::Misconfigured), "another clean-up policy is refused");
    let refused = log.verify_topic(&other_policy).await.map_err(|error| error.kind);
    assert_eq!(refused, Err(LogErrorKind::Misconfigured), "by verify_topic too");
    assert_eq!(log.bounds(name).await.unwrap().len(), 3);
    let identity = log.identity().await.unwrap();
    assert!(!identity.is_empty());
    assert_eq!(log.identity().await.unwrap(), identity);
}

/// Both roles ask for the same topics at the same time. `rounds` new topics are requested concurrently.
pub async fn a_topic_that_was_ensured_exists(log: &Arc<dyn Log>, name: &str, rounds: u32) {
    for round in 0..rounds {
        let name = format!("{name}-{round}");
        let ensure = || {
            let (log, name) = (log.clone(), name.clone());
            tokio::spawn(async move {
                topic(&*log, &name, 2).await;
                assert_eq!(log.bounds(&name).await.unwrap().len(), 2, "it can be used at once");
            })
        };
        let tasks: Vec<_> = (0..8).map(|_| ensure()).collect();
        for task in tasks {
            task.await.unwrap();
        }
    }
}

async fn a_waiting_reader_is_woken_by_a_commit(log: Arc<dyn Log>, name: &str) {
    topic(&*log, name, 1).await;
    let mut reader = started(&*log, name, &Membership::Direct { partitions: vec![0] }, 0).await;
    assert!(drain(&mut reader).await.is_empty());
    let refused = reader.commit(&BTreeMap::from([(0, 0)])).await;
    assert!(refused.is_err(), "a reader without a group cannot commit");
    let writer_log = log.clone();
    let writer_name = name.to_owned();
    let writing = tokio::spawn(async move { fill(&*writer_log, &writer_name, 1, &["news"]).await });
    assert_eq!(only_values(&drain(&mut reader).await), ["news"]);
    writing.await.unwrap();
    reader.close().await;
}
