//! Asks the brokers which operations this client may do on topics and groups (KIP-430). The binding lacks these calls.
#![expect(unsafe_code, reason = "functions of librdkafka that the binding lacks")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, c_char};
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::bindings::{
    rd_kafka_AclOperation_t, rd_kafka_AdminOptions_destroy, rd_kafka_AdminOptions_new,
    rd_kafka_AdminOptions_set_include_authorized_operations, rd_kafka_AdminOptions_set_request_timeout,
    rd_kafka_AdminOptions_t, rd_kafka_ConsumerGroupDescription_authorized_operations,
    rd_kafka_ConsumerGroupDescription_error, rd_kafka_ConsumerGroupDescription_group_id,
    rd_kafka_DescribeConsumerGroups, rd_kafka_DescribeConsumerGroups_result_groups, rd_kafka_DescribeTopics,
    rd_kafka_DescribeTopics_result_topics, rd_kafka_TopicCollection_destroy, rd_kafka_TopicCollection_of_topic_names,
    rd_kafka_TopicDescription_authorized_operations, rd_kafka_TopicDescription_error, rd_kafka_TopicDescription_name,
    rd_kafka_admin_op_t, rd_kafka_error_code, rd_kafka_error_destroy, rd_kafka_error_t,
    rd_kafka_event_DescribeConsumerGroups_result, rd_kafka_event_DescribeTopics_result, rd_kafka_event_destroy,
    rd_kafka_event_error, rd_kafka_event_t, rd_kafka_queue_destroy, rd_kafka_queue_new, rd_kafka_queue_poll,
    rd_kafka_queue_t, rd_kafka_t,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;

use super::client::LoggingContext;
use crate::log::{Operation, Resource, Right};

/// What a broker says about a topic or a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Permitted {
    Operations(BTreeSet<Operation>),
    /// The client may not even ask.
    Nothing,
    /// The resource does not exist, or the broker does not tell.
    Unknown,
}

/// The part of each right that is missing.
pub(super) fn missing(needed: &[Right], permitted: &BTreeMap<Resource, Permitted>) -> Vec<Right> {
    let lacking = needed.iter().filter_map(|right| {
        let operations: BTreeSet<Operation> = match permitted.get(&right.resource) {
            None | Some(Permitted::Unknown) => return None,
            Some(Permitted::Nothing) => right.operations.clone(),
            Some(Permitted::Operations(permitted)) => right.operations.difference(permitted).copied().collect(),
        };
        (!operations.is_empty()).then(|| Right { operations, ..right.clone() })
    });
    lacking.collect()
}

/// Asks for the operations that this client may do on the resources of `needed`. Blocks.
pub(super) fn ask(
    client: &BaseConsumer<LoggingContext>,
    needed: &[Right],
    patience: Duration,
) -> KafkaResult<BTreeMap<Resource, Permitted>> {
    let native = client.client().native_ptr();
    let mut permitted = BTreeMap::new();
    let (mut topics, mut groups) = (Vec::new(), Vec::new());
    for right in needed {
        match &right.resource {
            Resource::Topic(name) => topics.push(name.clone()),
            Resource::Group(name) => groups.push(name.clone()),
        }
    }
    let asking = Asking { native, patience, _client: client };
    if !topics.is_empty() {
        permitted.extend(asking.topics(&topics)?.into_iter().map(|(name, found)| (Resource::Topic(name), found)));
    }
    if !groups.is_empty() {
        permitted.extend(asking.groups(&groups)?.into_iter().map(|(name, found)| (Resource::Group(name), found)));
    }
    Ok(permitted)
}

struct Asking<'a> {
    native: *mut rd_kafka_t,
    patience: Duration,
    /// Keeps `native` alive.
    _client: &'a BaseConsumer<LoggingContext>,
}

/// Destroyed when it is dropped.
struct Owned<T> {
    pointer: NonNull<T>,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from librdkafka with its destructor, and nothing uses it after this.
        unsafe { (self.destroy)(self.pointer.as_ptr()) }
    }
}

impl<T> Owned<T> {
    fn new(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> KafkaResult<Self> {
        let pointer = NonNull::new(pointer).ok_or(KafkaError::AdminOpCreation("no memory".to_owned()))?;
        Ok(Self { pointer, destroy })
    }

    fn as_ptr(&self) -> *mut T {
        self.pointer.as_ptr()
    }
}

/// Names for C, and pointers to them, which are valid as long as this lives.
struct Names {
    pointers: Vec<*const c_char>,
    _owned: Vec<CString>,
}

impl Names {
    fn new(names: &[String]) -> Self {
        // A topic or group with a zero byte does not exist.
        let owned: Vec<CString> = names.iter().filter_map(|name| CString::new(name.as_str()).ok()).collect();
        Self { pointers: owned.iter().map(|name| name.as_ptr()).collect(), _owned: owned }
    }
}

impl Asking<'_> {
    fn options(&self, operation: rd_kafka_admin_op_t) -> KafkaResult<Owned<rd_kafka_AdminOptions_t>> {
        let patience_ms = i32::try_from(self.patience.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the client is alive.
        let options = unsafe { rd_kafka_AdminOptions_new(self.native, operation) };
        let options = Owned::new(options, rd_kafka_AdminOptions_destroy)?;
        // SAFETY: the options are alive; without a buffer the description of an error is not written.
        unsafe {
            rd_kafka_AdminOptions_set_request_timeout(options.as_ptr(), patience_ms, ptr::null_mut(), 0);
            let error = rd_kafka_AdminOptions_set_include_authorized_operations(options.as_ptr(), 1);
            if !error.is_null() {
                rd_kafka_error_destroy(error);
            }
        }
        Ok(options)
    }

    fn queue(&self) -> KafkaResult<Owned<rd_kafka_queue_t>> {
        // SAFETY: the client is alive.
        Owned::new(unsafe { rd_kafka_queue_new(self.native) }, rd_kafka_queue_destroy)
    }

    /// The answer to the one request that was sent to the queue.
    fn answer(&self, queue: &Owned<rd_kafka_queue_t>) -> KafkaResult<Owned<rd_kafka_event_t>> {
        // The request ends by itself before that.
        let patience_ms = i32::try_from(self.patience.as_millis() * 2).unwrap_or(i32::MAX);
        // SAFETY: the queue is alive.
        let event = unsafe { rd_kafka_queue_poll(queue.as_ptr(), patience_ms) };
        if event.is_null() {
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut));
        }
        let event = Owned::new(event, rd_kafka_event_destroy)?;
        // SAFETY: the event is alive.
        let error = unsafe { rd_kafka_event_error(event.as_ptr()) };
        if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(KafkaError::AdminOp(error.into()));
        }
        Ok(event)
    }

    fn topics(&self, names: &[String]) -> KafkaResult<Vec<(String, Permitted)>> {
        let mut names = Names::new(names);
        // SAFETY: the names are alive, and copied.
        let topics =
            unsafe { rd_kafka_TopicCollection_of_topic_names(names.pointers.as_mut_ptr(), names.pointers.len()) };
        let topics = Owned::new(topics, rd_kafka_TopicCollection_destroy)?;
        let options = self.options(rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS)?;
        let queue = self.queue()?;
        // SAFETY: everything is alive; the request copies its arguments.
        unsafe { rd_kafka_DescribeTopics(self.native, topics.as_ptr(), options.as_ptr(), queue.as_ptr()) };
        let event = self.answer(&queue)?;
        let mut found = Vec::new();
        // SAFETY: the event is alive, and with it its result, the descriptions and what they point to.
        unsafe {
            let result = rd_kafka_event_DescribeTopics_result(event.as_ptr());
            if result.is_null() {
                return Ok(found);
            }
            let mut count = 0;
            let descriptions = rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
            for index in 0..count {
                let description = *descriptions.add(index);
                let mut operations = 0;
                let first = rd_kafka_TopicDescription_authorized_operations(description, &raw mut operations);
                let error = rd_kafka_TopicDescription_error(description);
                let name = text(rd_kafka_TopicDescription_name(description));
                found.push((name, read(error, first, operations)));
            }
        }
        Ok(found)
    }

    fn groups(&self, names: &[String]) -> KafkaResult<Vec<(String, Permitted)>> {
        let mut names = Names::new(names);
        let options = self.options(rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS)?;
        let queue = self.queue()?;
        let (pointers, count) = (names.pointers.as_mut_ptr(), names.pointers.len());
        // SAFETY: everything is alive; the request copies its arguments.
        unsafe { rd_kafka_DescribeConsumerGroups(self.native, pointers, count, options.as_ptr(), queue.as_ptr()) };
        let event = self.answer(&queue)?;
        let mut found = Vec::new();
        // SAFETY: as for topics.
        unsafe {
            let result = rd_kafka_event_DescribeConsumerGroups_result(event.as_ptr());
            if result.is_null() {
                return Ok(found);
            }
            let mut count = 0;
            let descriptions = rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
            for index in 0..count {
                let description = *descriptions.add(index);
                let mut operations = 0;
                let first = rd_kafka_ConsumerGroupDescription_authorized_operations(description, &raw mut operations);
                let error = rd_kafka_ConsumerGroupDescription_error(description);
                let name = text(rd_kafka_ConsumerGroupDescription_group_id(description));
                found.push((name, read(error, first, operations)));
            }
        }
        Ok(found)
    }
}

/// # Safety
/// `name` is null or ends with a zero.
unsafe fn text(name: *const c_char) -> String {
    if name.is_null() {
        return String::new();
    }
    // SAFETY: guaranteed by the caller.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

/// # Safety
/// `error` is null or alive, and `first` is null or points to `count` operations.
unsafe fn read(error: *const rd_kafka_error_t, first: *const rd_kafka_AclOperation_t, count: usize) -> Permitted {
    // SAFETY: guaranteed by the caller; librdkafka takes null for "no error".
    match unsafe { rd_kafka_error_code(error) } {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {}
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED
        | RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED => return Permitted::Nothing,
        _ => return Permitted::Unknown,
    }
    if first.is_null() {
        return Permitted::Unknown;
    }
    // SAFETY: guaranteed by the caller.
    let operations = unsafe { std::slice::from_raw_parts(first, count) };
    Permitted::Operations(operations.iter().filter_map(|operation| known(*operation)).collect())
}

fn known(operation: rd_kafka_AclOperation_t) -> Option<Operation> {
    use rd_kafka_AclOperation_t as Acl;
    match operation {
        Acl::RD_KAFKA_ACL_OPERATION_READ => Some(Operation::Read),
        Acl::RD_KAFKA_ACL_OPERATION_WRITE => Some(Operation::Write),
        Acl::RD_KAFKA_ACL_OPERATION_DESCRIBE => Some(Operation::Describe),
        Acl::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS => Some(Operation::DescribeConfigs),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_certainly_not_permitted_is_missing() {
        let topic = |name| Right::of_topic(name, "setting", [Operation::Read, Operation::Write]);
        let group = Right::of_group("g", "setting", Operation::Read);
        let needed = [topic("partly"), topic("whole"), topic("absent"), topic("hidden"), group.clone()];
        let of = |name: &str| Resource::Topic(name.to_owned());
        let permitted = BTreeMap::from([
            (of("partly"), Permitted::Operations([Operation::Read, Operation::Describe].into())),
            (of("whole"), Permitted::Operations([Operation::Read, Operation::Write].into())),
            (of("absent"), Permitted::Unknown),
            (of("hidden"), Permitted::Nothing),
            (group.resource.clone(), Permitted::Nothing),
        ]);
        let expected = [Right::of_topic("partly", "setting", [Operation::Write]), topic("hidden"), group];
        assert_eq!(missing(&needed, &permitted), expected);
        assert_eq!(missing(&needed, &BTreeMap::new()), [], "a broker that does not tell");
    }
}
