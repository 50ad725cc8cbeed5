//! Owning a ledger partition: fences the previous writer, then reads the partition to its high watermark.
//!
//! The two belong together. After the fence no other process can add to the partition, so the read is complete. A
//! process that has not read it since its last fence, or since a commit of unknown outcome, does not know what is
//! committed. This is therefore one operation, repeated after each of those.

use std::time::Duration;

use common::log::{
    DIRECT_GROUP, Log, LogError, LogErrorKind, LogWriter, Operation, RecordBatch, Retention, Right, TopicSpec,
    read_to_end, with_rights,
};

use crate::ledger::{self, Ledger, Meta};
use crate::routes::Sweep;
use crate::settings::Settings;

/// How long the log may be silent while the ledger is read.
const READ_PATIENCE: Duration = Duration::from_secs(30);

/// The topics of an ingestor and their partition counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topics {
    pub events: String,
    pub dlq: String,
    pub ledger: String,
    pub events_partitions: u32,
    pub ledger_partitions: u32,
}

/// The required settings of the topics `events`, `dlq` and `ledger`, in this order; the numbers are partition counts
/// for creation.
pub fn topic_specs(events: (&str, u32), dlq: &str, ledger: (&str, u32)) -> [TopicSpec; 3] {
    let spec = |name: &str, partitions, retention| TopicSpec { name: name.to_owned(), partitions, retention };
    [
        spec(events.0, events.1, Retention::Delete),
        spec(dlq, 1, Retention::Forever),
        spec(ledger.0, ledger.1, Retention::Compact),
    ]
}

/// The group in which ingestors share the ledger's partitions. Derived from the topic, so that two ingestors cannot be
/// configured with different groups.
fn group_of(ledger: &str) -> String {
    format!("event-distributor-ingest-{ledger}")
}

/// The rights that an ingestor needs at the log, besides those on its transactional ids, which nobody can ask for.
pub fn needed_rights(events: &str, dlq: &str, ledger: &str) -> Vec<Right> {
    use Operation::{Describe, DescribeConfigs, Read, Write};
    const AFTER_EVENTS: &str = "named after log.events_topic";
    vec![
        Right::of_topic(events, "log.events_topic", [Write, DescribeConfigs]),
        Right::of_topic(dlq, AFTER_EVENTS, [Write, DescribeConfigs]),
        Right::of_topic(ledger, AFTER_EVENTS, [Read, Write, DescribeConfigs]),
        Right::of_group(&group_of(ledger), AFTER_EVENTS, Read),
        Right::of_group(DIRECT_GROUP, "a fixed name", Describe),
    ]
}

impl Topics {
    /// Creates or verifies the topics.
    ///
    /// # Errors
    /// The log cannot be reached, or a topic has other settings.
    pub(crate) async fn ensure(log: &dyn Log, settings: &Settings) -> Result<Self, LogError> {
        let [events, dlq, ledger] = topic_specs(
            (&settings.events_topic, settings.partitions),
            &settings.dlq_topic,
            (&settings.ledger_topic, settings.ledger_partitions),
        );
        let ensured = async {
            let events = log.ensure_topic(&events).await?;
            log.ensure_topic(&dlq).await?;
            Ok((events, log.ensure_topic(&ledger).await?))
        };
        let needed = needed_rights(&settings.events_topic, &settings.dlq_topic, &settings.ledger_topic);
        let (events, ledger) = with_rights(log, &needed, ensured.await).await?;
        Ok(Self {
            events: settings.events_topic.clone(),
            dlq: settings.dlq_topic.clone(),
            ledger: settings.ledger_topic.clone(),
            events_partitions: events.partitions,
            ledger_partitions: ledger.partitions,
        })
    }

    /// See [`group_of`].
    pub(crate) fn group(&self) -> String {
        group_of(&self.ledger)
    }

    /// The id of the single writer of a ledger partition, likewise derived.
    fn writer_id(&self, partition: i32) -> String {
        format!("event-distributor-ingest-{}-{partition}", self.ledger)
    }

    fn meta(&self) -> Meta {
        Meta { v: 1, events_partitions: self.events_partitions, ledger_partitions: self.ledger_partitions }
    }
}

/// The state of an owner: nothing can be committed without it.
pub(crate) struct Owned {
    pub writer: Box<dyn LogWriter>,
    pub ledger: Ledger,
}

/// Takes the partition over. All its files count as seen `now`.
///
/// # Errors
/// The log's error. [`LogErrorKind::Misconfigured`] if the topics have other partition counts than at the ledger's
/// creation: keys or files would go to other partitions.
pub(crate) async fn own(log: &dyn Log, topics: &Topics, partition: i32, now: Sweep) -> Result<Owned, LogError> {
    let mut writer = log.writer(&topics.writer_id(partition)).await?;
    let ledger = read(log, &topics.ledger, partition, now).await?;
    match ledger.meta() {
        Some(recorded) => check_meta(topics, partition, recorded)?,
        None => {
            // A partition added later has no record; the first one decides.
            if partition != 0
                && let Some(recorded) = read(log, &topics.ledger, 0, now).await?.meta()
            {
                check_meta(topics, 0, recorded)?;
            }
            // Before the first event, so that no event depends on unrecorded counts.
            record_meta(&mut *writer, topics, partition).await?;
        }
    }
    Ok(Owned { writer, ledger })
}

async fn read(log: &dyn Log, topic: &str, partition: i32, now: Sweep) -> Result<Ledger, LogError> {
    let mut ledger = Ledger::noting_moves();
    read_to_end(log, topic, partition, READ_PATIENCE, |chunk| {
        chunk.records.iter().try_for_each(|record| ledger.apply(record.key, record.value, now))
    })
    .await?;
    Ok(ledger)
}

pub(crate) fn check_meta(topics: &Topics, partition: i32, recorded: Meta) -> Result<(), LogError> {
    let refuse = |message: String| Err(LogError::new(LogErrorKind::Misconfigured, message));
    if recorded.events_partitions != topics.events_partitions {
        return refuse(format!(
            "topic '{}' has {} partitions, but the ledger '{}' was begun with {}: equal events would land in different \
             partitions and duplicates be missed; use a new log.events_topic",
            topics.events, topics.events_partitions, topics.ledger, recorded.events_partitions
        ));
    }
    if recorded.ledger_partitions != topics.ledger_partitions {
        return refuse(format!(
            "the ledger '{}' has {} partitions, but partition {partition} of it was begun with {}: files would belong to \
             other partitions and be ingested again; use a new log.events_topic",
            topics.ledger, topics.ledger_partitions, recorded.ledger_partitions
        ));
    }
    Ok(())
}

async fn record_meta(writer: &mut dyn LogWriter, topics: &Topics, partition: i32) -> Result<(), LogError> {
    let mut batch = RecordBatch::new();
    ledger::push_meta(&mut batch, topics.meta())?;
    writer.begin().await?;
    writer.append(&topics.ledger, partition, &batch).await?;
    writer.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_partition_counts_than_recorded_are_refused_with_the_fix() {
        let topics = Topics {
            events: "e".to_owned(),
            dlq: "e.dlq".to_owned(),
            ledger: "e.ledger".to_owned(),
            events_partitions: 4,
            ledger_partitions: 8,
        };
        assert!(check_meta(&topics, 0, topics.meta()).is_ok());
        for wrong in [Meta { events_partitions: 3, ..topics.meta() }, Meta { ledger_partitions: 1, ..topics.meta() }] {
            let error = check_meta(&topics, 0, wrong).err().map(|error| error.message).unwrap_or_default();
            assert!(error.contains("log.events_topic"), "{error}");
        }
    }
}
