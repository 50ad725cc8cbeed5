//! Others that are at work while a partition is rewritten.

use std::sync::atomic::{AtomicUsize, Ordering};

use common::log::{LogError, LogErrorKind, Result as LogResult};

use super::*;
use crate::testing::to_its_last_effect;
use crate::testing::watched_log::{Watcher, watched};

/// The group has a member from the given commit on.
struct Joined {
    commits: AtomicUsize,
    from_commit: usize,
}

impl Watcher for Joined {
    fn setting_committed(&self) -> LogResult<()> {
        if self.commits.fetch_add(1, Ordering::SeqCst) >= self.from_commit {
            return Err(LogError::new(LogErrorKind::NotAssigned, "the group has members".to_owned()));
        }
        Ok(())
    }
}

#[tokio::test]
async fn offline_nothing_is_begun_nor_deleted_while_the_group_has_members() {
    let zone = zone().await;
    let before = zone.files("events", ".parquet");
    let committed = zone.log.committed("g", "events").await.unwrap();
    // At the begin, before the first intent, before files are deleted.
    let entries_before = zone.files("_commits/events/0/log", ".json").len();
    for (from_commit, entries) in [(0, 0), (1, 0), (2, 2)] {
        let mut rewriter = rewriter(&zone, small(5), ENCODING);
        rewriter.log = watched(zone.log.clone(), Arc::new(Joined { commits: AtomicUsize::new(0), from_commit }));
        let refused = rewrite(&rewriter).await.unwrap_err().to_string();
        assert!(refused.contains("has members"), "{refused}");
        assert_eq!(zone.files("events", ".parquet"), before);
        let found = zone.audit().await;
        assert!(found.is_sound(), "{:?}", found.findings);
        assert_eq!(zone.files("_commits/events/0/log", ".json").len(), entries_before + entries, "{from_commit}");
    }
    assert_eq!(zone.log.committed("g", "events").await.unwrap(), committed);
    let expected = rows(&zone);
    rewrite(&rewriter(&zone, small(5), ENCODING)).await.unwrap();
    assert_eq!(rows(&zone), expected);
    assert_sound(&zone).await;
}

#[tokio::test]
async fn a_distributor_goes_on_beside_a_rewrite() {
    let zone = zone().await;
    let distributor = zone.distributor();
    let (end, shutdown) = (EndOfInput::later(), Shutdown::new());
    let rewritten = async {
        for (round, layout) in [small(5), small(9), small(3)].into_iter().enumerate() {
            for number in 0..30 {
                zone.append_one(&format!("r{round}-{number}")).await;
            }
            let rewriter = Rewriter { fence: Fence::Locks, ..rewriter(&zone, layout, ENCODING) };
            let outcome = rewrite(&rewriter).await.unwrap();
            assert!(outcome.rewritten >= 3, "{outcome:?}");
            assert!(zone.audit().await.is_sound());
        }
        end.announce();
    };
    let (ran, ()) = tokio::join!(distributor.run(&end, &shutdown), rewritten);
    ran.unwrap();
    assert_eq!(rows(&zone).len(), 50 + 90);
    assert_sound(&zone).await;
    rewrite(&rewriter(&zone, layout(), ENCODING)).await.unwrap();
    assert_eq!(rows(&zone).len(), 50 + 90);
    assert_sound(&zone).await;
}

#[tokio::test]
async fn two_runs_work_on_one_rewrite() {
    let zone = zone().await;
    let expected = rows(&zone);
    let pristine = tempfile::tempdir().unwrap();
    copy(&zone.trusted(""), pristine.path());
    for number in 0..10 {
        fs::remove_dir_all(zone.trusted("")).unwrap();
        copy(pristine.path(), &zone.trusted(""));
        let runs = [8, 8 + number % 2].map(|rows| rewriter(&zone, small(rows), ENCODING));
        let outcomes = to_its_last_effect(async || tokio::join!(rewrite(&runs[0]), rewrite(&runs[1])));
        for outcome in [outcomes.0, outcomes.1] {
            let refused = outcome.err().map(|error| error.to_string());
            assert!(refused.as_ref().is_none_or(|text| text.contains("at the same time")), "run {number}: {refused:?}");
        }
        assert_eq!(rows(&zone), expected, "run {number}");
        assert_sound(&zone).await;
    }
}

/// As long as the fence takes, files are not deleted: only the store's clock counts.
#[tokio::test]
async fn files_are_deleted_when_the_clock_of_the_store_has_passed_the_fence() {
    let zone = zone().await;
    let before = zone.files("events", ".parquet");
    let waiting = Rewriter { fence: Fence::SIGNED, ..rewriter(&zone, small(5), ENCODING) };
    let staged_and_waiting = async {
        while zone.files("_commits/events/0", "clock").is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        outcome = rewrite(&waiting) => panic!("{outcome:?}"),
        () = staged_and_waiting => {}
    }
    assert_eq!(zone.files("events", ".parquet"), before);
    // As if the intent had been put long ago.
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(36 * 60);
    for entry in zone.files("_commits/events/0/log", ".json") {
        fs::File::options().append(true).open(entry).unwrap().set_modified(long_ago).unwrap();
    }
    let expected = rows(&zone);
    rewrite(&waiting).await.unwrap();
    assert_ne!(zone.files("events", ".parquet"), before);
    assert_eq!(rows(&zone), expected);
    assert_sound(&zone).await;
}

/// Whoever makes files visible holds the lock, and sees under it that nothing was appended.
#[tokio::test]
async fn files_are_not_deleted_while_another_makes_files_visible() {
    let zone = zone().await;
    let before = zone.files("events", ".parquet");
    let expected = rows(&zone);
    let rewriter = Rewriter { fence: Fence::Locks, ..rewriter(&zone, small(5), ENCODING) };
    let commits = commitlog_storage::CommitLog::new(zone.store(), "events", 0);
    let lock = commits.fence(common::store::LockKind::Shared).await.unwrap();
    let rewriting = rewrite(&rewriter);
    let decided = async {
        // The intent and the decision.
        while zone.files("_commits/events/0/log", ".json").len() < 8 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(zone.files("events", ".parquet"), before);
        drop(lock);
    };
    let (rewritten, ()) = tokio::join!(rewriting, decided);
    assert_eq!(rewritten.unwrap().files_removed, 6);
    assert_eq!(rows(&zone), expected);
    assert_sound(&zone).await;
}
