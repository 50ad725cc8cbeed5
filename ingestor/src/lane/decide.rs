//! What to do with a file version that a listing shows, as a pure decision over what the ledger has of it.

use crate::ledger::{ArchiveMode, Entry, FileState, Standing};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Read it, from where the entry says if there is one.
    Read(Option<Entry>),
    /// All of it is committed; the step fixed then is still to be done.
    Archive(Entry),
    /// It was archived and is here again: archive it by today's mode.
    ArchiveAgain,
    /// Nothing, until something changes.
    Pass,
}

/// `retry_until_ms`: files that were quarantined up to then are tried again. One that is quarantined in that very
/// millisecond is tried once too often, rather than once too little.
pub(crate) fn decide(standing: Standing, mode: ArchiveMode, retry_until_ms: Option<i64>) -> Decision {
    match standing {
        Standing::Unknown => Decision::Read(None),
        Standing::Whole(entry) => match entry.state {
            FileState::Reading => Decision::Read(Some(*entry)),
            FileState::Done => Decision::Archive(*entry),
            FileState::Quarantined | FileState::Partial => match retry_until_ms {
                Some(until_ms) if entry.at_ms <= until_ms => Decision::Read(Some(*entry)),
                _ => Decision::Pass,
            },
        },
        Standing::Settled(then) => match mode {
            ArchiveMode::Leave => Decision::Pass,
            ArchiveMode::Tag if then == ArchiveMode::Tag => Decision::Pass,
            ArchiveMode::Tag | ArchiveMode::Move | ArchiveMode::Delete => Decision::ArchiveAgain,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(state: FileState) -> Standing {
        Standing::Whole(Box::new(Entry { state, ..Entry::new("a", 1, 100) }))
    }

    #[test]
    fn what_is_not_committed_is_read_and_what_is_committed_never_again() {
        for mode in [ArchiveMode::Move, ArchiveMode::Tag, ArchiveMode::Leave, ArchiveMode::Delete] {
            for retry in [None, Some(i64::MAX)] {
                let decide = |standing| decide(standing, mode, retry);
                assert_eq!(decide(Standing::Unknown), Decision::Read(None));
                assert!(matches!(decide(whole(FileState::Reading)), Decision::Read(Some(_))));
                assert!(matches!(decide(whole(FileState::Done)), Decision::Archive(_)));
                for then in [ArchiveMode::Move, ArchiveMode::Tag, ArchiveMode::Leave, ArchiveMode::Delete] {
                    assert!(!matches!(decide(Standing::Settled(then)), Decision::Read(_)));
                }
            }
        }
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
        let settled = |then, mode| decide(Standing::Settled(then), mode, None);
        assert_eq!(settled(ArchiveMode::Leave, ArchiveMode::Leave), Decision::Pass);
        assert_eq!(settled(ArchiveMode::Leave, ArchiveMode::Move), Decision::ArchiveAgain);
        assert_eq!(settled(ArchiveMode::Leave, ArchiveMode::Tag), Decision::ArchiveAgain);
        assert_eq!(settled(ArchiveMode::Tag, ArchiveMode::Tag), Decision::Pass);
        assert_eq!(settled(ArchiveMode::Move, ArchiveMode::Move), Decision::ArchiveAgain, "it was put back");
    }
}
