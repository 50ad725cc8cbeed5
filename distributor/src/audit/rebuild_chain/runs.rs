//! Key runs: those that are there, and those made again.

use std::collections::HashMap;

use super::super::AuditError;
use super::known::Known;
use super::partition::Pass;
use super::revised::UNKNOWN_REWRITE;
use super::{Stop, refused};
use crate::footer::{Footer, FooterError};
use crate::layout::Layout;
use crate::window::{Window, decode_key_run, encode_key_run};
use crate::written::Written;

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
        let store = &*self.rebuilder.store;
        let mut written = Written::default();
        for file in known.files.values() {
            let read = async {
                let footer = Footer::read(store, &file.path, file.size_bytes).await?;
                written.read(store, &file.path, &footer, &reader).await
            };
            match read.await {
                Ok(()) => {}
                Err(FooterError::Store(error)) => return Err(error.into()),
                Err(FooterError::Gone) => return refused(format!("'{}' went away while it was looked at", file.path)),
                Err(FooterError::Unreadable(error)) => {
                    return refused(format!(
                        "the rows of '{}' cannot be read ({error}); bring it back from a backup",
                        file.path
                    ));
                }
            }
        }
        for key in written.keys {
            overlay.insert(key.fingerprint, key.time_ms);
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
