//! Publishes what the commit logs say to the tables.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use commitlog_storage::{CommitLog, partitions};
use common::clock::Clock;
use common::store::Store;
use futures_util::{FutureExt, StreamExt};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::TableError;
use super::follower::Follower;
use super::schema::Kind;
use super::table::{Keys, Rebuilt, Signature, Table};
use crate::host::Host;
use crate::in_turn::in_turn;
use crate::layout::Layout;

/// Publishers that commit at the same time read anew so often.
const MAX_TRIES: u32 = 20;
/// Files that are committed at once, about.
const MOST_FILES: usize = 20_000;
/// How often commit logs of further partitions are looked for.
const LISTED_EVERY: Duration = Duration::from_secs(15);

/// How often leftovers of replaces that ended are looked for, and how old they have to be.
const CLEANED_EVERY: Duration = Duration::from_secs(3_600);
const LEFTOVER_MS: i64 = 7 * 86_400_000;

/// The tables of a trusted zone. Any number of publishers in any number of processes do no harm; each call holds one of this
/// process.
pub struct Tables {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub host: Host,
    pub topic: String,
    /// Of new batches: its columns are in a new table from the beginning.
    pub layout: Layout,
    /// How long files that were replaced are kept for readers of older versions.
    pub retain: Duration,
    work: Mutex<Option<Work>>,
}

/// The tables as they were left, and the commit logs as far as they are published.
struct Work {
    tables: Vec<Table>,
    followers: BTreeMap<i32, Follower>,
    listed_at: Option<Instant>,
    cleaned_at: Option<Instant>,
}

/// Versions of the tables that hold everything that the commit logs said when this began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Published {
    pub events_version: u64,
    pub rejected_version: u64,
    /// Commits of this call.
    pub commits: u64,
}

impl Tables {
    pub fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        host: Host,
        topic: String,
        layout: Layout,
        retain: Duration,
    ) -> Self {
        Self { store, clock, host, topic, layout, retain, work: Mutex::new(None) }
    }

    /// Publishes everything that the commit logs say of the partitions that have one; of one that begins now, some seconds later.
    ///
    /// # Errors
    /// The store's; commit logs or tables that are damaged; and tables that have to be rebuilt.
    pub async fn publish(&self) -> Result<Published, TableError> {
        self.publish_with(None).await
    }

    /// As [`Tables::publish`]. Afterwards, both tables hold at least what the commit log of this partition said before.
    pub(crate) async fn publish_for(&self, partition: i32) -> Result<Published, TableError> {
        self.publish_with(Some(partition)).await
    }

    async fn publish_with(&self, partition: Option<i32>) -> Result<Published, TableError> {
        let mut kept = self.work.lock().await;
        for attempt in 0..MAX_TRIES {
            let mut work = match kept.take() {
                Some(work) => work,
                None => self.open(false).await?,
            };
            // Before: what ended until the last round, readers have had time since.
            self.clean(&mut work).await;
            if let Some(published) = self.try_to_publish(&mut work, partition).await? {
                *kept = Some(work);
                return Ok(published);
            }
            let most_ms = 20 << attempt.min(6);
            tokio::time::sleep(Duration::from_millis((self.host.random)() % most_ms)).await;
        }
        Err(TableError::Busy { root: Kind::Events.root().to_owned() })
    }

    /// Deletes what runs that were killed left staged. The tables know since the last round that these replaces have ended. A
    /// process that publishes once has no such round, and deletes nothing.
    async fn clean(&self, work: &mut Work) {
        if work.cleaned_at.is_some_and(|at| at.elapsed() < CLEANED_EVERY) {
            return;
        }
        work.cleaned_at = Some(Instant::now());
        let before_ms = self.clock.now_ms().saturating_sub(LEFTOVER_MS);
        for follower in work.followers.values() {
            if let Err(error) = follower.delete_staged(before_ms).await {
                let partition = follower.partition;
                tracing::warn!(partition, %error, "what an interrupted 'compact' or 'rewrite' left could not be deleted");
            }
        }
    }

    async fn open(&self, may_be_foreign: bool) -> Result<Work, TableError> {
        let id = || self.id();
        let signature = Signature { now_ms: self.clock.now_ms(), id: &id };
        let mut tables = Vec::with_capacity(Kind::ALL.len());
        for kind in Kind::ALL {
            let columns = kind.columns(&self.layout)?;
            tables.push(Table::open(&self.store, kind, columns, &signature, may_be_foreign).await?);
        }
        Ok(Work { tables, followers: BTreeMap::new(), listed_at: None, cleaned_at: None })
    }

    fn id(&self) -> String {
        format!("{:016x}{:016x}", (self.host.random)(), (self.host.random)())
    }

    fn commits(&self, partition: i32) -> CommitLog {
        CommitLog::new(self.store.clone(), &self.topic, partition)
    }

    /// None: somebody else committed, and what is known is out of date.
    async fn try_to_publish(&self, work: &mut Work, partition: Option<i32>) -> Result<Option<Published>, TableError> {
        for table in &mut work.tables {
            if table.log.follow(&mut table.snapshot).await? {
                return Ok(None);
            }
        }
        if !self.follow(work, partition).await? {
            return Ok(None);
        }
        let id = || self.id();
        let mut commits = 0;
        loop {
            for follower in work.followers.values_mut() {
                follower.fold(MOST_FILES)?;
            }
            let signature = Signature { now_ms: self.clock.now_ms(), id: &id };
            for table in &mut work.tables {
                if table.is_settled(&work.followers) {
                    continue;
                }
                if !table.publish(&self.topic, &mut work.followers, &signature).await? {
                    return Ok(None);
                }
                commits += 1;
                let retain_ms = i64::try_from(self.retain.as_millis()).unwrap_or(i64::MAX);
                if let Err(error) = table.keep_short(signature.now_ms, retain_ms).await {
                    let root = table.kind.root();
                    tracing::warn!(root, %error, "no checkpoint of this table, or its log cannot be shortened; the next commit tries again");
                }
            }
            if !work.followers.values().any(Follower::has_unfolded) {
                break;
            }
        }
        let version =
            |kind| work.tables.iter().find(|table| table.kind == kind).map_or(0, |table| table.snapshot.version);
        let (events_version, rejected_version) = (version(Kind::Events), version(Kind::Rejected));
        Ok(Some(Published { events_version, rejected_version, commits }))
    }

    /// Reads what is new in the commit logs. False: it has to be tried anew.
    async fn follow(&self, work: &mut Work, partition: Option<i32>) -> Result<bool, TableError> {
        let mut reads = in_turn(work.followers.values_mut().map(|follower| follower.read().boxed()));
        while let Some(is_read) = reads.next().await {
            if !is_read? {
                return Ok(false);
            }
        }
        drop(reads);
        let is_listed = work.listed_at.is_some_and(|at| at.elapsed() < LISTED_EVERY) && !work.followers.is_empty();
        if is_listed && partition.is_none_or(|partition| work.followers.contains_key(&partition)) {
            return Ok(true);
        }
        let mut anew = BTreeSet::new();
        for partition in partitions(&*self.store, &self.topic).await? {
            if work.followers.contains_key(&partition) {
                continue;
            }
            match self.resumed(work, partition).await? {
                Some(follower) => drop(work.followers.insert(partition, follower)),
                None => drop(anew.insert(partition)),
            }
        }
        self.follow_anew(work, &anew).await?;
        work.listed_at = Some(Instant::now());
        Ok(true)
    }

    /// Goes on where the tables are, if both know the partition and the commit log still says what came since.
    async fn resumed(&self, work: &Work, partition: i32) -> Result<Option<Follower>, TableError> {
        let entries = work.tables.iter().map(|table| Some((table.kind, table.entries_of(&self.topic, partition)?)));
        let Some(entries) = entries.collect::<Option<BTreeMap<Kind, u64>>>() else { return Ok(None) };
        Follower::after(self.commits(partition), &self.topic, partition, &entries).await
    }

    /// Compares whole commit logs with the tables. Returns what the tables name and no distributor wrote, by table.
    async fn follow_anew(
        &self,
        work: &mut Work,
        partitions: &BTreeSet<i32>,
    ) -> Result<BTreeMap<Kind, Vec<String>>, TableError> {
        let (mut there, mut foreign) = (BTreeMap::new(), BTreeMap::new());
        if partitions.is_empty() {
            return Ok(foreign);
        }
        for table in &work.tables {
            let Keys { of, foreign: paths } = table.keys(&self.topic, partitions).await?;
            there.insert(table.kind, of);
            foreign.insert(table.kind, paths);
        }
        for partition in partitions {
            let of_it = there
                .iter_mut()
                .map(|(kind, of)| (*kind, of.remove(partition).unwrap_or_default()))
                .collect::<BTreeMap<Kind, BTreeSet<String>>>();
            let follower =
                Follower::anew(&self.store, self.commits(*partition), &self.topic, *partition, &of_it).await?;
            work.followers.insert(*partition, follower);
        }
        Ok(foreign)
    }

    /// Makes both tables what the commit logs say, whatever is in them; a log that cannot be read is deleted and begun anew.
    /// Returns what changed, by root.
    ///
    /// # Errors
    /// The store's; and commit logs that are damaged.
    pub async fn rebuild(&self) -> Result<BTreeMap<&'static str, Rebuilt>, TableError> {
        let mut kept = self.work.lock().await;
        *kept = None;
        for _ in 0..MAX_TRIES {
            let mut work = match self.open(true).await {
                Err(TableError::Delta(error)) => {
                    tracing::warn!(%error, "this table cannot be read; its log is begun anew");
                    self.delete_unreadable().await?;
                    continue;
                }
                work => work?,
            };
            if let Some(rebuilt) = self.try_to_rebuild(&mut work).await? {
                *kept = Some(work);
                return Ok(rebuilt);
            }
        }
        Err(TableError::Busy { root: Kind::Events.root().to_owned() })
    }

    async fn delete_unreadable(&self) -> Result<(), TableError> {
        for kind in Kind::ALL {
            let log = deltalog::DeltaLog::new(self.store.clone(), kind.root());
            if let Err(TableError::Delta(_)) = log.load().await.map_err(TableError::from) {
                log.delete_all().await?;
            }
        }
        Ok(())
    }

    async fn try_to_rebuild(&self, work: &mut Work) -> Result<Option<BTreeMap<&'static str, Rebuilt>>, TableError> {
        let all = partitions(&*self.store, &self.topic).await?.into_iter().collect();
        let mut foreign = self.follow_anew(work, &all).await?;
        let id = || self.id();
        let signature = Signature { now_ms: self.clock.now_ms(), id: &id };
        let mut rebuilt = BTreeMap::new();
        for table in &mut work.tables {
            let kind = table.kind;
            table.log.delete_false_hint().await?;
            let foreign = foreign.remove(&kind).unwrap_or_default();
            let columns = kind.columns(&self.layout)?;
            let outcome = table.rebuild(&self.topic, &mut work.followers, foreign, columns, &signature).await?;
            let Some(outcome) = outcome else { return Ok(None) };
            rebuilt.insert(kind.root(), outcome);
        }
        work.listed_at = Some(Instant::now());
        Ok(Some(rebuilt))
    }
}
