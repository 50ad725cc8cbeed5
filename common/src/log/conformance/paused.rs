//! The guarantee of a pause: no partition waits for another.

use super::*;

/// Records of one fill, enough for several chunks.
const RECORDS: usize = 6_000;

pub(super) async fn run_all(log: &dyn Log, prefix: &str) {
    a_paused_partition_yields_nothing_while_another_goes_on(log, &format!("{prefix}-others")).await;
    a_paused_partition_that_is_started_anew_waits_to_be_resumed(log, &format!("{prefix}-anew")).await;
    a_reader_begins_without_the_pauses_of_the_one_before(log, &format!("{prefix}-next")).await;
}

/// The events that a reader of two partitions has yielded.
#[derive(Default)]
struct Seen {
    records: BTreeMap<i32, Vec<(i64, String)>>,
    ends: BTreeMap<i32, usize>,
}

impl Seen {
    fn of(&self, partition: i32) -> &[(i64, String)] {
        self.records.get(&partition).map_or(&[], Vec::as_slice)
    }

    fn ends(&self, partition: i32) -> usize {
        self.ends.get(&partition).copied().unwrap_or_default()
    }

    fn take(&mut self, event: ReadEvent) {
        match event {
            ReadEvent::Chunk(chunk) => {
                let values =
                    chunk.records.iter().map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap());
                self.records.entry(chunk.partition).or_default().extend(chunk.offsets.iter().copied().zip(values));
            }
            ReadEvent::EndReached(partition) => *self.ends.entry(partition).or_default() += 1,
            other => panic!("unexpected {other:?}"),
        }
    }

    async fn read_until(&mut self, reader: &mut Box<dyn LogReader>, is_enough: impl Fn(&Self) -> bool) {
        while !is_enough(self) {
            self.take(next(reader).await);
        }
    }
}

/// Writes the values `from..from + RECORDS` to both partitions.
async fn fill_both(log: &dyn Log, name: &str, from: usize) {
    let mut writer = log.writer(&format!("{name}-w")).await.unwrap();
    let values: Vec<String> = (from..from + RECORDS).map(|number| format!("{number:0>200}")).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    for part in values.chunks(1_500) {
        writer.begin().await.unwrap();
        for partition in [0, 1] {
            writer.append(name, partition, &batch(part)).await.unwrap();
        }
        writer.commit().await.unwrap();
    }
}

async fn assigned(log: &dyn Log, name: &str) -> Box<dyn LogReader> {
    let mut reader = log.reader(name, &group(&format!("{name}-g"))).await.unwrap();
    let ReadEvent::Assigned(partitions) = next(&mut reader).await else { panic!("an assignment comes first") };
    assert_eq!(partitions, [0, 1]);
    reader
}

fn assert_all(seen: &[(i64, String)], from: usize, to: usize) {
    let expected: Vec<String> = (from..to).map(|number| format!("{number:0>200}")).collect();
    assert!(seen.iter().map(|(_, value)| value).eq(&expected), "{from} to {to} in order, without gap or repetition");
    assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0), "offsets rise");
}

async fn assert_silent(reader: &mut Box<dyn LogReader>, why: &str) {
    let event = reader.poll(Duration::from_millis(400)).await.unwrap();
    assert!(matches!(event, ReadEvent::Idle), "{why}: {event:?}");
}

async fn a_paused_partition_yields_nothing_while_another_goes_on(log: &dyn Log, name: &str) {
    topic(log, name, 2).await;
    fill_both(log, name, 0).await;
    let mut reader = assigned(log, name).await;
    let mut seen = Seen::default();
    reader.start(0, 0).await.unwrap();
    reader.start(1, 0).await.unwrap();
    seen.read_until(&mut reader, |seen| !seen.of(0).is_empty()).await;
    // More of it may already be on its way.
    reader.pause(0);
    let before = seen.of(0).len();
    seen.read_until(&mut reader, |seen| seen.of(1).len() == RECORDS && seen.ends(1) > 0).await;
    fill_both(log, name, RECORDS).await;
    let ends = seen.ends(1);
    seen.read_until(&mut reader, |seen| seen.of(1).len() == 2 * RECORDS && seen.ends(1) > ends).await;
    reader.pause(0);
    assert_silent(&mut reader, "one is read to its end, the other is paused").await;
    assert_eq!((seen.of(0).len(), seen.ends(0)), (before, 0), "no records and no end of a paused partition");
    assert!(before < RECORDS, "it was paused in the middle");
    assert_all(seen.of(1), 0, 2 * RECORDS);

    reader.resume(0);
    // Pauses now and then for a moment, as a reader that is slightly too slow does.
    while seen.of(0).len() < 2 * RECORDS || seen.ends(0) == 0 {
        seen.take(next(&mut reader).await);
        reader.pause(0);
        let held = seen.of(0).len();
        assert!(matches!(reader.poll(Duration::ZERO).await.unwrap(), ReadEvent::Idle));
        assert_eq!(seen.of(0).len(), held);
        reader.resume(0);
    }
    assert_all(seen.of(0), 0, 2 * RECORDS);
    // Resuming a partition that is not paused changes nothing.
    reader.resume(0);
    reader.resume(1);
    fill_both(log, name, 2 * RECORDS).await;
    seen.read_until(&mut reader, |seen| [0, 1].iter().all(|id| seen.of(*id).len() == 3 * RECORDS)).await;
    assert_all(seen.of(0), 0, 3 * RECORDS);
    assert_all(seen.of(1), 0, 3 * RECORDS);
    reader.close().await;
}

async fn a_paused_partition_that_is_started_anew_waits_to_be_resumed(log: &dyn Log, name: &str) {
    topic(log, name, 2).await;
    fill_both(log, name, 0).await;
    let mut reader = assigned(log, name).await;
    // Pauses before the start, too.
    reader.pause(0);
    reader.start(0, 0).await.unwrap();
    assert_silent(&mut reader, "started while paused").await;
    reader.resume(0);
    let mut first = Seen::default();
    first.read_until(&mut reader, |seen| !seen.of(0).is_empty()).await;
    reader.pause(0);
    let (offset, _) = first.of(0)[10];
    reader.start(0, 0).await.unwrap();
    reader.start(0, offset).await.unwrap();
    assert_silent(&mut reader, "started anew while paused").await;
    reader.resume(0);
    let mut second = Seen::default();
    second.read_until(&mut reader, |seen| seen.ends(0) > 0).await;
    assert_all(second.of(0), 10, RECORDS);
    assert_eq!(second.of(0)[0].0, offset);
    reader.close().await;
}

async fn a_reader_begins_without_the_pauses_of_the_one_before(log: &dyn Log, name: &str) {
    topic(log, name, 2).await;
    fill_both(log, name, 0).await;
    let mut reader = assigned(log, name).await;
    reader.start(0, 0).await.unwrap();
    reader.pause(0);
    assert_silent(&mut reader, "paused").await;
    reader.close().await;
    let mut reader = assigned(log, name).await;
    reader.start(0, 0).await.unwrap();
    let mut seen = Seen::default();
    seen.read_until(&mut reader, |seen| seen.ends(0) > 0).await;
    assert_all(seen.of(0), 0, RECORDS);
    reader.close().await;
}

/// For logs whose groups have several members: a member that has paused everything loses one of two partitions to
/// another member, and gets it back.
pub async fn a_partition_that_was_revoked_while_paused_comes_back_without_the_pause(log: &dyn Log, name: &str) {
    topic(log, name, 2).await;
    fill_both(log, name, 0).await;
    let mut first = assigned(log, name).await;
    for partition in [0, 1] {
        first.start(partition, 0).await.unwrap();
        first.pause(partition);
    }
    let mut second = log.reader(name, &group(&format!("{name}-g"))).await.unwrap();
    let (mut lost, mut theirs) = (Vec::new(), Vec::new());
    let deadline = tokio::time::Instant::now() + PATIENCE;
    // Both have to be polled for the group to come to rest.
    while lost.is_empty() || theirs.is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "no partition changed hands within {PATIENCE:?}");
        match first.poll(Duration::from_millis(20)).await.unwrap() {
            ReadEvent::Revoked(partitions) => lost.extend(partitions),
            ReadEvent::Assigned(_) | ReadEvent::Idle => {}
            other => panic!("everything is paused, and yet {other:?}"),
        }
        if let ReadEvent::Assigned(partitions) = second.poll(Duration::from_millis(20)).await.unwrap() {
            theirs.extend(partitions);
        }
    }
    assert_eq!((lost.len(), &lost), (1, &theirs), "one of two");
    let (moved, kept) = (lost[0], 1 - lost[0]);
    second.start(moved, 0).await.unwrap();
    let mut seen = Seen::default();
    seen.read_until(&mut second, |seen| seen.ends(moved) > 0).await;
    assert_all(seen.of(moved), 0, RECORDS);
    second.close().await;
    loop {
        match next(&mut first).await {
            ReadEvent::Assigned(partitions) if partitions.is_empty() => {}
            ReadEvent::Assigned(partitions) => break assert_eq!(partitions, [moved]),
            ReadEvent::Revoked(partitions) if partitions.is_empty() => {}
            other => panic!("everything is paused, and yet {other:?}"),
        }
    }
    first.start(moved, 0).await.unwrap();
    let mut seen = Seen::default();
    seen.read_until(&mut first, |seen| seen.ends(moved) > 0).await;
    assert_all(seen.of(moved), 0, RECORDS);
    assert!(seen.of(kept).is_empty(), "what stayed is still paused");
    first.resume(kept);
    seen.read_until(&mut first, |seen| seen.ends(kept) > 0).await;
    assert_all(seen.of(kept), 0, RECORDS);
    first.close().await;
}
