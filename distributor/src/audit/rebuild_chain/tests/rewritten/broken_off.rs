//! Rebuilds that are cut short at every call, and rewrites that were.

use super::*;
use crate::testing::{Faulty, to_its_last_effect};

/// Ends a rebuild at the call with this number, before or after its effect. False if there was no such call.
fn cut_short(zone: &Zone, calls: i64, after_effect: bool) -> bool {
    let (store, faulty) = Faulty::over(zone.store(), calls, after_effect);
    let rebuilder = ChainRebuilder { store, ..zone.rebuilder() };
    let outcome = to_its_last_effect(async || rebuilder.rebuild(false).await);
    assert_eq!(outcome.is_err(), faulty.has_failed(), "{outcome:?}");
    faulty.has_failed()
}

#[tokio::test]
async fn a_rebuild_that_is_cut_short_at_any_call_lets_nobody_go_on_and_is_finished_by_the_next() {
    for parts in [&PARTS[..], &["revisions", "revision-keys"]] {
        let zone = Zone::new().await;
        zone.make_again(1, 20, other_zone(), ENCODING).await;
        zone.make_again(2, 40, small_files(), SNAPPY).await;
        let tables = zone.tables();
        zone.lose_parts(parts);
        let pristine = tempfile::tempdir().unwrap();
        copy(&zone.trusted(""), pristine.path());
        let mut expected: Option<Documents> = None;
        let before = zone.documents();
        let mut refusals = 0;
        for after_effect in [true, false] {
            let mut left = before.clone();
            for calls in 0.. {
                let what = format!("{parts:?}, call {calls}, after it took effect: {after_effect}");
                fs::remove_dir_all(zone.trusted("")).unwrap();
                copy(pristine.path(), &zone.trusted(""));
                let is_short = cut_short(&zone, calls, after_effect);
                let documents = zone.documents();
                // A call that only looks leaves what the one before it left.
                if is_short && documents == left {
                    continue;
                }
                left = documents;
                if is_short {
                    // Somebody starts a distributor instead.
                    let mut distributor = zone.distributor();
                    (distributor.settings.layout, distributor.settings.encoding) = (small_files(), SNAPPY);
                    match distributor.run(&EndOfInput::now(), &Shutdown::new()).await {
                        Err(error) => assert!(error.to_string().contains("--rebuild-chain"), "{what}: {error}"),
                        // Only the answer to the last call was lost.
                        Ok(_) => assert!(zone.audit().await.is_sound(), "{what}"),
                    }
                    if zone.trusted("_batches/events/0/rebuild.json").exists() {
                        refusals += 1;
                        let found = zone.audit().await.findings;
                        assert!(found.iter().any(|found| found.place.ends_with("rebuild.json")), "{what}: {found:?}");
                        let rewriter = zone.rewriter(9, layout(), ENCODING, zone.store());
                        let planned = rewriter.plan(ReplayTarget::Earliest, None).await;
                        // Without an origin there is nothing to plan.
                        let told = planned.map(|plans| plans.len()).map_err(|error| error.to_string());
                        let is_refused = told.as_ref().is_err_and(|told| told.contains("--rebuild-chain"));
                        assert!(is_refused || told == Ok(0), "{what}: {told:?}");
                    }
                }
                assert_eq!(zone.rebuilt().await.refused, None, "{what}");
                assert!(zone.tables() == tables, "{what}");
                let documents = zone.documents();
                let expected = expected.get_or_insert_with(|| documents.clone());
                assert!(documents == *expected, "{what}: another end");
                if !is_short {
                    assert!(calls > 30, "{what}");
                    break;
                }
            }
        }
        assert!(refusals > 6, "{parts:?}: {refusals}");
        let audit = zone.audit().await;
        assert!(audit.is_sound(), "{:?}", audit.findings);
    }
}

#[tokio::test]
async fn a_rewrite_that_is_not_finished_is_refused_with_what_to_do() {
    let zone = Zone::of_two_halves().await;
    let pristine = tempfile::tempdir().unwrap();
    copy(&zone.trusted(""), pristine.path());
    let mut refusals = [0; 2];
    for calls in 0.. {
        fs::remove_dir_all(zone.trusted("")).unwrap();
        copy(pristine.path(), &zone.trusted(""));
        let (store, faulty) = Faulty::over(zone.store(), calls, true);
        let rewriter = zone.rewriter(1, other_zone(), ENCODING, store);
        let outcome = to_its_last_effect(async || {
            let plans = rewriter.plan(ReplayTarget::Earliest, None).await?;
            rewriter.apply(&plans).await
        });
        assert_eq!(outcome.is_err(), faulty.has_failed(), "{outcome:?}");
        let document = zone.trusted("_batches/events/0/rewrite.json");
        if document.exists() {
            zone.lose("keys");
            let before = zone.documents().len();
            let told = zone.refusal().await;
            assert!(told.contains("Run 'replay --rewrite' with the same settings to its end"), "call {calls}: {told}");
            refusals[0] += 1;
            // Nor without what tells of it, as long as files wait.
            fs::remove_file(&document).unwrap();
            if !zone.trusted("_batches/events/0/staged").exists() || zone.chain("staged").is_empty() {
                continue;
            }
            let told = zone.refusal().await;
            assert!(told.contains("wait below '_batches'") && told.contains("rewrite.json"), "call {calls}: {told}");
            assert_eq!(zone.documents().len(), before - 1, "nothing is put");
            refusals[1] += 1;
        }
        if !faulty.has_failed() {
            break;
        }
    }
    assert!(refusals[0] > 20 && refusals[1] > 10, "{refusals:?}");
}
