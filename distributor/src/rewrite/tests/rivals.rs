//! Others that are at work while a partition is rewritten.

use std::sync::atomic::{AtomicUsize, Ordering};

use common::config::{MissingFiles, TypeAges};
use common::log::{LogError, LogErrorKind, Membership, ReadEvent, Result as LogResult};
use common::telemetry::Registry;

use super::*;
use crate::Metrics;
use crate::partition::{Context, Next, Partition};
use crate::testing::interposed::{Fate, interposed};
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
async fn nothing_is_rewritten_while_the_group_has_members() {
    let zone = Zone::new().await;
    let before = zone.files("", ".parquet");
    let committed = zone.log.committed("g", "events").await.unwrap();
    for from_commit in [0, 1] {
        let mut rewriter = rewriter(&zone, other_zone(), ENCODING);
        let joined = Joined { commits: AtomicUsize::new(0), from_commit };
        rewriter.replayer.log = watched(zone.log.clone(), Arc::new(joined));
        let refused = rewrite(&rewriter).await.unwrap_err().to_string();
        assert!(refused.contains("has members"), "{refused}");
        assert_eq!(zone.files("", ".parquet"), before);
        assert!(!zone.trusted("_batches/events/0/rewrite.json").exists(), "members may go on with the partition");
    }
    assert_eq!(zone.log.committed("g", "events").await.unwrap(), committed);
    assert_sound(&zone).await;
}

#[tokio::test]
async fn a_distributor_that_was_given_up_takes_away_what_it_puts_of_an_older_revision() {
    let zone = Zone::new().await;
    let expected = rows(&zone);
    fs::remove_file(&zone.files("events", ".parquet")[0]).unwrap();
    let context = Context {
        store: zone.store(),
        topic: "events".into(),
        group: "g".into(),
        log_id: zone.log.identity().await.unwrap(),
        layout: layout(),
        encoding: ENCODING,
        max_rows: 20,
        max_bytes: u64::MAX,
        max_files: usize::MAX,
        budget: crate::window::Budget::new(u64::MAX, Scratch::new(zone.folder.path())),
        scratch: Scratch::new(zone.folder.path()),
        max_age: std::time::Duration::from_secs(3_600),
        ages: TypeAges::default(),
        uploads: crate::partition::UploadRoom::default(),
        missing: MissingFiles::Restore,
        metrics: Arc::new(Metrics::new(&Registry::new()).unwrap()),
    };
    let bounds = zone.log.bounds("events").await.unwrap()[&0];
    let (mut partition, start) = Partition::take_over(&context, 0, Some(0), bounds).await.unwrap();
    assert_eq!(start, 0, "the file is to be made again");
    rewrite(&rewriter(&zone, other_zone(), ENCODING)).await.unwrap();
    let files = zone.files("events", ".parquet");
    let mut reader = zone.log.reader("events", &Membership::Direct { partitions: vec![0] }).await.unwrap();
    let next = loop {
        match reader.poll(std::time::Duration::from_secs(10)).await.unwrap() {
            ReadEvent::Assigned(_) => reader.start(0, start).await.unwrap(),
            ReadEvent::Chunk(chunk) => break partition.take(&context, &chunk).await.unwrap(),
            _ => {}
        }
    };
    reader.close().await;
    assert_eq!(next, Next::Resolve, "it has to look at the chain again");
    assert_eq!(zone.files("events", ".parquet"), files);
    assert_eq!(rows(&zone), expected);
    assert_sound(&zone).await;
}

#[tokio::test]
async fn two_runs_with_the_same_settings_work_on_one_rewrite() {
    let zone = Zone::new().await;
    let expected = rows(&zone);
    let pristine = tempfile::tempdir().unwrap();
    copy(&zone.trusted(""), pristine.path());
    let small = Layout { max_rows_per_file: 8, ..other_zone() };
    for number in 0..10 {
        fs::remove_dir_all(zone.trusted("")).unwrap();
        copy(pristine.path(), &zone.trusted(""));
        let runs = [1, 2].map(|now_ms| Rewriter { now_ms, ..rewriter(&zone, small.clone(), ENCODING) });
        // Both begin it, or both go on with it.
        if number % 2 == 0 {
            assert!(cut_short(&zone, &small, 30, false));
        }
        let (one, other) = to_its_last_effect(async || tokio::join!(rewrite(&runs[0]), rewrite(&runs[1])));
        for outcome in [&one, &other] {
            let stopped = outcome.as_ref().err().map(ToString::to_string);
            assert!(stopped.as_ref().is_none_or(|told| told.contains("another run")), "run {number}: {stopped:?}");
        }
        assert!(one.is_ok() || other.is_ok(), "run {number}: one of them is first at each step");
        assert_eq!(rows(&zone), expected, "run {number}");
        let audit = audit(&zone).await;
        assert!(audit.is_sound(), "run {number}: {:?}", audit.findings);
        assert_eq!(audit.partitions[0].rewrite, None, "run {number}");
        assert_eq!(zone.files("_batches/events/0/revisions", "-000001.json").len(), 3, "run {number}");
    }
}

#[tokio::test]
async fn a_rewrite_gives_way_to_a_chain_that_began_to_be_made_again_just_before() {
    let zone = Zone::new().await;
    let before = zone.files("", "");
    let rival = zone.trusted("_batches/events/0/rebuild.json");
    let begun = rival.clone();
    let store = interposed(zone.store(), move |call, key| {
        if call == "put" && key.ends_with("rewrite.json") {
            fs::write(&begun, "{}").unwrap();
        }
        Fate::Pass
    });
    let rewriter = Rewriter { replayer: replayer(&zone, store), ..rewriter(&zone, other_zone(), ENCODING) };
    let told = rewrite(&rewriter).await.unwrap_err().to_string();
    assert!(told.contains("verify --rebuild-chain"), "{told}");
    fs::remove_file(rival).unwrap();
    assert_eq!(zone.files("", ""), before, "it has taken back that it is at work");
}
