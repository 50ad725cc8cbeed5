//! The three codecs behind one interface: bytes in, bytes out, and whether a member has just ended.

use bzip2::Decompress as Bzip2;
use flate2::{Decompress as Gzip, FlushDecompress, Status};
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

use super::Compression;

/// This many bytes distinguish the formats.
pub(super) const MAGIC_BYTES: usize = 4;
/// The marks of a block and of the end: digits of pi and of its root.
const BZIP2_MARKS: [[u8; 6]; 2] = [[0x31, 0x41, 0x59, 0x26, 0x53, 0x59], [0x17, 0x72, 0x45, 0x38, 0x50, 0x90]];
/// 8 MiB, the largest window that every decoder should support (RFC 8878, 3.1.1.1.2).
const ZSTD_WINDOW_LOG: u32 = 23;
const GZIP_WINDOW_BITS: u8 = 15;

/// The reason why a step failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The stream violates its format.
    Broken(String),
    /// Says nothing about the stream.
    NoMemory,
}

/// The cost of setting up a member, in bytes of framing; an empty member has 9 to 20 bytes.
const MEMBER_COST: usize = 8 * 1024;

/// Between two members gzip and bzip2 have no state.
pub(super) enum Codec {
    Gzip(Option<Gzip>),
    Bzip2(Option<Bzip2>),
    Zstd { context: DCtx<'static>, is_inside: bool },
}

impl Codec {
    /// The compression that a file's first bytes identify (RFC 1952, RFC 8878, and `BZh` with a digit and the mark of a
    /// block or of the end).
    pub fn of(first: &[u8]) -> Compression {
        match *first {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            // The first four bytes alone could be text.
            [b'B', b'Z', b'h', b'1'..=b'9', ref mark @ ..]
                if BZIP2_MARKS.iter().any(|known| mark.starts_with(known) || known.starts_with(mark)) =>
            {
                Compression::Bzip2
            }
            _ => Compression::None,
        }
    }

    pub fn new(compression: Compression) -> Result<Option<Self>, Fault> {
        Ok(match compression {
            Compression::None => None,
            Compression::Gzip => Some(Self::Gzip(None)),
            Compression::Bzip2 => Some(Self::Bzip2(None)),
            Compression::Zstd => Some(Self::Zstd { context: zstd_context()?, is_inside: false }),
        })
    }

    pub fn compression(&self) -> Compression {
        match self {
            Self::Gzip(_) => Compression::Gzip,
            Self::Bzip2(_) => Compression::Bzip2,
            Self::Zstd { .. } => Compression::Zstd,
        }
    }

    /// The cost of a step, in bytes of framing that take as long.
    pub fn cost(&self, consumed: usize, produced: usize) -> usize {
        let factor = if matches!(self, Self::Bzip2(_)) { 8 } else { 1 };
        let member = if self.is_between_members() { MEMBER_COST } else { 0 };
        factor * (consumed + produced) + member
    }

    /// Whether a file may end here.
    pub fn is_between_members(&self) -> bool {
        match self {
            Self::Gzip(member) => member.is_none(),
            Self::Bzip2(member) => member.is_none(),
            Self::Zstd { is_inside, .. } => !is_inside,
        }
    }

    /// Appends to the output within its capacity, and returns the number of input bytes used. If neither changes, more
    /// input is needed. After an error the codec must not be used any more.
    pub fn decode(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<usize, Fault> {
        if input.is_empty() && self.is_between_members() {
            return Ok(0);
        }
        match self {
            Self::Gzip(member) => decode_gzip(member, input, output),
            Self::Bzip2(member) => decode_bzip2(member, input, output),
            Self::Zstd { context, is_inside } => decode_zstd(context, is_inside, input, output),
        }
    }
}

fn decode_gzip(member: &mut Option<Gzip>, input: &[u8], output: &mut Vec<u8>) -> Result<usize, Fault> {
    let inflate = member.get_or_insert_with(|| Gzip::new_gzip(GZIP_WINDOW_BITS));
    let before = inflate.total_in();
    let status = inflate.decompress_vec(input, output, FlushDecompress::None).map_err(broken)?;
    let consumed = consumed(before, inflate.total_in());
    if status == Status::StreamEnd {
        *member = None;
    }
    Ok(consumed)
}

fn decode_bzip2(member: &mut Option<Bzip2>, input: &[u8], output: &mut Vec<u8>) -> Result<usize, Fault> {
    let stream = member.get_or_insert_with(|| Bzip2::new(false));
    let before = stream.total_in();
    let status = stream.decompress_vec(input, output).map_err(broken)?;
    let consumed = consumed(before, stream.total_in());
    match status {
        bzip2::Status::StreamEnd => *member = None,
        bzip2::Status::MemNeeded => return Err(Fault::NoMemory),
        _ => {}
    }
    Ok(consumed)
}

#[allow(clippy::needless_pass_by_value, reason = "the shape of map_err")]
fn broken(error: impl ToString) -> Fault {
    Fault::Broken(error.to_string())
}

fn consumed(before: u64, after: u64) -> usize {
    usize::try_from(after - before).unwrap_or(usize::MAX)
}

fn zstd_context() -> Result<DCtx<'static>, Fault> {
    let mut context = DCtx::try_create().ok_or(Fault::NoMemory)?;
    context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG)).map_err(zstd_fault)?;
    Ok(context)
}

fn decode_zstd(
    context: &mut DCtx<'static>,
    is_inside: &mut bool,
    input: &[u8],
    output: &mut Vec<u8>,
) -> Result<usize, Fault> {
    let written = output.len();
    let mut input = InBuffer::around(input);
    let mut output = OutBuffer::around_pos(output, written);
    let expected = context.decompress_stream(&mut output, &mut input).map_err(zstd_fault)?;
    // Zero: a frame has ended, and all of it was written.
    *is_inside = expected > 0;
    Ok(input.pos())
}

fn zstd_fault(code: usize) -> Fault {
    match get_error_name(code) {
        "Allocation error : not enough memory" => Fault::NoMemory,
        "Frame requires too much memory for decoding" => {
            broken("its window is larger than 8 MiB; recompress the file without --long and without --ultra")
        }
        name => broken(name),
    }
}

#[cfg(test)]
mod tests {
    use zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode::{
        ZSTD_error_checksum_wrong, ZSTD_error_frameParameter_windowTooLarge, ZSTD_error_memory_allocation,
    };

    use super::*;

    #[test]
    fn a_lack_of_memory_is_not_damage() {
        let fault = |code| zstd_fault(0_usize.wrapping_sub(code as usize));
        assert_eq!(fault(ZSTD_error_memory_allocation), Fault::NoMemory);
        assert!(matches!(fault(ZSTD_error_frameParameter_windowTooLarge), Fault::Broken(why) if why.contains("8 MiB")));
        assert!(matches!(fault(ZSTD_error_checksum_wrong), Fault::Broken(_)));
    }
}
