//! Rebuilds the deduplication window from the key runs of the chain.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;

use crate::chain::{ChainStore, Cut, Revisions};
use crate::partition::PartitionError;
use crate::window::{Budget, KEY_RUN_ENTRY_BYTES, Window, decode_key_run};

/// Key runs read concurrently …
const READS_AT_ONCE: usize = 16;
/// … if their total size is at most this.
const READ_BYTES: u64 = 16 * 1024 * 1024;

pub(crate) struct Rebuilt {
    pub window: Window,
    pub clock_ms: i64,
    pub window_from: i64,
}

/// Without the keys of a lost cut, duplicates could not be detected.
fn gap(chain: &ChainStore, from: i64, to: i64) -> PartitionError {
    PartitionError::Damaged {
        key: chain.cut_key(from),
        message: format!(
            "no cut holds the offsets {from} up to before {to}, and duplicates could not be detected without its keys; restore it from a \
             backup, or rebuild it with 'verify --rebuild-chain'"
        ),
    }
}

fn missing(key: String) -> PartitionError {
    PartitionError::Damaged {
        key,
        message: "this key run is missing, and duplicates could not be detected without it; restore it from a backup, or rebuild \
                  it with 'verify --rebuild-chain'"
            .to_owned(),
    }
}

/// The number of these batches' key runs that are read concurrently: as many as fit in memory, at least one.
fn read_together(cuts: &[Cut]) -> usize {
    let mut bytes = 0;
    let fit = cuts.iter().take_while(|cut| {
        // There are at most as many keys as offsets.
        bytes += cut.to.saturating_sub(cut.from).unsigned_abs().saturating_mul(KEY_RUN_ENTRY_BYTES as u64);
        bytes <= READ_BYTES
    });
    fit.count().max(1)
}

/// The window valid at offset `at`, which is where the chain begins or where a cut ends.
pub(crate) async fn rebuild(
    chain: &ChainStore,
    at: i64,
    window_ms: i64,
    budget: &Arc<Budget>,
) -> Result<Rebuilt, PartitionError> {
    let mut window = Window::new(window_ms, budget);
    let Some(last) = chain.cut_at_or_before(at - 1).await? else {
        return Ok(Rebuilt { window, clock_ms: i64::MIN, window_from: at });
    };
    if last.to != at {
        return Err(PartitionError::Damaged {
            key: format!("cut {}..{}", last.from, last.to),
            message: format!("the chain has a gap or an overlap at offset {at}"),
        });
    }
    let clock_ms = last.clock_ms;
    let from_ms = clock_ms.saturating_sub(window_ms);
    window.expect(clock_ms);
    let mut window_from = at;
    let mut before = Some(last);
    let mut newer_from = at;
    while let Some(newest) = before.take() {
        let mut cuts = vec![newest];
        // Each cut names the one before it; once their names are listed they can be read together.
        if let Some(oldest) = cuts.last() {
            cuts.extend(chain.cuts_before(oldest.from).await?);
        }
        for cut in &cuts {
            if cut.to != newer_from {
                return Err(gap(chain, cut.to, newer_from));
            }
            newer_from = cut.from;
        }
        let oldest_from = cuts.last().map(|cut| cut.from);
        let needed: Vec<Cut> = cuts.into_iter().take_while(|cut| cut.clock_ms >= from_ms).collect();
        // Batches rewritten under other rules have other keys.
        let revisions = match (needed.first(), needed.last()) {
            (Some(newest), Some(oldest)) => chain.revisions(oldest.from, newest.from).await?,
            _ => Revisions::new(),
        };
        let reached_old = needed.last().map(|cut| cut.from) != oldest_from;
        let with_keys: Vec<Cut> = needed.into_iter().filter(Cut::is_batch).collect();
        let mut to_read = &with_keys[..];
        while !to_read.is_empty() {
            let (together, rest) = to_read.split_at(read_together(to_read));
            to_read = rest;
            let ranges: Vec<(i64, i64)> = together.iter().map(|cut| (cut.from, cut.to)).collect();
            let mut runs = stream::iter(ranges)
                .map(async |range| (range.0, chain.standing_key_run(range, revisions.get(&range.0).copied()).await))
                .buffered(READS_AT_ONCE);
            while let Some((from, run)) = runs.next().await {
                let (key, run) = run?;
                let Some(run) = run else {
                    // Compaction removes keys that no window of its time could reach: a longer window begins after
                    // them.
                    if chain.is_summarised(from).await? {
                        tracing::warn!(from, "the window reaches back to keys that were removed; it begins after them");
                        return Ok(Rebuilt { window, clock_ms, window_from });
                    }
                    return Err(missing(key));
                };
                decode_key_run(&run, |fingerprint, time_ms| window.restore(fingerprint, time_ms))
                    .map_err(|error| PartitionError::Damaged { key, message: error.to_string() })?;
                window.fit()?;
                window_from = from;
            }
        }
        if !reached_old && let Some(from) = oldest_from {
            before = chain.cut_at_or_before(from - 1).await?;
            if before.is_none()
                && let Some(start) = chain.origin().await?.map(|origin| origin.start).filter(|start| *start < from)
            {
                return Err(gap(chain, start, from));
            }
        }
    }
    Ok(Rebuilt { window, clock_ms, window_from })
}
