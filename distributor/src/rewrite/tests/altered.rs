//! Outputs that are lost or altered between the decision and the end of a rewrite.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::store::StoreErrorKind;

use super::*;
use crate::Repair;
use crate::testing::interposed::{Fate, interposed};

/// A rewrite that is decided and stops before it deletes anything.
async fn decided(zone: &Zone) -> Vec<PathBuf> {
    let store = interposed(zone.store(), |operation, key| {
        let deletes = operation == "delete" && !key.starts_with('_');
        if deletes { Fate::Fail(StoreErrorKind::Other) } else { Fate::Pass }
    });
    let rewriter = Rewriter { store, ..rewriter(zone, small(8), ENCODING) };
    rewrite(&rewriter).await.unwrap_err();
    let staged = staged(zone);
    assert!(staged.len() > 4, "{staged:?}");
    staged
}

fn flip(path: &Path) {
    let mut body = fs::read(path).unwrap();
    let middle = body.len() / 3;
    body[middle] ^= 1;
    fs::write(path, body).unwrap();
}

#[tokio::test]
async fn a_staged_output_that_was_lost_or_altered_is_made_again_before_anything_is_deleted() {
    type Damage = fn(&[PathBuf]);
    let damages: [(&str, Damage); 5] = [
        ("file-missing", |staged| fs::remove_file(&staged[1]).unwrap()),
        ("file-altered", |staged| flip(&staged[0])),
        ("file-altered", |staged| fs::write(&staged[0], b"PAR1").unwrap()),
        // The footer of another file of the same rewrite is as good as its own.
        ("file-altered", |staged| assert!(fs::copy(&staged[0], &staged[1]).unwrap() > 0)),
        ("file-missing", |staged| staged.iter().for_each(|path| fs::remove_file(path).unwrap())),
    ];
    for (number, (kind, damage)) in damages.into_iter().enumerate() {
        let zone = zone().await;
        let expected = rows(&zone);
        let staged = decided(&zone).await;
        damage(&staged);
        let kinds: BTreeSet<&str> = zone.audit().await.findings.iter().map(|finding| finding.kind.name()).collect();
        assert!(kinds.contains(kind), "damage {number}: {kinds:?}");
        let outcome = rewrite(&rewriter(&zone, small(8), ENCODING)).await.unwrap();
        assert_eq!(rows(&zone), expected, "damage {number}");
        assert_sound(&zone).await;
        assert_eq!(outcome.rewritten, 3, "damage {number}");
    }
}

#[tokio::test]
async fn a_staged_output_that_cannot_be_made_again_stops_the_rewrite_and_nothing_is_deleted() {
    let zone = zone().await;
    let expected = rows(&zone);
    let staged = decided(&zone).await;
    flip(&staged[0]);
    zone.log.trim("events", 0, 55, i64::MAX).await.unwrap();
    assert!(zone.log_begins_at().await > 0);
    let before = everything(&zone);
    for _ in 0..2 {
        let refused = rewrite(&rewriter(&zone, small(8), ENCODING)).await.unwrap_err().to_string();
        assert!(refused.contains("output 0 stands neither") && refused.contains("Nothing was deleted"), "{refused}");
        assert_eq!(rows(&zone), expected);
    }
    let after = everything(&zone);
    assert!(before.iter().all(|path| after.contains(path)), "the altered one stays, too: {before:?} {after:?}");
    // Accepted as lost, the rewrite ends, and only the rows of that file are missing.
    let accepting = Rewriter { accepts_lost: true, ..rewriter(&zone, small(8), ENCODING) };
    // It says what could not be made.
    drop(rewrite(&accepting).await);
    let left = rows(&zone);
    assert!(left.len() < expected.len() && left.is_subset(&expected), "{left:?}");
    assert_eq!(zone.state().await.head.replaces().count(), 0);
}

#[tokio::test]
async fn another_file_under_the_name_of_an_output_stops_the_rewrite_before_anything_is_deleted() {
    let zone = zone().await;
    let expected = rows(&zone);
    let staged = decided(&zone).await;
    let name = zone.files("events", ".parquet").remove(0);
    let output = name.with_file_name("events-0-c0-0.parquet");
    let mut bytes = fs::read(&staged[0]).unwrap();
    bytes[9] ^= 1;
    fs::write(&output, bytes).unwrap();
    let inputs = zone.files("events", ".parquet");
    let refused = rewrite(&rewriter(&zone, small(8), ENCODING)).await.unwrap_err().to_string();
    assert!(refused.contains("-c0-0.parquet") && refused.contains("move it away"), "{refused}");
    assert_eq!(zone.files("events", ".parquet"), inputs);
    assert_eq!(staged, super::staged(&zone), "its good copies stand");
    fs::remove_file(&output).unwrap();
    rewrite(&rewriter(&zone, small(8), ENCODING)).await.unwrap();
    assert_eq!(rows(&zone), expected);
    assert_sound(&zone).await;
}

/// A commit log that is older than the files says of outputs that they are unknown, or of inputs that they are missing.
#[tokio::test]
async fn a_repair_removes_no_row_whichever_older_commit_log_was_brought_back() {
    let zone = zone().await;
    let expected = rows(&zone);
    let saved = tempfile::tempdir().unwrap();
    let save = {
        let (commits, saved) = (zone.trusted("_commits"), saved.path().to_owned());
        let number = Arc::new(AtomicUsize::new(0));
        move |operation: &str, key: &str| {
            if operation == "put" && key.contains("/log/") || operation == "delete" {
                let number = number.fetch_add(1, Ordering::Relaxed);
                copy(&commits, &saved.join(format!("{number:03}")));
            }
            Fate::Pass
        }
    };
    for wanted in [small(8), small(9)] {
        let rewriter = Rewriter { store: interposed(zone.store(), save.clone()), ..rewriter(&zone, wanted, ENCODING) };
        rewrite(&rewriter).await.unwrap();
    }
    let mut older: Vec<PathBuf> = fs::read_dir(saved.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    older.sort();
    assert!(older.len() > 10, "{older:?}");
    for older in older {
        fs::remove_dir_all(zone.trusted("_commits")).unwrap();
        copy(&older, &zone.trusted("_commits"));
        let audit = zone.deep_auditor().verify(Repair::Orphans).await.unwrap();
        assert_eq!(audit.removed, Vec::<String>::new(), "{}", older.display());
        assert_eq!(rows(&zone), expected, "{}", older.display());
    }
}
