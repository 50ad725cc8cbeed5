//! A message of librdkafka as bytes. The binding's own type panics at a header whose name is not UTF-8. Any producer
//! can send one, and it would stop every reader of its partition permanently.
#![expect(unsafe_code, reason = "the binding cannot return several messages at a time")]

use std::ffi::{CStr, c_void};
use std::ptr::{self, NonNull};

use rdkafka::bindings::{
    rd_kafka_header_get_all, rd_kafka_message_destroy, rd_kafka_message_headers, rd_kafka_message_t,
    rd_kafka_message_timestamp, rd_kafka_timestamp_type_t,
};
use rdkafka::types::RDKafkaRespErr;

/// A message, or an error in its place. It keeps librdkafka's whole fetch in memory until it is dropped.
pub(super) struct Fetched(NonNull<rd_kafka_message_t>);

// SAFETY: a message belongs to the code that took it from its queue, on any thread (librdkafka's INTRODUCTION.md,
// "Threads and callbacks"); nothing else writes to it.
unsafe impl Send for Fetched {}

impl Drop for Fetched {
    fn drop(&mut self) {
        // SAFETY: the message is live, and nothing uses it after this.
        unsafe { rd_kafka_message_destroy(self.0.as_ptr()) }
    }
}

impl Fetched {
    /// Takes ownership of a message.
    ///
    /// # Safety
    /// `message` was returned by librdkafka and has no other owner, and its client outlives the returned value.
    pub(super) unsafe fn from_raw(message: NonNull<rd_kafka_message_t>) -> Self {
        Self(message)
    }

    fn raw(&self) -> &rd_kafka_message_t {
        // SAFETY: the message is live and initialized, and not written to.
        unsafe { self.0.as_ref() }
    }

    /// The error that this is instead of a message, if any.
    pub(super) fn error(&self) -> Option<RDKafkaRespErr> {
        Some(self.raw().err).filter(|error| *error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR)
    }

    /// librdkafka's description of [`Fetched::error`].
    pub(super) fn error_text(&self) -> Option<String> {
        self.error()?;
        // The description of an error takes the place of the value (`rd_kafka_message_setup` in `rdkafka_msg.c`).
        self.value().filter(|text| !text.is_empty()).map(|text| String::from_utf8_lossy(text).into_owned())
    }

    pub(super) fn offset(&self) -> i64 {
        self.raw().offset
    }

    /// An absent key and an empty one are the same.
    pub(super) fn key(&self) -> &[u8] {
        let raw = self.raw();
        // SAFETY: `key` is null or has `key_len` bytes, which live as long as the message.
        unsafe { bytes(raw.key, raw.key_len) }.unwrap_or_default()
    }

    /// `None` for a null value.
    pub(super) fn value(&self) -> Option<&[u8]> {
        let raw = self.raw();
        // SAFETY: `payload` is null or has `len` bytes, which live as long as the message.
        unsafe { bytes(raw.payload, raw.len) }
    }

    /// The broker's append time in milliseconds since the Unix epoch; `None` if the topic keeps another time.
    pub(super) fn append_time_ms(&self) -> Option<i64> {
        let mut kind = rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is live, and `kind` is written to during the call only.
        let time_ms = unsafe { rd_kafka_message_timestamp(self.0.as_ptr(), &raw mut kind) };
        (kind == rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME && time_ms >= 0).then_some(time_ms)
    }

    /// Calls `visit` with the name and the value of each header, in order; a null value is an empty one.
    pub(super) fn visit_headers(&self, mut visit: impl FnMut(&[u8], &[u8])) {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is live, and keeps its headers.
        let outcome = unsafe { rd_kafka_message_headers(self.0.as_ptr(), &raw mut headers) };
        if outcome != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            // The message has none.
            return;
        }
        for index in 0.. {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            // SAFETY: as above, and each pointer is written before it is used.
            let outcome =
                unsafe { rd_kafka_header_get_all(headers, index, &raw mut name, &raw mut value, &raw mut size) };
            if outcome != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                // There is no header of this index.
                return;
            }
            // SAFETY: librdkafka ends every name with a zero.
            let name = unsafe { CStr::from_ptr(name) }.to_bytes();
            // SAFETY: a value is null or has `size` bytes, which live as long as the message.
            let value = unsafe { bytes(value, size) }.unwrap_or_default();
            visit(name, value);
        }
    }
}

/// # Safety
/// `pointer` is null or points to `len` bytes that live for `'a`.
unsafe fn bytes<'a>(pointer: *const c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: guaranteed by the caller.
    (!pointer.is_null()).then(|| unsafe { std::slice::from_raw_parts(pointer.cast(), len) })
}
