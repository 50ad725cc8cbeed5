//! Checks the page headers of a column before its pages are decoded.
//!
//! A header is a struct of Thrift's compact protocol, directly before its page. Sources: `parquet.thrift` of
//! parquet-format 2.11, and "Thrift compact protocol encoding". Only headers that this program writes pass: data pages of
//! version 1, and at most one dictionary page before them.

use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::ChunkReader;

/// A page of this program holds 1 MiB and the values of one step of its encoder, 1,024.
const MOST_UNPACKED_BYTES: usize = 256 * 1024 * 1024;
/// A page ends after 20,000 values and those of one step.
const MOST_VALUES: u64 = 32_768;
/// Read at first, and at most, for one header.
const WINDOW_BYTES: [usize; 2] = [512, 64 * 1024];
const MAX_VARINT_BYTES: u32 = 5;

// Type codes of the compact protocol.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const I32: u8 = 5;
const I64: u8 = 6;
const BINARY: u8 = 8;
const STRUCT: u8 = 12;
const STOP: u8 = 0;

const DATA_PAGE: u32 = 0;
const DICTIONARY_PAGE: u32 = 2;

const RLE: u32 = 3;
const RLE_DICTIONARY: u32 = 8;
/// Of values: plain, an old name of `RLE_DICTIONARY`, booleans, integers.
const VALUE_ENCODINGS: [u32; 5] = [0, 2, RLE, 5, RLE_DICTIONARY];
/// Of dictionaries: plain, and an old name of it.
const DICTIONARY_ENCODINGS: [u32; 2] = [0, 2];

#[derive(Debug, Default, PartialEq, Eq)]
struct Header {
    kind: u32,
    unpacked_bytes: usize,
    packed_bytes: u64,
    data: Option<Values>,
    dictionary: Option<Values>,
}

/// The header of a page of either kind.
#[derive(Debug, Default, PartialEq, Eq)]
struct Values {
    count: u64,
    encoding: u32,
    levels: u32,
}

/// Checks all page headers of a column of a row group. Returns the size of its dictionary.
///
/// # Errors
/// The reader's, or a header is damaged.
pub fn check(file: &impl ChunkReader, column: &ColumnChunkMetaData, rows: i64) -> Result<usize, ParquetError> {
    let name = column.column_path().string();
    let wrong = |at: u64, why: &str| {
        Err(ParquetError::General(format!("the header of the page of column {name} at byte {at} is damaged: {why}")))
    };
    let is_packed = match column.compression() {
        Compression::UNCOMPRESSED => false,
        Compression::SNAPPY | Compression::ZSTD(_) => true,
        _ => return wrong(0, "this program does not write that codec"),
    };
    // In lists and maps a row has any number of values.
    let is_counted = column.column_descr().max_rep_level() > 0 || column.num_values() == rows;
    let wanted = u64::try_from(column.num_values()).ok().filter(|_| is_counted);
    let Some(wanted) = wanted else { return wrong(0, "the column has not as many values as the row group has rows") };
    let (start, length) = column.byte_range();
    let (mut at, end) = (start, start.saturating_add(length));
    let (mut values, mut dictionary_bytes) = (0, 0);
    while at < end {
        let Some((header, header_bytes)) = read(file, at, end)? else { return wrong(at, "it cannot be understood") };
        let page = at.saturating_add(header_bytes);
        if header.packed_bytes > end.saturating_sub(page) {
            return wrong(at, "its page ends behind its column");
        }
        let unpacked_bytes = header.unpacked_bytes as u64;
        if header.unpacked_bytes > MOST_UNPACKED_BYTES {
            return wrong(at, &format!("its page unpacks to {unpacked_bytes} bytes, more than this program writes"));
        }
        if !is_packed && header.packed_bytes != unpacked_bytes {
            return wrong(at, "its page has two sizes");
        }
        match (header.kind, header.data, header.dictionary) {
            (DATA_PAGE, Some(data), None) => {
                let is_known = data.levels == RLE && VALUE_ENCODINGS.contains(&data.encoding);
                if !is_known || data.count > MOST_VALUES {
                    return wrong(at, "this program does not write such a page");
                }
                values += data.count;
            }
            (DICTIONARY_PAGE, None, Some(dictionary)) if at == start => {
                let is_known = DICTIONARY_ENCODINGS.contains(&dictionary.encoding);
                if !is_known || dictionary.count > unpacked_bytes {
                    return wrong(at, "this program does not write such a dictionary");
                }
                dictionary_bytes = header.unpacked_bytes;
            }
            _ => return wrong(at, "this program does not write such a page there"),
        }
        at = page + header.packed_bytes;
    }
    if values != wanted {
        return wrong(at, &format!("the pages hold {values} values, and the footer says {wanted}"));
    }
    Ok(dictionary_bytes)
}

/// The header at a place, and its length; `None` if it is not one that is known.
fn read(file: &impl ChunkReader, at: u64, end: u64) -> Result<Option<(Header, u64)>, ParquetError> {
    for window in WINDOW_BYTES {
        let length = usize::try_from(end - at).map_or(window, |rest| rest.min(window));
        let bytes = file.get_bytes(at, length)?;
        let mut rest = Rest(&bytes);
        if let Some(header) = rest.header() {
            return Ok(Some((header, (bytes.len() - rest.0.len()) as u64)));
        }
        if length < window {
            break;
        }
    }
    Ok(None)
}

/// The remaining bytes. After `None` it must not be used.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn varint(&mut self, most_bytes: u32) -> Option<u64> {
        let mut number = 0;
        for index in 0..most_bytes {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f).checked_shl(7 * index)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// An `i32` that is not negative: zigzag gives those the even numbers.
    fn natural(&mut self) -> Option<u32> {
        let number = self.varint(MAX_VARINT_BYTES)?;
        let number = (number % 2 == 0).then_some(number / 2)?;
        u32::try_from(number).ok().filter(|number| i32::try_from(*number).is_ok())
    }

    /// Calls `take` with number and type of each field, in ascending order.
    fn fields(&mut self, mut take: impl FnMut(&mut Self, u8, u8) -> Option<()>) -> Option<()> {
        let mut id: u8 = 0;
        loop {
            let head = self.byte()?;
            if head == STOP {
                return Some(());
            }
            // A field is named in full only after a gap that no header has.
            let delta = head >> 4;
            id = id.checked_add(delta).filter(|_| delta > 0)?;
            take(self, id, head & 0x0f)?;
        }
    }

    fn header(&mut self) -> Option<Header> {
        let mut header = Header::default();
        let mut required = 0;
        self.fields(|rest, id, code| {
            match (id, code) {
                (1, I32) => header.kind = rest.natural()?,
                (2, I32) => header.unpacked_bytes = usize::try_from(rest.natural()?).ok()?,
                (3, I32) => header.packed_bytes = rest.natural()?.into(),
                // The checksum.
                (4, I32) => rest.varint(MAX_VARINT_BYTES).map(|_| ())?,
                (5, STRUCT) => header.data = Some(rest.data()?),
                (7, STRUCT) => header.dictionary = Some(rest.dictionary()?),
                _ => return None,
            }
            required += u8::from(id <= 3);
            Some(())
        })?;
        (required == 3).then_some(header)
    }

    fn data(&mut self) -> Option<Values> {
        let mut values = Values::default();
        let mut required = 0;
        self.fields(|rest, id, code| {
            match (id, code) {
                (1, I32) => values.count = rest.natural()?.into(),
                (2, I32) => values.encoding = rest.natural()?,
                (3, I32) => values.levels = rest.natural()?,
                // Of repetition, which no column has.
                (4, I32) => rest.natural().map(|_| ())?,
                (5, STRUCT) => rest.statistics()?,
                _ => return None,
            }
            required += u8::from(id <= 4);
            Some(())
        })?;
        (required == 4).then_some(values)
    }

    fn dictionary(&mut self) -> Option<Values> {
        let mut values = Values::default();
        let mut required = 0;
        self.fields(|rest, id, code| {
            match (id, code) {
                (1, I32) => values.count = rest.natural()?.into(),
                (2, I32) => values.encoding = rest.natural()?,
                // Whether it is sorted. A boolean has no other bytes.
                (3, TRUE | FALSE) => {}
                _ => return None,
            }
            required += u8::from(id <= 2);
            Some(())
        })?;
        (required == 2).then_some(values)
    }

    fn statistics(&mut self) -> Option<()> {
        self.fields(|rest, id, code| match (id, code) {
            (1 | 2 | 5 | 6, BINARY) => {
                let length = usize::try_from(rest.varint(MAX_VARINT_BYTES)?).ok()?;
                rest.0 = rest.0.get(length..)?;
                Some(())
            }
            (3 | 4, I64) => rest.varint(10).map(|_| ()),
            (7 | 8, TRUE | FALSE) => Some(()),
            _ => None,
        })
    }
}
