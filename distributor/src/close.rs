//! When a batch is closed, and why: for owners, and for the forecast of `check`.

use std::fmt;

use serde::Serialize;

/// The limits of an open batch but its age and memory, which the facts speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseLimits {
    pub rows: u64,
    /// Of its files together, as estimated.
    pub bytes: u64,
}

/// What is known of an open batch. The default says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact that closes a batch by itself")]
pub struct CloseFacts {
    pub rows: u64,
    pub bytes: u64,
    /// The next record would begin a file too many.
    pub is_file_too_many: bool,
    /// It, or its first row of an urgent type, is as old as may be.
    pub is_old: bool,
    /// Its memory is needed, and giving its rows to the disk freed too little.
    pub is_short_of_memory: bool,
    /// The next record cannot be read.
    pub is_before_unreadable: bool,
    /// Everything up to the end of input is in it.
    pub is_last: bool,
}

/// Why a batch is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseReason {
    Rows,
    Bytes,
    Files,
    Age,
    Memory,
    Unreadable,
    End,
}

impl CloseReason {
    /// The label of metrics and log lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Bytes => "bytes",
            Self::Files => "files",
            Self::Age => "age",
            Self::Memory => "memory",
            Self::Unreadable => "unreadable",
            Self::End => "end",
        }
    }

    /// The setting of the limit, if it is one.
    pub fn setting(self) -> Option<&'static str> {
        match self {
            Self::Rows => Some("flush.max_rows"),
            Self::Bytes => Some("flush.max_bytes"),
            Self::Files => Some("flush.max_files"),
            Self::Age => Some("flush.max_age"),
            Self::Memory => Some("flush.max_memory"),
            Self::Unreadable | Self::End => None,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Why a batch has to be closed now, if it has to be. A batch without records never has.
pub fn close_reason(limits: &CloseLimits, facts: &CloseFacts) -> Option<CloseReason> {
    let reasons = [
        (facts.rows >= limits.rows, CloseReason::Rows),
        (facts.bytes >= limits.bytes, CloseReason::Bytes),
        (facts.is_file_too_many, CloseReason::Files),
        (facts.is_old, CloseReason::Age),
        (facts.is_short_of_memory, CloseReason::Memory),
        (facts.is_before_unreadable, CloseReason::Unreadable),
        (facts.is_last, CloseReason::End),
    ];
    let first = reasons.into_iter().find_map(|(holds, reason)| holds.then_some(reason));
    first.filter(|_| facts.rows > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: CloseLimits = CloseLimits { rows: 10, bytes: 100 };

    #[test]
    fn each_fact_closes_a_batch_by_itself_and_none_an_empty_one() {
        let one = CloseFacts { rows: 1, ..CloseFacts::default() };
        assert_eq!(close_reason(&LIMITS, &one), None);
        for (facts, reason) in [
            (CloseFacts { rows: 10, ..one }, CloseReason::Rows),
            (CloseFacts { bytes: 100, ..one }, CloseReason::Bytes),
            (CloseFacts { is_file_too_many: true, ..one }, CloseReason::Files),
            (CloseFacts { is_old: true, ..one }, CloseReason::Age),
            (CloseFacts { is_short_of_memory: true, ..one }, CloseReason::Memory),
            (CloseFacts { is_before_unreadable: true, ..one }, CloseReason::Unreadable),
            (CloseFacts { is_last: true, ..one }, CloseReason::End),
        ] {
            assert_eq!(close_reason(&LIMITS, &facts), Some(reason));
            let empty = CloseFacts { rows: 0, ..facts };
            assert_eq!(close_reason(&CloseLimits { rows: 10, ..LIMITS }, &empty), None, "{reason}");
        }
    }

    proptest! {
        /// What has to be closed is closed with more of everything, too.
        #[test]
        fn a_batch_that_has_to_be_closed_stays_so(rows in 0_u64..20, bytes in 0_u64..200, more in 0_u64..20, is_old: bool) {
            let facts = CloseFacts { rows, bytes, is_old, ..CloseFacts::default() };
            let later = CloseFacts { rows: rows + more, bytes: bytes + more, ..facts };
            prop_assert!(close_reason(&LIMITS, &facts).is_none() || close_reason(&LIMITS, &later).is_some());
        }
    }
}
