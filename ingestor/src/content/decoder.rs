//! One compressed stream: bytes are pushed, decompressed pieces are returned, and each call does a bounded amount of
//! work.
//!
//! A stream is a sequence of members. Zeros may follow a member, because tar, tapes and block devices pad files.
//! Anything else after a member is damage, and so is a broken or truncated member.

use bytes::{Buf as _, Bytes};

use super::Compression;
use super::codec::{Codec, Fault, MAGIC_BYTES};

/// The largest decompressed piece.
pub(super) const PIECE_BYTES: usize = 256 * 1024;
const MIN_PIECE_BYTES: usize = 4 * 1024;
/// The usual ratio of compressed JSON, so that the first piece of a small file needs no more memory than it fills.
const USUAL_RATIO: usize = 8;
/// The work after which a call ends, as [`Codec::cost`] counts it.
const STEP_COST: usize = 512 * 1024;
/// The most input passed to a codec at once: a stream may consume much input before it produces output.
const INPUT_BYTES: usize = 32 * 1024;

/// The result of a call.
#[derive(Debug)]
pub(super) enum Progress {
    Piece(Bytes),
    /// No output yet; call again.
    Worked,
    /// More input is needed.
    Hungry,
    Ended,
}

/// The reason why a stream ends early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The stream violates its format.
    Damaged(String),
    /// The stream is valid so far, but must not be read.
    Refused(String),
    NoMemory,
}

pub(super) struct Decoder {
    codec: Codec,
    input: Bytes,
    is_finished: bool,
    output: Vec<u8>,
    /// Input bytes used.
    consumed: u64,
    produced: u64,
    /// The end of the last complete member.
    sound: u64,
    state: State,
}

enum State {
    Decoding,
    Ended,
    Damaged(String),
}

/// The reason why decoding paused.
enum Pause {
    Full,
    Spent,
    Starved,
    /// Other bytes follow a member.
    Trailing,
}

/// The bytes after a member.
enum Next {
    Member,
    /// Zeros, with more after them.
    Padding,
    Other,
    /// None, or too few to decide.
    Unknown,
}

impl Decoder {
    pub fn new(codec: Codec) -> Self {
        Self {
            codec,
            input: Bytes::new(),
            is_finished: false,
            output: Vec::new(),
            consumed: 0,
            produced: 0,
            sound: 0,
            state: State::Decoding,
        }
    }

    pub fn compression(&self) -> Compression {
        self.codec.compression()
    }

    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    pub fn produced(&self) -> u64 {
        self.produced
    }

    /// Must be called only when the stream is hungry: the remaining bytes are then fewer than a magic number.
    pub fn push(&mut self, bytes: Bytes) {
        self.input = if self.input.is_empty() { bytes } else { Bytes::from([&*self.input, &*bytes].concat()) };
    }

    /// Marks the end of the input.
    pub fn finish(&mut self) {
        self.is_finished = true;
    }

    /// Continues; adds the cost to `spent`. Bytes before damage are returned first.
    pub fn step(&mut self, spent: &mut usize) -> Result<Progress, Failure> {
        if matches!(self.state, State::Decoding) {
            match self.decode(spent) {
                Ok(Pause::Full) => return Ok(Progress::Piece(self.take_piece())),
                Ok(Pause::Spent) => return Ok(Progress::Worked),
                Ok(Pause::Starved) if !self.is_finished => return Ok(Progress::Hungry),
                Ok(Pause::Starved) if self.codec.is_between_members() => self.state = State::Ended,
                Ok(Pause::Starved) => self.damaged(&format!("is cut off at byte {}", self.consumed)),
                Ok(Pause::Trailing) => {
                    let name = self.compression().name();
                    self.damaged(&format!("is followed by neither {name} nor zeros"));
                }
                Err(Fault::Broken(what)) => {
                    self.damaged(&format!("is broken at or before byte {}: {what}", self.consumed));
                }
                Err(Fault::NoMemory) => return Err(Failure::NoMemory),
            }
        }
        if !self.output.is_empty() {
            return Ok(Progress::Piece(self.take_piece()));
        }
        match &self.state {
            State::Damaged(message) => Err(Failure::Damaged(message.clone())),
            State::Decoding | State::Ended => Ok(Progress::Ended),
        }
    }

    fn damaged(&mut self, what: &str) {
        let name = self.compression().name();
        let sound = match self.sound {
            0 => String::new(),
            byte => format!("; it is sound up to byte {byte}"),
        };
        self.state = State::Damaged(format!("the {name} stream {what}{sound}"));
    }

    /// Decodes until the piece is full, enough work is done, or the input yields no more output.
    fn decode(&mut self, spent: &mut usize) -> Result<Pause, Fault> {
        if self.output.capacity() == 0 {
            let usual = self.input.len().saturating_mul(USUAL_RATIO);
            self.output.reserve_exact(usual.clamp(MIN_PIECE_BYTES, PIECE_BYTES));
        }
        let enough = spent.saturating_add(STEP_COST);
        while !self.is_full() {
            if *spent >= enough {
                return Ok(Pause::Spent);
            }
            if self.codec.is_between_members() {
                match self.find_member(spent) {
                    Next::Member => {}
                    Next::Padding => continue,
                    Next::Other => return Ok(Pause::Trailing),
                    Next::Unknown => return Ok(Pause::Starved),
                }
            }
            let before = self.output.len();
            let input = &self.input[..self.input.len().min(INPUT_BYTES)];
            let consumed = self.codec.decode(input, &mut self.output)?;
            self.advance(consumed);
            let produced = self.output.len() - before;
            self.produced += produced as u64;
            *spent += self.codec.cost(consumed, produced);
            if consumed == 0 && produced == 0 {
                let is_stuck = !self.input.is_empty();
                return if is_stuck {
                    Err(Fault::Broken("it makes no progress".to_owned()))
                } else {
                    Ok(Pause::Starved)
                };
            }
            if self.codec.is_between_members() {
                self.sound = self.consumed;
            }
        }
        Ok(Pause::Full)
    }

    /// Skips zeros after a member.
    fn find_member(&mut self, spent: &mut usize) -> Next {
        if self.sound > 0 {
            let zeros = self.input.iter().take(INPUT_BYTES).take_while(|byte| **byte == 0).count();
            self.advance(zeros);
            *spent += zeros;
            if zeros == INPUT_BYTES {
                return Next::Padding;
            }
        }
        if self.input.is_empty() || (self.input.len() < MAGIC_BYTES && !self.is_finished) {
            return Next::Unknown;
        }
        if Codec::of(&self.input) == self.compression() { Next::Member } else { Next::Other }
    }

    fn advance(&mut self, bytes: usize) {
        self.input.advance(bytes);
        self.consumed += bytes as u64;
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
