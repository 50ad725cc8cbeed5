//! Everything there is at one moment: the log, the group's offset, the store, requests under way, and two workers.

use super::check::{Property, Violation};
use super::scenario::{FILES, LayoutId, MAX_OFFSETS, MAX_TRIMMED, Mutation, Offsets, ROUNDS, Scenario, bit};
use super::worker::{Phase, Worker};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Batch,
    Skipped,
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Cut {
    pub kind: Kind,
    pub from: u8,
    pub to: u8,
    pub layout: LayoutId,
    /// Files that its batch has, as bits. Cuts of earlier builds do not say it.
    pub names: Option<u8>,
}

/// Rows, and what the footer says of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct File {
    pub to: u8,
    pub layout: LayoutId,
    pub rows: Offsets,
    /// Without rows, under the name of a file that must not come any more.
    pub stands_in: bool,
}

/// The files of the cut, and of how many rounds of salvage, with how many rows each has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Completion {
    pub rows: [[u8; FILES]; ROUNDS + 1],
    pub rounds: u8,
}

/// The rounds of salvage of one batch: where the log began, and their files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Salvage {
    pub log_from: [Option<u8>; ROUNDS],
    pub files: [[Option<File>; FILES]; ROUNDS],
}

impl Salvage {
    pub(super) fn rounds(&self) -> u8 {
        u8::try_from(self.log_from.iter().flatten().count()).unwrap()
    }

    /// Of round 1, 2, …
    pub(super) fn log_from(&self, round: u8) -> Option<u8> {
        self.log_from.get(usize::from(round).checked_sub(1)?).copied().flatten()
    }
}

/// What a worker sends. All but a commit are puts under "only if absent".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Request {
    Origin(u8),
    Cut(Cut),
    /// Round 0: under the name that the cut's owner gives it.
    File {
        from: u8,
        round: u8,
        number: u8,
        file: File,
    },
    Round {
        from: u8,
        round: u8,
        log_from: u8,
    },
    KeyRun {
        from: u8,
        keys: Offsets,
    },
    Completion {
        from: u8,
        completion: Completion,
    },
    Commit(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub origin: Option<u8>,
    pub cuts: [Option<Cut>; MAX_OFFSETS],
    pub files: [[Option<File>; FILES]; MAX_OFFSETS],
    /// Only batches that begin before where the log may begin can be salvaged.
    pub salvages: [Salvage; MAX_TRIMMED],
    /// Empty: there is none.
    pub key_runs: [Offsets; MAX_OFFSETS],
    pub completions: [Option<Completion>; MAX_OFFSETS],
    pub committed: Option<u8>,
    pub earliest: u8,
    pub latest: u8,
    /// In order, so that equal worlds are equal.
    pub under_way: [Option<Request>; 2],
    pub workers: [Worker; 2],
    /// Offsets that the operator ever set, as bits.
    pub asked: u8,
    /// The file that the operator deleted.
    pub deleted: Option<(u8, u8)>,
    /// Only with [`Mutation::RemedyIsBlind`]: the batch that was refused.
    pub refused: Option<u8>,
}

impl World {
    pub(super) fn new(scenario: &Scenario) -> Self {
        Self {
            origin: None,
            cuts: [None; MAX_OFFSETS],
            files: [[None; FILES]; MAX_OFFSETS],
            salvages: [Salvage::default(); MAX_TRIMMED],
            key_runs: [0; MAX_OFFSETS],
            completions: [None; MAX_OFFSETS],
            committed: None,
            earliest: 0,
            latest: scenario.latest,
            under_way: [None; 2],
            workers: [Worker::default(); 2],
            asked: 0,
            deleted: None,
            refused: None,
        }
    }

    pub(super) fn cut(&self, from: u8) -> Option<Cut> {
        self.cuts.get(usize::from(from)).copied().flatten()
    }

    /// The cut with the highest `from` that is below `offset`.
    pub(super) fn cut_before(&self, offset: u8) -> Option<Cut> {
        self.cuts.iter().take(usize::from(offset)).rev().copied().flatten().next()
    }

    pub(super) fn last_cut(&self) -> Option<Cut> {
        self.cuts.iter().rev().copied().flatten().next()
    }

    pub(super) fn is_complete(&self, cut: Cut) -> bool {
        cut.kind != Kind::Batch || self.completions[usize::from(cut.from)].is_some()
    }

    pub(super) fn salvage(&self, from: u8) -> Salvage {
        self.salvages.get(usize::from(from)).copied().unwrap_or_default()
    }

    /// The file of a batch, round of salvage (0: of the cut) and number.
    pub(super) fn file_of(&self, from: u8, round: u8, number: u8) -> Option<File> {
        match usize::from(round).checked_sub(1) {
            None => self.files[usize::from(from)][usize::from(number)],
            Some(round) => self.salvage(from).files[round][usize::from(number)],
        }
    }

    pub(super) fn file(&self, from: u8, number: u8) -> Option<File> {
        self.file_of(from, 0, number)
    }

    pub(super) fn all_files(&self) -> impl Iterator<Item = File> {
        let salvaged = self.salvages.iter().flat_map(|salvage| salvage.files.iter().flatten());
        self.files.iter().flatten().chain(salvaged).copied().flatten()
    }

    /// Up to where all is complete.
    pub(super) fn complete_end(&self) -> u8 {
        let mut end = self.origin.unwrap_or_default();
        while let Some(cut) = self.cut(end).filter(|cut| cut.to > end && self.is_complete(*cut)) {
            end = cut.to;
        }
        end
    }

    /// Nobody is at work, and nothing that was sent can land any more.
    pub(super) fn is_at_rest(&self) -> bool {
        self.workers.iter().all(Worker::is_stopped) && self.under_way == [None; 2]
    }

    /// The last cut, if it is open, the log has lost its head, and a worker refuses to go on with it.
    pub(super) fn stuck(&self) -> Option<Cut> {
        let is_stuck = |cut: &Cut| !self.is_complete(*cut) && self.earliest > cut.from && cut.names.is_none();
        self.last_cut().filter(is_stuck)
    }

    /// Takes effect now. Who sent it looks at the store to learn how it ended.
    pub(super) fn take_effect(&mut self, scenario: &Scenario, request: Request) -> Result<(), Violation> {
        match request {
            Request::Origin(start) => {
                self.origin.get_or_insert(start);
            }
            Request::Cut(cut) => {
                let slot = &mut self.cuts[usize::from(cut.from)];
                if scenario.is(Mutation::CutsAreOverwritten) {
                    if slot.is_some_and(|there| there != cut) {
                        return Err(Violation::new(Property::CutChanged, format!("{slot:?} by {cut:?}")));
                    }
                    *slot = None;
                }
                slot.get_or_insert(cut);
            }
            Request::Round { from, round, log_from } => {
                let salvage = &mut self.salvages[usize::from(from)];
                salvage.log_from[usize::from(round) - 1].get_or_insert(log_from);
            }
            Request::File { from, round, number, file } => {
                let slot = match usize::from(round).checked_sub(1) {
                    None => &mut self.files[usize::from(from)][usize::from(number)],
                    Some(round) => &mut self.salvages[usize::from(from)].files[round][usize::from(number)],
                };
                if scenario.is(Mutation::FilesAreOverwritten) {
                    if slot.is_some_and(|there| there != file) {
                        return Err(Violation::new(Property::FileChanged, format!("{slot:?} by {file:?}")));
                    }
                    *slot = None;
                }
                slot.get_or_insert(file);
            }
            Request::KeyRun { from, keys } => {
                let slot = &mut self.key_runs[usize::from(from)];
                if *slot == 0 {
                    *slot = keys;
                }
            }
            Request::Completion { from, completion } => {
                self.completions[usize::from(from)].get_or_insert(completion);
            }
            Request::Commit(offset) => {
                let end = self.complete_end();
                if offset > end {
                    let what = format!("{offset} is committed, and all is complete up to {end} only");
                    return Err(Violation::new(Property::CommittedAhead, what));
                }
                self.committed = Some(offset);
            }
        }
        Ok(())
    }

    /// What the refusal of a batch whose head the log lost tells an operator to do.
    pub(super) fn remove_batch(&mut self, from: u8) {
        self.files[usize::from(from)] = [None; FILES];
        self.cuts[usize::from(from)] = None;
        self.refused = None;
    }

    pub(super) fn stop(&mut self, worker: usize) {
        self.workers[worker].phase = Phase::Stopped;
        self.workers[worker].commit = None;
    }

    pub(super) fn set_offset(&mut self, offset: Option<u8>) {
        self.committed = offset;
        self.asked |= offset.map_or(0, bit);
    }

    /// False when as many requests are under way as may be, or just this one is.
    pub(super) fn can_send(&self, scenario: &Scenario, request: Request) -> bool {
        let count = self.under_way.iter().flatten().count();
        count < scenario.under_way && !self.under_way.contains(&Some(request))
    }

    pub(super) fn send(&mut self, request: Request) {
        if let Some(free) = self.under_way.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(request);
        }
        self.under_way.sort_unstable();
    }

    pub(super) fn arrive(&mut self, index: usize) -> Option<Request> {
        let request = self.under_way[index].take();
        self.under_way.sort_unstable();
        request
    }
}
