//! Rewrites of a small trusted zone, cut short at every store call.

mod rivals;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use common::config::Compression;
use common::event::ColumnRule;
use common::log::Log;
use common::shutdown::Shutdown;
use common::store::Store;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;
use crate::batch::testing::{ENCODING, layout};
use crate::testing::{Faulty, Zone, to_its_last_effect};
use crate::{Audit, Auditor, EndOfInput, PartitionReplay, Repair, ReplayTarget};

const SNAPPY: Encoding = Encoding { compression: Compression::Snappy, bloom_filter: true };

fn other_zone() -> Layout {
    // Fourteen hours ahead: what had no zone falls on the day before.
    Layout { timezone: "Pacific/Kiritimati".into(), ..layout() }
}

fn replayer(zone: &Zone, store: Arc<dyn Store>) -> Replayer {
    Replayer { store, log: zone.log.clone(), topic: "events".into(), group: "g".into() }
}

fn rewriter(zone: &Zone, layout: Layout, encoding: Encoding) -> Rewriter {
    let on_batch = Box::new(|_| {});
    let replayer = replayer(zone, zone.store());
    Rewriter {
        replayer,
        layout,
        encoding,
        window_memory: 1_000_000_000,
        batch_memory: 5_000,
        scratch: Scratch::new(zone.folder.path()),
        all: false,
        require_all: false,
        now_ms: 1,
        on_batch,
    }
}

async fn rewrite(rewriter: &Rewriter) -> Result<PartitionRewrite, ReplayError> {
    let plans = rewriter.plan(ReplayTarget::Earliest, None).await?;
    Ok(rewriter.apply(&plans).await?.remove(0))
}

async fn audit(zone: &Zone) -> Audit {
    audit_and(zone, Repair::No).await
}

async fn audit_and(zone: &Zone, repair: Repair) -> Audit {
    let auditor = Auditor {
        store: zone.store(),
        log: Some(zone.log.clone()),
        topic: "events".into(),
        group: "g".into(),
        encoding: ENCODING,
        window_memory: 1_000_000_000,
        batch_memory: 5_000,
        scratch: Scratch::new(zone.folder.path()),
        deep: true,
        uploads_older_than: std::time::Duration::from_secs(86_400),
        now_ms: 0,
        on_batch: Box::new(|_| {}),
    };
    auditor.verify(repair).await.unwrap()
}

async fn assert_sound(zone: &Zone) {
    let audit = audit(zone).await;
    assert!(audit.is_sound(), "{:?}", audit.findings);
    let [partition] = &audit.partitions[..] else { panic!("{audit:?}") };
    assert_eq!((partition.rewrite, partition.recounted_batches), (None, partition.batches));
    assert!(!zone.trusted("_batches/events/0/rewrite.json").exists());
    let staged = zone.trusted("_batches/events/0/staged");
    assert!(!staged.exists() || zone.files("_batches/events/0/staged", "").is_empty());
}

/// Offsets and ids of all rows that an engine sees; panics if an offset stands twice.
fn rows(zone: &Zone) -> BTreeSet<(i64, String)> {
    let mut rows = BTreeSet::new();
    for path in zone.files("events", ".parquet") {
        let reader = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(&path).unwrap()).unwrap();
        for batch in reader.build().unwrap() {
            let batch = batch.unwrap();
            let ids = batch.column_by_name("event_id").unwrap().as_string::<i32>().clone();
            let offsets = batch.column_by_name("_offset").unwrap().as_primitive::<Int64Type>().clone();
            for row in 0..batch.num_rows() {
                let is_new = rows.insert((offsets.value(row), ids.value(row).to_owned()));
                assert!(is_new, "offset {} stands twice, also in {}", offsets.value(row), path.display());
            }
        }
    }
    rows
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

async fn distribute(zone: &Zone, layout: &Layout) -> Result<crate::DistributeReport, crate::DistributeError> {
    let mut distributor = zone.distributor();
    distributor.settings.layout = layout.clone();
    distributor.run(&EndOfInput::now(), &Shutdown::new()).await
}

#[tokio::test]
async fn batches_that_are_as_wanted_are_left_alone_unless_all_are_asked_for() {
    let zone = Zone::new().await;
    let before = zone.files("", "");
    let mut rewriter = rewriter(&zone, layout(), ENCODING);
    let outcome = rewrite(&rewriter).await.unwrap();
    assert_eq!((outcome.batches, outcome.rewritten, outcome.not_in_log), (3, 0, 0));
    assert!(outcome.differences.is_empty());
    assert_eq!(zone.files("", ""), before, "not even a document is put");
    let rows_before = rows(&zone);
    rewriter.all = true;
    let outcome = rewrite(&rewriter).await.unwrap();
    assert_eq!((outcome.rewritten, outcome.files_removed, outcome.files_made), (3, 6, 6));
    assert_eq!(rows(&zone), rows_before);
    assert_sound(&zone).await;
}

#[tokio::test]
async fn every_row_stands_once_before_and_after_under_whichever_settings() {
    let zone = Zone::new().await;
    let expected = rows(&zone);
    assert_eq!(expected.len(), 50);
    let mut number = 0;
    for (layout, encoding, files) in [
        (Layout { max_rows_per_file: 5, ..layout() }, ENCODING, 12),
        (other_zone(), ENCODING, 6),
        (other_zone(), SNAPPY, 6),
        (layout(), ENCODING, 6),
    ] {
        number += 1;
        let before = zone.files("events", ".parquet");
        let rewriter = Rewriter { now_ms: number, ..rewriter(&zone, layout, encoding) };
        let planned = rewriter.plan(ReplayTarget::Earliest, None).await.unwrap().remove(0);
        assert_eq!(zone.files("events", ".parquet"), before, "a plan changes nothing");
        assert!(!planned.differences.is_empty());
        let outcome = rewrite(&rewriter).await.unwrap();
        let counts = (outcome.rewritten, outcome.files_removed, outcome.files_made, outcome.rows_made);
        assert_eq!(counts, (3, before.len() as u64, files, 50), "rewrite {number}");
        assert_eq!(planned, PartitionRewrite { files_made: 0, rows_made: 0, ..outcome }, "it came as planned");
        assert_eq!(rows(&zone), expected);
        let after = zone.files("events", ".parquet");
        assert_eq!(after.len() as u64, files);
        assert!(after.iter().all(|path| path.to_str().unwrap().contains(&format!("-r{number}-"))), "{after:?}");
        assert_sound(&zone).await;
        assert!(!rewriter.plan(ReplayTarget::Earliest, None).await.unwrap()[0].is_due(), "nothing is left to do");
    }
}

#[tokio::test]
async fn another_time_zone_moves_rows_to_their_days_and_new_batches_know_the_keys() {
    let zone = Zone::new().await;
    rewrite(&rewriter(&zone, other_zone(), ENCODING)).await.unwrap();
    let files = zone.files("events", ".parquet");
    assert!(files.iter().all(|path| path.to_str().unwrap().contains("/day=13/")), "{files:?}");
    zone.append(1).await;
    let report = distribute(&zone, &other_zone()).await.unwrap();
    assert_eq!((report.rows, report.duplicates), (0, 55), "all of them are known, under their new times");
    assert_sound(&zone).await;
}

#[tokio::test]
async fn a_rewrite_may_begin_in_the_middle_as_if_settings_had_changed_there() {
    let zone = Zone::new().await;
    let expected = rows(&zone);
    let rewriter = rewriter(&zone, other_zone(), ENCODING);
    let plans = rewriter.plan(ReplayTarget::Offset(25), None).await.unwrap();
    assert_eq!((plans[0].from, plans[0].batches, plans[0].rewritten), (20, 2, 2));
    rewriter.apply(&plans).await.unwrap();
    let files = zone.files("events", ".parquet");
    let moved = files.iter().filter(|path| path.to_str().unwrap().contains("/day=13/")).count();
    assert_eq!((files.len(), moved), (6, 4));
    assert_eq!(rows(&zone), expected);
    assert_sound(&zone).await;
}

#[tokio::test]
async fn a_changed_window_decides_anew_what_is_a_duplicate() {
    let zone = Zone::new().await;
    let clock = common::clock::SystemClock;
    let before_ms = common::clock::Clock::now_ms(&clock);
    while common::clock::Clock::now_ms(&clock) <= before_ms + 2 {
        tokio::task::yield_now().await;
    }
    zone.append(1).await;
    zone.distribute().await;
    let once = rows(&zone);
    let narrow = Layout { window_ms: 1, ..layout() };
    rewrite(&rewriter(&zone, narrow.clone(), ENCODING)).await.unwrap();
    assert_eq!((once.len(), rows(&zone).len()), (50, 100), "they came again after more than the new window");
    assert_sound(&zone).await;
    let again = Rewriter { now_ms: 2, ..rewriter(&zone, layout(), ENCODING) };
    rewrite(&again).await.unwrap();
    assert_eq!(rows(&zone), once);
    assert_sound(&zone).await;
    // From the fourth batch on only, as if the window had been changed there.
    let later = Rewriter { now_ms: 3, ..rewriter(&zone, narrow, ENCODING) };
    let plans = later.plan(ReplayTarget::Offset(56), None).await.unwrap();
    assert_eq!((plans[0].batches, plans[0].rewritten), (3, 3));
    later.apply(&plans).await.unwrap();
    assert_eq!(rows(&zone).len(), 100);
    assert_sound(&zone).await;
}

#[tokio::test]
async fn files_of_the_newest_revision_are_made_again_after_an_offset_reset() {
    let zone = Zone::new().await;
    rewrite(&rewriter(&zone, other_zone(), ENCODING)).await.unwrap();
    let small = Layout { max_rows_per_file: 5, ..other_zone() };
    rewrite(&Rewriter { now_ms: 2, ..rewriter(&zone, small, SNAPPY) }).await.unwrap();
    let files = zone.files("events", ".parquet");
    let before: Vec<_> = files.iter().map(|path| fs::read(path).unwrap()).collect();
    for path in files.iter().step_by(3) {
        fs::remove_file(path).unwrap();
    }
    let found = audit(&zone).await.findings;
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found.iter().all(|finding| finding.kind == crate::FindingKind::FileMissing), "{found:?}");
    let replayer = replayer(&zone, zone.store());
    let plans = replayer.plan(ReplayTarget::Earliest, None).await.unwrap();
    let [PartitionReplay { batches, missing, restorable, .. }] = plans[..] else { panic!("{plans:?}") };
    assert_eq!((batches, missing, restorable), (3, 4, 4));
    replayer.apply(&plans).await.unwrap();
    zone.distribute().await;
    assert_eq!(zone.files("events", ".parquet"), files, "the same names, and no others");
    let after: Vec<_> = files.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(before == after, "the same bytes, though new batches are encoded otherwise");
    assert_sound(&zone).await;
}

#[tokio::test]
async fn a_file_that_a_revision_replaced_and_that_is_there_again_is_found_and_removed() {
    let zone = Zone::new().await;
    let old = zone.files("events", ".parquet").remove(1);
    let body = fs::read(&old).unwrap();
    rewrite(&rewriter(&zone, other_zone(), ENCODING)).await.unwrap();
    fs::write(&old, body).unwrap();
    let found = audit(&zone).await.findings;
    assert!(found.iter().any(|finding| finding.kind == crate::FindingKind::FileOrphaned), "{found:?}");
    let repaired = audit_and(&zone, Repair::Orphans).await;
    assert_eq!(repaired.removed.len(), 1, "{repaired:?}");
    assert_sound(&zone).await;
}

#[tokio::test]
async fn what_the_log_no_longer_holds_stays_as_it_is() {
    let zone = Zone::new().await;
    zone.append(1).await;
    zone.distribute().await;
    let expected = rows(&zone);
    zone.log.trim("events", 0, 55, i64::MAX).await.unwrap();
    assert_eq!(zone.log.bounds("events").await.unwrap()[&0].earliest, 55, "the log lets go of what came first");
    let small = Layout { max_rows_per_file: 5, ..layout() };
    let strict = Rewriter { require_all: true, ..rewriter(&zone, small.clone(), ENCODING) };
    let refused = rewrite(&strict).await.unwrap_err().to_string();
    assert!(refused.contains("no longer holds the records"), "{refused}");
    let outcome = rewrite(&rewriter(&zone, small, ENCODING)).await.unwrap();
    assert_eq!((outcome.batches, outcome.not_in_log, outcome.rewritten), (6, 3, 3));
    assert_eq!(rows(&zone), expected);
    let audit = audit(&zone).await;
    assert!(audit.is_sound(), "{:?}", audit.findings);
}

#[tokio::test]
async fn a_batch_that_is_not_complete_is_finished_first() {
    let zone = Zone::new().await;
    fs::remove_file(&zone.chain("done")[0]).unwrap();
    let refused = rewrite(&rewriter(&zone, other_zone(), ENCODING)).await.unwrap_err().to_string();
    assert!(refused.contains("is not complete yet"), "{refused}");
    zone.distribute().await;
    rewrite(&rewriter(&zone, other_zone(), ENCODING)).await.unwrap();
    assert_sound(&zone).await;
}

/// Ends a rewrite at the call with this number, before or after its effect. False if there was no such call.
fn cut_short(zone: &Zone, wanted: &Layout, calls: i64, after_effect: bool) -> bool {
    let (store, faulty) = Faulty::over(zone.store(), calls, after_effect);
    let rewriter = Rewriter { replayer: replayer(zone, store), ..rewriter(zone, wanted.clone(), ENCODING) };
    let outcome = to_its_last_effect(async || rewrite(&rewriter).await);
    assert_eq!(outcome.is_err(), faulty.has_failed(), "{outcome:?}");
    faulty.has_failed()
}

#[tokio::test]
async fn a_rewrite_that_is_cut_short_at_any_call_is_finished_by_the_next() {
    let zone = Zone::new().await;
    let expected = rows(&zone);
    let wanted = Layout { max_rows_per_file: 8, ..other_zone() };
    let pristine = tempfile::tempdir().unwrap();
    copy(&zone.trusted(""), pristine.path());
    let mut unfinished = 0;
    for after_effect in [false, true] {
        for calls in 0.. {
            fs::remove_dir_all(zone.trusted("")).unwrap();
            copy(pristine.path(), &zone.trusted(""));
            if !cut_short(&zone, &wanted, calls, after_effect) {
                assert!(calls > 60, "only {calls} calls");
                break;
            }
            let seen = rows(&zone);
            assert!(seen.is_subset(&expected), "call {calls}");
            let found = audit(&zone).await;
            assert!(found.is_sound(), "call {calls}: {:?}", found.findings);
            let is_unfinished = found.partitions[0].rewrite.is_some();
            if calls % 2 == 0 {
                // Somebody starts a distributor instead.
                match distribute(&zone, &wanted).await {
                    Ok(report) => assert!(!is_unfinished && report.rows == 0, "call {calls}"),
                    Err(error) => {
                        assert!(
                            is_unfinished && error.to_string().contains("replay --rewrite"),
                            "call {calls}: {error}"
                        );
                    }
                }
                assert_eq!(rows(&zone), seen, "it has changed nothing");
            }
            unfinished += u32::from(is_unfinished);
            let later = Rewriter { now_ms: 2, ..rewriter(&zone, wanted.clone(), ENCODING) };
            let outcome = rewrite(&later).await.unwrap();
            assert_eq!(outcome.unfinished, is_unfinished, "call {calls}");
            assert_eq!(rows(&zone), expected, "call {calls}");
            assert_sound(&zone).await;
            let files = zone.files("events", ".parquet");
            assert!(files.iter().all(|path| path.to_str().unwrap().contains("-r1-")), "call {calls}: {files:?}");
            assert_eq!(zone.files("_batches/events/0/revisions", ".json").len(), 3, "call {calls}");
        }
    }
    assert!(unfinished > 60, "{unfinished}");
}

#[tokio::test]
async fn batches_after_one_that_got_other_keys_are_made_again_too() {
    let zone = Zone::new().await;
    zone.append(1).await;
    distribute(&zone, &other_zone()).await.unwrap();
    assert_eq!(rows(&zone).len(), 100, "under the new times none of them was known");
    let pristine = tempfile::tempdir().unwrap();
    copy(&zone.trusted(""), pristine.path());
    let mut resumed = 0;
    for calls in (0..).step_by(9) {
        fs::remove_dir_all(zone.trusted("")).unwrap();
        copy(pristine.path(), &zone.trusted(""));
        let is_cut_short = cut_short(&zone, &other_zone(), calls, false);
        resumed += u32::from(!zone.files("_batches/events/0", "-000001.json").is_empty() && is_cut_short);
        rewrite(&Rewriter { now_ms: 2, ..rewriter(&zone, other_zone(), ENCODING) }).await.unwrap();
        assert_eq!(rows(&zone).len(), 50, "call {calls}: the later ones are duplicates now, in batches without a file");
        assert_sound(&zone).await;
        if !is_cut_short {
            break;
        }
    }
    assert!(resumed > 5, "{resumed}");
}

#[tokio::test]
async fn what_a_rewrite_left_half_done_is_settled_before_it_is_replaced() {
    let zone = Zone::new().await;
    let expected = rows(&zone);
    let pristine = tempfile::tempdir().unwrap();
    copy(&zone.trusted(""), pristine.path());
    let mut half_done = 0;
    for calls in (0..).step_by(2) {
        fs::remove_dir_all(zone.trusted("")).unwrap();
        copy(pristine.path(), &zone.trusted(""));
        if !cut_short(&zone, &other_zone(), calls, false) {
            break;
        }
        // As if another rewrite had taken its place at the moment of its decision.
        let told = zone.trusted("_batches/events/0/rewrite.json");
        if told.exists() {
            fs::remove_file(told).unwrap();
        }
        half_done += u32::from(!audit(&zone).await.is_sound());
        rewrite(&Rewriter { now_ms: 2, ..rewriter(&zone, layout(), SNAPPY) }).await.unwrap();
        assert_eq!(rows(&zone), expected, "call {calls}");
        assert_sound(&zone).await;
    }
    assert!(half_done > 3, "only {half_done} are found to be so");
}

#[tokio::test]
async fn an_unfinished_rewrite_gives_way_to_one_with_other_settings() {
    let zone = Zone::new().await;
    let expected = rows(&zone);
    // So that one batch is settled and another is not.
    while zone.files("_batches/events/0", "-000001.json").is_empty() {
        assert!(cut_short(&zone, &other_zone(), 40, false));
    }
    assert!(zone.trusted("_batches/events/0/rewrite.json").exists());
    let other = Rewriter { now_ms: 2, ..rewriter(&zone, layout(), SNAPPY) };
    let later = other.plan(ReplayTarget::Offset(25), None).await.unwrap_err().to_string();
    assert!(later.contains("--to 0"), "{later}");
    let outcome = rewrite(&other).await.unwrap();
    assert!(outcome.unfinished && outcome.rewritten == 3, "{outcome:?}");
    assert_eq!(rows(&zone), expected);
    assert_sound(&zone).await;
}

#[tokio::test]
async fn columns_are_added_to_what_was_written_before() {
    let zone = Zone::new().await;
    let expected = rows(&zone);
    let columns = vec![ColumnRule {
        name: "value".into(),
        pointer: String::new(),
        column_type: "int".into(),
        events: "*".into(),
    }];
    let outcome = rewrite(&rewriter(&zone, Layout { columns, ..layout() }, ENCODING)).await.unwrap();
    assert_eq!((outcome.batches, outcome.rewritten), (3, 3));
    assert_eq!(rows(&zone), expected, "the same events");
    for file in zone.files("events", ".parquet") {
        let file = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(file).unwrap()).unwrap();
        assert!(file.schema().column_with_name("value").is_some());
    }
    assert_sound(&zone).await;
}
