//! What to do with a file version that a listing shows, as a pure decision over what the ledger has of it.

use crate::ledger::{ArchiveMode, Entry, FileState, Standing};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Read it, from where the entry says if there is one.
    Read(Option<Entry>),
    /// All of it is committed; the step that was recorded then is still to be done.
    Archive(Entry),
    /// All of it is committed; the step is not done, and another one is asked for today.
    ArchiveOtherwise(Entry, ArchiveMode),
    /// It was archived and is here again: archive it by today's mode.
    ArchiveAgain,
    /// Nothing, until something changes.
    Pass,
}

/// What may become of a file under this mode. A file that alone holds part of what was in it stays: `delete` would lose
/// it, and so would the lifecycle rule that `tag` is for.
pub(crate) fn allowed(mode: ArchiveMode, only_copy: bool) -> ArchiveMode {
    match mode {
        ArchiveMode::Delete | ArchiveMode::Tag if only_copy => ArchiveMode::Leave,
        mode => mode,
    }
}

/// `retry_until_ms`: files that were quarantined up to then are tried again. One that is quarantined in that very
/// millisecond is tried once too often, rather than once too little.
pub(crate) fn decide(standing: Standing, mode: ArchiveMode, retry_until_ms: Option<i64>) -> Decision {
    match standing {
        Standing::Unknown => Decision::Read(None),
        Standing::Whole(entry) => match entry.state {
            FileState::Reading => Decision::Read(Some(*entry)),
            FileState::Done => decide_step(*entry, mode),
            FileState::Quarantined | FileState::Partial => match retry_until_ms {
                Some(until_ms) if entry.at_ms <= until_ms => Decision::Read(Some(*entry)),
                _ => Decision::Pass,
            },
        },
        Standing::Settled { mode: then, only_copy } => match allowed(mode, only_copy) {
            ArchiveMode::Leave => Decision::Pass,
            ArchiveMode::Tag if then == ArchiveMode::Tag => Decision::Pass,
            ArchiveMode::Tag | ArchiveMode::Move | ArchiveMode::Delete => Decision::ArchiveAgain,
        },
    }
}

/// The step of a finished file. Which one it is has no part in what is published, so an operator may change it as long as
/// it is not done: a step that can never be done must not stay for ever.
fn decide_step(entry: Entry, mode: ArchiveMode) -> Decision {
    let today = allowed(mode, entry.only_copy);
    if today == entry.mode() { Decision::Archive(entry) } else { Decision::ArchiveOtherwise(entry, today) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODES: [ArchiveMode; 4] = [ArchiveMode::Move, ArchiveMode::Tag, ArchiveMode::Leave, ArchiveMode::Delete];

    fn whole(state: FileState) -> Standing {
        Standing::Whole(Box::new(Entry { state, mode: Some(ArchiveMode::Move), ..Entry::new("a", 1, 100) }))
    }

    fn settled(then: ArchiveMode, only_copy: bool) -> Standing {
        Standing::Settled { mode: then, only_copy }
    }

    #[test]
    fn what_is_not_committed_is_read_and_what_is_committed_never_again() {
        for mode in MODES {
            for retry in [None, Some(i64::MAX)] {
                let decide = |standing| decide(standing, mode, retry);
                assert_eq!(decide(Standing::Unknown), Decision::Read(None));
                assert!(matches!(decide(whole(FileState::Reading)), Decision::Read(Some(_))));
                assert!(!matches!(decide(whole(FileState::Done)), Decision::Read(_)));
                for then in MODES {
                    assert!(!matches!(decide(settled(then, false)), Decision::Read(_)));
                }
            }
        }
    }

    #[test]
    fn a_step_that_is_not_done_follows_the_mode_of_today() {
        for then in MODES {
            for today in MODES {
                let entry = Entry { state: FileState::Done, mode: Some(then), ..Entry::new("a", 1, 100) };
                let decided = decide(Standing::Whole(Box::new(entry.clone())), today, None);
                let expected =
                    if then == today { Decision::Archive(entry) } else { Decision::ArchiveOtherwise(entry, today) };
                assert_eq!(decided, expected);
            }
        }
    }

    #[test]
    fn a_file_that_is_the_only_copy_is_neither_deleted_nor_tagged_by_any_way() {
        for today in [ArchiveMode::Delete, ArchiveMode::Tag] {
            for then in MODES {
                assert_eq!(decide(settled(then, true), today, None), Decision::Pass);
                let done =
                    Entry { state: FileState::Done, mode: Some(then), only_copy: true, ..Entry::new("a", 1, 100) };
                match decide(Standing::Whole(Box::new(done)), today, None) {
                    Decision::Archive(entry) => assert_eq!(entry.mode(), ArchiveMode::Leave),
                    decided => {
                        assert!(matches!(decided, Decision::ArchiveOtherwise(_, ArchiveMode::Leave)), "{decided:?}");
                    }
                }
            }
        }
        assert_eq!(decide(settled(ArchiveMode::Leave, true), ArchiveMode::Move, None), Decision::ArchiveAgain);
    }

    #[test]
    fn quarantined_files_wait_until_somebody_asks_and_are_tried_once_then() {
        for state in [FileState::Quarantined, FileState::Partial] {
            assert_eq!(decide(whole(state), ArchiveMode::Move, None), Decision::Pass);
            assert!(matches!(decide(whole(state), ArchiveMode::Move, Some(100)), Decision::Read(Some(_))));
            assert_eq!(decide(whole(state), ArchiveMode::Move, Some(99)), Decision::Pass, "quarantined since");
        }
    }

    #[test]
    fn files_that_were_left_follow_a_changed_mode() {
        let settled = |then, mode| decide(settled(then, false), mode, None);
        assert_eq!(settled(ArchiveMode::Leave, ArchiveMode::Leave), Decision::Pass);
        assert_eq!(settled(ArchiveMode::Leave, ArchiveMode::Move), Decision::ArchiveAgain);
        assert_eq!(settled(ArchiveMode::Leave, ArchiveMode::Tag), Decision::ArchiveAgain);
        assert_eq!(settled(ArchiveMode::Tag, ArchiveMode::Tag), Decision::Pass);
        assert_eq!(settled(ArchiveMode::Move, ArchiveMode::Move), Decision::ArchiveAgain, "it was put back");
    }
}
