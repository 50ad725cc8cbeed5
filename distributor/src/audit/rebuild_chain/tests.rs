//! Zones that lost their chain, in whole or in part, with the log whole, trimmed, or another one.

mod rewritten;

use std::fs;

use common::clock::{Clock, SystemClock};
use common::log::{RecordBatch, Retention, TopicSpec};
use common::shutdown::Shutdown;
use common::store::StoreErrorKind;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;

use super::super::{Auditor, Repair};
use super::*;
use crate::batch::testing::{ENCODING, event};
use crate::testing::interposed::{Fate, interposed};
use crate::testing::{Zone, open_log};

impl Zone {
    /// Two halves of the log, each of events of its own and of repetitions, in batches of 20 records.
    async fn of_two_halves() -> Self {
        let zone = Self::new().await;
        zone.append_new("second", 45).await;
        // A batch of duplicates only, without any file.
        zone.append(1).await;
        zone.append_new("third", 5).await;
        zone.distribute().await;
        zone
    }

    async fn append_new(&self, name: &str, count: usize) {
        let mut records = RecordBatch::new();
        for number in 0..count {
            let value = event(&format!("{name}-{number}"), "2021-01-14T10:15:30", "d", "t0", "1");
            records.push(b"key", Some(value.as_bytes()), |_| {}).unwrap();
        }
        // No event, and one of a year out of bounds, which has a key.
        records.push(b"bad", Some(b"{}"), |_| {}).unwrap();
        let late = event(&format!("{name}-late"), "2999-01-14T10:15:30", "d", "t0", "1");
        records.push(b"late", Some(late.as_bytes()), |_| {}).unwrap();
        let mut writer = self.log.writer("w").await.unwrap();
        writer.begin().await.unwrap();
        writer.append("events", 0, &records).await.unwrap();
        writer.commit().await.unwrap();
    }

    fn rebuilder(&self) -> ChainRebuilder {
        ChainRebuilder {
            store: self.store(),
            log: self.log.clone(),
            topic: "events".into(),
            group: "g".into(),
            encoding: ENCODING,
            window_memory: 1_000_000_000,
            batch_memory: 1_000_000_000,
            scratch: crate::Scratch::new(std::env::temp_dir()),
            accept_gaps: false,
            on_batch: Box::new(|_| {}),
        }
    }

    async fn rebuilt(&self) -> PartitionRebuild {
        let [partition] = &self.rebuilder().rebuild(false).await.unwrap().partitions[..] else {
            panic!("one partition")
        };
        partition.clone()
    }

    async fn audit(&self) -> crate::Audit {
        self.deep_auditor().verify(Repair::No).await.unwrap()
    }

    fn deep_auditor(&self) -> Auditor {
        Auditor {
            store: self.store(),
            log: Some(self.log.clone()),
            topic: "events".into(),
            group: "g".into(),
            encoding: ENCODING,
            window_memory: 1_000_000_000,
            batch_memory: 1_000_000_000,
            scratch: crate::Scratch::new(std::env::temp_dir()),
            deep: true,
            uploads_older_than: std::time::Duration::from_secs(86_400),
            now_ms: SystemClock.now_ms(),
            on_batch: Box::new(|_| {}),
        }
    }

    /// Sound, and everything that comes again is told as a duplicate, also after all is looked at from the start.
    async fn is_as_if_nothing_had_happened(&self) {
        let before = self.audit().await;
        assert!(before.is_sound(), "{:?}", before.findings);
        self.append(1).await;
        for set_back in [false, true] {
            if set_back {
                self.log.set_committed("g", "events", &[(0, before.partitions[0].from)].into()).await.unwrap();
            }
            self.distribute().await;
            let after = self.audit().await;
            assert!(after.is_sound(), "{:?}", after.findings);
            assert_eq!(after.partitions[0].rows, before.partitions[0].rows, "an event was written twice");
            assert_eq!(after.partitions[0].duplicates, before.partitions[0].duplicates + 55);
        }
    }

    fn documents(&self) -> Vec<(std::path::PathBuf, Vec<u8>)> {
        let paths = self.files("_batches", "").into_iter();
        paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    /// Writes all files anew as version 0.1.0 did, which said less in its footers.
    fn age(&self) {
        for path in self.files("events", ".parquet").into_iter().chain(self.files("rejected", ".parquet")) {
            let builder = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(&path).unwrap()).unwrap();
            let mut facts = builder.metadata().file_metadata().key_value_metadata().cloned().unwrap();
            facts.retain(|fact| fact.key != crate::batch::STATED && fact.key != "ARROW:schema");
            let rows: Vec<_> = builder.build().unwrap().map(Result::unwrap).collect();
            let properties = WriterProperties::builder().set_key_value_metadata(Some(facts)).build();
            let file = fs::File::create(&path).unwrap();
            let mut writer = ArrowWriter::try_new(file, rows[0].schema(), Some(properties)).unwrap();
            rows.iter().for_each(|batch| writer.write(batch).unwrap());
            writer.close().unwrap();
        }
    }

    fn lose(&self, part: &str) {
        fs::remove_dir_all(self.trusted(&format!("_batches/events/0/{part}"))).unwrap();
    }
}

#[tokio::test]
async fn a_whole_zone_needs_nothing() {
    let zone = Zone::of_two_halves().await;
    let before = zone.documents();
    let rebuilt = zone.rebuilt().await;
    assert_eq!(rebuilt.refused, None);
    assert_eq!((rebuilt.origins, rebuilt.cuts, rebuilt.completions, rebuilt.key_runs), (0, 0, 0, 0));
    assert!(zone.documents() == before);
}

#[tokio::test]
async fn what_is_lost_of_a_chain_comes_back_as_it_was_from_the_log() {
    for parts in [&["cuts", "done", "keys"][..], &["cuts"], &["done"], &["keys"], &["cuts", "done"], &["cuts", "keys"]]
    {
        let zone = Zone::of_two_halves().await;
        let before = zone.documents();
        for part in parts {
            zone.lose(part);
        }
        if parts.len() == 3 {
            fs::remove_file(zone.trusted("_batches/events/0/origin.json")).unwrap();
        }
        let planned = zone.rebuilder().rebuild(true).await.unwrap();
        assert!(planned.refusals().next().is_none(), "{planned:?}");
        assert!(zone.documents().len() < before.len(), "a dry run puts nothing");
        let rebuilt = zone.rebuilt().await;
        assert_eq!(std::slice::from_ref(&rebuilt), &planned.partitions[..], "as was told");
        assert_eq!(rebuilt.origins, u64::from(parts.len() == 3));
        let all_but_cuts = |documents: Vec<(std::path::PathBuf, Vec<u8>)>| {
            documents.into_iter().filter(|(path, _)| !path.to_str().unwrap().contains("/cuts/")).collect::<Vec<_>>()
        };
        if !parts.contains(&"cuts") || !parts.contains(&"done") {
            let after = zone.documents();
            let same = after.iter().zip(&before).filter(|(a, b)| a.0 != b.0).count();
            assert_eq!((after.len(), same), (before.len(), 0), "the same objects: {parts:?}");
            assert!(all_but_cuts(after) == all_but_cuts(before), "{parts:?}");
        }
        zone.is_as_if_nothing_had_happened().await;
    }
}

#[tokio::test]
async fn where_the_log_has_let_go_the_files_say_what_the_chain_was() {
    for parts in [&["cuts", "done", "keys"][..], &["cuts"], &["done"], &["keys"]] {
        let zone = Zone::of_two_halves().await;
        // The log's first half goes, which ends within a batch.
        zone.log.trim("events", 0, 60, i64::MAX).await.unwrap();
        let earliest = zone.log.bounds("events").await.unwrap()[&0].earliest;
        assert!(earliest > 40, "{earliest}");
        for part in parts {
            zone.lose(part);
        }
        if parts.len() == 3 {
            fs::remove_file(zone.trusted("_batches/events/0/origin.json")).unwrap();
        }
        let rebuilt = zone.rebuilt().await;
        assert_eq!(rebuilt.refused, None, "{parts:?}");
        assert_eq!(rebuilt.key_runs_from_rows > 0, parts.contains(&"keys"), "{rebuilt:?}");
        assert!(rebuilt.recounted_batches > 0, "{rebuilt:?}");
        zone.is_as_if_nothing_had_happened().await;
    }
}

#[tokio::test]
async fn a_batch_that_was_broken_off_is_left_for_a_distributor_to_complete() {
    let zone = Zone::of_two_halves().await;
    let newest = zone.files("events", ".parquet").into_iter().max_by_key(|path| {
        path.file_stem().unwrap().to_str().unwrap().split('-').nth(2).unwrap().parse::<i64>().unwrap()
    });
    fs::remove_file(newest.unwrap()).unwrap();
    for part in ["cuts", "done", "keys"] {
        zone.lose(part);
    }
    let rebuilt = zone.rebuilt().await;
    assert_eq!(rebuilt.refused, None);
    assert_eq!(rebuilt.cuts, rebuilt.completions + 1, "the cut only");
    assert!(zone.audit().await.partitions[0].open.is_some());
    zone.distribute().await;
    zone.is_as_if_nothing_had_happened().await;
}

#[tokio::test]
async fn what_nobody_accounts_for_is_refused_and_nothing_is_put() {
    let zone = Zone::of_two_halves().await;
    for part in ["cuts", "done", "keys"] {
        zone.lose(part);
    }
    let before = zone.documents();
    let refusal = async |zone: &Zone| zone.rebuilder().rebuild(false).await.unwrap().partitions[0].refused.clone();
    // A batch lost its files, too.
    let files = zone.files("", "-20-0.parquet").into_iter().chain(zone.files("", "-20-1.parquet"));
    let away: Vec<_> = files.map(|path| (fs::read(&path).unwrap(), path)).collect();
    away.iter().for_each(|(_, path)| fs::remove_file(path).unwrap());
    let message = refusal(&zone).await.unwrap();
    assert!(message.contains("the offsets 20 up to before 40") && message.contains("make 18 rows"), "{message}");
    away.iter().for_each(|(body, path)| fs::write(path, body).unwrap());
    // A file that is no batch's.
    let foreign = zone.files("events", "-20-0.parquet")[0].with_file_name("events-0-30-0.parquet");
    fs::write(&foreign, &away[0].0).unwrap();
    assert!(refusal(&zone).await.unwrap().contains("does not say what its name does"));
    fs::remove_file(foreign).unwrap();
    // Another log.
    let folder = tempfile::tempdir().unwrap();
    let mut rebuilder = zone.rebuilder();
    let other = open_log(folder.path()).await;
    let spec = TopicSpec { name: "events".into(), partitions: 1, retention: Retention::Delete };
    other.ensure_topic(&spec).await.unwrap();
    rebuilder.log = other;
    let origin = zone.trusted("_batches/events/0/origin.json");
    for (message, with_origin) in [("was written from log", true), ("it is not the log", false)] {
        if !with_origin {
            fs::rename(&origin, zone.trusted("origin.json")).unwrap();
        }
        let rebuild = rebuilder.rebuild(false).await.unwrap();
        assert!(rebuild.refusals().next().unwrap().contains(message), "{rebuild:?}");
    }
    fs::rename(zone.trusted("origin.json"), origin).unwrap();
    assert!(zone.documents() == before);
    assert_eq!(refusal(&zone).await, None, "put right, it can be made again");
}

#[tokio::test]
async fn gaps_are_passed_over_only_if_an_operator_says_so() {
    let zone = Zone::new().await;
    zone.append_new("second", 30).await;
    let end = zone.audit().await.partitions[0].to;
    zone.log.set_committed("g", "events", &[(0, end + 10)].into()).await.unwrap();
    zone.distribute().await;
    for part in ["cuts", "done", "keys"] {
        zone.lose(part);
    }
    let mut rebuilder = zone.rebuilder();
    let message = rebuilder.rebuild(false).await.unwrap().partitions[0].refused.clone().unwrap();
    assert!(message.contains("make 10 rows") && message.contains("--accept-gaps"), "{message}");
    rebuilder.accept_gaps = true;
    let rebuild = rebuilder.rebuild(false).await.unwrap();
    assert_eq!(rebuild.refusals().next(), None);
    assert_eq!(rebuild.partitions[0].gap_offsets, 10);
    let audit = zone.audit().await;
    assert_eq!(audit.partitions[0].skipped_offsets, 10);
    zone.is_as_if_nothing_had_happened().await;
}

#[tokio::test]
async fn a_rebuild_that_is_broken_off_anywhere_lets_nobody_go_on_until_it_is_done() {
    for with_origin in [true, false] {
        for broken_at in 0.. {
            let zone = Zone::new().await;
            zone.lose("cuts");
            zone.lose("keys");
            if !with_origin {
                fs::remove_file(zone.trusted("_batches/events/0/origin.json")).unwrap();
            }
            let puts = std::sync::atomic::AtomicUsize::new(0);
            let mut rebuilder = zone.rebuilder();
            rebuilder.store = interposed(zone.store(), move |call, _| {
                let is_it = call == "put" && puts.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == broken_at;
                if is_it { [Fate::Fail(StoreErrorKind::Transient), Fate::TimeOut][broken_at % 2] } else { Fate::Pass }
            });
            let whole = rebuilder.rebuild(false).await.is_ok();
            if !whole {
                let tables = zone.files("events", ".parquet");
                // Refused, unless only the answer to the last put was lost.
                if zone.distributor().run(&crate::EndOfInput::now(), &Shutdown::new()).await.is_ok() {
                    assert!(zone.audit().await.is_sound(), "broken off at {broken_at}");
                }
                assert_eq!(zone.files("events", ".parquet"), tables, "broken off at {broken_at}");
            }
            assert_eq!(zone.rebuilt().await.refused, None, "broken off at {broken_at}");
            assert!(zone.audit().await.is_sound(), "broken off at {broken_at}");
            if whole {
                assert!(broken_at > 5, "{broken_at}");
                break;
            }
        }
    }
}

#[tokio::test]
async fn files_of_an_older_version_are_enough_only_where_the_log_still_holds_their_records() {
    for (trimmed, refusal) in [(false, None), (true, Some("were written by a version that did not say enough"))] {
        let zone = Zone::of_two_halves().await;
        zone.age();
        for part in ["cuts", "done", "keys"] {
            zone.lose(part);
        }
        if trimmed {
            zone.log.trim("events", 0, 60, i64::MAX).await.unwrap();
        }
        let message = zone.rebuilt().await.refused;
        assert_eq!(message.is_some(), refusal.is_some(), "{message:?}");
        match refusal {
            Some(words) => assert!(message.unwrap().contains(words)),
            None => zone.is_as_if_nothing_had_happened().await,
        }
    }
}
