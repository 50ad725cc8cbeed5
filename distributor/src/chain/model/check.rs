//! What must hold in every state.

use super::Model;
use super::scenario::{Offsets, bit};
use super::world::{Cut, Kind, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Property {
    /// The cuts are one chain from the origin on, without gap or overlap.
    OneChain,
    /// A cut, once put, stays as it is.
    CutChanged,
    /// Only the last cut may be open.
    OpenBeforeTheLast,
    /// No file is visible before the cut of its batch.
    FileBeforeItsCut,
    /// A visible file keeps its rows.
    FileChanged,
    /// A visible file holds what records, window and the cut's layout say, and no other rows.
    WrongRows,
    /// A complete batch's files are there, all of them, unless an operator deleted one.
    FileMissing,
    /// No row, and no two rows of one key within the window, stand in visible files.
    RowTwice,
    /// What a worker commits is complete.
    CommittedAhead,
    /// Only what an operator asked for is skipped.
    SkippedUnasked,
    /// Only what the log lost before it was written is given up as lost.
    LostInVain,
    /// A refusal has a reason.
    RefusedForNoReason,
    /// One worker alone ends with every record of no passed-over range written once, by the rule for duplicates.
    NeverWritten,
}

#[derive(Debug)]
pub(super) struct Violation {
    pub property: Property,
    pub what: String,
}

impl Violation {
    pub(super) fn new(property: Property, what: String) -> Self {
        Self { property, what }
    }

    pub(super) fn by_one_alone(self) -> Self {
        Self { what: format!("when one worker goes on alone: {}", self.what), ..self }
    }
}

impl Model {
    /// # Errors
    /// The first property that does not hold.
    pub(super) fn check(&self, world: &World) -> Result<(), Violation> {
        let batches = self.check_chain(world)?;
        self.check_files(world, batches)
    }

    /// Returns the offsets that stand in batches.
    fn check_chain(&self, world: &World) -> Result<Offsets, Violation> {
        let violation = |property, what: String| Err(Violation::new(property, what));
        let mut at = world.origin.unwrap_or_default();
        let mut open = None;
        let (mut reached, mut batches) = (0, 0);
        while let Some(cut) = world.cut(at).filter(|cut| cut.to > cut.from) {
            if let Some(open) = open {
                return violation(Property::OpenBeforeTheLast, format!("{open:?} is open before {cut:?}"));
            }
            match cut.kind {
                Kind::Batch => batches |= self.scenario.records(cut.from, cut.to),
                Kind::Skipped if world.asked & bit(cut.to) == 0 => {
                    return violation(Property::SkippedUnasked, format!("{cut:?}"));
                }
                Kind::Lost if cut.to > world.earliest || world.completions[usize::from(cut.from)].is_some() => {
                    return violation(Property::LostInVain, format!("{cut:?}"));
                }
                Kind::Skipped | Kind::Lost => {}
            }
            if !world.is_complete(cut) {
                open = Some(cut);
            }
            reached += 1;
            at = cut.to;
        }
        if world.cuts.iter().flatten().count() != reached || (world.origin.is_none() && reached > 0) {
            return violation(Property::OneChain, format!("{:?} from origin {:?}", world.cuts, world.origin));
        }
        Ok(batches)
    }

    fn check_files(&self, world: &World, batches: Offsets) -> Result<(), Violation> {
        let violation = |property, what: String| Err(Violation::new(property, what));
        self.check_rows(world)?;
        // Keys that later batches are to know of: of a damaged batch not all.
        let mut known = 0;
        for from in 0..self.scenario.end() {
            let cut = world.cut(from).filter(|cut| cut.kind == Kind::Batch);
            let expected = cut.map(|cut| {
                let rows = self.scenario.rows(cut.layout, known, from, cut.to);
                self.scenario.files(cut.layout, rows)
            });
            self.check_salvage(world, from, cut, known)?;
            for (number, rows) in (0..2).zip(expected.unwrap_or_default()) {
                let Some(file) = world.file(from, number) else {
                    let is_complete = cut.is_some_and(|cut| world.is_complete(cut));
                    if is_complete && rows != 0 && world.deleted != Some((from, number)) {
                        return violation(Property::FileMissing, format!("file {number} of {cut:?}"));
                    }
                    continue;
                };
                let Some(cut) = cut else {
                    return violation(Property::FileBeforeItsCut, format!("file {number} of {from}: {file:?}"));
                };
                let rows = if file.stands_in { 0 } else { rows };
                if (file.rows, file.to, file.layout) != (rows, cut.to, cut.layout) {
                    return violation(Property::WrongRows, format!("file {number} of {cut:?}: {file:?}"));
                }
            }
            if let Some(cut) = cut {
                let records = batches & self.scenario.records(cut.from, cut.to);
                known |= if world.is_complete(cut) { world.key_runs[usize::from(from)] & records } else { records };
            }
        }
        Ok(())
    }

    /// Of one batch: nothing is given up but what the log lost.
    fn check_salvage(&self, world: &World, from: u8, cut: Option<Cut>, known: Offsets) -> Result<(), Violation> {
        let violation = |property, what: String| Err(Violation::new(property, what));
        let salvage = world.salvage(from);
        let is_of_cut = (0..2).filter_map(|number| world.file(from, number)).collect::<Vec<_>>();
        let stand_in = is_of_cut.iter().find(|file| file.stands_in);
        let Some(cut) = cut else {
            if stand_in.is_some() || salvage.rounds() > 0 {
                return violation(Property::FileBeforeItsCut, format!("{salvage:?} of {from}"));
            }
            return Ok(());
        };
        let last = salvage.log_from(salvage.rounds());
        if let Some(last) = last.or(stand_in.map(|_| from))
            && (last <= from || last > world.earliest || salvage.log_from(1).is_some_and(|first| first > last))
        {
            return violation(Property::LostInVain, format!("{cut:?}: {salvage:?}"));
        }
        let mut visible = is_of_cut.iter().fold(0, |rows, file| rows | file.rows);
        for (round, files) in (1..).zip(salvage.files) {
            for (number, file) in (0_usize..).zip(files).filter_map(|(number, file)| Some((number, file?))) {
                let allowed = salvage.log_from(round).map_or(0, |log_from| self.scenario.records(log_from, cut.to));
                let of_this_file = self.scenario.files(cut.layout, allowed)[number];
                if file.rows & !of_this_file != 0 || (file.to, file.layout) != (cut.to, cut.layout) {
                    return violation(
                        Property::WrongRows,
                        format!("file {number} of round {round} of {cut:?}: {file:?}"),
                    );
                }
                visible |= file.rows;
            }
        }
        let Some(completion) = world.completions[usize::from(from)] else { return Ok(()) };
        // From here on everything is written that is no duplicate.
        let whole_from = salvage.log_from(completion.rounds).unwrap_or(from);
        for offset in (whole_from..cut.to).filter(|offset| self.scenario.is_record(*offset)) {
            let is_new = !self.scenario.is_duplicate(cut.layout, known | self.scenario.records(from, offset), offset);
            let was_deleted = world.deleted.is_some_and(|(deleted, _)| deleted == from);
            if is_new && visible & bit(offset) == 0 && !was_deleted {
                return violation(Property::FileMissing, format!("{offset} of {cut:?} is in no file"));
            }
        }
        Ok(())
    }

    /// What a reader of the tables sees.
    fn check_rows(&self, world: &World) -> Result<(), Violation> {
        let twice = |what: String| Err(Violation::new(Property::RowTwice, what));
        let mut visible: Offsets = 0;
        for file in world.all_files() {
            if visible & file.rows != 0 {
                return twice(format!("{file:?}"));
            }
            visible |= file.rows;
        }
        let key = |offset: u8| self.scenario.log[usize::from(offset)].map(|record| record.key);
        for later in (0..self.scenario.end()).filter(|offset| visible & bit(*offset) != 0) {
            let layout = world.cut_before(later + 1).map(|cut| self.scenario.layouts[usize::from(cut.layout)]);
            let oldest = later.saturating_sub(layout.map_or(0, |layout| layout.window));
            let twin = (oldest..later).find(|other| visible & bit(*other) != 0 && key(*other) == key(later));
            if let Some(twin) = twin {
                return twice(format!("the key of {twin} stands at {later} again"));
            }
        }
        Ok(())
    }
}
