//! The commit logs as they are, folded anew from their entries.

use std::collections::BTreeMap;

use commitlog::{BatchSlot, Entry, Fate, Hash, Intent, LiveFile, Op, PassReason, State};

use common::store::PutCondition;

use super::log::MemoryLog;
use super::model::{Decided, What};
use super::store::MemoryStore;

pub(super) fn has_entries(store: &MemoryStore, partition: i32) -> bool {
    !store.entries(partition).is_empty()
}

/// What all entries of a partition say, collected ones too.
#[derive(Default)]
pub(super) struct Folded {
    pub state: State,
    /// The names that abandoned batches had.
    pub blanked: Vec<String>,
    /// From which offset on keys were kept when a batch was begun, by the batch's first offset.
    keys_from: BTreeMap<i64, i64>,
}

pub(super) fn fold(store: &MemoryStore, partition: i32) -> Result<Folded, String> {
    let mut entries = store.entries(partition);
    entries.reverse();
    let (mut folded, mut last) = (Folded::default(), None);
    let Folded { state, blanked, keys_from } = &mut folded;
    for (n, (key, bytes)) in (0..).zip(entries) {
        let sealed = Entry::open(&bytes, n, last).map_err(|error| format!("{key}: {error}"))?;
        for op in &sealed.entry.ops {
            if let Op::Intent(intent) = op {
                keys_from.insert(intent.from, state.head.keys_from);
            }
        }
        if let [Op::Abandoned(_)] = &sealed.entry.ops[..] {
            let Intent { from, folders, .. } = state.head.intent().ok_or("nothing is under way")?;
            let names = (0..).zip(folders);
            blanked
                .extend(names.map(|(k, folder): (u32, _)| format!("{folder}/events-{partition}-{from}-{k}.parquet")));
        }
        state.apply(&sealed.entry.ops).map_err(|error| format!("{key}: {error}"))?;
        last = Some(sealed.hash);
    }
    Ok(folded)
}

/// Whether the log has let go of the head of what is under way.
pub(super) fn has_lost_head(store: &MemoryStore, log: &MemoryLog, partition: i32) -> Result<bool, String> {
    let Folded { state, .. } = fold(store, partition)?;
    let earliest = log.bounds(partition).earliest;
    Ok(match &state.head.batch {
        BatchSlot::Open(intent) => earliest > intent.from,
        BatchSlot::Abandoning { .. } => true,
        BatchSlot::Free => false,
    })
}

/// How many batches were abandoned.
pub(super) fn abandoned(store: &MemoryStore, partition: i32) -> u64 {
    fold(store, partition).map_or(0, |Folded { state, .. }| {
        state.spans.values().filter(|span| matches!(span.fate, Fate::Abandoned(_))).count() as u64
    })
}

/// Appends to the entries of one store those that another one has beyond them.
pub(super) fn follow(store: &MemoryStore, further: &MemoryStore, partition: i32) {
    let entries = |store: &MemoryStore| {
        let mut entries = store.entries(partition);
        entries.reverse();
        entries
    };
    let ours = entries(store).len() as u64;
    let (mut last, mut last_of_theirs) = (None, None);
    let both = entries(store).into_iter().map(Some).chain(std::iter::repeat(None));
    for (n, ((key, theirs), our)) in (0..).zip(entries(further).into_iter().zip(both)) {
        let theirs = Entry::open(&theirs, n, last_of_theirs).unwrap();
        last_of_theirs = Some(theirs.hash);
        if let Some((_, our)) = our.filter(|_| n < ours) {
            last = Some(Entry::open(&our, n, last).unwrap().hash);
            continue;
        }
        let (bytes, sealed) = Entry { previous: last, ..theirs.entry }.seal().unwrap();
        store.put(&key, &bytes.into(), &PutCondition::IfAbsent).unwrap();
        last = Some(sealed.hash);
    }
}

/// What was decided of every offset, in order.
pub(super) fn decided(folded: &Folded) -> Result<Vec<Decided>, String> {
    let decided = folded.state.spans.iter().map(|(from, span)| {
        let what = match &span.fate {
            Fate::Batch(batch) => {
                let layout = serde_json::from_value(batch.recipe.layout.clone());
                let layout = Box::new(layout.map_err(|error| error.to_string())?);
                let keys_from = folded.keys_from.get(from).copied().ok_or("a batch without intent")?;
                What::Batch { layout, keys_from }
            }
            Fate::Passed(PassReason::Skipped) => What::Skipped,
            Fate::Passed(PassReason::Lost) | Fate::Abandoned(_) => What::Lost,
        };
        Ok(Decided { from: *from, to: span.to, what })
    });
    decided.collect()
}

/// Nothing is under way, and each live file is what its commit says.
pub(super) fn check(store: &MemoryStore, partition: i32, state: &State) -> Result<(), String> {
    if let Some(intent) = state.head.intent() {
        return Err(format!("the batch {}..{} is not complete", intent.from, intent.to));
    }
    for (id, LiveFile { folder, stored, .. }) in &state.live {
        let path = format!("{folder}/events-{partition}-{id}.parquet");
        let body = store.get(&path).ok_or_else(|| format!("{path} is live and not there"))?;
        if (body.len() as u64, Hash::of(&body)) != (stored.bytes, stored.sha256) {
            return Err(format!("{path} is not what its commit says"));
        }
    }
    Ok(())
}
