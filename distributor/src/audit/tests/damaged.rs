//! A batch whose head the log let go of before all its files were written: what the next owner makes of it.

use common::event::PRESETS;
use common::log::{RecordBatch, Retention, TopicSpec};

use super::*;
use crate::batch::testing::event;

/// The open batch is 20..40, and the log begins in its middle.
const LOG_FROM: i64 = 30;

impl Zone {
    async fn append_events(&self, numbers: impl Iterator<Item = u32>) {
        let mut records = RecordBatch::new();
        for number in numbers {
            let value = event(&format!("e{number}"), "2021-01-14T10:15:30", "d", &format!("t{}", number % 2), "1");
            records.push(b"key", Some(value.as_bytes()), |_| {}).unwrap();
        }
        let mut writer = self.log.writer("w").await.unwrap();
        writer.begin().await.unwrap();
        writer.append("events", 0, &records).await.unwrap();
        writer.commit().await.unwrap();
    }

    /// Two batches, of which the second lost its completion and all files but some, and in the log its head. What comes
    /// afterwards are two events of that head again, and new ones.
    async fn beheaded(files_left: &[usize], with_keys: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = open_log(&folder.path().join("log")).await;
        let spec = TopicSpec { name: "events".into(), partitions: 1, retention: Retention::Delete };
        log.ensure_topic(&spec).await.unwrap();
        let zone = Self { folder, log };
        zone.append_events(0..30).await;
        zone.append_events(30..40).await;
        zone.distribute().await;
        fs::remove_file(&zone.chain("done")[0]).unwrap();
        if !with_keys {
            fs::remove_file(&zone.chain("keys")[0]).unwrap();
        }
        for sequence in (0..2).filter(|sequence| !files_left.contains(sequence)) {
            let named = zone.files("events", &format!("events-0-20-{sequence}.parquet"));
            fs::remove_file(&named[0]).unwrap();
        }
        zone.append_events([20, 21].into_iter().chain(40..50)).await;
        zone.log.trim("events", 0, LOG_FROM, i64::MAX).await.unwrap();
        assert_eq!(zone.log_begins_at().await, LOG_FROM);
        zone
    }
}

#[tokio::test]
async fn what_is_left_of_a_batch_is_written_once_and_what_is_lost_is_told() {
    assert_eq!(PRESETS[0].name, "seed", "the events below are read by it");
    for files_left in [&[][..], &[0], &[1], &[0, 1]] {
        for with_keys in [true, false] {
            let zone = Zone::beheaded(files_left, with_keys).await;
            zone.distribute().await;
            assert_eq!(zone.found().await, Vec::<&str>::new(), "{files_left:?}");
            let audit = zone.auditor(true).verify(Repair::No).await.unwrap();
            let partition = &audit.partitions[0];
            // Each file of the batch holds every second record.
            let lost = 10 - 5 * files_left.len() as u64;
            let damaged = (partition.damaged_batches, partition.damaged_offsets);
            assert_eq!(damaged, (u64::from(lost > 0), lost), "{files_left:?}");
            // With the key run nothing of the batch is new; without, what is in no file is.
            let again = if with_keys { 0 } else { 2 - files_left.len() as u64 };
            assert_eq!(partition.rows, 50 - lost + again, "{files_left:?}, with keys: {with_keys}");
            assert_eq!(partition.committed, Some(52));
            let before = zone.files("events", ".parquet");
            zone.distribute().await;
            assert_eq!(zone.files("events", ".parquet"), before, "nothing is done twice");
        }
    }
}

/// How far such a batch was closed cannot be told from its files.
#[tokio::test]
async fn a_damaged_batch_is_not_guessed_when_its_part_of_the_chain_is_lost() {
    for (lost, is_refused) in [("origin.json", false), ("cuts", true), ("done", true), ("keys", true)] {
        let zone = Zone::beheaded(&[0], false).await;
        zone.distribute().await;
        let objects = zone.chain("");
        let damaged = objects.iter().rev().filter(|path| path.to_str().unwrap().contains(lost)).nth(1);
        let path = damaged.or(objects.iter().find(|path| path.ends_with(lost))).unwrap();
        fs::remove_file(path).unwrap();
        let rebuilder = ChainRebuilder {
            store: zone.store(),
            log: zone.log.clone(),
            topic: "events".into(),
            group: "g".into(),
            encoding: ENCODING,
            window_memory: 1_000_000_000,
            batch_memory: 1_000_000_000,
            scratch: Scratch::new(zone.folder.path()),
            accept_gaps: false,
            on_batch: Box::new(|_| {}),
        };
        let rebuild = rebuilder.rebuild(false).await.unwrap();
        let refusals: Vec<&str> = rebuild.refusals().collect();
        assert_eq!(
            refusals.iter().any(|refusal| refusal.contains("the head of the batch that begins at 20")),
            is_refused,
            "{lost}: {refusals:?}"
        );
        assert_eq!(zone.found().await.is_empty(), !is_refused, "{lost}");
    }
}
