//! Settings and errors of every Kafka client in this program.

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::KafkaSettings;
use crate::log::{LogError, LogErrorKind};
use crate::redact::without_credentials;

/// Forwards librdkafka's logs. Its error callbacks are debug lines, because calls return the same errors.
#[derive(Debug, Default)]
pub(super) struct LoggingContext;

impl ClientContext for LoggingContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, reason, "client error");
    }
}

impl ConsumerContext for LoggingContext {}

pub(super) fn log_line(level: RDKafkaLogLevel, facility: &str, message: &str) {
    let message = without_credentials(message);
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::warn!(target: "librdkafka", facility, "{message}");
        }
        _ => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

pub(super) fn base_config(settings: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("client.id", "event-distributor")
        .set("socket.keepalive.enable", "true")
        .set("topic.metadata.propagation.max.ms", "5000")
        .set("reconnect.backoff.max.ms", "5000");
    for (key, value) in &settings.client {
        config.set(key, value);
    }
    config.set("bootstrap.servers", &settings.brokers);
    config
}

/// Returns librdkafka's error for a single setting: an unknown name or an invalid value. Does not connect.
#[must_use]
pub fn client_setting_fault(key: &str, value: &str) -> Option<String> {
    if value.contains('\0') || key.contains('\0') {
        return Some("holds a zero byte".to_owned());
    }
    let mut config = ClientConfig::new();
    config.set(key, value);
    config.create_native_config().err().map(|error| fault_of(&error))
}

/// The error without the value, which the binding always appends.
fn fault_of(error: &KafkaError) -> String {
    use RDKafkaErrorCode as Code;
    match (error, error.rdkafka_error_code()) {
        (KafkaError::ClientConfig(_, description, ..), _) => description.clone(),
        (_, Some(Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve)) => {
            "no broker can be reached".to_owned()
        }
        (other, _) => other.to_string(),
    }
}

/// Converts librdkafka's error, and adds the action and the brokers.
pub(super) fn explain(settings: &KafkaSettings, doing: &str, error: &KafkaError) -> LogError {
    let code = match error {
        KafkaError::Transaction(inner) => Some(inner.code()),
        other => other.rdkafka_error_code(),
    };
    let kind = match (error, code) {
        (KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_), _) => LogErrorKind::Misconfigured,
        (_, Some(code)) => kind_of(code),
        _ => LogErrorKind::Other,
    };
    let detail = match error {
        KafkaError::Transaction(inner) => inner.string(),
        other => fault_of(other),
    };
    LogError::new(kind, format!("Kafka at {}, {doing}: {detail}", settings.brokers))
}

pub(super) fn kind_of(code: RDKafkaErrorCode) -> LogErrorKind {
    use RDKafkaErrorCode as Code;
    match code {
        Code::Fenced
        | Code::ProducerFenced
        | Code::InvalidProducerEpoch
        | Code::FencedInstanceId
        | Code::InvalidProducerIdMapping => LogErrorKind::Fenced,
        Code::AutoOffsetReset | Code::OffsetOutOfRange => LogErrorKind::OffsetOutOfRange,
        // Not implemented: a codec or record format that librdkafka does not know. It goes on behind such a batch.
        Code::BadMessage
        | Code::BadCompression
        | Code::InvalidMessage
        | Code::NotImplemented
        | Code::UnsupportedCompressionType => LogErrorKind::Corrupt,
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::SaslAuthenticationFailed
        | Code::Authentication
        | Code::InvalidConfig
        | Code::InvalidReplicationFactor
        | Code::UnsupportedVersion => LogErrorKind::Misconfigured,
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => LogErrorKind::BadRecord,
        Code::UnknownPartition | Code::State | Code::UnknownMemberId | Code::IllegalGeneration => {
            LogErrorKind::NotAssigned
        }
        Code::Fatal => LogErrorKind::Other,
        _ => LogErrorKind::Transient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a transient failure it would be waited for, while librdkafka goes on behind the records.
    #[test]
    fn records_that_cannot_be_read_are_not_waited_for() {
        use RDKafkaErrorCode as Code;
        for code in [
            Code::NotImplemented,
            Code::BadMessage,
            Code::BadCompression,
            Code::InvalidMessage,
            Code::UnsupportedCompressionType,
        ] {
            let error = explain(&KafkaSettings::default(), "reading", &KafkaError::MessageConsumption(code));
            assert_eq!(error.kind, LogErrorKind::Corrupt, "{error}");
        }
    }
}
