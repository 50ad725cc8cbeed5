//! Logs over a store in memory.

use std::collections::BTreeMap;

use common::store::MemoryStore;
use proptest::prelude::*;

use super::*;
use crate::ENGINE;
use crate::action::{Add, CommitInfo, Format, MetaData, Protocol, Remove, Txn};

fn log() -> DeltaLog {
    DeltaLog::new(Arc::new(MemoryStore::default()), "events/")
}

fn first() -> Vec<Action> {
    let metadata = MetaData {
        id: "i".into(),
        name: None,
        description: None,
        format: Format { provider: "parquet".into(), options: [].into() },
        schema_string: "{}".into(),
        partition_columns: vec![],
        configuration: [].into(),
        created_time: None,
    };
    vec![
        Action::Protocol(Protocol { min_reader_version: READER_VERSION, min_writer_version: WRITER_VERSION }),
        Action::MetaData(metadata),
    ]
}

fn info(id: &str) -> Action {
    Action::CommitInfo(CommitInfo {
        engine_info: Some(format!("{ENGINE}0")),
        operation: Some("WRITE".into()),
        txn_id: Some(id.into()),
        ..CommitInfo::default()
    })
}

fn add(path: &str) -> Action {
    Action::Add(Add {
        path: path.into(),
        partition_values: [].into(),
        size: 1,
        modification_time: 1,
        data_change: true,
        stats: None,
    })
}

fn remove(path: &str) -> Action {
    Action::Remove(Remove { path: path.into(), deletion_timestamp: Some(5), data_change: false })
}

async fn live(log: &DeltaLog, snapshot: &Snapshot) -> BTreeSet<String> {
    let mut live = BTreeSet::new();
    log.visit(snapshot, &mut |file| {
        if let File::Live(add) = file {
            assert!(live.insert(add.path), "visited twice");
        }
        Ok(())
    })
    .await
    .unwrap();
    live
}

async fn commit(log: &DeltaLog, version: u64, actions: Vec<Action>) -> Committed {
    let id = format!("c{version}");
    log.commit(version, &id, &[vec![info(&id)], actions].concat()).await.unwrap()
}

#[tokio::test]
async fn a_version_is_written_once_and_a_lost_answer_is_recognised() {
    let log = log();
    assert!(log.load().await.unwrap().is_none());
    assert_eq!(commit(&log, 0, first()).await, Committed::Written);
    assert_eq!(commit(&log, 0, first()).await, Committed::Written, "the same commit, whose answer was lost");
    assert_eq!(log.commit(0, "other", &[info("other")]).await.unwrap(), Committed::Taken);
    let txn = Txn { app_id: "a".into(), version: 3, last_updated: None };
    assert_eq!(commit(&log, 1, vec![add("x"), Action::Txn(txn)]).await, Committed::Written);
    let snapshot = log.load().await.unwrap().unwrap();
    assert_eq!((snapshot.version, snapshot.txns["a"].version), (1, 3));
    assert_eq!(live(&log, &snapshot).await, ["x".to_owned()].into());
}

#[tokio::test]
async fn after_a_checkpoint_older_commits_are_not_needed_and_holes_below_it_are_noticed() {
    let log = log();
    commit(&log, 0, first()).await;
    commit(&log, 1, vec![add("x"), add("y")]).await;
    let slept = log.load().await.unwrap().unwrap();
    commit(&log, 2, vec![remove("x")]).await;
    let mut snapshot = log.load().await.unwrap().unwrap();
    log.put_checkpoint(&mut snapshot, 0).await.unwrap();
    assert_eq!(log.clean_up(&snapshot, i64::MAX).await.unwrap(), 2);
    assert_eq!(log.load().await.unwrap().unwrap(), snapshot);
    commit(&log, 3, vec![add("z")]).await;
    log.follow(&mut snapshot).await.unwrap();
    assert_eq!(live(&log, &snapshot).await, ["y".to_owned(), "z".to_owned()].into());
    let hole = log.commit(slept.version, "late", &[info("late")]).await.unwrap();
    assert_eq!(hole, Committed::Behind);
}

#[tokio::test]
async fn gaps_and_damage_and_newer_protocols_are_refused() {
    let log = log();
    commit(&log, 0, first()).await;
    commit(&log, 2, vec![add("x")]).await;
    assert!(log.load().await.unwrap_err().to_string().contains("00001.json: this commit is missing"));
    let store = log.store.clone();
    store.put(&log.commit_key(1), "{\"add\":{}}\n".into(), PutCondition::None, &Metadata::new()).await.unwrap();
    assert!(log.load().await.unwrap_err().to_string().contains("line 1 is no action"));
    let newer = Action::Protocol(Protocol { min_reader_version: 3, min_writer_version: 7 });
    store.delete(&log.commit_key(1), None).await.unwrap();
    commit(&log, 1, vec![newer]).await;
    assert!(matches!(log.load().await, Err(DeltaError::Protocol { reader: 3, .. })));
    store.put(&log.hint_key(), "nonsense".into(), PutCondition::None, &Metadata::new()).await.unwrap();
    log.delete_all().await.unwrap();
    assert!(log.load().await.unwrap().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever commits and checkpoints came before, the files are those of the actions in order.
    #[test]
    fn files_are_those_of_a_plain_fold(commits in prop::collection::vec((prop::collection::vec((0u8..6, any::<bool>()), 0..5), any::<bool>()), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let log = log();
            commit(&log, 0, first()).await;
            let mut expected = BTreeMap::new();
            for (version, (changes, checkpoints)) in (1..).zip(commits) {
                // One action a path and commit.
                let changes: BTreeMap<u8, bool> = changes.into_iter().collect();
                let actions = changes.iter().map(|(file, adds)| {
                    let path = format!("f{file}");
                    if *adds { add(&path) } else { remove(&path) }
                });
                commit(&log, version, actions.collect()).await;
                expected.extend(changes);
                let mut snapshot = log.load().await.unwrap().unwrap();
                if checkpoints {
                    log.put_checkpoint(&mut snapshot, 0).await.unwrap();
                    log.clean_up(&snapshot, i64::MAX).await.unwrap();
                }
                let wanted = expected.iter().filter(|(_, is_live)| **is_live).map(|(file, _)| format!("f{file}"));
                assert_eq!(live(&log, &snapshot).await, wanted.collect());
            }
        });
    }
}
