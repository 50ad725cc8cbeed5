//! The rights that a client needs at the log, and the message about those that it lacks.

use std::collections::BTreeSet;
use std::fmt;

use super::{Log, LogError, LogErrorKind, Result};

/// The group of readers without a group. librdkafka looks for its coordinator whenever partitions are assigned.
pub const DIRECT_GROUP: &str = "event-distributor-direct";

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    Topic(String),
    Group(String),
}

/// Operations of Kafka's ACLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Read,
    Write,
    Describe,
    DescribeConfigs,
}

/// Operations on a resource that a role needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    pub resource: Resource,
    pub operations: BTreeSet<Operation>,
    /// What gives the resource its name: a setting, or a fixed rule.
    pub named_by: &'static str,
}

impl Right {
    pub fn of_topic(name: &str, named_by: &'static str, operations: impl IntoIterator<Item = Operation>) -> Self {
        let operations = operations.into_iter().collect();
        Self { resource: Resource::Topic(name.to_owned()), operations, named_by }
    }

    pub fn of_group(name: &str, named_by: &'static str, operation: Operation) -> Self {
        Self { resource: Resource::Group(name.to_owned()), operations: BTreeSet::from([operation]), named_by }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(name) => write!(formatter, "topic '{name}'"),
            Self::Group(name) => write!(formatter, "group '{name}'"),
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, operation) in self.operations.iter().enumerate() {
            write!(formatter, "{}{operation:?}", if index == 0 { "" } else { " and " })?;
        }
        write!(formatter, " on {} ({})", self.resource, self.named_by)
    }
}

/// The outcome of the first calls on the log, `asked`, or what explains and completes it: the rights that are missing. A
/// role would otherwise notice them late, some only by a time-out.
///
/// # Errors
/// As [`require_rights`], and the error of `asked`.
pub async fn with_rights<T>(log: &dyn Log, needed: &[Right], asked: Result<T>) -> Result<T> {
    match asked {
        // A log that does not answer does not tell rights either.
        Err(error) if error.kind != LogErrorKind::Misconfigured => Err(error),
        asked => {
            require_rights(log, needed).await?;
            asked
        }
    }
}

/// Names the missing ones of these rights.
///
/// # Errors
/// [`LogErrorKind::Misconfigured`] with all missing rights. A log that does not tell is not refused.
pub async fn require_rights(log: &dyn Log, needed: &[Right]) -> Result<()> {
    let missing = match log.missing_rights(needed).await {
        Ok(missing) => missing,
        Err(error) => {
            tracing::debug!(%error, "the rights at the log are not known; what is missing will show");
            return Ok(());
        }
    };
    if missing.is_empty() {
        return Ok(());
    }
    let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
    let message = format!(
        "Kafka's ACLs do not permit this client: {}. Grant it, or name another resource; docs/permissions.md lists the \
         rights of each command",
        missing.join("; ")
    );
    Err(LogError::new(LogErrorKind::Misconfigured, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_is_shown_with_operation_resource_and_setting() {
        let operations = [Operation::Write, Operation::Read];
        let right = Right::of_topic("events", "log.events_topic", operations);
        assert_eq!(right.to_string(), "Read and Write on topic 'events' (log.events_topic)");
        let right = Right::of_group("g", "kafka.group", Operation::Describe);
        assert_eq!(right.to_string(), "Describe on group 'g' (kafka.group)");
    }
}
