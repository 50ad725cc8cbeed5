//! Audits, replays and rebuilds over a chain that was compacted.

use super::*;
use crate::audit::ChainRebuilder;

impl Zone {
    /// All but the last batches are compacted.
    async fn compacted() -> Self {
        let zone = Self::of_forty_days().await;
        let earliest = zone.log_begins_at().await;
        let before = zone.auditor(true).verify(Repair::No).await.unwrap();
        let chain = ChainStore::new(zone.store(), "events", 0);
        let done = chain.compact(earliest, 2).await.unwrap();
        assert!(done.cuts >= 6, "{done:?}");
        assert_eq!(zone.chain("cuts").len() + usize::try_from(done.cuts).unwrap(), 12);
        let after = zone.auditor(true).verify(Repair::No).await.unwrap();
        assert!(after.is_sound(), "{:?}", after.findings);
        assert_eq!(after.partitions, before.partitions, "an audit sees no difference");
        zone
    }
}

#[tokio::test]
async fn a_compacted_chain_is_sound_and_is_gone_on_with_and_walked() {
    let zone = Zone::compacted().await;
    zone.append(1).await;
    for set_back in [None, Some(0), Some(70)] {
        if let Some(offset) = set_back {
            zone.log.set_committed("g", "events", &BTreeMap::from([(0, offset)])).await.unwrap();
        }
        zone.distribute().await;
        let audit = zone.auditor(true).verify(Repair::No).await.unwrap();
        assert!(audit.is_sound(), "{:?}", audit.findings);
        let [partition] = &audit.partitions[..] else { panic!("{audit:?}") };
        assert_eq!((partition.from, partition.batches, partition.rows), (0, 15, 250));
        assert_eq!(partition.committed, Some(partition.to));
    }
}

#[tokio::test]
async fn damage_to_a_summary_is_found_and_a_lost_one_is_made_again_from_the_files() {
    let zone = Zone::compacted().await;
    let summary = zone.chain("summaries").pop().unwrap();
    let whole = fs::read_to_string(&summary).unwrap();
    for damaged in [
        String::new(),
        whole.replacen("\"rows\": 9", "\"rows\": 8", 1),
        whole.replacen("\"from\": 20", "\"from\": 21", 1),
    ] {
        assert_ne!(damaged, whole);
        fs::write(&summary, damaged).unwrap();
        assert!(zone.found().await.iter().any(|kind| ["chain-damaged", "file-altered"].contains(kind)));
    }
    fs::remove_file(&summary).unwrap();
    assert!(zone.found().await.contains(&"chain-broken"));
    let rebuilder = ChainRebuilder {
        store: zone.store(),
        log: zone.log.clone(),
        topic: "events".into(),
        group: "g".into(),
        encoding: ENCODING,
        window_memory: 1_000_000_000,
        batch_memory: 1_000_000_000,
        scratch: crate::Scratch::new(std::env::temp_dir()),
        accept_gaps: false,
        on_batch: Box::new(|_| {}),
    };
    let rebuilt = rebuilder.rebuild(false).await.unwrap();
    assert_eq!(rebuilt.refusals().next(), None);
    let audit = zone.auditor(true).verify(Repair::No).await.unwrap();
    assert!(audit.is_sound(), "{:?}", audit.findings);
    assert_eq!(audit.partitions[0].batches, 12);
    // And with a summary there is nothing to make again.
    let zone = Zone::compacted().await;
    let objects = zone.files("_batches", "");
    let rebuilder = ChainRebuilder { store: zone.store(), log: zone.log.clone(), ..rebuilder };
    let rebuilt = rebuilder.rebuild(false).await.unwrap();
    assert_eq!(rebuilt.refusals().next(), None);
    assert_eq!(zone.files("_batches", ""), objects, "{rebuilt:?}");
}

#[tokio::test]
async fn a_window_made_longer_than_the_keys_that_are_left_begins_after_those_that_are_gone() {
    let zone = Zone::compacted().await;
    zone.append(1).await;
    let mut distributor = zone.distributor();
    distributor.settings.layout.window_ms = 1_000 * 86_400_000;
    let report = distributor.run(&crate::EndOfInput::now(), &common::shutdown::Shutdown::new()).await.unwrap();
    assert_eq!((report.rows, report.duplicates), (0, 55), "the round before last still has its keys");
    let audit = zone.auditor(false).verify(Repair::No).await.unwrap();
    assert!(audit.is_sound(), "{:?}", audit.findings);
}
