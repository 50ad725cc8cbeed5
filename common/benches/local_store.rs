//! Measures moving and reading many tiny files of a directory: `cargo bench -p common --bench local_store`.
//!
//! `ED_BENCH_FOLDER` selects the file system (default: cargo's folder for such files), `ED_BENCH_FILES` the number of
//! files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a benchmark")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use common::store::{DeleteOutcome, GetOptions, ListOptions, LocalStore, Move, RenameOutcome, Store, Version};
use futures_util::stream::{self, StreamExt as _};

const BATCH: usize = 1_000;
const FILE_BYTES: usize = 600;
const FOLDERS: usize = 10;

fn main() {
    // `cargo test --benches` only checks that the bench runs.
    let is_test = !std::env::args().any(|argument| argument == "--bench");
    let files: usize = std::env::var("ED_BENCH_FILES").map_or(20_000, |files| files.parse().unwrap());
    let files = if is_test { 100 } else { files };
    let parent = std::env::var_os("ED_BENCH_FOLDER").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir_in(parent).unwrap();
    runtime.block_on(async {
        let root = folder.path();
        let store: Arc<dyn Store> = Arc::new(LocalStore::open(root.to_owned()));
        write(&root.join("pending"), files);
        let objects = list(&*store).await;
        for at_once in [1, 4, 8, 16] {
            let begin = Instant::now();
            read_all(&store, &objects, at_once).await;
            report(&format!("open and read to the end, {at_once} at once"), files, begin);
        }

        let begin = Instant::now();
        for Move { from, version, to } in moves(&objects) {
            assert_eq!(store.rename(&from, &version, &to).await.unwrap(), RenameOutcome::Moved);
        }
        report("rename, one by one", files, begin);

        write(&root.join("pending"), files);
        let moves = moves(&list(&*store).await);
        std::fs::remove_dir_all(root.join("processed")).unwrap();
        let begin = Instant::now();
        for batch in moves.chunks(BATCH) {
            for outcome in store.rename_many(batch).await {
                assert_eq!(outcome.unwrap(), RenameOutcome::Moved);
            }
        }
        report(&format!("rename_many of {BATCH}"), files, begin);

        let moved: Vec<_> = moves.into_iter().map(|entry| (entry.to, entry.version)).collect();
        let begin = Instant::now();
        for batch in moved.chunks(BATCH) {
            for outcome in store.delete_many(batch).await {
                assert_eq!(outcome.unwrap(), DeleteOutcome::Deleted);
            }
        }
        report(&format!("delete_many of {BATCH}"), files, begin);
    });
}

fn write(pending: &Path, files: usize) {
    for number in 0..files {
        let folder = pending.join((number % FOLDERS).to_string());
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{number:06}.json")), vec![b'x'; FILE_BYTES]).unwrap();
    }
}

async fn list(store: &dyn Store) -> Vec<(String, Version)> {
    let options = ListOptions { prefix: "pending/".to_owned(), limit: Some(usize::MAX - 1), ..ListOptions::default() };
    let page = store.list(&options).await.unwrap();
    page.objects.into_iter().map(|object| (object.key, object.version)).collect()
}

fn moves(objects: &[(String, Version)]) -> Vec<Move> {
    let to = |from: &str| from.replacen("pending/", "processed/date=2026-11-24/", 1);
    objects.iter().map(|(key, version)| Move { from: key.clone(), version: version.clone(), to: to(key) }).collect()
}

async fn read_all(store: &Arc<dyn Store>, objects: &[(String, Version)], at_once: usize) {
    let reads = objects.iter().cloned().map(|(key, version)| {
        let store = Arc::clone(store);
        async move {
            let options = GetOptions { if_version: Some(version), range: None };
            let (_, mut reader) = store.open(&key, options).await.unwrap().expect("the file is gone");
            let mut bytes = 0;
            while let Some(piece) = reader.next().await.unwrap() {
                bytes += piece.len();
            }
            bytes
        }
    });
    let total: usize = stream::iter(reads).buffered(at_once).fold(0, async |sum, bytes| sum + bytes).await;
    assert_eq!(total, objects.len() * FILE_BYTES);
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn report(what: &str, files: usize, begin: Instant) {
    let seconds = begin.elapsed().as_secs_f64();
    println!("{what:<40} {:>9.0} files/s  {:>7.1} us each", files as f64 / seconds, seconds * 1e6 / files as f64);
}
