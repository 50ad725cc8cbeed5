//! A stored chunk: `version u8 | log-append time i64 LE | raw length u32 LE | checksum u64 LE | lz4 block of an encoded
//! batch`. The checksum covers all other bytes and the chunk's key.

#[cfg(feature = "fuzz")]
pub(super) mod fuzz;

use std::ops::Range;

use super::super::{LogError, LogErrorKind, RecordBatch, Result};
use super::checksum::checksum;

const VERSION: u8 = 2;
/// The bytes before the checksum.
const HEADER_BYTES: usize = 13;
const CHECKSUM_BYTES: usize = 8;
/// Uncompressed size of one chunk. Compressed it stays well below 256 KiB; an incompressible one fits a 512 KiB page.
pub(super) const TARGET_BYTES: usize = 250_000;
/// The largest allocation that a damaged length field can cause.
const MAX_RAW_BYTES: usize = 1 << 30;

/// The most that one byte of an lz4 block can expand to: a larger length is refused before it is allocated.
const MOST_EXPANSION: usize = 255;

/// The key of a stored chunk. A chunk written under another key is damaged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: i32,
    pub(super) first_offset: i64,
}

/// The reason why stored bytes are damaged.
pub(super) type Damage = &'static str;

struct Header {
    time_ms: i64,
    raw_len: usize,
}

pub(super) fn encode(place: Place<'_>, batch: &RecordBatch, range: Range<usize>, time_ms: i64) -> Result<Vec<u8>> {
    let mut raw = Vec::with_capacity(TARGET_BYTES);
    batch.encode(range, &mut raw);
    let raw_len = u32::try_from(raw.len())
        .ok()
        .filter(|_| raw.len() <= MAX_RAW_BYTES)
        .ok_or_else(|| LogError::new(LogErrorKind::BadRecord, "a record is too large for the embedded log"))?;
    let block = lz4_flex::block::compress(&raw);
    let mut out = Vec::with_capacity(HEADER_BYTES + CHECKSUM_BYTES + block.len());
    out.push(VERSION);
    out.extend_from_slice(&time_ms.to_le_bytes());
    out.extend_from_slice(&raw_len.to_le_bytes());
    let checksum = sum(place, &out, &block);
    out.extend_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(&block);
    Ok(out)
}

/// Returns the time at which the chunk was appended, after verifying all of it.
pub(super) fn time_ms(place: Place<'_>, stored: &[u8]) -> std::result::Result<i64, Damage> {
    verified(place, stored).map(|(header, _)| header.time_ms)
}

pub(super) fn decode(place: Place<'_>, stored: &[u8]) -> std::result::Result<(i64, RecordBatch), Damage> {
    let (header, block) = verified(place, stored)?;
    if header.raw_len / MOST_EXPANSION > block.len() {
        return Err("its length field is wrong");
    }
    let raw = lz4_flex::block::decompress(block, header.raw_len).map_err(|_| "it cannot be decompressed")?;
    if raw.len() != header.raw_len {
        return Err("its length field is wrong");
    }
    let batch = RecordBatch::decode(&raw).ok_or("its records cannot be decoded")?;
    Ok((header.time_ms, batch))
}

fn verified<'a>(place: Place<'_>, stored: &'a [u8]) -> std::result::Result<(Header, &'a [u8]), Damage> {
    let (head, rest) = stored.split_first_chunk::<HEADER_BYTES>().ok_or("it is too short")?;
    let (checksum, block) = rest.split_first_chunk::<CHECKSUM_BYTES>().ok_or("it is too short")?;
    if u64::from_le_bytes(*checksum) != sum(place, head, block) {
        return Err("its checksum is wrong");
    }
    let [version, t0, t1, t2, t3, t4, t5, t6, t7, l0, l1, l2, l3] = *head;
    let raw_len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if version != VERSION {
        return Err("it has a format that this build does not read");
    }
    if raw_len > MAX_RAW_BYTES {
        return Err("it is too long");
    }
    Ok((Header { time_ms: i64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]), raw_len }, block))
}

fn sum(place: Place<'_>, head: &[u8], block: &[u8]) -> u64 {
    let Place { topic, partition, first_offset } = place;
    checksum(&[topic.as_bytes(), &partition.to_le_bytes(), &first_offset.to_le_bytes(), head, block])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLACE: Place<'_> = Place { topic: "events", partition: 3, first_offset: 1_200 };

    fn batch(values: &[Vec<u8>]) -> RecordBatch {
        let mut batch = RecordBatch::new();
        for value in values {
            batch.push(b"key", Some(value), |_| {}).unwrap();
        }
        batch
    }

    proptest! {
        #[test]
        fn every_changed_byte_is_detected(
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..8),
            at in any::<prop::sample::Index>(),
            change in 1..=u8::MAX,
        ) {
            let batch = batch(&values);
            let mut stored = encode(PLACE, &batch, 0..batch.len(), 7).unwrap();
            prop_assert_eq!(decode(PLACE, &stored).unwrap(), (7, batch));
            prop_assert_eq!(time_ms(PLACE, &stored), Ok(7));
            let at = at.index(stored.len());
            stored[at] ^= change;
            prop_assert!(decode(PLACE, &stored).is_err());
            prop_assert!(time_ms(PLACE, &stored).is_err());
        }

        #[test]
        fn a_shortened_or_lengthened_chunk_is_detected(
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..8),
            at in any::<prop::sample::Index>(),
        ) {
            let batch = batch(&values);
            let mut stored = encode(PLACE, &batch, 0..batch.len(), 7).unwrap();
            prop_assert!(decode(PLACE, &stored[..at.index(stored.len())]).is_err());
            stored.push(0);
            prop_assert!(decode(PLACE, &stored).is_err());
        }
    }

    #[test]
    fn a_chunk_with_a_wrong_length_field_is_damaged() {
        let batch = batch(&[b"value".to_vec()]);
        let stored = encode(PLACE, &batch, 0..1, 7).unwrap();
        let (head, block) = (&stored[..HEADER_BYTES], &stored[HEADER_BYTES + CHECKSUM_BYTES..]);
        let [.., l0, l1, l2, l3] = *head else { panic!("a head of {} bytes", head.len()) };
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        for claimed in [length, length - 1, length + 1, 1 << 30] {
            let head = [&head[..9], &claimed.to_le_bytes()].concat();
            let stored = [&head, &sum(PLACE, &head, block).to_le_bytes()[..], block].concat();
            assert_eq!(decode(PLACE, &stored).is_ok(), claimed == length, "{claimed} instead of {length}");
        }
    }

    #[test]
    fn a_chunk_of_another_place_is_damaged() {
        let batch = batch(&[b"value".to_vec()]);
        let stored = encode(PLACE, &batch, 0..1, 7).unwrap();
        for place in
            [Place { topic: "event", ..PLACE }, Place { partition: 2, ..PLACE }, Place { first_offset: 1_201, ..PLACE }]
        {
            assert_eq!(decode(place, &stored).err(), Some("its checksum is wrong"), "{place:?}");
        }
    }
}
