//! Compactions of a small trusted zone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::config::Compression;
use common::log::{Log, RecordBatch};
use common::shutdown::Shutdown;
use common::store::{Store, StoreErrorKind};

use super::*;
use crate::batch::testing::{ENCODING, event, layout};
use crate::layout::Layout;
use crate::testing::interposed::{Fate, interposed};
use crate::testing::tables::{copy, rows};
use crate::testing::{Faulty, Zone, to_its_last_effect};
use crate::{EndOfInput, FindingKind, ReplayTarget, Rewriter, Scratch};

const RESTED: Policy = Policy { target_bytes: 1 << 30, rest_ms: 0 };

fn compactor(zone: &Zone, policy: Policy) -> Compactor {
    Compactor {
        store: zone.store(),
        log: Some(zone.log.clone()),
        host: Host::system(),
        topic: "events".into(),
        group: "g".into(),
        encoding: ENCODING,
        policy,
        now_ms: i64::MAX,
        scratch: Scratch::new(zone.folder.path()),
        fence: Fence::Locks,
        on_file: Box::new(|_| {}),
    }
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
    zone.files("_commits/events/0/staged", "")
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
    let mut unfinished = 0;
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
            let found = zone.audit().await;
            assert!(found.is_sound(), "call {calls}: {:?}", found.findings);
            unfinished += u32::from(compactor(&zone, RESTED).plan(None).await.unwrap()[0].unfinished);
            compact(&compactor(&zone, RESTED)).await.unwrap();
            assert_eq!(rows(&zone), expected, "call {calls}");
            assert_eq!(tables(&zone).len(), folders(&zone).len(), "call {calls}");
            assert_sound(&zone).await;
        }
    }
    assert!(unfinished > 10, "{unfinished}");
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
    let rewriter = Rewriter {
        store: zone.store(),
        log: zone.log.clone(),
        host: Host::system(),
        topic: "events".into(),
        group: "g".into(),
        layout,
        encoding: Encoding { compression: Compression::Snappy, ..ENCODING },
        window_memory: 1_000_000_000,
        batch_memory: 5_000,
        scratch: Scratch::new(zone.folder.path()),
        all: false,
        require_all: false,
        fence: Fence::Locks,
        on_batch: Box::new(|_| {}),
    };
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
