//! Keeps all lanes together within their memory.

use super::Worker;
use crate::lane::LaneState;

impl Worker<'_> {
    /// Requests memory from partitions, the largest first, until the rest fits.
    pub(super) fn make_room(&self) {
        while memory(self.staying()) > self.role.settings.max_memory && self.ask_largest() {}
        // A lane that was asked may be delayed by its store. The others use the remaining memory meanwhile, and are
        // asked one after another, because often the first was busy only for a moment.
        if !self.has_room() {
            self.ask_largest();
        }
    }

    /// Those that have not been asked for memory.
    fn staying(&self) -> impl Iterator<Item = &LaneState> {
        self.states().filter(|state| !state.is_about_to_make_room())
    }

    /// False if no partition has enough memory to be worth it.
    fn ask_largest(&self) -> bool {
        // A small amount is not worth a write to disk.
        let worthwhile =
            usize::try_from(self.role.settings.max_memory / 16).unwrap_or(usize::MAX) / self.lanes.len().max(1);
        let largest = self.staying().max_by_key(|state| state.reclaimable_bytes());
        let asked = largest.filter(|state| state.reclaimable_bytes() > worthwhile);
        asked.map(LaneState::ask_for_room).is_some()
    }

    /// Reading of all partitions stops while those that were asked still have to free the excess.
    pub(super) fn has_room(&self) -> bool {
        let limit = self.role.settings.max_memory;
        memory(self.states()) <= limit.saturating_add(limit / 4) || !self.states().any(LaneState::is_about_to_make_room)
    }
}

fn memory<'a>(states: impl Iterator<Item = &'a LaneState>) -> u64 {
    states.map(|state| state.memory_bytes() as u64).sum()
}
