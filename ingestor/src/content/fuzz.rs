//! The input is a landing file as it is stored, or a recipe for one: `make:`, operations, a line break, a body.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "an oracle reports a failure by a panic")]

use std::io::{BufRead, Read, Write};

use super::codec::Codec;
use super::decoder::PIECE_BYTES;
use super::foreign::{HEAD_BYTES, recognise};
use super::{Compression, ContentError, ExpansionLimits, unpack};
use crate::fuzz::lengths;

const MAX_BYTES: u64 = 2_000_000;
/// Without a ratio: it is judged by the bytes read so far, which depend on the pieces.
const LIMITS: ExpansionLimits =
    ExpansionLimits { max_ratio: u64::MAX, ratio_from_bytes: u64::MAX, max_bytes: MAX_BYTES };
/// Operations of a recipe. More could cut a stream down to where its first bytes are missing.
const MAX_OPERATIONS: usize = 8;
/// Compressed levels that are opened.
const LEVELS: usize = 2;
const PADDING: usize = 3;

/// An accepted file gives the content that the reference decoders read. A file made by a recipe gives its body, and is
/// rejected if the recipe damaged it. The division into read pieces does not matter, and pieces and their sum are bounded.
pub fn content(input: &[u8]) {
    let made = input.strip_prefix(b"make:").and_then(|recipe| {
        let end = memchr::memchr(b'\n', recipe)?;
        Some(make(&recipe[..end], &recipe[end + 1..]))
    });
    let Some(made) = made else {
        if let Ok(content) = unpacked(input) {
            assert_eq!(content, reference(input, LEVELS), "against the reference");
        }
        return;
    };
    if made.content.len() as u64 > MAX_BYTES / 4 || is_special(&made.content) {
        return;
    }
    match unpacked(&made.file) {
        Ok(content) => {
            assert!(!made.is_damaged, "damage passed for whole");
            assert!(made.levels <= LEVELS, "{} levels were opened", made.levels);
            assert_eq!(content, made.content);
        }
        Err(why) => assert!(made.is_damaged || made.is_doubtful || made.levels > LEVELS, "{why}"),
    }
}

/// The content, which must be the same for every division into pieces.
fn unpacked(file: &[u8]) -> Result<Vec<u8>, String> {
    let (whole, end) = unpack_in(file, file.len());
    for length in lengths(file) {
        let (pieces, other_end) = unpack_in(file, length);
        assert_eq!(end.is_ok(), other_end.is_ok(), "in pieces of {length}: {end:?}, {other_end:?}");
        assert!(whole.starts_with(&pieces) || pieces.starts_with(&whole), "in pieces of {length}");
        assert!(end.is_err() || pieces.len() == whole.len(), "in pieces of {length}");
    }
    end.map(|()| whole)
}

fn unpack_in(file: &[u8], piece_bytes: usize) -> (Vec<u8>, Result<(), String>) {
    let mut content = Vec::new();
    let end = unpack(file, piece_bytes, LIMITS, |piece| {
        assert!(!piece.is_empty() && piece.len() <= PIECE_BYTES.max(piece_bytes), "a piece of {}", piece.len());
        content.extend_from_slice(piece);
    });
    if Codec::of(file) != Compression::None {
        assert!(content.len() as u64 <= MAX_BYTES, "{} bytes came out", content.len());
    }
    match end {
        Ok(()) => (content, Ok(())),
        Err(ContentError::Rejected(why)) => (content, Err(why)),
        Err(ContentError::Store(error)) => panic!("an error of the store without one: {error}"),
    }
}

/// The content of an accepted file, by the usual reader of each format.
fn reference(file: &[u8], levels: usize) -> Vec<u8> {
    let compression = Codec::of(file);
    if compression == Compression::None {
        return file.to_vec();
    }
    assert!(levels > 0, "one level too many was opened");
    let (mut rest, mut content) = (file, Vec::new());
    while !rest.is_empty() {
        rest = match compression {
            Compression::None => unreachable!(),
            Compression::Gzip => member(flate2::bufread::GzDecoder::new(rest), &mut content).into_inner(),
            Compression::Bzip2 => member(bzip2::bufread::BzDecoder::new(rest), &mut content).into_inner(),
            Compression::Zstd => {
                let length = zstd::zstd_safe::find_frame_compressed_size(rest).expect("a frame");
                content.extend(zstd::stream::decode_all(&rest[..length]).expect("a sound frame"));
                &rest[length..]
            }
        };
        let zeros = rest.iter().take_while(|byte| **byte == 0).count();
        rest.consume(zeros);
    }
    reference(&content, levels - 1)
}

fn member<R: Read>(mut reader: R, content: &mut Vec<u8>) -> R {
    reader.read_to_end(content).expect("a sound member");
    reader
}

/// Such a body would be decompressed or refused itself.
fn is_special(content: &[u8]) -> bool {
    Codec::of(content) != Compression::None || recognise(&content[..content.len().min(HEAD_BYTES)]).is_some()
}

struct Made {
    file: Vec<u8>,
    content: Vec<u8>,
    levels: usize,
    is_damaged: bool,
    /// A bit was flipped, perhaps one without effect, such as in the file name of a gzip header.
    is_doubtful: bool,
    /// Zeros after the last stream.
    padding: usize,
    /// Bytes that were cut off the last stream.
    lost: usize,
}

/// | operation | effect on the file |
/// |---|---|
/// | `g`, `h` | gzip; with every optional field in the header |
/// | `z`, `s` | zstd with a checksum; behind a skippable frame |
/// | `b` | bzip2 |
/// | `d` | twice, one behind the other |
/// | `0` | padded with zeros |
/// | `t` | its last byte is lost |
/// | `x` | a bit in its middle flips |
fn make(operations: &[u8], body: &[u8]) -> Made {
    let (file, content) = (body.to_vec(), body.to_vec());
    let mut made = Made { file, content, levels: 0, is_damaged: false, is_doubtful: false, padding: 0, lost: 0 };
    for operation in &operations[..operations.len().min(MAX_OPERATIONS)] {
        match operation {
            b'g' | b'h' | b'z' | b's' | b'b' => made.compress(*operation),
            b'd' if made.file.len() as u64 <= MAX_BYTES => made.double(),
            b'0' => made.pad(),
            b't' => made.cut(),
            b'x' => made.flip(),
            _ => {}
        }
    }
    made
}

impl Made {
    fn compress(&mut self, operation: u8) {
        let file = &self.file;
        self.file = match operation {
            b'g' => {
                into(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()), file).finish().unwrap()
            }
            b'h' => {
                let header = flate2::GzBuilder::new().filename("n").comment("c").extra(vec![1, 0, 1, 0, 7]).mtime(9);
                into(header.write(Vec::new(), flate2::Compression::default()), file).finish().unwrap()
            }
            b'b' => into(bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast()), file).finish().unwrap(),
            _ => {
                let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
                encoder.include_checksum(true).unwrap();
                let frame = into(encoder, file).finish().unwrap();
                if operation == b's' { [b"\x5a\x2a\x4d\x18\x02\0\0\0ab", &*frame].concat() } else { frame }
            }
        };
        self.levels += 1;
        (self.padding, self.lost) = (0, 0);
    }

    fn double(&mut self) {
        self.file = self.file.repeat(2);
        self.content = self.content.repeat(2);
    }

    fn pad(&mut self) {
        self.file.extend([0; PADDING]);
        if self.levels == 0 {
            self.content.extend([0; PADDING]);
        } else if self.is_damaged {
            // The lost bytes may have been zeros.
            (self.is_damaged, self.is_doubtful) = (false, true);
            self.padding = PADDING.saturating_sub(self.lost);
            self.lost = 0;
        } else {
            self.padding += PADDING;
        }
    }

    fn cut(&mut self) {
        self.file.pop();
        if self.levels == 0 {
            self.content.pop();
        } else if self.padding > 0 {
            self.padding -= 1;
        } else {
            self.is_damaged = true;
            self.lost += 1;
        }
    }

    fn flip(&mut self) {
        let (middle, compression) = (self.file.len() / 2, Codec::of(&self.file));
        let Some(byte) = self.file.get_mut(middle) else { return };
        *byte ^= 1;
        // Without its magic it is plain.
        if Codec::of(&self.file) != compression {
            self.file[middle] ^= 1;
            return;
        }
        if self.levels == 0 {
            self.content.clone_from(&self.file);
        } else {
            self.is_doubtful = true;
        }
    }
}

fn into<W: Write>(mut encoder: W, file: &[u8]) -> W {
    encoder.write_all(file).unwrap();
    encoder
}
