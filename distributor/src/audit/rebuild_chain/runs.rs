//! Key runs: those that are there, and those made again.

use std::collections::HashMap;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;

use super::super::AuditError;
use super::super::deep::{self, Rows};
use super::known::Known;
use super::partition::Pass;
use super::revised::UNKNOWN_REWRITE;
use super::{Stop, refused};
use crate::layout::Layout;
use crate::route::{fingerprint, read_event};
use crate::window::{Window, decode_key_run, encode_key_run};

impl Pass<'_> {
    /// Whether a key run of the batch that begins at `from` stood there when the partition was looked at.
    pub(super) fn has_run(&self, from: i64, key: &str) -> bool {
        let is_of_cut = self.key_runs.contains(&from) && self.chain.key_run_key(from) == key;
        is_of_cut || self.revised_key_runs.get(&from).is_some_and(|runs| runs.iter().any(|run| run == key))
    }

    pub(super) async fn existing_run(&self, key: &str) -> Result<Vec<u8>, Stop> {
        let gone = || refused(format!("'{key}' went away while it was looked at"));
        self.chain.key_run(key).await?.map_or_else(gone, |run| Ok(run.to_vec()))
    }

    /// Puts a key run that is missing.
    pub(super) async fn put_run(&mut self, key: &str, run: &[u8]) -> Result<(), Stop> {
        self.report.key_runs += 1;
        if self.put {
            self.chain.put_key_run(key, run.to_vec()).await?;
        }
        Ok(())
    }

    /// Goes past a batch with these keys.
    pub(super) fn take(&mut self, key: &str, run: &[u8], clock_ms: i64) -> Result<(), Stop> {
        let taken = self.windows.take(run, clock_ms)?;
        taken.or_else(|error| refused(format!("'{key}': {error}; move it away, and it is made again")))
    }

    /// The key run of a batch whose revision's document is lost, and what is in it; `None` if it is to be put there.
    /// Keys depend on the records and on how they are read, not on windows or files, so that any run that fits is right,
    /// whichever revision it was made for.
    pub(super) async fn find_run(
        &self,
        from: i64,
        known: &Known,
        layout: &Layout,
        fits: impl Fn(&[u8]) -> bool,
    ) -> Result<(String, Option<Vec<u8>>), Stop> {
        let of_cut = self.chain.key_run_key(from);
        let is_there = self.key_runs.contains(&from);
        let revised = self.revised_key_runs.get(&from).into_iter().flatten();
        for key in is_there.then_some(&of_cut).into_iter().chain(revised) {
            let run = self.existing_run(key).await?;
            if fits(&run) {
                return Ok((key.clone(), Some(run)));
            }
        }
        if !is_there && known.cut.as_ref().is_none_or(|cut| cut.layout.reads_like(layout)) {
            return Ok((of_cut, None));
        }
        let key = self.chain.revised_key_run_key(from, known.number, UNKNOWN_REWRITE);
        if self.has_run(from, &key) {
            return refused(format!("'{key}' does not hold the keys of its batch; move it away, and it is made again"));
        }
        Ok((key, None))
    }

    /// The keys of all rows. Those of dropped duplicates are in the window already, with an earlier time.
    pub(super) async fn run_from_rows(&self, known: &Known, layout: &Layout) -> Result<Vec<u8>, Stop> {
        let mut overlay = Window::overlay();
        let reader = layout.reader().map_err(|message| Stop::Failed(AuditError::Layout(message)))?;
        for file in known.files.values() {
            let gone = || format!("'{}' went away while it was looked at", file.path);
            let body = deep::body(&*self.rebuilder.store, &file.path, file.size_bytes).await?;
            let Some(body) = body else { return refused(gone()) };
            let unreadable = |error: &dyn std::fmt::Display| {
                Stop::Refused(format!(
                    "the rows of '{}' cannot be read ({error}); bring it back from a backup",
                    file.path
                ))
            };
            let rows = deep::decode(body).map_err(|error| unreadable(&error))?;
            let (_, keys) = deep::keys(&rows).map_err(|message| unreadable(&message))?;
            for key in keys {
                overlay.insert(key.fingerprint, key.time_ms);
            }
            for (value, time_ms) in rejected(&rows) {
                if let Ok(event) = read_event(Some(value), &reader) {
                    overlay.insert(fingerprint(&event.event_id, event.timestamp_us), time_ms);
                }
            }
        }
        Ok(encode_key_run(&overlay))
    }
}

/// Whether a run has every key of another one, with a time that is no earlier.
pub(super) fn holds(run: &[u8], other: &[u8]) -> bool {
    let mut times = HashMap::new();
    let is_sound = decode_key_run(run, |key, time_ms| {
        let latest = times.entry(key).or_insert(time_ms);
        *latest = time_ms.max(*latest);
    });
    let mut holds = is_sound.is_ok();
    let compared = decode_key_run(other, |key, time_ms| {
        holds &= times.get(&key).is_some_and(|latest| *latest >= time_ms);
    });
    holds && compared.is_ok()
}

/// Values of rejected records with their log times: those that are events all the same have keys.
fn rejected(rows: &Rows) -> impl Iterator<Item = (&[u8], i64)> {
    rows.iter().flat_map(|batch| {
        let raw = batch.column_by_name("raw").and_then(|raw| raw.as_binary_opt::<i32>());
        let times =
            batch.column_by_name("_ingested_at").and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
        let both = raw.zip(times);
        (0..batch.num_rows()).filter_map(move |row| {
            let (raw, times) = both?;
            raw.is_valid(row).then(|| (raw.value(row), times.value(row) / 1_000))
        })
    })
}
