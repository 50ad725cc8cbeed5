//! Footers of data files: what they say, and how they are encoded.

#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;

use common::config::Compression;
use parquet::basic::Compression as Codec;
use parquet::file::metadata::RowGroupMetaData;
pub(crate) use parquet_guard::{Footer, FooterError};

use crate::batch::Encoding;

/// Whether a file has this encoding, as far as its footer shows; the Bloom filter concerns `events` only.
pub(crate) fn is_encoded(footer: &Footer, encoding: Encoding, is_events: bool) -> bool {
    let columns = footer.metadata().row_groups().iter().flat_map(RowGroupMetaData::columns);
    columns.into_iter().all(|column| {
        let has_codec = match encoding.compression {
            Compression::Zstd => matches!(column.compression(), Codec::ZSTD(_)),
            Compression::Snappy => column.compression() == Codec::SNAPPY,
        };
        let may_have_filter = is_events && column.column_path().string() == "event_id";
        has_codec && (!may_have_filter || column.bloom_filter_offset().is_some() == encoding.bloom_filter)
    })
}
