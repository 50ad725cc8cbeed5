//! The bytes of a landing file, decompressed according to its first bytes.
//!
//! - The first bytes decide the format, because names change when objects are moved, and servers decode without notice.
//!   Gzip, zstd (also after a skippable frame) and bzip2 are read, each also as several members in sequence, padded
//!   with zeros, and one within another. Anything else is plain and passes through without a copy.
//! - Unsupported formats are named in the error: a zip archive does not become a file of bad events.
//! - Pieces are bounded, whatever the compression ratio, and so is the decompressed size ([`ExpansionLimits`]).
//! - A broken or truncated stream is [`ContentError::Rejected`]. The rest of the file is read first, so that a file
//!   that changed while it was read returns the store's own error instead.
//! - Bytes before the damage are returned first.
//! - The task yields after about half a millisecond of work ([`crate::pace`]).
//!
//! The codecs are driven directly and not through readers: the state machine ([`levels`]) has no I/O, bounds output and
//! work, keeps the store's errors unchanged, and may be dropped at any await.

mod codec;
mod decoder;
mod expansion;
mod foreign;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod levels;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use common::store::{ObjectReader, StoreError, StoreErrorKind};
use xxhash_rust::xxh3::Xxh3;

pub use self::expansion::{ExpansionLimits, RATIO_JUDGED_FROM_BYTES};

use self::decoder::{Failure, Progress};
use self::levels::Levels;
use crate::pace::Pace;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
    Bzip2,
}

impl Compression {
    fn name(self) -> &'static str {
        match self {
            Self::None => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The store's own error, such as a file that has another version now.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file cannot be read to its end, and the reason: its compressed stream is broken or truncated, its format is
    /// not supported, or it exceeds the limits.
    #[error("{0}")]
    Rejected(String),
}

/// See the module's documentation.
pub struct Content {
    raw: Raw,
    levels: Levels,
    pace: Pace,
    /// The rest of a piece after [`Content::skip`].
    kept: Option<Bytes>,
}

impl Content {
    /// Reads until there is output. The reader must begin at the file's first byte.
    ///
    /// # Errors
    /// As [`Content::next`].
    pub async fn open(reader: Box<dyn ObjectReader>, limits: ExpansionLimits) -> Result<Self, ContentError> {
        let mut content = Self::new(reader, Levels::new(limits));
        if let Some(piece) = content.next().await? {
            content.kept = Some(piece);
        }
        Ok(content)
    }

    /// The rest of a plain file, from any byte on. Hash and count cover only that rest.
    pub fn plain(reader: Box<dyn ObjectReader>) -> Self {
        Self::new(reader, Levels::plain())
    }

    fn new(reader: Box<dyn ObjectReader>, levels: Levels) -> Self {
        Self { raw: Raw::new(reader), levels, pace: Pace::new(), kept: None }
    }

    /// The next decompressed bytes, never an empty piece; `None` at the verified end.
    ///
    /// # Errors
    /// Those of the reader, and [`ContentError::Rejected`], which every further call returns too.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ContentError> {
        if let Some(rest) = self.kept.take() {
            return Ok(Some(rest));
        }
        loop {
            // Before the next piece is taken, so that none is lost if this future is dropped.
            self.pace.spend(self.levels.take_spent()).await;
            match self.levels.step() {
                Ok(Progress::Piece(piece)) => return Ok(Some(piece)),
                Ok(Progress::Worked) => {}
                Ok(Progress::Ended) => return Ok(None),
                Ok(Progress::Hungry) => match self.raw.next(&mut self.pace).await? {
                    Some(piece) => self.levels.push(piece),
                    None => self.levels.finish(),
                },
                Err(failure) => return Err(self.failed(failure).await?),
            }
        }
    }

    /// Reads the rest of a damaged stream, to verify that all bytes were those of the requested version.
    async fn failed(&mut self, failure: Failure) -> Result<ContentError, StoreError> {
        match failure {
            Failure::Damaged(message) => {
                while self.raw.next(&mut self.pace).await?.is_some() {}
                Ok(ContentError::Rejected(message))
            }
            Failure::Refused(message) => Ok(ContentError::Rejected(message)),
            Failure::NoMemory => Err(no_memory()),
        }
    }

    /// Drops the next decompressed bytes, in order to resume inside a compressed file.
    ///
    /// # Errors
    /// As [`Content::next`]; also `Rejected` if the content is shorter.
    pub async fn skip(&mut self, bytes: u64) -> Result<(), ContentError> {
        let mut left = bytes;
        while left > 0 {
            let Some(mut piece) = self.next().await? else {
                return Err(ContentError::Rejected(format!(
                    "the content ends {left} bytes before the position to resume from"
                )));
            };
            match usize::try_from(left) {
                Ok(within) if within < piece.len() => {
                    self.kept = Some(piece.split_off(within));
                    left = 0;
                }
                _ => left -= piece.len() as u64,
            }
        }
        Ok(())
    }

    /// The compression of the file itself; a compressed stream may contain another one.
    pub fn compression(&self) -> Compression {
        self.levels.compression().unwrap_or(Compression::None)
    }

    /// Bytes of the stored file read so far.
    pub fn raw_bytes(&self) -> u64 {
        self.raw.bytes
    }

    /// The XXH3-128 of the stored file, 32 hexadecimal digits; `None` until its end was reached, by a `None` or by
    /// damage.
    pub fn raw_hash(&self) -> Option<String> {
        self.raw.is_at_end.then(|| format!("{:032x}", self.raw.hash.digest128()))
    }
}

/// The file as stored.
struct Raw {
    reader: Box<dyn ObjectReader>,
    hash: Xxh3,
    bytes: u64,
    is_at_end: bool,
    /// Bytes of the last piece not yet counted for the pace.
    unspent: usize,
}

impl Raw {
    fn new(reader: Box<dyn ObjectReader>) -> Self {
        Self { reader, hash: Xxh3::new(), bytes: 0, is_at_end: false, unspent: 0 }
    }

    async fn next(&mut self, pace: &mut Pace) -> Result<Option<Bytes>, StoreError> {
        while !self.is_at_end {
            pace.spend(std::mem::take(&mut self.unspent)).await;
            match self.reader.next().await? {
                Some(piece) => {
                    self.hash.update(&piece);
                    self.bytes += piece.len() as u64;
                    self.unspent = piece.len().max(1);
                    if !piece.is_empty() {
                        return Ok(Some(piece));
                    }
                }
                None => self.is_at_end = true,
            }
        }
        Ok(None)
    }
}

/// A temporary failure that says nothing about the file.
fn no_memory() -> StoreError {
    StoreError::new(StoreErrorKind::Transient, "decompress", "", "no memory for the decoder of a compressed file")
}

/// Decompresses a file in memory, given in pieces of at most `piece_bytes` (more than 0), and passes on the output:
/// [`Content`] without I/O.
///
/// # Errors
/// The reason why a landing file with these bytes would be quarantined.
pub fn unpack(
    file: &[u8],
    piece_bytes: usize,
    limits: ExpansionLimits,
    mut take: impl FnMut(&[u8]),
) -> Result<(), ContentError> {
    let (mut levels, mut pieces) = (Levels::new(limits), file.chunks(piece_bytes.max(1)));
    loop {
        match levels.step() {
            Ok(Progress::Piece(piece)) => take(&piece),
            Ok(Progress::Worked) => {}
            Ok(Progress::Ended) => return Ok(()),
            Ok(Progress::Hungry) => match pieces.next() {
                Some(piece) => levels.push(Bytes::copy_from_slice(piece)),
                None => levels.finish(),
            },
            Err(Failure::Damaged(message) | Failure::Refused(message)) => return Err(ContentError::Rejected(message)),
            Err(Failure::NoMemory) => return Err(no_memory().into()),
        }
    }
}
