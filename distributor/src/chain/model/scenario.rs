//! What one search explores: a small log, two workers, and what may go wrong.

/// Layouts by number: worker i cuts under layout i.
pub(super) type LayoutId = u8;
/// Offsets as bits.
pub(super) type Offsets = u8;

/// More offsets than any scenario's log has.
pub(super) const MAX_OFFSETS: usize = 5;
/// Files that a batch may have.
pub(super) const FILES: usize = 2;
/// How far the start of any scenario's log moves.
pub(super) const MAX_TRIMMED: usize = 2;
/// Rounds of salvage that a batch may need: each begins where the log begins further on.
pub(super) const ROUNDS: usize = MAX_TRIMMED;

/// Time is the offset, so that a window is a number of offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub key: char,
    /// Decides the file under a layout that splits.
    pub kind: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// One file for each kind; otherwise one for all, under the name that the file of kind 0 would have.
    pub splits: bool,
    /// A twin at most so many offsets earlier makes a record a duplicate.
    pub window: u8,
}

/// A rule of the protocol that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mutation {
    FilesBeforeTheCut,
    /// The origin is read before the last cut is looked for.
    OriginIsReadFirst,
    /// The log's end is believed, though it was asked for before the chain was read.
    LogIsAskedOnce,
    /// A walk is sure that a cut with a lost head is not the last.
    WalkDoesNotLookAgain,
    /// Who loses the race for a cut writes the batch it has.
    LoserKeepsItsCut,
    CutsAreOverwritten,
    /// The last cut is taken for complete.
    OpenBatchIsPassedOver,
    /// The offset is committed once the cut is put.
    CommitsAtTheCut,
    /// Reading goes on at the committed offset, wherever the chain ends.
    CommittedOffsetDecides,
    CompletionBeforeTheLastFile,
    CompletionBeforeTheKeyRun,
    /// An open batch is made under the layout of who makes it.
    RedoUnderItsOwnLayout,
    /// As above, and files that are there are overwritten.
    FilesAreOverwritten,
    /// Keys of a batch that was given up stay in the window.
    OverlayIsKept,
    WindowIsNotRebuilt,
    /// Files that are missing are not made again.
    WalkTrustsCompletions,
    /// An open batch whose head the log lost is tried all the same.
    LostHeadIsNotRefused,
    /// The operator removes an open batch while requests for it are under way.
    RemedyIsHasty,
    /// The operator removes a batch because a worker once said so, and does not ask again when all are stopped.
    RemedyIsBlind,
    /// A batch is salvaged without taking the names of files that are not there.
    NamesAreNotTaken,
    /// The same, for the names of earlier rounds only.
    EarlierRoundsAreNotTaken,
    /// Who finds a file there that stands in takes it for its own.
    StandInIsTakenForTheFile,
    /// What was written of lost records does not count for duplicates.
    KeysOfFilesAreForgotten,
    /// Rows that are in files are not looked for.
    FilesAreNotRead,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Scenario {
    /// States that are explored, at least: a search that finds no way on proves nothing.
    pub states: usize,
    /// By offset; `None` takes an offset and is never read, as a transaction's marker does.
    pub log: &'static [Option<Record>],
    /// Offsets that are there from the start; the others come at any time.
    pub latest: u8,
    pub layouts: [Layout; 2],
    /// Where each worker may end a batch, as bits.
    pub ends: [u8; 2],
    /// Each read of a worker is a step. Otherwise group and log are read in one step, and the chain in another.
    pub reads_apart: bool,
    /// Requests that may be under way at once without their sender.
    pub under_way: usize,
    /// Offsets that an operator may set the group's offset to, each once at any time, as bits.
    pub settable: u8,
    /// The group's offset may expire.
    pub expires: bool,
    /// An operator may delete a file, any one but only one.
    pub deletes: bool,
    /// How far the log's start may move.
    pub trims_to: u8,
    /// Cuts are those of earlier builds, which do not say what files their batches have.
    pub old_cuts: bool,
    pub mutation: Option<Mutation>,
}

impl Scenario {
    pub(super) fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// Where the log ends once all has come.
    pub(super) fn end(&self) -> u8 {
        u8::try_from(self.log.len()).unwrap()
    }

    pub(super) fn is_record(&self, offset: u8) -> bool {
        self.log[usize::from(offset)].is_some()
    }

    /// Offsets of `from..to` that hold a record.
    pub(super) fn records(&self, from: u8, to: u8) -> Offsets {
        (from..to).filter(|offset| self.is_record(*offset)).fold(0, |all, offset| all | bit(offset))
    }

    /// Records of `from..to` that are no duplicates under `layout`: no record of the same key stands earlier among them, or
    /// anywhere in `window`, and is not too old.
    pub(super) fn rows(&self, layout: LayoutId, window: Offsets, from: u8, to: u8) -> Offsets {
        let is_new = |offset: &u8| !self.is_duplicate(layout, window | self.records(from, *offset), *offset);
        let rows = (from..to).filter(|offset| self.is_record(*offset)).filter(is_new);
        rows.fold(0, |rows, offset| rows | bit(offset))
    }

    pub(super) fn is_duplicate(&self, layout: LayoutId, known: Offsets, offset: u8) -> bool {
        let key = |offset: u8| self.log[usize::from(offset)].map(|record| record.key);
        let oldest = offset.saturating_sub(self.layouts[usize::from(layout)].window);
        (oldest..self.end()).any(|other| known & bit(other) != 0 && key(other) == key(offset))
    }

    /// The files of a batch with these rows; no rows, no file.
    pub(super) fn files(&self, layout: LayoutId, rows: Offsets) -> [Offsets; FILES] {
        if !self.layouts[usize::from(layout)].splits {
            return [rows, 0];
        }
        let mut files = [0; FILES];
        for offset in 0..self.end() {
            if rows & bit(offset) != 0
                && let Some(record) = self.log[usize::from(offset)]
            {
                files[usize::from(record.kind)] |= bit(offset);
            }
        }
        files
    }
}

pub(super) fn bit(offset: u8) -> u8 {
    1 << offset
}

pub(super) fn range(from: u8, to: u8) -> Offsets {
    bit(to) - bit(from)
}
