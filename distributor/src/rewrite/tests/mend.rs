//! Files of replaces that were lost, each made again alone.

use std::path::PathBuf;

use super::*;
use crate::testing::tables::assert_only_hidden;
use crate::testing::{Faulty, to_its_last_effect};

/// All batches are merged: each folder has one file.
async fn merged() -> Zone {
    let zone = zone().await;
    zone.compactor().round(0).await.unwrap();
    assert_eq!(zone.files("events", ".parquet").len(), 2);
    zone
}

/// A merged file is removed. Returns the other one, with its bytes.
fn lose_one(zone: &Zone) -> (PathBuf, Vec<u8>) {
    let files = zone.files("events", ".parquet");
    fs::remove_file(&files[0]).unwrap();
    (files[1].clone(), fs::read(&files[1]).unwrap())
}

#[tokio::test]
async fn a_merged_file_that_was_lost_is_made_again_alone() {
    let zone = merged().await;
    let expected = rows(&zone);
    let (other, bytes) = lose_one(&zone);
    assert!(rows(&zone).len() < expected.len());
    let rewriter = rewriter(&zone, layout(), ENCODING);
    let plans = rewriter.plan(ReplayTarget::Earliest, None).await.unwrap();
    assert_eq!((plans[0].restored_files, plans[0].rewritten, plans[0].lost_files), (1, 0, 0), "{plans:?}");
    let outcome = rewriter.apply(&plans).await.unwrap().remove(0);
    assert_eq!((outcome.restored_files, outcome.rewritten), (1, 0), "{outcome:?}");
    assert_eq!((rows(&zone), fs::read(other).unwrap()), (expected, bytes), "the other file stays");
    assert_eq!(zone.files("events", ".parquet").len(), 2);
    assert_sound(&zone).await;
    let again = rewriter.plan(ReplayTarget::Earliest, None).await.unwrap().remove(0);
    assert!(!again.is_due(), "{again:?}");
}

/// With another file that was damaged.
#[tokio::test]
async fn all_lost_files_are_made_again_whatever_call_a_run_ends_at() {
    let zone = merged().await;
    let expected = rows(&zone);
    lose_one(&zone);
    let left = zone.files("events", ".parquet").remove(0);
    fs::write(&left, b"PAR1 is damaged PAR1").unwrap();
    let pristine = tempfile::tempdir().unwrap();
    copy(&zone.trusted(""), pristine.path());
    let rewriter = || rewriter(&zone, layout(), ENCODING);
    for after_effect in [false, true] {
        for calls in (0..).step_by(3) {
            fs::remove_dir_all(zone.trusted("")).unwrap();
            copy(pristine.path(), &zone.trusted(""));
            let (store, faulty) = Faulty::over(zone.store(), calls, after_effect);
            let cut = Rewriter { store, ..rewriter() };
            let ended = to_its_last_effect(async || rewrite(&cut).await);
            assert_eq!(ended.is_err(), faulty.has_failed(), "{ended:?}");
            rewrite(&rewriter()).await.unwrap();
            assert_eq!(rows(&zone), expected, "call {calls}");
            assert_only_hidden(&zone.audit().await, 0);
            if !faulty.has_failed() {
                assert!(calls > 30, "only {calls} calls");
                break;
            }
        }
    }
}

#[tokio::test]
async fn what_the_log_no_longer_has_is_counted_as_lost_and_stays_so() {
    let zone = merged().await;
    lose_one(&zone);
    zone.log.trim("events", 0, 55, i64::MAX).await.unwrap();
    let before = rows(&zone);
    let outcome = rewrite(&rewriter(&zone, layout(), ENCODING)).await.unwrap();
    assert_eq!((outcome.lost_files, outcome.restored_files, outcome.rewritten), (1, 0, 0), "{outcome:?}");
    assert_eq!(rows(&zone), before);
    let found = zone.audit().await.findings;
    assert!(found.len() == 1 && found[0].message.contains("only a backup has it"), "{found:?}");
}
