//! The input is a Parquet file. Most of its corpus has sound footers, so that mutations reach the pages.

#![allow(clippy::expect_used, reason = "an oracle reports a failure by a panic")]

use bytes::Bytes;
use parquet::errors::ParquetError;

use super::Decoder;
use crate::footer::Footer;
use crate::written::Written;

/// A few rows at a time.
const FEW_ROWS: usize = 7;

/// Rows are refused, or there are as many as the footer says, and the same ones however many are decoded at a time.
pub fn pages(input: &[u8]) {
    let file = Bytes::copy_from_slice(input);
    let Ok(decoder) = Decoder::of_file(file.clone()) else { return };
    let at_once = decoder.rows_at_once();
    let Ok(written) = decode(decoder, at_once) else { return };
    let footer = Footer::of_file(&file).expect("it was read before");
    assert_eq!(written.offsets.len() as u64, footer.rows());
    let again = Decoder::of_file(file).and_then(|decoder| decode(decoder, at_once.min(FEW_ROWS)));
    let again = again.expect("it was decoded before");
    assert_eq!((written.offsets, written.keys), (again.offsets, again.keys));
}

fn decode(decoder: Decoder<Bytes>, at_once: usize) -> Result<Written, ParquetError> {
    let mut written = Written::default();
    for batch in decoder.rows(at_once)? {
        let batch = batch?;
        assert!((1..=at_once).contains(&batch.num_rows()), "{} rows at once", batch.num_rows());
        written.add(&batch).map_err(ParquetError::General)?;
    }
    Ok(written)
}
