//! The last stage of a file in a lane: the archive step, its record, and the later checks of a moved file.

use std::time::Duration;

use common::store::{StoreError, Version};
use tokio::task::JoinHandle;

use super::decide::allowed;
use super::late::{Checked, Watch, Watched, check};
use super::{Lane, Passed};
use crate::archive::{Archived, Step, Task, archive};
use crate::ledger::{ArchiveMode, Entry, Moved};
use crate::problems::Kind;

/// Files archived at a time.
const ARCHIVE_BATCH: usize = 1_000;

/// A file to archive, with its entry if the outcome has to be recorded.
pub(super) struct ToArchive {
    pub task: Task,
    pub entry: Option<Entry>,
    /// It was ingested before this lane met it.
    pub was_known: bool,
}

/// A file with the outcome of its archive step.
pub(super) type ArchivedFile = (ToArchive, Result<Archived, StoreError>);

/// Moved files with the results of their checks.
pub(super) type Checks = Vec<(Watched, Result<Checked, StoreError>)>;

/// Moved files under watch, and those that are being checked.
#[derive(Default)]
pub(super) struct Late {
    pub watch: Watch,
    pub checking: Option<JoinHandle<Checks>>,
}

impl Lane {
    fn step(&self, mode: ArchiveMode, target: Option<&String>, path: &str, identity: &str) -> Option<Step> {
        match mode {
            ArchiveMode::Leave => None,
            ArchiveMode::Tag => Some(Step::Tag),
            ArchiveMode::Delete => Some(Step::Delete),
            ArchiveMode::Move => {
                let file = &self.shared.file;
                let new = || file.names.target(path, identity, file.clock.now_ms());
                Some(Step::Move { target: target.cloned().unwrap_or_else(new) })
            }
        }
    }

    pub(super) fn archive_later(&mut self, entry: Entry, version: Version, identity: String, was_known: bool) {
        match self.step(entry.mode(), entry.archive.as_ref(), &entry.path, &identity) {
            None => {
                self.log_kept(&entry);
                self.settle(&identity);
            }
            Some(step) => {
                let task = Task { path: entry.path.clone(), version, identity, step };
                self.to_archive.push_back(ToArchive { task, entry: Some(entry), was_known });
            }
        }
    }

    /// The recorded step has not been performed and is no longer wanted.
    pub(super) fn archive_otherwise(&mut self, entry: Entry, mode: ArchiveMode, version: Version, identity: String) {
        tracing::info!(file = entry.path, from = ?entry.mode(), to = ?mode, "landing.archive has changed; this file follows it");
        self.shared.problems.solved(&identity);
        let target = match self.step(mode, None, &entry.path, &identity) {
            Some(Step::Move { target }) => Some(target),
            _ => None,
        };
        let entry = Entry { mode: Some(mode), archive: target, ..entry };
        if mode == ArchiveMode::Leave {
            self.count_passed(&identity);
            self.settle(&identity);
            self.filling.set_entry(identity, entry);
        } else {
            self.archive_later(entry, version, identity, true);
        }
    }

    pub(super) fn archive_again(&mut self, path: String, version: Version, identity: String) {
        // Modes that leave a file in place do not reach this.
        let Some(step) = self.step(self.mode, None, &path, &identity) else { return };
        let task = Task { path, version, identity, step };
        self.to_archive.push_back(ToArchive { task, entry: None, was_known: true });
    }

    /// Logs that the file, which stays or is moved, is the only complete copy of some content.
    fn log_kept(&self, entry: &Entry) {
        if entry.only_copy && allowed(self.mode, true) != self.mode {
            self.shared.file.metrics.file_kept();
        }
    }

    /// Logged once, when it is committed.
    pub(super) fn warn_of_only_copy(&self, entry: &Entry) {
        if entry.only_copy {
            let becomes = match entry.mode() {
                ArchiveMode::Leave => "it stays in pending/",
                _ => "keep it where it is moved to",
            };
            tracing::warn!(
                file = entry.path,
                events = entry.events,
                dead_letters = entry.rejected,
                dead_letters_cut = entry.cut,
                "only this file has the complete content that is not an event: {becomes}"
            );
        }
    }

    /// Counts a file that needs no work, once for this ownership.
    pub(super) fn count_passed(&mut self, identity: &str) {
        match self.ledger.count(identity) {
            Some(Passed::Done { only_copy }) => {
                self.shared.file.metrics.file_passed();
                if only_copy && allowed(self.mode, true) != self.mode {
                    self.shared.file.metrics.file_kept();
                }
            }
            Some(Passed::Quarantined) => self.shared.file.metrics.file_quarantined(),
            None => {}
        }
    }

    pub(super) fn begin_archiving(&mut self) {
        if self.archiving.is_some() || self.to_archive.is_empty() {
            return;
        }
        let count = self.to_archive.len().min(ARCHIVE_BATCH);
        let batch: Vec<ToArchive> = self.to_archive.drain(..count).collect();
        let (store, names) = (self.shared.file.store.clone(), self.shared.file.names);
        self.archiving = Some(tokio::spawn(async move {
            let tasks: Vec<Task> = batch.iter().map(|item| item.task.clone()).collect();
            let outcomes = archive(&*store, names, &tasks).await;
            batch.into_iter().zip(outcomes).collect()
        }));
    }

    pub(super) fn archived(&mut self, outcomes: Vec<ArchivedFile>) {
        for (ToArchive { task, entry, was_known }, outcome) in outcomes {
            match outcome {
                Ok(outcome) => self.archived_one(&task, entry, was_known, outcome),
                Err(error) => {
                    self.shared.file.metrics.archive_failed();
                    if self.note(&task.identity, Kind::Unarchived, &error) {
                        tracing::warn!(
                            file = task.path,
                            %error,
                            "this file is ingested and cannot be archived now; trying again at each listing (where it never \
                             can be, set landing.archive = \"leave\")"
                        );
                    }
                    self.waiting.remove(&task.identity);
                }
            }
        }
    }

    fn archived_one(&mut self, task: &Task, entry: Option<Entry>, was_known: bool, outcome: Archived) {
        self.shared.problems.solved(&task.identity);
        let is_changed = outcome == Archived::SourceChanged;
        let target = match outcome {
            Archived::SourceChanged => {
                tracing::info!(file = task.path, "removed or replaced before it was archived; listing again");
                self.shared.problems.changed(&task.path);
                self.shared.problems.list_again();
                None
            }
            Archived::Moved { target } => Some(target),
            Archived::Done => None,
        };
        if was_known && !is_changed {
            self.count_passed(&task.identity);
        }
        if let Some(target) = &target {
            let at_ms = entry.as_ref().map_or_else(|| self.shared.file.clock.now_ms(), |entry| entry.at_ms);
            self.watch(Moved {
                identity: task.identity.clone(),
                path: task.path.clone(),
                target: target.clone(),
                at_ms,
            });
        }
        match entry {
            Some(entry) => {
                let entry = Entry { archived: true, archive: target.or(entry.archive), ..entry };
                self.filling.set_entry(task.identity.clone(), entry);
            }
            None => self.ledger.rearchived(&task.identity, self.mode),
        }
        match task.step {
            // The file stays in `pending/`, so it must not be processed at every listing.
            Step::Tag => self.settle(&task.identity),
            Step::Move { .. } | Step::Delete => self.waiting.remove(&task.identity),
        }
    }

    /// Whether moved files are checked.
    pub(super) fn watches_moved_files(&self) -> bool {
        self.shared.file.store.capabilities().is_written_in_place
    }

    fn watch(&mut self, moved: Moved) {
        if self.watches_moved_files() {
            let now_ms = self.shared.file.clock.now_ms();
            self.late.watch.plan_check(moved, now_ms);
        }
    }

    pub(super) fn is_check_due(&self) -> bool {
        self.late.watch.is_due(self.shared.file.clock.now_ms())
    }

    /// The time until the next moved file has to be checked.
    pub(super) fn next_check(&self) -> Option<Duration> {
        let wait_ms = self.late.watch.next_ms()?.saturating_sub(self.shared.file.clock.now_ms());
        Some(Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0)))
    }

    pub(super) fn begin_checks(&mut self) {
        if self.late.checking.is_some() {
            return;
        }
        let due = self.late.watch.take_due(self.shared.file.clock.now_ms());
        if due.is_empty() {
            return;
        }
        let (store, names) = (self.shared.file.store.clone(), self.shared.file.names);
        self.late.checking = Some(tokio::spawn(async move { check(&*store, names, due).await }));
    }

    pub(super) fn record_checks(&mut self, checks: Checks) {
        let now_ms = self.shared.file.clock.now_ms();
        for (watched, outcome) in checks {
            match outcome {
                Ok(Checked::Same) => {
                    self.shared.problems.solved(&watched.moved.target);
                    self.late.watch.checked(watched.moved, now_ms);
                }
                Ok(Checked::PutBack { key, now }) => {
                    self.shared.problems.solved(&watched.moved.target);
                    self.shared.file.metrics.written_late();
                    self.shared.problems.changed(&watched.moved.path);
                    self.shared.problems.list_again();
                    tracing::warn!(
                        file = watched.moved.path,
                        bytes = now.size_bytes,
                        put_back = key,
                        "this file was written to after it was read and moved; it is back in pending/ and is read again: \
                         write files under a hidden name and rename them when they are whole"
                    );
                }
                Err(error) => {
                    let target = watched.moved.target.clone();
                    if !self.late.watch.failed(watched, now_ms) && self.note(&target, Kind::WrittenLate, &error) {
                        tracing::warn!(file = target, %error, "a moved file cannot be checked");
                    }
                }
            }
        }
    }
}
