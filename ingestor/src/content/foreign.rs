//! Formats that are not supported, detected so that the error names the format instead of cutting the file into dead
//! letters.
//!
//! A format is detected only by bytes that no text contains (control characters, NULs, a checksum). A file that begins
//! with any line of text and has events after it is read as usual.

use flate2::{Decompress, FlushDecompress, Status};

/// This many first bytes distinguish the formats: a tar header is the longest.
pub(super) const HEAD_BYTES: usize = 512;
/// This many code units of text identify UTF-16 and UTF-32.
const CODE_UNITS: usize = 8;

const BY_MAGIC: &[(&[u8], &str)] = &[
    (b"PK\x03\x04", ZIP),
    (b"PK\x05\x06", ZIP),
    (b"PK\x07\x08", ZIP),
    (b"\xfd7zXZ\x00", "is compressed with xz, which is not read: decompress it, or compress it with gzip or zstd"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive, which is not read: unpack it and land the files in it"),
    (b"\x04\x22\x4d\x18", LZ4),
    (b"\x02\x21\x4c\x18", LZ4),
    (
        b"\xff\x06\x00\x00sNaPpY",
        "is compressed with snappy, which is not read: decompress it, or compress it with gzip or zstd",
    ),
    (b"Obj\x01", "is an Avro file, which is not read: convert it to JSON, one event a line"),
    (b"ARROW1\x00\x00", "is an Arrow file, which is not read: convert it to JSON, one event a line"),
];
/// Their magic numbers are text, so further bytes must not be.
const BY_MAGIC_AND_BINARY: &[(&[u8], &str)] = &[
    (b"PAR1", "is a Parquet file, which is not read: convert it to JSON, one event a line"),
    (b"PARE", "is an encrypted Parquet file, which is not read: convert it to JSON, one event a line"),
    (b"ORC", "is an ORC file, which is not read: convert it to JSON, one event a line"),
];
const ZIP: &str = "is a zip archive, which is not read: unpack it and land the files in it";
const LZ4: &str = "is compressed with lz4, which is not read: decompress it, or compress it with gzip or zstd";
const TAR: &str = "is a tar archive, which is not read: unpack it and land the files in it";
const ZLIB: &str = "is compressed with zlib, which is not read: decompress it, or compress it with gzip or zstd";
const UTF_16: &str = "is UTF-16 text, which is not read: convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)";
const UTF_32: &str = "is UTF-32 text, which is not read: convert it to UTF-8 (iconv -f UTF-32 -t UTF-8)";

/// The detected format and what to do about it. `head` must be the whole content or [`HEAD_BYTES`].
pub(super) fn recognise(head: &[u8]) -> Option<&'static str> {
    let begins = |(magic, _): &&(&[u8], &'static str)| head.starts_with(magic);
    if let Some((_, message)) = BY_MAGIC.iter().find(begins) {
        return Some(message);
    }
    if is_tar(head) {
        return Some(TAR);
    }
    if !head.iter().any(|byte| is_never_text(*byte)) {
        return None;
    }
    if let Some((_, message)) = BY_MAGIC_AND_BINARY.iter().find(begins) {
        return Some(message);
    }
    wide_text(head).or_else(|| is_zlib(head).then_some(ZLIB))
}

/// Control characters other than blanks and 0x1E, the record separator of RFC 7464.
fn is_never_text(byte: u8) -> bool {
    byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x1e)
}

/// Whether the header's checksum is correct: the sum of its 512 bytes, with its own eight counted as blanks (POSIX
/// 1003.1, ustar; also older formats).
fn is_tar(head: &[u8]) -> bool {
    let Some(header) = head.get(..512) else { return false };
    let (checksum, sum) = (&header[148..156], |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>());
    let end = checksum.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(checksum.len());
    let is_terminated = checksum[end..].contains(&0);
    let expected = std::str::from_utf8(&checksum[..end]).ok().and_then(|text| u64::from_str_radix(text, 8).ok());
    header[0] != 0 && is_terminated && expected == Some(sum(header) - sum(checksum) + 8 * u64::from(b' '))
}

/// UTF-16 and UTF-32, with or without a byte order mark: all of the first code units are ASCII text (RFC 4627, 3).
fn wide_text(head: &[u8]) -> Option<&'static str> {
    let is_wide = |bytes: &[u8], width: usize, place: usize| {
        let units = || bytes.chunks_exact(width).take(CODE_UNITS);
        let is_ascii_text = |unit: &[u8]| {
            let rest_is_null = unit.iter().enumerate().all(|(at, byte)| at == place || *byte == 0);
            rest_is_null && unit[place].is_ascii() && unit[place] != 0 && !is_never_text(unit[place])
        };
        units().nth(1).is_some() && units().all(is_ascii_text)
    };
    let after = |mark: &[u8]| head.strip_prefix(mark).unwrap_or(head);
    if is_wide(after(b"\xff\xfe\x00\x00"), 4, 0) || is_wide(after(b"\x00\x00\xfe\xff"), 4, 3) {
        Some(UTF_32)
    } else if is_wide(after(b"\xff\xfe"), 2, 0) || is_wide(after(b"\xfe\xff"), 2, 1) {
        Some(UTF_16)
    } else {
        None
    }
}

/// The two bytes of RFC 1950 for a window of 32 KiB without a dictionary, followed by a stream that inflates.
fn is_zlib(head: &[u8]) -> bool {
    if !matches!(head, [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..]) {
        return false;
    }
    let (mut stream, mut output) = (Decompress::new(true), vec![0; 64 * HEAD_BYTES]);
    let Ok(status) = stream.decompress(head, &mut output, FlushDecompress::None) else { return false };
    // A few bytes of text may look like the beginning of a stream, but not as many as fill the head.
    let is_long = stream.total_in() >= HEAD_BYTES as u64 || stream.total_out() == output.len() as u64;
    status == Status::StreamEnd || is_long
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The header and first bytes of a file of `name` in the ustar format.
    pub(in crate::content) fn tar(name: &str, body: &[u8]) -> Vec<u8> {
        let mut header = vec![0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000644\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", body.len()).as_bytes());
        header[148..156].copy_from_slice(b"        ");
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        [header, body.to_vec()].concat()
    }

    fn zlib(body: &[u8]) -> Vec<u8> {
        use std::io::Write as _;
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(body).and_then(|()| encoder.finish()).unwrap_or_default()
    }

    fn utf_16(text: &str, unit: impl Fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(unit).collect()
    }

    fn utf_32(text: &str, unit: impl Fn(u32) -> [u8; 4]) -> Vec<u8> {
        text.chars().flat_map(|character| unit(u32::from(character))).collect()
    }

    #[test]
    fn each_unsupported_format_is_named_with_what_to_do() {
        let json = r#"{"event_id":"é"}"#;
        let cases: Vec<(Vec<u8>, &str)> = vec![
            (b"PK\x03\x04\x14\x00".to_vec(), "zip archive"),
            (b"PK\x05\x06\x00\x00".to_vec(), "zip archive"),
            (b"\xfd7zXZ\x00\x00\x04".to_vec(), "with xz"),
            (b"7z\xbc\xaf\x27\x1c\x00\x04".to_vec(), "7z archive"),
            (b"\x04\x22\x4d\x18\x64\x40".to_vec(), "with lz4"),
            (b"\xff\x06\x00\x00sNaPpY\x01".to_vec(), "with snappy"),
            (b"Obj\x01\x04\x14avro.codec".to_vec(), "Avro file"),
            (b"PAR1\x15\x04\x15\x20".to_vec(), "Parquet file"),
            (b"ORC\x08\x03\x10\x00".to_vec(), "ORC file"),
            (b"ARROW1\x00\x00\xff".to_vec(), "Arrow file"),
            (tar("events/x.json", json.as_bytes()), "tar archive"),
            (zlib(json.as_bytes()), "with zlib"),
            (utf_16(json, u16::to_le_bytes), "UTF-16"),
            (utf_16(json, u16::to_be_bytes), "UTF-16"),
            (utf_16(&format!("\u{feff}{json}"), u16::to_le_bytes), "UTF-16"),
            (utf_16(&format!("\u{feff}{json}"), u16::to_be_bytes), "UTF-16"),
            (utf_16("[\r\n", u16::to_le_bytes), "UTF-16"),
            (utf_32(json, u32::to_le_bytes), "UTF-32"),
            (utf_32(json, u32::to_be_bytes), "UTF-32"),
            (utf_32(&format!("\u{feff}{json}"), u32::to_le_bytes), "UTF-32"),
            (utf_32(&format!("\u{feff}{json}"), u32::to_be_bytes), "UTF-32"),
        ];
        for (head, name) in cases {
            let message = recognise(&head).unwrap_or("is nothing that is known");
            assert!(message.contains(name) && message.contains("which is not read: "), "{name}: it {message}");
        }
    }

    #[test]
    fn text_that_begins_as_such_a_format_does_is_read() {
        for head in [
            "PK,name\n{}",
            "PAR1,PAR2\n{}",
            "PAR1",
            "ORC,x\n{}",
            "Obj\n",
            "x^2 + 1\n{}",
            "7z\n",
            "ARROW1\n",
            "ustar",
            "{\u{1e}",
            "\u{1e}{}",
            "",
        ] {
            assert_eq!(recognise(head.as_bytes()), None, "{head:?}");
        }
        // Noise with control characters, followed by valid text.
        for head in
            [b"\xff\xfe{\"a\":1}\n".as_slice(), b"\0\0\0\0\n{}", b"x\x01\n{}", b"x\xda\xff\n{}", b"{\0}", b"\xfe\xff"]
        {
            assert_eq!(recognise(head), None, "{head:?}");
        }
        let mut named = tar("{", b"");
        named[0] = b'[';
        assert_eq!(recognise(&named), None, "its checksum is wrong");
    }

    proptest! {
        #[test]
        fn no_text_is_detected_as_another_format(text in "[\\t\\n\\r\u{1e}\u{20}-\u{d7ff}]{0,300}", begin in "(PK|PAR1|ORC|x|7z|\\{|\\[)?") {
            let text = begin + &text;
            prop_assert_eq!(recognise(&text.as_bytes()[..text.len().min(HEAD_BYTES)]), None);
        }

        #[test]
        fn detection_never_panics(head in proptest::collection::vec(any::<u8>(), 0..=HEAD_BYTES)) {
            let _ = recognise(&head);
        }
    }
}
