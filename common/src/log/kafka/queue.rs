//! A partition's queue, read many messages at a time. The binding reads one at a time and looks at the clock several times
//! for each: 4 to 7 % of what a distributor costs.
#![expect(unsafe_code, reason = "a function of librdkafka that the binding lacks")]

use std::collections::VecDeque;
use std::ffi::CString;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rdkafka::bindings::{
    rd_kafka_consume_batch_queue, rd_kafka_message_t, rd_kafka_queue_destroy, rd_kafka_queue_get_partition,
    rd_kafka_queue_t,
};
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::fetched::Fetched;
use super::rebalance::RebalanceContext;

/// Messages taken at a time. They are as large as they like, so few enough to leave the rest in the queue, which is bounded by
/// its bytes.
const AT_ONCE: usize = 128;

/// Messages of one partition that is split off from its consumer, in their order.
pub(super) struct FetchQueue {
    /// Taken off the queue.
    taken: VecDeque<Fetched>,
    queue: NonNull<rd_kafka_queue_t>,
    /// Keeps the partition split off and its callback alive, and with it the client.
    _split_off: PartitionQueue<RebalanceContext>,
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for FetchQueue {}

impl Drop for FetchQueue {
    fn drop(&mut self) {
        // SAFETY: the handle is ours, and not used after this; the client is still there, for `_split_off` has it.
        unsafe { rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

impl FetchQueue {
    /// Splits a partition off. `wake` is called whenever the queue was empty and is no longer, on any thread.
    ///
    /// `None` when librdkafka has no such queue.
    pub(super) fn split_off(
        consumer: &Arc<BaseConsumer<RebalanceContext>>,
        topic: &str,
        partition: i32,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Option<Self> {
        let mut split_off = consumer.split_partition_queue(topic, partition)?;
        split_off.set_nonempty_callback(wake);
        let topic = CString::new(topic).ok()?;
        // SAFETY: the client is live, and the name ends with a zero and is copied.
        let queue = unsafe { rd_kafka_queue_get_partition(consumer.client().native_ptr(), topic.as_ptr(), partition) };
        Some(Self { taken: VecDeque::new(), queue: NonNull::new(queue)?, _split_off: split_off })
    }

    /// The next message, if one is there. Never waits.
    pub(super) fn next(&mut self) -> Option<&Fetched> {
        if self.taken.is_empty() {
            self.take();
        }
        self.taken.front()
    }

    /// Lets go of the next message.
    pub(super) fn advance(&mut self) {
        self.taken.pop_front();
    }

    fn take(&mut self) {
        let mut messages: [*mut rd_kafka_message_t; AT_ONCE] = [ptr::null_mut(); AT_ONCE];
        // SAFETY: the queue is live, and there is room for as many messages as it is told.
        let count =
            unsafe { rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, messages.as_mut_ptr(), messages.len()) };
        // Less than none is an error, which comes by itself as a message too.
        let count = usize::try_from(count).unwrap_or_default().min(AT_ONCE);
        let taken = messages[..count].iter().filter_map(|message| NonNull::new(*message));
        // SAFETY: each was returned just now and to nobody else. They do not leave this queue, which keeps the client.
        self.taken.extend(taken.map(|message| unsafe { Fetched::from_raw(message) }));
    }
}
