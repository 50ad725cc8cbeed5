//! Holding the trusted zone against its commit logs, and these against the log.
//!
//! Read-only unless asked to repair, and safe beside working distributors: the files are listed before the commit logs are
//! read, and an intent is there before any file of it, so that no file that was listed is ahead of it. Shallow, an audit
//! reads the commit logs, a listing of all files and their footers. Deep, it also reads every row: no key twice within the
//! window, no offset twice in a batch, and, as far back as the log goes, the very rows that its records make.

mod deep;
mod error;
mod files;
mod hidden;
mod present;
mod report;
mod rows;
mod uploads;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use commitlog::{BatchSlot, Fate, FileId, LiveFile, PassReason, Stage, State};
use commitlog_storage::{CommitLog, CommitLogError, Damage, Loaded};
use common::log::{Bounds, Log, LogErrorKind};
use common::store::{DeleteOutcome, ObjectMeta, Store, StoreError, StoreErrorKind};

use crate::batch::{Counts, Name};
use crate::footer::{Footer, FooterError};
use crate::lost::has_commit_log;
use crate::refusals;
use crate::replace::command;
use crate::scratch::Scratch;
use crate::table::compare;
use crate::watermark;
use crate::window::Budget;
use present::Present;

pub use error::AuditError;
pub use report::{Audit, Finding, FindingKind, OpenBatch, PartitionAudit, Repair};

/// Files read at the same time.
const AT_ONCE: usize = 16;

/// Everything an audit works with.
pub struct Auditor {
    pub store: Arc<dyn Store>,
    /// Without it the commit log is held against the files only.
    pub log: Option<Arc<dyn Log>>,
    pub topic: String,
    pub group: String,
    /// Memory of deduplication windows, bytes, and where they go when it does not suffice.
    pub window_memory: u64,
    /// Memory of a batch that is made again, bytes. What exceeds it goes to `scratch`.
    pub batch_memory: u64,
    pub scratch: Scratch,
    /// Delta tables are kept over the files.
    pub has_tables: bool,
    /// Read every row.
    pub deep: bool,
    /// Uploads that were begun longer ago and never completed are abandoned. A living distributor may have younger ones.
    pub uploads_older_than: Duration,
    /// The time now, Unix milliseconds.
    pub now_ms: i64,
    /// Called after each batch, with how many there were so far.
    pub on_batch: Box<dyn Fn(u64) + Send + Sync>,
}

/// An audit at work.
struct Work<'a> {
    auditor: &'a Auditor,
    audit: Audit,
    present: Present,
    budget: Arc<Budget>,
    batches: u64,
    /// The commit logs by partition, to tell what a file is that none of them lists.
    states: BTreeMap<i32, State>,
    /// Partitions whose commit log cannot be read: what their files are is not known.
    unread: BTreeSet<i32>,
    /// Partitions that lack files or entries: what is not live may be the only copy of its rows.
    impaired: BTreeSet<i32>,
}

impl Auditor {
    /// Audits every partition that has a commit log.
    ///
    /// # Errors
    /// The store or the log could not be read to the end, or a deep audit met a layout of another build. What is wrong
    /// with the trusted zone is a finding, no error; so is a folder or a file in it that cannot be read.
    pub async fn verify(&self, repair: Repair) -> Result<Audit, AuditError> {
        let mut work = Work {
            auditor: self,
            audit: Audit {
                topic: self.topic.clone(),
                deep: self.deep,
                log_compared: self.log.is_some(),
                ..Audit::default()
            },
            present: Present::list(&*self.store).await?,
            budget: Budget::new(self.window_memory, self.scratch.clone()),
            batches: 0,
            states: BTreeMap::new(),
            unread: BTreeSet::new(),
            impaired: BTreeSet::new(),
        };
        for partition in commitlog_storage::partitions(&*self.store, &self.topic).await? {
            work.partition(partition).await?;
        }
        for fault in compare(&self.store, &self.topic, &work.states, self.now_ms, self.has_tables).await? {
            work.find(FindingKind::TableWrong, fault.place, fault.message);
        }
        work.watermark().await?;
        work.unaccounted(repair).await?;
        work.audit.findings.extend(work.present.findings());
        work.abandoned_uploads(repair).await?;
        work.audit.findings.sort();
        // What one file lacks may be found by its footer and by its rows.
        work.audit.findings.dedup();
        Ok(work.audit)
    }
}

impl Work<'_> {
    fn find(&mut self, kind: FindingKind, place: impl Into<String>, message: impl Into<String>) {
        self.audit.findings.push(Finding { kind, place: place.into(), message: message.into() });
    }

    /// What was read, or none and a finding if it is damaged.
    fn understood<T>(&mut self, read: Result<T, CommitLogError>) -> Result<Option<T>, AuditError> {
        match read.map_err(Self::damage) {
            Ok(found) => Ok(Some(found)),
            Err(damage) => {
                let (key, damage) = damage?;
                self.find(FindingKind::CommitLogDamaged, key, refusals::damage(&damage));
                Ok(None)
            }
        }
    }

    /// Where something is damaged, and what; or the error of the store.
    fn damage(error: CommitLogError) -> Result<(String, Damage), AuditError> {
        match error {
            CommitLogError::Store(error) => Err(error.into()),
            CommitLogError::Damaged { key, damage } | CommitLogError::Unwritable { key, damage } => Ok((key, damage)),
            error @ (CommitLogError::Misheard(_) | CommitLogError::Superseded { .. }) => {
                Err(AuditError::Layout(error.to_string()))
            }
        }
    }

    async fn partition(&mut self, id: i32) -> Result<(), AuditError> {
        let commits = CommitLog::new(self.auditor.store.clone(), &self.auditor.topic, id);
        let mut summary = PartitionAudit { partition: id, ..PartitionAudit::default() };
        let loaded = commits.load_state().await;
        if let Some((state, _, loaded)) = self.understood(loaded)? {
            let held = commits.check_held_entries(&loaded.recent, self.auditor.deep).await;
            if self.understood(held)?.is_none() {
                self.impaired.insert(id);
            }
            self.state(&commits, &state, &loaded, &mut summary).await?;
            self.states.insert(id, state);
        } else {
            self.unread.insert(id);
        }
        self.audit.partitions.push(summary);
        Ok(())
    }

    async fn state(
        &mut self,
        commits: &CommitLog,
        state: &State,
        loaded: &Loaded,
        summary: &mut PartitionAudit,
    ) -> Result<(), AuditError> {
        let Some(header) = &state.head.header else { return Ok(()) };
        (summary.from, summary.to) = (header.start, state.head.end);
        if let BatchSlot::Open(intent) | BatchSlot::Abandoning { intent, .. } = &state.head.batch {
            summary.open = Some(OpenBatch { from: intent.from, to: intent.to });
        }
        summary.open_replaces = state.head.replaces().count() as u64;
        summary.finished_by = state.head.replaces().map(|open| command(open.intent.reason)).collect();
        summary.rewritten_files = state.live.keys().filter(|id| matches!(id, FileId::Replace { .. })).count() as u64;
        if (&header.topic, header.partition) != (&self.auditor.topic, summary.partition) {
            let message = format!("it is the commit log of {}/{}", header.topic, header.partition);
            self.find(FindingKind::CommitLogDamaged, commits.entry_key(0), message);
        }
        self.spans(commits, state, summary);
        self.key_runs(commits, state).await?;
        self.live_files(summary.partition, state, summary, self.log_from(summary.partition).await?).await?;
        self.hidden_rows(commits, summary.partition, state).await?;
        let earliest = match &self.auditor.log {
            Some(log) => self.compare_log(&**log, state, summary).await?,
            None => None,
        };
        if self.auditor.deep {
            self.rows(commits, state, loaded, earliest, summary).await?;
        }
        Ok(())
    }

    /// What was decided of every offset, summed up.
    fn spans(&mut self, commits: &CommitLog, state: &State, summary: &mut PartitionAudit) {
        for (from, span) in &state.spans {
            let offsets = (span.to - from).unsigned_abs();
            let batch = match &span.fate {
                Fate::Passed(PassReason::Skipped) => {
                    summary.skipped_offsets += offsets;
                    continue;
                }
                Fate::Passed(PassReason::Lost) => {
                    summary.lost_offsets += offsets;
                    continue;
                }
                Fate::Abandoned(_) => {
                    summary.abandoned_batches += 1;
                    summary.abandoned_offsets += offsets;
                    continue;
                }
                Fate::Batch(batch) => batch,
            };
            self.batches += 1;
            summary.batches += 1;
            (self.auditor.on_batch)(self.batches);
            let place = format!("{}: batch {from}..{}", commits.entry_key(0), span.to);
            match serde_json::from_value::<Counts>(batch.counts.clone()) {
                Ok(counts) => {
                    if counts.read != counts.written + counts.duplicates + counts.rejected {
                        self.find(
                            FindingKind::CommitLogDamaged,
                            place,
                            format!("its numbers do not add up: {counts:?}"),
                        );
                    }
                    summary.rows += counts.written;
                    summary.duplicates += counts.duplicates;
                    summary.rejected += counts.rejected;
                }
                Err(error) => {
                    self.find(FindingKind::CommitLogDamaged, place, format!("its counts cannot be read: {error}"));
                }
            }
        }
        let listed: u64 = state.live.values().map(|file| file.stored.rows).sum();
        if listed != summary.rows + summary.rejected {
            let message = format!(
                "its files have {listed} rows, and its batches wrote {} and rejected {}",
                summary.rows, summary.rejected
            );
            self.find(FindingKind::CommitLogDamaged, format!("{}/{}", self.auditor.topic, summary.partition), message);
        }
    }

    /// The keys that the next batch will be compared with.
    async fn key_runs(&mut self, commits: &CommitLog, state: &State) -> Result<(), AuditError> {
        let Some(clock_ms) = state.head.clock_ms else { return Ok(()) };
        for (from, span) in state.spans.iter().rev() {
            let Fate::Batch(batch) = &span.fate else { continue };
            let window_ms = batch.recipe.layout.get("window_ms").and_then(serde_json::Value::as_i64).unwrap_or(0);
            if batch.clock_ms < clock_ms.saturating_sub(window_ms) || *from < state.head.keys_from {
                break;
            }
            if let Err(damage) = commits.key_run(*from, &batch.keys).await.map_err(Self::damage) {
                let (key, damage) = damage?;
                // A distributor that needs it no longer may have collected it since.
                let now = commits.load().await;
                if self.understood(now)?.is_some_and(|now| now.head.keys_from > *from) {
                    continue;
                }
                let message =
                    format!("{damage}; it is needed to tell duplicates after a restart, bring it back from a backup");
                self.find(FindingKind::KeyRunDamaged, key, message);
            }
        }
        Ok(())
    }

    /// Where the log of a partition begins, if it is known.
    async fn log_from(&self, partition: i32) -> Result<Option<i64>, AuditError> {
        let Some(log) = &self.auditor.log else { return Ok(None) };
        match log.bounds(&self.auditor.topic).await {
            Ok(bounds) => Ok(bounds.get(&partition).map(|bounds| bounds.earliest)),
            // Another log: that is found when it is compared.
            Err(error) if error.kind == LogErrorKind::Misconfigured => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A file that the store refuses to show. The rest of the audit does not depend on it.
    ///
    /// # Errors
    /// Any other failure of the store.
    fn refused(&mut self, path: &str, error: StoreError) -> Result<(), AuditError> {
        if error.kind != StoreErrorKind::Denied {
            return Err(error.into());
        }
        self.find(FindingKind::Unreadable, path, format!("it was not checked: {}", error.message));
        Ok(())
    }

    /// After the commit log was read, so that the log cannot be behind it. Returns where the log begins.
    async fn compare_log(
        &mut self,
        log: &dyn Log,
        state: &State,
        summary: &mut PartitionAudit,
    ) -> Result<Option<i64>, AuditError> {
        let (topic, id) = (&self.auditor.topic, summary.partition);
        let place = format!("{topic}/{id}");
        let log_id = log.identity().await?;
        let expected = state.head.header.as_ref().map(|header| header.log_id.as_str()).unwrap_or_default();
        if log_id != expected {
            let message = format!("the trusted zone was written from log {expected}, this is {log_id}");
            self.find(FindingKind::LogReplaced, place, message);
            return Ok(None);
        }
        let bounds: BTreeMap<i32, Bounds> = log.bounds(topic).await?;
        let Some(bounds) = bounds.get(&id) else {
            self.find(FindingKind::LogReplaced, place, "the topic has no such partition");
            return Ok(None);
        };
        summary.log_end = Some(bounds.latest);
        summary.committed = log.committed(&self.auditor.group, &self.auditor.topic).await?.get(&id).copied();
        if bounds.latest < summary.to {
            let message = format!("the log ends at {}, the trusted zone at {}", bounds.latest, summary.to);
            self.find(FindingKind::LogReplaced, place.clone(), message);
        }
        // The offset was asked for after the commit log was read, which may have grown by then.
        let commits = CommitLog::new(self.auditor.store.clone(), &self.auditor.topic, id);
        let now = commits.load().await;
        let end = self.understood(now)?.map_or(summary.to, |now| now.head.end);
        if let Some(committed) = summary.committed.filter(|committed| *committed > end) {
            let message = format!(
                "the group's offset {committed} lies beyond {end}, where the trusted zone ends: what lies between will be skipped"
            );
            self.find(FindingKind::OffsetBeyondEnd, place, message);
        }
        Ok(Some(bounds.earliest))
    }

    /// What readers that wait for the tables to be complete go by.
    async fn watermark(&mut self) -> Result<(), AuditError> {
        let key = watermark::key(&self.auditor.topic);
        let watermark = match watermark::read(&*self.auditor.store, &self.auditor.topic).await {
            Ok(Some((watermark, _))) => watermark,
            Ok(None) => return Ok(()),
            Err(error) if error.kind == StoreErrorKind::Denied => return self.refused(&key, error),
            Err(error) if matches!(error.kind, StoreErrorKind::Other | StoreErrorKind::TooLarge) => {
                self.find(FindingKind::WatermarkWrong, key, error.message);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let remedy = "remove it, and a distributor writes it again";
        if let Some(ahead) = watermark.ahead(self.auditor.now_ms) {
            let message = format!("it says that the tables are complete up to {ahead}; {remedy}");
            self.find(FindingKind::WatermarkWrong, key.clone(), message);
        }
        let beyond: Vec<(i32, i64, i64)> = watermark
            .partitions
            .iter()
            .filter_map(|(id, reached)| Some((*id, reached.offset, self.states.get(id)?.head.end)))
            .filter(|(_, offset, end)| offset > end)
            .collect();
        for (id, offset, listed_end) in beyond {
            // Batches may have been committed since the commit log was read.
            let now = CommitLog::new(self.auditor.store.clone(), &self.auditor.topic, id).load().await;
            let end = self.understood(now)?.map_or(listed_end, |now| now.head.end);
            if offset > end {
                let message =
                    format!("it says that partition {id} is complete up to {offset}, and it ends at {end}; {remedy}");
                self.find(FindingKind::WatermarkWrong, key.clone(), message);
            }
        }
        Ok(())
    }

    /// Files that no commit log lists.
    async fn unaccounted(&mut self, repair: Repair) -> Result<(), AuditError> {
        let (mut orphans, mut unchecked) = (Vec::new(), BTreeMap::<i32, u64>::new());
        // Whether other topics have a commit log.
        let mut others = BTreeMap::<String, bool>::new();
        for object in self.present.left(&*self.auditor.store).await? {
            let Some(name) = Name::parse(&object.key) else {
                let message = "no distributor wrote this, but engines read it; move it away";
                self.find(FindingKind::FileUnknown, object.key, message);
                continue;
            };
            if name.topic != self.auditor.topic {
                let is_known = match others.get(&name.topic) {
                    Some(is_known) => *is_known,
                    None => {
                        let is_known = has_commit_log(&*self.auditor.store, &name.topic).await?;
                        others.insert(name.topic.clone(), is_known);
                        is_known
                    }
                };
                // Its own audit accounts for it.
                if !is_known {
                    let message = format!(
                        "a file of topic '{}', which has no commit log here, but engines read it; bring _commits/{}/ back from a \
                         backup, or move the file away",
                        name.topic, name.topic
                    );
                    self.find(FindingKind::FileUnknown, object.key, message);
                }
                continue;
            }
            if self.unread.contains(&name.partition) {
                *unchecked.entry(name.partition).or_default() += 1;
                continue;
            }
            let state = self.states.get(&name.partition);
            match state.map_or(Unlisted::Unknown, |state| unlisted(state, name.id)) {
                Unlisted::Expected => {}
                Unlisted::Blank => self.blank(&object.key, object.size_bytes).await?,
                Unlisted::Unknown => {
                    let message = "no entry accounts for it: _commits is missing, damaged, or an older backup. Do not remove it before docs/audit-and-replay.md was read: 'Bring back a lost commit log'";
                    self.find(FindingKind::FileUnknown, object.key, message);
                }
                Unlisted::Orphan => orphans.push((name.partition, object)),
            }
        }
        for (partition, files) in unchecked {
            let topic = &self.auditor.topic;
            let note = format!("{files} files of {topic}/{partition} were not checked: its commit log cannot be read");
            self.audit.notes.push(note);
        }
        self.orphans(orphans, repair).await
    }

    /// Files that are not live any more. Where live ones are missing or altered, the commit log and the files are of
    /// different times, and one of these may be the only one that has its rows.
    async fn orphans(&mut self, orphans: Vec<(i32, ObjectMeta)>, repair: Repair) -> Result<(), AuditError> {
        for (partition, object) in orphans {
            let is_impaired = self.impaired.contains(&partition);
            if repair == Repair::Orphans && !is_impaired {
                let deleted = self.auditor.store.delete(&object.key, Some(&object.version)).await?;
                if deleted == DeleteOutcome::Deleted {
                    self.audit.removed.push(object.key);
                    continue;
                }
            }
            let (kind, message) = if is_impaired {
                let message = "it does not count, but files of its partition are missing or altered, and it may be the only one \
                               that has its rows: mend those first";
                (FindingKind::OrphanKept, message)
            } else {
                (FindingKind::FileOrphaned, "its rows count in other files; 'repair' removes it")
            };
            self.find(kind, object.key, message);
        }
        Ok(())
    }
}

impl Work<'_> {
    /// A file under a name of an abandoned batch.
    async fn blank(&mut self, key: &str, size_bytes: u64) -> Result<(), AuditError> {
        let message = match Footer::read(&*self.auditor.store, key, size_bytes).await {
            Ok(footer) if footer.rows() == 0 => return Ok(()),
            Ok(footer) => format!("it has {} rows of a batch that was abandoned", footer.rows()),
            Err(FooterError::Gone) => return Ok(()),
            Err(FooterError::Unreadable(error)) => format!("its footer cannot be read: {error}"),
            Err(FooterError::Store(error)) => return self.refused(key, error),
        };
        self.find(FindingKind::FileAltered, key, message);
        Ok(())
    }
}

/// What a file is that is not live.
#[derive(Debug, PartialEq, Eq)]
enum Unlisted {
    /// Of what is under way.
    Expected,
    /// Of an abandoned batch: a file without rows has its name.
    Blank,
    /// Of what is decided: its name is never used again.
    Orphan,
    /// Of what the commit log does not know.
    Unknown,
}

fn unlisted(state: &State, id: FileId) -> Unlisted {
    if state.blanks().any(|(_, blank, _)| blank == id) {
        return Unlisted::Blank;
    }
    if state.live.contains_key(&id) || state.expected_besides_live().any(|(_, expected)| expected == id) {
        return Unlisted::Expected;
    }
    let is_decided = match id {
        FileId::Batch { from, .. } => match state.spans.get(&from).map(|span| &span.fate) {
            Some(Fate::Batch(_)) => true,
            Some(Fate::Abandoned(_) | Fate::Passed(_)) | None => false,
        },
        // Of one that is not decided nothing is published: whoever did knew more than this commit log says.
        FileId::Replace { replace, .. } => {
            let is_open = state.head.replaces().any(|open| open.intent.replace == replace && open.stage == Stage::Open);
            replace < state.head.next_replace && !is_open
        }
    };
    if is_decided { Unlisted::Orphan } else { Unlisted::Unknown }
}

/// A live file with its name.
type Live<'a> = (&'a FileId, &'a LiveFile);

#[cfg(test)]
mod tests;
