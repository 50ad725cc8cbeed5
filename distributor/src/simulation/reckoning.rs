//! The tables and the commit logs as they are, against the model and the audit.

use std::collections::BTreeSet;
use std::sync::Arc;

use commitlog::FileId;
use common::log::Bounds;

use super::chance::Life;
use super::log::{LogOf, MemoryLog};
use super::model::{Decided, What};
use super::store::{MemoryStore, StoreOf, is_data};
use super::{commits, model, roles};
use crate::audit::{Audit, Auditor, Repair};

/// Files of both tables.
pub(super) fn files(store: &MemoryStore) -> Vec<String> {
    let mut files = store.keys("events/");
    files.extend(store.keys("rejected/"));
    files.retain(|key| is_data(key));
    files
}

/// Each file has the rows that the model says, and there are no others. Of partitions with files that replaces made, each
/// folder has them. `skipped_to`: where operators set offsets forward to, by partition.
pub(super) fn compare(store: &MemoryStore, log: &MemoryLog, skipped_to: &[(i32, i64)]) -> Result<(), String> {
    if let Some(doubled) = store.doubled() {
        return Err(format!("visible twice: {doubled}"));
    }
    let mut unknown: BTreeSet<String> = files(store).into_iter().collect();
    for partition in log.partitions() {
        let of_it = |error: String| format!("partition {partition}: {error}");
        let expected = tables(store, log, partition, skipped_to).map_err(of_it)?;
        let commits::Folded { state, blanked, .. } = commits::fold(store, partition)?;
        let live = state.live.iter().map(|(id, file)| format!("{}/events-{partition}-{id}.parquet", file.folder));
        let there: BTreeSet<String> = live.chain(blanked).collect();
        let is_replaced = state.live.keys().any(|id| matches!(id, FileId::Replace { .. }));
        let mut found = model::Tables::new();
        for path in there {
            let body = store.get(&path).ok_or_else(|| of_it(format!("{path} is not there")))?;
            found.insert(path.clone(), model::rows(body).map_err(|error| format!("{path}: {error}"))?);
            unknown.remove(&path);
        }
        let (expected, found) = if is_replaced { (by_folder(expected), by_folder(found)) } else { (expected, found) };
        for path in expected.keys().chain(found.keys()) {
            let (found, wanted) = (found.get(path), expected.get(path));
            if found != wanted {
                return Err(of_it(format!("{path} has {found:?}\n  instead of {wanted:?}")));
            }
        }
    }
    unknown.first().map_or(Ok(()), |unknown| Err(format!("{unknown} should not be there")))
}

/// Rows by folder, in order.
fn by_folder(tables: model::Tables) -> model::Tables {
    let mut folders = model::Tables::new();
    for (path, rows) in tables.into_iter().filter(|(_, rows)| !rows.is_empty()) {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        folders.entry(folder.to_owned()).or_default().extend(rows);
    }
    folders.values_mut().for_each(|rows| rows.sort_unstable());
    folders
}

/// As a commit log says.
fn tables(
    store: &MemoryStore,
    log: &MemoryLog,
    partition: i32,
    skipped_to: &[(i32, i64)],
) -> Result<model::Tables, String> {
    let folded = commits::fold(store, partition)?;
    let state = &folded.state;
    let Some(header) = &state.head.header else {
        let Bounds { earliest, .. } = log.bounds(partition);
        let is_empty = log.history(partition).records.iter().all(|record| record.offset < earliest);
        return if is_empty { Ok(model::Tables::new()) } else { Err("it has no commit log".to_owned()) };
    };
    commits::check(store, partition, state)?;
    let decided = commits::decided(&folded)?;
    let is_unasked =
        |decided: &&Decided| matches!(decided.what, What::Skipped) && !skipped_to.contains(&(partition, decided.to));
    if let Some(Decided { from, to, .. }) = decided.iter().find(is_unasked) {
        return Err(format!("{from}..{to} were skipped unasked"));
    }
    let mut tables = model::tables(partition, header.start, &decided, &log.history(partition))?;
    tables.extend(folded.blanked.into_iter().map(|path| (path, Vec::new())));
    Ok(tables)
}

/// How many batches were abandoned.
pub(super) fn abandoned(store: &MemoryStore, log: &MemoryLog) -> u64 {
    log.partitions().into_iter().map(|id| commits::abandoned(store, id)).sum()
}

/// Live files that replaces made.
pub(super) fn rewritten(store: &MemoryStore, log: &MemoryLog) -> u64 {
    let states = log.partitions().into_iter().filter_map(|id| commits::fold(store, id).ok());
    states.map(|folded| folded.state.live.keys().filter(|id| matches!(id, FileId::Replace { .. })).count() as u64).sum()
}

/// A deep audit finds nothing.
pub(super) async fn audit(store: &Arc<MemoryStore>, log: &Arc<MemoryLog>) -> Result<(), String> {
    let audit = audited(store, log).await?;
    if audit.is_sound() { Ok(()) } else { Err(format!("the audit found {:?}", audit.findings)) }
}

/// Paths of the live files of a partition.
fn live(store: &MemoryStore, partition: i32) -> BTreeSet<String> {
    let state = commits::fold(store, partition).unwrap_or_default().state;
    state.live.iter().map(|(id, file)| format!("{}/events-{partition}-{id}.parquet", file.folder)).collect()
}

pub(super) fn is_live(store: &MemoryStore, log: &MemoryLog, path: &str) -> bool {
    log.partitions().into_iter().any(|partition| live(store, partition).contains(path))
}

/// A deep audit finds live files and newest entries that are altered.
pub(super) async fn altered_are_found(store: &Arc<MemoryStore>, log: &Arc<MemoryLog>) -> Result<(), String> {
    let (altered, mut telling) = (store.altered(), Vec::new());
    for partition in log.partitions() {
        let live = live(store, partition);
        let newest = store.keys(&format!("_commits/events/{partition}/log/")).into_iter().next();
        telling.extend(altered.iter().filter(|key| live.contains(*key) || Some(*key) == newest.as_ref()));
    }
    if telling.is_empty() || !audited(store, log).await?.is_sound() {
        return Ok(());
    }
    Err(format!("the audit has not found that these are altered: {telling:?}"))
}

async fn audited(store: &Arc<MemoryStore>, log: &Arc<MemoryLog>) -> Result<Audit, String> {
    let life = Arc::new(Life::new("audit".to_owned()));
    let auditor = Auditor {
        store: Arc::new(StoreOf { memory: store.clone(), life: life.clone(), script: None, is_resting: false }),
        log: Some(Arc::new(LogOf { memory: log.clone(), life, member: 0 })),
        topic: roles::TOPIC.into(),
        group: roles::GROUP.into(),
        window_memory: roles::WINDOW_MEMORY,
        batch_memory: 5_000,
        scratch: roles::scratch(),
        has_tables: false,
        deep: true,
        uploads_older_than: std::time::Duration::from_secs(86_400),
        now_ms: common::clock::Clock::now_ms(&*store.chance),
        on_batch: Box::new(|_| {}),
    };
    auditor.verify(Repair::No).await.map_err(|error| format!("the audit failed: {error}"))
}
