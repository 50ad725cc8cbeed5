//! Where an owner goes on: a pure function of what commit log, group and log say. Every refusal, with its facts.

use crate::head::{BatchSlot, Head, Invalid};
use crate::op::{Intent, Op, Pass, PassReason, Witness};

/// What was read of log and group: the committed offset first, then where the log begins and ends. In another order a rival's
/// commit in between lies beyond the end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Facts {
    pub log_id: String,
    /// First offset that the log holds.
    pub earliest: i64,
    /// End of the log.
    pub latest: i64,
    /// Committed offset of the group.
    pub committed: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Plan {
    /// Nothing was ever written: the first record makes the header.
    Begin { at: i64 },
    /// Make the batch that is under way.
    Adopt(Intent),
    /// Offsets were set back: look for missing files from there on, then read on.
    Restore { from: i64 },
    /// Pass over what the log lost, or what an operator set the offset beyond.
    Pass(Op),
    /// Read on, after this record.
    ReadOn { at: i64, last: Option<Witness> },
}

/// Why a partition cannot be worked on. The texts, with what to do, are the program's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    #[error("offset {committed} is committed, and there is no commit log")]
    CommittedWithoutCommitLog { committed: i64 },
    #[error("the commit log is of log {expected}, this is {found}")]
    OtherLog { expected: String, found: String },
    #[error("the log ends at {latest}, before {end}, where the commit log ends")]
    Truncated { latest: i64, end: i64 },
    #[error("the committed offset {committed} is beyond {latest}, where the log ends; the commit log ends at {end}")]
    CommittedBeyondLog { committed: i64, latest: i64, end: i64 },
    #[error("the log begins at {earliest} and has lost the head of the batch {from}..{to}, which is under way")]
    HeadLost { from: i64, to: i64, earliest: i64 },
    #[error("the batch {from}..{to} is being abandoned")]
    Abandoning { from: i64, to: i64 },
    #[error("the records of the batch {from}..{to} are not those it was made from")]
    OtherRecords { from: i64, to: i64 },
    #[error("the record before offset {at} is not the one that was there")]
    OtherRecord { at: i64 },
    #[error("nothing is to be abandoned: no batch under way has lost its head")]
    NothingToAbandon,
    #[error(
        "replace {replace} is decided, output {k} stands neither staged nor published as it was decided, and cannot be made again"
    )]
    OutputGone { replace: u64, k: u32 },
    #[error("entry {entry} is not valid after those before it: {invalid}")]
    Damaged { entry: u64, invalid: Invalid },
}

/// # Errors
/// Every state in which going on could lose or repeat events.
pub fn decide(head: &Head, facts: &Facts) -> Result<Plan, Refusal> {
    let Facts { ref log_id, earliest, latest, committed } = *facts;
    let Some(header) = &head.header else {
        return committed.map_or(Ok(Plan::Begin { at: earliest }), |committed| {
            Err(Refusal::CommittedWithoutCommitLog { committed })
        });
    };
    if header.log_id != *log_id {
        return Err(Refusal::OtherLog { expected: header.log_id.clone(), found: log_id.clone() });
    }
    let end = head.intent().map_or(head.end, |intent| intent.to);
    if latest < end {
        return Err(Refusal::Truncated { latest, end });
    }
    if let Some(committed) = committed.filter(|committed| *committed > latest) {
        return Err(Refusal::CommittedBeyondLog { committed, latest, end });
    }
    match &head.batch {
        BatchSlot::Abandoning { intent, .. } => {
            return Err(Refusal::Abandoning { from: intent.from, to: intent.to });
        }
        BatchSlot::Open(intent) if earliest > intent.from => {
            return Err(Refusal::HeadLost { from: intent.from, to: intent.to, earliest });
        }
        BatchSlot::Open(intent) => return Ok(Plan::Adopt(intent.clone())),
        BatchSlot::Free => {}
    }
    if let Some(from) = committed.filter(|committed| *committed < end) {
        return Ok(Plan::Restore { from });
    }
    Ok(onwards(head, facts))
}

/// As [`decide`], when nothing is open and nothing to be restored.
pub fn onwards(head: &Head, facts: &Facts) -> Plan {
    let Facts { earliest, committed, .. } = *facts;
    // What the log lost comes first: it may be less than what an operator skips.
    let pass = |reason, to| Plan::Pass(Op::Pass(Pass { reason, to }));
    if earliest > head.end {
        return pass(PassReason::Lost, earliest);
    }
    if let Some(to) = committed.filter(|committed| *committed > head.end) {
        return pass(PassReason::Skipped, to);
    }
    // The record before `end` can be compared only while the log has it.
    Plan::ReadOn { at: head.end, last: head.last.filter(|_| earliest < head.end) }
}
