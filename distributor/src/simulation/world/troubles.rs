//! What goes wrong beyond calls, and what persons do about it.

use super::*;

impl World {
    pub(super) fn set_back(&mut self, partition: i32) {
        if let Some(committed) = self.log.committed(partition) {
            let to = self.chance.draw(|random| random.between(0, committed));
            self.chance.tell(format_args!("offset of {partition} is set back from {committed} to {to}"));
            self.log.commit(partition, to);
            // Of offsets that were set forward before, what lies behind is still ahead of the commit log.
            self.skipped_to.push((partition, to));
        }
    }

    pub(super) fn skip(&mut self, partition: i32) {
        if let Some(committed) = self.log.committed(partition) {
            let latest = self.log.bounds(partition).latest;
            let to = self.chance.draw(|random| random.between(committed, latest));
            self.chance.tell(format_args!("offset of {partition} is set forward from {committed} to {to}"));
            self.log.commit(partition, to);
            self.skipped_to.push((partition, to));
        }
    }

    pub(super) fn let_go(&self, partition: i32) {
        let bounds = self.log.bounds(partition);
        let to = self.chance.draw(|random| random.between(bounds.earliest, bounds.latest));
        // Rarely more than a step: most of the time a log keeps what is needed.
        let to = if self.chance.draw(|random| random.one_in(2)) { to } else { to.min(bounds.earliest + 4) };
        self.chance.tell(format_args!("the log of {partition} begins at {to} now"));
        self.log.trim_to(partition, to);
    }

    /// Operators who lose files set the offsets back, and mostly stop everything before.
    pub(super) fn lose_files(&mut self) {
        if !self.chance.draw(|random| random.one_in(3)) {
            self.end_all();
        }
        let mut files = reckoning::files(&self.store);
        files.retain(|_| self.chance.draw(|random| random.one_in(3)));
        files.iter().for_each(|key| self.store.remove(key));
        self.chance.tell(format_args!("lost: {files:?}"));
        self.set_all_back();
    }

    /// An object is altered, or all are brought back.
    pub(super) fn alter(&self) {
        let mut keys = self.store.keys("");
        // Nothing vouches for a byte of the logs of tables; an audit compares them with the commit logs.
        keys.retain(|key| !key.contains("/_delta_log/"));
        if keys.is_empty() || self.chance.draw(|random| random.one_in(3)) {
            self.chance.tell(format_args!("{} objects are brought back", self.store.bring_back()));
            return;
        }
        let key = self.chance.draw(|random| random.pick(&keys));
        let body = self.store.get(&key).unwrap_or_default();
        let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder);
        let others: Vec<&String> = keys.iter().filter(|other| other.starts_with(folder) && **other != key).collect();
        let at = self.chance.draw(|random| random.below(body.len().max(1) as u64));
        let at = usize::try_from(at).unwrap();
        // Of a file that no entry vouches for yet, one of the same rows is as good: another build may have made it.
        let is_vouched_for = !key.contains(".parquet") || reckoning::is_live(&self.store, &self.log, &key);
        let into = match self.chance.draw(|random| random.below(3)) {
            _ if !is_vouched_for => body.slice(..at),
            0 => body.slice(..at),
            1 if !others.is_empty() => {
                self.store.get(self.chance.draw(|random| random.pick(&others))).unwrap_or_default()
            }
            _ => {
                let mut bytes = body.to_vec();
                let by = self.chance.draw(|random| random.between(1, 255));
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= u8::try_from(by).unwrap());
                bytes.into()
            }
        };
        if into != body {
            self.chance.tell(format_args!("{key} is altered at {at}, and has {} bytes now", into.len()));
            self.store.alter(&key, into);
        }
    }

    /// A refusal that a person expects who knows of altered objects, or of lost files.
    pub(super) fn is_expected(&self, error: &str) -> bool {
        self.is_of_altered(error) || self.trouble == Trouble::FilesAreLost && error.contains("--accept-lost")
    }

    /// A refusal that a person expects who knows of altered objects.
    pub(super) fn is_of_altered(&self, error: &str) -> bool {
        self.trouble == Trouble::ObjectsAreAltered && !error.contains("internal error")
    }

    /// Also where no offset was ever committed: the commit log may be further, and a group without offsets asks for nothing.
    pub(super) fn set_all_back(&self) {
        for partition in self.log.partitions() {
            if self.log.committed(partition).is_some() || commits::has_entries(&self.store, partition) {
                self.log.commit(partition, 0);
            }
        }
    }

    /// What a person does who is told that a batch has lost its head.
    pub(super) async fn abandon(&mut self) {
        for partition in self.log.partitions() {
            let has_lost_head = commits::has_lost_head(&self.store, &self.log, partition);
            if !has_lost_head.is_ok_and(|has_lost_head| has_lost_head) {
                continue;
            }
            self.lives += 1;
            let life = Arc::new(Life::new(format!("o{}", self.lives)));
            self.chance.tell(format_args!("{} abandons what is under way of {partition}", life.name));
            let abandoner = BatchAbandoner {
                store: Arc::new(StoreOf {
                    memory: self.store.clone(),
                    life: life.clone(),
                    script: None,
                    is_resting: false,
                }),
                log: Arc::new(LogOf { memory: self.log.clone(), life: life.clone(), member: 0 }),
                host: self.chance.host(),
                topic: roles::TOPIC.into(),
                group: roles::GROUP.into(),
                scratch: roles::scratch(),
            };
            // Killed, or failed: tried again at the next look.
            let ended = tokio::time::timeout(QUIET, abandoner.abandon(partition)).await;
            life.end();
            if let Ok(Err(error)) = ended {
                self.chance.tell(format_args!("{} gave up: {error}", life.name));
            }
        }
    }
}
