//! A small trusted zone, damaged in one way after another.

mod odd;

use std::fs;
use std::path::Path;

use arrow_array::{ArrayRef, StringArray};
use commitlog::{Entry, Hash, Op, Stored};
use common::clock::{Clock, SystemClock};
use common::store::{LocalStore, Metadata, PutCondition, StoreErrorKind};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;

use super::*;
use crate::testing::interposed::{Fate, interposed};
use crate::testing::{Zone, open_log};

const KEYS: &str = "_commits/events/0/keys";

impl Zone {
    fn auditor(&self, deep: bool) -> Auditor {
        Auditor { deep, now_ms: SystemClock.now_ms(), ..self.deep_auditor() }
    }

    /// Kinds of what a deep audit finds.
    async fn found(&self) -> Vec<&'static str> {
        let mut kinds: Vec<_> = self.audit().await.findings.iter().map(|finding| finding.kind.name()).collect();
        kinds.dedup();
        kinds
    }

    /// Writes a file anew with its rows changed, in a way that only reading them tells: its entry says its new size and
    /// hash, and every later entry follows.
    fn rewrite(&self, path: &Path, change: impl Fn(&RecordBatchOf) -> RecordBatchOf) {
        let builder = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(path).unwrap()).unwrap();
        let facts = builder.metadata().file_metadata().key_value_metadata().cloned().unwrap();
        let rows: Vec<RecordBatchOf> = builder.build().unwrap().map(|batch| change(&batch.unwrap())).collect();
        let facts = facts.into_iter().filter(|fact| fact.key != "ARROW:schema").collect();
        let properties = WriterProperties::builder().set_key_value_metadata(Some(facts)).build();
        let mut writer =
            ArrowWriter::try_new(fs::File::create(path).unwrap(), rows[0].schema(), Some(properties)).unwrap();
        rows.iter().for_each(|batch| writer.write(batch).unwrap());
        writer.close().unwrap();
        let name = Name::parse(path.to_str().unwrap()).unwrap();
        let body = fs::read(path).unwrap();
        self.without_checkpoints();
        let (mut before, mut after) = (None, None);
        for (n, path) in (0..).zip(self.entries().iter().rev()) {
            let sealed = Entry::open(&fs::read(path).unwrap(), n, before).unwrap();
            before = Some(sealed.hash);
            let mut entry = Entry { previous: after, ..sealed.entry };
            for op in &mut entry.ops {
                if let (Op::Commit(commit), FileId::Batch { from, k }) = (op, name.id)
                    && commit.from == from
                {
                    let stored = &mut commit.files[k as usize];
                    *stored = Stored { bytes: body.len() as u64, sha256: Hash::of(&body), ..*stored };
                }
            }
            let (bytes, sealed) = entry.seal().unwrap();
            after = Some(sealed.hash);
            fs::write(path, bytes).unwrap();
        }
    }
}

type RecordBatchOf = arrow_array::RecordBatch;

fn with_column(batch: &RecordBatchOf, name: &str, column: ArrayRef) -> RecordBatchOf {
    let index = batch.schema().index_of(name).unwrap();
    let mut columns = batch.columns().to_vec();
    columns[index] = column;
    RecordBatchOf::try_new(batch.schema(), columns).unwrap()
}

#[tokio::test]
async fn a_zone_that_is_as_it_was_written_is_sound_and_counted() {
    let zone = Zone::new().await;
    for deep in [false, true] {
        let audit = zone.auditor(deep).verify(Repair::No).await.unwrap();
        assert!(audit.is_sound(), "{:?}", audit.findings);
        let [partition] = &audit.partitions[..] else { panic!("{audit:?}") };
        assert_eq!((partition.rows, partition.duplicates, partition.rejected), (50, 5, 0));
        assert_eq!((partition.from, partition.batches, partition.files), (0, 3, 6));
        assert_eq!(partition.committed, Some(partition.to));
        assert_eq!(partition.recounted_batches, if deep { 3 } else { 0 });
    }
    let mut without_log = zone.auditor(true);
    without_log.log = None;
    assert!(without_log.verify(Repair::No).await.unwrap().is_sound());
}

#[tokio::test]
async fn what_is_under_way_is_no_fault() {
    let zone = Zone::new().await;
    zone.uncommit();
    zone.log.set_committed("g", "events", &BTreeMap::from([(0, 40)])).await.unwrap();
    let audit = zone.auditor(true).verify(Repair::Orphans).await.unwrap();
    assert!(audit.is_sound() && audit.removed.is_empty(), "{audit:?}");
    let partition = &audit.partitions[0];
    assert_eq!((partition.to, partition.open), (40, Some(OpenBatch { from: 40, to: 55 })));
    assert_eq!(partition.batches, 2);
}

fn watermark(zone: &Zone, from: &str, to: &str) {
    let path = zone.trusted("_watermark/events.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[tokio::test]
async fn each_damage_is_found_for_what_it_is() {
    type Damage = fn(&Zone);
    let damages: [(&[&str], Damage); 19] = [
        (&["commit-log-damaged"], |zone| fs::remove_file(&zone.entries()[2]).unwrap()),
        (&["commit-log-damaged"], |zone| {
            let entry = zone.entries().remove(2);
            let text = fs::read_to_string(&entry).unwrap();
            fs::write(&entry, text.replacen("\"writer\":\"", "\"writer\":\"x", 1)).unwrap();
        }),
        (&["watermark-wrong"], |zone| watermark(zone, "\"complete_before_ms\": 1", "\"complete_before_ms\": 9")),
        (&["watermark-wrong"], |zone| watermark(zone, "\"offset\": ", "\"offset\": 9")),
        (&["watermark-wrong"], |zone| watermark(zone, "{", "")),
        (&["file-missing"], |zone| fs::remove_file(&zone.files("events", ".parquet")[1]).unwrap()),
        (&["file-altered"], |zone| {
            let path = &zone.files("events", ".parquet")[1];
            let mut body = fs::read(path).unwrap();
            body.push(0);
            fs::write(path, body).unwrap();
        }),
        (&["file-altered"], |zone| {
            let path = &zone.files("events", ".parquet")[1];
            let length = fs::metadata(path).unwrap().len();
            fs::write(path, vec![0; usize::try_from(length).unwrap()]).unwrap();
        }),
        (&["file-orphaned"], |zone| {
            let path = &zone.files("events", ".parquet")[1];
            fs::copy(path, path.with_file_name("events-0-20-99.parquet")).unwrap();
        }),
        (&["file-unknown"], |zone| {
            let path = &zone.files("events", ".parquet")[1];
            fs::copy(path, path.with_file_name("part-0.parquet")).unwrap();
        }),
        (&["file-unknown"], |zone| {
            let path = &zone.files("events", ".parquet")[1];
            fs::copy(path, path.with_file_name("events-0-77-0.parquet")).unwrap();
        }),
        (&["key-run-damaged"], |zone| fs::remove_file(&zone.files(KEYS, ".run")[0]).unwrap()),
        (&["key-run-damaged"], |zone| {
            let runs = zone.files(KEYS, ".run");
            fs::copy(&runs[1], &runs[0]).unwrap();
        }),
        (&["commit-log-damaged"], |zone| {
            zone.without_checkpoints();
            fs::remove_file(&zone.entries()[1]).unwrap();
        }),
        (&["commit-log-damaged"], |zone| {
            zone.without_checkpoints();
            let entries = zone.entries();
            fs::copy(&entries[3], &entries[1]).unwrap();
        }),
        (&["commit-log-damaged"], |zone| {
            zone.without_checkpoints();
            let entry = zone.entries().remove(0);
            let text = fs::read_to_string(&entry).unwrap();
            let altered = text.replacen("\"read\":15", "\"read\":16", 1);
            assert_ne!(altered, text);
            fs::write(&entry, altered).unwrap();
        }),
        (&["commit-log-damaged"], |zone| {
            fs::write(zone.trusted("_commits/events/0/root.json"), "{}").unwrap();
        }),
        (&["commit-log-damaged"], |zone| {
            let checkpoint = zone.files("_commits/events/0/checkpoints", ".json").remove(0);
            let text = fs::read_to_string(&checkpoint).unwrap();
            fs::write(&checkpoint, text.replacen("\"clock_ms\":", "\"clock_ms\":9", 1)).unwrap();
        }),
        (&["rows-differ"], |zone| {
            let path = &zone.files("events", ".parquet")[1];
            zone.rewrite(path, |batch| {
                let other = StringArray::from_iter_values((0..batch.num_rows()).map(|_| "2"));
                with_column(batch, "data", Arc::new(other))
            });
            assert_eq!(zone.files("events", ".parquet").len(), 6);
        }),
    ];
    for (number, (kinds, damage)) in damages.iter().enumerate() {
        let zone = Zone::new().await;
        zone.checkpoint().await;
        damage(&zone);
        let found = zone.found().await;
        assert_eq!(found, *kinds, "damage {number}");
    }
}

#[tokio::test]
async fn a_key_that_stands_twice_is_found_without_a_log_too() {
    let zone = Zone::new().await;
    // The first rows of two batches become one event.
    for path in zone.files("events", ".parquet").iter().filter(|path| path.to_str().unwrap().contains("=d-t1")) {
        zone.rewrite(path, |batch| {
            let ids = batch.column_by_name("event_id").unwrap();
            let ids = arrow_array::cast::AsArray::as_string::<i32>(ids);
            let ids = (0..batch.num_rows()).map(|row| if row == 0 { "same" } else { ids.value(row) });
            with_column(batch, "event_id", Arc::new(StringArray::from_iter_values(ids)))
        });
    }
    assert!(zone.auditor(false).verify(Repair::No).await.unwrap().is_sound(), "only rows tell");
    let mut auditor = zone.auditor(true);
    auditor.log = None;
    let findings = auditor.verify(Repair::No).await.unwrap().findings;
    assert_eq!(findings.len(), 2, "{findings:?}");
    assert!(findings.iter().all(|finding| finding.kind == FindingKind::KeyRepeated), "{findings:?}");
}

#[tokio::test]
async fn a_repair_removes_orphans_and_nothing_else() {
    let zone = Zone::new().await;
    let path = &zone.files("events", ".parquet")[1];
    let orphan = path.with_file_name("events-0-20-99.parquet");
    let unknown = path.with_file_name("events-0-77-0.parquet");
    fs::copy(path, &orphan).unwrap();
    fs::copy(path, &unknown).unwrap();
    let audit = zone.auditor(false).verify(Repair::Orphans).await.unwrap();
    assert_eq!(audit.removed.len(), 1);
    assert!(!orphan.exists() && unknown.exists());
    assert_eq!(zone.found().await, ["file-unknown"]);
    assert_eq!(zone.files("events", ".parquet").len(), 7);
}

#[tokio::test]
async fn another_log_and_an_offset_beyond_the_end_are_found() {
    let zone = Zone::new().await;
    let mut auditor = zone.auditor(true);
    let directory = tempfile::tempdir().unwrap();
    auditor.log = Some(open_log(directory.path()).await);
    let kinds: Vec<_> =
        auditor.verify(Repair::No).await.unwrap().findings.into_iter().map(|found| found.kind).collect();
    assert_eq!(kinds, [FindingKind::LogReplaced]);
    zone.log.set_committed("g", "events", &BTreeMap::from([(0, 1_000)])).await.unwrap();
    assert_eq!(zone.found().await, ["offset-beyond-end"]);
}

#[tokio::test]
async fn a_window_that_was_changed_holds_from_the_batch_on_that_was_made_with_it() {
    let zone = Zone::new().await;
    let before_ms = SystemClock.now_ms();
    while SystemClock.now_ms() <= before_ms + 2 {
        tokio::task::yield_now().await;
    }
    zone.append(1).await;
    let mut distributor = zone.distributor();
    distributor.settings.layout.window_ms = 1;
    let report = distributor.run(&crate::EndOfInput::now(), &common::shutdown::Shutdown::new()).await.unwrap();
    assert_eq!((report.rows, report.duplicates), (50, 5), "what is older than the new window is no duplicate");
    let audit = zone.auditor(true).verify(Repair::No).await.unwrap();
    assert!(audit.is_sound(), "{:?}", audit.findings);
    assert_eq!(audit.partitions[0].recounted_batches, 6);
}

#[tokio::test]
async fn uploads_that_a_crash_left_behind_are_found_once_they_are_old_and_aborted_by_a_repair() {
    let zone = Zone::new().await;
    // What a killed process leaves: the temporary file of an upload, and one that lies where nobody's business is.
    let upload = zone.store().multipart("events/x/events-0-80-0.parquet", &Metadata::new()).await.unwrap();
    let foreign = LocalStore::new(zone.trusted("")).multipart("elsewhere/x", &Metadata::new()).await.unwrap();
    let mut auditor = zone.auditor(false);
    assert!(auditor.verify(Repair::Orphans).await.unwrap().is_sound(), "a young one may be a living distributor's");
    auditor.now_ms += 86_400_000 + 60_000;
    // A distributor that ended may still be putting a checkpoint, which is as old by this clock.
    let mut audit = auditor.verify(Repair::No).await.unwrap();
    for _ in 0..1_000 {
        if audit.findings.len() == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        audit = auditor.verify(Repair::No).await.unwrap();
    }
    let [finding] = &audit.findings[..] else { panic!("{audit:?}") };
    assert_eq!(finding.kind, FindingKind::UploadAbandoned, "{finding:?}");
    assert!(finding.place.starts_with("events/x/.") && audit.notes.is_empty(), "{audit:?}");
    let audit = auditor.verify(Repair::Orphans).await.unwrap();
    assert!(audit.is_sound() && audit.removed.is_empty(), "{audit:?}");
    assert_eq!(audit.aborted.len(), 1);
    assert!(auditor.verify(Repair::No).await.unwrap().is_sound());
    upload.complete(PutCondition::IfAbsent).await.unwrap_err();
    foreign.complete(PutCondition::IfAbsent).await.unwrap();
}

#[tokio::test]
async fn a_store_that_does_not_tell_of_uploads_is_noted_and_no_fault() {
    let zone = Zone::new().await;
    let with = |call, fate| interposed(zone.store(), move |made, _| if made == call { fate } else { Fate::Pass });
    let mut auditor = zone.auditor(false);
    for kind in [StoreErrorKind::Denied, StoreErrorKind::Unsupported, StoreErrorKind::Other] {
        auditor.store = with("list uploads", Fate::Fail(kind));
        let audit = auditor.verify(Repair::No).await.unwrap();
        assert!(audit.is_sound(), "{audit:?}");
        assert!(audit.notes.len() == 1 && audit.notes[0].contains("s3:ListBucketMultipartUploads"), "{audit:?}");
    }
    auditor.store = with("list uploads", Fate::Fail(StoreErrorKind::Transient));
    assert!(auditor.verify(Repair::No).await.is_err(), "a look that failed is not 'none'");
    let _upload = zone.store().multipart("events/x/events-0-80-0.parquet", &Metadata::new()).await.unwrap();
    auditor.now_ms += 2 * 86_400_000;
    auditor.store = with("abort upload", Fate::Fail(StoreErrorKind::Denied));
    let audit = auditor.verify(Repair::Orphans).await.unwrap();
    assert!(audit.aborted.is_empty() && audit.findings[0].message.contains("s3:AbortMultipartUpload"), "{audit:?}");
    auditor.store = with("abort upload", Fate::TimeOut);
    assert!(auditor.verify(Repair::Orphans).await.is_err());
    assert!(auditor.verify(Repair::No).await.unwrap().is_sound(), "it was aborted all the same");
}
