//! The scenarios: small enough to be explored whole, together all that can go wrong.

use super::scenario::{Layout, Mutation, Record, Scenario};

const fn record(key: char, kind: u8) -> Option<Record> {
    Some(Record { key, kind })
}

const BY_KIND: Layout = Layout { splits: true, window: 8 };
const IN_ONE: Layout = Layout { splits: false, window: 8 };
const IN_ONE_BRIEFLY: Layout = Layout { splits: false, window: 2 };

const NOWHERE: u8 = 0;
const ANYWHERE: u8 = 0b111_1110;

/// Two records, one for each file.
const PAIR: Scenario = Scenario {
    states: 0,
    log: &[record('a', 0), record('b', 1)],
    latest: 2,
    layouts: [BY_KIND, IN_ONE],
    ends: [ANYWHERE, ANYWHERE],
    reads_apart: false,
    under_way: 0,
    settable: NOWHERE,
    expires: false,
    deletes: false,
    trims_to: 0,
    old_cuts: false,
    mutation: None,
};

/// Three records; the last is the first one's duplicate.
const TWINS: Scenario =
    Scenario { log: &[record('a', 0), record('b', 1), record('a', 1)], latest: 3, ends: [0b1010, 0b1100], ..PAIR };

/// Two owners, crashes, nothing else.
pub(super) const RIVALS: [Scenario; 4] = [
    Scenario { states: 50_000, reads_apart: true, ..TWINS },
    Scenario { states: 80_000, reads_apart: true, latest: 1, ..TWINS },
    Scenario {
        states: 80_000,
        log: &[record('a', 0), record('b', 1), record('a', 1), record('c', 0)],
        latest: 4,
        ends: [0b1_0100, 0b1_1010],
        ..TWINS
    },
    // A marker in the middle, and windows of different lengths: under the second layout 'b' is written again.
    Scenario {
        states: 20_000,
        log: &[record('a', 0), record('b', 1), None, record('a', 1), record('b', 0)],
        latest: 5,
        layouts: [BY_KIND, IN_ONE_BRIEFLY],
        ends: [0b10_0010, 0b11_0000],
        ..TWINS
    },
];

pub(super) const LATE: [Scenario; 3] = [
    Scenario { states: 150_000, under_way: 1, ..PAIR },
    Scenario { states: 80_000, under_way: 1, ends: [0b1010, 0b1000], ..TWINS },
    Scenario { states: 30_000, under_way: 2, ends: [0b100, 0b100], ..PAIR },
];

/// The group's offset is set, forward and back, and beyond the log's end; it expires; commits land late.
pub(super) const SET: [Scenario; 4] = [
    Scenario { states: 100_000, settable: 0b101, ends: [0b1010, 0b1000], ..TWINS },
    Scenario { states: 150_000, settable: 0b10, ends: [0b100, 0b110], under_way: 1, ..PAIR },
    Scenario { states: 60_000, settable: 0b1100, ends: [0b100, 0b110], expires: true, ..PAIR },
    Scenario { states: 10_000, settable: 0b100, ends: [0b100, 0b110], reads_apart: true, ..PAIR },
];

pub(super) const TRIMMED: [Scenario; 4] = [
    Scenario { states: 50_000, trims_to: 1, reads_apart: true, ends: [0b100, 0b110], ..PAIR },
    Scenario { states: 250_000, trims_to: 2, ends: [0b1010, 0b1000], ..TWINS },
    Scenario { states: 50_000, trims_to: 1, under_way: 1, ends: [0b100, 0b100], ..PAIR },
    Scenario { states: 50_000, trims_to: 2, settable: 0b100, ends: [0b100, 0b110], ..PAIR },
];

pub(super) const DELETED: [Scenario; 3] = [
    Scenario { states: 80_000, deletes: true, settable: 0b1, ends: [0b1010, 0b1000], ..TWINS },
    Scenario { states: 80_000, deletes: true, settable: 0b1, under_way: 1, ends: [0b100, 0b100], ..PAIR },
    // What is salvaged goes by the files that are there: nobody may delete any meanwhile.
    Scenario {
        states: 50_000,
        old_cuts: true,
        deletes: true,
        settable: 0b1,
        trims_to: 1,
        ends: [0b100, 0b100],
        ..PAIR
    },
];

/// An open batch loses its head.
pub(super) const BEHEADED: [Scenario; 4] = [
    Scenario { states: 150_000, trims_to: 2, ends: [0b1000, 0b1000], ..TWINS },
    Scenario { states: 40_000, trims_to: 1, reads_apart: true, ends: [0b100, 0b100], ..PAIR },
    Scenario { states: 200_000, trims_to: 1, under_way: 1, ends: [0b1000, 0b1000], ..TWINS },
    Scenario { states: 10_000, trims_to: 2, settable: 0b10, ends: [0b100, 0b100], ..PAIR },
];

/// The same, of cuts of earlier builds: an operator removes the batch.
pub(super) const OF_EARLIER_BUILDS: [Scenario; 2] = [
    Scenario { states: 50_000, old_cuts: true, trims_to: 1, reads_apart: true, ends: [0b100, 0b110], ..PAIR },
    Scenario { states: 200_000, old_cuts: true, trims_to: 2, ends: [0b1010, 0b1000], ..TWINS },
];

/// More at once than every run of the tests has time for.
pub(super) const AT_LENGTH: [Scenario; 2] = [
    Scenario { states: 2_500_000, trims_to: 2, reads_apart: true, ..TWINS },
    Scenario { states: 2_500_000, trims_to: 2, under_way: 1, ends: [0b100, 0b100], ..PAIR },
];

pub(super) const fn mutant(mutation: Mutation) -> Scenario {
    let with = match mutation {
        Mutation::OriginIsReadFirst => Scenario { reads_apart: true, ..PAIR },
        Mutation::LogIsAskedOnce => Scenario { reads_apart: true, latest: 1, ..PAIR },
        Mutation::CommittedOffsetDecides => Scenario { settable: 0b10, ..PAIR },
        Mutation::WalkTrustsCompletions => Scenario { deletes: true, ..PAIR },
        Mutation::WalkDoesNotLookAgain => Scenario { trims_to: 2, settable: 0b1, ..TWINS },
        Mutation::LostHeadIsNotRefused | Mutation::RemedyIsBlind => {
            Scenario { old_cuts: true, trims_to: 1, reads_apart: true, ..TWINS }
        }
        Mutation::RemedyIsHasty => Scenario { old_cuts: true, trims_to: 1, under_way: 1, ..PAIR },
        Mutation::NamesAreNotTaken | Mutation::StandInIsTakenForTheFile | Mutation::FilesAreNotRead => {
            Scenario { trims_to: 1, ..PAIR }
        }
        Mutation::KeysOfFilesAreForgotten => Scenario { trims_to: 1, ends: [0b1000, 0b1000], ..TWINS },
        Mutation::EarlierRoundsAreNotTaken => Scenario { trims_to: 2, ends: [0b1000, 0b1000], ..TWINS },
        _ => TWINS,
    };
    Scenario { mutation: Some(mutation), ..with }
}
