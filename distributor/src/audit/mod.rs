//! Holding the trusted zone against its chain, and the chain against the log.
//!
//! Read-only, and safe beside working distributors: what is under way is told, not found fault with. Shallow, an audit
//! reads the chain, a listing of all files and their footers. Deep, it also reads every row: no key twice within the
//! window, no offset twice in a batch, and, as far back as the log goes, the very rows that its records make.

mod committed;
mod deep;
mod error;
mod files;
mod present;
mod rebuild_chain;
mod report;
mod revised;
mod rows;
mod uploads;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use common::log::{Bounds, Log};
use common::store::{DeleteOutcome, Store, StoreError, StoreErrorKind};
use futures_util::{StreamExt, stream};

use crate::batch::{Encoding, series_of};
use crate::chain::{ChainError, ChainStore, Cut, CutKind, Origin, Revisions, Standing};
use crate::scratch::Scratch;
use crate::window::Budget;
use present::{FileName, Present, chains};

pub use error::AuditError;
pub use rebuild_chain::{ChainRebuild, ChainRebuilder, PartitionRebuild};
pub use report::{Audit, Finding, FindingKind, OpenBatch, PartitionAudit, Repair, UnfinishedRewrite};

/// Documents or footers read at the same time.
const AT_ONCE: usize = 16;

/// Everything an audit works with.
pub struct Auditor {
    pub store: Arc<dyn Store>,
    /// Without it the chain is held against the files only.
    pub log: Option<Arc<dyn Log>>,
    pub topic: String,
    pub group: String,
    pub encoding: Encoding,
    /// Memory of deduplication windows, bytes, and where they go when it does not suffice.
    pub window_memory: u64,
    /// Memory of a batch that is made again, bytes. What exceeds it goes to `scratch`.
    pub batch_memory: u64,
    pub scratch: Scratch,
    /// Read every row.
    pub deep: bool,
    /// Uploads that were begun longer ago and never completed are abandoned. A living distributor may have younger ones.
    pub uploads_older_than: Duration,
    /// The time now, Unix milliseconds.
    pub now_ms: i64,
    /// Called after each batch, with how many there were so far.
    pub on_batch: Box<dyn Fn(u64) + Send + Sync>,
}

struct Work<'a> {
    auditor: &'a Auditor,
    audit: Audit,
    present: Present,
    budget: Arc<Budget>,
    batches: u64,
    /// Revisions of batches by partition and begin: their files are complete, so that any further one is an orphan.
    complete: HashMap<(i32, i64), u32>,
    open: HashSet<(i32, i64)>,
    /// Newest revisions of the partition at hand.
    revisions: Revisions,
}

impl Auditor {
    /// Audits every partition that has a chain.
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
            complete: HashMap::new(),
            open: HashSet::new(),
            revisions: Revisions::new(),
        };
        for partition in chains(&*self.store, &self.topic).await? {
            work.partition(partition).await?;
        }
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

    /// A document, or `None` and a finding if it cannot be understood.
    fn understood<T>(&mut self, read: Result<Option<T>, ChainError>) -> Result<Option<T>, AuditError> {
        match read {
            Ok(found) => Ok(found),
            Err(ChainError::Store(error)) => Err(error.into()),
            Err(ChainError::Damaged { key, message } | ChainError::Unwritable { key, message }) => {
                self.find(FindingKind::ChainDamaged, key, message);
                Ok(None)
            }
        }
    }

    async fn partition(&mut self, id: i32) -> Result<(), AuditError> {
        let topic = &self.auditor.topic;
        let chain = ChainStore::new(self.auditor.store.clone(), topic, id);
        let mut summary = PartitionAudit { partition: id, ..PartitionAudit::default() };
        self.revisions.clear();
        self.look_for_rewrite(&chain, &mut summary).await?;
        if chain.is_being_rebuilt().await? {
            let message = "the chain is being made again, or that was broken off, and no distributor takes the partition until it is \
                           done: run 'verify --rebuild-chain' to its end";
            self.find(FindingKind::ChainDamaged, chain.rebuilding_key(), message);
        }
        let begins = self.walk(&chain, &mut summary).await?;
        let origin = chain.origin().await;
        match self.understood(origin)? {
            Some(origin) => self.check_origin(&chain, &origin, &begins, &mut summary).await?,
            None if begins.is_empty() => {}
            None => self.find(
                FindingKind::ChainDamaged,
                chain.origin_key(),
                "it is missing or cannot be understood, and no distributor goes on without it; restore it from a backup",
            ),
        }
        if self.auditor.deep {
            self.rows(&chain, id, begins.iter().rev().copied(), &mut summary).await?;
        }
        self.audit.partitions.push(summary);
        Ok(())
    }

    /// From the newest cut to the oldest. Returns where they begin.
    async fn walk(&mut self, chain: &ChainStore, summary: &mut PartitionAudit) -> Result<Vec<i64>, AuditError> {
        let mut begins = Vec::new();
        let mut newer: Option<i64> = None;
        // Keys of batches that are older than this no longer matter.
        let mut keys_from_ms = None;
        loop {
            let page = match chain.cuts_begin_before(begins.last().copied()).await {
                Ok(page) => page,
                Err(error) => {
                    self.understood::<()>(Err(error))?;
                    return Ok(begins);
                }
            };
            if page.is_empty() {
                return Ok(begins);
            }
            let revisions = self.list_revisions(chain, &page).await?;
            let mut documents = stream::iter(page.clone())
                .map(async |from| {
                    let revision = chain.revision(from, revisions.get(&from).copied()).await;
                    (from, chain.cut_from(from).await, chain.completion(from).await, revision)
                })
                .buffered(AT_ONCE);
            while let Some((from, cut, completion, revision)) = documents.next().await {
                let (completion, revision) = (self.understood(completion)?, self.understood(revision)?);
                let Some(cut) = self.understood(cut)? else {
                    newer = Some(from);
                    continue;
                };
                if cut.from != from || cut.partition != summary.partition || cut.topic != self.auditor.topic {
                    self.find(FindingKind::ChainDamaged, chain.cut_key(from), "it is the cut of another place");
                }
                if let Some(next) = newer
                    && next != cut.to
                {
                    let what = if next > cut.to { "a gap" } else { "an overlap" };
                    let message = format!("{what}: this cut ends at {}, the next begins at {next}", cut.to);
                    self.find(FindingKind::ChainBroken, chain.cut_key(from), message);
                }
                let is_newest = newer.is_none();
                let standing = self.stand(chain, &cut, completion, revision);
                if is_newest {
                    let layout = standing.as_ref().map_or(&cut.layout, |standing| &standing.cut.layout);
                    keys_from_ms = Some(cut.clock_ms.saturating_sub(layout.window_ms));
                    summary.to = cut.to;
                }
                newer = Some(from);
                summary.from = from;
                let needs_keys = keys_from_ms.is_some_and(|from_ms| cut.clock_ms >= from_ms);
                self.cut(chain, &cut, standing, is_newest, needs_keys, summary).await?;
            }
            begins.extend(page);
        }
    }

    async fn cut(
        &mut self,
        chain: &ChainStore,
        cut: &Cut,
        standing: Option<Standing>,
        is_newest: bool,
        needs_keys: bool,
        summary: &mut PartitionAudit,
    ) -> Result<(), AuditError> {
        self.batches += 1;
        (self.auditor.on_batch)(self.batches);
        let offsets = (cut.to - cut.from).unsigned_abs();
        match cut.kind {
            CutKind::Skipped => summary.skipped_offsets += offsets,
            CutKind::Lost => summary.lost_offsets += offsets,
            CutKind::Batch => {}
        }
        if !cut.is_batch() {
            return Ok(());
        }
        let Some(standing) = standing else {
            self.open.insert((summary.partition, cut.from));
            if is_newest {
                summary.open = Some(OpenBatch { from: cut.from, to: cut.to });
            } else {
                let message = "the batch is not complete, though later ones are";
                self.find(FindingKind::ChainDamaged, chain.completion_key(cut.from), message);
            }
            return Ok(());
        };
        self.complete.insert((summary.partition, cut.from), standing.cut.revision);
        let Standing { completion, key_run, .. } = &standing;
        let counts = completion.counts;
        let listed: u64 = completion.files.iter().map(|file| file.rows).sum();
        let has_all = completion.damage.is_none_or(|damage| {
            let folders = cut.folders.as_deref().unwrap_or_default();
            series_of(folders, damage.rounds).count() == completion.files.len()
        });
        let adds_up = has_all
            && counts.read == counts.written + counts.duplicates + counts.rejected
            && listed == counts.written + counts.rejected
            && (completion.from, completion.to) == (cut.from, cut.to);
        if !adds_up {
            let message = format!("its numbers do not add up: {counts:?}, {listed} rows in its files");
            self.find(FindingKind::ChainDamaged, standing_key(chain, &standing.cut), message);
        }
        summary.batches += 1;
        if let Some(damage) = completion.damage {
            summary.damaged_batches += 1;
            summary.damaged_offsets += damage.lost_offsets;
        }
        summary.revised_batches += u64::from(standing.rewrite.is_some());
        summary.files += completion.files.len() as u64;
        summary.bytes += completion.files.iter().map(|file| file.bytes).sum::<u64>();
        summary.rows += counts.written;
        summary.duplicates += counts.duplicates;
        summary.rejected += counts.rejected;
        if needs_keys && !self.has_key_run(chain, standing.cut.from, key_run).await? {
            let message = "it is needed to tell duplicates after a restart; restore it from a backup";
            self.find(FindingKind::KeyRunMissing, key_run.clone(), message);
        }
        self.files(chain, &standing).await
    }

    async fn has_key_run(&mut self, chain: &ChainStore, from: i64, key: &str) -> Result<bool, AuditError> {
        let has = match chain.has_key_run(key).await {
            // Compaction lets go of keys that no window of its time could reach.
            Ok(false) => chain.is_summarised(from).await.map(Some),
            has => has.map(Some),
        };
        Ok(self.understood(has)?.unwrap_or(true))
    }

    async fn check_origin(
        &mut self,
        chain: &ChainStore,
        origin: &Origin,
        begins: &[i64],
        summary: &mut PartitionAudit,
    ) -> Result<(), AuditError> {
        if let Some(oldest) = begins.last()
            && *oldest != origin.start
        {
            let message = format!("the chain begins at {}, its first cut at {oldest}", origin.start);
            self.find(FindingKind::ChainBroken, chain.cut_key(*oldest), message);
        }
        if begins.is_empty() {
            (summary.from, summary.to) = (origin.start, origin.start);
        }
        match &self.auditor.log {
            Some(log) => self.check_log(&**log, chain, origin, summary).await,
            None => Ok(()),
        }
    }

    /// After the chain was read, so that the log cannot be behind it.
    async fn check_log(
        &mut self,
        log: &dyn Log,
        chain: &ChainStore,
        origin: &Origin,
        summary: &mut PartitionAudit,
    ) -> Result<(), AuditError> {
        let (topic, id) = (&self.auditor.topic, summary.partition);
        let place = format!("{topic}/{id}");
        let log_id = log.identity().await?;
        if log_id != origin.log_id {
            let message = format!("the trusted zone was written from log {}, this is {log_id}", origin.log_id);
            self.find(FindingKind::LogReplaced, place, message);
            return Ok(());
        }
        let bounds: BTreeMap<i32, Bounds> = log.bounds(topic).await?;
        let Some(bounds) = bounds.get(&id) else {
            self.find(FindingKind::LogReplaced, place, "the topic has no such partition");
            return Ok(());
        };
        summary.log_end = Some(bounds.latest);
        summary.committed = log.committed(&self.auditor.group, &self.auditor.topic).await?.get(&id).copied();
        if bounds.latest < summary.to {
            let message = format!("the log ends at {}, the trusted zone at {}", bounds.latest, summary.to);
            self.find(FindingKind::LogReplaced, place.clone(), message);
        }
        // The offset was asked for after the chain was read, which may have grown by then.
        let end = chain.last_cut().await;
        let end = self.understood(end)?.map_or(summary.to, |cut| cut.to);
        if let Some(committed) = summary.committed
            && committed > end
        {
            let message = format!(
                "the group's offset {committed} lies beyond {end}, where the trusted zone ends: what lies between will be skipped"
            );
            self.find(FindingKind::OffsetOffChain, place, message);
        }
        Ok(())
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

    /// Files that no completion lists.
    async fn unaccounted(&mut self, repair: Repair) -> Result<(), AuditError> {
        self.look_for_rewrites().await?;
        for object in self.present.left(&*self.auditor.store).await? {
            let name = FileName::parse(&object.key);
            let Some(name) = name.filter(|name| name.topic == self.auditor.topic) else {
                // Of another topic, whose own audit accounts for it, or nobody's.
                if FileName::parse(&object.key).is_none() {
                    let message = "no distributor wrote this, but engines read it; move it away";
                    self.find(FindingKind::FileUnknown, object.key, message);
                }
                continue;
            };
            let batch = (name.partition, name.from);
            if self.open.contains(&batch) {
                continue;
            }
            let Some(revision) = self.complete.get(&batch) else {
                let message =
                    "no cut accounts for it: was '_batches' restored from an older backup? Nothing is removed";
                self.find(FindingKind::FileUnknown, object.key, message);
                continue;
            };
            // Files of a revision are visible only once its document is there.
            if name.revision > *revision {
                let message = "the document of its revision is missing: bring that back from a backup, or make it again with 'verify \
                               --rebuild-chain'. Nothing is removed";
                self.find(FindingKind::FileUnknown, object.key, message);
                continue;
            }
            if self.is_about_to_be_removed(&name) {
                continue;
            }
            if repair == Repair::Orphans {
                let deleted = self.auditor.store.delete(&object.key, Some(&object.version)).await?;
                if deleted == DeleteOutcome::Deleted {
                    self.audit.removed.push(object.key);
                    continue;
                }
            }
            let message = "its batch is complete without it; 'verify --repair' removes it";
            self.find(FindingKind::FileOrphaned, object.key, message);
        }
        Ok(())
    }
}

/// The document that lists a batch's files.
fn standing_key(chain: &ChainStore, cut: &Cut) -> String {
    match cut.revision {
        0 => chain.completion_key(cut.from),
        revision => chain.revision_key(cut.from, revision),
    }
}

#[cfg(test)]
mod tests;
