//! Compares tables with commit logs, and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use commitlog::State;
use commitlog_storage::CommitLog;
use common::store::Store;
use deltalog::{DeltaError, DeltaLog};

use super::TableError;
use super::follower::expected;
use super::schema::Kind;
use super::table::{Keys, Table};

/// What is wrong with a table.
#[derive(Debug)]
pub(crate) struct TableFault {
    /// A key, or the root of the table.
    pub place: String,
    pub message: String,
}

/// Files of one kind that are named in a fault.
const NAMED: usize = 3;

/// What is wrong with the tables, given the states of all partitions of a topic. Of a partition of which a table has not all
/// entries yet, or more than the state, nothing is said.
///
/// # Errors
/// The store's.
pub(crate) async fn compare(
    store: &Arc<dyn Store>,
    topic: &str,
    states: &BTreeMap<i32, State>,
) -> Result<Vec<TableFault>, common::store::StoreError> {
    let mut faults = Vec::new();
    for kind in Kind::ALL {
        match compare_one(store, topic, states, kind).await {
            Ok(found) => faults.extend(found),
            Err(TableError::Store(error)) => return Err(error),
            Err(error) => faults.push(TableFault { place: kind.root().to_owned(), message: error.to_string() }),
        }
    }
    Ok(faults)
}

async fn compare_one(
    store: &Arc<dyn Store>,
    topic: &str,
    states: &BTreeMap<i32, State>,
    kind: Kind,
) -> Result<Vec<TableFault>, TableError> {
    let (log, root) = (DeltaLog::new(store.clone(), kind.root()), kind.root());
    let snapshot = match log.load().await {
        Ok(Some(snapshot)) => snapshot,
        Ok(None) => return Ok(Vec::new()),
        Err(DeltaError::Store(error)) => return Err(error.into()),
        Err(error) => return Err(error.into()),
    };
    if let Some(foreign) = snapshot.foreign.clone() {
        return Err(TableError::Foreign { root: root.to_owned(), foreign });
    }
    let table = Table { kind, log, snapshot };
    let comparable: BTreeSet<i32> = states
        .iter()
        .filter(|(partition, state)| table.entries_of(topic, **partition) == Some(state.head.next))
        .map(|(partition, _)| *partition)
        .collect();
    let Keys { of, foreign } = table.keys(topic, &comparable).await?;
    let mut faults = Vec::new();
    let mut fault = |what: &str, keys: Vec<String>| {
        if !keys.is_empty() {
            let named = keys.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
            let more = if keys.len() > NAMED { ", …" } else { "" };
            let message =
                format!("the table {what} {} files: {named}{more}; 'table rebuild' makes it anew", keys.len());
            faults.push(TableFault { place: format!("{root}_delta_log"), message });
        }
    };
    let (mut missing, mut more) = (Vec::new(), foreign);
    let nothing = BTreeSet::new();
    for partition in &comparable {
        let (Some(state), there) = (states.get(partition), of.get(partition).unwrap_or(&nothing)) else { continue };
        let commits = CommitLog::new(store.clone(), topic, *partition);
        let expected = expected(&commits, topic, *partition, state, kind);
        missing.extend(expected.keys().filter(|key| !there.contains(*key)).cloned());
        more.extend(there.iter().filter(|key| !expected.contains_key(*key)).cloned());
    }
    fault("lacks", missing);
    fault("names, and no commit log does,", more);
    Ok(faults)
}
