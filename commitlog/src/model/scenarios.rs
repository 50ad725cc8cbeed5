//! What is explored, and what shows that each rule is needed.

use super::actors::Kind;
use super::world::Budget;
use crate::head::ReplaceSlot;
use crate::rules::Rule;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choosing {
    /// A scope for each file.
    ByFile,
    /// One scope, and an output for each folder.
    Together,
}

#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub name: String,
    /// End of the log.
    pub offsets: i64,
    /// Most offsets in a batch.
    pub batch: i64,
    pub actors: Vec<Kind>,
    pub budget: Budget,
    /// To which offsets an operator may reset the group.
    pub resets: Vec<i64>,
    /// Replaces that may be begun.
    pub replaces: u64,
    pub choosing: Choosing,
    /// A compaction takes at least so many files.
    pub least_inputs: usize,
    /// The remaking replacer takes live files that are there, too.
    pub remakes: bool,
    /// The store has no put-if-absent for entries.
    pub overwrites: bool,
    /// The store accepts puts whatever they rest on.
    pub ignores_fence: bool,
}

const ONE: Kind = Kind::Owner { layout: 1 };
const OTHER: Kind = Kind::Owner { layout: 2 };
const COMPACTOR: Kind = Kind::Replacer(ReplaceSlot::Merging);
const REMAKER: Kind = Kind::Replacer(ReplaceSlot::Remaking);

fn of(name: &str, offsets: i64, actors: &[Kind]) -> Scenario {
    let replaces = u64::from(actors.iter().any(|kind| matches!(kind, Kind::Replacer(_))));
    Scenario {
        name: name.to_owned(),
        offsets,
        batch: 2,
        actors: actors.to_vec(),
        budget: Budget { crashes: 0, resets: 0, deletions: 0, moves: 0, losses: 0 },
        resets: Vec::new(),
        replaces,
        choosing: Choosing::Together,
        least_inputs: 2,
        remakes: false,
        overwrites: false,
        ignores_fence: false,
    }
}

impl Scenario {
    fn crashes(mut self, crashes: u8) -> Self {
        self.budget.crashes = crashes;
        self
    }

    fn resets(mut self, to: &[i64]) -> Self {
        self.budget.resets = 1;
        self.resets = to.to_vec();
        self
    }

    fn deletions(mut self, deletions: u8) -> Self {
        self.budget.deletions = deletions;
        self
    }

    fn moves(mut self, moves: u8) -> Self {
        self.budget.moves = moves;
        self
    }

    fn losses(mut self, losses: u8) -> Self {
        self.budget.losses = losses;
        self
    }

    fn replaces(mut self, replaces: u64) -> Self {
        self.replaces = replaces;
        self
    }

    fn by_file(mut self) -> Self {
        self.choosing = Choosing::ByFile;
        self
    }

    fn of_one(mut self) -> Self {
        self.least_inputs = 1;
        self
    }

    fn in_batches_of(mut self, batch: i64) -> Self {
        self.batch = batch;
        self
    }

    fn remakes(mut self) -> Self {
        self.remakes = true;
        self
    }
}

const COLLECTOR: Kind = Kind::Collector { keep: 0 };

/// None of them shows a fault.
pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        of("3 offsets: two owners of different layouts, 2 crashes", 3, &[ONE, OTHER]).crashes(2),
        of("3 offsets: two owners, a collector, 1 crash", 3, &[ONE, OTHER, COLLECTOR]).crashes(1),
        of(
            "3 offsets: two owners, the log lets go of 2, an operator abandons, 1 crash",
            3,
            &[ONE, OTHER, Kind::Abandoner],
        )
        .crashes(1)
        .moves(2),
        of(
            "2 offsets: two owners, two abandoners, the log lets go of 1, 1 crash",
            2,
            &[ONE, OTHER, Kind::Abandoner, Kind::Abandoner],
        )
        .crashes(1)
        .moves(1),
        of("2 offsets: two owners, a compactor, 1 crash", 2, &[ONE, OTHER, COMPACTOR]).crashes(1),
        of("2 offsets: an owner, a compactor of two scopes, 2 crashes", 2, &[ONE, COMPACTOR])
            .by_file()
            .of_one()
            .crashes(2),
        of("2 offsets: an owner, a compactor, 3 crashes", 2, &[ONE, COMPACTOR]).crashes(3),
        of("3 offsets: an owner, a compactor, 2 replaces, 1 crash", 3, &[ONE, COMPACTOR]).crashes(1).replaces(2),
        of("2 offsets: an owner, two compactors, 1 crash", 2, &[ONE, COMPACTOR, COMPACTOR]).crashes(1),
        of("2 offsets: an owner, a compactor and a rewrite, 1 crash", 2, &[ONE, COMPACTOR, REMAKER])
            .crashes(1)
            .replaces(2)
            .of_one()
            .remakes(),
        of("2 offsets: two owners, a compactor, reset to 0 or 2", 2, &[ONE, OTHER, COMPACTOR]).resets(&[0, 2]),
        of("3 offsets: two owners, reset to 0, 1 or 3, 1 crash", 3, &[ONE, OTHER]).resets(&[0, 1, 3]).crashes(1),
        of("2 offsets: an owner, a compactor, a file deleted, 2 crashes", 2, &[ONE, COMPACTOR]).deletions(1).crashes(2),
        of("2 offsets: two owners, a compactor, a file deleted", 2, &[ONE, OTHER, COMPACTOR]).deletions(1),
        of("2 offsets: an owner, a compactor, a remaker, a file deleted, 1 crash", 2, &[ONE, COMPACTOR, REMAKER])
            .deletions(1)
            .replaces(2)
            .crashes(1),
        of("2 offsets: an owner, a compactor, a collector, 1 crash", 2, &[ONE, COMPACTOR, COLLECTOR]).crashes(1),
        of("2 offsets in 2 batches: an owner, two compactors, a collector", 2, &[ONE, COMPACTOR, COMPACTOR, COLLECTOR])
            .of_one()
            .in_batches_of(1),
        of("2 offsets: two owners, a collector, 1 crash", 2, &[ONE, OTHER, COLLECTOR]).crashes(1),
        of("2 offsets in 2 batches: two owners, a file deleted, the log lets go of 1", 2, &[ONE, OTHER])
            .in_batches_of(1)
            .deletions(1)
            .moves(1),
        of("2 offsets: an owner, a compactor, a file deleted", 2, &[ONE, COMPACTOR]).deletions(1),
        of("2 offsets: an owner, two compactors, a staged file lost, 1 crash", 2, &[ONE, COMPACTOR, COMPACTOR])
            .losses(1)
            .crashes(1),
        of("2 offsets: an owner, a rewrite, a staged file lost, 1 crash", 2, &[ONE, REMAKER])
            .remakes()
            .losses(1)
            .crashes(1),
        of("1 offset: two owners, a compactor, a collector", 1, &[ONE, ONE, COMPACTOR, COLLECTOR]).of_one(),
    ]
}

/// Each shows a fault without the rule.
pub(super) fn mutants(rule: Rule) -> Vec<Scenario> {
    let owners = || of("two owners", 3, &[ONE, OTHER]);
    let compacted = || of("an owner, a compactor", 2, &[ONE, COMPACTOR]);
    let rivals = || of("two owners, a compactor", 2, &[ONE, ONE, COMPACTOR]);
    let abandoned = || of("an owner, an abandoner", 2, &[ONE, Kind::Abandoner]).moves(1).crashes(1);
    let collected = || of("two owners, a collector", 3, &[ONE, OTHER, COLLECTOR]).crashes(1);
    match rule {
        Rule::IntentBeforeFiles | Rule::OneIntent | Rule::IntentFromEnd | Rule::CheckAfterLoss => vec![owners()],
        Rule::RecipeOfIntent | Rule::FilesBeforeCommit | Rule::KeysBeforeCommit => vec![owners().crashes(1)],
        Rule::NoCommitWhileAbandoning | Rule::BlankBeforeAbandoned | Rule::AbandonBeforeBlank => vec![abandoned()],
        Rule::FloorAfterAppend | Rule::FloorBeforeCollection | Rule::CheckpointBeforeFloor => vec![collected()],
        Rule::FloorAfterCommit => {
            vec![of("an owner, a compactor, a collector", 2, &[ONE, COMPACTOR, COLLECTOR]).of_one().in_batches_of(1)]
        }
        Rule::FloorAfterLoss => vec![of("two owners, a collector", 2, &[ONE, OTHER, COLLECTOR]).crashes(1)],
        Rule::FloorAfterProof => {
            vec![of("two owners, a compactor, a collector", 1, &[ONE, ONE, COMPACTOR, COLLECTOR]).of_one()]
        }
        Rule::PutsAreAnchored | Rule::WaitForFence => vec![rivals()],
        Rule::RestoresAreAnchored => {
            vec![rivals().deletions(1).crashes(1).replaces(2).of_one(), rivals().deletions(1).of_one()]
        }
        Rule::ReportUnrestored => {
            vec![of("an owner, a file deleted, the log lets go", 2, &[ONE]).deletions(1).moves(1)]
        }
        Rule::RestoreOnlyLive => vec![compacted().deletions(1).crashes(1), rivals().deletions(1)],
        Rule::DeleteBeforePublish | Rule::StagedBeforeReady | Rule::PublishedBeforeDone | Rule::DoneBeforeDrop => {
            vec![compacted()]
        }
        Rule::ExaminedBeforeDelete => vec![compacted().losses(1)],
        Rule::ReadyBeforeDelete | Rule::NoAbortAfterReady => vec![compacted().crashes(1)],
        Rule::OnlyCompleteInputs => vec![compacted().in_batches_of(1).of_one(), rivals().of_one()],
        Rule::DisjointReplaces => {
            vec![of("a compactor and a rewrite", 2, &[ONE, COMPACTOR, REMAKER]).replaces(2).of_one().remakes()]
        }
        Rule::OnlyPublishedInputs => {
            vec![of("a compactor and a rewrite", 2, &[ONE, COMPACTOR, REMAKER]).replaces(2).of_one().remakes()]
        }
        Rule::NumbersAreSpent => {
            vec![compacted().replaces(2).of_one(), compacted().replaces(2).deletions(1).crashes(1)]
        }
    }
}

/// Each shows a fault of a store that does not give what is asked of it.
pub(super) fn weak_stores() -> Vec<(&'static str, Scenario)> {
    let owners = of("two owners", 3, &[ONE, OTHER]);
    let rivals = of("two owners, a compactor", 2, &[ONE, ONE, COMPACTOR]);
    vec![
        ("without put-if-absent", Scenario { overwrites: true, ..owners }),
        ("that accepts puts of any age", Scenario { ignores_fence: true, ..rivals }),
    ]
}
