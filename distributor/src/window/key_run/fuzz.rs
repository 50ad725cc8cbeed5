//! The input is a key run, and a key run without its checksum (which would stop nearly every mutation).

#![allow(clippy::expect_used, reason = "an oracle reports a failure by a panic")]

use super::{Overlay, decode_key_run, encode_key_run, most_bytes};

/// A refused run has visited no key. The keys of an accepted one, written again, are a run with the same keys and their latest
/// times, of no more than the predicted length.
pub fn key_run(input: &[u8]) {
    check(input);
    check(&[input, &xxhash_rust::xxh3::xxh3_64(input).to_le_bytes()].concat());
}

fn check(run: &[u8]) {
    let mut keys = Vec::new();
    if decode_key_run(run, |key, time_ms| keys.push((key, time_ms))).is_err() {
        assert!(keys.is_empty(), "{} keys of a damaged run", keys.len());
        return;
    }
    let mut overlay = Overlay::default();
    for (key, time_ms) in &keys {
        overlay.put(*key, *time_ms);
    }
    let written = encode_key_run(&overlay);
    assert!(written.len() as u64 <= most_bytes(keys.len() as u64));
    let mut read = Vec::new();
    decode_key_run(&written, |key, time_ms| read.push((key, time_ms))).expect("a run of ours");
    assert_eq!(latest(&read), latest(&keys));
    let mut again = Overlay::default();
    for (key, time_ms) in &read {
        again.put(*key, *time_ms);
    }
    assert_eq!(encode_key_run(&again), written);
}

/// The latest time of each key.
fn latest(keys: &[(u128, i64)]) -> std::collections::BTreeMap<u128, i64> {
    let mut latest = std::collections::BTreeMap::new();
    for (key, time_ms) in keys {
        let known = latest.entry(*key).or_insert(*time_ms);
        *known = (*time_ms).max(*known);
    }
    latest
}
