//! librdkafka's own flush, which the binding lacks. The binding raises the flushing flag only for an instant, every 100
//! ms; a broker thread that wakes up after that instant sends nothing.

use std::time::Duration;

use rdkafka::bindings::rd_kafka_flush;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::types::RDKafkaRespErr;

/// Sends partial batches until no message is left (`true`) or `at_most` has passed.
///
/// Failed messages are left until their reports are polled: poll meanwhile, from another thread. Blocks.
#[expect(unsafe_code, reason = "a function of librdkafka that the binding lacks")]
pub(super) fn flush(producer: &BaseProducer, at_most: Duration) -> bool {
    let timeout_ms = i32::try_from(at_most.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the pointer is that of a live client, which the borrow keeps alive during the call; the function takes
    // nothing else that could dangle, and may be called from any thread at any time.
    let outcome = unsafe { rd_kafka_flush(producer.client().native_ptr(), timeout_ms) };
    outcome == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
}
