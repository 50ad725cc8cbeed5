//! Takes the place of `kafka` in a build without that feature: brokers are refused.

use std::sync::Arc;

use super::{KafkaSettings, Log, LogError, LogErrorKind, Result};

/// # Errors
/// Always [`LogErrorKind::Misconfigured`].
pub fn connect_kafka(settings: KafkaSettings) -> Result<Arc<dyn Log>> {
    let brokers = settings.brokers;
    let message = format!("Kafka at {brokers}: this build has no Kafka client; {}", crate::FULL_BUILD);
    Err(LogError::new(LogErrorKind::Misconfigured, message))
}

/// No client, so no fault of a setting can be found.
#[must_use]
pub fn client_setting_fault(_key: &str, _value: &str) -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_refused_with_the_build_that_reaches_them_and_client_settings_are_not() {
        let settings = KafkaSettings { brokers: "kafka:9092".to_owned(), ..KafkaSettings::default() };
        let error = connect_kafka(settings).err().unwrap();
        assert_eq!(error.kind, LogErrorKind::Misconfigured);
        assert_eq!(
            error.to_string(),
            "log: Kafka at kafka:9092: this build has no Kafka client; build without --no-default-features to get one"
        );
        assert_eq!(client_setting_fault("fetch.max.bytes", "-7"), None);
    }
}
