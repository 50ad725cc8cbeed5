//! The deep part: every row of a partition, batch by batch, beside what the log's records make.

use std::collections::BTreeMap;

use commitlog::{Fate, FileId, State};
use commitlog_storage::{CommitLog, Loaded};

use super::deep;
use super::files::unpublished;
use super::{AuditError, FindingKind, Live, PartitionAudit, Work};
use crate::again::{Again, Made};
use crate::batch::{BatchError, Body, Counts, path};
use crate::error::PartitionError;
use crate::fetch::{fetch, same_rows};
use crate::known::Known;
use crate::window::Window;
use crate::written::Key;

/// What the rows of earlier batches leave for later ones.
struct Written {
    window_ms: i64,
    window: Window,
}

impl Work<'_> {
    pub(super) async fn rows(
        &mut self,
        commits: &CommitLog,
        state: &State,
        loaded: &Loaded,
        earliest: Option<i64>,
        summary: &mut PartitionAudit,
    ) -> Result<(), AuditError> {
        let (auditor, budget) = (self.auditor, self.budget.clone());
        let mut again = match (&auditor.log, earliest) {
            (Some(log), Some(log_from)) => Some(Again {
                commits,
                recent: &loaded.recent,
                log: &**log,
                topic: &auditor.topic,
                partition: summary.partition,
                log_from,
                budget: &budget,
                scratch: &auditor.scratch,
                memory: auditor.batch_memory,
                known: Known::new(0, &budget),
                records: None,
            }),
            _ => None,
        };
        let mut by_begin: BTreeMap<i64, Vec<Live<'_>>> = BTreeMap::new();
        for live in &state.live {
            by_begin.entry(live.1.from).or_default().push(live);
        }
        // Where an output stands that may not be published yet.
        let staged = |live: Live<'_>| unpublished(commits, state, live);
        let mut written: Option<Written> = None;
        // Rows of outputs that span batches, until their batch comes.
        let mut ahead: Vec<Key> = Vec::new();
        for (from, span) in &state.spans {
            let Fate::Batch(batch) = &span.fate else { continue };
            let place = format!("{}/{}: {from}..{}", auditor.topic, summary.partition, span.to);
            let made = match &mut again {
                Some(again) if again.log_from <= *from => self.recount(again, *from, &batch.counts, &place).await?,
                _ => None,
            };
            summary.recounted_batches += u64::from(made.is_some());
            let window_ms = batch.recipe.layout.get("window_ms").and_then(serde_json::Value::as_i64).unwrap_or(0);
            // Under another window other repetitions are right: what was written before it changed is not held against it.
            if written.as_ref().is_none_or(|written| written.window_ms != window_ms) {
                written = Some(Written { window_ms, window: Window::new(window_ms, &self.budget) });
            }
            for live in by_begin.remove(from).unwrap_or_default() {
                let expected = match (live.0, &made) {
                    (FileId::Batch { from: of, k }, Some(files)) if of == from => files.get(*k as usize),
                    _ => None,
                };
                self.file(summary.partition, live, staged(live), expected, &mut ahead).await?;
            }
            // Outputs may begin within a batch.
            let within: Vec<i64> = by_begin.range(from..&span.to).map(|(begin, _)| *begin).collect();
            for live in within.iter().filter_map(|begin| by_begin.remove(begin)).flatten() {
                self.file(summary.partition, live, staged(live), None, &mut ahead).await?;
            }
            ahead.sort_unstable_by_key(|key| key.offset);
            let end = ahead.partition_point(|key| key.offset < span.to);
            let keys: Vec<Key> = ahead.drain(..end).collect();
            if let Some(Written { window, .. }) = &mut written {
                self.unique(&place, keys, batch.clock_ms, window)?;
            }
        }
        if let Some(again) = again {
            again.close().await;
        }
        Ok(())
    }

    /// Makes a batch again. None: it differs, which was found, or cannot be made.
    async fn recount(
        &mut self,
        again: &mut Again<'_>,
        from: i64,
        counts: &serde_json::Value,
        place: &str,
    ) -> Result<Option<Vec<Body>>, AuditError> {
        let mut made = match again.make(from).await {
            Ok(Made::Batch(made)) => made,
            Ok(Made::Cannot(reason)) => {
                self.find(FindingKind::RowsDiffer, place, format!("it cannot be made again: {reason}"));
                return Ok(None);
            }
            Err(PartitionError::Damaged { key, message }) => {
                self.find(
                    FindingKind::KeyRunDamaged,
                    place,
                    format!("its rows cannot be made again: '{key}': {message}"),
                );
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let said: Option<Counts> = serde_json::from_value(counts.clone()).ok();
        if said != Some(made.encoded.counts) {
            let message = format!("the log's records make {:?}, its entry says {said:?}", made.encoded.counts);
            self.find(FindingKind::RowsDiffer, place, message);
        }
        let files = std::mem::take(&mut made.encoded.files).into_iter().map(|file| file.body).collect();
        again.keep(*made).map_err(BatchError::from)?;
        Ok(Some(files))
    }

    async fn file(
        &mut self,
        partition: i32,
        live: Live<'_>,
        staged: Option<String>,
        expected: Option<&Body>,
        keys: &mut Vec<Key>,
    ) -> Result<(), AuditError> {
        let (store, scratch) = (&*self.auditor.store, &self.auditor.scratch);
        let mut path = path(&self.auditor.topic, partition, &live.1.folder, *live.0);
        let stored = live.1.stored;
        if self.present.is_hidden(&path) {
            return Ok(());
        }
        let mut fetched = fetch(store, &path, stored.bytes, scratch).await;
        if let (Ok(None), Some(staged)) = (&fetched, staged) {
            path = staged;
            fetched = fetch(store, &path, stored.bytes, scratch).await;
        }
        let body = match fetched {
            Ok(Some(body)) => body,
            Ok(None) => return Ok(()),
            Err(PartitionError::Store(error)) => return self.refused(&path, error),
            Err(error) => return Err(error.into()),
        };
        let (found, named) = (body.hash().map_err(BatchError::from)?, stored.sha256);
        if found != named {
            self.find(
                FindingKind::FileAltered,
                path.clone(),
                format!("its hash is {found}, its entry says {named}; move it away and make it again"),
            );
        }
        let written = match deep::written(&body) {
            Ok(written) => written,
            Err(message) => {
                self.find(FindingKind::FileAltered, path, message);
                return Ok(());
            }
        };
        let mut offsets = written.offsets;
        offsets.sort_unstable();
        let range = live.1.from..live.1.to;
        let outside = offsets.iter().filter(|offset| !range.contains(offset)).count();
        let twice = offsets.array_windows::<2>().filter(|[one, next]| one == next).count();
        if outside + twice > 0 {
            let message = format!("{twice} offsets stand in it twice, {outside} are not of its range");
            self.find(FindingKind::RowsDiffer, path.clone(), message);
        }
        keys.extend(written.keys);
        if let Some(expected) = expected
            && !same_rows(expected, &body)?
        {
            self.find(FindingKind::RowsDiffer, path, "its rows are not those that the log's records make");
        }
        Ok(())
    }

    /// No written row may repeat a written one within the window: a necessary condition, also where the log is gone.
    fn unique(&mut self, place: &str, keys: Vec<Key>, clock_ms: i64, window: &mut Window) -> Result<(), AuditError> {
        let mut overlay = Window::overlay();
        let (mut repeated, mut first) = (0_u64, None);
        for key in keys {
            if window.take(&mut overlay, key.fingerprint, key.time_ms)? {
                repeated += 1;
                first = first.or(Some(key.offset));
            }
        }
        window.merge(overlay, clock_ms)?;
        if let Some(first) = first {
            let message = format!("{repeated} rows repeat an earlier one within the window, first at offset {first}");
            self.find(FindingKind::KeyRepeated, place, message);
        }
        Ok(())
    }
}
