//! Every log that an exploration comes across, each once: as a prefix and one entry more.

use super::intern::Interned;
use crate::files::State;
use crate::op::Op;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Link {
    before: Option<(u32, u32)>,
}

pub(super) struct Logs {
    links: Interned<Link>,
    /// By the number of the link, as are the lengths.
    states: Vec<Option<State>>,
    lengths: Vec<u64>,
    ops: Interned<Vec<Op>>,
}

impl Logs {
    /// With the empty log, which has number 0.
    pub(super) fn new() -> Self {
        let mut links = Interned::new();
        links.number(Link { before: None });
        Self { links, states: vec![Some(State::default())], lengths: vec![0], ops: Interned::new() }
    }

    /// The number of an entry.
    pub(super) fn entry(&mut self, ops: Vec<Op>) -> u32 {
        self.ops.number(ops)
    }

    pub(super) fn ops(&self, entry: u32) -> &Vec<Op> {
        self.ops.get(entry)
    }

    pub(super) fn append(&mut self, log: u32, ops: &[Op]) -> u32 {
        let entry = self.entry(ops.to_vec());
        self.append_entry(log, entry)
    }

    pub(super) fn append_entry(&mut self, log: u32, entry: u32) -> u32 {
        let next = self.links.number(Link { before: Some((log, entry)) });
        if next as usize == self.states.len() {
            let state = self.states[log as usize].clone().and_then(|mut state| {
                let valid = state.apply(self.ops.get(entry)).is_ok();
                valid.then_some(state)
            });
            self.states.push(state);
            self.lengths.push(self.length(log) + 1);
        }
        next
    }

    /// The state of a log; none, if an entry is not valid.
    pub(super) fn state(&self, log: u32) -> Option<&State> {
        self.states[log as usize].as_ref()
    }

    pub(super) fn length(&self, log: u32) -> u64 {
        self.lengths[log as usize]
    }

    /// The first `entries` entries.
    pub(super) fn prefix(&self, log: u32, entries: u64) -> u32 {
        let mut at = log;
        for _ in entries..self.length(log) {
            at = self.links.get(at).before.map_or(0, |(before, _)| before);
        }
        at
    }

    /// The entries from number `from` on.
    pub(super) fn entries(&self, log: u32, from: u64) -> Vec<Vec<Op>> {
        let mut entries = Vec::new();
        let mut at = log;
        for _ in from..self.length(log) {
            if let Some((before, ops)) = self.links.get(at).before {
                entries.push(self.ops.get(ops).clone());
                at = before;
            }
        }
        entries.reverse();
        entries
    }
}
