//! The guarantee about unreadable records: they stop only their partition.
//!
//! Only an implementation's own test can make records unreadable. It calls [`write_before`], writes one record that it
//! makes unreadable, calls [`write_after`], and then [`unreadable_records_stop_only_their_partition`].

use super::*;

const BEFORE: [&str; 2] = ["a", "b"];
const BEHIND: [&str; 2] = ["c", "d"];
const OTHER: [&str; 2] = ["x", "y"];

/// Where the unreadable record of partition 0 is, and where the sound ones behind it begin.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub unreadable: i64,
    pub behind: i64,
}

/// Creates the topic. Returns the offset of the record that comes next.
pub async fn write_before(log: &dyn Log, name: &str) -> i64 {
    topic(log, name, 2).await;
    let mut writer = log.writer(&format!("{name}-w")).await.unwrap();
    write(&mut writer, name, 0, &BEFORE).await;
    write(&mut writer, name, 1, &OTHER[..1]).await;
    log.bounds(name).await.unwrap()[&0].latest
}

/// `unreadable` is the offset of the record just written.
pub async fn write_after(log: &dyn Log, name: &str, unreadable: i64) -> Place {
    let behind = log.bounds(name).await.unwrap()[&0].latest;
    let mut writer = log.writer(&format!("{name}-w")).await.unwrap();
    write(&mut writer, name, 0, &BEHIND).await;
    Place { unreadable, behind }
}

async fn values_until(reader: &mut Box<dyn LogReader>, end: impl Fn(&ReadEvent) -> bool) -> Vec<(i32, String)> {
    let mut seen = Vec::new();
    loop {
        let event = next(reader).await;
        if end(&event) {
            return seen;
        }
        if let ReadEvent::Chunk(chunk) = event {
            let values = chunk.records.iter().map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap());
            seen.extend(values.map(|value| (chunk.partition, value)));
        }
    }
}

fn of(seen: &[(i32, String)], partition: i32) -> Vec<&str> {
    seen.iter().filter(|(of, _)| *of == partition).map(|(_, value)| value.as_str()).collect()
}

pub async fn unreadable_records_stop_only_their_partition(log: &dyn Log, name: &str, place: Place) {
    let is_failure = |event: &ReadEvent| match event {
        ReadEvent::Failed { partition, offset, error } => {
            assert_eq!((*partition, *offset, error.kind), (0, place.unreadable, LogErrorKind::Corrupt), "{error}");
            assert!(error.message.contains(name), "the topic is missing in {error}");
            assert!(
                error.message.contains(&format!("offset {}", place.unreadable)),
                "the offset is missing in {error}"
            );
            true
        }
        _ => false,
    };
    let mut reader = log.reader(name, &group(&format!("{name}-g"))).await.unwrap();
    assert!(matches!(next(&mut reader).await, ReadEvent::Assigned(_)), "an assignment comes first");
    reader.start(0, 0).await.unwrap();
    let seen = values_until(&mut reader, is_failure).await;
    assert_eq!(of(&seen, 0), BEFORE, "everything before it is yielded, and nothing from behind it");

    // The other partition is read to its end, and further.
    reader.start(1, 0).await.unwrap();
    let is_end = |event: &ReadEvent| matches!(event, ReadEvent::EndReached(1));
    let seen = values_until(&mut reader, is_end).await;
    assert_eq!((of(&seen, 0), of(&seen, 1)), (vec![], vec![OTHER[0]]));
    let mut writer = log.writer(&format!("{name}-w")).await.unwrap();
    write(&mut writer, name, 1, &OTHER[1..]).await;
    let seen = values_until(&mut reader, is_end).await;
    assert_eq!((of(&seen, 0), of(&seen, 1)), (vec![], vec![OTHER[1]]));

    // It can be tried again, and fails again.
    reader.start(0, 0).await.unwrap();
    let seen = values_until(&mut reader, is_failure).await;
    assert_eq!(of(&seen, 0), BEFORE);
    // A failure waits for the end of a pause, as records do.
    reader.pause(0);
    reader.start(0, place.unreadable).await.unwrap();
    let event = reader.poll(Duration::from_millis(400)).await.unwrap();
    assert!(matches!(event, ReadEvent::Idle), "it is paused: {event:?}");
    reader.resume(0);
    assert!(values_until(&mut reader, is_failure).await.is_empty());
    // It can be passed over on purpose.
    reader.start(0, place.behind).await.unwrap();
    let seen = values_until(&mut reader, |event| matches!(event, ReadEvent::EndReached(0))).await;
    assert_eq!(of(&seen, 0), BEHIND);
    reader.close().await;

    let error = read_to_end(log, name, 0, PATIENCE, |_| Ok(())).await.unwrap_err();
    assert_eq!(error.kind, LogErrorKind::Corrupt, "it was taken for the end: {error}");
    assert_eq!(values(log, name, 1).await, OTHER);
}
