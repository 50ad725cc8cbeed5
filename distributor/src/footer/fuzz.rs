//! The input is the end of a Parquet file, and a footer without its length and magic (which would stop nearly every
//! mutation).

#![allow(clippy::expect_used, reason = "an oracle reports a failure by a panic")]

use bytes::Bytes;
use common::config::Compression;
use common::guard;

use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};

use super::{Footer, is_encoded};
use crate::batch::Encoding;

/// A footer takes no more memory than its bytes allow, and all that is asked of it agrees.
pub fn footer(input: &[u8]) {
    check(input);
    let length = u32::try_from(input.len()).expect("a short input").to_le_bytes();
    check(&[b"PAR1", input, &length, b"PAR1"].concat());
}

fn check(file: &[u8]) {
    let Ok(footer) = Footer::of_tail(&Bytes::copy_from_slice(file), file.len() as u64) else { return };
    let encoded = |compression, bloom_filter| is_encoded(&footer, Encoding { compression, bloom_filter }, true);
    let has_columns = footer.metadata().row_groups().iter().any(|group| !group.columns().is_empty());
    let is_either = |compression| encoded(compression, false) || encoded(compression, true);
    assert!(!has_columns || !is_either(Compression::Zstd) || !is_either(Compression::Snappy), "it has one codec");
    let stated = footer.metadata().file_metadata().key_value_metadata();
    for fact in stated.into_iter().flatten() {
        let value = footer.fact(&fact.key);
        assert!(value.is_none_or(|value| footer.says(&[(&fact.key, value.to_owned())])));
    }
    let groups = footer.metadata().row_groups();
    assert_eq!(footer.rows(), groups.iter().map(|group| group.num_rows().unsigned_abs()).sum::<u64>());
    for column in groups.iter().flat_map(|group| group.columns()) {
        let (start, length) = column.byte_range();
        assert!(start.saturating_add(length) <= file.len() as u64);
    }
    // The first step of reading rows; it may fail, and panic where the decoder expects it to.
    let metadata = footer.metadata().clone();
    let _ = guard::catch(|| ArrowReaderMetadata::try_new(metadata, ArrowReaderOptions::new()));
}
