//! Closing an open batch whose head the log has lost, as `partition/salvage.rs` goes.

use super::Model;
use super::plan::Seen;
use super::refusal::Refusal;
use super::scenario::{FILES, Mutation, Offsets, bit, range};
use super::worker::{Making, Phase, Salvaging};
use super::world::{Cut, World};

/// Says that a key run is there, whatever its keys.
pub(super) const IS_THERE: Offsets = 1 << 7;

impl Model {
    /// The newest round, if nothing more was lost since it was begun, or a further one.
    pub(super) fn salvage(&self, world: &World, index: usize, seen: Seen, cut: Cut) -> Result<Phase, Refusal> {
        let rounds = world.salvage(cut.from).rounds();
        match rounds {
            0 => Ok(Phase::PutRound { seen, cut, round: 1, log_from: seen.earliest.min(cut.to) }),
            _ => self.began_round(world, index, seen, cut, rounds),
        }
    }

    /// The round is there, put by whomever.
    pub(super) fn began_round(
        &self,
        world: &World,
        index: usize,
        seen: Seen,
        cut: Cut,
        round: u8,
    ) -> Result<Phase, Refusal> {
        let needed = seen.earliest.min(cut.to);
        if world.salvage(cut.from).log_from(round).is_none_or(|log_from| log_from < needed) {
            return Ok(Phase::PutRound { seen, cut, round: round + 1, log_from: needed });
        }
        let window = self.rebuild(world, index, cut.from, cut.layout)?;
        let salvage = Salvaging { own: round, round: 0, whole: false };
        let making = Making { cut, window, put: 0, redo: Some(seen.grown_old(cut)), salvage: Some(salvage) };
        if self.scenario.is(Mutation::NamesAreNotTaken) {
            return Ok(Phase::ReadAgain(Making { salvage: Some(Salvaging { round, ..salvage }), ..making }));
        }
        Ok(self.after_files(world, making))
    }

    /// All names of a round before our own are taken: nothing can come under them any more.
    pub(super) fn after_names(&self, world: &World, making: Making, salvage: Salvaging) -> Phase {
        let Cut { from, names, .. } = making.cut;
        let mut numbers = (0..2).filter(|number| names.unwrap_or_default() & bit(*number) != 0);
        let is_real = |number: u8| world.file_of(from, salvage.round, number).is_some_and(|file| !file.stands_in);
        if numbers.all(is_real) {
            return Phase::ReadAgain(Making { salvage: Some(Salvaging { whole: true, ..salvage }), ..making });
        }
        let next = if self.scenario.is(Mutation::EarlierRoundsAreNotTaken) { salvage.own } else { salvage.round + 1 };
        let making = Making { put: 0, salvage: Some(Salvaging { round: next, ..salvage }), ..making };
        if next == salvage.own { Phase::ReadAgain(making) } else { self.after_files(world, making) }
    }

    /// The first offset that is read to make a batch; with nothing to read, one that no log begins after.
    pub(super) fn read_from(&self, world: &World, making: &Making) -> u8 {
        let Making { cut, salvage, .. } = making;
        let Some(salvage) = salvage else { return cut.from };
        let log_from = world.salvage(cut.from).log_from(salvage.own).unwrap_or(cut.from);
        if log_from < cut.to { log_from } else { u8::MAX }
    }

    /// Rows in the files of earlier rounds, or up to the one that is whole.
    fn written(&self, world: &World, making: &Making) -> Offsets {
        let Some(Salvaging { own, round, whole }) = making.salvage else { return 0 };
        let rounds = if whole { 0..=round } else { 0..=own - 1 };
        if self.scenario.is(Mutation::FilesAreNotRead) {
            return 0;
        }
        let files =
            rounds.flat_map(|round| (0..2).filter_map(move |number| world.file_of(making.cut.from, round, number)));
        files.fold(0, |rows, file| rows | file.rows)
    }

    fn log_from(&self, world: &World, making: &Making) -> u8 {
        let own = making.salvage.map_or(0, |salvage| salvage.own);
        world.salvage(making.cut.from).log_from(own).unwrap_or(making.cut.from)
    }

    /// What of the batch is in no file and can still be read, by file.
    pub(super) fn left(&self, world: &World, making: &Making) -> [Offsets; FILES] {
        let Making { cut, window, .. } = making;
        let (log_from, written) = (self.log_from(world, making), self.written(world, making));
        let of_lost = if self.scenario.is(Mutation::KeysOfFilesAreForgotten) { 0 } else { written };
        let mut rows = 0;
        for offset in (log_from..cut.to).filter(|offset| self.scenario.is_record(*offset)) {
            let known = window | (of_lost & range(cut.from, log_from)) | self.scenario.records(log_from, offset);
            if written & bit(offset) == 0 && !self.scenario.is_duplicate(cut.layout, known, offset) {
                rows |= bit(offset);
            }
        }
        // The batch never had a row where it has no file: what would stand there is a duplicate of a lost record.
        let files = self.scenario.files(cut.layout, rows);
        [0, 1]
            .map(|number| if cut.names.unwrap_or_default() & bit(number) == 0 { 0 } else { files[usize::from(number)] })
    }

    /// The keys that later batches are to know of.
    pub(super) fn key_run(&self, world: &World, making: &Making) -> Offsets {
        let Making { cut, salvage, .. } = making;
        if salvage.is_none() {
            return IS_THERE | self.scenario.records(cut.from, cut.to);
        }
        let log_from = self.log_from(world, making);
        let of_lost = self.written(world, making) & range(cut.from, log_from);
        IS_THERE | of_lost | self.scenario.records(log_from, cut.to)
    }
}
