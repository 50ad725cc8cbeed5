//! Where a new owner of a partition goes on: a pure function of what the chain, the group and the log say.

use std::fmt;

use common::log::Bounds;

use super::{Cut, CutKind, Origin};

/// What was read before deciding.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub topic: String,
    pub partition: i32,
    pub group: String,
    pub log_id: String,
    pub origin: Option<Origin>,
    /// Where the newest batch begins that has a completion. Looked for before the cuts, so that its cut has to be there.
    pub newest_done: Option<i64>,
    /// The last cut and whether its completion exists.
    pub tail: Option<(Cut, bool)>,
    /// A round of salvage was begun for the last cut, which is open.
    pub salvaged: bool,
    /// Committed offset of the group.
    pub committed: Option<i64>,
    pub log: Bounds,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plan {
    /// No cut yet: the first batch begins at the origin, or at the log's beginning, which then becomes the origin.
    Begin { at: i64 },
    /// The last cut is open: make its batch, then read on.
    Redo,
    /// The last cut is open, and the log has let go of records of it: close the batch with what is left, then look again.
    Salvage,
    /// All is complete: check the record before `at` and read on.
    ReadOn { at: i64 },
    /// Offsets were set back: look at every batch from the one that holds `at`, make again what is missing.
    Walk { at: i64 },
}

/// Why a partition cannot be worked on, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal(pub String);

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// # Errors
/// A [`Refusal`] for every state in which going on could lose or repeat events.
pub(crate) fn decide(facts: &Facts) -> Result<Plan, Refusal> {
    let Facts { topic, partition, group, committed, log, .. } = facts;
    let refuse = |message: String| Err(Refusal(format!("{topic}/{partition}: {message}")));
    let Some(origin) = &facts.origin else {
        if facts.tail.is_some() {
            return refuse("the trusted zone has cuts but no origin.json; bring _batches back from a backup, or make it again with 'verify --rebuild-chain'".to_owned());
        }
        return match committed {
            Some(offset) => refuse(format!(
                "group '{group}' has committed offset {offset}, but the trusted zone has no _batches for it. If its files are \
                 there, 'verify --rebuild-chain' makes it again. If trusted.url is right and you mean to start afresh: with Kafka delete the \
                 group's offsets (kafka-consumer-groups --delete-offsets) or use another kafka.group; with 'run' name a new --data-dir"
            )),
            None => Ok(Plan::Begin { at: log.earliest }),
        };
    };
    if origin.log_id != facts.log_id {
        return refuse(format!(
            "the trusted zone was written from log {}, this is {}. Name the right one (kafka.brokers, with 'run' --data-dir), or use a new trusted.url; \
             on Kafka a new log.events_topic and kafka.group do as well",
            origin.log_id, facts.log_id
        ));
    }
    if let Some(done) = facts.newest_done
        && facts.tail.as_ref().is_none_or(|(cut, _)| cut.from < done)
    {
        return refuse(format!(
            "the batch that begins at {done} is complete, but its cut is not there: cuts were lost. Bring _batches back from a backup, \
             or make it again with 'verify --rebuild-chain'"
        ));
    }
    let (end, complete) = facts.tail.as_ref().map_or((origin.start, true), |(cut, complete)| (cut.to, *complete));
    if log.latest < end {
        return refuse(format!(
            "the log ends at offset {}, but batches up to {end} are in the trusted zone: the topic was truncated or recreated. \
             Use a new log.events_topic for the new log",
            log.latest
        ));
    }
    if let Some(offset) = committed
        && *offset > log.latest
    {
        return refuse(format!(
            "the committed offset {offset} lies beyond {}, where the log ends. Reset group '{group}' to {end}, where the trusted zone ends, or \
             to a later offset of the log to skip what lies between",
            log.latest
        ));
    }
    if let Some((cut, false)) = &facts.tail
        && (log.earliest > cut.from || facts.salvaged)
    {
        if cut.folders.is_some() {
            return Ok(Plan::Salvage);
        }
        return refuse(format!(
            "the batch {}..{} was begun by an earlier version, but the log let go of its records up to {} before all its files were written. Stop every \
             distributor, wait a minute and start one, for another one may have written them by then. If it says this again, stop it, \
             remove the files that are named '{topic}-{partition}-{}-*.parquet' and then the cut, which is the first object below \
             '_batches/{topic}/{partition}/cuts/': what the log still holds is written then, and the rest is counted as lost",
            cut.from, cut.to, log.earliest, cut.from
        ));
    }
    match committed {
        Some(offset) if *offset < end && facts.tail.is_some() => Ok(Plan::Walk { at: (*offset).max(origin.start) }),
        _ if !complete => Ok(Plan::Redo),
        _ if facts.tail.is_none() => Ok(Plan::Begin { at: origin.start }),
        _ => Ok(Plan::ReadOn { at: end }),
    }
}

/// What has to be passed over before reading on at `end`, where everything below is complete: offsets that the log has
/// lost, or that an operator set the group's offset beyond. Returns why, and up to where.
pub(crate) fn gap_at(end: i64, committed: Option<i64>, log: Bounds) -> Option<(CutKind, i64)> {
    if log.earliest > end {
        return Some((CutKind::Lost, log.earliest));
    }
    committed.filter(|offset| *offset > end).map(|offset| (CutKind::Skipped, offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::testing::{cut, origin};

    fn facts(tail: Option<(i64, i64, bool)>, committed: Option<i64>, log: (i64, i64)) -> Facts {
        Facts {
            topic: "events".into(),
            partition: 0,
            group: "g".into(),
            log_id: "log".into(),
            origin: Some(origin(10)),
            newest_done: None,
            tail: tail.map(|(from, to, complete)| (cut(from, to), complete)),
            salvaged: false,
            committed,
            log: Bounds { earliest: log.0, latest: log.1 },
        }
    }

    #[test]
    fn a_new_partition_begins_at_the_logs_beginning() {
        let facts = Facts { origin: None, ..facts(None, None, (7, 90)) };
        assert_eq!(decide(&facts), Ok(Plan::Begin { at: 7 }));
        assert!(decide(&Facts { committed: Some(8), ..facts.clone() }).is_err(), "committed offsets without a chain");
        assert!(decide(&Facts { tail: Some((cut(10, 20), true)), ..facts }).is_err(), "cuts without an origin");
    }

    #[test]
    fn the_chain_decides_and_the_committed_offset_only_asks_to_walk() {
        assert_eq!(decide(&facts(None, None, (0, 90))), Ok(Plan::Begin { at: 10 }), "an origin without a cut");
        assert_eq!(decide(&facts(Some((10, 20, true)), Some(20), (0, 90))), Ok(Plan::ReadOn { at: 20 }));
        assert_eq!(decide(&facts(Some((10, 20, true)), None, (0, 90))), Ok(Plan::ReadOn { at: 20 }), "expired offsets");
        assert_eq!(
            decide(&facts(Some((10, 20, false)), Some(20), (0, 90))),
            Ok(Plan::Redo),
            "a zombie's late commit changes nothing"
        );
        assert_eq!(decide(&facts(Some((10, 20, false)), None, (0, 90))), Ok(Plan::Redo));
        assert_eq!(
            decide(&facts(Some((20, 30, false)), Some(20), (0, 90))),
            Ok(Plan::Walk { at: 20 }),
            "a crash before the commit"
        );
        assert_eq!(decide(&facts(Some((20, 30, true)), Some(12), (0, 90))), Ok(Plan::Walk { at: 12 }));
        assert_eq!(
            decide(&facts(Some((20, 30, true)), Some(3), (0, 90))),
            Ok(Plan::Walk { at: 10 }),
            "never before the origin"
        );
    }

    #[test]
    fn what_the_log_lost_comes_before_what_an_operator_skips() {
        let log = |earliest| Bounds { earliest, latest: 90 };
        assert_eq!(gap_at(20, Some(20), log(0)), None);
        assert_eq!(gap_at(20, Some(12), log(20)), None, "set back");
        assert_eq!(gap_at(20, None, log(0)), None);
        assert_eq!(gap_at(20, Some(40), log(0)), Some((CutKind::Skipped, 40)));
        assert_eq!(gap_at(20, Some(40), log(30)), Some((CutKind::Lost, 30)));
        assert_eq!(gap_at(30, Some(40), log(30)), Some((CutKind::Skipped, 40)));
        assert_eq!(gap_at(20, Some(12), log(30)), Some((CutKind::Lost, 30)));
        for (committed, earliest) in [(Some(40), 0), (Some(20), 30)] {
            let facts = facts(Some((10, 20, true)), committed, (earliest, 90));
            assert_eq!(decide(&facts), Ok(Plan::ReadOn { at: 20 }), "no refusal");
        }
        let open = facts(Some((10, 20, false)), Some(40), (0, 90));
        assert_eq!(decide(&open), Ok(Plan::Redo), "an open batch is made first");
    }

    #[test]
    fn an_open_batch_whose_head_is_lost_is_closed_with_what_is_left() {
        let listing = |facts: Facts| {
            let tail =
                facts.tail.map(|(cut, complete)| (Cut { folders: Some(vec!["events/f".into()]), ..cut }, complete));
            Facts { tail, ..facts }
        };
        for committed in [None, Some(12), Some(20)] {
            let open = listing(facts(Some((10, 20, false)), committed, (15, 90)));
            assert_eq!(decide(&open), Ok(Plan::Salvage));
        }
        let complete = listing(facts(Some((10, 20, true)), Some(20), (15, 90)));
        assert_eq!(decide(&complete), Ok(Plan::ReadOn { at: 20 }));
        // Another owner saw the log begin later than we do: what it took from the batch's first makers stays taken.
        let begun = Facts { salvaged: true, ..listing(facts(Some((10, 20, false)), Some(20), (0, 90))) };
        assert_eq!(decide(&begun), Ok(Plan::Salvage));
    }

    #[test]
    fn what_could_lose_or_repeat_is_refused() {
        let refused = |facts: &Facts| decide(facts).err().map(|refusal| refusal.0).unwrap_or_default();
        assert!(refused(&facts(Some((10, 20, true)), Some(91), (0, 90))).contains("beyond 90, where the log ends"));
        assert!(refused(&facts(Some((10, 20, true)), Some(20), (0, 15))).contains("truncated or recreated"));
        assert!(
            refused(&facts(Some((10, 20, false)), Some(20), (15, 90)))
                .contains("batch 10..20 was begun by an earlier version")
        );
        for tail in [None, Some((10, 20, true))] {
            let lost = Facts { newest_done: Some(20), ..facts(tail, Some(30), (0, 90)) };
            assert!(refused(&lost).contains("batch that begins at 20 is complete, but its cut is not there"));
        }
        let other = Facts { log_id: "other".into(), ..facts(Some((10, 20, true)), Some(20), (0, 90)) };
        assert!(refused(&other).contains("written from log log, this is other"));
    }
}
