//! Measures look-ups, inserts, the size of an entry, and rebuilding. Not a test of behaviour: `cargo test --release -p
//! distributor window::figures -- --ignored --nocapture --test-threads 1`

use std::time::Instant;

use super::*;
use crate::scratch::Scratch;

const ENTRIES: u64 = 10_000_000;
const BATCH: u64 = 500_000;
/// Enough to show a slow-down from one window to the next.
const WINDOWS: u64 = 5;
const WINDOW_MS: i64 = 86_400_000;

fn key(number: u64) -> u128 {
    xxhash_rust::xxh3::xxh3_128(&number.to_le_bytes())
}

/// Log time of a record: 10 million in a window.
fn time(number: u64) -> i64 {
    i64::try_from(number * u64::try_from(WINDOW_MS).unwrap() / ENTRIES).unwrap()
}

/// Windows full of unique keys, and one in fifty that is repeated a third of a window later.
fn fill(budget_bytes: u64) -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let budget = Budget::new(budget_bytes, Scratch::new(folder.path()));
    let mut window = Window::new(WINDOW_MS, &budget);
    let mut runs = Vec::new();
    for batch in 0..WINDOWS * ENTRIES / BATCH {
        let (from, to) = (batch * BATCH, (batch + 1) * BATCH);
        let keys: Vec<u128> = (from..to)
            .map(|number| key(if number % 50 == 0 { number.saturating_sub(ENTRIES / 3) } else { number }))
            .collect();
        let begun = Instant::now();
        let mut overlay = Window::overlay();
        let mut duplicates = 0;
        for (first, group) in (from..).step_by(GROUP).zip(keys.chunks(GROUP)) {
            window.warm(&overlay, group);
            for (number, key) in (first..).zip(group) {
                duplicates += u64::from(window.take(&mut overlay, *key, time(number)).unwrap());
            }
        }
        let looked_up = begun.elapsed();
        let sorting = Instant::now();
        runs.push(encode_key_run(&overlay));
        let sorted = sorting.elapsed();
        let merging = Instant::now();
        window.merge(overlay, time(to)).unwrap();
        println!(
            "{:9} keys: {:4} ns a record, {:4} ns to merge, {:4} ns in the key run, {} B an entry in memory ({} MB), {} MB on disk; {duplicates} duplicates",
            window.len(),
            looked_up.as_nanos() / u128::from(BATCH),
            merging.elapsed().as_nanos() / u128::from(BATCH),
            sorted.as_nanos() / u128::from(BATCH),
            window.memory_bytes() / window.len(),
            window.memory_bytes() / 1_000_000,
            budget.disk_bytes() / 1_000_000,
        );
    }
    runs
}

fn rebuild(runs: &[Vec<u8>], budget_bytes: u64) {
    let folder = tempfile::tempdir().unwrap();
    let budget = Budget::new(budget_bytes, Scratch::new(folder.path()));
    let begun = Instant::now();
    let mut window = Window::new(WINDOW_MS, &budget);
    window.expect(time(WINDOWS * ENTRIES));
    for run in runs.iter().rev().take(usize::try_from(ENTRIES / BATCH).unwrap()) {
        decode_key_run(run, |key, time_ms| window.restore(key, time_ms)).unwrap();
        window.fit().unwrap();
    }
    println!("rebuilt {} keys in {:?}", window.len(), begun.elapsed());
}

#[test]
#[ignore = "measures; run in release"]
fn in_memory() {
    let runs = fill(u64::MAX);
    rebuild(&runs, u64::MAX);
}

#[test]
#[ignore = "measures; run in release"]
fn mostly_on_disk() {
    let runs = fill(64_000_000);
    rebuild(&runs, 64_000_000);
}
