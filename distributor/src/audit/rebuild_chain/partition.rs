//! One partition, from its first offset to its last: what is missing of its chain, and putting it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::log::Bounds;

use super::super::present::Names;
use super::known::{Everything, Known, gather};
use super::windows::Windows;
use super::{ChainRebuilder, PartitionRebuild, Stop, refused};
use crate::chain::{ChainStore, Completion, Cut, CutKind, DOCUMENT_VERSION, Origin, PutDocument, Revision, Witness};
use crate::layout::Layout;
use crate::records::Records;
use crate::window::Budget;

pub(super) struct Pass<'a> {
    pub rebuilder: &'a ChainRebuilder,
    pub chain: ChainStore,
    pub id: i32,
    log_id: &'a str,
    pub put: bool,
    pub log: Bounds,
    pub records: Option<Records>,
    pub windows: Windows,
    pub budget: Arc<Budget>,
    /// Everything before this offset is accounted for.
    pub at: i64,
    /// Begin and log time of the batches gone through.
    passed: Vec<(i64, i64)>,
    /// Where key runs stand already.
    pub key_runs: BTreeSet<i64>,
    /// Keys of those that were put by rewrites.
    pub revised_key_runs: BTreeMap<i64, Vec<String>>,
    /// Of the last batch gone through whose revision's document is lost.
    pub lost_layout: Option<Layout>,
    /// The first record and the last of what was gone through, for the origin and for telling the log from another.
    first: Option<Witness>,
    last: Option<Witness>,
    new_cuts: Vec<Cut>,
    new_completions: Vec<Completion>,
    pub new_revisions: Vec<Revision>,
    pub report: PartitionRebuild,
}

impl<'a> Pass<'a> {
    pub(super) fn new(rebuilder: &'a ChainRebuilder, id: i32, log_id: &'a str, put: bool) -> Self {
        let budget = Budget::new(rebuilder.window_memory, rebuilder.scratch.clone());
        Self {
            rebuilder,
            chain: ChainStore::new(rebuilder.store.clone(), &rebuilder.topic, id),
            id,
            log_id,
            put,
            log: Bounds { earliest: 0, latest: 0 },
            records: None,
            windows: Windows::new(std::iter::empty(), &budget),
            budget,
            at: 0,
            passed: Vec::new(),
            key_runs: BTreeSet::new(),
            revised_key_runs: BTreeMap::new(),
            lost_layout: None,
            first: None,
            last: None,
            new_cuts: Vec::new(),
            new_completions: Vec::new(),
            new_revisions: Vec::new(),
            report: PartitionRebuild { partition: id, ..PartitionRebuild::default() },
        }
    }

    pub(super) async fn close(self) -> PartitionRebuild {
        if let Some(records) = self.records {
            records.close().await;
        }
        self.report
    }

    pub(super) async fn run(
        &mut self,
        names: &Names,
        log: Bounds,
        committed: Option<i64>,
        batches: &mut u64,
    ) -> Result<(), Stop> {
        self.log = log;
        let origin = self.chain.origin().await?;
        if let Some(origin) = &origin
            && origin.log_id != self.log_id
        {
            return refused(format!(
                "the trusted zone was written from log {}, this is {}",
                origin.log_id, self.log_id
            ));
        }
        let Everything { batches: known, key_runs, revised_key_runs } =
            gather(&*self.rebuilder.store, &self.chain, names.of(self.id)).await?;
        (self.key_runs, self.revised_key_runs) = (key_runs, revised_key_runs);
        let layouts: Vec<Layout> = known.values().filter_map(Known::layout).cloned().collect();
        self.windows = Windows::new(layouts.iter().map(|layout| layout.window_ms), &self.budget);
        let (Some((&first, _)), Some(mut layout)) = (known.first_key_value(), layouts.into_iter().next()) else {
            // A chain without a batch: the origin is there, or nothing is to be had.
            return Ok(());
        };
        self.begin(&origin, first, &layout).await?;
        let newest = known.last_key_value().map(|(from, _)| *from);
        for (from, batch) in known {
            if let Some(own) = batch.layout() {
                layout = own.clone();
            }
            self.gap(from, &layout).await?;
            if batch.has_lost_its_revision() {
                self.lost_layout = Some(layout.clone());
            }
            self.batch(from, batch, &layout, newest == Some(from)).await?;
            *batches += 1;
            (self.rebuilder.on_batch)(*batches);
        }
        if let Some(committed) = committed.filter(|committed| *committed > self.at && self.log.earliest <= self.at) {
            // An offset is committed once its batch is complete: what lies before it had no file.
            self.gap(committed, &layout).await?;
        }
        self.same_log().await?;
        self.report.to = self.at;
        if self.put { self.put_all(origin.is_none()).await } else { self.tell(origin.is_none()) }
    }

    /// Where the chain begins.
    async fn begin(&mut self, origin: &Option<Origin>, first: i64, layout: &Layout) -> Result<(), Stop> {
        match origin {
            Some(origin) => self.at = origin.start,
            None if self.log.earliest < first => {
                // A new group begins with the oldest record: had there been one before the first batch, it would be in it.
                self.at = self.log.earliest;
                if self.is_without_records(self.at, first, layout).await? {
                    self.at = first;
                }
            }
            None => self.at = first,
        }
        self.report.from = self.at;
        Ok(())
    }

    /// A cut, its completion and its key run, those of them that are new.
    pub(super) fn passed(&mut self, cut: &Cut, cut_is_new: bool, completion: Option<Completion>) {
        self.at = cut.to;
        self.first = self.first.or(cut.first);
        self.last = cut.last;
        if cut.is_batch() {
            self.report.batches += 1;
            self.passed.push((cut.from, cut.clock_ms));
        }
        if cut_is_new {
            self.new_cuts.push(cut.clone());
        }
        self.new_completions.extend(completion);
    }

    /// A cut for offsets that nothing is written of.
    pub(super) fn passed_over(&self, kind: CutKind, from: i64, to: i64, layout: &Layout) -> Cut {
        self.cut(kind, from, to, layout, self.windows.clock_ms, None)
    }

    pub(super) fn cut(
        &self,
        kind: CutKind,
        from: i64,
        to: i64,
        layout: &Layout,
        clock_ms: i64,
        ends: Option<(Witness, Witness)>,
    ) -> Cut {
        let oldest_ms = self.windows.clock_ms.saturating_sub(layout.window_ms);
        let window_from = self.passed.partition_point(|(_, clock_ms)| *clock_ms < oldest_ms);
        Cut {
            version: DOCUMENT_VERSION,
            kind,
            topic: self.rebuilder.topic.clone(),
            partition: self.id,
            from,
            to,
            layout: layout.clone(),
            window_from: self.passed.get(window_from).map_or(from, |(from, _)| *from),
            clock_ms,
            first: ends.map(|(first, _)| first),
            last: ends.map(|(_, last)| last),
            folders: None,
            encoding: None,
            revision: 0,
        }
    }

    /// The log has to hold the last record that was written, if it holds anything there.
    async fn same_log(&mut self) -> Result<(), Stop> {
        if self.log.latest < self.at {
            return refused(format!(
                "the log ends at {}, the files at {}: it is not the log that they were written from, or it was cut off",
                self.log.latest, self.at
            ));
        }
        let Some(last) = self.last.filter(|_| self.log.earliest < self.at) else { return Ok(()) };
        let log = self.rebuilder.log.clone();
        let mut records = Records::open(&*log, &self.rebuilder.topic, self.id, self.at - 1).await?;
        let found = records.next_witness().await?;
        records.close().await;
        if found != Some((self.at - 1, last)) {
            return refused(format!(
                "the record at offset {} is not the one that was written: this is another log",
                self.at - 1
            ));
        }
        Ok(())
    }

    fn tell(&mut self, no_origin: bool) -> Result<(), Stop> {
        self.report.cuts = self.new_cuts.len() as u64;
        self.report.completions = self.new_completions.len() as u64;
        self.report.revisions = self.new_revisions.len() as u64;
        self.report.origins = u64::from(no_origin);
        if no_origin && self.first.is_none() {
            return refused("no batch says what the first record was, so that the origin cannot be made again");
        }
        Ok(())
    }

    /// In an order in which nobody can go on with a part of it: see the module.
    async fn put_all(&mut self, no_origin: bool) -> Result<(), Stop> {
        self.tell(no_origin)?;
        for revision in &self.new_revisions {
            let key = self.chain.revision_key(revision.completion.from, revision.revision);
            ours(&self.chain.put_revision(revision).await?, &key)?;
        }
        for completion in &self.new_completions {
            let put = self.chain.put_completion(completion).await?;
            ours(&put, &self.chain.completion_key(completion.from))?;
        }
        for cut in self.new_cuts.iter().rev() {
            ours(&self.chain.put_cut(cut).await?, &self.chain.cut_key(cut.from))?;
        }
        if let Some(first) = self.first.filter(|_| no_origin) {
            let origin = Origin {
                version: DOCUMENT_VERSION,
                topic: self.rebuilder.topic.clone(),
                partition: self.id,
                start: self.report.from,
                log_id: self.log_id.to_owned(),
                first,
            };
            ours(&self.chain.put_origin(&origin).await?, &self.chain.origin_key())?;
        }
        Ok(())
    }
}

fn ours<T>(put: &PutDocument<T>, key: &str) -> Result<(), Stop> {
    match put {
        PutDocument::Ours => Ok(()),
        PutDocument::Theirs(_) => {
            refused(format!("'{key}' was put by somebody else meanwhile; stop them and try again"))
        }
    }
}
