//! Keeping all lanes together within their memory.

use super::Worker;
use crate::lane::LaneState;

impl Worker<'_> {
    /// Asks partitions to give memory back, the largest first, until the rest fits.
    pub(super) fn make_room(&self) {
        while memory(self.staying()) > self.role.settings.max_memory && self.ask_largest() {}
        // Who was asked may be held up by its store. Before all stop for it, the others do with what it leaves, and are asked
        // one after another, for often the first was only busy for a moment.
        if !self.has_room() {
            self.ask_largest();
        }
    }

    /// Those that have not been asked for their memory.
    fn staying(&self) -> impl Iterator<Item = &LaneState> {
        self.states().filter(|state| !state.is_about_to_make_room())
    }

    /// False when nobody is left whose memory is worth it.
    fn ask_largest(&self) -> bool {
        // Little is not worth a write to disk.
        let worthwhile =
            usize::try_from(self.role.settings.max_memory / 16).unwrap_or(usize::MAX) / self.lanes.len().max(1);
        let largest = self.staying().max_by_key(|state| state.reclaimable_bytes());
        let asked = largest.filter(|state| state.reclaimable_bytes() > worthwhile);
        asked.map(LaneState::ask_for_room).is_some()
    }

    /// Nothing more is read, of no partition, while those that were asked for it still have to give back what is too much.
    pub(super) fn has_room(&self) -> bool {
        let limit = self.role.settings.max_memory;
        memory(self.states()) <= limit.saturating_add(limit / 4) || !self.states().any(LaneState::is_about_to_make_room)
    }
}

fn memory<'a>(states: impl Iterator<Item = &'a LaneState>) -> u64 {
    states.map(|state| state.memory_bytes() as u64).sum()
}
