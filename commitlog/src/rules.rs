//! The rules of the protocol by name, so that tests can drop one at a time and show that it is needed.
//!
//! In a build without tests every rule holds, and asking costs nothing.

/// One rule of the protocol. The comment says what goes wrong without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Otherwise a rival's batch may have made the same rows visible under other names.
    IntentBeforeFiles,
    /// An adopted batch is made as its intent says. Otherwise two owners put different files of one batch.
    RecipeOfIntent,
    /// Otherwise the commit log lists files that nobody will put any more.
    FilesBeforeCommit,
    /// Otherwise the keys of a committed batch are lost, and its duplicates come through.
    KeysBeforeCommit,
    /// Otherwise a batch begins before the end of the one before it.
    IntentFromEnd,
    /// Otherwise two batches of the same offsets are under way.
    OneIntent,
    /// Otherwise a batch is committed that its closing without a head has counted as lost.
    NoCommitWhileAbandoning,
    /// Otherwise an entry that filled a hole left by collection is taken for a won one: of an intent the files follow, of an
    /// abort the end of what is staged, though another may have decided.
    FloorAfterAppend,
    /// As [`Rule::FloorAfterAppend`], after a commit. Otherwise a batch ends for its owner alone, and waits for ever.
    FloorAfterCommit,
    /// Otherwise entries that others who slept put into holes are adopted.
    FloorAfterLoss,
    /// Otherwise a hole is taken for the tail.
    FloorAfterProof,
    /// Otherwise holes exist that no floor warns of.
    FloorBeforeCollection,
    /// Otherwise the state below the floor is nowhere.
    CheckpointBeforeFloor,
    /// Puts that make rows visible carry the proof of the tail that they rest on. Otherwise the fence stops nothing.
    PutsAreAnchored,
    /// As [`Rule::PutsAreAnchored`], for files that are restored.
    RestoresAreAnchored,
    /// Otherwise a file is restored that a replace has removed, or is about to.
    RestoreOnlyLive,
    /// Otherwise nobody knows of a missing file that no owner makes again.
    ReportUnrestored,
    /// Otherwise late puts of inputs come after their deletion.
    WaitForFence,
    /// Otherwise the rows of inputs and outputs are visible together.
    DeleteBeforePublish,
    /// Otherwise inputs are deleted for outputs that may never be.
    ReadyBeforeDelete,
    /// Otherwise a replace is decided whose outputs are nowhere.
    StagedBeforeReady,
    /// Otherwise inputs are deleted for outputs that were lost or altered since they were staged.
    ExaminedBeforeDelete,
    /// Otherwise inputs that are deleted count again.
    NoAbortAfterReady,
    /// Otherwise a batch that is under way puts files again that were replaced.
    OnlyCompleteInputs,
    /// Otherwise an output is replaced, and its replacement published, while its own inputs are still visible.
    OnlyPublishedInputs,
    /// Otherwise two replaces write the rows of one input.
    DisjointReplaces,
    /// Otherwise what a dead replace staged is published by a new one of its number.
    NumbersAreSpent,
    /// Otherwise a replace ends whose outputs are not all visible.
    PublishedBeforeDone,
    /// Otherwise staged outputs are gone before they are published.
    DoneBeforeDrop,
    /// Otherwise a late put of an abandoned batch makes rows visible that come again.
    BlankBeforeAbandoned,
    /// Otherwise the blank of a file stands where a rival's commit lists rows.
    AbandonBeforeBlank,
    /// Otherwise an operation that a rival's entry made wrong is appended after it.
    CheckAfterLoss,
}

impl Rule {
    pub const ALL: [Self; 32] = [
        Self::IntentBeforeFiles,
        Self::RecipeOfIntent,
        Self::FilesBeforeCommit,
        Self::KeysBeforeCommit,
        Self::IntentFromEnd,
        Self::OneIntent,
        Self::NoCommitWhileAbandoning,
        Self::FloorAfterAppend,
        Self::FloorAfterCommit,
        Self::FloorAfterLoss,
        Self::FloorAfterProof,
        Self::FloorBeforeCollection,
        Self::CheckpointBeforeFloor,
        Self::PutsAreAnchored,
        Self::RestoresAreAnchored,
        Self::RestoreOnlyLive,
        Self::ReportUnrestored,
        Self::WaitForFence,
        Self::DeleteBeforePublish,
        Self::ReadyBeforeDelete,
        Self::StagedBeforeReady,
        Self::ExaminedBeforeDelete,
        Self::NoAbortAfterReady,
        Self::OnlyCompleteInputs,
        Self::OnlyPublishedInputs,
        Self::DisjointReplaces,
        Self::NumbersAreSpent,
        Self::PublishedBeforeDone,
        Self::DoneBeforeDrop,
        Self::BlankBeforeAbandoned,
        Self::AbandonBeforeBlank,
        Self::CheckAfterLoss,
    ];
}

#[cfg(any(test, feature = "testing"))]
mod dropped {
    use std::cell::Cell;

    use super::Rule;

    thread_local! {
        static DROPPED: Cell<Option<Rule>> = const { Cell::new(None) };
    }

    /// Runs `work` on this thread without one rule.
    pub fn without<T>(rule: Option<Rule>, work: impl FnOnce() -> T) -> T {
        struct Restore(Option<Rule>);
        impl Drop for Restore {
            fn drop(&mut self) {
                DROPPED.set(self.0);
            }
        }
        let _restore = Restore(DROPPED.replace(rule));
        work()
    }

    pub(crate) fn is_dropped(rule: Rule) -> bool {
        DROPPED.get() == Some(rule)
    }
}

#[cfg(any(test, feature = "testing"))]
pub use dropped::without;

/// Whether a rule is kept: always, but in tests that drop it.
#[inline]
pub fn holds(rule: Rule) -> bool {
    #[cfg(any(test, feature = "testing"))]
    let holds = !dropped::is_dropped(rule);
    #[cfg(not(any(test, feature = "testing")))]
    let holds = {
        let _ = rule;
        true
    };
    holds
}
