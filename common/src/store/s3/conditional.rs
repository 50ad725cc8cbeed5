//! Decides what to do after a conditional write that was not answered with 200.
//!
//! The SDK sends a request again if its answer was lost, so a 412 may be the result of the caller's own success, and so
//! may a time-out. Only the object shows the outcome. `decide` is pure: the caller reads the object and acts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::errors::S3Failure;
use crate::store::{PutCondition, PutOutcome, Version};

pub(super) const MAX_TRIES: u32 = 5;
const FIRST_PAUSE_MS: u64 = 50;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Answer(PutOutcome),
    /// The condition still holds, and the failure may be temporary.
    Again,
    /// The refusal is final.
    Fail,
}

/// `found` is the object's version now, read after the failure.
pub(super) fn decide(condition: &PutCondition, failure: &S3Failure, found: Option<&Version>) -> Next {
    match condition {
        PutCondition::None if failure.is_conflict() => Next::Again,
        PutCondition::None => Next::Fail,
        PutCondition::IfAbsent if found.is_some() => Next::Answer(PutOutcome::AlreadyExists),
        PutCondition::IfVersion(expected) if found != Some(expected) => Next::Answer(PutOutcome::VersionMismatch),
        _ if failure.is_undecided() => Next::Again,
        _ => Next::Fail,
    }
}

/// Doubles, with a random part: racers in a conflict must not retry simultaneously.
pub(super) async fn pause_before(attempt: u32) {
    if attempt == 0 {
        return;
    }
    let base_ms = FIRST_PAUSE_MS << attempt.min(6);
    let noise = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    tokio::time::sleep(Duration::from_millis(base_ms / 2 + u64::from(noise / 1000) % base_ms)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_under_the_key_decides_and_not_the_answer() {
        use PutCondition::{IfAbsent, IfVersion};
        let (mine, other) = (Version("mine".into()), Version("other".into()));
        let lost_race = S3Failure::answered(412, "PreconditionFailed");
        let conflict = S3Failure::answered(409, "ConditionalRequestConflict");
        let broken = S3Failure::answered(500, "InternalError");
        let denied = S3Failure::answered(403, "AccessDenied");

        for failure in [&lost_race, &conflict, &broken, &denied] {
            // Even a refusal may follow an earlier attempt of the SDK that succeeded.
            assert_eq!(decide(&IfAbsent, failure, Some(&other)), Next::Answer(PutOutcome::AlreadyExists));
            let replaced = decide(&IfVersion(mine.clone()), failure, Some(&other));
            assert_eq!(replaced, Next::Answer(PutOutcome::VersionMismatch));
        }
        for failure in [&lost_race, &conflict, &broken] {
            assert_eq!(decide(&IfAbsent, failure, None), Next::Again);
            assert_eq!(decide(&IfVersion(mine.clone()), failure, Some(&mine)), Next::Again);
        }
        assert_eq!(decide(&IfAbsent, &denied, None), Next::Fail);
        assert_eq!(decide(&IfVersion(mine.clone()), &denied, Some(&mine)), Next::Fail);
        assert_eq!(decide(&IfVersion(mine), &lost_race, None), Next::Answer(PutOutcome::VersionMismatch));
        assert_eq!(decide(&PutCondition::None, &conflict, None), Next::Again);
        assert_eq!(decide(&PutCondition::None, &broken, None), Next::Fail);
    }
}
