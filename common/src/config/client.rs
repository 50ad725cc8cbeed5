//! The section `kafka`, and librdkafka's settings below `kafka.client`.

use super::Kafka;
use std::collections::BTreeMap;

use super::check::Checker;
use super::group::check_group_protocol;
use super::secrets::is_secret;
use super::tree::Raw;
use super::values::topic_name;
use crate::log::{RESERVED_CLIENT_SETTINGS, client_setting_fault};
use crate::redact::MASK;

/// Settings that load code or run a command. A configuration often comes from another source than the program and must
/// not bring code.
const CODE_SETTINGS: [(&str, &str); 5] = [
    ("plugin.library.paths", "it loads code"),
    ("sasl.kerberos.kinit.cmd", "it runs a command"),
    ("ssl.engine.id", "it loads code"),
    ("ssl.engine.location", "it loads code"),
    ("interceptors", "it is for code that plugins bring"),
];
const MECHANISM_KEYS: [&str; 2] = ["sasl.mechanism", "sasl.mechanisms"];
/// The mechanisms built in: Kerberos needs libsasl2 and OIDC libcurl, and neither is linked.
const MECHANISMS: [&str; 4] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"];
const PROVIDERS: &str = "ssl.providers";

impl Checker<'_> {
    pub(super) fn kafka(&mut self) -> Option<Kafka> {
        let brokers = self.optional("kafka.brokers", brokers);
        let group = self.required("kafka.group", String::new(), topic_name);
        let instance_id = self.optional("kafka.instance_id", topic_name);
        let client = self.tree.section("kafka.client.");
        for (key, raw) in &client {
            if let Some(fault) = client_fault(key, raw) {
                self.errors.push(format!("kafka.client.{key} ({}): {fault}", raw.origin));
            }
        }
        self.errors.extend(check_group_protocol(&client));
        self.errors.extend(sasl_fault(&client));
        let client = client.into_iter().map(|(key, raw)| (key, raw.text)).collect();
        brokers.map(|brokers| Kafka { brokers, group, instance_id, client })
    }
}

/// librdkafka refuses a mechanism only when a client is created, and its default mechanism is not built in.
fn sasl_fault(client: &BTreeMap<String, Raw>) -> Option<String> {
    let is_sasl = |raw: &&Raw| raw.text.get(..4).is_some_and(|head| head.eq_ignore_ascii_case("sasl"));
    let built_in = MECHANISMS.join(", ");
    match MECHANISM_KEYS.iter().find_map(|key| Some((key, client.get(*key)?))) {
        Some((key, raw)) if !MECHANISMS.contains(&raw.text.as_str()) => {
            let (origin, text) = (&raw.origin, &raw.text);
            Some(format!("kafka.client.{key} ({origin}): '{text}' is not one of those that are built in: {built_in}"))
        }
        Some(_) => None,
        None => client.get("security.protocol").filter(is_sasl).map(|raw| {
            let (origin, text) = (&raw.origin, &raw.text);
            format!("kafka.client.security.protocol ({origin}): '{text}' needs kafka.client.sasl.mechanism: {built_in}")
        }),
    }
}

fn client_fault(key: &str, raw: &Raw) -> Option<String> {
    if RESERVED_CLIENT_SETTINGS.contains(&key) {
        return Some("is set by Event Distributor, exactly-once rests on it".to_owned());
    }
    if let Some((_, why)) = CODE_SETTINGS.iter().find(|(name, _)| *name == key) {
        return Some(format!("cannot be set: {why}, which a configuration must not bring"));
    }
    // OpenSSL loads a named provider from the administrator's folder, but a path would load any library.
    let is_plain =
        |name: &str| name.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-' | ' '));
    if key == PROVIDERS && !raw.text.split(',').all(is_plain) {
        return Some(
            "must be names of providers such as 'default,legacy', not paths: those would load any code".to_owned(),
        );
    }
    let fault = client_setting_fault(key, &raw.text)?;
    if is_secret(key) {
        return Some(format!("librdkafka refuses the value ({MASK})"));
    }
    Some(fault)
}

fn brokers(text: &str) -> Result<String, String> {
    for broker in text.split(',').map(str::trim) {
        if let Some((protocol, rest)) = broker.split_once("://") {
            return Err(format!(
                "'{broker}' has a protocol; give '{rest}', and kafka.client.security.protocol = \"{protocol}\""
            ));
        }
        let (host, port) = broker.rsplit_once(':').unwrap_or((broker, ""));
        let is_host =
            |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '-' | '_' | '[' | ']' | ':' | '%');
        let is_sound = !host.is_empty() && host.chars().all(is_host) && (!host.contains(':') || host.starts_with('['));
        let port = port.parse::<u16>().unwrap_or_default();
        if port == 0 || !is_sound {
            let hint =
                if is_sound && !broker.contains(':') { format!("; did you mean {host}:9092?") } else { String::new() };
            return Err(format!("'{broker}' is not host:port, in host:port[,host:port]{hint}"));
        }
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::{ConfigErrors, ConfigTree};
    use super::*;

    fn errors(settings: &[(&str, &str)]) -> Vec<String> {
        let mut tree = ConfigTree::default();
        for (key, text) in settings {
            tree.set(key, text, "x.toml");
        }
        tree.check().err().map(|errors| errors.0).unwrap_or_default()
    }

    #[test]
    fn brokers_are_hosts_with_ports() {
        for good in ["k:9092", "k-0.x_y:1, k-1:65535", "[::1]:9092", "10.0.0.1:9092", "[fe80::1%eth0]:9092"] {
            assert_eq!(brokers(good).as_deref(), Ok(good));
        }
        for (bad, part) in [
            ("k", "'k' is not host:port, in host:port[,host:port]; did you mean k:9092?"),
            ("k:", "'k:' is not host:port"),
            (":9092", "is not host:port"),
            ("k:0", "is not host:port"),
            ("k:65536", "is not host:port"),
            ("k:9092,", "'' is not host:port"),
            ("::1:9092", "is not host:port"),
            ("k:9092;l:9092", "is not host:port"),
            ("k l:9092", "is not host:port"),
            ("SASL_SSL://k:9093", "give 'k:9093', and kafka.client.security.protocol = \"SASL_SSL\""),
        ] {
            let reported = errors(&[("kafka.brokers", bad)]).join("\n");
            assert!(reported.contains(part), "{bad}: {reported}");
        }
        let reported = errors(&[("kafka.brokers", "you:hush@k:9092")]).join("\n");
        assert!(reported.contains("is not host:port") && !reported.contains("hush"), "{reported}");
    }

    #[test]
    fn settings_that_load_code_or_run_commands_are_refused() {
        for (key, value, why) in [
            ("plugin.library.paths", "/tmp/x.so", "it loads code"),
            ("sasl.kerberos.kinit.cmd", "touch /tmp/x", "it runs a command"),
            ("ssl.engine.location", "/tmp/x.so", "it loads code"),
            ("ssl.engine.id", "dynamic", "it loads code"),
            ("interceptors", "x", "plugins"),
            ("ssl.providers", "default,/tmp/x", "not paths"),
            ("ssl.providers", "../x", "not paths"),
            ("acks", "1", "exactly-once rests on it"),
            ("request.required.acks", "1", "exactly-once rests on it"),
        ] {
            let reported = errors(&[(&format!("kafka.client.{key}"), value)]);
            assert!(reported.len() == 1 && reported[0].contains(why), "{key}: {reported:?}");
        }
        assert_eq!(errors(&[("kafka.client.ssl.providers", "default, legacy")]), Vec::<String>::new());
    }

    #[test]
    fn a_mechanism_is_named_and_built_in() {
        for (settings, part) in [
            (
                &[("sasl.mechanism", "GSSAPI")][..],
                "'GSSAPI' is not one of those that are built in: PLAIN, SCRAM-SHA-256",
            ),
            (&[("sasl.mechanisms", "AWS_MSK_IAM")], "kafka.client.sasl.mechanisms (x.toml): 'AWS_MSK_IAM'"),
            (&[("security.protocol", "sasl_ssl")], "'sasl_ssl' needs kafka.client.sasl.mechanism: PLAIN"),
            (&[("security.protocol", "SASL_SSL"), ("sasl.mechanism", "PLAIN")], ""),
            (&[("security.protocol", "SSL")], ""),
        ] {
            let settings: Vec<_> = settings.iter().map(|(key, text)| (format!("kafka.client.{key}"), *text)).collect();
            let settings: Vec<_> = settings.iter().map(|(key, text)| (key.as_str(), *text)).collect();
            let reported = errors(&settings);
            assert!(
                reported.len() == usize::from(!part.is_empty()) && reported.join("").contains(part),
                "{settings:?}: {reported:?}"
            );
        }
    }

    #[test]
    fn errors_of_librdkafka_are_reported_with_all_others_and_their_origin() {
        let reported = errors(&[
            ("kafka.client.sasl.pasword", "hush"),
            ("kafka.client.fetch.max.bytes", "-7"),
            ("kafka.client.security.protocol", "TLS"),
            ("kafka.client.dr_cb", "x"),
            ("flush.max_rows", "none"),
        ]);
        for part in [
            "kafka.client.sasl.pasword (x.toml): No such configuration property",
            "kafka.client.fetch.max.bytes (x.toml): ",
            "kafka.client.security.protocol (x.toml): Invalid value \"TLS\"",
            "kafka.client.dr_cb (x.toml): ",
            "flush.max_rows (x.toml)",
        ] {
            assert!(reported.iter().any(|error| error.contains(part)), "{part:?} is missing in {reported:#?}");
        }
        assert!(reported.len() == 5 && !reported.join("").contains("hush"), "{reported:#?}");
    }

    #[test]
    fn secrets_are_in_no_message() -> Result<(), ConfigErrors> {
        let reported = errors(&[
            ("kafka.client.sasl.password", "hush\0hush"),
            ("landing.sqs_queue_url", "sqs://you:hush@host/q"),
            ("landing.url", "s3://you:hush@lake/x"),
            ("trusted.url", "https://you:hush@host/x"),
            ("http.listen", "http://you:hush@0.0.0.0"),
            ("kafka.brokers", "http://you:hush@k:9092"),
        ]);
        assert!(reported.len() >= 5 && !reported.join("").contains("hush"), "{reported:#?}");
        let mut tree = ConfigTree::default();
        tree.set("kafka.client.sasl.oauthbearer.token.endpoint.url", "https://you:hush@host/token", "x.toml");
        tree.set("landing.sqs_queue_url", "https://host/q?X-Amz-Signature=hush", "x.toml");
        assert!(!tree.print().contains("hush") && tree.print().contains("@host/token"), "{}", tree.print());
        Ok(())
    }
}
