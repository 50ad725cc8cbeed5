//! Compactions of a small trusted zone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::config::Compression;
use common::log::{Log, RecordBatch};
use common::shutdown::Shutdown;
use common::store::{Store, StoreErrorKind};

use tokio::sync::OnceCell;

use super::*;
use crate::batch::testing::{ENCODING, event, layout};
use crate::layout::Layout;
use crate::testing::interposed::{Fate, interposed};
use crate::testing::tables::{assert_only_hidden, copy, rows};
use crate::testing::{Faulty, Zone, to_its_last_effect};
use crate::{Companion, Distributor, EndOfInput, FindingKind, ReplayTarget, Rewriter, Scratch};

const RESTED: Policy = Policy { target_bytes: 1 << 30, rest_ms: 0 };

fn compactor(zone: &Zone, policy: Policy) -> Compactor {
    Compactor { policy, ..zone.compactor() }
}

async fn compact(compactor: &Compactor) -> Result<PartitionCompaction, CompactError> {
    let plans = compactor.plan(None).await?;
    Ok(compactor.apply(&plans).await?.remove(0))
}

/// Many batches, in each of which several folders have files.
async fn zone(batches: usize) -> Zone {
    let zone = Zone::new().await;
    for batch in 0..batches {
        append(&zone, batch * 10..batch * 10 + 10).await;
        zone.distribute().await;
    }
    zone
}

async fn append(zone: &Zone, numbers: std::ops::Range<usize>) {
    let mut records = RecordBatch::new();
    for number in numbers {
        let (day, kind) = (14 + number % 2, number % 3);
        let value = event(
            &format!("u{number}"),
            &format!("2021-01-{day}T10:15:30"),
            "d",
            &format!("t{kind}"),
            &number.to_string(),
        );
        records.push(b"key", Some(value.as_bytes()), |_| {}).unwrap();
    }
    let mut writer = zone.log.writer("w").await.unwrap();
    writer.begin().await.unwrap();
    writer.append("events", 0, &records).await.unwrap();
    writer.commit().await.unwrap();
}

fn tables(zone: &Zone) -> Vec<PathBuf> {
    [zone.files("events", ".parquet"), zone.files("rejected", ".parquet")].concat()
}

fn folders(zone: &Zone) -> BTreeSet<PathBuf> {
    tables(zone).iter().map(|path| path.parent().unwrap().to_owned()).collect()
}

fn staged(zone: &Zone) -> Vec<PathBuf> {
    [zone.files("events/_staged", ""), zone.files("rejected/_staged", "")].concat()
}

async fn assert_sound(zone: &Zone) {
    zone.assert_sound().await;
    assert!(staged(zone).is_empty(), "{:?}", staged(zone));
}

#[tokio::test]
async fn a_folder_that_has_rested_has_one_file_with_every_row_once() {
    let zone = zone(5).await;
    let (before, expected) = (tables(&zone), rows(&zone));
    let compactor = compactor(&zone, RESTED);
    let plan = compactor.plan(None).await.unwrap().remove(0);
    assert_eq!((before.clone(), &expected), (tables(&zone), &rows(&zone)), "a plan changes nothing");
    assert_eq!(plan.files_before, before.len() as u64);
    let outcome = compact(&compactor).await.unwrap();
    assert_eq!(rows(&zone), expected);
    assert_eq!(tables(&zone).len(), folders(&zone).len(), "{:?}", tables(&zone));
    assert_eq!((outcome.files_after, plan.files_after), (folders(&zone).len() as u64, folders(&zone).len() as u64));
    assert_eq!((outcome.files_made, outcome.files_removed), (plan.files_made, plan.files_removed));
    assert!(outcome.bytes_made > 0 && outcome.skipped.is_empty(), "{outcome:?}");
    assert_sound(&zone).await;
    let again = compact(&compactor).await.unwrap();
    assert!(!again.is_due() && rows(&zone) == expected, "{again:?}");
}

/// What comes later is merged among itself, and beside large files stays small.
#[tokio::test]
async fn later_batches_know_the_keys_of_merged_ones_and_are_merged_later() {
    let zone = zone(3).await;
    compact(&compactor(&zone, RESTED)).await.unwrap();
    let expected = rows(&zone);
    append(&zone, 0..30).await;
    zone.distribute().await;
    assert_eq!(rows(&zone), expected, "all of them are duplicates");
    append(&zone, 100..140).await;
    zone.distribute().await;
    let expected = rows(&zone);
    compact(&compactor(&zone, RESTED)).await.unwrap();
    assert_eq!(rows(&zone), expected);
    assert_sound(&zone).await;
}

/// What is older is neither merged nor read.
#[tokio::test]
async fn batches_that_ended_before_a_time_are_left_alone() {
    let zone = zone(6).await;
    let expected = rows(&zone);
    let commits = zone.state().await;
    let clocks: Vec<(i64, i64)> = commits.spans.iter().map(|(from, span)| (*from, clock_of(span))).collect();
    let (first, since_ms) = clocks[5];
    assert!(clocks[4].1 < since_ms, "{clocks:?}");
    let old = |paths: Vec<PathBuf>| -> Vec<PathBuf> {
        let begin = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().split('-').nth(2).unwrap().to_owned();
        paths.into_iter().filter(|path| begin(path).parse::<i64>().is_ok_and(|from| from < first)).collect()
    };
    let before = old(tables(&zone));
    let compactor = Compactor { since_ms: Some(since_ms), ..compactor(&zone, RESTED) };
    let outcome = compactor.round(0).await.unwrap();
    assert!(outcome.files_made > 0, "{outcome:?}");
    assert_eq!((old(tables(&zone)), rows(&zone)), (before.clone(), expected.clone()));
    let merged = tables(&zone).len() - before.len();
    assert_eq!(merged, folders(&zone).len(), "one of each folder");
    assert_sound(&zone).await;
    let nothing = Compactor { since_ms: Some(i64::MAX), ..self::compactor(&zone, RESTED) }.round(0).await.unwrap();
    assert!(!nothing.is_due(), "{nothing:?}");
    compact(&self::compactor(&zone, RESTED)).await.unwrap();
    assert_eq!((tables(&zone).len(), rows(&zone)), (folders(&zone).len(), expected));
}

fn clock_of(span: &commitlog::Span) -> i64 {
    let commitlog::Fate::Batch(batch) = &span.fate else { panic!("a batch") };
    batch.clock_ms
}

fn background(zone: &Zone, distributor: &Distributor) -> Arc<dyn Companion> {
    Arc::new(Background {
        store: zone.store(),
        host: Host::system(),
        clock: distributor.clock.clone(),
        metrics: distributor.metrics.clone(),
        topic: "events".into(),
        group: "g".into(),
        encoding: ENCODING,
        policy: RESTED,
        every: Duration::from_millis(20),
        pace: Pace::new(Some(1_000_000_000)),
        scratch: Scratch::new(zone.folder.path()),
        tables: None,
        fence: OnceCell::new(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_distributor_merges_the_small_files_of_its_partitions_meanwhile() {
    let zone = zone(5).await;
    let mut distributor = zone.distributor();
    distributor.settings.once = false;
    distributor.settings.max_rows = 5;
    distributor.companions.push(background(&zone, &distributor));
    append(&zone, 50..100).await;
    let batches = zone.committed(0) + 10;
    let (shutdown, end) = (Shutdown::new(), EndOfInput::later());
    let running = async { distributor.run(&end, &shutdown).await.unwrap() };
    let merged = async {
        let begun = Instant::now();
        while zone.committed(0) < batches || tables(&zone).len() > folders(&zone).len() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", tables(&zone));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        shutdown.trigger();
    };
    tokio::join!(running, merged);
    // The last round may have been cut short.
    compact(&compactor(&zone, RESTED)).await.unwrap();
    let found: BTreeSet<String> = rows(&zone).into_iter().map(|(_, id)| id).collect();
    assert_eq!(found.len(), rows(&zone).len(), "no event twice");
    assert!((0..100).all(|number| found.contains(&format!("u{number}"))), "{found:?}");
    assert_sound(&zone).await;
}

/// The same inputs make the same bytes.
#[tokio::test]
async fn outputs_are_the_same_whoever_makes_them() {
    let zone = zone(4).await;
    let pristine = tempfile::tempdir().unwrap();
    copy(&zone.trusted(""), pristine.path());
    let mut made = Vec::new();
    for _ in 0..2 {
        fs::remove_dir_all(zone.trusted("")).unwrap();
        copy(pristine.path(), &zone.trusted(""));
        compact(&compactor(&zone, RESTED)).await.unwrap();
        made.push(tables(&zone).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect::<Vec<_>>());
    }
    assert_eq!(made[0], made[1]);
}

#[tokio::test]
async fn a_compaction_that_is_cut_short_at_any_call_is_finished_by_the_next() {
    let zone = zone(3).await;
    let expected = rows(&zone);
    let pristine = tempfile::tempdir().unwrap();
    copy(&zone.trusted(""), pristine.path());
    let (mut unfinished, mut hidden) = (0, 0);
    for after_effect in [false, true] {
        for calls in (0..).step_by(3) {
            fs::remove_dir_all(zone.trusted("")).unwrap();
            copy(pristine.path(), &zone.trusted(""));
            let (store, faulty) = Faulty::over(zone.store(), calls, after_effect);
            let cut = Compactor { store, ..compactor(&zone, RESTED) };
            let ended = to_its_last_effect(async || compact(&cut).await);
            assert_eq!(ended.is_err(), faulty.has_failed(), "{ended:?}");
            if !faulty.has_failed() {
                assert!(calls > 60, "only {calls} calls");
                break;
            }
            assert!(rows(&zone).is_subset(&expected), "call {calls}");
            let missing = expected.len() - rows(&zone).len();
            hidden += u32::from(missing > 0);
            assert_only_hidden(&zone.audit().await, missing);
            unfinished += u32::from(compactor(&zone, RESTED).plan(None).await.unwrap()[0].unfinished);
            compact(&compactor(&zone, RESTED)).await.unwrap();
            assert_eq!(rows(&zone), expected, "call {calls}");
            assert_eq!(tables(&zone).len(), folders(&zone).len(), "call {calls}");
            assert_sound(&zone).await;
        }
    }
    assert!(unfinished > 10 && hidden > 2, "{unfinished} {hidden}");
}

/// However many they are.
#[tokio::test]
async fn many_missing_files_stop_no_other_folder() {
    let zone = zone(30).await;
    let folder = zone.files("events", ".parquet")[0].parent().unwrap().to_owned();
    let gone: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(gone.len() > 25, "{}", gone.len());
    gone.iter().for_each(|path| fs::remove_file(path).unwrap());
    let entries = zone.entries().len();
    let expected = rows(&zone);
    let outcome = compact(&compactor(&zone, RESTED)).await.unwrap();
    assert_eq!(outcome.skipped.len(), gone.len(), "{outcome:?}");
    assert_eq!(rows(&zone), expected);
    assert_eq!(tables(&zone).len(), folders(&zone).len(), "every other folder has one file");
    assert!(zone.entries().len() < entries + 15, "one replace is given up, not one a file");
}

/// Files of two event types that have one folder, of which nothing shows that before they are read.
#[tokio::test]
async fn files_that_cannot_be_in_one_file_stay_and_the_rest_is_merged() {
    let zone = zone(3).await;
    let mut records = RecordBatch::new();
    let kinds = [("a-b", "c"), ("a", "b-c"), ("a-b", "c"), ("a-b", "c"), ("a", "b-c"), ("a-b", "c")];
    for (number, (domain, kind)) in kinds.into_iter().enumerate() {
        let value = event(&format!("m{number}"), "2021-01-14T10:15:30", domain, kind, "0");
        records.push(b"key", Some(value.as_bytes()), |_| {}).unwrap();
    }
    let mut distributor = zone.distributor();
    distributor.settings.layout = Layout { max_rows_per_file: 4, ..layout() };
    for _ in 0..2 {
        let mut writer = zone.log.writer("w").await.unwrap();
        writer.begin().await.unwrap();
        writer.append("events", 0, &records).await.unwrap();
        writer.commit().await.unwrap();
        distributor.settings.layout.window_ms = 0;
        distributor.run(&EndOfInput::now(), &Shutdown::new()).await.unwrap();
    }
    let expected = rows(&zone);
    let of_both = |zone: &Zone| -> Vec<PathBuf> {
        tables(zone).into_iter().filter(|path| path.to_str().unwrap().contains("=a-b-c")).collect()
    };
    let before = of_both(&zone);
    assert!(before.len() >= 4, "{before:?}");
    let outcome = compact(&compactor(&zone, RESTED)).await.unwrap();
    assert!(outcome.skipped.is_empty() && outcome.files_made > 0, "{outcome:?}");
    assert_eq!((of_both(&zone), rows(&zone)), (before, expected));
    assert_sound(&zone).await;
    assert!(!compactor(&zone, RESTED).plan(None).await.unwrap()[0].unfinished);
}

#[tokio::test]
async fn what_is_missing_or_altered_is_named_and_the_rest_is_merged() {
    let zone = zone(5).await;
    let files = zone.files("events", ".parquet");
    let folder = files[0].parent().unwrap();
    let of_folder: Vec<&PathBuf> = files.iter().filter(|path| path.starts_with(folder)).collect();
    fs::remove_file(of_folder[1]).unwrap();
    let mut altered = fs::read(of_folder[3]).unwrap();
    altered[20] ^= 1;
    fs::write(of_folder[3], altered).unwrap();
    let kept = fs::read(of_folder[3]).unwrap();
    let outcome = compact(&compactor(&zone, RESTED)).await.unwrap();
    let named: Vec<bool> =
        [1, 3].map(|n| outcome.skipped.iter().any(|path| of_folder[n].ends_with(path))).into_iter().collect();
    assert!(named.iter().all(|is_named| *is_named) && outcome.skipped.len() == 2, "{outcome:?}");
    assert_eq!(fs::read(of_folder[3]).unwrap(), kept, "it is left for a person");
    let kinds: Vec<FindingKind> = zone.audit().await.findings.into_iter().map(|finding| finding.kind).collect();
    assert!(kinds.contains(&FindingKind::FileMissing) && kinds.contains(&FindingKind::FileAltered), "{kinds:?}");
    assert!(outcome.files_after < outcome.files_before / 2, "{outcome:?}");
}

#[tokio::test]
async fn files_of_other_layouts_are_not_merged_with_these() {
    let zone = zone(3).await;
    let mut distributor = zone.distributor();
    distributor.settings.layout = Layout { max_types: 77, ..layout() };
    append(&zone, 500..540).await;
    distributor.run(&EndOfInput::now(), &Shutdown::new()).await.unwrap();
    append(&zone, 600..640).await;
    distributor.run(&EndOfInput::now(), &Shutdown::new()).await.unwrap();
    let expected = rows(&zone);
    compact(&compactor(&zone, RESTED)).await.unwrap();
    assert_eq!(rows(&zone), expected);
    assert_sound(&zone).await;
    let of_events = zone.files("events", ".parquet");
    let folders: BTreeSet<&Path> = of_events.iter().map(|path| path.parent().unwrap()).collect();
    assert_eq!(of_events.len(), 2 * folders.len(), "one file of each layout");
}

#[tokio::test]
async fn a_distributor_goes_on_beside_compactions_and_rewrites() {
    let zone = zone(3).await;
    let distributor = zone.distributor();
    let (end, shutdown) = (EndOfInput::later(), Shutdown::new());
    let beside = async {
        for round in 0..4 {
            for number in 0..20 {
                zone.append_one(&format!("r{round}-{number}")).await;
            }
            compact(&compactor(&zone, RESTED)).await.unwrap();
            let found = zone.audit().await;
            assert!(found.is_sound(), "{:?}", found.findings);
            if round == 2 {
                rewrite(&zone, Layout { max_rows_per_file: 8, ..layout() }).await;
            }
        }
        end.announce();
    };
    let (ran, ()) = tokio::join!(distributor.run(&end, &shutdown), beside);
    ran.unwrap();
    let expected = rows(&zone);
    compact(&compactor(&zone, RESTED)).await.unwrap();
    assert_eq!(rows(&zone), expected);
    assert_sound(&zone).await;
}

async fn rewrite(zone: &Zone, layout: Layout) {
    let encoding = Encoding { compression: Compression::Snappy, ..ENCODING };
    let rewriter = Rewriter { encoding, ..zone.rewriter(layout) };
    let plans = rewriter.plan(ReplayTarget::Earliest, None).await.unwrap();
    rewriter.apply(&plans).await.unwrap();
}

/// Merged files hold rows of many batches. A missing one is made again from the log.
#[tokio::test]
async fn a_missing_merged_file_is_made_again_by_a_rewrite() {
    let zone = zone(4).await;
    let expected = rows(&zone);
    compact(&compactor(&zone, RESTED)).await.unwrap();
    let lost = zone.files("events", ".parquet").remove(0);
    fs::remove_file(&lost).unwrap();
    zone.log.set_committed("g", "events", &[(0, 0)].into()).await.unwrap();
    zone.distribute().await;
    assert!(!lost.exists() && rows(&zone).len() < expected.len(), "an owner does not make it again");
    rewrite(&zone, layout()).await;
    assert_eq!(rows(&zone), expected);
    assert_sound(&zone).await;
}

/// Decided, nothing deleted yet: an output that was altered is merged again, the same.
#[tokio::test]
async fn a_staged_output_that_was_altered_is_merged_again() {
    let zone = zone(4).await;
    let expected = rows(&zone);
    let store = interposed(zone.store(), |operation, key| {
        let deletes = operation == "delete" && !key.starts_with('_');
        if deletes { Fate::Fail(StoreErrorKind::Other) } else { Fate::Pass }
    });
    let cut: Compactor = Compactor { store: store as Arc<dyn Store>, ..compactor(&zone, RESTED) };
    compact(&cut).await.unwrap_err();
    let decided = staged(&zone);
    assert!(decided.len() > 3, "{decided:?}");
    let flip = |path: &Path| {
        let mut body = fs::read(path).unwrap();
        body[30] ^= 1;
        fs::write(path, body).unwrap();
    };
    flip(&decided[0]);
    fs::remove_file(&decided[1]).unwrap();
    compact(&compactor(&zone, RESTED)).await.unwrap();
    assert_eq!(rows(&zone), expected);
    assert_sound(&zone).await;
}

/// Decided, inputs deleted, and then an output that was not published yet is lost: a compaction refuses, for only a person knows
/// whether there is a backup. Accepted as lost, it is a missing file like any other, which a rewrite makes from the log.
#[tokio::test]
async fn an_output_that_is_lost_with_its_inputs_is_accepted_as_lost_and_made_from_the_log() {
    let zone = zone(4).await;
    let expected = rows(&zone);
    let store =
        interposed(
            zone.store(),
            |operation, _| {
                if operation == "copy" { Fate::Fail(StoreErrorKind::Other) } else { Fate::Pass }
            },
        );
    let cut: Compactor = Compactor { store: store as Arc<dyn Store>, ..compactor(&zone, RESTED) };
    compact(&cut).await.unwrap_err();
    let decided = staged(&zone);
    assert!(rows(&zone).len() < expected.len() && decided.len() > 3, "{decided:?}");
    let was = fs::read(&decided[0]).unwrap();
    fs::write(&decided[0], &was[..was.len() / 2]).unwrap();
    let refusal = compact(&compactor(&zone, RESTED)).await.unwrap_err().to_string();
    assert!(refusal.contains("output 0") && decided[0].exists(), "an altered one stays: {refusal}");
    fs::remove_file(&decided[0]).unwrap();
    let refusal = compact(&compactor(&zone, RESTED)).await.unwrap_err().to_string();
    assert!(refusal.contains("output 0") && refusal.contains("--accept-lost"), "{refusal}");
    assert_eq!(staged(&zone).len(), decided.len() - 1, "nothing more is deleted");
    let accepting = Compactor { accepts_lost: true, ..compactor(&zone, RESTED) };
    compact(&accepting).await.unwrap();
    assert!(staged(&zone).is_empty() && rows(&zone).len() < expected.len(), "{:?}", staged(&zone));
    rewrite(&zone, layout()).await;
    assert_eq!(rows(&zone), expected);
    assert_sound(&zone).await;
}
