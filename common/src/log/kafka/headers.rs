//! The headers of a record as bytes. The binding panics at a name that is not UTF-8, which any producer may send: one
//! record would stop every reader of its partition for good.

use std::ffi::CStr;
use std::ptr;

use rdkafka::bindings::{rd_kafka_header_get_all, rd_kafka_message_headers};
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr;

/// Calls `visit` with the name and the value of each header, in order; a null value is an empty one.
#[expect(unsafe_code, reason = "the binding takes names for UTF-8, and panics")]
pub(super) fn visit_headers(message: &BorrowedMessage<'_>, mut visit: impl FnMut(&[u8], &[u8])) {
    let mut headers = ptr::null_mut();
    // SAFETY: the message is live for as long as it is borrowed, and it keeps its headers.
    let outcome = unsafe { rd_kafka_message_headers(message.ptr(), &raw mut headers) };
    if outcome != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        // The message has none.
        return;
    }
    for index in 0.. {
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
        // SAFETY: as above, and each pointer is written before it is used.
        let outcome = unsafe { rd_kafka_header_get_all(headers, index, &raw mut name, &raw mut value, &raw mut size) };
        if outcome != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            // There is no header of this index.
            return;
        }
        // SAFETY: librdkafka ends every name with a zero.
        let name = unsafe { CStr::from_ptr(name) }.to_bytes();
        let value = if value.is_null() {
            &[][..]
        } else {
            // SAFETY: a value that is not null has `size` bytes, which live as long as the message.
            unsafe { std::slice::from_raw_parts(value.cast(), size) }
        };
        visit(name, value);
    }
}
