//! Batches that end for the number of their files, and objects that are larger than they can be.

use common::log::RecordBatch;

use super::*;
use crate::batch::testing::event;

impl Zone {
    /// An event on each of `days` days.
    async fn of_days(days: u32) -> Self {
        let zone = Self::filled(1).await;
        let mut records = RecordBatch::new();
        for day in 1..=days {
            let value = event(&format!("day {day}"), &format!("2021-03-{day:02}T10:15:30"), "d", "t", "1");
            records.push(b"key", Some(value.as_bytes()), |_| {}).unwrap();
        }
        let mut writer = zone.log.writer("w").await.unwrap();
        writer.begin().await.unwrap();
        writer.append("events", 0, &records).await.unwrap();
        writer.commit().await.unwrap();
        zone
    }
}

#[tokio::test]
async fn no_batch_has_more_files_than_configured_and_every_row_is_written_once() {
    let zone = Zone::of_days(28).await;
    zone.distribute_with(|settings| settings.max_files = 6).await;
    let state = zone.state().await;
    let files = |from: i64| state.live.values().filter(|file| file.from == from).count();
    // Batches of 20 records of two types, then of a few days each.
    assert_eq!(state.spans.keys().map(|from| files(*from)).collect::<Vec<_>>(), [2, 2, 6, 6, 6, 6, 6]);
    zone.assert_sound().await;
}

/// Anyone with write access to the trusted zone can put any object there.
#[tokio::test]
async fn a_key_run_of_another_size_or_another_batch_is_refused() {
    let zone = Zone::new().await;
    let runs = zone.files("_commits/events/0/keys", ".run");
    zone.append(1).await;
    for content in [vec![0; 20 * 32 + 21], fs::read(&runs[2]).unwrap()] {
        fs::write(&runs[1], content).unwrap();
        let error = zone.distributor().run(&EndOfInput::now(), &Shutdown::new()).await.unwrap_err().to_string();
        assert!(error.contains(runs[1].file_name().unwrap().to_str().unwrap()), "{error}");
    }
}

#[tokio::test]
async fn an_adopted_batch_has_its_files_whatever_the_adopters_limit() {
    let zone = Zone::of_days(28).await;
    zone.distribute_with(|settings| settings.max_files = 6).await;
    let before = zone.event_files();
    zone.uncommit();
    fs::remove_file(&zone.files("_commits/events/0/keys", ".run")[0]).unwrap();
    for (path, _) in before.iter().filter(|(path, _)| path.to_str().unwrap().contains("month=03")) {
        fs::remove_file(path).unwrap();
    }
    zone.log.set_committed("g", "events", &[(0, 0)].into()).await.unwrap();
    zone.distribute_with(|settings| settings.max_files = 1).await;
    assert!(zone.event_files() == before);
    zone.assert_sound().await;
}
