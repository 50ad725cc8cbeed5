//! What must stand in the files of a batch that was closed after the log had let go of its head.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{Row, Tables, Timed, is_duplicate, place, rejected};
use super::reckoning::document;
use super::store::MemoryStore;
use crate::batch::testing::layout;
use crate::chain::{Completion, Cut, Salvage};
use crate::route::{fingerprint, read_event};
use crate::window::decode_key_run;

/// What only the store can tell of it: which files came, and how far each round could read.
pub(super) struct Damaged {
    /// Where the log began, by round.
    log_from: Vec<i64>,
    /// Files of the completion without rows. Those of the last round may have none and be whole all the same.
    empty: BTreeSet<String>,
    /// Keys that later batches know of, and their log times.
    keys: BTreeMap<u128, i64>,
}

impl Damaged {
    /// `None` if nobody began to close the batch so. Its files may be whole all the same, but not its keys.
    pub fn read(store: &MemoryStore, done: &str) -> Result<Option<Self>, String> {
        let completion: Completion = document(store, done)?;
        let rounds = done.replace("/done/", "/salvages/").replace(".json", "/");
        if store.keys(&rounds).is_empty() {
            return if completion.damage.is_some() {
                Err(format!("{done} is damaged out of nothing"))
            } else {
                Ok(None)
            };
        }
        let counted = completion.damage.map_or(0, |damage| damage.rounds);
        let log_from = (1..=counted).map(|round| {
            let salvage: Salvage = document(store, &format!("{rounds}{round:06}.json"))?;
            Ok(salvage.log_from)
        });
        let log_from = log_from.collect::<Result<Vec<_>, String>>()?;
        let said = completion.damage.filter(|damage| damage.rounds > 0).map(|damage| damage.log_from);
        if log_from.last().copied() != said || !log_from.is_sorted() {
            return Err(format!("{done} says {:?}, the rounds {log_from:?}", completion.damage));
        }
        let empty = completion.files.into_iter().filter(|file| file.rows == 0).map(|file| file.path);
        let run = done.replace("/done/", "/keys/").replace(".json", ".run");
        let run = store.get(&run).ok_or_else(|| format!("{run} is not there"))?;
        let mut keys = BTreeMap::new();
        decode_key_run(&run, |key, time_ms| _ = keys.insert(key, time_ms)).map_err(|error| error.to_string())?;
        Ok(Some(Self { log_from, empty: empty.collect(), keys }))
    }

    /// A record of the batch as later ones know it, if they do.
    pub fn remembered<'a>(&self, timed: Timed<'a>) -> Option<Timed<'a>> {
        let reader = layout().reader().unwrap();
        let event = read_event(Some(timed.record.value.as_bytes()), &reader).ok()?;
        let time_ms = self.keys.get(&fingerprint(&event.event_id, event.timestamp_us))?;
        Some(Timed { log_time_ms: *time_ms, ..timed })
    }

    /// Rows by file: `whole` is what they would be if the log had kept everything, `before` what the batch knows of
    /// earlier ones, where log time is `begun_ms`.
    pub fn files(
        &self,
        partition: i32,
        cut: &Cut,
        whole: Tables,
        before: &[Timed<'_>],
        begun_ms: i64,
        batch: &[Timed<'_>],
    ) -> Tables {
        let mut files = whole;
        for (path, rows) in &mut files {
            if self.empty.contains(path) {
                rows.clear();
            }
        }
        let mut folders: Vec<&String> = Vec::new();
        for folder in cut.folders.iter().flatten() {
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        for (round, log_from) in (1..).zip(&self.log_from) {
            let rows = left(cut, &folders, *log_from, &files, before, begun_ms, batch);
            for (number, (folder, rows)) in folders.iter().zip(rows).enumerate() {
                let path = format!("{folder}/events-{partition}-{}-s{round}-{number}.parquet", cut.from);
                let rows = if self.empty.contains(&path) { Vec::new() } else { rows };
                files.insert(path, rows);
            }
        }
        files
    }
}

/// By folder: rows from `log_from` on that are in none of the files.
fn left(
    cut: &Cut,
    folders: &[&String],
    log_from: i64,
    files: &Tables,
    before: &[Timed<'_>],
    begun_ms: i64,
    batch: &[Timed<'_>],
) -> Vec<Vec<Row>> {
    let all: BTreeMap<i64, &Row> = files.values().flatten().map(|row| (row.offset, row)).collect();
    let mut known = before.to_vec();
    let mut clock_ms = begun_ms;
    for timed in batch.iter().filter(|timed| timed.record.offset < log_from && timed.event.is_some()) {
        if let Some(row) = all.get(&timed.record.offset) {
            clock_ms = clock_ms.max(row.log_time_ms);
            known.push(Timed { log_time_ms: clock_ms, ..timed.clone() });
        }
    }
    let is_events = |folder: &str| folder.starts_with("events/");
    let types: BTreeSet<_> =
        folders.iter().filter(|folder| is_events(folder)).map(|folder| folder.split('/').nth(1)).collect();
    let has_all_types = types.len() >= cut.layout.max_types as usize;
    let last_rejected = folders.iter().rposition(|folder| !is_events(folder));
    let number_of = |wanted: &str| folders.iter().position(|folder| *folder == wanted);
    let mut rows = vec![Vec::new(); folders.len()];
    for timed in batch.iter().filter(|timed| timed.record.offset >= log_from) {
        clock_ms = clock_ms.max(timed.record.append_ms);
        let timed = Timed { log_time_ms: clock_ms, ..timed.clone() };
        let is_new = !is_duplicate(&known, &timed, cut.layout.window_ms);
        known.push(timed.clone());
        if all.contains_key(&timed.record.offset) || !is_new {
            continue;
        }
        let of_rejected = number_of(&rejected(&timed)).or(last_rejected);
        let (number, content) = match place(&timed) {
            Err(reason) => (of_rejected, reason.to_owned()),
            Ok((_, folder, content)) => match number_of(&folder) {
                Some(number) => (Some(number), content),
                // The batch had as many types as it may. Otherwise it is the duplicate of a lost record.
                None => (of_rejected.filter(|_| has_all_types), "too_many_types".to_owned()),
            },
        };
        if let Some(number) = number {
            rows[number].push(Row { offset: timed.record.offset, log_time_ms: clock_ms, content });
        }
    }
    rows
}
