//! How to reach a Kafka cluster, and the settings of its client that cannot be configured.

use std::collections::BTreeMap;

/// The addresses of the brokers, and the client's settings.
#[derive(Clone, Default)]
pub struct KafkaSettings {
    /// `host:port[,host:port]`.
    pub brokers: String,
    /// librdkafka settings, passed through unchanged (`security.protocol`, `sasl.*`, `ssl.*`, …). May hold secrets.
    pub client: BTreeMap<String, String>,
}

impl std::fmt::Debug for KafkaSettings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys: Vec<_> = self.client.keys().collect();
        formatter.debug_struct("KafkaSettings").field("brokers", &self.brokers).field("client", &keys).finish()
    }
}

/// Client settings that the guarantees depend on; they cannot be configured.
pub const RESERVED_CLIENT_SETTINGS: [&str; 16] = [
    "acks",
    "auto.commit.enable",
    "auto.offset.reset",
    "bootstrap.servers",
    "delivery.report.only.error",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "isolation.level",
    "metadata.broker.list",
    "partitioner",
    "request.required.acks",
    "transactional.id",
];
