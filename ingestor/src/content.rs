//! The bytes of a landing file, decompressed without being told how they are compressed.
//!
//! - What a file is, its first bytes say: names change when objects are moved, and servers decode on their own.
//!   Gzip, zstd (also when it begins with a skippable frame) and bzip2, each also as several members one after another;
//!   anything else is plain and passes through without a copy.
//! - Pieces are bounded, whatever the compression ratio.
//! - A stream that is broken or cut off is [`ContentError::Damaged`], and only that. Before it is called so the rest of
//!   the file is read, so that a file which changed under the reader comes back as the store's own error instead.
//! - What came before the damage is given out first.
//!
//! The codecs are driven directly and not through readers: one loop bounds the output, keeps the store's errors as they
//! are, and may be dropped at any await.

mod codec;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes};
use common::store::{ObjectReader, StoreError, StoreErrorKind};
use xxhash_rust::xxh3::Xxh3;

use self::codec::{Codec, Fault, MAGIC_BYTES};

/// No decompressed piece is larger.
const PIECE_BYTES: usize = 256 * 1024;
const MIN_PIECE_BYTES: usize = 4 * 1024;
/// The usual ratio of compressed JSON: the first piece of a small file then needs no more memory than it fills.
const USUAL_RATIO: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
    Bzip2,
}

#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The store's own error, such as a file that is another version by now.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file can never be read to its end: its compressed stream is broken or cut off.
    #[error("{0}")]
    Damaged(String),
}

/// See the module's documentation.
pub struct Content {
    raw: Raw,
    compression: Compression,
    decoder: Option<Decoder>,
    /// What [`Content::skip`] left of a piece.
    kept: Option<Bytes>,
}

impl Content {
    /// Reads as much as tells the compression. The reader must begin at the file's first byte.
    ///
    /// # Errors
    /// Those of the reader.
    pub async fn open(reader: Box<dyn ObjectReader>) -> Result<Self, ContentError> {
        let mut raw = Raw::new(reader);
        let compression = Codec::of(&raw.look_ahead(MAGIC_BYTES).await?);
        Ok(Self { raw, compression, decoder: Decoder::of(compression)?, kept: None })
    }

    /// The rest of a file that is known to be plain, from any byte on. Hash and count are those of the rest.
    pub fn plain(reader: Box<dyn ObjectReader>) -> Self {
        Self { raw: Raw::new(reader), compression: Compression::None, decoder: None, kept: None }
    }

    /// The next decompressed bytes, never an empty piece; `None` at the verified end.
    ///
    /// # Errors
    /// Those of the reader, and [`ContentError::Damaged`], which every further call answers too.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ContentError> {
        if let Some(rest) = self.kept.take() {
            return Ok(Some(rest));
        }
        match &mut self.decoder {
            None => Ok(self.raw.next().await?),
            Some(decoder) => decoder.next(&mut self.raw).await,
        }
    }

    /// Drops the next decompressed bytes: how reading goes on inside of a compressed file.
    ///
    /// # Errors
    /// As [`Content::next`]; `Damaged` also if there are not that many.
    pub async fn skip(&mut self, bytes: u64) -> Result<(), ContentError> {
        let mut left = bytes;
        while left > 0 {
            let Some(mut piece) = self.next().await? else {
                return Err(ContentError::Damaged(format!("the content ends {left} bytes before the place to go on")));
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

    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Bytes of the file (as it is stored) that were read so far.
    pub fn raw_bytes(&self) -> u64 {
        self.raw.bytes
    }

    /// The XXH3-128 of the file as it is stored, 32 hexadecimal digits; `None` until its end was reached, be it by a
    /// `None` or by [`ContentError::Damaged`].
    pub fn raw_hash(&self) -> Option<String> {
        self.raw.is_at_end.then(|| format!("{:032x}", self.raw.hash.digest128()))
    }
}

/// The file as it is stored.
struct Raw {
    reader: Box<dyn ObjectReader>,
    /// Read ahead, to be given out first.
    ahead: VecDeque<Bytes>,
    hash: Xxh3,
    bytes: u64,
    is_at_end: bool,
}

impl Raw {
    fn new(reader: Box<dyn ObjectReader>) -> Self {
        Self { reader, ahead: VecDeque::new(), hash: Xxh3::new(), bytes: 0, is_at_end: false }
    }

    /// The first bytes, fewer only if the file has no more.
    async fn look_ahead(&mut self, count: usize) -> Result<Vec<u8>, StoreError> {
        let mut first = Vec::with_capacity(count);
        while first.len() < count {
            let Some(piece) = self.read().await? else { break };
            first.extend(piece.iter().take(count - first.len()));
            self.ahead.push_back(piece);
        }
        Ok(first)
    }

    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        match self.ahead.pop_front() {
            Some(piece) => Ok(Some(piece)),
            None => self.read().await,
        }
    }

    async fn read(&mut self) -> Result<Option<Bytes>, StoreError> {
        while !self.is_at_end {
            match self.reader.next().await? {
                Some(piece) => {
                    self.hash.update(&piece);
                    self.bytes += piece.len() as u64;
                    if !piece.is_empty() {
                        return Ok(Some(piece));
                    }
                }
                None => self.is_at_end = true,
            }
        }
        Ok(None)
    }

    /// Makes sure that all bytes were those of the version that was asked for.
    async fn read_to_end(&mut self) -> Result<(), StoreError> {
        while self.next().await?.is_some() {}
        Ok(())
    }
}

struct Decoder {
    codec: Codec,
    input: Bytes,
    output: Vec<u8>,
    state: State,
}

enum State {
    Decoding,
    Ended,
    Damaged(String),
}

impl Decoder {
    fn of(compression: Compression) -> Result<Option<Self>, ContentError> {
        let codec = Codec::new(compression).map_err(|fault| match fault {
            Fault::Broken(what) => ContentError::Damaged(what),
            Fault::NoMemory => no_memory(),
        })?;
        let decoder = |codec| Self { codec, input: Bytes::new(), output: Vec::new(), state: State::Decoding };
        Ok(codec.map(decoder))
    }

    async fn next(&mut self, raw: &mut Raw) -> Result<Option<Bytes>, ContentError> {
        while matches!(self.state, State::Decoding) {
            match self.decode() {
                Ok(()) if self.is_full() => return Ok(Some(self.take_piece())),
                Ok(()) => self.read_on(raw).await?,
                Err(Fault::Broken(what)) => {
                    let (format, byte) = (self.codec.name(), raw.bytes - self.input.len() as u64);
                    let message = format!("the {format} stream is broken at or before byte {byte}: {what}");
                    self.state = State::Damaged(message);
                }
                Err(Fault::NoMemory) => return Err(no_memory()),
            }
        }
        if !self.output.is_empty() {
            return Ok(Some(self.take_piece()));
        }
        match &self.state {
            State::Damaged(message) => {
                raw.read_to_end().await?;
                Err(ContentError::Damaged(message.clone()))
            }
            State::Decoding | State::Ended => Ok(None),
        }
    }

    /// The input is used up: gets more, or finds out what its end means.
    async fn read_on(&mut self, raw: &mut Raw) -> Result<(), StoreError> {
        if let Some(input) = raw.next().await? {
            self.input = input;
        } else if self.codec.is_between_members() {
            self.state = State::Ended;
        } else {
            let message = format!("the {} stream is cut off at byte {}", self.codec.name(), raw.bytes);
            self.state = State::Damaged(message);
        }
        Ok(())
    }

    /// Decodes until the piece is full or no more comes out of the input.
    fn decode(&mut self) -> Result<(), Fault> {
        if self.output.capacity() == 0 {
            let usual = self.input.len().saturating_mul(USUAL_RATIO);
            self.output.reserve_exact(usual.clamp(MIN_PIECE_BYTES, PIECE_BYTES));
        }
        while !self.is_full() {
            let before = self.output.len();
            let consumed = self.codec.decode(&self.input, &mut self.output)?;
            self.input.advance(consumed);
            if consumed == 0 && self.output.len() == before {
                let is_stuck = !self.input.is_empty();
                return if is_stuck { Err(Fault::Broken("it makes no progress".to_owned())) } else { Ok(()) };
            }
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.output.len() == self.output.capacity()
    }

    /// A file that filled one piece is not small.
    fn take_piece(&mut self) -> Bytes {
        let next = if self.is_full() { Vec::with_capacity(PIECE_BYTES) } else { Vec::new() };
        Bytes::from(std::mem::replace(&mut self.output, next))
    }
}

/// May be better later, and says nothing of the file.
fn no_memory() -> ContentError {
    let message = "no memory for the decoder of a compressed file";
    ContentError::Store(StoreError::new(StoreErrorKind::Transient, "decompress", "", message))
}
