//! Files that are replaced, deleted, oddly named, empty, huge, slow or unreadable.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::shutdown::Shutdown;
use ingestor::IngestError;
use tokio::sync::Semaphore;

use crate::faults::Faulty;
use crate::harness::{Zone, event, lines, run, tree, wait_until};

#[tokio::test]
async fn a_file_that_cannot_be_read_neither_stops_the_others_nor_is_called_done() {
    let zone = Zone::new().await;
    zone.land("1.json", event("a"));
    zone.land("2.json", event("b"));
    let store = Faulty::new(zone.local_store(), 0);
    store.denied.lock().unwrap().push("pending/1.json".to_owned());
    let first = zone.ingestor_over(Arc::new(store));
    let error = run(&first).await.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("pending/1.json") && error.contains("access denied"), "{error}");
    assert_eq!(first.metrics.report().files.ingested, 1, "the other one is done");
    assert!(zone.pending("1.json").exists() && !zone.pending("2.json").exists());
    assert_eq!(zone.ingest().await.files.ingested, 1, "it is read as soon as it can be");
}

#[tokio::test]
async fn every_file_that_cannot_be_read_is_named_at_once_and_temporary_failures_are_waited_for() {
    let zone = Zone::new().await;
    for name in ["1.json", "2.json", "3.json"] {
        zone.land(name, event(name));
    }
    let store = Faulty::new(zone.local_store(), 0);
    store.denied.lock().unwrap().extend(["pending/1.json".to_owned(), "pending/3.json".to_owned()]);
    let ingestor = zone.ingestor_over(Arc::new(store));
    let begun = std::time::Instant::now();
    let error = run(&ingestor).await.unwrap_err();
    assert!(begun.elapsed() < ingestor.settings.patience / 2, "it took {:?}", begun.elapsed());
    let IngestError::Incomplete(problems) = error else { panic!("{error}") };
    let named: Vec<&str> = problems.listed.iter().map(|problem| problem.file.as_str()).collect();
    assert_eq!((problems.total, named), (2, vec!["pending/1.json", "pending/3.json"]));
    // A temporary failure is waited for, and is named with the others if it persists.
    let store = Faulty::new(zone.local_store(), 0);
    store.denied.lock().unwrap().push("pending/1.json".to_owned());
    store.busy.lock().unwrap().push("pending/3.json".to_owned());
    let mut ingestor = zone.ingestor_over(Arc::new(store));
    ingestor.settings.patience = std::time::Duration::from_millis(300);
    let begun = std::time::Instant::now();
    let error = run(&ingestor).await.unwrap_err().to_string();
    assert!(begun.elapsed() >= ingestor.settings.patience, "it took {:?}", begun.elapsed());
    assert!(
        error.contains("pending/1.json cannot be read") && error.contains("pending/3.json cannot be read"),
        "{error}"
    );
}

#[tokio::test]
async fn names_of_every_kind_are_read_and_keep_their_path() {
    let zone = Zone::new().await;
    let names = [
        "a b.json",
        "ü/日本.json",
        "%2F..%2Fx.json",
        "x..",
        "a..b/x...json",
        "+&=?#.json",
        "!meta",
        "quote\"'.json",
        "new\nline.json",
        "deep/er/and/deep/er/x.json",
        "x.json",
        "y/x.json",
        "z/x.json",
    ];
    for (number, name) in names.iter().enumerate() {
        zone.land(name, event(&number.to_string()));
    }
    let report = zone.ingest().await;
    assert_eq!(report.files.ingested, names.len() as u64);
    let sources: Vec<String> = zone.events().await.into_keys().map(|(source, _)| source).collect();
    let mut expected = names.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(sources, expected);
    let mut processed: Vec<String> =
        tree(&zone.landing().join("processed")).iter().map(|path| path.split_once('/').unwrap().1.to_owned()).collect();
    processed.sort();
    assert_eq!(processed, expected, "two files of one name in two folders do not overwrite each other");
}

#[tokio::test]
async fn symbolic_links_hidden_ignored_and_special_files_are_skipped() {
    let zone = Zone::new().await;
    let secret = zone.root.path().join("outside.json");
    std::fs::write(&secret, event("secret")).unwrap();
    std::os::unix::fs::symlink(&secret, zone.pending("link.json")).unwrap();
    std::os::unix::fs::symlink(zone.root.path(), zone.pending("folder")).unwrap();
    std::fs::write(zone.pending(".hidden"), event("hidden")).unwrap();
    std::fs::write(zone.pending("half.json.tmp"), event("half")).unwrap();
    std::fs::create_dir(zone.pending("empty-folder")).unwrap();
    zone.land("real.json", event("real"));
    assert_eq!(zone.ingest().await.files.ingested, 1);
    assert_eq!(zone.values().await, [event("real")]);
}

#[tokio::test]
async fn an_empty_file_is_done_at_once() {
    let zone = Zone::new().await;
    zone.land("empty.json", "");
    zone.land("blank.json", " \r\n");
    let report = zone.ingest().await;
    assert_eq!((report.files.ingested, report.events.published), (2, 0));
    assert!(tree(&zone.landing().join("pending")).is_empty());
}

#[tokio::test]
async fn a_file_replaced_while_it_is_read_is_given_up_and_the_new_one_read_whole() {
    let zone = Zone::new().await;
    zone.land("x.json", lines("old", 2_000));
    let store = Faulty::new(zone.local_store(), 0);
    let (path, replaced) = (zone.pending("x.json"), AtomicBool::new(false));
    *store.opened.lock().unwrap() = Some(Box::new(move |_| {
        if !replaced.swap(true, Ordering::SeqCst) {
            let new = path.with_file_name(".new");
            std::fs::write(&new, lines("new", 10)).unwrap();
            std::fs::rename(&new, &path).unwrap();
        }
    }));
    let report = run(&zone.ingestor_over(Arc::new(store))).await.unwrap();
    assert_eq!((report.files.ingested, report.events.published), (1, 10));
    assert!(zone.values().await.iter().all(|value| value.contains("new-")));
}

#[tokio::test]
async fn a_file_deleted_while_it_is_pending_is_no_error() {
    let zone = Zone::new().await;
    zone.land("a.json", event("a"));
    zone.land("b.json", event("b"));
    let store = Faulty::new(zone.local_store(), 0);
    let victim = zone.pending("a.json");
    let gates = Arc::new(Semaphore::new(0));
    store.gates.lock().unwrap().insert("pending/b.json".to_owned(), gates.clone());
    *store.opened.lock().unwrap() = Some(Box::new(move |key| {
        if key == "pending/b.json" {
            let _ = std::fs::remove_file(&victim);
            gates.add_permits(1_000);
        }
    }));
    // One after another, with b opened first or last: both orders end without an error.
    let mut ingestor = zone.ingestor_over(Arc::new(store));
    ingestor.settings.parallel_files = 1;
    run(&ingestor).await.unwrap();
    assert!(zone.values().await.contains(&event("b")));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_slow_file_does_not_hold_up_the_others() {
    let zone = Zone::new().await;
    zone.land("a-slow.json", lines("slow", 10));
    let store = Faulty::new(zone.local_store(), 0);
    let gate = Arc::new(Semaphore::new(0));
    store.gates.lock().unwrap().insert("pending/a-slow.json".to_owned(), gate.clone());
    for number in 0..300 {
        zone.land(&format!("b-{number}.json"), event(&format!("{number}")));
    }
    let mut ingestor = zone.ingestor_over(Arc::new(store));
    // The slow one shares its lane with a third of the others.
    ingestor.settings.parallel_files = 2;
    let (metrics, pending) = (ingestor.metrics.clone(), zone.landing().join("pending"));
    let running = tokio::spawn(async move { ingestor.run(&Shutdown::new()).await });
    wait_until("the others are done and archived", || {
        metrics.report().files.ingested == 300 && tree(&pending) == ["a-slow.json"]
    })
    .await;
    gate.add_permits(1_000);
    assert_eq!(running.await.unwrap().unwrap().files.ingested, 301);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_file_takes_several_transactions_and_goes_on_where_the_last_one_ended() {
    let zone = Zone::new().await;
    // Some 30 MB, so four batches.
    let count = 200_000;
    zone.land("huge.json", lines("huge", count));
    let store = Arc::new(Faulty::new(zone.local_store(), 0));
    let gate = Arc::new(Semaphore::new(60));
    store.gates.lock().unwrap().insert("pending/huge.json".to_owned(), gate.clone());
    let first = zone.ingestor_over(store.clone());
    let metrics = first.metrics.clone();
    let running = tokio::spawn(async move { first.run(&Shutdown::new()).await });
    wait_until("something is committed", || {
        metrics.report().events.published > 0 || {
            gate.add_permits(1);
            false
        }
    })
    .await;
    running.abort();
    let _ = running.await;
    let committed = zone.events().await;
    assert!(!committed.is_empty() && committed.len() < count, "{} events before the crash", committed.len());
    let second = zone.ingestor();
    run(&second).await.unwrap();
    let size = lines("huge", count).len() as u64;
    assert!(
        second.metrics.read_bytes() < size - 4_000_000,
        "{} of {size} bytes read again",
        second.metrics.read_bytes()
    );
    let events = zone.events().await;
    assert_eq!(events.len(), count);
    assert!(events.values().all(|times| *times == 1), "never twice");
    assert!(tree(&zone.landing().join("pending")).is_empty());
}

#[tokio::test]
async fn the_same_content_touched_or_put_back_is_archived_again_and_not_ingested_again() {
    let zone = Zone::new().await;
    zone.land("x.json", lines("x", 10));
    zone.ingest().await;
    // A copy: another inode and time, the same name and content.
    zone.land("x.json", lines("x", 10));
    let report = zone.ingest().await;
    assert_eq!((report.files.ingested, report.files.skipped, report.events.published), (0, 1, 0));
    // The same file, moved back.
    let processed = zone.landing().join("processed");
    let one = tree(&processed).into_iter().next().unwrap();
    std::fs::rename(processed.join(one), zone.pending("x.json")).unwrap();
    let report = zone.ingest().await;
    assert_eq!((report.files.ingested, report.files.skipped, report.events.published), (0, 1, 0));
    assert!(tree(&zone.landing().join("pending")).is_empty());
    // Other content of the same size is another file.
    zone.land("x.json", lines("y", 10));
    assert_eq!(zone.ingest().await.events.published, 10);
}

#[tokio::test]
async fn a_file_that_keeps_changing_is_named_as_the_reason_to_give_up() {
    let zone = Zone::new().await;
    // Large enough to be read in several pieces.
    zone.land("x.json", lines("x", 10_000));
    let store = Faulty::new(zone.local_store(), 0);
    let path = zone.pending("x.json");
    let count = std::sync::atomic::AtomicU32::new(0);
    *store.opened.lock().unwrap() = Some(Box::new(move |_| {
        let grown = lines("x", 10_000 + count.fetch_add(1, Ordering::SeqCst) as usize);
        std::fs::write(&path, grown).unwrap();
    }));
    let error = run(&zone.ingestor_over(Arc::new(store))).await.err().unwrap().to_string();
    assert!(error.contains("pending/x.json keeps changing"), "{error}");
    assert!(zone.values().await.is_empty(), "nothing of any version was published");
}

/// A file of gigabytes of zeros.
fn bomb(compression: &str) -> Vec<u8> {
    let zeros = vec![0; 45_000_000];
    match compression {
        "bz2" => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
            encoder.write_all(&zeros).unwrap();
            encoder.finish().unwrap()
        }
        "gz" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&zeros).unwrap();
            encoder.finish().unwrap()
        }
        _ => zstd::encode_all(&*zeros, 1).unwrap(),
    }
    .repeat(100)
}

// One thread for everything, as on a machine with one core.
#[tokio::test(flavor = "current_thread")]
async fn an_ingestor_that_reads_bombs_stops_at_once() {
    let zone = Zone::new().await;
    for compression in ["bz2", "gz", "zst"] {
        zone.land(&format!("bomb.{compression}"), bomb(compression));
    }
    let mut ingestor = zone.ingestor();
    ingestor.settings.expansion.max_ratio = u64::MAX;
    let (metrics, shutdown) = (ingestor.metrics.clone(), Shutdown::new());
    let stop = shutdown.clone();
    let running = tokio::spawn(async move { ingestor.run(&stop).await });
    // Its timer needs the thread too.
    wait_until("all are being read", || metrics.read_bytes() > 30_000_000).await;
    let before = metrics.read_bytes();
    shutdown.trigger();
    running.await.unwrap().unwrap();
    let after = metrics.read_bytes() - before;
    assert!(after < 30_000_000, "{after} bytes were read on, of 13.5 GB");
    assert_eq!(tree(&zone.landing().join("pending")).len(), 3, "they are read again by the next run");
}

#[tokio::test]
async fn bombs_of_every_kind_are_quarantined_and_hold_up_nothing() {
    let zone = Zone::new().await;
    for compression in ["bz2", "gz", "zst"] {
        zone.land(&format!("bomb.{compression}"), bomb(compression));
    }
    // A file of equal events grows as much, and publishes nothing beyond the limit.
    zone.land("equal.zst", zstd::encode_all(lines("x", 1).repeat(400_000).as_bytes(), 19).unwrap());
    zone.land("good.json", event("good"));
    let report = zone.ingest().await;
    assert_eq!((report.files.ingested, report.files.quarantined), (1, 4));
    let ledger = zone.ledger().await;
    for name in ["bomb.bz2", "bomb.gz", "bomb.zst", "equal.zst"] {
        let reason = ledger[name][0]["reason"].as_str().unwrap();
        assert!(reason.contains("landing.max_expansion_ratio = 1000"), "{name}: {reason}");
    }
    let published: usize = zone.values().await.iter().map(String::len).sum();
    assert!(published < 10_000_000, "{published} bytes published");
}
