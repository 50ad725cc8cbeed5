use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use common::guard;
use parquet::errors::ParquetError;
use parquet_guard::{Footer, REPEATED_BYTES, check_pages};

use super::*;
use crate::written::Written;

fn codecs() -> [Compression; 3] {
    [Compression::UNCOMPRESSED, Compression::SNAPPY, zstd()]
}

fn zstd() -> Compression {
    Compression::ZSTD(ZstdLevel::default())
}

/// Every kind of column that this program writes, in two row groups.
fn rows() -> RecordBatch {
    let count = 60;
    let ids = StringArray::from_iter_values((0..count).map(|row| format!("id-{row}")));
    let times = TimestampMicrosecondArray::from_iter_values((0..count).map(|row| row * 1_000)).with_timezone("UTC");
    let domains = StringArray::from_iter_values((0..count).map(|row| if row % 3 == 0 { "a" } else { "account" }));
    let flags = BooleanArray::from_iter((0..count).map(|row| (row % 4 > 0).then_some(row % 2 == 0)));
    let offsets = Int64Array::from_iter_values((0..count).map(|row| 7 + row * row));
    let columns: [(&str, ArrayRef); 6] = [
        ("event_id", Arc::new(ids)),
        ("timestamp", Arc::new(times.clone())),
        ("domain", Arc::new(domains)),
        ("flag", Arc::new(flags)),
        ("_ingested_at", Arc::new(times)),
        ("_offset", Arc::new(offsets)),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn file(rows: &RecordBatch, codec: Compression) -> Vec<u8> {
    let offset = ColumnPath::from("_offset");
    let properties = WriterProperties::builder()
        .set_compression(codec)
        .set_max_row_group_row_count(Some(40))
        .set_column_dictionary_enabled(offset.clone(), false)
        .set_column_encoding(offset, Encoding::DELTA_BINARY_PACKED)
        .set_column_dictionary_enabled(ColumnPath::from("event_id"), false)
        .build();
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, rows.schema(), Some(properties)).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
    file
}

fn decode(file: Bytes) -> Result<Vec<RecordBatch>, ParquetError> {
    let decoder = Decoder::of_file(file)?;
    let at_once = decoder.rows_at_once();
    decoder.rows(at_once)?.collect()
}

fn columns(file: &[u8]) -> Vec<(ColumnChunkMetaData, i64)> {
    let footer = Footer::of_file(&Bytes::copy_from_slice(file)).unwrap();
    let groups = footer.metadata().row_groups().iter();
    groups.flat_map(|group| group.columns().iter().map(|column| (column.clone(), group.num_rows()))).collect()
}

#[test]
fn a_sound_file_is_decoded_whatever_its_codec() {
    let rows = rows();
    for codec in codecs() {
        let decoded = decode(file(&rows, codec).into()).unwrap();
        assert_eq!(decoded.iter().map(RecordBatch::num_rows).sum::<usize>(), 60);
        let mut written = Written::default();
        decoded.iter().for_each(|batch| written.add(batch).unwrap());
        assert_eq!((written.offsets[59], written.keys.len()), (7 + 59 * 59, 60));
    }
}

/// A panic that is caught prints nothing: a backtrace takes longer than the decoder.
fn silence_caught_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !guard::panic_is_caught() {
                report(panic);
            }
        }));
    });
}

/// Each bit of all pages with their headers, one after the other; of compressed ones every fifth.
#[test]
fn a_flipped_bit_in_a_page_is_an_error_or_other_rows() {
    // Far more than it takes, for a busy machine.
    const LIMIT: Duration = Duration::from_secs(5);
    silence_caught_panics();
    let mut caught = 0;
    for codec in codecs() {
        let sound = file(&rows(), codec);
        let ends = columns(&sound).into_iter().map(|(column, _)| column.byte_range());
        let end = usize::try_from(ends.map(|(start, length)| start + length).max().unwrap()).unwrap();
        let step = if codec == Compression::UNCOMPRESSED { 1 } else { 5 };
        for bit in (4 * 8..end * 8).step_by(step) {
            let mut damaged = sound.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let begun = Instant::now();
            let decoded = decode(damaged.into());
            assert!(begun.elapsed() < LIMIT, "{codec:?}, bit {bit}: {:?}", begun.elapsed());
            match decoded {
                Ok(batches) => {
                    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 60, "{codec:?}, bit {bit}");
                }
                Err(error) => caught += u32::from(error.to_string().contains("a page is damaged")),
            }
        }
    }
    assert!(caught > 0, "the decoder does not panic any more: is the guard still needed?");
}

/// A number of the compact protocol.
fn zigzag(number: i64) -> Vec<u8> {
    let mut rest = ((number << 1) ^ (number >> 63)).cast_unsigned();
    let mut bytes = Vec::new();
    while rest >= 0x80 {
        bytes.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

/// A header with these numbers: kind, unpacked and packed size, then those of the inner struct at field `inner`.
fn header(sizes: [i64; 3], inner: u8, numbers: &[i64]) -> Vec<u8> {
    let number = |number: &i64| [vec![0x15], zigzag(*number)].concat();
    let mut bytes: Vec<u8> = sizes.iter().flat_map(number).collect();
    bytes.push(((inner - 3) << 4) | 0x0c);
    bytes.extend(numbers.iter().flat_map(number));
    bytes.extend([0, 0]);
    bytes
}

#[test]
fn a_header_that_asks_for_too_much_is_refused_before_anything_is_allocated() {
    let (column, _) = columns(&file(&rows(), Compression::SNAPPY)).swap_remove(0);
    let check = |header: &[u8], page: usize, rows: i64| {
        let file = Bytes::from([header, &vec![0; page]].concat());
        let column = column.clone().into_builder().set_total_compressed_size(i64::try_from(file.len()).unwrap());
        let column = column.set_data_page_offset(0).set_dictionary_page_offset(None).set_num_values(rows);
        check_pages(&file, &column.build().unwrap(), rows).map_err(|error| error.to_string())
    };
    assert_eq!(check(&header([0, 9, 5], 5, &[40, 0, 3, 3]), 5, 40), Ok(0));
    let data = [40, 0, 3, 3];
    for (header, page, part) in [
        (header([0, i64::from(i32::MAX), 5], 5, &data), 5, "unpacks to 2147483647 bytes"),
        (header([0, -1, 5], 5, &data), 5, "cannot be understood"),
        (header([0, 1 << 40, 5], 5, &data), 5, "cannot be understood"),
        (header([0, 9, 6], 5, &data), 5, "ends behind its column"),
        (header([0, 9, 4], 5, &data), 5, "cannot be understood"),
        (header([0, 9, 5], 5, &[41, 0, 3, 3]), 5, "hold 41 values, and the footer says 40"),
        (header([0, 9, 5], 5, &[40_000, 0, 3, 3]), 5, "does not write such a page"),
        (header([0, 9, 5], 5, &[40, 6, 3, 3]), 5, "does not write such a page"),
        (header([0, 9, 5], 5, &[40, 0, 4, 3]), 5, "does not write such a page"),
        (header([3, 9, 5], 8, &data), 5, "cannot be understood"),
        (header([1, 9, 5], 5, &data), 5, "does not write such a page there"),
        (header([2, 9, 5], 7, &[10, 0]), 5, "does not write such a dictionary"),
        (header([2, 9, 5], 7, &[9, 0]), 5, "hold 0 values"),
        (header([2, 9, 5], 5, &data), 5, "does not write such a page there"),
        (vec![0x15; 9], 0, "cannot be understood"),
        (Vec::new(), 0, "hold 0 values"),
    ] {
        let message = check(&header, page, 40).unwrap_err();
        assert!(message.contains("of column event_id") && message.contains(part), "{part:?}: {message}");
    }
}

#[test]
fn fewer_rows_are_decoded_at_once_if_a_dictionary_has_large_values() {
    let large = "x".repeat(400_000);
    let domains = StringArray::from_iter_values((0..60).map(|_| large.as_str()));
    let rows = RecordBatch::try_from_iter([("domain", Arc::new(domains) as ArrayRef)]).unwrap();
    let decoder = Decoder::of_file(Bytes::from(file(&rows, zstd()))).unwrap();
    let at_once = decoder.rows_at_once();
    assert_eq!(at_once, REPEATED_BYTES / 400_004);
    assert_eq!(
        decoder.rows(7).unwrap().map(|batch| batch.unwrap().num_rows()).collect::<Vec<_>>(),
        [7, 7, 7, 7, 7, 7, 7, 7, 4]
    );
}
