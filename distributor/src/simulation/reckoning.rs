//! The tables and the chain as they are, against the model and the audit.

use std::sync::Arc;

use common::log::Bounds;

use super::chance::Life;
use super::damaged::Damaged;
use super::log::{LogOf, MemoryLog};
use super::store::{MemoryStore, StoreOf};
use super::{commits, model, roles};
use crate::Record;
use crate::audit::{Auditor, Repair};
use crate::chain::{Completion, Cut, CutKind, Origin};

/// Files of both tables.
pub(super) fn files(store: &MemoryStore) -> Vec<String> {
    let mut files = store.keys("events/");
    files.extend(store.keys("rejected/"));
    files
}

pub(super) fn document<T: serde::de::DeserializeOwned>(store: &MemoryStore, key: &str) -> Result<T, String> {
    let body = store.get(key).ok_or_else(|| format!("{key} is not there"))?;
    serde_json::from_slice(&body).map_err(|error| format!("{key}: {error}"))
}

/// Each file has the rows that the model says, and there are no others. `skipped_to`: where operators set offsets
/// forward to, by partition.
pub(super) fn compare(
    store: &MemoryStore,
    log: &MemoryLog,
    record: Record,
    skipped_to: &[(i32, i64)],
) -> Result<(), String> {
    let mut expected = model::Tables::new();
    for partition in log.partitions() {
        let tables = match record {
            Record::Chain => tables(store, log, partition, skipped_to),
            Record::CommitLog => committed_tables(store, log, partition, skipped_to),
        };
        expected.extend(tables.map_err(|error| format!("partition {partition}: {error}"))?);
    }
    if let Some(unknown) = files(store).iter().find(|path| !expected.contains_key(*path)) {
        return Err(format!("{unknown} should not be there"));
    }
    for (path, rows) in &expected {
        let body = store.get(path).ok_or_else(|| format!("{path} is not there; its rows: {rows:?}"))?;
        let found = model::rows(body).map_err(|error| format!("{path}: {error}"))?;
        if found != *rows {
            return Err(format!("{path} has {found:?}\n  instead of {rows:?}"));
        }
    }
    Ok(())
}

fn tables(
    store: &MemoryStore,
    log: &MemoryLog,
    partition: i32,
    skipped_to: &[(i32, i64)],
) -> Result<model::Tables, String> {
    let mut keys = store.keys(&format!("_batches/events/{partition}/cuts/"));
    // The newest cut comes first in a listing.
    keys.reverse();
    let cuts = keys.iter().map(|key| {
        let cut: Cut = document(store, key)?;
        let done = key.replace("/cuts/", "/done/");
        let damaged = if store.get(&done).is_some() { Damaged::read(store, &done)? } else { None };
        Ok((cut, damaged))
    });
    let cuts: Vec<(Cut, Option<Damaged>)> = cuts.collect::<Result<_, String>>()?;
    let Bounds { earliest, .. } = log.bounds(partition);
    let is_empty = log.look(partition, |log| log.records.iter().all(|record| record.offset < earliest));
    if cuts.is_empty() && is_empty {
        return Ok(model::Tables::new());
    }
    for (key, (cut, _)) in keys.iter().zip(&cuts) {
        match cut.kind {
            CutKind::Batch if store.get(&key.replace("/cuts/", "/done/")).is_none() => {
                return Err(format!("the batch {}..{} is not complete", cut.from, cut.to));
            }
            CutKind::Skipped if !skipped_to.contains(&(partition, cut.to)) => {
                return Err(format!("{}..{} were skipped unasked", cut.from, cut.to));
            }
            _ => {}
        }
    }
    let origin: Origin = document(store, &format!("_batches/events/{partition}/origin.json"))?;
    log.look(partition, |log| model::tables(partition, origin.start, &cuts, log))
}

/// As a commit log says.
fn committed_tables(
    store: &MemoryStore,
    log: &MemoryLog,
    partition: i32,
    skipped_to: &[(i32, i64)],
) -> Result<model::Tables, String> {
    let (state, blanked) = commits::state(store, partition)?;
    let Some(header) = &state.head.header else {
        let Bounds { earliest, .. } = log.bounds(partition);
        let is_empty = log.look(partition, |log| log.records.iter().all(|record| record.offset < earliest));
        return if is_empty { Ok(model::Tables::new()) } else { Err("it has no commit log".to_owned()) };
    };
    commits::check(store, partition, &state)?;
    let cuts = commits::cuts(partition, &state)?;
    let unasked = cuts.iter().find(|cut| cut.kind == CutKind::Skipped && !skipped_to.contains(&(partition, cut.to)));
    if let Some(cut) = unasked {
        return Err(format!("{}..{} were skipped unasked", cut.from, cut.to));
    }
    let cuts: Vec<_> = cuts.into_iter().map(|cut| (cut, None)).collect();
    let mut tables = log.look(partition, |log| model::tables(partition, header.start, &cuts, log))?;
    tables.extend(blanked.into_iter().map(|path| (path, Vec::new())));
    Ok(tables)
}

/// How many batches were closed after the log had let go of their head.
pub(super) fn damaged(store: &MemoryStore, log: &MemoryLog) -> u64 {
    let keys = log.partitions().into_iter().flat_map(|id| store.keys(&format!("_batches/events/{id}/done/")));
    let completions = keys.filter_map(|key| document::<Completion>(store, &key).ok());
    let damaged = completions.filter(|completion| completion.damage.is_some()).count() as u64;
    damaged + log.partitions().into_iter().map(|id| commits::abandoned(store, id)).sum::<u64>()
}

/// A deep audit finds nothing.
pub(super) async fn audit(store: &Arc<MemoryStore>, log: &Arc<MemoryLog>, record: Record) -> Result<(), String> {
    let life = Arc::new(Life::new("audit".to_owned()));
    let auditor = Auditor {
        store: Arc::new(StoreOf { memory: store.clone(), life: life.clone(), script: None }),
        log: Some(Arc::new(LogOf { memory: log.clone(), life, member: 0 })),
        topic: roles::TOPIC.into(),
        group: roles::GROUP.into(),
        encoding: roles::ENCODING,
        window_memory: roles::WINDOW_MEMORY,
        batch_memory: 5_000,
        scratch: roles::scratch(),
        deep: true,
        uploads_older_than: std::time::Duration::from_secs(86_400),
        now_ms: 0,
        on_batch: Box::new(|_| {}),
    };
    let audit = match record {
        Record::Chain => auditor.verify(Repair::No).await,
        Record::CommitLog => auditor.verify_commits(Repair::No).await,
    };
    let audit = audit.map_err(|error| format!("the audit failed: {error}"))?;
    if audit.is_sound() { Ok(()) } else { Err(format!("the audit found {:?}", audit.findings)) }
}
