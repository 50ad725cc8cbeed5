//! One table, and its commits.

use std::collections::{BTreeMap, BTreeSet};

use common::store::Store;
use deltalog::{
    Action, Add, CommitInfo, Committed, DeltaLog, ENGINE, Field, File, Format, MetaData, Protocol, READER_VERSION,
    REBUILD, Remove, Schema, Snapshot, Txn, WRITER_VERSION, decode_path, encode_path,
};
use std::sync::Arc;

use super::TableError;
use super::file::{Owner, add, owner, partition_values, path_in};
use super::follower::{Backlog, Due, Follower};
use super::schema::Kind;

/// A checkpoint is put after so many commits.
const COMMITS_A_CHECKPOINT: u64 = 100;
/// … or after commits with so many actions.
const ACTIONS_A_CHECKPOINT: usize = 20_000;
/// Files of a commit that changes more than these are added in several.
const MOST_ADDED: usize = 50_000;
/// A table without news of a partition learns all the same that it has so many entries of it: fewer than an owner appends between
/// two checkpoints, so that the next publisher can go on there.
const QUIET_ENTRIES: u64 = 64;
/// Commits of a table that were replaced by a checkpoint are kept for at least so long, for readers that are slow.
const KEPT_MS: i64 = 3_600_000;

pub(super) struct Table {
    pub kind: Kind,
    pub log: DeltaLog,
    pub snapshot: Snapshot,
    /// Actions that this process has committed since a checkpoint.
    actions: usize,
}

/// What is written besides the actions, and when.
pub(super) struct Signature<'a> {
    pub now_ms: i64,
    /// A new random text for each call.
    pub id: &'a (dyn Fn() -> String + Send + Sync),
}

fn info(operation: &str, id: &str, now_ms: i64) -> Action {
    Action::CommitInfo(CommitInfo {
        timestamp: now_ms,
        operation: Some(operation.to_owned()),
        is_blind_append: operation == "WRITE",
        engine_info: Some(format!("{ENGINE}{}", env!("CARGO_PKG_VERSION"))),
        txn_id: Some(id.to_owned()),
        ..CommitInfo::default()
    })
}

pub(super) fn app_id(topic: &str, partition: i32) -> String {
    format!("event-distributor/{topic}/{partition}")
}

/// Random, in the form of a UUID of version 4.
fn uuid(random: &str) -> String {
    let digits: String =
        random.chars().filter(char::is_ascii_hexdigit).chain("0".repeat(32).chars()).take(32).collect();
    format!("{}-{}-4{}-8{}-{}", &digits[..8], &digits[8..12], &digits[13..16], &digits[17..20], &digits[20..])
}

impl Table {
    /// Reads a table, or makes it with these columns.
    ///
    /// # Errors
    /// The store's; a log that is damaged; and a table that others changed, unless it `may_be_foreign`.
    pub(super) async fn open(
        store: &Arc<dyn Store>,
        kind: Kind,
        columns: Vec<Field>,
        signature: &Signature<'_>,
        may_be_foreign: bool,
    ) -> Result<Self, TableError> {
        let log = DeltaLog::new(store.clone(), kind.root());
        let snapshot = match log.load().await? {
            Some(snapshot) => snapshot,
            None => {
                let id = (signature.id)();
                let actions = vec![
                    info("CREATE TABLE", &id, signature.now_ms),
                    Action::Protocol(protocol()),
                    Action::MetaData(metadata(kind, columns, &uuid(&id), signature.now_ms)?),
                ];
                // Another publisher makes the same.
                log.commit(0, &id, &actions).await?;
                log.load().await?.ok_or_else(|| TableError::Busy { root: kind.root().to_owned() })?
            }
        };
        match &snapshot.foreign {
            Some(foreign) if !may_be_foreign => {
                Err(TableError::Foreign { root: kind.root().to_owned(), foreign: foreign.clone() })
            }
            _ => Ok(Self::at(kind, log, snapshot)),
        }
    }

    pub(super) fn at(kind: Kind, log: DeltaLog, snapshot: Snapshot) -> Self {
        Self { kind, log, snapshot, actions: 0 }
    }

    /// How many entries of a commit log it holds.
    pub(super) fn entries_of(&self, topic: &str, partition: i32) -> Option<u64> {
        let txn = self.snapshot.txns.get(&app_id(topic, partition))?;
        u64::try_from(txn.version).ok()
    }

    /// The keys that it names, of some partitions of a topic; and paths that no distributor gives.
    ///
    /// # Errors
    /// The store's; and a log that is damaged.
    pub(super) async fn keys(&self, topic: &str, of: &BTreeSet<i32>) -> Result<Keys, TableError> {
        let (root, mut keys, mut misspelt) = (self.kind.root(), Keys::default(), BTreeSet::new());
        self.log
            .visit(&self.snapshot, &mut |file| {
                let File::Live(Add { path, partition_values: values, .. }) = file else { return Ok(()) };
                match owner(&path) {
                    Owner::Partition { topic: its, partition } if its == topic && of.contains(&partition) => {
                        match decode_path(&path) {
                            // Most readers tell files apart by their paths as they are written. The file itself is added anew
                            // after the other spelling is removed, for those that do not.
                            Some(key) if encode_path(&key) != path => {
                                misspelt.insert((partition, format!("{root}{key}")));
                                keys.foreign.push(path);
                            }
                            // What says something else of the file is added anew.
                            Some(key) if partition_values(&key) != values => {}
                            Some(key) => drop(keys.of.entry(partition).or_default().insert(format!("{root}{key}"))),
                            None => keys.foreign.push(path),
                        }
                    }
                    Owner::Partition { .. } => {}
                    Owner::Nobody => keys.foreign.push(path),
                }
                Ok(())
            })
            .await?;
        for (partition, key) in misspelt {
            keys.of.entry(partition).or_default().remove(&key);
        }
        Ok(keys)
    }

    /// Whether none of these has news for it.
    pub(super) fn is_settled(&self, followers: &BTreeMap<i32, Follower>) -> bool {
        followers.values().filter_map(|follower| follower.backlogs.get(&self.kind)).all(|backlog| !is_due(backlog))
    }

    /// Publishes what is due. False: somebody else committed meanwhile, and everything has to be read again.
    ///
    /// # Errors
    /// The store's; and a table without a schema.
    pub(super) async fn publish(
        &mut self,
        topic: &str,
        followers: &mut BTreeMap<i32, Follower>,
        signature: &Signature<'_>,
    ) -> Result<bool, TableError> {
        let (kind, mut actions, mut txns) = (self.kind, Vec::new(), Vec::new());
        for (partition, follower) in &*followers {
            let Some(backlog) = follower.backlogs.get(&kind).filter(|backlog| is_due(backlog)) else { continue };
            let version = i64::try_from(backlog.entries).unwrap_or(i64::MAX);
            let app_id = app_id(topic, *partition);
            txns.push(Txn { app_id, version, last_updated: Some(signature.now_ms) });
            for (key, due) in &backlog.files {
                actions.push(match due {
                    Due::Add { folder, stored, is_new } => {
                        Action::Add(add(kind.root(), key, folder, stored, *is_new, signature.now_ms))
                    }
                    Due::Remove => removed(path_in(kind.root(), key), signature.now_ms),
                });
            }
        }
        let grown = self.grown(followers)?;
        if !self.commit_all("WRITE", grown, actions, txns, signature).await? {
            return Ok(false);
        }
        for follower in followers.values_mut() {
            follower.published(kind);
        }
        Ok(true)
    }

    /// Makes the table what the commit logs say, whatever is in it. `anew` have folded everything.
    ///
    /// # Errors
    /// As [`Table::publish`].
    pub(super) async fn rebuild(
        &mut self,
        topic: &str,
        anew: &mut BTreeMap<i32, Follower>,
        foreign: Vec<String>,
        columns: Vec<Field>,
        signature: &Signature<'_>,
    ) -> Result<Option<Rebuilt>, TableError> {
        let (kind, mut actions, mut txns, mut rebuilt) = (self.kind, Vec::new(), Vec::new(), Rebuilt::default());
        for path in foreign {
            rebuilt.removed += 1;
            actions.push(removed(path, signature.now_ms));
        }
        let mut schema = Schema::new([columns, kind.partition_columns()].concat());
        let mut left_out = BTreeSet::new();
        let partition_columns = kind.partition_columns().len();
        for (partition, follower) in &*anew {
            let Some(backlog) = follower.backlogs.get(&kind) else { continue };
            let version = i64::try_from(backlog.entries).unwrap_or(i64::MAX);
            txns.push(Txn { app_id: app_id(topic, *partition), version, last_updated: Some(signature.now_ms) });
            for columns in &backlog.columns {
                schema.grow(columns, partition_columns, &mut left_out);
            }
            for (key, due) in &backlog.files {
                actions.push(match due {
                    Due::Add { folder, stored, .. } => {
                        rebuilt.added += 1;
                        Action::Add(add(kind.root(), key, folder, stored, false, signature.now_ms))
                    }
                    Due::Remove => {
                        rebuilt.removed += 1;
                        removed(path_in(kind.root(), key), signature.now_ms)
                    }
                });
            }
        }
        warn_of(kind, &left_out, &BTreeSet::new());
        let MetaData { id, created_time, .. } = &self.snapshot.metadata;
        let metadata = with_schema(&schema, &left_out, kind, id, created_time.unwrap_or_default())?;
        let is_right = self.snapshot.foreign.is_none()
            && actions.is_empty()
            && (&self.snapshot.metadata, &self.snapshot.protocol) == (&metadata, &protocol())
            && txns.iter().all(|txn| self.snapshot.txns.get(&txn.app_id).is_some_and(|had| had.version == txn.version));
        rebuilt.version = self.snapshot.version;
        if is_right {
            return Ok(Some(rebuilt));
        }
        let head = vec![Action::Protocol(protocol()), Action::MetaData(metadata)];
        if !self.commit_all(REBUILD, head, actions, txns, signature).await? {
            return Ok(None);
        }
        for follower in anew.values_mut() {
            follower.published(kind);
        }
        rebuilt.version = self.snapshot.version;
        Ok(Some(rebuilt))
    }

    /// The metadata with columns that the table lacks, if it lacks any.
    fn grown(&self, followers: &BTreeMap<i32, Follower>) -> Result<Vec<Action>, TableError> {
        let (kind, partition_columns) = (self.kind, self.kind.partition_columns().len());
        let mut schema = Schema::parse(&self.snapshot.metadata.schema_string)
            .map_err(|error| TableError::Layout(format!("{}_delta_log has no schema: {error}", kind.root())))?;
        let before = left_out(&self.snapshot.metadata);
        let (mut left_out, mut has_changed) = (before.clone(), false);
        for backlog in followers.values().filter_map(|follower| follower.backlogs.get(&kind)) {
            for columns in &backlog.columns {
                has_changed |= schema.grow(columns, partition_columns, &mut left_out);
            }
        }
        if !has_changed {
            return Ok(Vec::new());
        }
        warn_of(kind, &left_out, &before);
        let MetaData { id, created_time, .. } = &self.snapshot.metadata;
        let metadata = with_schema(&schema, &left_out, kind, id, created_time.unwrap_or_default())?;
        Ok(vec![Action::MetaData(metadata)])
    }

    /// Commits actions: all at once, but for files that are added to a table from which none is removed, and that are very many.
    async fn commit_all(
        &mut self,
        operation: &str,
        head: Vec<Action>,
        mut actions: Vec<Action>,
        txns: Vec<Txn>,
        signature: &Signature<'_>,
    ) -> Result<bool, TableError> {
        let only_adds = actions.iter().all(|action| matches!(action, Action::Add(_)));
        let adds_new = actions.iter().any(|action| matches!(action, Action::Add(add) if add.data_change));
        let operation = if operation == "WRITE" && !adds_new { "OPTIMIZE" } else { operation };
        let mut head = head;
        while only_adds && actions.len() > MOST_ADDED {
            let rest = actions.split_off(MOST_ADDED);
            let some = std::mem::replace(&mut actions, rest);
            if !self.commit_one(operation, std::mem::take(&mut head), some, Vec::new(), signature).await? {
                return Ok(false);
            }
        }
        self.commit_one(operation, head, actions, txns, signature).await
    }

    async fn commit_one(
        &mut self,
        operation: &str,
        head: Vec<Action>,
        actions: Vec<Action>,
        txns: Vec<Txn>,
        signature: &Signature<'_>,
    ) -> Result<bool, TableError> {
        let id = (signature.id)();
        let txns = txns.into_iter().map(Action::Txn);
        let mut all = vec![info(operation, &id, signature.now_ms)];
        all.extend(head.into_iter().chain(txns).chain(actions));
        match self.log.commit(self.snapshot.version + 1, &id, &all).await? {
            Committed::Written => {}
            Committed::Taken | Committed::Behind => return Ok(false),
        }
        self.actions += all.len();
        let ours = self.snapshot.version + 1;
        self.log.follow(&mut self.snapshot).await?;
        // Others may have gone on already.
        Ok(self.snapshot.version == ours)
    }

    /// Puts a checkpoint if one is due, and deletes what it makes unnecessary, if it is older than `retain_ms`.
    ///
    /// # Errors
    /// The store's; and a log that is damaged.
    pub(super) async fn keep_short(&mut self, now_ms: i64, retain_ms: i64) -> Result<(), TableError> {
        let since = self.snapshot.version - self.snapshot.checkpoint.unwrap_or(0);
        if since < COMMITS_A_CHECKPOINT && self.actions < ACTIONS_A_CHECKPOINT {
            return Ok(());
        }
        let before_ms = now_ms.saturating_sub(retain_ms.max(KEPT_MS));
        self.log.put_checkpoint(&mut self.snapshot, before_ms).await?;
        self.actions = 0;
        self.log.clean_up(&self.snapshot, before_ms).await?;
        Ok(())
    }
}

/// What a table names.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// By partition.
    pub of: BTreeMap<i32, BTreeSet<String>>,
    /// Paths of files that no distributor wrote.
    pub foreign: Vec<String>,
}

/// What a rebuild changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Rebuilt {
    pub version: u64,
    pub added: u64,
    pub removed: u64,
}

fn is_due(backlog: &Backlog) -> bool {
    !backlog.files.is_empty() || backlog.entries >= backlog.published.saturating_add(QUIET_ENTRIES) || is_first(backlog)
}

/// The table does not know of the partition yet.
fn is_first(backlog: &Backlog) -> bool {
    backlog.published == 0 && backlog.entries > 0
}

fn removed(path: String, now_ms: i64) -> Action {
    Action::Remove(Remove { path, deletion_timestamp: Some(now_ms), data_change: false })
}

fn protocol() -> Protocol {
    Protocol { min_reader_version: READER_VERSION, min_writer_version: WRITER_VERSION }
}

/// Names of columns that are left out, in the properties of a table.
const LEFT_OUT: &str = "eventDistributor.leftOut";

fn left_out(metadata: &MetaData) -> BTreeSet<String> {
    let names = metadata.configuration.get(LEFT_OUT).map(String::as_str).unwrap_or_default();
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn warn_of(kind: Kind, left_out: &BTreeSet<String>, before: &BTreeSet<String>) {
    for column in left_out.difference(before) {
        let root = kind.root();
        tracing::warn!(
            root,
            column,
            "this column has another type in other files, so it is left out of the table: 'rewrite' gives all files one type, and \
             'table rebuild' takes the column in again"
        );
    }
}

fn text_of(schema: &Schema) -> Result<String, TableError> {
    schema.to_text().map_err(|error| TableError::Layout(error.to_string()))
}

fn metadata(kind: Kind, columns: Vec<Field>, id: &str, now_ms: i64) -> Result<MetaData, TableError> {
    let schema = Schema::new([columns, kind.partition_columns()].concat());
    with_schema(&schema, &BTreeSet::new(), kind, id, now_ms)
}

fn with_schema(
    schema: &Schema,
    left_out: &BTreeSet<String>,
    kind: Kind,
    id: &str,
    created_ms: i64,
) -> Result<MetaData, TableError> {
    // Other programs may not remove rows. Compaction removes files, and no rows.
    let mut configuration: BTreeMap<String, String> = [("delta.appendOnly".to_owned(), "true".to_owned())].into();
    if !left_out.is_empty() {
        configuration.insert(LEFT_OUT.to_owned(), left_out.iter().cloned().collect::<Vec<_>>().join(","));
    }
    Ok(MetaData {
        id: id.to_owned(),
        name: None,
        description: None,
        format: Format { provider: "parquet".to_owned(), options: BTreeMap::new() },
        schema_string: text_of(schema)?,
        partition_columns: kind.partition_columns().into_iter().map(|field| field.name).collect(),
        configuration,
        created_time: Some(created_ms),
    })
}
