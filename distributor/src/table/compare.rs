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

/// A table that is behind for so long is a fault.
const BEHIND_MS: i64 = 10 * 60_000;
/// Files of one kind that are named in a fault.
const NAMED: usize = 3;

/// What is wrong with the tables, given the states of all partitions of a topic. A table may lack the newest entries of a partition
/// for a while. `are_expected`: a table that is missing is a fault, too, once there have been files for a while.
///
/// # Errors
/// The store's.
pub(crate) async fn compare(
    store: &Arc<dyn Store>,
    topic: &str,
    states: &BTreeMap<i32, State>,
    now_ms: i64,
    are_expected: bool,
) -> Result<Vec<TableFault>, common::store::StoreError> {
    let mut faults = Vec::new();
    for kind in Kind::ALL {
        match compare_one(store, topic, states, kind, (now_ms, are_expected)).await {
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
    (now_ms, are_expected): (i64, bool),
) -> Result<Vec<TableFault>, TableError> {
    let (log, root) = (DeltaLog::new(store.clone(), kind.root()), kind.root());
    let snapshot = match log.load().await {
        Ok(Some(snapshot)) => snapshot,
        Ok(None) => {
            let mut is_due = false;
            for (partition, state) in states.iter().filter(|_| are_expected) {
                let has_files = state.live.values().any(|file| kind.holds(&file.folder));
                let commits = CommitLog::new(store.clone(), topic, *partition);
                is_due |= has_files && is_old(&commits, 0, now_ms).await?;
            }
            let message = "there is no Delta table over these files: a distributor makes it, or 'table rebuild'; with \
                           table.format = \"none\" there is to be none";
            let fault = TableFault { place: format!("{root}_delta_log"), message: message.to_owned() };
            return Ok(is_due.then_some(fault).into_iter().collect());
        }
        Err(DeltaError::Store(error)) => return Err(error.into()),
        Err(error) => return Err(error.into()),
    };
    if let Some(foreign) = snapshot.foreign.clone() {
        return Err(TableError::Foreign { root: root.to_owned(), foreign });
    }
    let table = Table::at(kind, log, snapshot);
    let Keys { of, foreign } = table.keys(topic, &states.keys().copied().collect()).await?;
    let mut faults = Vec::new();
    if let Some(place) = table.log.false_hint().await? {
        let message =
            "it names a checkpoint that is not there, and readers fail: 'table rebuild' removes it".to_owned();
        faults.push(TableFault { place, message });
    }
    let (mut missing, mut more) = (Vec::new(), foreign);
    let nothing = BTreeSet::new();
    for (partition, state) in states {
        let (known, there) = (table.entries_of(topic, *partition).unwrap_or(0), of.get(partition).unwrap_or(&nothing));
        let commits = CommitLog::new(store.clone(), topic, *partition);
        let expected = expected(&commits, topic, *partition, state, kind);
        let lacks: Vec<String> = expected.keys().filter(|key| !there.contains(*key)).cloned().collect();
        if known == state.head.next {
            missing.extend(lacks);
            more.extend(there.iter().filter(|key| !expected.contains_key(*key)).cloned());
        } else if known < state.head.next && !lacks.is_empty() && is_old(&commits, known, now_ms).await? {
            let (files, minutes) = (lacks.len(), BEHIND_MS / 60_000);
            let message = format!(
                "the table lacks {files} files of partition {partition}, and has had no news of it for more than {minutes} minutes: is a \
                 distributor at work? Its log says what keeps it from publishing"
            );
            faults.push(TableFault { place: format!("{root}_delta_log"), message });
        }
    }
    let mut fault = |what: &str, keys: Vec<String>| {
        if !keys.is_empty() {
            let named = keys.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
            let more = if keys.len() > NAMED { ", …" } else { "" };
            let message =
                format!("the table {what} {} files: {named}{more}; 'table rebuild' makes it anew", keys.len());
            faults.push(TableFault { place: format!("{root}_delta_log"), message });
        }
    };
    fault("lacks", missing);
    fault("names, and no commit log does,", more);
    Ok(faults)
}

/// Whether an entry that a table does not have was put long ago.
async fn is_old(commits: &CommitLog, entry: u64, now_ms: i64) -> Result<bool, TableError> {
    // None: it was collected.
    let put_ms = commits.entry_put_ms(entry).await?;
    Ok(put_ms.is_none_or(|put_ms| put_ms < now_ms.saturating_sub(BEHIND_MS)))
}
