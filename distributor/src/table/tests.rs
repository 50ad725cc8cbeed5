//! Tables over a small trusted zone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::clock::SystemClock;
use common::event::ColumnRule;
use common::store::Store;
use serde_json::{Value, json};

use super::*;
use crate::batch::testing::layout;
use crate::layout::Layout;
use crate::testing::Zone;
use crate::testing::interposed::{Fate, interposed};
use crate::testing::tables::rows_in;
use crate::{Auditor, Compactor, FindingKind, Host, Repair, ReplayTarget, Rewriter};

fn tables_of(zone: &Zone, layout: Layout) -> Arc<Tables> {
    tables_over(zone.store(), layout)
}

fn tables_over(store: Arc<dyn Store>, layout: Layout) -> Arc<Tables> {
    let (clock, host) = (Arc::new(SystemClock), Host::system());
    Arc::new(Tables::new(store, clock, host, "events".into(), layout, Duration::ZERO))
}

/// The actions of a table's commits, oldest first, without any help of the code under test.
fn commits(root: &Path) -> Vec<Vec<Value>> {
    let Ok(entries) = fs::read_dir(root.join("_delta_log")) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let lines = |path: &_| -> Vec<Value> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    paths.iter().map(lines).collect()
}

/// Paths of live files below the root, as a reader decodes them.
fn live(root: &Path) -> BTreeSet<String> {
    let mut live = BTreeSet::new();
    for action in commits(root).into_iter().flatten() {
        let path = |of: &str| deltalog::decode_path(action[of]["path"].as_str()?);
        if let Some(path) = path("add") {
            live.insert(path);
        } else if let Some(path) = path("remove") {
            live.remove(&path);
        }
    }
    live
}

/// Offsets and ids of all rows that a reader of the table sees; panics if one is in two files, or a file is missing.
fn rows(zone: &Zone) -> BTreeSet<(i64, String)> {
    let mut rows = BTreeSet::new();
    for table in ["events", "rejected"] {
        let root = zone.trusted(table);
        for path in live(&root) {
            let file = fs::File::open(root.join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
            for row in rows_in(file) {
                assert!(rows.insert(row), "a row is in two files, also in {path}");
            }
        }
    }
    rows
}

fn compactor(zone: &Zone, store: Arc<dyn Store>, tables: Arc<Tables>) -> Compactor {
    Compactor { store, tables: Some(tables), ..zone.compactor() }
}

async fn compact(compactor: &Compactor) {
    let plans = compactor.plan(None).await.unwrap();
    compactor.apply(&plans).await.unwrap();
}

async fn assert_sound(zone: &Zone) {
    zone.assert_sound().await;
    assert_eq!(rows(zone), crate::testing::tables::rows(zone));
}

#[tokio::test]
async fn a_table_has_every_batch_and_says_how_far_it_is() {
    let zone = Zone::new().await;
    let tables = tables_of(&zone, layout());
    let first = tables.publish().await.unwrap();
    assert_sound(&zone).await;
    assert_eq!(tables.publish().await.unwrap(), Published { commits: 0, ..first }, "nothing is new");
    for id in ["x", "y"] {
        zone.append_one(id).await;
        zone.distribute().await;
        tables.publish().await.unwrap();
        assert_sound(&zone).await;
    }
    let log = commits(&zone.trusted("events"));
    let versions: Vec<i64> = log
        .iter()
        .flatten()
        .filter(|action| action["txn"]["appId"] == "event-distributor/events/0")
        .filter_map(|action| action["txn"]["version"].as_i64())
        .collect();
    assert!(versions.len() == 3 && versions.is_sorted(), "{versions:?}");
    let head = zone.state().await.head;
    assert_eq!(versions.last().map(|version| version.unsigned_abs()), Some(head.next));
    // Another process goes on where the table is, and adds nothing twice.
    zone.append_one("z").await;
    zone.distribute().await;
    tables_of(&zone, layout()).publish().await.unwrap();
    assert_sound(&zone).await;
    assert!(tables.publish().await.is_ok(), "one that was overtaken reads anew");
    assert_sound(&zone).await;
}

/// Before every call of a compaction that concerns files or the table, a reader of the table sees each row exactly once.
#[tokio::test]
async fn readers_of_a_table_see_neither_less_nor_more_while_files_are_replaced() {
    let zone = Zone::new().await;
    for id in ["x", "y", "z"] {
        zone.append_one(id).await;
        zone.distribute().await;
    }
    tables_of(&zone, layout()).publish().await.unwrap();
    let expected = rows(&zone);
    let looks: Arc<Mutex<BTreeMap<&'static str, usize>>> = Arc::default();
    let (counted, wanted) = (looks.clone(), expected.clone());
    let root = zone.trusted("");
    let store = interposed(zone.store(), move |operation, key| {
        if ["put", "copy", "delete"].contains(&operation)
            && (key.starts_with("events/") || key.starts_with("rejected/"))
        {
            let mut seen = BTreeSet::new();
            for table in ["events", "rejected"] {
                let root = root.join(table);
                for path in live(&root) {
                    let file = fs::File::open(root.join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
                    for row in rows_in(file) {
                        assert!(seen.insert(row), "before {operation} of {key}: a row twice");
                    }
                }
            }
            assert_eq!(seen, wanted, "before {operation} of {key}");
            *counted.lock().unwrap().entry(operation).or_default() += 1;
        }
        Fate::Pass
    });
    compact(&compactor(&zone, store.clone(), tables_over(store, layout()))).await;
    let looks = looks.lock().unwrap().clone();
    assert!(["put", "copy", "delete"].iter().all(|operation| looks.get(operation) > Some(&1)), "{looks:?}");
    assert_sound(&zone).await;
    let live = live(&zone.trusted("events"));
    assert!(live.len() == 2 && live.iter().all(|path| !path.contains("_staged")), "{live:?}");
    assert!(zone.files("events/_staged", ".parquet").is_empty());
}

/// Of a compaction that a crash ended at any point, the table still reads every row once, and the next one goes on.
#[tokio::test]
async fn a_compaction_that_was_cut_short_leaves_the_table_right() {
    for stop in 0.. {
        let zone = Zone::new().await;
        tables_of(&zone, layout()).publish().await.unwrap();
        let expected = rows(&zone);
        let calls = Arc::new(Mutex::new(0));
        let store = interposed(zone.store(), move |operation, _| {
            let mut calls = calls.lock().unwrap();
            *calls += usize::from(["put", "copy", "delete"].contains(&operation));
            if *calls > stop { Fate::Fail(common::store::StoreErrorKind::Other) } else { Fate::Pass }
        });
        let cut = compactor(&zone, store.clone(), tables_over(store, layout()));
        let plans = cut.plan(None).await.unwrap();
        let ended = cut.apply(&plans).await.is_ok();
        assert_eq!(rows(&zone), expected, "after {stop} calls");
        compact(&compactor(&zone, zone.store(), tables_of(&zone, layout()))).await;
        assert_eq!(rows(&zone), expected, "after {stop} calls, and another run");
        assert_sound(&zone).await;
        if ended {
            assert!(stop > 8, "{stop}");
            break;
        }
    }
}

#[tokio::test]
async fn publishers_at_the_same_time_do_no_harm() {
    let zone = Zone::filled(3).await;
    zone.distribute().await;
    let tables: Vec<_> = (0..4).map(|_| tables_of(&zone, layout())).collect();
    for round in 0..6 {
        zone.append_one(&format!("r{round}")).await;
        zone.distribute().await;
        let outcomes = futures_util::future::join_all(tables.iter().map(|tables| tables.publish())).await;
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        for table in ["events", "rejected"] {
            let root = zone.trusted(table);
            let there = zone.files(table, ".parquet");
            let there = there.iter().map(|path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
            assert_eq!(live(&root), there.collect());
        }
    }
}

#[tokio::test]
async fn columns_of_new_batches_become_columns_of_the_table() {
    let zone = Zone::new().await;
    tables_of(&zone, layout()).publish().await.unwrap();
    let rule = |name: &str, kind: &str| ColumnRule {
        name: name.into(),
        pointer: "/a".into(),
        column_type: kind.into(),
        events: "*".into(),
    };
    let wider = Layout { columns: vec![rule("a", "int"), rule("b", "string")], ..layout() };
    let mut distributor = zone.distributor();
    distributor.settings.layout = wider.clone();
    zone.append_one("x").await;
    distributor.run(&crate::EndOfInput::now(), &common::shutdown::Shutdown::new()).await.unwrap();
    tables_of(&zone, layout()).publish().await.unwrap();
    let log = commits(&zone.trusted("events"));
    let schemas: Vec<&str> =
        log.iter().flatten().filter_map(|action| action["metaData"]["schemaString"].as_str()).collect();
    let [before, after] = schemas[..] else { panic!("{schemas:?}") };
    let names = |text: &str| -> Vec<String> {
        let schema: Value = serde_json::from_str(text).unwrap();
        schema["fields"].as_array().unwrap().iter().map(|field| field["name"].as_str().unwrap().to_owned()).collect()
    };
    let new: Vec<String> = names(after).into_iter().filter(|name| !names(before).contains(name)).collect();
    assert_eq!(new, ["a", "b"]);
    assert_eq!(names(after).last().unwrap(), "day");
    assert_sound(&zone).await;
    // The same name with another type: readers could not read both.
    let names_now = |zone: &Zone| -> Vec<String> {
        let log = commits(&zone.trusted("events"));
        let schemas: Vec<&str> =
            log.iter().flatten().filter_map(|action| action["metaData"]["schemaString"].as_str()).collect();
        names(schemas.last().unwrap())
    };
    zone.append_one("y").await;
    let retyped = Layout { columns: vec![rule("a", "double")], ..layout() };
    distributor.settings.layout = retyped.clone();
    distributor.run(&crate::EndOfInput::now(), &common::shutdown::Shutdown::new()).await.unwrap();
    tables_of(&zone, layout()).publish().await.unwrap();
    assert!(!names_now(&zone).contains(&"a".to_owned()) && names_now(&zone).contains(&"b".to_owned()));
    assert_sound(&zone).await;
    tables_of(&zone, layout()).rebuild().await.unwrap();
    assert!(!names_now(&zone).contains(&"a".to_owned()), "files still have both");
    // Once all files have one type, the column is in the table again.
    let rewriter = Rewriter { tables: Some(tables_of(&zone, retyped.clone())), ..zone.rewriter(retyped.clone()) };
    let plans = rewriter.plan(ReplayTarget::Earliest, None).await.unwrap();
    rewriter.apply(&plans).await.unwrap();
    tables_of(&zone, retyped).rebuild().await.unwrap();
    assert!(names_now(&zone).contains(&"a".to_owned()) && !names_now(&zone).contains(&"b".to_owned()));
    let versions = commits(&zone.trusted("events")).len();
    let tables = tables_of(&zone, Layout { columns: vec![rule("a", "double")], ..layout() });
    tables.rebuild().await.unwrap();
    assert_eq!(commits(&zone.trusted("events")).len(), versions, "it is right already");
    assert_sound(&zone).await;
}

fn foreign_commit(zone: &Zone, actions: &[Value]) {
    let root = zone.trusted("events/_delta_log");
    let version = commits(&zone.trusted("events")).len();
    let info = json!({"commitInfo": {"engineInfo": "Apache-Spark/4.1.0 Delta-Lake/4.1.0", "operation": "DELETE"}});
    let lines: Vec<String> = [info].iter().chain(actions).map(Value::to_string).collect();
    fs::write(root.join(format!("{version:020}.json")), lines.join("\n")).unwrap();
}

#[tokio::test]
async fn a_table_that_others_changed_is_not_built_upon_until_it_is_rebuilt() {
    let zone = Zone::new().await;
    let tables = tables_of(&zone, layout());
    tables.publish().await.unwrap();
    let expected = rows(&zone);
    let gone = live(&zone.trusted("events")).into_iter().next().unwrap();
    let strange = json!({"add": {"path": "part-0.parquet", "partitionValues": {}, "size": 1, "modificationTime": 1, "dataChange": true}});
    let remove = json!({"remove": {"path": deltalog::encode_path(&gone), "dataChange": true}});
    foreign_commit(&zone, &[strange, remove]);
    zone.append_one("x").await;
    zone.distribute().await;
    for tables in [&tables, &tables_of(&zone, layout())] {
        let refused = tables.publish().await.unwrap_err().to_string();
        assert!(refused.contains("DELETE") && refused.contains("'table rebuild'"), "{refused}");
    }
    let audit = zone.audit().await;
    let kinds: Vec<FindingKind> = audit.findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [FindingKind::TableWrong], "{:?}", audit.findings);
    // A compaction could not go on: it begins nothing.
    let compactor = compactor(&zone, zone.store(), tables_of(&zone, layout()));
    let plans = compactor.plan(None).await.unwrap();
    assert!(compactor.apply(&plans).await.unwrap_err().to_string().contains("'table rebuild'"));
    assert_eq!(zone.state().await.head.replaces().count(), 0);
    let rebuilt = tables.rebuild().await.unwrap();
    assert_eq!((rebuilt["events/"].added, rebuilt["events/"].removed), (2, 1), "{rebuilt:?}");
    assert_sound(&zone).await;
    assert!(rows(&zone).is_superset(&expected));
    zone.append_one("y").await;
    zone.distribute().await;
    tables_of(&zone, layout()).publish().await.unwrap();
    assert_sound(&zone).await;
}

/// Files that an audit finds the table to name wrongly, although this program wrote all of its log.
#[tokio::test]
async fn a_table_that_names_other_files_than_the_commit_logs_is_a_finding() {
    let zone = Zone::new().await;
    tables_of(&zone, layout()).publish().await.unwrap();
    let newest = zone.trusted("events/_delta_log").join(format!("{:020}.json", 1));
    let text = fs::read_to_string(&newest).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let without = lines.iter().position(|line| line.starts_with("{\"add\"")).unwrap();
    let kept: Vec<&str> = lines.iter().enumerate().filter(|(n, _)| *n != without).map(|(_, line)| *line).collect();
    fs::write(&newest, kept.join("\n")).unwrap();
    let audit = zone.audit().await;
    assert!(audit.findings.len() == 1 && audit.findings[0].message.contains("lacks 1 files"), "{:?}", audit.findings);
    tables_of(&zone, layout()).rebuild().await.unwrap();
    assert_sound(&zone).await;
}

#[tokio::test]
async fn a_table_that_was_lost_or_damaged_is_made_anew() {
    let zone = Zone::new().await;
    let tables = tables_of(&zone, layout());
    tables.publish().await.unwrap();
    fs::remove_dir_all(zone.trusted("events/_delta_log")).unwrap();
    tables_of(&zone, layout()).publish().await.unwrap();
    assert_sound(&zone).await;
    // A gap.
    zone.append_one("x").await;
    zone.distribute().await;
    tables_of(&zone, layout()).publish().await.unwrap();
    fs::remove_file(zone.trusted("events/_delta_log").join(format!("{:020}.json", 1))).unwrap();
    let refused = tables_of(&zone, layout()).publish().await.unwrap_err().to_string();
    assert!(refused.contains("commit is missing") && refused.contains("'table rebuild'"), "{refused}");
    assert_eq!(zone.audit().await.findings[0].kind, FindingKind::TableWrong);
    tables_of(&zone, layout()).rebuild().await.unwrap();
    assert_sound(&zone).await;
    // A commit log that is behind its table was brought back from a backup.
    zone.append_one("y").await;
    zone.distribute().await;
    tables_of(&zone, layout()).publish().await.unwrap();
    zone.uncommit();
    let refused = tables_of(&zone, layout()).publish().await.unwrap_err();
    assert!(matches!(refused, TableError::Ahead { .. }), "{refused}");
}

/// Checkpoints, and commits that they make unnecessary.
#[tokio::test]
async fn after_a_hundred_commits_a_table_is_read_from_a_checkpoint() {
    let zone = Zone::new().await;
    let tables = tables_of(&zone, layout());
    for round in 0..102 {
        zone.append_one(&format!("r{round}")).await;
        zone.distribute().await;
        tables.publish().await.unwrap();
    }
    let log = zone.trusted("events/_delta_log");
    assert!(log.join("_last_checkpoint").exists());
    assert!(log.join(format!("{:020}.checkpoint.parquet", 100)).exists());
    for version in 0..100 {
        fs::remove_file(log.join(format!("{version:020}.json"))).unwrap();
    }
    zone.append_one("last").await;
    zone.distribute().await;
    tables_of(&zone, layout()).publish().await.unwrap();
    zone.assert_sound().await;
}

/// A publisher that began before there was anything to publish.
#[tokio::test]
async fn partitions_whose_commit_logs_begin_later_are_published_too() {
    let zone = Zone::filled(2).await;
    let tables = tables_of(&zone, layout());
    tables.publish().await.unwrap();
    zone.distribute().await;
    tables.publish().await.unwrap();
    assert_eq!(live(&zone.trusted("events")).len(), zone.files("events", ".parquet").len());
    // One more begins: whoever replaces files of it publishes it at once.
    let commits = zone.trusted("_commits/events");
    let (kept, away) = (commits.join("1"), zone.folder.path().join("away"));
    fs::rename(&kept, &away).unwrap();
    fs::remove_dir_all(zone.trusted("events/_delta_log")).unwrap();
    let tables = tables_of(&zone, layout());
    tables.publish().await.unwrap();
    let without = live(&zone.trusted("events")).len();
    fs::rename(&away, &kept).unwrap();
    tables.publish_for(1).await.unwrap();
    let with = live(&zone.trusted("events")).len();
    assert!(0 < without && without < with && with == zone.files("events", ".parquet").len(), "{without} {with}");
}

#[tokio::test]
async fn tables_that_are_missing_or_stay_behind_are_findings() {
    let zone = Zone::new().await;
    let expects = || Auditor { has_tables: true, ..zone.deep_auditor() };
    assert!(expects().verify(Repair::No).await.unwrap().is_sound(), "it is made soon");
    let mut later = expects();
    later.now_ms += 20 * 60_000;
    let missing = later.verify(Repair::No).await.unwrap();
    assert!(missing.findings.len() == 1 && missing.findings[0].message.contains("no Delta table"), "{missing:?}");
    tables_of(&zone, layout()).publish().await.unwrap();
    assert!(expects().verify(Repair::No).await.unwrap().is_sound());
    zone.append_one("x").await;
    zone.distribute().await;
    assert!(expects().verify(Repair::No).await.unwrap().is_sound(), "it is published soon");
    let mut later = expects();
    later.now_ms += 20 * 60_000;
    let behind = later.verify(Repair::No).await.unwrap();
    assert!(behind.findings.len() == 1 && behind.findings[0].message.contains("lacks 1 files"), "{behind:?}");
}

type Forge = fn(&Path);

/// Each is what somebody could do who may write to the bucket. An audit names it, and a rebuild undoes it.
#[tokio::test]
async fn forged_logs_are_findings_and_are_rebuilt() {
    let forge: [(&str, Forge); 5] = [
        ("another spelling of a path", |log| {
            append(log, |add| {
                let path = add["path"].as_str().unwrap().replacen("domain_event_type", "domain%5Fevent%5Ftype", 1);
                add["path"] = path.into();
            });
        }),
        ("other partition values", |log| append(log, |add| add["partitionValues"]["day"] = "1".into())),
        ("a hint to no checkpoint", |log| {
            fs::write(log.join("_last_checkpoint"), "{\"version\":1000,\"size\":1}").unwrap();
        }),
        ("a commit of another kind of length", |log| {
            fs::File::create(log.join(format!("{:020}.json", 2))).unwrap().set_len(300 << 20).unwrap();
        }),
        ("a commit that is none", |log| fs::write(log.join(format!("{:020}.json", 2)), "{").unwrap()),
    ];
    for (what, forge) in forge {
        let zone = Zone::new().await;
        tables_of(&zone, layout()).publish().await.unwrap();
        forge(&zone.trusted("events/_delta_log"));
        let audit = zone.audit().await;
        assert!(audit.findings.iter().any(|finding| finding.kind == FindingKind::TableWrong), "{what}: {audit:?}");
        tables_of(&zone, layout()).rebuild().await.unwrap();
        assert_sound(&zone).await;
        zone.append_one("x").await;
        zone.distribute().await;
        assert!(tables_of(&zone, layout()).publish().await.unwrap().commits > 0, "{what}");
        assert_sound(&zone).await;
    }
    // Names that no version has.
    let zone = Zone::new().await;
    tables_of(&zone, layout()).publish().await.unwrap();
    fs::write(zone.trusted(&format!("events/_delta_log/{}.checkpoint.parquet", u64::MAX)), "").unwrap();
    assert_sound(&zone).await;
}

/// A commit, as if of this program, that adds the first file once more, changed.
fn append(log: &Path, change: impl Fn(&mut Value)) {
    let commits = commits(log.parent().unwrap());
    let mut add = commits.iter().flatten().find(|action| action["add"].is_object()).unwrap().clone();
    change(&mut add["add"]);
    let info = json!({"commitInfo": {"engineInfo": "event-distributor/0", "operation": "WRITE"}});
    fs::write(log.join(format!("{:020}.json", commits.len())), format!("{info}\n{add}")).unwrap();
}
