//! A dead letter as recorded in its topic.

use std::borrow::Cow;

use common::event::{
    HEADER_BYTE_OFFSET, HEADER_DETAIL, HEADER_IDENTITY, HEADER_LENGTH, HEADER_REASON, HEADER_REPLAYS, HEADER_SOURCE,
};
use common::log::RecordRef;

/// A record of the dead-letter topic, read leniently: other programs may write there too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter<'a> {
    /// The landing file, relative to `pending/`.
    pub source: Cow<'a, str>,
    /// The identity of the file version; empty in letters of 0.1.0.
    pub identity: Cow<'a, str>,
    /// Where it began in the uncompressed file.
    pub byte_offset: u64,
    /// The length of the whole piece in bytes.
    pub length: u64,
    /// A code of [`common::event::EventProblem::code`].
    pub reason: Cow<'a, str>,
    pub detail: Cow<'a, str>,
    /// How often it was replayed without success.
    pub replays: u32,
    /// The piece's first bytes.
    pub kept: &'a [u8],
}

impl<'a> DeadLetter<'a> {
    pub fn of(record: &RecordRef<'a>) -> Self {
        let headers = record.headers;
        let text = |name| String::from_utf8_lossy(headers.get(name).unwrap_or_default());
        let number = |name| headers.text(name).and_then(|text| text.parse::<u64>().ok());
        let kept = record.value.unwrap_or_default();
        Self {
            source: text(HEADER_SOURCE),
            identity: text(HEADER_IDENTITY),
            byte_offset: number(HEADER_BYTE_OFFSET).unwrap_or_default(),
            length: number(HEADER_LENGTH).unwrap_or(kept.len() as u64),
            reason: text(HEADER_REASON),
            detail: text(HEADER_DETAIL),
            replays: headers.text(HEADER_REPLAYS).and_then(|text| text.parse().ok()).unwrap_or_default(),
            kept,
        }
    }

    /// Its end was not kept, so it cannot be read again.
    pub fn is_cut(&self) -> bool {
        self.length > self.kept.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use common::log::{LogError, RecordBatch};

    use super::*;

    #[test]
    fn a_letter_is_read_whatever_headers_it_has() -> Result<(), LogError> {
        let mut batch = RecordBatch::new();
        batch.push(b"a:5", Some(b"{bad"), |headers| {
            headers.put(HEADER_SOURCE, b"a");
            headers.put(HEADER_BYTE_OFFSET, b"5");
            headers.put(HEADER_LENGTH, b"7");
            headers.put(HEADER_REPLAYS, b"2");
        })?;
        batch.push(b"", None, |headers| headers.put(HEADER_LENGTH, b"seven"))?;
        let letter = DeadLetter::of(&batch.get(0));
        assert_eq!((letter.source.as_ref(), letter.byte_offset, letter.replays), ("a", 5, 2));
        assert!(letter.is_cut(), "4 of 7 bytes");
        let foreign = DeadLetter::of(&batch.get(1));
        assert_eq!((foreign.source.as_ref(), foreign.length, foreign.is_cut()), ("", 0, false));
        Ok(())
    }
}
