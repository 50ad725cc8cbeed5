//! Batches that end for the number of their files.

use std::fs;

use common::log::{Log, RecordBatch};
use common::shutdown::Shutdown;
use serde_json::Value;

use crate::EndOfInput;
use crate::batch::testing::{ENCODING, event};
use crate::testing::Zone;

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

    async fn distribute_with(&self, max_files: usize) {
        let mut distributor = self.distributor();
        distributor.settings.max_files = max_files;
        distributor.run(&EndOfInput::now(), &Shutdown::new()).await.unwrap();
    }

    fn files_of_batches(&self) -> Vec<usize> {
        let files = |path: &std::path::PathBuf| {
            let done: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
            done["files"].as_array().unwrap().len()
        };
        self.chain("done").iter().rev().map(files).collect()
    }
}

#[tokio::test]
async fn no_batch_has_more_files_than_configured_and_every_row_is_written_once() {
    let zone = Zone::of_days(28).await;
    zone.distribute_with(6).await;
    // Batches of 20 records of two types, then of a few days each.
    assert_eq!(zone.files_of_batches(), [2, 2, 6, 6, 6, 6, 6]);
    zone.assert_sound_for(ENCODING).await;
}

/// Anyone with write access to the trusted zone can put any object there.
#[tokio::test]
async fn a_key_run_with_more_keys_than_its_batch_has_offsets_is_refused_unread() {
    let zone = Zone::new().await;
    let run = &zone.chain("keys")[1];
    fs::write(run, vec![0; 20 * 32 + 21]).unwrap();
    let error = zone.distributor().run(&EndOfInput::now(), &Shutdown::new()).await.unwrap_err().to_string();
    assert!(error.contains("keys/") && error.contains("cannot have so many keys"), "{error}");
}

#[tokio::test]
async fn an_adopted_batch_has_its_files_whatever_the_adopters_limit() {
    let zone = Zone::of_days(28).await;
    zone.distribute_with(6).await;
    let before: Vec<_> =
        zone.files("events", ".parquet").into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    // Its owner died after the cut.
    fs::remove_file(&zone.chain("done")[0]).unwrap();
    fs::remove_file(&zone.chain("keys")[0]).unwrap();
    for (path, _) in before.iter().filter(|(path, _)| path.to_str().unwrap().contains("month=03")) {
        fs::remove_file(path).unwrap();
    }
    zone.log.set_committed("g", "events", &[(0, 0)].into()).await.unwrap();
    zone.distribute_with(1).await;
    let after: Vec<_> =
        zone.files("events", ".parquet").into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    assert!(before == after);
    zone.assert_sound_for(ENCODING).await;
}
