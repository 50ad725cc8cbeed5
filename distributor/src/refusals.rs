//! What a person reads when a partition cannot be worked on, and what to do about it.

use commitlog::decide::Refusal;
use commitlog_storage::Damage;

use crate::error::PartitionError;

/// What is wrong with an object of a commit log, and what to do.
pub(crate) fn damage(damage: &Damage) -> String {
    let remedy = match damage {
        Damage::Name => "no distributor wrote it: move it away",
        Damage::MissingBefore { .. } => {
            "bring it back from a backup; if no distributor wrote the later one, move that away"
        }
        _ => "bring it back from a backup",
    };
    format!("{damage}; {remedy}")
}

/// A refusal in any words.
pub(crate) fn text(topic: &str, partition: i32, message: &str) -> PartitionError {
    PartitionError::Refused(format!("{topic}/{partition}: {message}"))
}

/// A refusal of the core.
pub(crate) fn refused(topic: &str, group: &str, partition: i32, refusal: &Refusal) -> PartitionError {
    let other_log = "the topic was truncated, recreated or replaced. Use a new log.events_topic for the new log";
    let backup = "Bring _commits back from a backup";
    let remedy = match refusal {
        Refusal::CommittedWithoutCommitLog { .. } => format!(
            "{backup}. If trusted.url is right and you mean to start afresh: with Kafka delete the offsets of group '{group}' \
             (kafka-consumer-groups --delete-offsets) or use another kafka.group; with 'run' name a new --data-dir"
        ),
        Refusal::OtherLog { .. } => {
            "Name the right log (kafka.brokers, with 'run' --data-dir), or use a new trusted.url; on \
             Kafka a new log.events_topic and kafka.group do as well"
                .to_owned()
        }
        Refusal::Truncated { .. } | Refusal::OtherRecords { .. } | Refusal::OtherRecord { .. } => other_log.to_owned(),
        Refusal::CommittedBeyondLog { end, .. } => format!(
            "Reset group '{group}' to {end}, where the trusted zone ends, or to a later offset of the log to skip what lies between"
        ),
        Refusal::HeadLost { .. } => {
            "Its files may be visible in part. 'abandon' closes it: what the log still holds is written \
             by the next batch, and the rest is counted as lost"
                .to_owned()
        }
        Refusal::Abandoning { .. } => "Run 'abandon' again to complete it".to_owned(),
        Refusal::NothingToAbandon => "Nothing is to be done".to_owned(),
        Refusal::OutputGone { .. } => {
            "Nothing was deleted since. Bring what is staged below _commits back from a backup. Without one, --accept-lost ends \
             the replace, and 'rewrite' then makes the file from the log, if the log has its records"
                .to_owned()
        }
        Refusal::Damaged { .. } => backup.to_owned(),
    };
    text(topic, partition, &format!("{refusal}. {remedy}"))
}
