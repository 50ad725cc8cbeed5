//! The input is a ledger partition, one record per line: key, tab, value. A line without a tab is a tombstone.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "an oracle reports a failure by a panic")]

use std::collections::HashMap;

use super::{ENTRY_VERSION, Entry, Ledger, META_KEY, Meta, REPLAY_KEY, Standing, is_quarantined, push_entry};
use crate::replay::ReplayProgress;
use crate::routes::Sweep;
use common::log::RecordBatch;

/// After any records the ledger has the last valid record of each file, and its counts agree; a refused record changes
/// nothing. An entry that was read is the same after it is written and read again.
pub fn ledger(input: &[u8]) {
    let (mut ledger, mut model, mut meta) = (Ledger::default(), HashMap::new(), None);
    for line in input.split(|byte| *byte == b'\n') {
        let (key, value) = match memchr::memchr(b'\t', line) {
            Some(tab) => (&line[..tab], Some(&line[tab + 1..])),
            None => (line, None),
        };
        let is_taken = ledger.apply(key, value, Sweep::default()).is_ok();
        match (key, value) {
            (META_KEY, value) => {
                let read = value.and_then(|value| serde_json::from_slice::<Meta>(value).ok());
                assert_eq!(is_taken, read.is_some());
                meta = read.or(meta);
            }
            (REPLAY_KEY, value) => {
                assert!(is_taken);
                value.map(replay_progress);
            }
            (key, None) if is_taken => _ = model.remove(key),
            (key, Some(value)) if is_taken => _ = model.insert(key, entry(key, value)),
            (key, _) => assert!(!value.is_some_and(|value| is_entry(key, value)), "a sound entry was refused"),
        }
        assert_eq!((ledger.len(), ledger.meta()), (model.len(), meta));
        assert_eq!(ledger.quarantined(), model.values().filter(|entry| is_quarantined(entry)).count());
    }
    for (key, entry) in model {
        let settled = Standing::Settled { mode: entry.mode(), only_copy: entry.only_copy };
        let expected = if entry.is_settled() { settled } else { Standing::Whole(Box::new(entry)) };
        assert_eq!(ledger.see(std::str::from_utf8(key).unwrap(), Sweep::default()), expected);
    }
}

fn is_entry(key: &[u8], value: &[u8]) -> bool {
    let is_sound = |entry: Entry| entry.v <= ENTRY_VERSION;
    std::str::from_utf8(key).is_ok() && serde_json::from_slice(value).is_ok_and(is_sound)
}

/// An entry that was taken.
fn entry(key: &[u8], value: &[u8]) -> Entry {
    let entry: Entry = serde_json::from_slice(value).expect("an entry");
    assert!(entry.v <= ENTRY_VERSION, "an entry of a later version was taken");
    let mut batch = RecordBatch::new();
    push_entry(&mut batch, std::str::from_utf8(key).expect("an identity is text"), &entry).expect("a small record");
    let written = batch.get(0).value.expect("an entry is no tombstone");
    assert_eq!(serde_json::from_slice::<Entry>(written).ok().as_ref(), Some(&entry));
    entry
}

fn replay_progress(value: &[u8]) {
    let Ok(progress) = serde_json::from_slice::<ReplayProgress>(value) else { return };
    let written = serde_json::to_vec(&progress).expect("progress that can be written");
    assert_eq!(serde_json::from_slice::<ReplayProgress>(&written).ok(), Some(progress));
}
