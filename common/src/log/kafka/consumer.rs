//! The configuration of consumers.

use rdkafka::ClientConfig;

use super::KafkaSettings;
use super::client::base_config;
use crate::log::{DIRECT_GROUP, Membership};

/// The limit of librdkafka's queues of all partitions of a reader together. A queued message takes more memory than its
/// bytes: with this and the number of messages the total is about 30 MB.
const QUEUED_KBYTES: usize = 8_192;
const QUEUED_MESSAGES: usize = 10_000;
/// The minimum of a partition's queue, however many partitions there are. The next fetch of the partition begins below
/// it.
const MIN_QUEUED_KBYTES: usize = 64;
const MIN_QUEUED_MESSAGES: usize = 200;
/// The limit of one fetch over all partitions, compressed; for each partition it is at most librdkafka's default. A
/// longer batch is fetched all the same, one at a time (KIP-74).
const FETCHED_BYTES: usize = 8 * 1_024 * 1_024;
const MIN_FETCHED_BYTES: usize = 128 * 1_024;
const MAX_FETCHED_BYTES: usize = 1_024 * 1_024;
/// The other name of that setting.
const FETCHED_BYTES_ALIAS: &str = "max.partition.fetch.bytes";

/// The configuration of a reader with up to `partitions` partitions, each with its own queue.
pub(super) fn consumer_config(settings: &KafkaSettings, membership: &Membership, partitions: usize) -> ClientConfig {
    let share = |all: usize, least: usize| (all / partitions.max(1)).max(least).to_string();
    let fetched = (FETCHED_BYTES / partitions.max(1)).clamp(MIN_FETCHED_BYTES, MAX_FETCHED_BYTES).to_string();
    let mut config = base_config(settings);
    for (key, value) in [
        // With the default of 1,000 ms a full local queue stops fetching for a second at a time.
        ("fetch.queue.backoff.ms", "2"),
        // Both limits are per queue.
        ("queued.max.messages.kbytes", &*share(QUEUED_KBYTES, MIN_QUEUED_KBYTES)),
        ("queued.min.messages", &*share(QUEUED_MESSAGES, MIN_QUEUED_MESSAGES)),
        ("fetch.message.max.bytes", &*fetched),
        ("fetch.wait.max.ms", "100"),
        // Off by default, and a changed byte would reach the tables.
        ("check.crcs", "true"),
        ("session.timeout.ms", "10000"),
        ("partition.assignment.strategy", "cooperative-sticky"),
    ] {
        let new_protocol =
            settings.client.get("group.protocol").is_some_and(|protocol| protocol.eq_ignore_ascii_case("consumer"));
        let classic_only = matches!(key, "session.timeout.ms" | "partition.assignment.strategy");
        let is_set = settings.client.contains_key(key)
            || (key == "fetch.message.max.bytes" && settings.client.contains_key(FETCHED_BYTES_ALIAS));
        let leave_out = is_set || (new_protocol && classic_only);
        if !leave_out {
            config.set(key, value);
        }
    }
    config
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "error")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true");
    match membership {
        Membership::Group { group, instance_id } => {
            config.set("group.id", group);
            if let Some(instance_id) = instance_id {
                config.set("group.instance.id", instance_id);
            }
        }
        // librdkafka needs a group id for assigned partitions too; nothing is committed under it.
        Membership::Direct { .. } => {
            config.set("group.id", DIRECT_GROUP);
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_queues_together_hold_what_one_would_until_that_is_too_little() {
        let group = Membership::Group { group: "g".into(), instance_id: None };
        let queued = |partitions| {
            let config = consumer_config(&KafkaSettings::default(), &group, partitions);
            let get = |key| config.get(key).unwrap().parse::<usize>().unwrap();
            (get("queued.max.messages.kbytes"), get("queued.min.messages"), get("fetch.message.max.bytes"))
        };
        assert_eq!(queued(0), (8_192, 10_000, 1_048_576));
        assert_eq!(queued(4), (2_048, 2_500, 1_048_576));
        assert_eq!(queued(16), (512, 625, 524_288));
        assert_eq!(queued(1_000), (64, 200, 131_072));
    }

    #[test]
    fn an_operators_settings_take_precedence() {
        let group = Membership::Group { group: "g".into(), instance_id: None };
        let client = [("queued.max.messages.kbytes", "77"), (FETCHED_BYTES_ALIAS, "2000000")];
        let client = client.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let config = consumer_config(&KafkaSettings { client, ..KafkaSettings::default() }, &group, 4);
        assert_eq!(config.get("queued.max.messages.kbytes"), Some("77"));
        assert_eq!(config.get(FETCHED_BYTES_ALIAS), Some("2000000"));
        assert_eq!(config.get("fetch.message.max.bytes"), None, "it would set the same again");
    }
}
