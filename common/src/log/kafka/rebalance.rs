//! The group's decisions, as librdkafka's callbacks report them to the read thread.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};

use super::client::log_line;
use crate::log::ReadEvent;

/// Runs inside librdkafka's callbacks, which polling invokes on the read thread.
pub(super) struct RebalanceContext {
    earliest: BTreeMap<i32, i64>,
    events: Mutex<Vec<ReadEvent>>,
}

impl ClientContext for RebalanceContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, reason, "client error");
    }
}

impl ConsumerContext for RebalanceContext {
    /// Assigns partitions paused, at an offset that certainly exists: the owner sets the start. A logical offset would
    /// not do, because its look-up could end after the owner's seek and undo it.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions = partition_ids(list);
        let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let (outcome, event) = if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            (self.assign_paused(consumer, list, cooperative), ReadEvent::Assigned(partitions))
        } else {
            let outcome = if cooperative { consumer.incremental_unassign(list) } else { consumer.unassign() };
            (outcome, ReadEvent::Revoked(partitions))
        };
        if let Err(error) = outcome {
            tracing::warn!(%error, "a rebalance could not be applied; the group will try again");
        }
        self.send(event);
    }
}

impl RebalanceContext {
    pub(super) fn new(earliest: BTreeMap<i32, i64>) -> Self {
        Self { earliest, events: Mutex::default() }
    }

    /// Without a group the caller chooses the partitions.
    pub(super) fn assign(
        &self,
        consumer: &BaseConsumer<Self>,
        list: &mut TopicPartitionList,
    ) -> std::result::Result<(), KafkaError> {
        self.assign_paused(consumer, list, false)?;
        self.send(ReadEvent::Assigned(partition_ids(list)));
        Ok(())
    }

    /// Returns the decisions since the last call.
    pub(super) fn take(&self) -> Vec<ReadEvent> {
        std::mem::take(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn send(&self, event: ReadEvent) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    fn assign_paused(
        &self,
        consumer: &BaseConsumer<Self>,
        list: &mut TopicPartitionList,
        cooperative: bool,
    ) -> std::result::Result<(), KafkaError> {
        let positions: Vec<(String, i32)> =
            list.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect();
        for (topic, partition) in positions {
            let earliest = self.earliest.get(&partition).copied().unwrap_or(0);
            list.set_partition_offset(&topic, partition, Offset::Offset(earliest))?;
        }
        if cooperative {
            consumer.incremental_assign(list)?;
        } else {
            consumer.assign(list)?;
        }
        if list.count() == 0 {
            return Ok(());
        }
        consumer.pause(list)
    }
}

fn partition_ids(list: &TopicPartitionList) -> Vec<i32> {
    let mut partitions: Vec<i32> =
        list.elements().iter().map(rdkafka::topic_partition_list::TopicPartitionListElem::partition).collect();
    partitions.sort_unstable();
    partitions
}
