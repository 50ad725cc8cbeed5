//! Rewrites that end at any call, and what others find then.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;

use super::*;
use crate::testing::interposed::{Fate, interposed};
use crate::testing::tables::assert_only_hidden;
use crate::testing::{Faulty, to_its_last_effect};

/// Sees at each call of the store that no offset is visible twice.
#[derive(Default)]
struct Engine {
    /// By path: what has a name never changes.
    offsets: Mutex<BTreeMap<PathBuf, BTreeSet<i64>>>,
}

impl Engine {
    fn over(self: &Arc<Self>, zone: &Zone) -> Arc<dyn Store> {
        let (engine, tables) = (self.clone(), zone.trusted("events"));
        interposed(zone.store(), move |operation, key| {
            engine.look(&tables, &format!("{operation} {key}"));
            Fate::Pass
        })
    }

    fn look(&self, folder: &Path, before: &str) {
        let mut known = self.offsets.lock().unwrap();
        let mut visible = BTreeSet::new();
        let mut open = vec![folder.to_owned()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"_")) {
                    continue;
                }
                if path.is_dir() {
                    open.push(path);
                } else if path.extension().is_some_and(|extension| extension == "parquet") {
                    if !known.contains_key(&path) {
                        // Calls that are under way on other threads may have deleted it.
                        let Ok(file) = fs::File::open(&path) else { continue };
                        known.insert(path.clone(), rows_in(file).into_iter().map(|(offset, _)| offset).collect());
                    }
                    let offsets = known.get(&path).unwrap();
                    for offset in offsets.iter() {
                        assert!(
                            visible.insert(*offset),
                            "before {before}: offset {offset} twice, in {}",
                            path.display()
                        );
                    }
                }
            }
        }
    }
}

#[tokio::test]
#[should_panic(expected = "offset 0 twice")]
async fn an_engine_sees_what_is_visible_twice() {
    let zone = zone().await;
    let engine = Arc::new(Engine::default());
    let store = engine.over(&zone);
    assert!(store.head("events").await.unwrap().is_none(), "nothing is visible twice");
    let file = zone.files("events", "-0-0.parquet").remove(0);
    fs::copy(&file, file.with_file_name("again.parquet")).unwrap();
    let _ = store.head("events").await;
}

/// Ends a rewrite at the call with this number, before or after its effect. False if there was no such call.
fn cut_short(zone: &Zone, engine: &Arc<Engine>, wanted: &Layout, calls: i64, after_effect: bool) -> bool {
    let (store, faulty) = Faulty::over(engine.over(zone), calls, after_effect);
    let rewriter = Rewriter { store, ..rewriter(zone, wanted.clone(), ENCODING) };
    let outcome = to_its_last_effect(async || rewrite(&rewriter).await);
    assert_eq!(outcome.is_err(), faulty.has_failed(), "{outcome:?}");
    faulty.has_failed()
}

#[tokio::test]
async fn a_rewrite_that_is_cut_short_at_any_call_is_finished_by_the_next() {
    let zone = zone().await;
    let (expected, engine) = (rows(&zone), Arc::new(Engine::default()));
    let wanted = small(8);
    let pristine = tempfile::tempdir().unwrap();
    copy(&zone.trusted(""), pristine.path());
    let (mut unfinished, mut incomplete) = (0, 0);
    for after_effect in [false, true] {
        for calls in 0.. {
            fs::remove_dir_all(zone.trusted("")).unwrap();
            copy(pristine.path(), &zone.trusted(""));
            if !cut_short(&zone, &engine, &wanted, calls, after_effect) {
                assert!(calls > 60, "only {calls} calls");
                break;
            }
            let seen = rows(&zone);
            assert!(seen.is_subset(&expected), "call {calls}");
            incomplete += u32::from(seen != expected);
            let found = zone.audit().await;
            assert_only_hidden(&found, expected.len() - seen.len());
            if calls % 2 == 0 {
                // Somebody starts a distributor instead, with offsets that were set back.
                zone.log.set_committed("g", "events", &[(0, 0)].into()).await.unwrap();
                zone.distribute().await;
                assert_eq!(rows(&zone), seen, "call {calls}: it has changed nothing");
            }
            let later = Rewriter { store: engine.over(&zone), ..rewriter(&zone, wanted.clone(), ENCODING) };
            let plan = later.plan(ReplayTarget::Earliest, None).await.unwrap().remove(0);
            unfinished += u32::from(plan.unfinished);
            later.apply(&[plan]).await.unwrap();
            assert_eq!(rows(&zone), expected, "call {calls}");
            assert_sound(&zone).await;
            let files = zone.files("events", ".parquet");
            assert!(files.iter().all(|path| path.to_str().unwrap().contains("-c0-")), "call {calls}: {files:?}");
        }
    }
    assert!(unfinished > 60 && incomplete > 10, "{unfinished}, {incomplete}");
}

#[tokio::test]
async fn an_unfinished_rewrite_is_finished_as_it_was_begun_and_then_replaced_by_other_settings() {
    let zone = zone().await;
    let expected = rows(&zone);
    let pristine = tempfile::tempdir().unwrap();
    copy(&zone.trusted(""), pristine.path());
    let mut unfinished = 0;
    for calls in (0..).step_by(4) {
        let engine = Arc::new(Engine::default());
        fs::remove_dir_all(zone.trusted("")).unwrap();
        copy(pristine.path(), &zone.trusted(""));
        if !cut_short(&zone, &engine, &small(8), calls, false) {
            break;
        }
        let other = Rewriter { store: engine.over(&zone), ..rewriter(&zone, small(3), SNAPPY) };
        let outcome = rewrite(&other).await.unwrap();
        unfinished += u32::from(outcome.unfinished);
        assert_eq!(rows(&zone), expected, "call {calls}");
        assert_sound(&zone).await;
        assert!(!other.plan(ReplayTarget::Earliest, None).await.unwrap()[0].is_due(), "call {calls}");
    }
    assert!(unfinished > 5, "{unfinished}");
}
