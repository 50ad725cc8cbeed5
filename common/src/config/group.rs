//! Settings of the Kafka client that exclude each other. The client refuses them too, but one at a time and without
//! their origin.

use std::collections::BTreeMap;

use super::tree::Raw;

/// Settings that a member sets in the classic protocol. Under KIP-848 the broker or another setting decides.
const CLASSIC_ONLY: [(&str, &str); 4] = [
    ("group.protocol.type", "it has none"),
    ("heartbeat.interval.ms", "the broker decides: its group.consumer.heartbeat.interval.ms"),
    ("partition.assignment.strategy", "the broker assigns: kafka.client.group.remote.assignor"),
    ("session.timeout.ms", "the broker decides: its group.consumer.session.timeout.ms"),
];
/// The session time-out of [`crate::log::KafkaLog`]'s readers, unless configured.
const SESSION_TIMEOUT_MS: u64 = 10_000;
/// librdkafka's default.
const MAX_POLL_INTERVAL_MS: u64 = 300_000;

/// Returns the errors in the settings below `kafka.client`, given by their names there.
pub(super) fn check_group_protocol(client: &BTreeMap<String, Raw>) -> Vec<String> {
    let at = |key: &str, raw: &Raw| format!("kafka.client.{key} ({})", raw.origin);
    let protocol = client.get("group.protocol");
    let is = |name: &str| protocol.is_some_and(|raw| raw.text.eq_ignore_ascii_case(name));
    if is("consumer") {
        let given = CLASSIC_ONLY.iter().filter_map(|(key, instead)| Some((client.get(*key)?, key, instead)));
        return given
            .map(|(raw, key, instead)| {
                format!("{}: cannot be set with group.protocol=consumer; {instead}", at(key, raw))
            })
            .collect();
    }
    let mut errors = Vec::new();
    if let Some(raw) = protocol.filter(|_| !is("classic")) {
        errors.push(format!("{}: '{}' is not one of: classic, consumer", at("group.protocol", raw), raw.text));
    }
    if let Some(raw) = client.get("partition.assignment.strategy") {
        let cooperative = |name: &str| name.trim() == "cooperative-sticky";
        let mut names = raw.text.split(',').map(cooperative);
        let first = names.next();
        if names.any(|name| Some(name) != first) {
            let key = at("partition.assignment.strategy", raw);
            errors.push(format!("{key}: cooperative-sticky cannot be combined with the others, which are eager"));
        }
    }
    let ms = |key: &str, default| client.get(key).map_or(Some(default), |raw| raw.text.parse::<u64>().ok());
    // The client itself refuses an invalid number.
    if let (Some(session), Some(poll)) =
        (ms("session.timeout.ms", SESSION_TIMEOUT_MS), ms("max.poll.interval.ms", MAX_POLL_INTERVAL_MS))
        && session > poll
    {
        errors.push(format!(
            "kafka.client.session.timeout.ms = {session} must not be more than kafka.client.max.poll.interval.ms = {poll}"
        ));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(settings: &[(&str, &str)]) -> Vec<String> {
        let raw = |text: &str| Raw { text: text.to_owned(), origin: "x.toml".to_owned() };
        check_group_protocol(&settings.iter().map(|(key, text)| ((*key).to_owned(), raw(text))).collect())
    }

    #[test]
    fn each_protocol_has_settings_of_its_own() {
        for good in [
            &[][..],
            &[("group.protocol", "CONSUMER"), ("group.remote.assignor", "uniform"), ("max.poll.interval.ms", "6000")],
            &[("group.protocol", "classic"), ("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "1000")],
            &[("partition.assignment.strategy", "range,roundrobin")],
            &[("session.timeout.ms", "600000"), ("max.poll.interval.ms", "600000")],
        ] {
            assert!(errors(good).is_empty(), "{good:?}: {:?}", errors(good));
        }
    }

    #[test]
    fn conflicting_settings_are_reported_with_the_alternative() {
        let all = [
            ("group.protocol", "Consumer"),
            ("session.timeout.ms", "6000"),
            ("heartbeat.interval.ms", "1000"),
            ("partition.assignment.strategy", "range"),
        ];
        let reported = errors(&all).join("\n");
        for part in [
            "kafka.client.session.timeout.ms (x.toml): cannot be set with group.protocol=consumer; the broker decides",
            "kafka.client.heartbeat.interval.ms",
            "kafka.client.group.remote.assignor",
        ] {
            assert!(reported.contains(part), "{part:?} is missing in {reported}");
        }
        for (bad, part) in [
            (("group.protocol", "new"), "'new' is not one of: classic, consumer"),
            (("partition.assignment.strategy", "range, cooperative-sticky"), "cannot be combined"),
            (("session.timeout.ms", "400000"), "must not be more than kafka.client.max.poll.interval.ms = 300000"),
            (("max.poll.interval.ms", "5000"), "kafka.client.session.timeout.ms = 10000 must not be more"),
        ] {
            let reported = errors(&[bad]);
            assert!(reported.len() == 1 && reported[0].contains(part), "{bad:?}: {reported:?}");
        }
    }
}
