//! A table at a version, without its files.

use std::collections::BTreeMap;

use crate::action::{Action, CommitInfo, MetaData, Protocol, Txn};
use crate::{ENGINE, REBUILD};

/// A commit of another engine that changed files, schema or protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    pub version: u64,
    /// As it calls itself, if it does.
    pub engine: String,
    pub operation: String,
}

/// A table at a version, without its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub version: u64,
    pub protocol: Protocol,
    pub metadata: MetaData,
    /// How far applications have got, by `appId`.
    pub txns: BTreeMap<String, Txn>,
    /// Version of the checkpoint that it was read from.
    pub checkpoint: Option<u64>,
    /// The first one since the table was last made what it has to be.
    pub foreign: Option<Foreign>,
}

/// The fold of actions other than those of files.
#[derive(Debug, Default)]
pub(crate) struct Head {
    pub protocol: Option<Protocol>,
    pub metadata: Option<MetaData>,
    pub txns: BTreeMap<String, Txn>,
    pub foreign: Option<Foreign>,
}

impl Head {
    pub(crate) fn fold(&mut self, action: Action) {
        match action {
            Action::Protocol(protocol) => self.protocol = Some(protocol),
            Action::MetaData(metadata) => self.metadata = Some(metadata),
            Action::Txn(txn) => drop(self.txns.insert(txn.app_id.clone(), txn)),
            Action::CommitInfo(_) | Action::Add(_) | Action::Remove(_) => {}
        }
    }

    /// Folds a commit.
    pub(crate) fn fold_commit(&mut self, version: u64, actions: Vec<Action>) {
        match author(&actions) {
            Author::Ours { rebuilds: true } => self.foreign = None,
            Author::Ours { rebuilds: false } => {}
            Author::Other { engine, operation } => {
                let changes = |action: &Action| !matches!(action, Action::CommitInfo(_) | Action::Txn(_));
                if actions.iter().any(changes) {
                    self.foreign.get_or_insert(Foreign { version, engine, operation });
                }
            }
        }
        actions.into_iter().for_each(|action| self.fold(action));
    }
}

enum Author {
    Ours { rebuilds: bool },
    Other { engine: String, operation: String },
}

fn author(actions: &[Action]) -> Author {
    let info = actions.iter().find_map(|action| if let Action::CommitInfo(info) = action { Some(info) } else { None });
    let text = |of: fn(&CommitInfo) -> Option<&String>| info.and_then(of).map_or("unknown", String::as_str).to_owned();
    let (engine, operation) = (text(|info| info.engine_info.as_ref()), text(|info| info.operation.as_ref()));
    if engine.starts_with(ENGINE) {
        return Author::Ours { rebuilds: operation == REBUILD };
    }
    Author::Other { engine, operation }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Remove;

    fn commit(engine: &str, operation: &str, removes: bool) -> Vec<Action> {
        let (engine_info, operation) = (Some(engine.to_owned()), Some(operation.to_owned()));
        let info = CommitInfo { engine_info, operation, ..CommitInfo::default() };
        let remove = Remove { path: "a".into(), deletion_timestamp: None, data_change: false };
        [vec![Action::CommitInfo(info)], if removes { vec![Action::Remove(remove)] } else { vec![] }].concat()
    }

    #[test]
    fn a_foreign_commit_that_changes_files_is_remembered_until_the_table_is_rebuilt() {
        let mut head = Head::default();
        head.fold_commit(0, commit("event-distributor/0.1.0", "WRITE", true));
        head.fold_commit(1, commit("Apache-Spark/4.1.0 Delta-Lake/4.1.0", "VACUUM START", false));
        assert_eq!(head.foreign, None);
        head.fold_commit(2, commit("Apache-Spark/4.1.0 Delta-Lake/4.1.0", "OPTIMIZE", true));
        head.fold_commit(3, commit("delta-rs:1", "DELETE", true));
        head.fold_commit(4, commit("event-distributor/0.1.0", "WRITE", true));
        let foreign = head.foreign.clone().unwrap();
        assert_eq!((foreign.version, foreign.operation.as_str()), (2, "OPTIMIZE"));
        head.fold_commit(5, commit("event-distributor/0.1.0", REBUILD, true));
        assert_eq!(head.foreign, None);
    }
}
