//! Which settings are never shown. The word list masks more than librdkafka's own flag for sensitive settings; a test
//! compares it with librdkafka's source.

use std::borrow::Cow;

use crate::log::client_setting_fault;
use crate::redact::{MASK, without_credentials};

/// A setting is secret if its name contains any of these.
const SECRET_WORDS: [&str; 12] = [
    "password",
    "passphrase",
    "passwd",
    "secret",
    "credential",
    "jaas",
    ".pem",
    "ssl.key.",
    "private.key",
    "username",
    "oauthbearer.config",
    "oauthbearer.extensions",
];

/// Whether the value of a setting must never be shown.
pub(super) fn is_secret(path: &str) -> bool {
    // The address or the file of a token is not secret.
    let is_token = path.ends_with("token");
    is_token || SECRET_WORDS.iter().any(|word| path.contains(word))
}

/// Whether the Kafka client does not know a setting: it may be a secret whose name was mistyped.
fn is_unknown(path: &str) -> bool {
    let name = path.strip_prefix("kafka.client.");
    let fault = name.and_then(|name| client_setting_fault(name, ""));
    fault.is_some_and(|fault| fault.starts_with("No such configuration property"))
}

/// The value of a setting as it may be shown.
pub(super) fn shown<'a>(path: &str, text: &'a str) -> Cow<'a, str> {
    if is_secret(path) || is_unknown(path) { Cow::Borrowed(MASK) } else { without_credentials(text) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// `_RK_SENSITIVE` in librdkafka 2.12.1, so that the test needs no source.
    const SENSITIVE: [&str; 12] = [
        "ssl.key.location",
        "ssl.key.password",
        "ssl.key.pem",
        "ssl_key",
        "ssl.ca.pem",
        "ssl.keystore.password",
        "sasl.username",
        "sasl.password",
        "sasl.oauthbearer.config",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.assertion.private.key.passphrase",
        "sasl.oauthbearer.assertion.private.key.pem",
    ];

    /// The settings that the source of the librdkafka which is linked flags, if its crate's source is there.
    fn sensitive_of_the_source() -> Option<BTreeSet<String>> {
        let home = std::env::var_os("CARGO_HOME")
            .map(std::path::PathBuf::from)
            .or_else(|| Some(std::path::PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
        let folders = std::fs::read_dir(home.join("registry/src")).ok()?.flatten();
        let crates = folders.filter_map(|folder| std::fs::read_dir(folder.path()).ok()).flatten().flatten();
        let newest =
            crates.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains("/rdkafka-sys-")).max()?;
        let source = std::fs::read_to_string(newest.join("librdkafka/src/rdkafka_conf.c")).ok()?;
        let (_, table) = source.split_once("rd_kafka_properties[] = {")?;
        let (table, _) = table.split_once("\n};")?;
        // The flags are followed by the name, the first text in quotes.
        let names = table.split("_RK_SENSITIVE").skip(1).filter_map(|rest| rest.split('"').nth(1));
        Some(names.map(str::to_owned).collect())
    }

    /// Only the client knows its names.
    #[test]
    #[cfg(feature = "kafka")]
    fn a_secret_under_a_mistyped_name_is_masked() {
        for name in ["sasl.pasword", "sasl.pwd", "sasl.passwort"] {
            assert_eq!(shown(&format!("kafka.client.{name}"), "hush"), MASK, "{name}");
        }
        assert_eq!(shown("kafka.client.linger.ms", "5"), "5");
    }

    #[test]
    fn all_that_librdkafka_calls_sensitive_is_masked() {
        let in_source = sensitive_of_the_source().unwrap_or_default();
        assert!(in_source.is_empty() || in_source.len() > 8, "the source is read wrongly: {in_source:?}");
        for name in in_source.iter().map(String::as_str).chain(SENSITIVE).filter(|name| *name != "ssl_key") {
            assert!(is_secret(&format!("kafka.client.{name}")), "{name} is shown");
        }
        for more in [
            "ssl.certificate.pem",
            "sasl.jaas.config",
            "ssl.truststore.password",
            "sasl.oauthbearer.client.credentials.client.secret",
            "sasl.oauthbearer.assertion.private.key.file",
            "sasl.oauthbearer.token",
        ] {
            assert!(is_secret(&format!("kafka.client.{more}")), "{more} is shown");
        }
        for open in
            ["sasl.mechanism", "sasl.oauthbearer.token.endpoint.url", "ssl.ca.location", "ssl.keystore.location"]
        {
            assert!(!is_secret(&format!("kafka.client.{open}")), "{open} is masked");
        }
        for setting in super::super::SETTINGS {
            assert!(!is_secret(setting.path), "{} is masked", setting.path);
        }
    }
}
