//! Tables over the files, as their readers see them.

use std::collections::{BTreeMap, BTreeSet};

use deltalog::decode_path;
use serde_json::Value;

use super::super::{commits, model};
use super::*;

/// Each of a different one: readers of the tables are not in a hurry.
const RETAINED: [u64; 3] = [0, 100, 20_000];

impl World {
    pub(super) fn tables(&self, store: Arc<dyn Store>) -> Option<Arc<Tables>> {
        let retain = self.has_tables.then(|| self.chance.draw(|random| random.pick(&RETAINED)))?;
        let clock = Arc::new(super::super::chance::WallClock(self.chance.clone()));
        let (host, layout) = (self.chance.host(), crate::batch::testing::layout());
        let tables = Tables::new(store, clock, host, roles::TOPIC.into(), layout, Duration::from_millis(retain));
        Some(Arc::new(tables))
    }

    /// At any moment, every file that a table names is there, and no row is in two of them. Files that were lost or altered are
    /// no fault of the tables.
    pub(super) fn look_at_tables(&self) -> Result<(), String> {
        if !self.has_tables || self.trouble != Trouble::LogLetsGo {
            return Ok(());
        }
        let mut places = BTreeSet::new();
        for path in named(&self.store)? {
            let body = self.store.get(&path).ok_or_else(|| format!("a table names {path}, which is not there"))?;
            let partition = partition_of(&path).ok_or_else(|| format!("a table names {path}"))?;
            for row in model::rows(body).map_err(|error| format!("{path}: {error}"))? {
                if !places.insert((partition, row.offset)) {
                    return Err(format!("offset {} of {partition} is in two files of a table", row.offset));
                }
            }
        }
        Ok(())
    }

    /// Afterwards the tables name exactly the files that the commit logs say.
    pub(super) async fn publish_to_the_end(&mut self) -> Result<(), String> {
        let life = Arc::new(Life::new("p".to_owned()));
        let tables = self.tables(self.store_of(&life)).ok_or("no tables")?;
        let published = tokio::time::timeout(PATIENCE, tables.publish()).await;
        let published = published.map_err(|_| "the publisher does not come to an end".to_owned())?;
        published.map_err(|error| format!("p gave up: {error}"))?;
        let mut expected = BTreeSet::new();
        for partition in self.log.partitions() {
            let commits::Folded { state, .. } = commits::fold(&self.store, partition)?;
            let path = |id: &_, folder: &str| format!("{folder}/events-{partition}-{id}.parquet");
            expected.extend(state.live.iter().map(|(id, file)| path(id, &file.folder)));
        }
        let named = named(&self.store)?;
        if named == expected {
            return Ok(());
        }
        let (lacks, has) = (expected.difference(&named), named.difference(&expected));
        Err(format!("a table lacks {:?} and has {:?}", lacks.collect::<Vec<_>>(), has.collect::<Vec<_>>()))
    }
}

/// The files that both tables name, by a plain fold of the lines of all commits.
fn named(store: &MemoryStore) -> Result<BTreeSet<String>, String> {
    let mut named: BTreeMap<String, bool> = BTreeMap::new();
    for root in ["events/", "rejected/"] {
        for key in store.keys(&format!("{root}_delta_log/")) {
            let body = store.get(&key).unwrap_or_default();
            for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && key.ends_with(".json")) {
                let action: Value = serde_json::from_slice(line).map_err(|error| format!("{key}: {error}"))?;
                for (kind, is_live) in [("add", true), ("remove", false)] {
                    if let Some(path) = action[kind]["path"].as_str() {
                        let path = decode_path(path).ok_or_else(|| format!("{key}: {path}"))?;
                        named.insert(format!("{root}{path}"), is_live);
                    }
                }
            }
        }
    }
    Ok(named.into_iter().filter(|(_, is_live)| *is_live).map(|(path, _)| path).collect())
}

fn partition_of(path: &str) -> Option<i32> {
    match path.split_once("/_staged/events/") {
        Some((_, rest)) => rest.split('/').next()?.parse().ok(),
        None => path.rsplit('/').next()?.strip_prefix("events-")?.split('-').next()?.parse().ok(),
    }
}
