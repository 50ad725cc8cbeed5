//! Records in contiguous memory: one allocation for a chunk of thousands, none per record.
//!
//! A record is stored as `key | value | headers`; a header as `name length (u8) | name | value length (u32 LE) |
//! value`.

use super::{LogError, LogErrorKind, Result};

/// `value_len` of a record without a value (a tombstone on compacted topics).
const NULL: u32 = u32::MAX;

/// Longest header name: its length is stored in one byte.
pub const MAX_HEADER_NAME_BYTES: usize = u8::MAX as usize;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: u32,
    key_len: u32,
    value_len: u32,
    headers_len: u32,
}

/// Records ready to be appended or just read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordBatch {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

/// One record, borrowed from its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef<'a> {
    pub key: &'a [u8],
    /// `None` is a null value, which differs from an empty one.
    pub value: Option<&'a [u8]>,
    pub headers: Headers<'a>,
}

/// The headers of a record, in order. Names may repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers<'a>(&'a [u8]);

impl<'a> Headers<'a> {
    /// The value of the first header of this name.
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        self.iter().find(|(other, _)| *other == name.as_bytes()).map(|(_, value)| value)
    }

    /// The value as text, if it is UTF-8.
    pub fn text(self, name: &str) -> Option<&'a str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (name_len, after) = rest.split_first()?;
            let (name, after) = after.split_at_checked(usize::from(*name_len))?;
            let (value_len, after) = after.split_first_chunk::<4>()?;
            let (value, after) = after.split_at_checked(u32::from_le_bytes(*value_len) as usize)?;
            rest = after;
            Some((name, value))
        })
    }
}

/// Writes the headers of the record being pushed.
#[derive(Debug)]
pub struct HeaderWriter<'a> {
    bytes: &'a mut Vec<u8>,
    valid: bool,
}

impl HeaderWriter<'_> {
    pub fn put(&mut self, name: &str, value: &[u8]) {
        self.put_bytes(name.as_bytes(), value);
    }

    /// As [`HeaderWriter::put`], for names that [`Headers::iter`] yields.
    pub fn put_bytes(&mut self, name: &[u8], value: &[u8]) {
        let (Ok(name_len), Ok(value_len)) = (u8::try_from(name.len()), u32::try_from(value.len())) else {
            self.valid = false;
            return;
        };
        self.bytes.push(name_len);
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(&value_len.to_le_bytes());
        self.bytes.extend_from_slice(value);
    }
}

impl RecordBatch {
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch with capacity for `bytes` of keys, values and headers together.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), spans: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.spans.len()
    }

    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The bytes of all keys, values and headers.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Empties the batch and keeps its allocation.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.spans.clear();
    }

    /// Drops the records from `len` on.
    pub fn truncate(&mut self, len: usize) {
        if let Some(span) = self.spans.get(len) {
            self.bytes.truncate(span.start as usize);
            self.spans.truncate(len);
        }
    }

    /// Adds a record.
    ///
    /// # Errors
    /// [`LogErrorKind::BadRecord`] if the batch would exceed 4 GiB or a header name 255 bytes; the batch is unchanged.
    pub fn push(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        headers: impl FnOnce(&mut HeaderWriter<'_>),
    ) -> Result<()> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
        let headers_start = self.bytes.len();
        let mut writer = HeaderWriter { bytes: &mut self.bytes, valid: true };
        headers(&mut writer);
        let valid = writer.valid;
        let span = (|| {
            let value_len =
                value.map_or(Some(NULL), |value| u32::try_from(value.len()).ok().filter(|len| *len != NULL))?;
            u32::try_from(self.bytes.len()).ok()?;
            Some(Span {
                start: u32::try_from(start).ok()?,
                key_len: u32::try_from(key.len()).ok()?,
                value_len,
                headers_len: u32::try_from(self.bytes.len() - headers_start).ok()?,
            })
        })();
        match span {
            Some(span) if valid => {
                self.spans.push(span);
                Ok(())
            }
            _ => {
                self.bytes.truncate(start);
                Err(LogError::new(LogErrorKind::BadRecord, "a record or its headers are too large for one batch"))
            }
        }
    }

    /// Adds a copy of a record of another batch.
    ///
    /// # Errors
    /// As [`RecordBatch::push`].
    pub fn push_record(&mut self, record: &RecordRef<'_>) -> Result<()> {
        self.push(record.key, record.value, |writer| writer.bytes.extend_from_slice(record.headers.0))
    }

    /// The record at `index`.
    ///
    /// If `index` is not below [`RecordBatch::len`].
    /// When `index` is not below [`RecordBatch::len`].
    pub fn get(&self, index: usize) -> RecordRef<'_> {
        let span = self.spans[index];
        let bytes = &self.bytes[span.start as usize..];
        let (key, rest) = bytes.split_at(span.key_len as usize);
        let (value, rest) = match span.value_len {
            NULL => (None, rest),
            length => {
                let (value, rest) = rest.split_at(length as usize);
                (Some(value), rest)
            }
        };
        RecordRef { key, value, headers: Headers(&rest[..span.headers_len as usize]) }
    }

    pub fn iter(&self) -> impl Iterator<Item = RecordRef<'_>> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Serializes records `range` for storage; [`RecordBatch::decode`] reads it.
    pub(super) fn encode(&self, range: std::ops::Range<usize>, out: &mut Vec<u8>) {
        let count = u32::try_from(range.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_le_bytes());
        for span in &self.spans[range.clone()] {
            for number in [span.key_len, span.value_len, span.headers_len] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        let start = self.spans.get(range.start).map_or(self.bytes.len(), |span| span.start as usize);
        let end = self.spans.get(range.end).map_or(self.bytes.len(), |span| span.start as usize);
        out.extend_from_slice(&self.bytes[start..end]);
    }

    /// Reads what [`RecordBatch::encode`] wrote.
    pub(super) fn decode(encoded: &[u8]) -> Option<Self> {
        let (count, rest) = encoded.split_first_chunk::<4>()?;
        let count = u32::from_le_bytes(*count) as usize;
        let (table, bytes) = rest.split_at_checked(count.checked_mul(12)?)?;
        let mut start = 0u32;
        let mut spans = Vec::with_capacity(count);
        for row in table.chunks_exact(12) {
            let number = |at: usize| u32::from_le_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]);
            let span = Span { start, key_len: number(0), value_len: number(4), headers_len: number(8) };
            let value_len = if span.value_len == NULL { 0 } else { span.value_len };
            start = start.checked_add(span.key_len)?.checked_add(value_len)?.checked_add(span.headers_len)?;
            spans.push(span);
        }
        (start as usize == bytes.len()).then(|| Self { bytes: bytes.to_vec(), spans })
    }
}

/// Records of one partition as a reader yields them.
#[derive(Debug, Clone, Default)]
pub struct Chunk {
    pub partition: i32,
    pub records: RecordBatch,
    /// The offset of each record, increasing.
    pub offsets: Vec<i64>,
    /// The log-append time of each record, milliseconds since the Unix epoch.
    pub times_ms: Vec<i64>,
}

impl Chunk {
    /// An empty chunk with capacity for `records` records of `bytes` together.
    pub fn with_capacity(partition: i32, records: usize, bytes: usize) -> Self {
        let batch = RecordBatch { bytes: Vec::with_capacity(bytes), spans: Vec::with_capacity(records) };
        Self { partition, records: batch, offsets: Vec::with_capacity(records), times_ms: Vec::with_capacity(records) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Plain = (Vec<u8>, Option<Vec<u8>>, Vec<(String, Vec<u8>)>);

    fn build(records: &[Plain]) -> Result<RecordBatch> {
        let mut batch = RecordBatch::new();
        for (key, value, headers) in records {
            batch.push(key, value.as_deref(), |writer| {
                for (name, value) in headers {
                    writer.put(name, value);
                }
            })?;
        }
        Ok(batch)
    }

    fn plain(batch: &RecordBatch) -> Vec<Plain> {
        batch
            .iter()
            .map(|record| {
                let headers = record.headers.iter();
                let headers = headers.map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), value.to_vec()));
                (record.key.to_vec(), record.value.map(<[u8]>::to_vec), headers.collect())
            })
            .collect()
    }

    proptest! {
        #[test]
        fn what_is_pushed_is_read_back_also_through_storage(
            records in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..20), prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
                 prop::collection::vec(("[a-z]{0,5}", prop::collection::vec(any::<u8>(), 0..10)), 0..3)), 0..12),
            cut in 0_usize..12,
        ) {
            let batch = build(&records).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(&plain(&batch), &records);
            let cut = cut.min(records.len());
            let mut encoded = Vec::new();
            batch.encode(cut..records.len(), &mut encoded);
            let decoded = RecordBatch::decode(&encoded);
            prop_assert_eq!(decoded.map(|batch| plain(&batch)), Some(records[cut..].to_vec()));
        }

        #[test]
        fn damaged_storage_is_refused_or_read_without_panic(encoded in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(batch) = RecordBatch::decode(&encoded) {
                let _ = plain(&batch);
            }
        }
    }
}
