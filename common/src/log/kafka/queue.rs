//! A partition's queue, read many messages at a time. The binding reads one at a time and reads the clock several times
//! for each, which took 4 to 7 % of a distributor's CPU time.
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

/// Messages taken at a time. Their size is unbounded, so this number is small: the others stay in the queue, which is
/// bounded in bytes.
const AT_ONCE: usize = 128;

/// The messages of one partition that is split off from its consumer, in order.
pub(super) struct FetchQueue {
    /// Messages taken off the queue.
    taken: VecDeque<Fetched>,
    queue: NonNull<rd_kafka_queue_t>,
    /// Keeps the partition split off, its callback and the client alive.
    _split_off: PartitionQueue<RebalanceContext>,
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for FetchQueue {}

impl Drop for FetchQueue {
    fn drop(&mut self) {
        // SAFETY: this is the only handle, and it is not used after this; `_split_off` keeps the client alive.
        unsafe { rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

impl FetchQueue {
    /// Splits a partition off. `wake` is called, on any thread, whenever the empty queue receives a message.
    ///
    /// `None` if librdkafka has no such queue.
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

    /// The next message, if there is one. Never waits.
    pub(super) fn next(&mut self) -> Option<&Fetched> {
        if self.taken.is_empty() {
            self.take();
        }
        self.taken.front()
    }

    /// Releases the next message.
    pub(super) fn advance(&mut self) {
        self.taken.pop_front();
    }

    fn take(&mut self) {
        let mut messages: [*mut rd_kafka_message_t; AT_ONCE] = [ptr::null_mut(); AT_ONCE];
        // SAFETY: the queue is live, and there is room for the given number of messages.
        let count =
            unsafe { rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, messages.as_mut_ptr(), messages.len()) };
        // A negative count is an error, which also arrives as a message.
        let count = usize::try_from(count).unwrap_or_default().min(AT_ONCE);
        let taken = messages[..count].iter().filter_map(|message| NonNull::new(*message));
        // SAFETY: each was just returned and has no other owner. They do not leave this queue, which keeps the client
        // alive.
        self.taken.extend(taken.map(|message| unsafe { Fetched::from_raw(message) }));
    }
}
