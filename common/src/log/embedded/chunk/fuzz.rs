//! The input is a stored chunk, a stored chunk without its checksum (which would stop nearly every mutation), and an
//! uncompressed batch.

#![allow(clippy::expect_used, reason = "an oracle reports a failure by a panic")]

use super::{CHECKSUM_BYTES, HEADER_BYTES, MOST_EXPANSION, Place, RecordBatch, decode, encode, sum, time_ms};

const PLACE: Place<'_> = Place { topic: "events", partition: 3, first_offset: 1_200 };

/// A decoded chunk is encoded again as the same, and is no larger than its bytes allow.
pub fn chunk(input: &[u8]) {
    stored(input);
    if let Some((head, block)) = input.split_at_checked(HEADER_BYTES) {
        stored(&[head, &sum(PLACE, head, block).to_le_bytes(), block].concat());
    }
    if let Some(batch) = RecordBatch::decode(input) {
        assert_eq!(encoded(&batch), input, "a batch");
        check(&batch);
    }
}

fn stored(stored: &[u8]) {
    let decoded = decode(PLACE, stored);
    let Ok((at_ms, batch)) = decoded else { return };
    assert_eq!(time_ms(PLACE, stored), Ok(at_ms));
    let (_, block) = stored.split_at(HEADER_BYTES + CHECKSUM_BYTES);
    let raw = encoded(&batch);
    assert!(raw.len() <= block.len() * MOST_EXPANSION, "{} bytes from {}", raw.len(), block.len());
    assert_eq!(stored[9..HEADER_BYTES], u32::try_from(raw.len()).expect("a small batch").to_le_bytes(), "its length");
    let again = encode(PLACE, &batch, 0..batch.len(), at_ms).expect("a batch that was stored");
    assert_eq!(decode(PLACE, &again), Ok((at_ms, batch)));
}

fn encoded(batch: &RecordBatch) -> Vec<u8> {
    let mut raw = Vec::new();
    batch.encode(0..batch.len(), &mut raw);
    raw
}

/// Every record can be read and copied to another batch.
fn check(batch: &RecordBatch) {
    let mut copy = RecordBatch::new();
    for record in batch.iter() {
        copy.push_record(&record).expect("a record that was in a batch");
        let bytes = record.headers.iter().map(|(name, value)| 5 + name.len() + value.len()).sum::<usize>();
        assert!(bytes <= batch.size_bytes());
    }
    assert_eq!(&copy, batch);
}
