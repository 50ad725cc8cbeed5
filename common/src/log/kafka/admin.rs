//! Creates topics with the required settings, and refuses topics with others.

use std::collections::BTreeMap;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResourceResult, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};

use super::client::{LoggingContext, base_config, explain};
use super::{KafkaSettings, REQUEST_TIMEOUT};
use crate::log::{LogError, LogErrorKind, Result, Retention, TopicInfo, TopicSpec};

/// The largest event with its key and headers must be accepted, or a file could never be finished.
const MIN_MESSAGE_LIMIT_BYTES: u64 = 1_048_576;

/// librdkafka drops a connection whose answer is larger, and asks for the same again.
const RECEIVE_LIMIT_SETTING: &str = "receive.message.max.bytes";
const DEFAULT_RECEIVE_LIMIT_BYTES: u64 = 100_000_000;
/// The rest of an answer beside its records, as librdkafka reckons with it (`rd_kafka_conf_finalize`).
const ANSWER_OVERHEAD_BYTES: u64 = 512;

/// A topic as the cluster describes it.
#[derive(Debug, Clone)]
pub(super) struct Described {
    pub partitions: Vec<i32>,
    pub replicas: usize,
    pub has_leaders: bool,
}

impl Described {
    pub(super) fn info(&self) -> TopicInfo {
        TopicInfo { partitions: u32::try_from(self.partitions.len()).unwrap_or(u32::MAX) }
    }
}

/// `None` if the cluster does not have the topic.
pub(super) fn describe(meta: &BaseConsumer<LoggingContext>, topic: &str) -> KafkaResult<Option<Described>> {
    let metadata = meta.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
        return Ok(None);
    };
    match found.error().map(RDKafkaErrorCode::from) {
        None => {}
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => return Ok(None),
        Some(code) => return Err(rdkafka::error::KafkaError::MetadataFetch(code)),
    }
    if found.partitions().is_empty() {
        return Ok(None);
    }
    let mut partitions: Vec<i32> = found.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect();
    partitions.sort_unstable();
    Ok(Some(Described {
        partitions,
        replicas: found.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or(0),
        has_leaders: found.partitions().iter().all(|partition| partition.leader() >= 0),
    }))
}

fn client(settings: &KafkaSettings) -> Result<AdminClient<LoggingContext>> {
    base_config(settings)
        .create_with_context(LoggingContext)
        .map_err(|error| explain(settings, "configuring the admin client", &error))
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT))
}

fn cleanup_policy(retention: Retention) -> &'static str {
    match retention {
        Retention::Delete | Retention::Forever => "delete",
        Retention::Compact => "compact",
    }
}

/// Three replicas, two of which must have every record, as far as there are enough brokers.
pub(super) async fn create(settings: &KafkaSettings, spec: &TopicSpec, brokers: usize) -> Result<()> {
    let replication = i32::try_from(brokers.clamp(1, 3)).unwrap_or(1);
    let partitions = i32::try_from(spec.partitions).unwrap_or(i32::MAX);
    let mut topic = NewTopic::new(&spec.name, partitions, TopicReplication::Fixed(replication))
        .set("cleanup.policy", cleanup_policy(spec.retention))
        .set("message.timestamp.type", "LogAppendTime")
        .set("unclean.leader.election.enable", "false")
        .set("min.insync.replicas", if replication >= 3 { "2" } else { "1" });
    if spec.retention == Retention::Forever {
        topic = topic.set("retention.ms", "-1").set("retention.bytes", "-1");
    }
    let outcome = client(settings)?
        .create_topics([&topic], &options())
        .await
        .map_err(|error| explain(settings, "creating a topic", &error))?;
    match outcome.into_iter().next() {
        Some(Err((name, code))) if code != RDKafkaErrorCode::TopicAlreadyExists => {
            let error = rdkafka::error::KafkaError::AdminOp(code);
            let mut error = explain(settings, &format!("creating topic '{name}'"), &error);
            if matches!(code, RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed)
            {
                error.message.push_str("; grant Create on the topic, or create it, see docs/permissions.md");
            }
            Err(error)
        }
        _ => Ok(()),
    }
}

/// Refuses a topic whose settings would break a guarantee, naming each with its fix.
pub(super) async fn verify(settings: &KafkaSettings, spec: &TopicSpec, described: &Described) -> Result<()> {
    let resource = ResourceSpecifier::Topic(&spec.name);
    let described_configs = client(settings)?
        .describe_configs([&resource], &options())
        .await
        .map_err(|error| explain(settings, "reading topic settings", &error))?;
    let entries = entries_of(settings, &spec.name, described_configs.into_iter().next())?;
    let wrong = wrong_settings(spec, described.replicas, &entries, receive_limit_bytes(settings));
    if wrong.is_empty() {
        return Ok(());
    }
    let message = format!(
        "topic '{}' has settings that would break exactly-once, or stop its readers: {}",
        spec.name,
        wrong.join("; ")
    );
    Err(LogError::new(LogErrorKind::Misconfigured, message))
}

/// A topic's settings by name.
///
/// # Errors
/// The broker does not return them. The binding drops the refusal of a single topic and answers with no settings, but
/// every topic has some.
fn entries_of(
    settings: &KafkaSettings,
    topic: &str,
    described: Option<ConfigResourceResult>,
) -> Result<BTreeMap<String, String>> {
    match described {
        Some(Ok(config)) if !config.entries.is_empty() => {
            Ok(config.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect())
        }
        Some(Err(code)) => {
            let error = rdkafka::error::KafkaError::AdminOp(code);
            Err(explain(settings, &format!("reading the settings of topic '{topic}'"), &error))
        }
        Some(Ok(_)) | None => {
            let message = format!(
                "Kafka at {} does not show the settings of topic '{topic}', which have to be checked: grant DescribeConfigs on it",
                settings.brokers
            );
            Err(LogError::new(LogErrorKind::Misconfigured, message))
        }
    }
}

fn receive_limit_bytes(settings: &KafkaSettings) -> u64 {
    let set = settings.client.get(RECEIVE_LIMIT_SETTING).and_then(|value| value.parse().ok());
    set.unwrap_or(DEFAULT_RECEIVE_LIMIT_BYTES)
}

fn wrong_settings(
    spec: &TopicSpec,
    replicas: usize,
    entries: &BTreeMap<String, String>,
    receive_limit_bytes: u64,
) -> Vec<String> {
    let mut expected = vec![
        ("cleanup.policy", cleanup_policy(spec.retention)),
        ("message.timestamp.type", "LogAppendTime"),
        ("unclean.leader.election.enable", "false"),
    ];
    if spec.retention == Retention::Forever {
        expected.push(("retention.ms", "-1"));
    }
    let mut wrong: Vec<String> = expected
        .into_iter()
        .filter_map(|(key, value)| match entries.get(key) {
            Some(actual) if actual != value => Some(format!("{key}={actual} must be {value}")),
            _ => None,
        })
        .collect();
    let limit = entries.get("max.message.bytes").and_then(|value| value.parse::<u64>().ok());
    if limit.is_some_and(|limit| limit < MIN_MESSAGE_LIMIT_BYTES) {
        wrong.push(format!(
            "max.message.bytes={} must be at least {MIN_MESSAGE_LIMIT_BYTES}",
            limit.unwrap_or_default()
        ));
    }
    // A batch may be as large as the topic allows, however little is fetched at a time (KIP-74).
    let largest = limit.map_or(0, |limit| limit.saturating_add(ANSWER_OVERHEAD_BYTES));
    if largest > receive_limit_bytes {
        wrong.push(format!(
            "max.message.bytes={} accepts records that could never be read: lower it, or set \
             kafka.client.{RECEIVE_LIMIT_SETTING} to at least {largest} (it is {receive_limit_bytes})",
            limit.unwrap_or_default()
        ));
    }
    let in_sync = entries.get("min.insync.replicas").and_then(|value| value.parse::<usize>().ok());
    if replicas >= 3 && in_sync.is_some_and(|count| count < 2) {
        wrong.push(format!("min.insync.replicas=1 must be at least 2 with {replicas} replicas"));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = DEFAULT_RECEIVE_LIMIT_BYTES;

    #[test]
    fn settings_that_the_broker_withholds_do_not_count_as_correct() {
        use rdkafka::admin::{ConfigResource, OwnedResourceSpecifier};
        let settings = KafkaSettings { brokers: "kafka:9092".to_owned(), client: BTreeMap::new() };
        let nothing =
            ConfigResource { specifier: OwnedResourceSpecifier::Topic("events".to_owned()), entries: Vec::new() };
        for described in [None, Some(Ok(nothing)), Some(Err(RDKafkaErrorCode::TopicAuthorizationFailed))] {
            let is_refusal = matches!(described, Some(Err(_)));
            let error = entries_of(&settings, "events", described).unwrap_err();
            let message = error.to_string();
            assert!(message.contains("'events'"), "{message}");
            assert!(is_refusal || message.contains("grant DescribeConfigs"), "{message}");
        }
    }

    #[test]
    fn each_setting_that_breaks_a_guarantee_is_named_with_its_fix() {
        let spec = TopicSpec { name: "events".into(), partitions: 1, retention: Retention::Delete };
        let entries = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>()
        };
        let good =
            [("cleanup.policy", "delete"), ("message.timestamp.type", "LogAppendTime"), ("min.insync.replicas", "2")];
        assert!(wrong_settings(&spec, 3, &entries(&good), LIMIT).is_empty());
        let bad = [
            ("cleanup.policy", "compact,delete"),
            ("message.timestamp.type", "CreateTime"),
            ("unclean.leader.election.enable", "true"),
            ("min.insync.replicas", "1"),
            ("max.message.bytes", "100000"),
        ];
        let wrong = wrong_settings(&spec, 3, &entries(&bad), LIMIT);
        assert_eq!(wrong.len(), 5, "{wrong:?}");
        assert!(wrong[1].contains("CreateTime must be LogAppendTime"), "{wrong:?}");
        let forever = TopicSpec { retention: Retention::Forever, ..spec };
        assert_eq!(wrong_settings(&forever, 1, &entries(&[("retention.ms", "604800000")]), LIMIT).len(), 1);
    }

    #[test]
    fn a_topic_may_not_accept_what_the_client_could_never_receive() {
        let spec = TopicSpec { name: "events".into(), partitions: 1, retention: Retention::Delete };
        let wrong = |limit: u64, settings: &KafkaSettings| {
            let entries = BTreeMap::from([("max.message.bytes".to_owned(), limit.to_string())]);
            wrong_settings(&spec, 1, &entries, receive_limit_bytes(settings))
        };
        let default = KafkaSettings::default();
        assert!(wrong(LIMIT - 512, &default).is_empty());
        let refused = wrong(LIMIT - 511, &default).join("");
        for part in ["max.message.bytes=99999489", "kafka.client.receive.message.max.bytes to at least 100000001"] {
            assert!(refused.contains(part), "{part:?} is missing in {refused}");
        }
        let client = BTreeMap::from([(RECEIVE_LIMIT_SETTING.to_owned(), "2000000".to_owned())]);
        let settings = KafkaSettings { client, ..default };
        assert!(wrong(2_000_000 - 512, &settings).is_empty());
        assert_eq!(wrong(2_000_000, &settings).len(), 1);
    }
}
