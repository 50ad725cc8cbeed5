//! Decides what to do with a listed file version: a pure function of its ledger entry.

use crate::ledger::{ArchiveMode, Entry, FileState, Standing};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Read it, from the position of the entry if there is one.
    Read(Option<Entry>),
    /// All of it is committed; the recorded archive step is still to be performed.
    Archive(Entry),
    /// All of it is committed; the recorded step has not been performed, and another mode is configured now.
    ArchiveOtherwise(Entry, ArchiveMode),
    /// It was archived and has appeared again: archive it by the current mode.
    ArchiveAgain,
    /// Nothing, until something changes.
    Pass,
}

/// The permitted archive mode of a file. A file that is the only copy of some content stays: `delete` would lose it,
/// and so would a lifecycle rule on the tag.
pub(crate) fn allowed(mode: ArchiveMode, only_copy: bool) -> ArchiveMode {
    match mode {
        ArchiveMode::Delete | ArchiveMode::Tag if only_copy => ArchiveMode::Leave,
        mode => mode,
    }
}

/// `retry_until_ms`: files quarantined up to then are retried. One quarantined in that same millisecond is retried once
/// too often rather than never.
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

/// The archive step of a finished file. It does not affect published events, so an operator may change it until it is
/// performed: a step that can never succeed must not stay for ever.
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
    fn only_uncommitted_content_is_read() {
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
    fn a_pending_step_follows_the_current_mode() {
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
    fn a_file_that_is_the_only_copy_is_never_deleted_nor_tagged() {
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
    fn quarantined_files_wait_for_a_request_and_are_retried_once() {
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
