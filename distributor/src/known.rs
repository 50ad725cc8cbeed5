//! The deduplication window at one offset, rebuilt from the key runs of the commit log.

use std::collections::VecDeque;
use std::sync::Arc;

use commitlog::{Fate, Intent, Span, Stored};
use commitlog_storage::{CommitLog, CommitLogError, Damage, Recent};
use futures_util::{FutureExt, StreamExt};

use crate::error::PartitionError;
use crate::in_turn::in_turn;
use crate::scratch::ScratchError;
use crate::window::{Budget, Overlay, Window, decode_key_run, most_bytes};

/// Key runs are read concurrently if their total size is at most this.
const READ_BYTES: u64 = 16 * 1024 * 1024;

/// A window, and where it is valid.
pub(crate) struct Known {
    pub window: Window,
    window_ms: i64,
    valid: Option<Valid>,
    /// Log time there; none before the first batch.
    clock_ms: Option<i64>,
    /// The batches whose keys are in the window: where each begins, and log time at its end. Oldest first.
    batches: VecDeque<(i64, i64)>,
}

/// Where a window is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Valid {
    at: i64,
    /// How far the offsets before it were decided, if at all, when it was rebuilt. Others may have decided the rest since.
    decided_to: Option<i64>,
}

impl Valid {
    fn new(at: i64, recent: &Recent) -> Self {
        Self { at, decided_to: recent.end().map(|end| end.min(at)) }
    }
}

/// A key run that is to be read.
struct Run {
    from: i64,
    to: i64,
    keys: Stored,
}

impl Known {
    pub(crate) fn new(window_ms: i64, budget: &Arc<Budget>) -> Self {
        let window = Window::new(window_ms, budget);
        Self { window, window_ms, valid: None, clock_ms: None, batches: VecDeque::new() }
    }

    pub(crate) fn clock_ms(&self) -> Option<i64> {
        self.clock_ms
    }

    /// Begin of the oldest batch whose keys are in the window, which is valid at `at`.
    pub(crate) fn window_from(&self, at: i64) -> i64 {
        self.batches.front().map_or(at, |(from, _)| *from)
    }

    /// Takes the keys of the batch that begins where the window is valid; with any other, it is valid nowhere.
    ///
    /// # Errors
    /// The disk's. The window is then valid nowhere.
    pub(crate) fn take(&mut self, overlay: Overlay, batch: &Intent) -> Result<(), ScratchError> {
        // Elsewhere the window lacks keys. Valid nowhere, it is rebuilt before it is used.
        if self.valid.take().is_none_or(|valid| valid.at != batch.from) {
            return Ok(());
        }
        self.window.merge(overlay, batch.clock_ms)?;
        self.valid = Some(Valid { at: batch.to, decided_to: Some(batch.to) });
        self.clock_ms = Some(batch.clock_ms);
        self.batches.push_back((batch.from, batch.clock_ms));
        let oldest_ms = batch.clock_ms.saturating_sub(self.window_ms);
        while self.batches.front().is_some_and(|(_, clock_ms)| *clock_ms < oldest_ms) {
            self.batches.pop_front();
        }
        Ok(())
    }

    /// Whether the window is valid at `at`, as [`Known::rebuild`] makes it.
    pub(crate) fn is_valid(&self, recent: &Recent, at: i64, window_ms: i64, keys_from: i64) -> bool {
        let is_there = self.valid == Some(Valid::new(at, recent));
        is_there && self.window_ms == window_ms && self.window_from(at) >= keys_from
    }

    /// Makes the window valid at `at`, where the commit log begins or a span ends. Returns whether that took reading.
    /// `keys_from`: of batches that begin before it no keys are taken. For a batch that is made again that is where its
    /// window began; for a new one, where the keys begin that are certainly there.
    ///
    /// # Errors
    /// Of the store, and key runs or segments that are missing or altered: duplicates could not be detected without them.
    pub(crate) async fn rebuild(
        &mut self,
        commits: &CommitLog,
        recent: &Recent,
        at: i64,
        window_ms: i64,
        budget: &Arc<Budget>,
        keys_from: i64,
    ) -> Result<bool, PartitionError> {
        if self.is_valid(recent, at, window_ms, keys_from) {
            return Ok(false);
        }
        *self = Self::new(window_ms, budget);
        let mut newer_from = at;
        loop {
            let spans = commits.spans_before(recent, newer_from).await?;
            if spans.is_empty() {
                break;
            }
            let mut runs = Vec::new();
            let mut is_old = newer_from <= keys_from;
            for (from, Span { to, fate }) in spans.iter().rev() {
                if *to != newer_from {
                    return Err(gap(commits, *to, newer_from));
                }
                newer_from = *from;
                let Fate::Batch(batch) = fate else { continue };
                let clock_ms = *self.clock_ms.get_or_insert_with(|| {
                    self.window.expect(batch.clock_ms);
                    batch.clock_ms
                });
                is_old = *from < keys_from || batch.clock_ms < clock_ms.saturating_sub(window_ms);
                if is_old {
                    break;
                }
                self.batches.push_front((*from, batch.clock_ms));
                runs.push(Run { from: *from, to: *to, keys: batch.keys });
            }
            if let Some(from) = self.read(commits, runs).await? {
                return Err(missing_run(commits, recent, from).await?);
            }
            if is_old {
                break;
            }
        }
        self.valid = Some(Valid::new(at, recent));
        Ok(true)
    }

    /// As [`Known::rebuild`], for a new batch: with the keys that are certainly there. Others may have collected some since
    /// `recent` was read, which no new batch needs then.
    ///
    /// # Errors
    /// As [`Known::rebuild`].
    pub(crate) async fn rebuild_for_new(
        &mut self,
        commits: &CommitLog,
        recent: &Recent,
        at: i64,
        window_ms: i64,
        budget: &Arc<Budget>,
    ) -> Result<bool, PartitionError> {
        let keys_from = recent.keys_from();
        match self.rebuild(commits, recent, at, window_ms, budget, keys_from).await {
            Err(missing @ PartitionError::Damaged { .. }) => {
                let now = commits.load().await?.recent.keys_from();
                if now <= keys_from {
                    return Err(missing);
                }
                self.rebuild(commits, recent, at, window_ms, budget, now).await
            }
            rebuilt => rebuilt,
        }
    }

    /// Reads key runs, newest first. Returns where the batch of the first one begins that is not there.
    async fn read(&mut self, commits: &CommitLog, runs: Vec<Run>) -> Result<Option<i64>, PartitionError> {
        let mut rest = &runs[..];
        while !rest.is_empty() {
            let mut bytes = 0_u64;
            let fit = rest.iter().take_while(|run| {
                bytes = bytes.saturating_add(run.keys.bytes);
                bytes <= READ_BYTES
            });
            let (together, later) = rest.split_at(fit.count().max(1).min(rest.len()));
            rest = later;
            let mut bodies = in_turn(together.iter().map(|run| read_one(commits, run).boxed()));
            while let Some((run, body)) = bodies.next().await {
                let Some(body) = body? else { return Ok(Some(run.from)) };
                let damaged = |message: String| PartitionError::Damaged {
                    key: commits.key_run_key(run.from, run.keys.sha256),
                    message,
                };
                decode_key_run(&body, |fingerprint, time_ms| self.window.restore(fingerprint, time_ms))
                    .map_err(|error| damaged(error.to_string()))?;
                self.window.fit()?;
            }
        }
        Ok(None)
    }
}

async fn read_one<'a>(commits: &CommitLog, run: &'a Run) -> (&'a Run, Result<Option<bytes::Bytes>, PartitionError>) {
    (run, body(commits, run).await)
}

/// None: it is not there.
async fn body(commits: &CommitLog, run: &Run) -> Result<Option<bytes::Bytes>, PartitionError> {
    // There are at most as many keys as offsets.
    let most = most_bytes(run.to.saturating_sub(run.from).unsigned_abs());
    if run.keys.bytes > most {
        let key = commits.key_run_key(run.from, run.keys.sha256);
        let Run { from, to, keys } = run;
        let message = format!("the batch {from}..{to} cannot have so many keys: {} bytes, at most {most}", keys.bytes);
        return Err(PartitionError::Damaged { key, message });
    }
    match commits.key_run(run.from, &run.keys).await {
        Ok(body) => Ok(Some(body)),
        Err(CommitLogError::Damaged { damage: Damage::Missing, .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn missing_run(commits: &CommitLog, recent: &Recent, from: i64) -> Result<PartitionError, CommitLogError> {
    let spans = commits.spans_before(recent, from.saturating_add(1)).await?;
    let keys = spans.get(&from).and_then(|span| match &span.fate {
        Fate::Batch(batch) => Some(commits.key_run_key(from, batch.keys.sha256)),
        Fate::Passed(_) | Fate::Abandoned(_) => None,
    });
    let message =
        "this key run is missing, and duplicates could not be detected without it; bring it back from a backup"
            .to_owned();
    Ok(PartitionError::Damaged { key: keys.unwrap_or_default(), message })
}

fn gap(commits: &CommitLog, to: i64, newer_from: i64) -> PartitionError {
    let message = format!(
        "the commit log says nothing of the offsets {to} up to before {newer_from}; bring it back from a backup"
    );
    PartitionError::Damaged { key: commits.entry_key(0), message }
}

#[cfg(test)]
mod tests {
    use commitlog::{CollectKeys, Commit, Hash, Header, Op, Recipe, Witness};
    use serde_json::Value;

    use super::*;

    /// Batches of ten offsets, of which the second was made with a longer window than those beside it.
    fn entries() -> Vec<Vec<Op>> {
        let witness = Witness { append_ms: 0, key_hash: 0 };
        let nothing = Stored { rows: 0, bytes: 0, sha256: Hash::of(b""), bounds: None };
        let batch = |(from, window_from): (i64, i64)| {
            let intent = Intent {
                from,
                to: from + 10,
                recipe: Recipe { layout: Value::Null, encoding: Value::Null },
                window_from,
                clock_ms: from,
                first: witness,
                last: witness,
                folders: Vec::new(),
            };
            let commit = Commit { from, files: Vec::new(), keys: nothing, counts: Value::Null };
            vec![Op::Intent(intent), Op::Commit(commit)]
        };
        let mut entries: Vec<Vec<Op>> = [(0, 0), (10, 10), (20, 0), (30, 30)].map(batch).into();
        let header = Header { topic: "t".into(), partition: 0, log_id: "log".into(), start: 0, first: witness };
        entries[0].insert(0, Op::Header(header));
        entries
    }

    #[test]
    fn keys_of_a_batch_elsewhere_leave_the_window_to_be_rebuilt() {
        let budget = Budget::new(u64::MAX, crate::Scratch::new(std::env::temp_dir()));
        let mut known = Known::new(1_000, &budget);
        let Some(Op::Intent(intent)) = entries().into_iter().flatten().find(|op| matches!(op, Op::Intent(_))) else {
            panic!("an intent")
        };
        known.take(Window::overlay(), &intent).unwrap();
        assert_eq!(known.valid, None, "it was valid nowhere, and lacks keys");
        known.valid = Some(Valid { at: intent.from, decided_to: Some(intent.from) });
        known.take(Window::overlay(), &intent).unwrap();
        assert_eq!(known.valid.map(|valid| valid.at), Some(intent.to));
    }

    /// An owner fills a batch from where the log begins, for nothing is decided; meanwhile another one decides what was
    /// before, which the log has let go of.
    #[tokio::test]
    async fn a_window_lacks_the_keys_of_what_others_have_decided_since() {
        let commits = CommitLog::new(Arc::new(common::store::MemoryStore::default()), "t", 0);
        let budget = Budget::new(u64::MAX, crate::Scratch::new(std::env::temp_dir()));
        let mut known = Known::new(1_000, &budget);
        let nothing = commits.load().await.unwrap();
        assert!(known.rebuild(&commits, &nothing.recent, 10, 1_000, &budget, 0).await.unwrap());
        assert!(known.is_valid(&nothing.recent, 10, 1_000, 0));
        let ops: Vec<Op> = entries().into_iter().take(1).flatten().collect();
        commits.append(nothing.tail, "w", &ops).await.unwrap();
        let decided = commits.load().await.unwrap();
        assert_eq!(decided.recent.end(), Some(10));
        assert!(!known.is_valid(&decided.recent, 10, 1_000, 0), "keys of the batch 0..10 may be missing");
        let missing = known.rebuild(&commits, &decided.recent, 10, 1_000, &budget, 0).await.unwrap_err();
        assert!(missing.to_string().contains("key run"), "they are looked for: {missing}");
    }

    #[tokio::test]
    async fn keys_that_were_collected_since_the_commit_log_was_read_are_done_without() {
        let commits = CommitLog::new(Arc::new(common::store::MemoryStore::default()), "t", 0);
        let budget = Budget::new(u64::MAX, crate::Scratch::new(std::env::temp_dir()));
        let mut known = Known::new(1_000, &budget);
        let ops: Vec<Op> = entries().into_iter().take(1).flatten().collect();
        commits.append(commits.load().await.unwrap().tail, "w", &ops).await.unwrap();
        let read = commits.load().await.unwrap();
        let missing = known.rebuild_for_new(&commits, &read.recent, 10, 1_000, &budget).await.unwrap_err();
        assert!(missing.to_string().contains("key run"), "nobody has collected it: {missing}");
        let collect = Op::CollectKeys(CollectKeys { from: 10 });
        commits.append(read.tail, "w", &[collect]).await.unwrap();
        assert!(known.rebuild_for_new(&commits, &read.recent, 10, 1_000, &budget).await.unwrap());
        assert_eq!(known.window_from(10), 10);
        assert!(known.is_valid(&commits.load().await.unwrap().recent, 10, 1_000, 10));
    }
}
