//! A stored chunk: `version u8 | log-append time i64 LE | raw length u32 LE | lz4 block of an encoded batch`.

use super::super::{LogError, LogErrorKind, RecordBatch, Result};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 13;
/// Input of one chunk. Compressed it stays well under 256 KiB; an incompressible one fits a 512 KiB page.
pub(super) const TARGET_BYTES: usize = 250_000;
/// What a damaged length field may at most make us allocate.
const MAX_RAW_BYTES: usize = 1 << 30;

pub(super) fn encode(batch: &RecordBatch, range: std::ops::Range<usize>, time_ms: i64) -> Result<Vec<u8>> {
    let mut raw = Vec::with_capacity(TARGET_BYTES);
    batch.encode(range, &mut raw);
    let raw_len = u32::try_from(raw.len())
        .ok()
        .filter(|_| raw.len() <= MAX_RAW_BYTES)
        .ok_or_else(|| LogError::new(LogErrorKind::BadRecord, "a record is too large for the embedded log"))?;
    let block = lz4_flex::block::compress(&raw);
    let mut out = Vec::with_capacity(HEADER_BYTES + block.len());
    out.push(VERSION);
    out.extend_from_slice(&time_ms.to_le_bytes());
    out.extend_from_slice(&raw_len.to_le_bytes());
    out.extend_from_slice(&block);
    Ok(out)
}

pub(super) fn time_ms(stored: &[u8]) -> Result<i64> {
    let bytes = stored.get(1..).and_then(<[u8]>::first_chunk::<8>).ok_or_else(damaged)?;
    Ok(i64::from_le_bytes(*bytes))
}

pub(super) fn decode(stored: &[u8]) -> Result<(i64, RecordBatch)> {
    let time_ms = time_ms(stored)?;
    if stored[0] != VERSION {
        return Err(LogError::new(
            LogErrorKind::Other,
            format!("the embedded log was written in format {}; this build reads {VERSION}", stored[0]),
        ));
    }
    let length = stored.get(9..).and_then(<[u8]>::first_chunk::<4>).ok_or_else(damaged)?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > MAX_RAW_BYTES {
        return Err(damaged());
    }
    let raw = lz4_flex::block::decompress(&stored[HEADER_BYTES..], length).map_err(|_| damaged())?;
    RecordBatch::decode(&raw).map(|batch| (time_ms, batch)).ok_or_else(damaged)
}

fn damaged() -> LogError {
    LogError::new(LogErrorKind::Other, "the embedded log holds a damaged chunk")
}
